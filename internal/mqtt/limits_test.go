package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func TestReceiveMaximum(t *testing.T) {
	h := newHub()
	h.manual = true
	p := newPipes(t, h, Options{ReceiveMaximum: 3})
	c := p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true})
	c.send(slices.Concat(
		c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}),
		c.publish(pub{qos: 2, id: 2, topic: "data/x", payload: "2"}),
		c.publish(pub{qos: 1, id: 3, topic: "nowhere", payload: "3"}),
		c.publish(pub{qos: 0, topic: "data/x", payload: "4"}))) // QoS 0 doesn't count
	c.silent()
	h.land(1)
	c.expect(typePuback, "0001")
	c.expect(typePubrec, "0002")
	c.expectCode(typePuback, 3, topicInvalid)
	// 1 and 3 are free again, 2 is held until PUBCOMP.
	c.send(c.publish(pub{qos: 1, id: 4, topic: "data/x", payload: "5"}))
	c.send(c.publish(pub{qos: 1, id: 5, topic: "data/x", payload: "6"}))
	c.silent()
	h.land(2)
	c.expect(typePuback, "0004")
	c.expect(typePuback, "0005")
	c.send(pubrel(2))
	c.silent()
	h.land(1)
	c.expect(typePubcomp, "0002")
	for id := range uint16(3) {
		c.send(c.publish(pub{qos: 2, id: 10 + id, topic: "data/x", payload: "7"}))
	}
	c.silent()
	c.send(c.publish(pub{qos: 1, id: 20, topic: "data/x", payload: "8"}))
	h.land(3)
	for id := range uint16(3) {
		c.expectCode(typePubrec, 10+id, success)
	}
	c.expectEnd(receiveMaxExceeded)
}

// 3.1.1 has no Receive Maximum: reading pauses, and goes on.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		h.manual = true
		c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
		c.connect(hello{version: v311, id: "a", clean: true})
		const n = 3 * maxUnanswered
		sent := 0
		go func() {
			for i := range n {
				if c.write(c.publish(pub{qos: 1, id: uint16(i + 1), topic: "data/x", payload: "1"})) != nil {
					return
				}
				sent++
			}
		}()
		synctest.Wait()
		if h.adds > maxUnanswered || sent > maxUnanswered+1 {
			t.Fatalf("%d publishes are in flight, %d were read", h.adds, sent)
		}
		h.set(func() { h.manual = false })
		h.land(len(h.waiting))
		for i := range n {
			c.expectCode(typePuback, uint16(i+1), success)
		}
	})
}

func TestBytesInFlight(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.manual = true
			c := newPipes(t, h, Options{MaxInflightBytes: 1200}).dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", clean: true})
			payload := `"` + strings.Repeat("x", 398) + `"`
			var b []byte
			for i := range 6 {
				b = append(b, c.publish(pub{qos: 1, id: uint16(i + 1), topic: "data/x", payload: payload})...)
			}
			go c.write(b)
			for i := range 3 {
				synctest.Wait()
				if h.adds != 2*i+2 {
					t.Fatalf("%d publishes of 400 bytes are in flight or durable", h.adds)
				}
				h.land(1)
				c.expectCode(typePuback, uint16(2*i+1), success)
				c.expectCode(typePuback, uint16(2*i+2), success)
			}
			// One that is larger than the limit goes alone.
			go c.write(c.publish(pub{qos: 1, id: 9, topic: "data/x", payload: `"` + strings.Repeat("x", 5000) + `"`}))
			synctest.Wait()
			h.land(1)
			c.expect(typePuback, "0009")
		})
	})
}

// A client that doesn't read its acknowledgements hinders nobody: done returns at
// once, memory is bounded, and in the end the client is cut.
func TestClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		s := New(authenticate, h, h, Options{})
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		go func() {
			s.ServeConn(t.Context(), theirs, state(holdfast.DeviceID{1}, time.Time{}))
			close(ended)
		}()
		ours.Write(hello{version: v311, id: "a", clean: true}.bytes())
		if p, err := readPacket(ours); err != nil || p.kind != typeConnack {
			t.Fatal(p, err)
		}
		start := time.Now()
		written := 0
		pings := bytes.Repeat([]byte{typePingreq << 4, 0}, 1000)
		for {
			n, err := ours.Write(pings)
			if written += n; err != nil {
				break
			}
		}
		<-ended
		if d := time.Since(start); d > 15*time.Second {
			t.Errorf("it was cut after %s", d)
		}
		if written > 2*maxOut+bufferSize { // one out-buffer is being written, one waits
			t.Errorf("%d bytes of PINGREQ were read while the answers waited", written)
		}

		ours, theirs = net.Pipe()
		go s.ServeConn(t.Context(), theirs, state(holdfast.DeviceID{1}, time.Time{}))
		c := &client{t: t, nc: ours, version: v311}
		c.send(hello{version: v311, id: "a", clean: true}.bytes())
		readPacket(ours)
		h.set(func() { h.manual = true })
		c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
		c.send(c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: "1"}))
		synctest.Wait()
		start = time.Now()
		h.land(2)
		if d := time.Since(start); d != 0 {
			t.Errorf("done blocked for %s", d)
		}
		ours.Close()
		synctest.Wait()
	})
}

// An oversized packet is refused by its length, a large one waits for room.
func TestLargePackets(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h := newHub()
		p := newPipes(t, h, Options{MaxPacket: 100 << 10, MaxLargeBytes: 100<<10 + maxHeader})
		text := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v, id: "a", clean: true})
		for i, n := range []int{bufferSize - 20, bufferSize, bufferSize + 1, 3 * bufferSize, 100<<10 - 20} {
			one := c.publish(pub{qos: 1, id: uint16(i + 1), topic: "data/x", payload: text(n)})
			// Also behind and in front of others in one write.
			c.send(slices.Concat(c.publish(pub{topic: "data/y", payload: "1"}), one, c.publish(pub{topic: "data/y", payload: "1"})))
			c.expectCode(typePuback, uint16(i+1), success)
			if got := h.await(3 * (i + 1)); got[3*i+1].Value.Text() != strings.Repeat("x", n-2) {
				t.Errorf("%d bytes came as %d", n, len(got[3*i+1].Value.Text()))
			}
		}
		// Two at once share the room of one.
		d := p.dial(holdfast.DeviceID{2})
		d.connect(hello{version: v, id: "a", clean: true})
		big := c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: text(90 << 10)})
		c.send(big[:50<<10])
		go d.write(big)
		d2 := p.dial(holdfast.DeviceID{3})
		d2.connect(hello{version: v, id: "a", clean: true}) // others don't notice
		d2.silent()
		c.send(big[50<<10:])
		c.expectCode(typePuback, 1, success)
		d.expectCode(typePuback, 1, success)

		c.write(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: text(100 << 10)})[:20])
		c.expectEnd(packetTooLarge)
	})
}

// Announced lengths cost nothing before the bytes come.
func TestAnnouncedLengthsTakeNoMemory(t *testing.T) {
	p := newPipes(t, newHub(), Options{MaxLargeBytes: 4 << 20})
	const n = 200
	var before, after runtime.MemStats
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = p.dial(holdfast.DeviceID{1, byte(i)})
		clients[i].connect(hello{version: v311, id: "a", clean: true})
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, c := range clients {
		c.send(framed(0x30, make([]byte, 500<<10))[:bufferSize])
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20+n*(bufferSize+4<<10) {
		t.Errorf("%d packets of 500 KiB that don't come take %d KiB", n, grown>>10)
	}
}

func TestSilentConnects(t *testing.T) {
	a, h := newAuthority(t), newHub()
	s, addr := serving(t, a, h, Options{ConnectTimeout: 3 * time.Second})
	device := a.client(holdfast.DeviceID{1})
	nc, err := tls.Dial("tcp", addr, device) // before the others, while the machine is at rest
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := newClient(t, nc)
	c.connect(hello{version: v5, id: "a", clean: true})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 1000
	silent := make([]net.Conn, n)
	for i := range silent {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		silent[i] = nc
	}
	eventually(t, "a device gets in beside them", func() bool {
		nc, err := tls.Dial("tcp", addr, device)
		if err != nil { // on a busy machine it may be late itself
			return false
		}
		defer nc.Close()
		return true
	})
	c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
	c.expectCode(typePuback, 1, success)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)
	t.Logf("%d silent connects take %d bytes each", n, grown/n)
	if grown > n*20<<10 {
		t.Errorf("%d silent connects take %d KiB", n, grown>>10)
	}
	for _, nc := range silent {
		nc.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := nc.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("a silent connect was not closed: %v", err)
		}
	}
	c.silent()
	// A handshake that ran out of time closes its socket before it is counted.
	for deadline := time.Now().Add(time.Minute); s.m.refused[noHandshake].Load() < n; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d handshakes are counted as failed", s.m.refused[noHandshake].Load())
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// A device that connects and does not say CONNECT has only so many such
// connections; another, and its own that is connected, don't notice.
func TestPendingConnectsOfOneDevice(t *testing.T) {
	a, h := newAuthority(t), newHub()
	s, addr := serving(t, a, h, Options{MaxPerDevice: 2, ConnectTimeout: 10 * time.Minute})
	dial := func(id byte) *tls.Conn {
		nc, err := tls.Dial("tcp", addr, a.client(holdfast.DeviceID{id}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	first := newClient(t, dial(1))
	first.connect(hello{version: v5, id: "a", clean: true})
	ended := make(chan error, 3)
	var silent []*tls.Conn
	for range 3 {
		nc := dial(1)
		silent = append(silent, nc)
		go func() { _, err := nc.Read(make([]byte, 1)); ended <- err }()
	}
	<-ended // one of them at once
	if n := s.m.refused[tooManySilent].Load(); n != 1 {
		t.Errorf("%d were closed", n)
	}
	newClient(t, dial(2)).connect(hello{version: v5, id: "a", clean: true})
	first.silent()
	for _, nc := range silent {
		nc.Close()
	}
	<-ended
	<-ended
	eventually(t, "one more of the device's is let in", func() bool {
		was := s.m.refused[tooManySilent].Load()
		nc := dial(1)
		nc.Write(hello{version: v5, id: "b", clean: true}.bytes())
		_, err := nc.Read(make([]byte, 1))
		return err == nil && s.m.refused[tooManySilent].Load() == was
	})
}

// Who says nothing after his handshake is put out, and counted.
func TestSilentAfterTheHandshake(t *testing.T) {
	a, h := newAuthority(t), newHub()
	s, addr := serving(t, a, h, Options{ConnectTimeout: time.Second})
	eventually(t, "one ran out of time", func() bool {
		nc, err := tls.Dial("tcp", addr, a.client(holdfast.DeviceID{1}))
		if err != nil { // on a busy machine the handshake itself may take too long
			return false
		}
		defer nc.Close()
		nc.Read(make([]byte, 1))
		return s.m.refused[noConnect].Load() > 0
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// faultyListener fails its first accepts, as when file descriptors run out.
type faultyListener struct {
	net.Listener
	faults int
}

func (l *faultyListener) Accept() (net.Conn, error) {
	if l.faults > 0 {
		l.faults--
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}

func TestAcceptSurvivesAndSheds(t *testing.T) {
	a, h := newAuthority(t), newHub()
	ln, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	s := New(authenticate, h, h, Options{MaxConnections: 1, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, &faultyListener{ln, 3}) }()
	config := a.client(holdfast.DeviceID{1})
	nc, err := tls.Dial("tcp", ln.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.connect(hello{version: v5, id: "a"})
	if nc, err := tls.Dial("tcp", ln.Addr().String(), config); err == nil {
		nc.Close()
		t.Error("a connection beyond the limit was taken")
	}
	theirs, ours := net.Pipe()
	s.ServeConn(ctx, theirs, state(holdfast.DeviceID{2}, time.Time{}))
	if _, err := ours.Write([]byte{0}); err == nil {
		t.Error("a connection beyond the limit was served")
	}
	if n := s.m.refused[tooMany].Load(); n != 2 {
		t.Errorf("%d were shed", n)
	}
	c.silent()
	ln.Close() // not by ctx: that is an error
	if err := <-ended; err == nil {
		t.Error("Run ended without error when its listener was closed")
	}
	c.expectEnd(shuttingDown)
	cancel()
}

// A commit that never lands does not keep Run for ever, and is not hidden.
func TestRunDoesNotWaitForEver(t *testing.T) {
	a, h := newAuthority(t), newHub()
	h.manual = true
	ln, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	s := New(authenticate, h, h, Options{ShutdownGrace: 100 * time.Millisecond, CommitGrace: 10 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	nc, err := tls.Dial("tcp", ln.Addr().String(), a.client(holdfast.DeviceID{1}))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.connect(hello{version: v5, id: "a"})
	c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
	c.silent()
	cancel()
	c.expectEnd(shuttingDown)
	if err := <-ended; holdfast.KindOf(err) != holdfast.Internal || err == nil {
		t.Errorf("Run: %v", err)
	}
	h.land(1)
	s.wg.Wait()
}

// Run returns when everything has ended, over real sockets and TLS.
func TestRunEnds(t *testing.T) {
	a, h := newAuthority(t), newHub()
	ln, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	s := New(authenticate, h, h, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	nc, err := tls.Dial("tcp", ln.Addr().String(), a.client(holdfast.DeviceID{1}))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.connect(hello{version: v5, id: "a", will: &testWill{topic: "event/gone", payload: "x"}})
	silent, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	c.expectEnd(shuttingDown)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(h.arrivals()) != 0 || len(s.conns) != 0 || s.door.open != 0 || len(s.registry.slots) != 0 {
		t.Errorf("left behind: %d arrivals, %d connections, %d at the door, %d sessions", len(h.arrivals()), len(s.conns), s.door.open, len(s.registry.slots))
	}
	if len(h.closed) != 1 {
		t.Errorf("%d sessions were closed", len(h.closed))
	}
}
