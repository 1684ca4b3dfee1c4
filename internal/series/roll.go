package series

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Roll moves what the journal holds at the call into chunks. When it returns nil,
// every record that was durable before is in a segment, and the journal may have
// let go of it.
func (s *Series) Roll(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	return s.clearAndRoll(ctx)
}

func (s *Series) clearAndRoll(ctx context.Context) (err error) {
	defer func() { s.rolling.ended(ctx, err) }()
	if err := s.clear(ctx); err != nil {
		return fmt.Errorf("roll journal: %w", err)
	}
	return s.roll(ctx)
}

func (s *Series) roll(ctx context.Context) error {
	var from journal.Pos
	var number int64
	err := s.db.Read(ctx, func(tx *sql.Tx) (err error) {
		from, number, err = rolled(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("roll journal: %w", err)
	}
	began := time.Now()
	end := s.log.End()
	out := output{s: s}
	if from >= end {
		return s.trim(from) // an earlier attempt may have failed
	}
	for from < end {
		number++
		next, err := s.rollSlice(ctx, &out, from, end, number)
		if err != nil {
			s.stats.rollErrors.Inc()
			return fmt.Errorf("roll journal from position %d: %w", from, err)
		}
		from = next
	}
	s.stats.rolls.Inc()
	s.stats.rollTime.Observe(time.Since(began).Seconds())
	return nil
}

// rollSlice rolls as many records as memory allows and returns where it ended.
func (s *Series) rollSlice(ctx context.Context, out *output, from, end journal.Pos, number int64) (journal.Pos, error) {
	sl := slice{s: s, cells: map[Cell]*sliceCell{}}
	defer func() { wipeColumns(&sl.sorter.out) }()
	next, err := sl.read(ctx, from, end)
	if err != nil {
		return 0, err
	}
	out.reset()
	if err := sl.pack(ctx, out, number); err != nil {
		return 0, err
	}
	if err := out.put(ctx); err != nil {
		return 0, err
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		if err := out.commit(ctx, tx); err != nil {
			return err
		}
		if err := setRolled(ctx, tx, next, number); err != nil {
			return err
		}
		return recordRoll(ctx, tx, number, next, time.Now())
	})
	if err != nil {
		s.positions.reset() // it may be done
		return 0, err
	}
	s.kept.rolled(number, next)
	s.positions.rolled(out.rows, next)
	s.stats.readings.Add(float64(sl.readings))
	s.stats.bytes.Add(float64(out.bytes))
	s.stats.chunks.Add(float64(len(out.rows)))
	s.stats.unmerged.Add(int64(len(out.rows)))
	if err := s.step("rolled"); err != nil {
		return 0, err
	}
	if err := s.trim(next); err != nil {
		return 0, err
	}
	return next, s.step("trimmed")
}

// trim lets go of the journal before pos, as far as no scan still reads it.
func (s *Series) trim(pos journal.Pos) error {
	if err := s.log.Trim(s.tail.drop(pos)); err != nil {
		return fmt.Errorf("trim journal: %w", err)
	}
	return nil
}

// slice is a stretch of the journal, taken apart into cells.
type slice struct {
	s        *Series
	cells    map[Cell]*sliceCell
	sorter   sorter
	rows     []holdfast.Reading // of the one cell that is packed
	bytes    int                // of memory, roughly
	readings int
}

// What a reading takes in memory, roughly, without text.
const readingSize = 40

// read takes records until memory is full or end is reached.
func (sl *slice) read(ctx context.Context, from, end journal.Pos) (journal.Pos, error) {
	for r, err := range sl.s.records(ctx, from, end, true) {
		switch {
		case err != nil:
			return 0, err
		case r.retired:
			sl.s.stats.retired.Inc()
		default:
			if err := sl.take(r.header, r.content.Rows, r.pos); err != nil {
				return 0, err
			}
		}
		if sl.bytes >= sl.s.sliceBytes {
			return r.next, nil
		}
	}
	return end, nil
}

func (sl *slice) take(h Header, rows []Row, pos journal.Pos) error {
	var cell *sliceCell
	for i := range rows {
		r := &rows[i]
		if i == 0 || r.Stream != rows[i-1].Stream {
			at := Cell{h.Assignment, r.Stream, h.Bucket}
			if cell = sl.cells[at]; cell == nil {
				cell = sl.s.cells.Get().(*sliceCell)
				cell.arrival = holdfast.Span{From: h.Arrival, To: h.Arrival}
				sl.cells[at] = cell
				sl.bytes += readingSize
			}
			cell.journal = h.Key
			cell.arrival.From = min(cell.arrival.From, h.Arrival)
			cell.arrival.To = max(cell.arrival.To, h.Arrival)
		}
		if err := cell.add(&r.Reading, pos); err != nil {
			return err
		}
		sl.bytes += readingSize
		if n := r.Value.Size(); n > 8 {
			sl.bytes += readingSize + n // it stands in a row
		}
	}
	sl.readings += len(rows)
	return nil
}

// pack writes the slice's chunks, those of an assignment beside each other.
func (sl *slice) pack(ctx context.Context, out *output, number int64) error {
	cells := make([]Cell, 0, len(sl.cells))
	for c := range sl.cells {
		cells = append(cells, c)
	}
	slices.SortFunc(cells, compareByKeyList)
	p := packer{out: out}
	for len(cells) > 0 {
		var groups []group
		for len(cells) > 0 && len(groups) < keyGroups {
			n := 1
			for n < len(cells) && cells[n].Assignment == cells[0].Assignment && cells[n].Bucket == cells[0].Bucket {
				n++
			}
			groups = append(groups, group{cells: cells[:n]})
			cells = cells[n:]
		}
		if err := sl.takeKeys(ctx, groups); err != nil {
			return err
		}
		for _, g := range groups {
			for _, at := range g.cells {
				if err := sl.packCell(ctx, &p, at, g.ciphers[at.Stream], number); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (sl *slice) packCell(ctx context.Context, p *packer, at Cell, c *seal.Cipher, number int64) error {
	cell := sl.cells[at]
	delete(sl.cells, at)
	defer func() {
		cell.wipe()
		sl.s.cells.Put(cell)
	}()
	if c == nil {
		return nil // erased between its record's opening and now
	}
	p.begin(at, c, number, cell.arrival)
	err := sl.packReadings(ctx, p, cell)
	if errors.Is(err, seal.ErrWiped) && sl.retired(ctx, at, cell.journal) {
		return nil // erased just now; what of it is written goes with the rest of the assignment
	}
	return err
}

func (sl *slice) packReadings(ctx context.Context, p *packer, cell *sliceCell) error {
	if cell.columns.Len() > 0 {
		if columns, at, ok := sl.sorter.order(&cell.columns, cell.at); ok {
			return p.addColumns(ctx, columns, at)
		}
		cell.rows = sl.rows // not its own: they take four times what the columns take
		cell.toRows()
		defer func() {
			clear(cell.rows)
			sl.rows, cell.rows = cell.rows[:0], nil
		}()
	}
	var seen repeats
	for _, x := range cell.sorted() {
		r := cell.rows[x.row]
		if seen.is(r) {
			sl.s.stats.repeats.Inc()
			continue
		}
		if err := p.add(ctx, r, cell.at[x.row]); err != nil {
			return err
		}
	}
	return p.flush(ctx)
}

// group is the cells of one key list.
type group struct {
	cells   []Cell
	ciphers map[holdfast.StreamID]*seal.Cipher // nil: erased
}

// Keys are taken for keyGroups lists at a time, keyTakers at once: new keys are
// durable before they are used, and the vault makes many durable together.
const (
	keyGroups = 256
	keyTakers = 32
)

func (sl *slice) takeKeys(ctx context.Context, groups []group) error {
	takers, ctx := errgroup.WithContext(ctx)
	takers.SetLimit(keyTakers)
	for i := range groups {
		g := &groups[i]
		takers.Go(func() (err error) {
			g.ciphers, err = sl.streamCiphers(ctx, g.cells)
			return err
		})
	}
	return takers.Wait()
}

// streamCiphers returns the ciphers of cells of one key list, nil if the assignment
// was erased meanwhile. That it was is not taken from a missing key alone: its
// journal key must be on the retired list.
func (sl *slice) streamCiphers(ctx context.Context, cells []Cell) (map[holdfast.StreamID]*seal.Cipher, error) {
	streams := make([]holdfast.StreamID, len(cells))
	for i, c := range cells {
		streams[i] = c.Stream
	}
	at := cells[0]
	ciphers, err := sl.s.keys.StreamCiphers(ctx, at.Assignment, at.Bucket, streams)
	if holdfast.KindOf(err) == holdfast.NotFound {
		if sl.retired(ctx, at, sl.cells[at].journal) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("take stream keys of assignment %s: %w", at.Assignment, err)
	}
	return ciphers, nil
}

// retired reports whether the journal key of a cell was destroyed on purpose.
func (sl *slice) retired(ctx context.Context, at Cell, journal seal.KeyID) bool {
	_, err := sl.s.keys.JournalOpener(ctx, at.Assignment, at.Bucket, journal)
	return errors.Is(err, vault.ErrRetired)
}

func compareByKeyList(a, b Cell) int {
	return cmp.Or(bytes.Compare(a.Assignment[:], b.Assignment[:]), cmp.Compare(a.Bucket, b.Bucket), bytes.Compare(a.Stream[:], b.Stream[:]))
}

// sortByTime keeps the order of arrival among equal times.
func sortByTime(rows []holdfast.Reading) {
	byTime := func(a, b holdfast.Reading) int { return cmp.Compare(a.Time, b.Time) }
	if !slices.IsSortedFunc(rows, byTime) {
		slices.SortStableFunc(rows, byTime)
	}
}
