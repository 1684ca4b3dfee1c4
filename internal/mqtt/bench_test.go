package mqtt

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// nullGate takes everything and makes it durable at once.
type nullGate struct{}

type nullBatch struct{}

func (nullGate) Batch(Peer, string) Batch                       { return nullBatch{} }
func (nullBatch) Add(string, []holdfast.Sample, Delivery) error { return nil }
func (nullBatch) Release(uint16)                                {}
func (nullBatch) Commit(done func(error))                       { done(nil) }

// benchConn is a connection whose answers go nowhere.
func benchConn(v byte) *conn {
	s := New(authenticate, nullGate{}, nil, Options{})
	c := s.newConn(discard{})
	c.dialect = dialect{version: v, problemInfo: true}
	c.connected = true
	return c
}

// discard is a socket that takes everything.
type discard struct{ net.Conn }

func (discard) Write(b []byte) (int, error)      { return len(b), nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }
func (discard) SetReadDeadline(time.Time) error  { return nil }

var number100 = `{"t":1735689600.250000001,"v":21.53,"seq":1234567}                                                   `[:100]

// BenchmarkParsePublish is the parser alone.
func BenchmarkParsePublish(b *testing.B) {
	for _, v := range versions {
		b.Run(map[byte]string{v311: "v3.1.1", v5: "v5"}[v], func(b *testing.B) {
			raw := pub{qos: 1, id: 7, topic: "data/engine/temperature", payload: number100}.bytes(v)
			b.ReportAllocs()
			var p publish
			for b.Loop() {
				header, total, err := frame(raw, 1<<20, v)
				if err == nil {
					err = parsePublish(raw[0], raw[header:total], v, &p)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConsume is a read of 20 publishes of 100 bytes: parse, decode, batch,
// commit, acknowledgements appended and written. One op is one publish.
func BenchmarkConsume(b *testing.B) {
	for _, x := range []struct {
		name    string
		payload string
		n       int
	}{{"number/20", "21.53", 20}, {"timed100/20", number100, 20}, {"timed100/1", number100, 1}} {
		b.Run(x.name, func(b *testing.B) {
			c := benchConn(v5)
			var raw []byte
			for i := range x.n {
				raw = append(raw, pub{qos: 1, id: uint16(i + 1), topic: "data/engine/temperature", payload: x.payload}.bytes(v5)...)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(raw) / x.n))
			for n := 0; b.Loop(); n++ {
				if n%x.n == 0 {
					if _, _, err := c.consume(raw); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkLoopback is 50 clients over TLS on loopback with 20 publishes of 100
// bytes in flight each, client included. One op is one acknowledged publish.
func BenchmarkLoopback(b *testing.B) {
	a, h := newAuthority(b), newHub()
	ln, err := a.listen()
	if err != nil {
		b.Fatal(err)
	}
	s := New(authenticate, nullGate{}, h, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	const clients, window = 50, 20
	conns := make([]net.Conn, clients)
	for i := range conns {
		nc, err := tls.Dial("tcp", ln.Addr().String(), a.client(holdfast.DeviceID{1, byte(i)}))
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = nc
		conns[i].Write(hello{version: v311, id: "a", clean: true}.bytes())
		if _, err := readPacket(conns[i]); err != nil {
			b.Fatal(err)
		}
	}
	var raw []byte
	for i := range window {
		raw = append(raw, pub{qos: 1, id: uint16(i + 1), topic: "data/engine/temperature", payload: number100}.bytes(v311)...)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	rounds := max(b.N/(clients*window), 1)
	for _, nc := range conns {
		wg.Go(func() {
			acks := make([]byte, 4*window)
			for range rounds {
				nc.Write(raw)
				for n := 0; n < len(acks); {
					m, err := nc.Read(acks[n:])
					if n += m; err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	for _, nc := range conns {
		nc.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// BenchmarkConnect is a full TLS 1.3 handshake with client certificate, CONNECT,
// CONNACK and DISCONNECT, client included.
func BenchmarkConnect(b *testing.B) {
	a, h := newAuthority(b), newHub()
	ln, err := a.listen()
	if err != nil {
		b.Fatal(err)
	}
	s := New(authenticate, nullGate{}, h, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	config := a.client(holdfast.DeviceID{1})
	for b.Loop() {
		nc, err := tls.Dial("tcp", ln.Addr().String(), config)
		if err != nil {
			b.Fatal(err)
		}
		nc.Write(hello{version: v311, id: "a", clean: true}.bytes())
		if p, err := readPacket(nc); err != nil || p.kind != typeConnack {
			b.Fatal(p, err)
		}
		nc.Write([]byte{typeDisconnect << 4, 0})
		nc.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
