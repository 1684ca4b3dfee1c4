package series

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"

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

// Scan yields the readings of a stream in span: by time, equal times in order of
// arrival, repeats once. It sees one moment: all that was observed before the
// call, and nothing later. It ends after the first error; a damaged chunk's
// names segment and offset.
func (s *Series) Scan(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID, span holdfast.Span) iter.Seq2[holdfast.Reading, error] {
	return func(yield func(holdfast.Reading, error) bool) {
		snap, err := s.snapshot(ctx, a, stream)
		if err != nil {
			yield(holdfast.Reading{}, fmt.Errorf("scan stream %s: %w", stream, err))
			return
		}
		defer snap.leave()
		more := true
		err = snap.cursor(span).each(ctx, func(r holdfast.Reading) bool {
			more = yield(r, nil)
			return more
		})
		if err != nil && more {
			yield(holdfast.Reading{}, fmt.Errorf("scan stream %s: %w", stream, err))
		}
	}
}

// Extent is what a stream holds, without opening its chunks. Rows counts repeats
// across chunks as often as they were kept.
type Extent struct {
	Rows        uint64
	First, Last int64 // times, if Rows > 0
}

// Extent returns how much there is of a stream.
func (s *Series) Extent(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID) (Extent, error) {
	snap, err := s.snapshot(ctx, a, stream)
	if err != nil {
		return Extent{}, fmt.Errorf("measure stream %s: %w", stream, err)
	}
	defer snap.leave()
	var x Extent
	for _, c := range snap.chunks {
		x.add(uint64(c.extent.rows), c.extent.times)
	}
	if n := len(snap.tail); n > 0 {
		x.add(uint64(n), holdfast.Span{From: snap.tail[0].Time, To: snap.tail[n-1].Time})
	}
	return x, nil
}

func (x *Extent) add(rows uint64, times holdfast.Span) {
	if x.Rows == 0 {
		x.First, x.Last = times.From, times.To
	}
	x.Rows += rows
	x.First, x.Last = min(x.First, times.From), max(x.Last, times.To)
}

// Latest returns the reading with the latest time, of equal times the last to
// arrive; false if there is none.
func (s *Series) Latest(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID) (latest holdfast.Reading, ok bool, err error) {
	snap, err := s.snapshot(ctx, a, stream)
	if err != nil {
		return latest, false, fmt.Errorf("find latest reading of stream %s: %w", stream, err)
	}
	defer snap.leave()
	var x Extent
	for _, c := range snap.chunks {
		x.add(1, c.extent.times)
	}
	if n := len(snap.tail); n > 0 {
		x.add(1, holdfast.Span{From: snap.tail[0].Time, To: snap.tail[n-1].Time})
	}
	if x.Rows == 0 {
		return latest, false, nil
	}
	err = snap.cursor(holdfast.Span{From: x.Last, To: x.Last}).each(ctx, func(r holdfast.Reading) bool {
		latest, ok = r, true
		return true
	})
	if err != nil {
		return latest, false, fmt.Errorf("find latest reading of stream %s: %w", stream, err)
	}
	return latest, ok, nil
}

// snapshot is a stream at one moment: the chunks that one read of the catalog
// names, and what the journal holds beyond the rolled position of the same read.
type snapshot struct {
	s      *Series
	chunks []openChunk
	tail   []holdfast.Reading
	leave  func()
}

type openChunk struct {
	row    chunkRow
	cipher *seal.Cipher
	extent extent
}

func (v *snapshot) cursor(span holdfast.Span) *cursor {
	c := &cursor{s: v.s, span: span}
	for i := range v.chunks {
		c.addChunk(&v.chunks[i].row, v.chunks[i].cipher, v.chunks[i].extent)
	}
	c.addRows(v.tail)
	return c
}

// snapshots is how often a snapshot is taken again because keys changed in the
// middle of it.
const snapshots = 3

func (s *Series) snapshot(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID) (*snapshot, error) {
	if err := s.shorten(ctx, a); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		v, err := s.trySnapshot(ctx, a, stream)
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
// may see is zeroed. It takes the tail before the catalog: memory drops a record
// only after the transaction that rolled it, so that what the catalog does not
// have yet is in the tail; what both have is told by the rolled position.
func (s *Series) trySnapshot(ctx context.Context, a holdfast.AssignmentID, stream holdfast.StreamID) (v *snapshot, err error) {
	leave := s.readers.enter()
	defer func() {
		if err != nil {
			leave()
		}
	}()
	view := s.tail.view(a)
	defer view.release()
	var rows []chunkRow
	var from journal.Pos
	err = s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		if from, _, err = rolled(ctx, tx); err != nil {
			return err
		}
		rows, err = collect(chunkRows(ctx, tx, ofStream, a, stream))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	v = &snapshot{s: s, leave: leave}
	if v.tail, err = s.readTail(ctx, view, from, stream); err != nil {
		return nil, err
	}
	v.chunks, err = s.openCells(ctx, rows)
	return v, err
}

// readTail decodes the tail's readings of a stream, in order.
func (s *Series) readTail(ctx context.Context, view *tailView, from journal.Pos, stream holdfast.StreamID) (rows []holdfast.Reading, err error) {
	o := opener{s: s, ciphers: map[seal.KeyID]*seal.Cipher{}}
	var r record
	for _, e := range view.entries {
		if e.pos < from {
			continue
		}
		if r.data, err = s.log.At(e.pos); err == nil {
			err = o.record(ctx, &r)
		}
		if errors.Is(err, vault.ErrRetired) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open journal record at position %d: %w", e.pos, err)
		}
		for i := range r.content.Rows {
			if x := &r.content.Rows[i]; x.Stream == stream {
				rows = append(rows, x.Reading)
			}
		}
	}
	sortByTime(rows)
	return slices.Clip(rows), nil
}

// errKeysChanged says that a chunk is under a key that is not in force: an erasure
// destroyed it and has not removed the chunk yet, or the snapshot is older than
// the keys.
var errKeysChanged = holdfast.Errorf(holdfast.Unavailable, "an erasure is under way, try again")

// openCells picks of each cell the chunks under the key in force and opens their
// extents. In most cases that is all; while chunks are resealed it is what was
// there before, or what is pending, by which key the vault has.
func (s *Series) openCells(ctx context.Context, rows []chunkRow) (out []openChunk, err error) {
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Cell == rows[0].Cell {
			n++
		}
		if out, err = s.openCell(ctx, out, rows[:n]); err != nil {
			return nil, err
		}
		rows = rows[n:]
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

func (s *Series) openCell(ctx context.Context, out []openChunk, rows []chunkRow) ([]openChunk, error) {
	cipher, err := s.cellCipher(ctx, rows[0].Cell)
	if cipher == nil {
		return out, err
	}
	swapped, other := false, false
	for i := range rows {
		r := &rows[i]
		if r.key != cipher.ID() {
			other = other || !r.pending
			continue
		}
		swapped = swapped || r.pending
		e, err := s.openExtent(r, cipher)
		if err != nil {
			return nil, err
		}
		out = append(out, openChunk{*r, cipher, e})
	}
	if other && !swapped {
		return nil, errKeysChanged
	}
	return out, nil
}

// unreadable tells damage from an erasure that overtook the scan.
func (s *Series) unreadable(ctx context.Context, r *chunkRow, cause error) error {
	rows, err := s.cellRows(ctx, r.Cell)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(q chunkRow) bool { return q.id == r.id }) {
		return holdfast.Errorf(holdfast.Unavailable, "readings were erased while they were read, ask again")
	}
	return r.damaged(cause)
}
