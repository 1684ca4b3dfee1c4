package backup

import (
	"bytes"
	"database/sql"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// catalogOf makes a catalog with statements of somebody else.
func catalogOf(t *testing.T, statements ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, catalog.File))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range append([]string{`CREATE TABLE segment (id INTEGER, blob BLOB, bytes INTEGER)`}, statements...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return dir
}

// A catalog that was made by somebody else sizes no buffer and leads nowhere.
func TestCatalogsThatThereCantBe(t *testing.T) {
	const besides = "a segment that the list has not"
	const table = `CREATE TABLE chunk (segment INTEGER, at INTEGER, size INTEGER, summary INTEGER, arrivals INTEGER)`
	id := "X'" + strings.Repeat("01", 16) + "'"
	one := func(bytes string, chunks ...string) []string {
		return []string{table, `INSERT INTO segment VALUES (1, ` + id + `, ` + bytes + `)`, `INSERT INTO chunk VALUES ` + strings.Join(chunks, ", ")}
	}
	f, err := OpenFolder(newDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for what, statements := range map[string][]string{
		"a segment of a terabyte":            one("1 << 40", "(1, 8, 92, 0, 0)"),
		"a segment of fewer than no bytes":   one("-1", "(1, 8, 92, 0, 0)"),
		"a chunk of fewer than no bytes":     one("100", "(1, 8, -92, 0, 0)"),
		"a chunk of no bytes":                one("100", "(1, 8, 0, 0, 0)"),
		"a chunk behind the end":             one("100", "(1, 8, 93, 0, 0)"),
		"a chunk before the beginning":       one("100", "(1, -1, 50, 0, 0)"),
		"a chunk beyond all numbers":         one("9223372036854775807", "(1, 9223372036854775807, 1, 0, 0)"),
		"a summary that is beyond them":      one("100", "(1, 8, 9223372036854775807, 9223372036854775807, 0)"),
		"chunks in each other":               one("100", "(1, 8, 50, 0, 0)", "(1, 20, 50, 0, 0)"),
		besides:                              append(one("100", "(1, 8, 92, 0, 0)"), `INSERT INTO segment VALUES (2, X'`+strings.Repeat("02", 16)+`', 100)`, `INSERT INTO chunk VALUES (2, 8, 92, 0, 0)`),
		"no segment":                         {table},
		"a segment with another id":          {table, `INSERT INTO segment VALUES (1, X'` + strings.Repeat("09", 16) + `', 100)`, `INSERT INTO chunk VALUES (1, 8, 92, 0, 0)`},
		"an id that is a text":               {table, `INSERT INTO segment VALUES (1, '../../../../x', 100)`, `INSERT INTO chunk VALUES (1, 8, 92, 0, 0)`},
		"no chunks at all, only the segment": {`CREATE TABLE other (x)`},
	} {
		dir := catalogOf(t, statements...)
		to, err := blob.OpenDir(filepath.Join(t.TempDir(), "blobs"))
		if err != nil {
			t.Fatal(err)
		}
		// What it is to be: a segment of 100 bytes, all of them named.
		h := series.Held{Blob: holdfast.BlobID(bytes.Repeat([]byte{1}, 16)), Bytes: 100, Ranges: []series.Range{{At: 0, Size: 100}}}
		if what == "a segment of a terabyte" {
			h.Bytes = 1 << 40
		}
		p := segmentPart(&h)
		r := Reader{f: f, ids: identities(t), Statement: Statement{Key: testKey}, entries: []Entry{{Kind: KindSegment, Size: p.Size, ID: p.ID, File: strings.Repeat("a", nameLength) + "-" + strings.Repeat("a", tagLength)}}}
		if err := r.FetchSegments(t.Context(), dir, to, nil); err == nil || what != besides && strings.Contains(err.Error(), "is missing") {
			t.Errorf("%s: it is looked for: %v", what, err)
		}
		to.Close()
	}
	// None of ours has views, which could have rows without an end.
	for _, s := range []string{
		`CREATE VIEW chunk AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 1 AS segment, 8 * i AS at, 1 AS size, 0 AS summary, 0 AS arrivals FROM n`,
		`CREATE TRIGGER t AFTER INSERT ON segment BEGIN DELETE FROM segment; END`,
	} {
		if err := plainTables(t.Context(), catalogOf(t, s)); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%.20s: %v", s, err)
		}
	}
	if err := plainTables(t.Context(), catalogOf(t, table)); err != nil {
		t.Errorf("plain tables: %v", err)
	}
}

func TestSpread(t *testing.T) {
	for _, step := range []int{1, 3, 7, 100} {
		s := &spread{to: make([]byte, 20), ranges: []series.Range{{At: 0, Size: 4}, {At: 6, Size: 1}, {At: 10, Size: 5}}}
		from := []byte("abcdefghijKL") // two too many, for the reader to see
		for at := 0; at < len(from); at += step {
			p := from[at:min(at+step, len(from))]
			if n, err := s.Write(p); n != len(p) || err != nil {
				t.Fatalf("step %d: %d of %d bytes, %v", step, n, len(p), err)
			}
		}
		if want := "abcd\x00\x00e\x00\x00\x00fghij\x00\x00\x00\x00\x00"; string(s.to) != want {
			t.Errorf("step %d: %q", step, s.to)
		}
	}
}

func TestTalliesAreReadInParts(t *testing.T) {
	want := []series.Tally{{Assignment: holdfast.AssignmentID{1}, Stream: holdfast.StreamID{2}, Chunks: 3, Readings: math.MaxInt64}, {Chunks: 1 << 31}}
	text := []byte(tallyMagic)
	for _, one := range want {
		text = appendTally(text, one)
	}
	for _, step := range []int{1, 5, tallySize, 1000} {
		got := new(tallies)
		for at := 0; at < len(text); at += step {
			if _, err := got.Write(text[at:min(at+step, len(text))]); err != nil {
				t.Fatal(err)
			}
		}
		if !got.begun || len(got.left) > 0 || len(got.all) != 2 || got.all[0] != want[0] || got.all[1] != want[1] {
			t.Errorf("step %d: %+v", step, got)
		}
	}
	if _, err := new(tallies).Write([]byte("hftal\x00\x00\x02")); err == nil {
		t.Error("a newer tally is read")
	}
}
