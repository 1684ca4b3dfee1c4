package series

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// rig is a Series over real stores in a folder, and an oracle that knows what was
// sent.
type rig struct {
	*Series
	t    testing.TB
	dir  string
	keys *keeper
	opt  Options
	size int64 // of journal segments

	writer  [16]byte
	counter uint64
	month   int64 // arrivals are this much later

	mu   sync.Mutex
	sent map[of][]holdfast.Reading // in order of arrival
}

type of struct {
	a holdfast.AssignmentID
	s holdfast.StreamID
}

func newRig(t testing.TB, o Options) *rig { return newSizedRig(t, o, 64<<10) }

func newSizedRig(t testing.TB, o Options, journalSegment int64) *rig {
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	r := &rig{t: t, dir: t.TempDir(), keys: newKeeper(), opt: o, size: journalSegment, sent: map[of][]holdfast.Reading{}}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	t := r.t
	t.Helper()
	for _, d := range []string{"catalog", "journal"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	db, err := catalog.Open(context.Background(), filepath.Join(r.dir, "catalog"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log, err := journal.OpenFile(filepath.Join(r.dir, "journal"), journal.Options{SegmentSize: r.size})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.OpenDir(filepath.Join(r.dir, "segments"))
	if err != nil {
		t.Fatal(err)
	}
	r.Series = New(db, log, blobs, r.keys, r.opt)
	rand.Read(r.writer[:])
}

func (r *rig) close() {
	r.log.Close()
	r.blobs.(*blob.Dir).Close()
	r.db.Close()
}

// restart ends the process, so to speak, and begins another.
func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.open()
	if err := r.Recover(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
}

// append makes a record durable and observed.
func (r *rig) append(h Header, content *Content) {
	r.t.Helper()
	if err := r.try(h, content); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) try(h Header, content *Content) error {
	r.mu.Lock()
	r.counter++
	h.Type, h.Writer, h.Counter = Readings, r.writer, r.counter
	r.mu.Unlock()
	record, _, _ := AppendRecord(nil, nil, h, content, r.keys.journalCipher(h.Assignment, h.Bucket))
	h.Key = r.keys.journalCipher(h.Assignment, h.Bucket).ID()
	done := make(chan error, 1)
	r.log.Append(record, func(pos journal.Pos, err error) {
		if err == nil {
			r.Observe(h, content.Rows, pos, pos+journal.Pos(len(record)))
		}
		done <- err
	})
	return <-done
}

// send sends readings of one stream in a record of its own.
func (r *rig) send(a holdfast.AssignmentID, s holdfast.StreamID, arrival int64, readings ...holdfast.Reading) {
	r.t.Helper()
	content := &Content{}
	for _, x := range readings {
		content.Rows = append(content.Rows, Row{s, x})
	}
	r.append(Header{Assignment: a, Bucket: seal.BucketOf(arrival, false), Arrival: arrival}, content)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[of{a, s}] = append(r.sent[of{a, s}], readings...)
}

// want is what the oracle says of a stream.
func (r *rig) want(o of, span holdfast.Span) (out []holdfast.Reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := slices.Clone(r.sent[o])
	slices.SortStableFunc(rows, func(a, b holdfast.Reading) int { return cmp.Compare(a.Time, b.Time) })
	for i, x := range rows {
		repeat := false
		for j := i - 1; j >= 0 && rows[j].Time == x.Time; j-- {
			repeat = repeat || x.Repeats(rows[j])
		}
		if !repeat && span.Contains(x.Time) {
			out = append(out, x)
		}
	}
	return out
}

func (r *rig) scan(o of, span holdfast.Span) []holdfast.Reading {
	r.t.Helper()
	rows, err := collect(r.Scan(r.t.Context(), o.a, o.s, span))
	if err != nil {
		r.t.Fatal(err)
	}
	return rows
}

// check compares every stream with the oracle.
func (r *rig) check(when string) {
	r.t.Helper()
	for o := range r.sent {
		if d := differ(r.scan(o, holdfast.Always), r.want(o, holdfast.Always)); d != "" {
			r.t.Fatalf("%s: stream %x: %s", when, o.s[15], d)
		}
	}
}

func differ(got, want []holdfast.Reading) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("row %d of %d: got %+v, want %+v", i, len(want), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d rows, want %d", len(got), len(want))
	}
	return ""
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) roll()  { r.t.Helper(); r.must(r.Roll(r.t.Context())) }
func (r *rig) merge() { r.t.Helper(); r.must(r.Merge(r.t.Context())) }

func (r *rig) count(query string) (n int) {
	r.t.Helper()
	r.must(r.db.Read(r.t.Context(), func(tx *sql.Tx) error { return tx.QueryRow(query).Scan(&n) }))
	return n
}

func (r *rig) exec(statement string) {
	r.t.Helper()
	r.must(r.db.Write(r.t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(statement); return err }))
}

// tidy checks that the folder holds the segments that the catalog names, that
// their sums are right, and that what no chunk names is zeros.
func (r *rig) tidy(when string) {
	r.t.Helper()
	files, err := collect(r.blobs.List(r.t.Context()))
	r.must(err)
	if n := r.count(`SELECT count(*) FROM segment`); n != len(files) {
		r.t.Errorf("%s: %d segments in the catalog, %d in the folder", when, n, len(files))
	}
	for _, q := range []string{
		`SELECT count(*) FROM segment WHERE live <= 0 OR state <> 1`,
		`SELECT count(*) FROM dead_range`,
		`SELECT count(*) FROM dead_owner`,
		`SELECT count(*) FROM chunk WHERE pending <> 0`,
		`SELECT count(*) FROM chunk WHERE segment NOT IN (SELECT id FROM segment)`,
		`SELECT count(*) FROM segment s WHERE live <> (SELECT count(*) FROM chunk c WHERE c.segment = s.id)
		 OR live_bytes <> (SELECT sum(size + summary + arrivals) FROM chunk c WHERE c.segment = s.id)`,
	} {
		if n := r.count(q); n != 0 {
			r.t.Errorf("%s: %s = %d", when, q, n)
		}
	}
	var rows []chunkRow
	r.must(r.db.Read(r.t.Context(), func(tx *sql.Tx) (err error) {
		rows, err = collect(chunkRows(r.t.Context(), tx, `1 = 1`))
		return err
	}))
	bySegment := map[holdfast.BlobID][]chunkRow{}
	for _, row := range rows {
		bySegment[row.blob] = append(bySegment[row.blob], row)
	}
	for id, rows := range bySegment {
		data, err := os.ReadFile(r.segmentPath(id))
		r.must(err)
		clear(data[:len(segmentMagic)])
		for _, row := range rows {
			clear(data[row.at : row.at+row.bytes()])
		}
		if slices.ContainsFunc(data, func(b byte) bool { return b != 0 }) {
			r.t.Errorf("%s: segment %s holds bytes that no chunk names", when, id)
		}
	}
}

func (r *rig) segmentPath(id holdfast.BlobID) string {
	name := id.String()
	return filepath.Join(r.dir, "segments", name[:1], name[1:2], name)
}

var errCrash = errors.New("crash")

// crashAt makes the nth occurrence of a step the last thing that happens.
func (r *rig) crashAt(step string, n int) {
	r.fault = func(name string) error {
		if name == step {
			if n--; n == 0 {
				return errCrash
			}
		}
		return nil
	}
}

func number(at int64, f float64) holdfast.Reading {
	return holdfast.Reading{Time: at, Value: holdfast.NumberValue(f)}
}
