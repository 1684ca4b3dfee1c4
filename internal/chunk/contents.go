package chunk

import (
	"bytes"
	"encoding/binary"
)

// The head of a column of booleans.
const (
	boolBits = 0 // one block of bits
	boolRuns = 1 // lengths of runs, the first of false
	boolTrue = 2 // the first run is of true
)

// booleans appends a column of at least one boolean.
func (e *Encoder) booleans(dst []byte, v []bool) []byte {
	e.ints = e.ints[:0]
	run := int64(0)
	for i, b := range v {
		if i > 0 && b != v[i-1] {
			e.ints = append(e.ints, run)
			run = 0
		}
		run++
	}
	e.ints = append(e.ints, run)

	start := len(dst)
	packed := resize(e.bytes, (len(v)+7)/8)
	clear(packed)
	for i, b := range v {
		if b {
			packed[i/8] |= 1 << (i % 8)
		}
	}
	e.bytes = packed
	dst = e.block(append(dst, boolBits), packed, false)
	if len(e.ints) > len(v)/4+1 {
		return dst
	}
	bits := len(dst)
	head := byte(boolRuns)
	if v[0] {
		head |= boolTrue
	}
	dst = binary.AppendUvarint(append(dst, head), uint64(len(e.ints)))
	dst = e.integers(dst, e.ints)
	return shorter(dst, start, bits)
}

func (d *Decoder) booleans(r *reader, v []bool) {
	head := r.byte()
	if head == boolBits {
		b := d.block(r, (len(v)+7)/8)
		if r.err != nil {
			return
		}
		for i := range v {
			v[i] = b[i/8]>>(i%8)&1 != 0
		}
		return
	}
	runs := r.uvarint()
	if head&boolRuns == 0 || head&^(boolRuns|boolTrue) != 0 || runs == 0 || runs > uint64(len(v)) {
		r.fail("head of a boolean column")
		return
	}
	d.ints = resize(d.ints, int(runs))
	d.integers(r, d.ints)
	state := head&boolTrue != 0
	for _, n := range d.ints {
		if uint64(n) > uint64(len(v)) {
			r.fail("run of booleans")
			return
		}
		for i := range v[:n] {
			v[i] = state
		}
		v = v[n:]
		state = !state
	}
	if len(v) > 0 {
		r.fail("run of booleans")
	}
}

// The head of a column of texts or bytes.
const (
	textEach = 0 // every row has its content
	textDict = 1 // the different contents, then which one each row has
)

// texts appends a column of at least one text: as a dictionary if contents occur
// twice on average.
func (e *Encoder) texts(dst []byte, v []string) []byte {
	if !e.dictionary(v) {
		return e.contents(append(dst, textEach), v)
	}
	dst = append(dst, textDict)
	dst = binary.AppendUvarint(dst, uint64(len(e.entries)))
	dst = e.contents(dst, e.entries)
	clear(e.entries) // let go of the content
	e.ints = resize(e.ints, len(v))
	for i, s := range v {
		if i > 0 && s == v[i-1] {
			e.ints[i] = e.ints[i-1]
			continue
		}
		e.ints[i] = e.index[s]
	}
	clear(e.index)
	return e.integers(dst, e.ints)
}

// blobs appends a column of bytes, which are coded as texts are.
func (e *Encoder) blobs(dst []byte, v [][]byte) []byte {
	e.content = e.content[:0]
	for _, b := range v {
		e.content = append(e.content, b...)
	}
	rest := string(e.content)
	e.asTexts = resize(e.asTexts, len(v))
	for i, b := range v {
		e.asTexts[i], rest = rest[:len(b)], rest[len(b):]
	}
	dst = e.texts(dst, e.asTexts)
	clear(e.asTexts)
	return dst
}

// dictionary fills e.entries and e.index; false if there are too many entries.
func (e *Encoder) dictionary(v []string) bool {
	if e.index == nil {
		e.index = make(map[string]int64)
	}
	e.entries = e.entries[:0]
	for i, s := range v {
		if i > 0 && s == v[i-1] {
			continue
		}
		if _, ok := e.index[s]; ok {
			continue
		}
		if 2*(len(e.entries)+1) > len(v) {
			clear(e.index)
			clear(e.entries)
			return false
		}
		e.index[s] = int64(len(e.entries))
		e.entries = append(e.entries, s)
	}
	return true
}

// contents appends the lengths of v and a block of its bytes.
func (e *Encoder) contents(dst []byte, v []string) []byte {
	e.ints = resize(e.ints, len(v))
	e.content = e.content[:0]
	for i, s := range v {
		e.ints[i] = int64(len(s))
		e.content = append(e.content, s...)
	}
	dst = e.integers(dst, e.ints)
	return e.block(dst, e.content, true)
}

// texts appends n texts to dst.
func (d *Decoder) texts(r *reader, dst []string, n int) []string {
	var all string
	d.contents(r, n, func(b []byte) { all = string(b) })
	if r.err != nil {
		return dst
	}
	for _, s := range d.spans {
		dst = append(dst, all[s.from:s.to])
	}
	return dst
}

// blobs appends n contents to dst.
func (d *Decoder) blobs(r *reader, dst [][]byte, n int) [][]byte {
	var all []byte
	d.contents(r, n, func(b []byte) { all = bytes.Clone(b) })
	if r.err != nil {
		return dst
	}
	for _, s := range d.spans {
		dst = append(dst, all[s.from:s.to:s.to])
	}
	return dst
}

// span is where a row's content stands among all.
type span struct{ from, to int }

// contents reads n contents: it gives all bytes to keep, which must copy them, and
// leaves each row's place in d.spans.
func (d *Decoder) contents(r *reader, n int, keep func([]byte)) {
	entries := n
	head := r.byte()
	if head == textDict {
		u := r.uvarint()
		if u == 0 || u > uint64(n) {
			r.fail("size of the dictionary")
			return
		}
		entries = int(u)
	} else if head != textEach {
		r.fail("head of a content column")
	}
	d.ints = resize(d.ints, entries)
	d.integers(r, d.ints)
	if r.err != nil {
		return
	}
	d.spans = resize(d.spans, entries)
	total := 0
	for i, size := range d.ints {
		if uint64(size) > uint64(MaxBytes-total) {
			r.fail("length of content")
			return
		}
		d.spans[i] = span{total, total + int(size)}
		total += int(size)
	}
	b := d.block(r, total)
	if r.err != nil {
		return
	}
	keep(b)
	if head == textDict {
		d.lookUp(r, n)
	}
}

// lookUp replaces the spans of the dictionary's entries by those of n rows. What
// the rows hold together is limited as at Encode.
func (d *Decoder) lookUp(r *reader, n int) {
	d.ints = resize(d.ints, n)
	d.integers(r, d.ints)
	if r.err != nil {
		return
	}
	d.rows = resize(d.rows, n)
	total := 0
	for i, entry := range d.ints {
		if uint64(entry) >= uint64(len(d.spans)) {
			r.fail("entry of the dictionary")
			return
		}
		s := d.spans[entry]
		d.rows[i] = s
		if total += s.to - s.from; total > MaxBytes {
			r.fail("amount of content")
			return
		}
	}
	d.spans, d.rows = d.rows, d.spans
}
