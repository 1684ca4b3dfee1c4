package series

import (
	"cmp"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// sliceCell is what a slice holds of one cell, in order of arrival. Readings of a
// type of fixed size stand in columns, which take a quarter of the memory of rows
// and go into chunks as they are; all others, and a mixture, in rows.
type sliceCell struct {
	arrival holdfast.Span
	journal seal.KeyID // of a record that brought readings
	columns chunk.Columns
	rows    []holdfast.Reading // if there are any, all that there are
	at      []journal.Pos      // where each stands in the journal
}

// add appends a reading of the record at pos.
func (c *sliceCell) add(r *holdfast.Reading, pos journal.Pos) error {
	c.at = append(c.at, pos)
	t := r.Value.Type()
	switch {
	case len(c.rows) > 0:
	case c.columns.Len() > 0 && t == c.columns.Type:
		return c.columns.Append(*r)
	case c.columns.Len() == 0 && (t == holdfast.Number || t == holdfast.Integer || t == holdfast.Boolean || t == holdfast.Location):
		c.columns.Reset(t)
		return c.columns.Append(*r)
	}
	c.toRows()
	c.rows = append(c.rows, *r)
	return nil
}

// toRows takes the readings out of the columns.
func (c *sliceCell) toRows() {
	c.rows = slices.Grow(c.rows, c.columns.Len()+1)
	for i := range c.columns.Len() {
		c.rows = append(c.rows, c.columns.Reading(i))
	}
	c.columns.Reset(0)
}

// wipe empties the cell for another use. It holds plaintext.
func (c *sliceCell) wipe() {
	wipeColumns(&c.columns)
	clear(c.rows)
	c.rows = c.rows[:0]
	c.at = c.at[:0]
}

func wipeColumns(c *chunk.Columns) {
	clear(c.Times)
	clear(c.Numbers)
	clear(c.Integers)
	clear(c.Booleans)
	clear(c.Positions)
	c.Reset(0)
}

// sorter puts columns in order of time. What it gives is valid until the next use.
type sorter struct {
	at      []timeAt
	out     chunk.Columns
	arrived []journal.Pos // of out
}

type timeAt struct {
	time int64
	row  int32
}

// order returns columns in order of time, and where they stand in the journal. It
// reports false if two readings have one time: then one may repeat the other, and only
// the clear path can tell.
func (s *sorter) order(c *chunk.Columns, at []journal.Pos) (*chunk.Columns, []journal.Pos, bool) {
	if !increases(c.Times) {
		s.at = s.at[:0]
		for i, t := range c.Times {
			s.at = append(s.at, timeAt{t, int32(i)})
		}
		slices.SortFunc(s.at, func(a, b timeAt) int { return cmp.Compare(a.time, b.time) })
		s.permute(c)
		s.arrived = permuted(s.arrived[:0], at, s.at)
		c, at = &s.out, s.arrived
	}
	return c, at, increases(c.Times)
}

func increases(times []int64) bool {
	for i := 1; i < len(times); i++ {
		if times[i] <= times[i-1] {
			return false
		}
	}
	return true
}

// permute fills s.out with the rows of c as s.at has them.
func (s *sorter) permute(c *chunk.Columns) {
	s.out.Reset(c.Type)
	s.out.Times = permuted(s.out.Times, c.Times, s.at)
	if c.Seqs != nil {
		s.out.Seqs = permuted(nil, c.Seqs, s.at)
	}
	if c.Marks != nil {
		s.out.Marks = permuted(nil, c.Marks, s.at)
	}
	switch c.Type {
	case holdfast.Number:
		s.out.Numbers = permuted(s.out.Numbers, c.Numbers, s.at)
	case holdfast.Integer:
		s.out.Integers = permuted(s.out.Integers, c.Integers, s.at)
	case holdfast.Boolean:
		s.out.Booleans = permuted(s.out.Booleans, c.Booleans, s.at)
	case holdfast.Location:
		s.out.Positions = permuted(s.out.Positions, c.Positions, s.at)
	}
}

func permuted[T any](dst, src []T, order []timeAt) []T {
	for _, x := range order {
		dst = append(dst, src[x.row])
	}
	return dst
}

// sorted returns the rows in order of time, equal times as they came.
func (c *sliceCell) sorted() []timeAt {
	order := make([]timeAt, len(c.rows))
	for i := range c.rows {
		order[i] = timeAt{c.rows[i].Time, int32(i)}
	}
	slices.SortFunc(order, func(a, b timeAt) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.row, b.row)) })
	return order
}
