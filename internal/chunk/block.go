package chunk

import (
	"encoding/binary"

	"github.com/klauspost/compress/huff0"
	"github.com/klauspost/compress/zstd"
)

// A block is a run of bytes whose length the reader knows. It begins with a
// variable-length number: size<<2 | mode, where size is that of what follows (for
// modeSame: the byte itself).
const (
	modeRaw  = 0
	modeSame = 1 // every byte is this one
	modeHuff = 2 // one Huffman stream below fourStreams bytes, else four
	modeZstd = 3 // a frame of one segment without checksum and without its magic number
)

// Four interleaved streams decode three times faster and cost six bytes.
const fourStreams = 512

// Below this many bytes a Huffman table rarely saves more than it takes, and takes
// long to make.
const minHuff = 64

// Below this many bytes a zstd frame is larger than what it saves.
const minZstd = 16

const zstdMagic = "\x28\xb5\x2f\xfd"

// block appends src in the smallest mode. Zstd is tried for content, and for
// numbers where Huffman codes of whole bits are far from enough: it is slow on
// bytes that do not repeat.
func (e *Encoder) block(dst, src []byte, content bool) []byte {
	if same(src) {
		return binary.AppendUvarint(dst, uint64(src[0])<<2|modeSame)
	}
	best, mode := src, uint64(modeRaw)
	if len(src) >= minHuff && len(src) <= huff0.BlockSizeMax {
		if out := e.huffman(src); out != nil && len(out) < len(best) {
			best, mode = out, modeHuff
		}
	}
	if content && len(src) >= minZstd || len(best) < len(src)/4 || repeats(src) {
		if out := e.zstandard(src); len(out) < len(best) {
			best, mode = out, modeZstd
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(best))<<2|mode)
	return append(dst, best...)
}

// huffman returns nil if src does not get smaller.
func (e *Encoder) huffman(src []byte) []byte {
	e.huff.Reuse = huff0.ReusePolicyNone
	compress := huff0.Compress1X
	if len(src) >= fourStreams {
		compress = huff0.Compress4X
	}
	out, _, err := compress(src, &e.huff)
	if err != nil {
		return nil
	}
	return out
}

func (e *Encoder) zstandard(src []byte) []byte {
	if e.zstd == nil {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(MaxBytes))
		if err != nil {
			panic("chunk: zstd refuses its options: " + err.Error())
		}
		e.zstd = w
	}
	e.frame = e.zstd.EncodeAll(src, e.frame[:0])
	return e.frame[len(zstdMagic):]
}

func same(src []byte) bool {
	if len(src) == 0 {
		return false
	}
	for _, b := range src {
		if b != src[0] {
			return false
		}
	}
	return true
}

// repeats looks at the middle of src for strings of eight bytes that were there
// before: a cheap sign that zstd finds more than Huffman does.
func repeats(src []byte) bool {
	const window, slots = 512, 256
	if len(src) < 64 {
		return false
	}
	if len(src) > window {
		src = src[(len(src)-window)/2:][:window]
	}
	var last [slots]uint16
	hits := 0
	for i := 0; i+8 <= len(src); i++ {
		v := binary.LittleEndian.Uint64(src[i:])
		slot := &last[v*0x9e3779b97f4a7c15>>56]
		if j := int(*slot); j > 0 && binary.LittleEndian.Uint64(src[j-1:]) == v {
			hits++
		}
		*slot = uint16(i + 1)
	}
	return hits > len(src)/8
}

// block reads a block of n bytes. The result is valid until the next call and may
// be part of the input.
func (d *Decoder) block(r *reader, n int) []byte {
	d.bytes = resize(d.bytes, n)
	dst := d.bytes
	u := r.uvarint()
	size, mode := u>>2, u&3
	if r.err == nil && mode == modeSame {
		if size > 0xff {
			r.fail("repeated byte")
			return nil
		}
		for i := range dst {
			dst[i] = byte(size)
		}
		return dst
	}
	src := r.take(size)
	if r.err != nil {
		return nil
	}
	var out []byte
	var err error
	switch mode {
	case modeRaw:
		out = src
	case modeHuff:
		out, err = d.huffman(dst, src)
	case modeZstd:
		out, err = d.zstandard(dst, src)
	}
	if err != nil || len(out) != n {
		r.fail("compressed block")
		return nil
	}
	return out
}

func (d *Decoder) huffman(dst, src []byte) ([]byte, error) {
	s, src, err := huff0.ReadTable(src, d.huff)
	if err != nil {
		return nil, err
	}
	d.huff = s
	if len(dst) < fourStreams {
		return s.Decoder().Decompress1X(dst[:0:len(dst)], src)
	}
	return s.Decoder().Decompress4X(dst[:0:len(dst)], src)
}

func (d *Decoder) zstandard(dst, src []byte) ([]byte, error) {
	if d.zstd == nil {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxBytes), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic("chunk: zstd refuses its options: " + err.Error())
		}
		d.zstd = z
	}
	d.frame = append(append(d.frame[:0], zstdMagic...), src...)
	return d.zstd.DecodeAll(d.frame, dst[:0:len(dst)])
}
