package chunk

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// group is how many residuals share a width in packBits.
const group = 128

// residuals appends the centre and the differences from it in the smallest
// packing, which it writes into the head at dst[head].
func (e *Encoder) residuals(dst []byte, head int, diffs []int64, centre int64) []byte {
	lo, hi := bounds(diffs)
	if lo == hi && dst[head]&orderMask != orderFirst<<orderShift {
		dst[head] |= packConst
		return appendVarint(dst, lo)
	}
	// With the middle of the range as centre the largest residual is smallest.
	middle := lo + int64((uint64(hi)-uint64(lo))/2)
	width := 8 // a distance that wraps says nothing about those between
	if uint64(hi)-uint64(lo) <= math.MaxInt64 {
		width = max(planesOf(lo-centre), planesOf(hi-centre))
	}
	if width > 1 && max(planesOf(lo-middle), planesOf(hi-middle)) == 1 {
		centre, width = middle, 1
	}
	packed, packedCentre := math.MaxInt, centre
	if len(diffs) <= fewResiduals || width > 1 {
		packed, packedCentre = packedSize(diffs, middle), middle
		if s := packedSize(diffs, centre); s < packed {
			packed, packedCentre = s, centre
		}
	}
	if len(diffs) >= minHuff || width > 1 {
		pack := e.bytePacking(diffs, centre, width)
		if width == 1 {
			packed = min(packed, packedBytes(e.bytes))
		}
		if len(e.best) < packed {
			dst[head] |= pack
			dst = appendVarint(dst, centre)
			return append(dst, e.best...)
		}
	}
	dst[head] |= packBits
	dst = appendVarint(dst, packedCentre)
	return appendPacked(dst, diffs, packedCentre)
}

// Where there are more residuals, a centre that suits their bits better is not
// looked for: their bytes are almost always coded smaller.
const fewResiduals = 4 * group

// planesOf returns how many bytes the zigzag number of v takes.
func planesOf(v int64) int { return (bits.Len64(zigzag(v)|1) + 7) / 8 }

// bytePacking leaves the better of packVar and packPlane in e.best and returns
// which it is. Residuals of one byte are one plane: variable-length numbers could
// not beat that.
func (e *Encoder) bytePacking(diffs []int64, centre int64, width int) byte {
	e.bytes = resize(e.bytes, len(diffs))
	e.best = append(e.best[:0], byte(width))
	for plane := range width {
		for i, x := range diffs {
			e.bytes[i] = byte(zigzag(x-centre) >> (8 * plane))
		}
		e.best = e.block(e.best, e.bytes, false)
	}
	if width == 1 {
		return packPlane
	}
	e.bytes = e.bytes[:0]
	for _, x := range diffs {
		e.bytes = appendVarint(e.bytes, x-centre)
	}
	if width > 3 && len(e.bytes) > len(e.best)+len(e.best)/4 {
		return packPlane // whole words of noise: no code makes up for that
	}
	e.rival = binary.AppendUvarint(e.rival[:0], uint64(len(e.bytes)))
	e.rival = e.block(e.rival, e.bytes, false)
	if len(e.rival) < len(e.best) {
		e.best, e.rival = e.rival, e.best
		return packVar
	}
	return packPlane
}

// packedSize returns the bytes that appendPacked takes.
func packedSize(diffs []int64, centre int64) int {
	size := 0
	for len(diffs) > 0 {
		g := diffs[:min(group, len(diffs))]
		size += 1 + (len(g)*groupWidth(g, centre)+7)/8
		diffs = diffs[len(g):]
	}
	return size
}

// packedBytes is packedSize of zigzag numbers of one byte each.
func packedBytes(z []byte) int {
	size := 0
	for len(z) > 0 {
		g := z[:min(group, len(z))]
		z = z[len(g):]
		var all uint64
		rest := g
		for ; len(rest) >= 8; rest = rest[8:] {
			all |= binary.LittleEndian.Uint64(rest)
		}
		for _, b := range rest {
			all |= uint64(b)
		}
		all |= all >> 32
		all |= all >> 16
		all |= all >> 8
		size += 1 + (len(g)*bits.Len8(byte(all))+7)/8
	}
	return size
}

func groupWidth(g []int64, centre int64) int {
	var all uint64
	for _, x := range g {
		all |= zigzag(x - centre)
	}
	return bits.Len64(all)
}

// appendPacked appends each group as its width and its residuals, the lowest bit
// of the first residual in the lowest bit of the first byte.
func appendPacked(dst []byte, diffs []int64, centre int64) []byte {
	for len(diffs) > 0 {
		g := diffs[:min(group, len(diffs))]
		diffs = diffs[len(g):]
		width := groupWidth(g, centre)
		dst = append(dst, byte(width))
		var acc uint64
		filled := 0
		for _, x := range g {
			z := zigzag(x - centre)
			acc |= z << filled
			if filled += width; filled >= 64 {
				dst = binary.LittleEndian.AppendUint64(dst, acc)
				filled -= 64
				acc = z >> (width - filled)
			}
		}
		for ; filled > 0; filled -= 8 {
			dst = append(dst, byte(acc))
			acc >>= 8
		}
	}
	return dst
}

// residuals reads len(v) residuals, the centre added.
func (d *Decoder) residuals(r *reader, pack byte, v []int64) {
	centre := r.varint()
	switch pack {
	case packConst:
		for i := range v {
			v[i] = centre
		}
	case packBits:
		unpack(r, v, centre)
	case packVar:
		d.variable(r, v, centre)
	case packPlane:
		d.planes(r, v, centre)
	}
}

func unpack(r *reader, v []int64, centre int64) {
	for len(v) > 0 {
		g := v[:min(group, len(v))]
		v = v[len(g):]
		width := uint64(r.byte())
		if width > 64 {
			r.fail("width of packed bits")
		}
		src := r.take((uint64(len(g))*width + 7) / 8)
		if r.err != nil {
			return
		}
		unpackGroup(g, src, width, centre)
	}
}

// unpackGroup reads eight bytes at a time while there are as many, and through a
// padded copy at the end.
func unpackGroup(g []int64, src []byte, width uint64, centre int64) {
	mask := uint64(1)<<width - 1 // all ones for 64: a shift by 64 gives 0
	at := uint64(0)
	i := 0
	if width <= 56 {
		for ; i < len(g); i++ {
			b := src[min(at>>3, uint64(len(src))):]
			if len(b) < 8 {
				break
			}
			g[i] = unzigzag(binary.LittleEndian.Uint64(b)>>(at&7)&mask) + centre
			at += width
		}
	}
	for ; i < len(g); i++ {
		var b [16]byte
		copy(b[:], src[at>>3:])
		z := binary.LittleEndian.Uint64(b[:]) >> (at & 7)
		z |= uint64(b[8]) << 1 << (63 - at&7)
		g[i] = unzigzag(z&mask) + centre
		at += width
	}
}

func (d *Decoder) variable(r *reader, v []int64, centre int64) {
	size := r.uvarint()
	if size > uint64(len(v)*binary.MaxVarintLen64) {
		r.fail("size of variable-length numbers")
		return
	}
	b := d.block(r, int(size))
	for i := range v {
		if len(b) > 0 && b[0] < 0x80 {
			v[i] = unzigzag(uint64(b[0])) + centre
			b = b[1:]
			continue
		}
		u, n := binary.Uvarint(b)
		if n <= 0 {
			r.fail("variable-length number")
			return
		}
		v[i] = unzigzag(u) + centre
		b = b[n:]
	}
	if len(b) > 0 {
		r.fail("bytes after variable-length numbers")
	}
}

func (d *Decoder) planes(r *reader, v []int64, centre int64) {
	width := int(r.byte())
	if r.err == nil && (width == 0 || width > 8) {
		r.fail("number of byte planes")
	}
	for plane := range width {
		b := d.block(r, len(v))
		if r.err != nil {
			return
		}
		b = b[:len(v)]
		switch {
		case width == 1:
			for i, x := range b {
				v[i] = unzigzag(uint64(x)) + centre
			}
			return
		case plane == 0:
			for i, x := range b {
				v[i] = int64(x)
			}
		default:
			for i, x := range b {
				v[i] |= int64(x) << (8 * plane)
			}
		}
	}
	for i, x := range v {
		v[i] = unzigzag(uint64(x)) + centre
	}
}
