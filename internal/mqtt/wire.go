package mqtt

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Packet types (section 2.1.2).
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// Versions of the protocol, as CONNECT writes them.
const (
	v311 = 4
	v5   = 5
)

// maxHeader is the longest fixed header: a byte and a length of 4.
const maxHeader = 5

// frame finds the packet at the start of b. total is its whole length, 0 while the
// length itself is not there; the packet is complete when len(b) >= total. A
// length beyond max is refused before anything of the body is read.
func frame(b []byte, max int, version byte) (header, total int, err error) {
	var n int
	for i := 1; i < len(b); i++ {
		n |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			if version == v5 && i > 1 && b[i] == 0 { // MQTT-1.5.5-1
				return 0, 0, &fault{malformed, "the packet's length is not in its shortest form"}
			}
			if i+1+n > max {
				return 0, 0, &fault{packetTooLarge, "the packet is larger than the announced maximum"}
			}
			return i + 1, i + 1 + n, nil
		}
		if i == 4 {
			return 0, 0, &fault{malformed, "the packet's length has more than 4 bytes"}
		}
	}
	return 0, 0, nil
}

// decoder reads the fields of a packet. After the first field that isn't there or
// isn't right, bad is set and everything reads as zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if p := d.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if p := d.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// varint reads a variable byte integer (section 1.5.5).
func (d *decoder) varint() int {
	var n int
	for i := range 4 {
		c := d.byte()
		n |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 { // not the shortest form
				d.bad = true
			}
			return n
		}
	}
	d.bad = true
	return 0
}

// binary reads a length of two bytes and as much data. It shares d's memory.
func (d *decoder) binary() []byte { return d.take(int(d.uint16())) }

// text is binary that must be UTF-8 without NUL (section 1.5.4).
func (d *decoder) text() []byte {
	p := d.binary()
	if !validText(p) {
		d.bad = true
	}
	return p
}

func validText(p []byte) bool { return utf8.Valid(p) && bytes.IndexByte(p, 0) < 0 }

// Encoding. Lengths of ours stay below 128 but for CONNACK and reason strings.

func appendVarint(b []byte, n int) []byte {
	for n > 0x7f {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}
