// Package chunk turns readings of one stream into compressed column bytes and
// back.
//
// It promises to be lossless bit for bit: NaN payloads, -0, every int64, every
// byte of a text. Rows keep the order the caller gave them; the caller sorts by
// time and arrival. Decode never panics on damaged bytes and never gives more
// than MaxRows rows and MaxBytes of content; see Decode for what it allocates.
//
// It does not encrypt, name the stream, or guard against changed bytes: a chunk
// stands inside a sealed box, whose tag does that. Some damage still shows and is
// refused as Invalid; other damage decodes to other readings.
//
// A chunk is a version, the value type, the number of rows and one column each
// for times, sequence numbers, marks and values. Everything becomes a column of
// integers where it can, and the integer column looks for what is regular in it:
// runs of equal values, a common divisor, then differences of order 0, 1 or 2 or
// the distance from a straight line, then the smallest of a constant, packed bits,
// and bytes under Huffman or zstd coding. docs/format/chunk.md has every byte.
package chunk

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/huff0"
	"github.com/klauspost/compress/zstd"

	"github.com/holdfast-iot/holdfast"
)

const (
	// MaxRows is the most readings in one chunk.
	MaxRows = 8192
	// MaxBytes is the most content, in bytes, of all texts or bytes in one chunk.
	// It holds four of the largest values.
	MaxBytes = 4 * holdfast.MaxValueBytes
)

const version = 1

// Bits of the second byte, above the value type.
const (
	typeMask = 0x07
	hasSeqs  = 0x08
	hasMarks = 0x10
)

// Encode appends the chunk of c to dst. It refuses no rows, slices of unequal
// length and unknown types as Invalid, and more than MaxRows rows or MaxBytes of
// content as TooLarge. On error it returns dst unchanged. It does not change c.
func Encode(dst []byte, c *Columns) ([]byte, error) {
	e := encoders.Get().(*Encoder)
	defer encoders.Put(e)
	return e.Encode(dst, c)
}

// Decode replaces the rows of c, reusing its slices where they are large enough.
// Texts of one chunk share one string and blobs one array, made anew by each
// Decode.
//
// Damaged input is Invalid, a format of a newer version Unavailable (a newer
// program reads it); c is then empty. Whatever the input says, the columns take at
// most 41 bytes per row and MaxBytes of content, and the working memory of a
// Decoder stays under 2 MiB + MaxBytes + len(data).
func Decode(data []byte, c *Columns) error {
	d := decoders.Get().(*Decoder)
	defer decoders.Put(d)
	return d.Decode(data, c)
}

// The pools hold idle working memory and nothing else: what a chunk decodes to
// never depends on which Encoder or Decoder was used before. They are here so that
// callers on many goroutines share a few sets of tables.
var (
	encoders = sync.Pool{New: func() any { return new(Encoder) }}
	decoders = sync.Pool{New: func() any { return new(Decoder) }}
)

// Encoder is working memory for encoding. The zero value is ready. It is not safe
// for concurrent use.
type Encoder struct {
	ints       []int64 // a column as integers
	coordinate []float64
	at, odd    []int64 // rows and bits of exceptions
	quotients  []int64
	diffs      []int64
	runs       []int64
	lengths    []int64
	steps      []int64 // of a grid, and
	offsets    []int64 // what is left of it
	bytes      []byte
	best       []byte // the better byte packing, and
	rival      []byte // the other
	content    []byte
	asTexts    []string
	entries    []string
	index      map[string]int64
	huff       huff0.Scratch
	zstd       *zstd.Encoder // made when first needed: its tables are large
	frame      []byte
}

// Encode is like the function Encode.
func (e *Encoder) Encode(dst []byte, c *Columns) ([]byte, error) {
	if err := c.check(); err != nil {
		return dst, fmt.Errorf("encode chunk: %w", err)
	}
	head := byte(c.Type)
	seqs, marks := anySet(c.Seqs), anySet(c.Marks)
	if seqs {
		head |= hasSeqs
	}
	if marks {
		head |= hasMarks
	}
	dst = append(dst, version, head)
	dst = binary.AppendUvarint(dst, uint64(c.Len()))
	dst = e.times(dst, c.Times)
	if seqs {
		e.ints = resize(e.ints, c.Len())
		for i, s := range c.Seqs {
			e.ints[i] = int64(s)
		}
		dst = e.integers(dst, e.ints)
	}
	if marks {
		e.ints = resize(e.ints, c.Len())
		for i, m := range c.Marks {
			e.ints[i] = int64(m)
		}
		dst = e.integers(dst, e.ints)
	}
	return e.values(dst, c), nil
}

func (e *Encoder) values(dst []byte, c *Columns) []byte {
	switch c.Type {
	case holdfast.Number:
		return e.numbers(dst, c.Numbers)
	case holdfast.Integer:
		return e.integers(dst, c.Integers)
	case holdfast.Boolean:
		return e.booleans(dst, c.Booleans)
	case holdfast.Text:
		return e.texts(dst, c.Texts)
	case holdfast.Bytes:
		return e.blobs(dst, c.Blobs)
	default:
		return e.positions(dst, c.Positions)
	}
}

// Decoder is working memory for decoding. The zero value is ready. It is not safe
// for concurrent use.
type Decoder struct {
	ints        []int64
	at, odd     []int64
	runs        []int64
	lengths     []int64
	steps       []int64 // of a grid
	coordinate  []float64
	bytes       []byte
	spans, rows []span
	huff        *huff0.Scratch
	zstd        *zstd.Decoder
	frame       []byte
}

// Decode is like the function Decode.
func (d *Decoder) Decode(data []byte, c *Columns) error {
	err := d.decode(&reader{b: data}, c)
	if err != nil {
		c.Reset(c.Type)
		return fmt.Errorf("decode chunk: %w", err)
	}
	return nil
}

func (d *Decoder) decode(r *reader, c *Columns) error {
	switch v := r.byte(); {
	case r.err != nil:
		return r.err
	case v > version:
		return holdfast.Errorf(holdfast.Unavailable, "format version %d is newer than this program's %d: use a newer Holdfast", v, version)
	case v == 0:
		return damaged("format version 0")
	}
	head := r.byte()
	t := holdfast.ValueType(head & typeMask)
	if !t.Valid() || head&^(typeMask|hasSeqs|hasMarks) != 0 {
		return damaged("type byte")
	}
	rows := r.uvarint()
	if r.err == nil && (rows == 0 || rows > MaxRows) {
		return damaged("number of rows")
	}
	if r.err != nil {
		return r.err
	}
	n := int(rows)
	c.Reset(t)
	c.Times = resize(c.Times, n)
	d.times(r, c.Times)
	if head&hasSeqs != 0 {
		d.ints = resize(d.ints, n)
		d.integers(r, d.ints)
		c.Seqs = resize(c.Seqs, n)
		for i, s := range d.ints {
			c.Seqs[i] = uint64(s)
		}
	}
	if head&hasMarks != 0 {
		d.marks(r, c, n)
	}
	d.values(r, c, n)
	if r.err == nil && len(r.b) > 0 {
		return damaged("bytes after the end")
	}
	return r.err
}

func (d *Decoder) marks(r *reader, c *Columns, n int) {
	d.ints = resize(d.ints, n)
	d.integers(r, d.ints)
	c.Marks = resize(c.Marks, n)
	for i, m := range d.ints {
		if uint64(m) > 0xff {
			r.fail("mark")
			return
		}
		c.Marks[i] = holdfast.Mark(m)
	}
}

func (d *Decoder) values(r *reader, c *Columns, n int) {
	if r.err != nil {
		return
	}
	switch c.Type {
	case holdfast.Number:
		c.Numbers = resize(c.Numbers, n)
		d.numbers(r, c.Numbers)
	case holdfast.Integer:
		c.Integers = resize(c.Integers, n)
		d.integers(r, c.Integers)
	case holdfast.Boolean:
		c.Booleans = resize(c.Booleans, n)
		d.booleans(r, c.Booleans)
	case holdfast.Text:
		c.Texts = d.texts(r, c.Texts[:0], n)
	case holdfast.Bytes:
		c.Blobs = d.blobs(r, c.Blobs[:0], n)
	case holdfast.Location:
		c.Positions = resize(c.Positions, n)
		d.positions(r, c.Positions)
	}
}

// anySet reports whether a column says anything: one of zeros is left out.
func anySet[T ~uint64 | ~uint8](s []T) bool {
	for _, v := range s {
		if v != 0 {
			return true
		}
	}
	return false
}

// resize returns a slice of length n whose contents are not defined, s itself if
// it is large enough.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
