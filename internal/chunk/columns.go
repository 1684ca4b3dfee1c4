package chunk

import (
	"github.com/holdfast-iot/holdfast"
)

// Columns are the readings of one stream, one slice per field. A slice is as long
// as Times or nil; of the slices of values only the one of Type is used.
type Columns struct {
	Type      holdfast.ValueType
	Times     []int64             // ns since 1970 UTC
	Seqs      []uint64            // nil: all 0
	Marks     []holdfast.Mark     // nil: all 0
	Numbers   []float64           // Number
	Integers  []int64             // Integer
	Booleans  []bool              // Boolean
	Texts     []string            // Text
	Blobs     [][]byte            // Bytes
	Positions []holdfast.Position // Location
}

// Len returns the number of rows.
func (c *Columns) Len() int { return len(c.Times) }

// Reset empties c for values of type t. It keeps the memory of times and values.
func (c *Columns) Reset(t holdfast.ValueType) {
	clear(c.Texts) // let go of the content
	clear(c.Blobs)
	*c = Columns{
		Type:      t,
		Times:     c.Times[:0],
		Numbers:   c.Numbers[:0],
		Integers:  c.Integers[:0],
		Booleans:  c.Booleans[:0],
		Texts:     c.Texts[:0],
		Blobs:     c.Blobs[:0],
		Positions: c.Positions[:0],
	}
}

// Append adds a row. It refuses a value of another type than c's.
func (c *Columns) Append(r holdfast.Reading) error {
	if r.Value.Type() != c.Type || !c.Type.Valid() {
		return holdfast.Errorf(holdfast.Invalid, "append reading: it is of type %s, the stream of type %s", r.Value.Type(), c.Type)
	}
	n := len(c.Times)
	c.Times = append(c.Times, r.Time)
	c.Seqs = appendSparse(c.Seqs, n, r.Seq)
	c.Marks = appendSparse(c.Marks, n, r.Mark)
	switch c.Type {
	case holdfast.Number:
		c.Numbers = append(c.Numbers, r.Value.Number())
	case holdfast.Integer:
		c.Integers = append(c.Integers, r.Value.Integer())
	case holdfast.Boolean:
		c.Booleans = append(c.Booleans, r.Value.Boolean())
	case holdfast.Text:
		c.Texts = append(c.Texts, r.Value.Text())
	case holdfast.Bytes:
		c.Blobs = append(c.Blobs, r.Value.Bytes())
	case holdfast.Location:
		c.Positions = append(c.Positions, r.Value.Position())
	}
	return nil
}

// appendSparse appends v to a slice that may be missing while all its n elements
// are zero.
func appendSparse[T ~uint64 | ~uint8](s []T, n int, v T) []T {
	if s == nil {
		if v == 0 {
			return nil
		}
		s = make([]T, n, max(2*n, 64))
	}
	return append(s, v)
}

// Reading returns row i.
func (c *Columns) Reading(i int) holdfast.Reading {
	r := holdfast.Reading{Time: c.Times[i]}
	if c.Seqs != nil {
		r.Seq = c.Seqs[i]
	}
	if c.Marks != nil {
		r.Mark = c.Marks[i]
	}
	switch c.Type {
	case holdfast.Number:
		r.Value = holdfast.NumberValue(c.Numbers[i])
	case holdfast.Integer:
		r.Value = holdfast.IntegerValue(c.Integers[i])
	case holdfast.Boolean:
		r.Value = holdfast.BooleanValue(c.Booleans[i])
	case holdfast.Text:
		r.Value = holdfast.TextValue(c.Texts[i])
	case holdfast.Bytes:
		r.Value = holdfast.BytesValue(c.Blobs[i])
	case holdfast.Location:
		r.Value = holdfast.LocationValue(c.Positions[i])
	}
	return r
}

// Slice returns the rows in [from, to), which share c's memory.
func (c *Columns) Slice(from, to int) Columns {
	return Columns{
		Type:      c.Type,
		Times:     c.Times[from:to:to],
		Seqs:      part(c.Seqs, from, to),
		Marks:     part(c.Marks, from, to),
		Numbers:   part(c.Numbers, from, to),
		Integers:  part(c.Integers, from, to),
		Booleans:  part(c.Booleans, from, to),
		Texts:     part(c.Texts, from, to),
		Blobs:     part(c.Blobs, from, to),
		Positions: part(c.Positions, from, to),
	}
}

// part is s[from:to] of a column that is there.
func part[T any](s []T, from, to int) []T {
	if len(s) == 0 {
		return nil
	}
	return s[from:to:to]
}

// Content returns the bytes of all texts or blobs: what MaxBytes limits.
func (c *Columns) Content() int {
	n := 0
	switch c.Type {
	case holdfast.Text:
		for _, s := range c.Texts {
			n += len(s)
		}
	case holdfast.Bytes:
		for _, b := range c.Blobs {
			n += len(b)
		}
	}
	return n
}

// Size returns the bytes that the rows take in memory, roughly.
func (c *Columns) Size() int {
	const entry = 16 + 8 // a slice's or text's head, and its share of allocations
	return 8*(len(c.Times)+len(c.Seqs)+len(c.Numbers)+len(c.Integers)) + len(c.Marks) + len(c.Booleans) +
		entry*(len(c.Texts)+len(c.Blobs)+len(c.Positions)) + c.Content()
}

// check refuses columns that do not make a chunk.
func (c *Columns) check() error {
	n := c.Len()
	values := 0
	switch c.Type {
	case holdfast.Number:
		values = len(c.Numbers)
	case holdfast.Integer:
		values = len(c.Integers)
	case holdfast.Boolean:
		values = len(c.Booleans)
	case holdfast.Text:
		values = len(c.Texts)
	case holdfast.Bytes:
		values = len(c.Blobs)
	case holdfast.Location:
		values = len(c.Positions)
	default:
		return holdfast.Errorf(holdfast.Invalid, "value type %d is not known", c.Type)
	}
	switch {
	case n == 0:
		return holdfast.Errorf(holdfast.Invalid, "it has no rows")
	case n > MaxRows:
		return holdfast.Errorf(holdfast.TooLarge, "%d rows; a chunk has at most %d", n, MaxRows)
	case values != n, c.Seqs != nil && len(c.Seqs) != n, c.Marks != nil && len(c.Marks) != n:
		return holdfast.Errorf(holdfast.Invalid, "its columns differ in length")
	}
	if size := c.Content(); size > MaxBytes {
		return holdfast.Errorf(holdfast.TooLarge, "%d bytes of content; a chunk has at most %d", size, MaxBytes)
	}
	return nil
}
