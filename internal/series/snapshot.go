package series

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// tailLimit is how much of an assignment's journal a scan likes to take into memory.
// Beyond it the journal is rolled first, unless segments are being changed already;
// then a scan takes up to tailMost.
const (
	tailLimit = 8 << 20
	tailMost  = 64 << 20
)

// snapshot is a stream at one moment: the chunks that one transaction of the
// catalog names, and what the journal holds beyond the rolled position of the same.
type snapshot struct {
	s         *Series
	name      streamName
	span      holdfast.Span
	since     int64       // what arrived before is not seen
	chunks    []openChunk // that overlap span
	view      *tailView
	from      journal.Pos // the rolled position
	tail      []holdfast.Reading
	withheld  func(Cell) bool // what scans pass over; nil: nothing
	free      func()
	cache     uint64      // what the cache was when the keys were taken, or before
	overtaken atomic.Bool // by an erasure
}

// openChunk is a chunk whose extent is open.
type openChunk struct {
	row    *chunkRow // shared: not to be changed
	cipher *seal.Cipher
}

// leave lets go of what the snapshot holds still. It may be called again.
func (v *snapshot) leave() {
	if v.free == nil {
		return
	}
	v.view.release()
	v.s.readers.left(v)
	v.free()
	v.free = nil
}

// check fails if an erasure took of the stream what v may have read already.
func (v *snapshot) check() error {
	if v.overtaken.Load() {
		return errOvertaken
	}
	return nil
}

var errOvertaken = holdfast.Errorf(holdfast.Unavailable, "readings were erased while they were read, ask again")

// cursor merges all of the snapshot. readTail comes before it.
func (v *snapshot) cursor() *cursor {
	c := &cursor{span: v.span, since: v.since}
	for _, o := range v.chunks {
		c.addChunk(o)
	}
	c.addRows(v.tail)
	return c
}

// snapshots is how often a snapshot is taken again because keys changed in the
// middle of it.
const snapshots = 3

// snapshot returns a stream as it is now, without the readings of its tail.
func (s *Series) snapshot(ctx context.Context, n streamName, span holdfast.Span, since int64) (*snapshot, error) {
	v, err := s.wholeSnapshot(ctx, n, span, since)
	if err != nil {
		return nil, err
	}
	if hides := s.withheld.Load(); hides != nil {
		v.withheld = *hides
		v.chunks = slices.DeleteFunc(v.chunks, func(o openChunk) bool { return v.withheld(o.row.Cell) })
	}
	return v, nil
}

// wholeSnapshot is snapshot with what is withheld.
func (s *Series) wholeSnapshot(ctx context.Context, n streamName, span holdfast.Span, since int64) (*snapshot, error) {
	if err := s.shorten(ctx, n.assignment); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		v, err := s.trySnapshot(ctx, n, span, since)
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, errKeysChanged) || try == snapshots {
			return nil, err
		}
	}
}

// shorten keeps the tail of an assignment within what a scan may take. It does not
// wait for others: who holds a Rewrite may scan.
func (s *Series) shorten(ctx context.Context, a holdfast.AssignmentID) error {
	if s.tail.sizeOf(a) <= tailLimit {
		return nil
	}
	select {
	case s.work <- struct{}{}:
		defer s.unlock()
		return s.clearAndRoll(ctx)
	default:
	}
	if s.tail.sizeOf(a) > tailMost {
		return holdfast.Errorf(holdfast.Unavailable, "too much of assignment %s is still in the journal, try again", a)
	}
	return nil
}

// trySnapshot narrates an order that matters. The scan enters, so that no chunk it
// may see is zeroed. It takes the tail before the rows: memory drops a record only
// after the rows that it became are there, so that what these do not have yet is
// in the tail; what both have is told by the rolled position.
func (s *Series) trySnapshot(ctx context.Context, n streamName, span holdfast.Span, since int64) (_ *snapshot, err error) {
	v := &snapshot{s: s, name: n, span: span, since: since, free: s.readers.enter(), view: s.tail.view(n.assignment), cache: s.cache.now()}
	s.readers.opened(v)
	defer func() {
		if err != nil {
			v.leave()
		}
	}()
	rows, from, version, ok := s.positions.get(n)
	if !ok {
		if rows, from, err = s.lookUp(ctx, n); err != nil {
			return nil, err
		}
		s.positions.put(n, rows, from, version)
	}
	v.from = from
	if v.chunks, err = s.openCells(ctx, rows, span); since > 0 {
		v.chunks = slices.DeleteFunc(v.chunks, func(o openChunk) bool { return o.row.extent.expired(since) })
	}
	return v, err
}

// shows reports whether what a record of the journal has of the stream may be seen.
func (v *snapshot) shows(h *Header) bool {
	return h.Arrival >= v.since && (v.withheld == nil || !v.withheld(Cell{v.name.assignment, v.name.stream, h.Bucket}))
}

// Withhold has every scan pass over the cells that hides names, whose keys are about to
// die, and over what the journal has that goes there. It is asked for each chunk and each
// record, and called from many goroutines.
func (s *Series) Withhold(hides func(Cell) bool) { s.withheld.Store(&hides) }

// lookUp reads the rows of a stream and opens the extents of those under the key
// in force.
func (s *Series) lookUp(ctx context.Context, n streamName) (rows []chunkRow, from journal.Pos, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		if from, _, err = rolled(ctx, tx); err != nil {
			return err
		}
		rows, err = collect(chunkRows(ctx, tx, ofStream, n.assignment, n.stream))
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read catalog: %w", err)
	}
	for cell := range cells(rows) {
		c, err := s.cellCipher(ctx, cell[0].Cell)
		if err != nil {
			return nil, 0, err
		}
		for i := range cell {
			r := &cell[i]
			if c == nil || r.key != c.ID() {
				continue
			}
			if r.extent, err = r.openExtent(c); err != nil {
				return nil, 0, err
			}
			r.opened, r.box = true, nil
		}
	}
	return rows, from, nil
}

// readTail decodes the tail's readings in the span, in order. The journal may go
// then, as far as it is up to v.
func (v *snapshot) readTail(ctx context.Context) error {
	if v.view.bytes == 0 {
		return nil
	}
	s := v.s
	o := newOpener(s, true)
	var r record
	for pos := range v.view.positions(v.from) {
		var err error
		if r.data, err = s.log.At(pos); err == nil {
			err = o.record(ctx, &r)
		}
		if errors.Is(err, vault.ErrRetired) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open journal record at position %d: %w", pos, err)
		}
		if !v.shows(&r.header) {
			continue
		}
		for i := range r.content.Rows {
			if x := &r.content.Rows[i]; x.Stream == v.name.stream && v.span.Contains(x.Time) {
				v.tail = append(v.tail, x.Reading)
			}
		}
	}
	v.view.release()
	sortByTime(v.tail)
	return nil
}

// errKeysChanged says that a chunk is under a key that is not in force: an erasure
// destroyed it and has not removed the chunk yet, or the snapshot is older than
// the keys.
var errKeysChanged = holdfast.Errorf(holdfast.Unavailable, "an erasure is under way, try again")

// cells yields rows that stand in the order of the table by cell.
func cells(rows []chunkRow) iter.Seq[[]chunkRow] {
	return func(yield func([]chunkRow) bool) {
		for len(rows) > 0 {
			n := 1
			for n < len(rows) && rows[n].Cell == rows[0].Cell {
				n++
			}
			if !yield(rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

// openCells picks of each cell the chunks under the key in force that overlap
// span. In most cases all are under that key; while chunks are resealed it is what
// was there before, or what is pending, by which key the vault has.
func (s *Series) openCells(ctx context.Context, rows []chunkRow, span holdfast.Span) (out []openChunk, err error) {
	for cell := range cells(rows) {
		if out, err = s.openCell(ctx, out, cell, span); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// cellCipher returns the cipher in force, nil if the cell's key was destroyed.
func (s *Series) cellCipher(ctx context.Context, c Cell) (*seal.Cipher, error) {
	cipher, err := s.keys.StreamCipher(ctx, c.Assignment, c.Bucket, c.Stream)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take key of stream %s in bucket %d: %w", c.Stream, c.Bucket, err)
	}
	return cipher, nil
}

func (s *Series) openCell(ctx context.Context, out []openChunk, rows []chunkRow, span holdfast.Span) ([]openChunk, error) {
	cipher, err := s.cellCipher(ctx, rows[0].Cell)
	if cipher == nil {
		return out, err
	}
	key := cipher.ID()
	swapped, other := false, false
	for i := range rows {
		r := &rows[i]
		if r.key != key {
			other = other || !r.pending
			continue
		}
		swapped = swapped || r.pending
		if !r.opened { // rows may be shared
			e, err := r.openExtent(cipher)
			if errors.Is(err, seal.ErrWiped) {
				return nil, errKeysChanged
			}
			if err != nil {
				return nil, err
			}
			r = new(*r)
			r.extent, r.opened = e, true
		}
		if r.extent.times.Overlaps(span) {
			out = append(out, openChunk{r, cipher})
		}
	}
	if other && !swapped {
		return nil, errKeysChanged
	}
	return out, nil
}

// unreadable tells damage from an erasure that overtook the scan.
func (s *Series) unreadable(ctx context.Context, r *chunkRow, cause error) error {
	if errors.Is(cause, seal.ErrWiped) {
		return errOvertaken
	}
	rows, err := s.cellRows(ctx, r.Cell)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(q chunkRow) bool { return q.id == r.id }) {
		return errOvertaken
	}
	return r.damaged(cause)
}
