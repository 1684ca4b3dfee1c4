package load

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// Each message is one that others read: a PUBLISH with a payload of the asked
// length, which is a reading with a time of its own.
func TestFrames(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 123_456_000, time.UTC)
	for _, version := range []byte{V311, V5} {
		for _, payload := range []int{LeastPayload, 100, 4000} {
			f := newFrame(version)
			f.ids = 3
			if err := f.build(payload, now); err != nil {
				t.Fatal(err)
			}
			last := now.UnixNano()
			for i := range 5 {
				out, id := f.append(nil)
				if want := uint16(i%3 + 1); id != want {
					t.Errorf("packet id %d, want %d", id, want)
				}
				if version == V5 { // Paho's packets are those of MQTT 5
					p, err := packets.ReadPacket(bytes.NewReader(out))
					if err != nil {
						t.Fatal(err)
					}
					if m := p.Content.(*packets.Publish); m.Topic != Topic || m.QoS != 1 || m.PacketID != id || len(m.Payload) != payload {
						t.Errorf("%+v", m)
					}
				}
				s, err := senml.DecodeScalar(out[len(out)-payload:])
				if err != nil {
					t.Fatal(err)
				}
				v := s.Value.Number()
				if s.Value.Type() != holdfast.Number || v < 20 || v >= 30 || math.IsNaN(v) || !s.Timed || s.Time-last != 1000 {
					t.Errorf("value %v, %d ns after the one before", v, s.Time-last)
				}
				last = s.Time
			}
		}
	}
	f := newFrame(V5)
	if f.build(LeastPayload-1, now) == nil {
		t.Error("a reading in too few bytes")
	}
}

// Acknowledgements come in whatever pieces TLS makes of them.
func TestAcks(t *testing.T) {
	var stream []byte
	var want []uint16
	for id := uint16(1); id <= 50; id++ {
		switch id % 3 {
		case 0:
			stream = append(stream, 0x40, 2, byte(id>>8), byte(id))
		case 1: // MQTT 5: nobody subscribes
			stream = append(stream, 0x40, 3, byte(id>>8), byte(id), 0x10)
		case 2:
			stream = append(stream, 0x40, 4, byte(id>>8), byte(id), 0, 0)
		}
		want = append(want, id)
	}
	for piece := 1; piece < 9; piece++ {
		var a acks
		var got []uint16
		for rest := stream; len(rest) > 0; {
			n := min(piece, len(rest))
			if err := a.read(rest[:n], func(id uint16) { got = append(got, id) }); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if len(got) != len(want) || got[0] != 1 || got[49] != 50 {
			t.Errorf("in pieces of %d: %v", piece, got)
		}
	}
	for name, bad := range map[string][]byte{
		"a refusal":   {0x40, 3, 0, 1, 0x97},
		"a PINGRESP":  {0xd0, 0},
		"a long text": {0x40, 0x20, 0, 1, 0x97, 3},
	} {
		var a acks
		if a.read(bad, func(uint16) {}) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Every device sends once in each period, in the order of time.
func TestSchedule(t *testing.T) {
	p := schedule(1000, 10_000, 7)
	if p.period != 100*time.Millisecond {
		t.Errorf("a period of %s", p.period)
	}
	seen := map[int]bool{}
	for i, x := range p.turns {
		if seen[x.conn] || x.at < 0 || x.at >= p.period || i > 0 && x.at < p.turns[i-1].at {
			t.Fatalf("turn %d: %+v", i, x)
		}
		seen[x.conn] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d devices send", len(seen))
	}
}

// BenchmarkFrame is what the generator itself does for a message.
func BenchmarkFrame(b *testing.B) {
	f := newFrame(V311)
	if err := f.build(100, time.Now()); err != nil {
		b.Fatal(err)
	}
	ack := binary.BigEndian.AppendUint16([]byte{0x40, 2}, 1)
	out := make([]byte, 0, 256)
	var a acks
	b.ReportAllocs()
	for b.Loop() {
		out, _ = f.append(out[:0])
		if err := a.read(ack, func(uint16) {}); err != nil {
			b.Fatal(err)
		}
	}
}
