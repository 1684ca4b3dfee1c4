package bundle

import (
	"encoding/binary"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The Parquet library makes room for what a file says of itself before it looks
// whether the file can hold it. What is here reads a file's words first and
// refuses those that can't be true, so that a small file can't take all memory.

const (
	maxFooter = 4 << 20
	maxHeader = 64 << 10
	maxPage   = 32 << 20 // of content; Part makes pages of 1 MiB, or of one group where texts are large
	maxDepth  = 16
)

var errDamaged = invalid("the file is damaged, or not a part of a bundle")

// checkFooter reads the end of a file: metadata, their length, "PAR1".
func checkFooter(r io.ReaderAt, size int64) error {
	var tail [8]byte
	if size < 12 || size > MaxPart {
		return errDamaged
	}
	if _, err := r.ReadAt(tail[:], size-8); err != nil {
		return errDamaged
	}
	n := int64(binary.LittleEndian.Uint32(tail[:4]))
	if string(tail[4:]) != "PAR1" || n > maxFooter || n > size-12 {
		return errDamaged
	}
	footer := make([]byte, n)
	if _, err := r.ReadAt(footer, size-8-n); err != nil {
		return errDamaged
	}
	w := walker{b: footer}
	w.structure(0)
	if w.bad {
		return errDamaged
	}
	return nil
}

// walker goes through a structure of Thrift's compact protocol and refuses
// lengths that the rest of the bytes can't hold.
type walker struct {
	b   []byte
	bad bool
}

func (w *walker) skip(n uint64) {
	if w.bad || n > uint64(len(w.b)) {
		w.bad, w.b = true, nil
		return
	}
	w.b = w.b[n:]
}

func (w *walker) byte() (b byte) {
	if len(w.b) > 0 {
		b = w.b[0]
	}
	w.skip(1)
	return b
}

func (w *walker) uvarint() uint64 {
	u, n := binary.Uvarint(w.b)
	if n <= 0 {
		w.bad = true
		return 0
	}
	w.skip(uint64(n))
	return u
}

func (w *walker) structure(depth int) {
	for !w.bad {
		head := w.byte()
		if head == 0 {
			return
		}
		if head>>4 == 0 {
			w.uvarint() // the field's number, in long form
		}
		if kind := head & 15; kind > 2 { // 1 and 2 are a boolean field's value
			w.value(kind, depth)
		}
	}
}

func (w *walker) value(kind byte, depth int) {
	if w.bad = w.bad || depth > maxDepth; w.bad {
		return
	}
	switch kind {
	case 1, 2, 3: // booleans of a list, and bytes
		w.skip(1)
	case 4, 5, 6: // integers
		w.uvarint()
	case 7: // a float
		w.skip(8)
	case 8: // a string
		w.skip(w.uvarint())
	case 9, 10: // a list, a set
		head := w.byte()
		n := uint64(head >> 4)
		if n == 15 {
			n = w.uvarint()
		}
		if n > uint64(len(w.b)) {
			w.bad = true
		}
		for ; n > 0 && !w.bad; n-- {
			w.value(head&15, depth+1)
		}
	case 12:
		w.structure(depth + 1)
	default: // a map: Parquet has none
		w.bad = true
	}
}

// checkPages reads the heads of a column's pages.
func checkPages(r io.ReaderAt, size int64, c *format.ColumnMetaData) error {
	at := c.DataPageOffset
	if c.DictionaryPageOffset > 0 {
		at = min(at, c.DictionaryPageOffset)
	}
	end := at + c.TotalCompressedSize
	if at < 4 || c.TotalCompressedSize < 0 || end < at || end > size {
		return errDamaged
	}
	buf := make([]byte, maxHeader)
	values := int64(0)
	for at < end {
		window := buf[:min(maxHeader, end-at)]
		if _, err := r.ReadAt(window, at); err != nil {
			return errDamaged
		}
		if w := (&walker{b: window}); func() bool { w.structure(0); return w.bad }() {
			return errDamaged
		}
		var h format.PageHeader
		in := new(thrift.CompactProtocol).NewReaderFromBytes(window)
		if err := thrift.NewDecoder(in).Decode(&h); err != nil {
			return errDamaged
		}
		at += int64(in.BytesRead())
		if h.CompressedPageSize < 0 || int64(h.CompressedPageSize) > end-at || h.UncompressedPageSize < 0 || h.UncompressedPageSize > maxPage {
			return errDamaged
		}
		at += int64(h.CompressedPageSize)
		switch h.Type {
		case format.DataPageV2:
			p := h.DataPageHeaderV2.V
			if p.NumValues < 0 || p.DefinitionLevelsByteLength < 0 || p.RepetitionLevelsByteLength != 0 || p.DefinitionLevelsByteLength > h.CompressedPageSize {
				return errDamaged
			}
			values += int64(p.NumValues)
		case format.DictionaryPage:
			if n := h.DictionaryPageHeader.V.NumValues; n < 0 || n > h.UncompressedPageSize {
				return errDamaged
			}
		default:
			return errDamaged
		}
	}
	if values != c.NumValues {
		return errDamaged
	}
	return nil
}
