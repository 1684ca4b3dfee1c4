package load

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Topic is what devices publish to.
const Topic = "data/temperature"

// frame is a PUBLISH of one connection that is patched for each message.
type frame struct {
	version byte
	b       []byte
	id      int // where the packet id stands
	time    int // where the 16 digits of microseconds stand, with a point after 10
	value   int // where four digits of the value stand: 20.00 to 29.99
	micros  int64
	next    uint16
	ids     uint16 // ids are 1 to ids
}

// LeastPayload is the shortest payload that holds a reading.
const LeastPayload = len(`{"t":1700000000.000000,"v":20.00}`)

func newFrame(version byte) frame { return frame{version: version, ids: 65535} }

// build lays out a message of payload bytes.
func (f *frame) build(payload int, now time.Time) error {
	if payload < LeastPayload || payload > 8000 {
		return fmt.Errorf("a payload has %d to 8000 bytes", LeastPayload)
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(len(Topic)))
	body = append(body, Topic...)
	id := len(body)
	body = append(body, 0, 0)
	if f.version == V5 {
		body = append(body, 0)
	}
	start := len(body)
	body = append(body, `{"t":1700000000.000000,"v":20.00}`...)
	for len(body) < start+payload {
		body = append(body, ' ')
	}
	f.b = append(f.b[:0], 0x32)
	for n := len(body); ; n >>= 7 {
		if n < 0x80 {
			f.b = append(f.b, byte(n))
			break
		}
		f.b = append(f.b, byte(n)|0x80)
	}
	head := len(f.b)
	f.b = append(f.b, body...)
	f.id, f.time, f.value = head+id, head+start+len(`{"t":`), head+start+len(`{"t":1700000000.000000,"v":`)
	f.micros, f.next = now.UnixMicro(), 1
	return nil
}

// append adds the next message to out: a time one microsecond later, a value that
// wanders.
func (f *frame) append(out []byte) ([]byte, uint16) {
	id := f.next
	if f.next++; f.next > f.ids || f.next == 0 {
		f.next = 1
	}
	f.micros++
	at := len(out)
	out = append(out, f.b...)
	m := out[at:]
	binary.BigEndian.PutUint16(m[f.id:], id)
	rest := uint64(f.micros)
	t := m[f.time : f.time+17]
	for i := 16; i > 10; i-- {
		t[i], rest = byte('0'+rest%10), rest/10
	}
	for i := 9; i >= 0; i-- {
		t[i], rest = byte('0'+rest%10), rest/10
	}
	v := (f.micros * 7) % 1000
	m[f.value+1], m[f.value+3], m[f.value+4] = byte('0'+v/100), byte('0'+v/10%10), byte('0'+v%10)
	return out, id
}

// acks reads acknowledgements from a stream that comes in pieces.
type acks struct {
	part [8]byte // of one that is not whole
	have int
}

// read calls each for every PUBACK in b. Other packets are errors: nothing else was
// asked for.
func (a *acks) read(b []byte, each func(id uint16)) error {
	for len(b) > 0 {
		if a.have == 0 && len(b) >= 4 && b[0] == 0x40 && b[1] == 2 { // nearly all
			each(binary.BigEndian.Uint16(b[2:]))
			b = b[4:]
			continue
		}
		a.part[a.have] = b[0]
		a.have++
		b = b[1:]
		switch {
		case a.part[0] != 0x40:
			return fmt.Errorf("the server sent a packet of type %d", a.part[0]>>4)
		case a.have < 2 || a.have < 2+int(a.part[1]) && a.part[1] <= 6:
			continue
		case a.part[1] > 6, a.part[1] > 2 && a.part[4] >= 0x80:
			return fmt.Errorf("the server refused a message: PUBACK %x", a.part[:a.have])
		}
		each(binary.BigEndian.Uint16(a.part[2:]))
		a.have = 0
	}
	return nil
}
