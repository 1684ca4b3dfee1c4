package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// What polled connections answer and take in is what those with a goroutine do,
// whatever the pieces are in which it arrives.
func TestPolledAsWithAGoroutine(t *testing.T) {
	seed := testseed.Of(t)
	a := newAuthority(t)
	for n := range 20 {
		var sides [2]string
		for i, polled := range []bool{false, true} {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			h := newHub()
			where := servingAs(t, a, h, polled)
			nc, err := tls.Dial("tcp", where, a.client(holdfast.DeviceID{1}))
			if err != nil {
				t.Fatal(err)
			}
			version := versions[rng.IntN(len(versions))]
			script := append(hello{version: version, id: "a", clean: true}.bytes(), drawSession(rng, version)...)
			go func() {
				for rest := script; len(rest) > 0; {
					k := min(1+rng.IntN(1+rng.IntN(20_000)), len(rest))
					if _, err := nc.Write(rest[:k]); err != nil {
						return
					}
					if rest = rest[k:]; rng.IntN(3) == 0 {
						runtime.Gosched()
					}
				}
			}()
			c := newClient(t, nc)
			var answers []string
			for _, p := range c.nextUntilClosed() {
				answers = append(answers, p.String())
			}
			nc.Close()
			slices.Sort(answers) // PINGRESP does not wait for commits
			sides[i] = fmt.Sprint(strings.Join(answers, "\n"), "\n", h.arrivals())
		}
		if sides[0] != sides[1] {
			t.Fatalf("script %d: with a goroutine (-), polled (+):\n%s", n, cmp.Diff(strings.Split(sides[0], "\n"), strings.Split(sides[1], "\n")))
		}
	}
}

// drawSession is packets that end in a DISCONNECT or in nonsense.
func drawSession(rng *rand.Rand, version byte) []byte {
	var out []byte
	var second []uint16
	for id := uint16(1); id < uint16(20+rng.IntN(100)); id++ {
		switch rng.IntN(12) {
		case 0:
			out = append(out, typePingreq<<4, 0)
		case 1:
			out = append(out, pub{qos: 0, topic: "data/zero", payload: "0"}.bytes(version)...)
		case 2:
			out = append(out, pub{qos: 2, id: id, topic: "data/two", payload: strconv.Itoa(int(id))}.bytes(version)...)
			second = append(second, id)
		case 3:
			if len(second) > 0 {
				out = append(out, pubrel(second[0])...)
				second = second[1:]
			}
		case 4: // larger than what a turn reads into
			out = append(out, pub{qos: 1, id: id, topic: "data/large", payload: strings.Repeat("x", rng.IntN(3*bufferSize))}.bytes(version)...)
		case 5:
			out = append(out, pub{qos: 1, id: id, topic: "nowhere", payload: "1"}.bytes(version)...)
		default:
			out = append(out, pub{qos: 1, id: id, topic: "data/one", payload: number100}.bytes(version)...)
		}
	}
	if rng.IntN(2) == 0 {
		return append(out, typeDisconnect<<4, 0)
	}
	return append(out, 0xf7, 0xff, 0xff, 0xff, 0xff, 0xff)
}

// servingAs is serving, with or without polled connections.
func servingAs(t *testing.T, a *authority, h *hub, polled bool) string {
	t.Helper()
	if polled {
		_, where := serving(t, a, h, Options{})
		return where
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", a.server())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(authenticate, h, h, Options{Source: h.board}).Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// Connections whose turn blocks do not keep others waiting.
func TestBlockedTurnsAreNotInTheWay(t *testing.T) {
	if !canPoll() {
		t.Skip("no epoll here: connections have goroutines")
	}
	a, h := newAuthority(t), newHub()
	block, blocked := make(chan struct{}), make(chan struct{}, 100)
	gate := blockingGate{h, func(topic string) {
		if topic == "slow" {
			blocked <- struct{}{}
			<-block
		}
	}}
	ln, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(authenticate, gate, h, Options{}).Run(ctx, ln) }()
	dial := func(n byte) *client {
		nc, err := tls.Dial("tcp", ln.Addr().String(), a.client(holdfast.DeviceID{n}))
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, nc)
		c.connect(hello{version: v5, id: "a"})
		return c
	}
	slow := make([]*client, 2*runtime.GOMAXPROCS(0)+3)
	for i := range slow {
		slow[i] = dial(byte(i + 1))
	}
	quick := dial(255)
	for _, c := range slow {
		c.send(c.publish(pub{qos: 1, id: 1, topic: "data/slow", payload: "1"}))
	}
	for range slow {
		<-blocked // each waits in a turn of its own
	}
	for id := uint16(1); id <= 50; id++ {
		quick.send(quick.publish(pub{qos: 1, id: id, topic: "data/quick", payload: "1"}))
		quick.expectCode(typePuback, id, success)
	}
	close(block)
	for _, c := range slow {
		c.expectCode(typePuback, 1, success)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// blockingGate calls before with each stream that comes in.
type blockingGate struct {
	*hub
	before func(stream string)
}

func (g blockingGate) Batch(p Peer, session string) Batch {
	return blockingBatch{g.hub.Batch(p, session), g.before}
}

type blockingBatch struct {
	Batch
	before func(stream string)
}

func (b blockingBatch) Add(child string, samples []holdfast.Sample, d Delivery) error {
	b.before(samples[0].Stream)
	return b.Batch.Add(child, samples, d)
}

// A silent connection that is polled ends in time, and holds no goroutine till then.
func TestPolledSilence(t *testing.T) {
	if !canPoll() {
		t.Skip("no epoll here: connections have goroutines")
	}
	a, h := newAuthority(t), newHub()
	_, where := serving(t, a, h, Options{})
	const many = 50
	clients := make([]*client, many)
	for i := range clients {
		nc, err := tls.Dial("tcp", where, a.client(holdfast.DeviceID{byte(i + 1)}))
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = newClient(t, nc)
		clients[i].connect(hello{version: v5, id: "a", keepAlive: 2})
		clients[i].send([]byte{typePingreq << 4, 0})
		clients[i].expect(typePingresp, "")
	}
	var stacks strings.Builder
	buf := make([]byte, 4<<20)
	stacks.Write(buf[:runtime.Stack(buf, true)])
	if n := strings.Count(stacks.String(), "mqtt.(*conn).run("); n != 0 {
		t.Errorf("%d connections have a goroutine", n)
	}
	for _, c := range clients {
		c.expectEnd(keepAliveTimeout)
	}
}

// Memory is given back once after a storm, not during it, and not for a few.
func TestLull(t *testing.T) {
	var l lull
	for i, x := range []struct {
		taken int
		want  bool
	}{{0, false}, {300, false}, {300, false}, {900, false}, {5000, false}, {5003, true}, {5003, false}, {5100, false}, {5100, false}, {5700, false}, {5700, true}} {
		if got := l.after(x.taken); got != x.want {
			t.Errorf("look %d, %d connections: %v", i, x.taken, got)
		}
	}
}

func canPoll() bool {
	e, err := openEpoll()
	if err != nil {
		return false
	}
	e.close()
	return true
}

// A read of a socket that is polled never waits, and says when there is nothing.
func TestSocketReadsWhatIsThere(t *testing.T) {
	if !canPoll() {
		t.Skip("no epoll here: connections have goroutines")
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	peer, err := net.Dial("tcp", plain.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := Pollable(plain).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := nc.(*socket)
	b := make([]byte, 4)
	peer.Write([]byte("1"))
	if n, err := s.Read(b); n != 1 || err != nil { // not polled yet: it waits
		t.Fatal(n, err)
	}
	s.polled = true
	if _, err := s.Read(b); !errors.Is(err, again{}) || !s.drained {
		t.Fatalf("nothing there: %v", err)
	}
	peer.Write([]byte("22223333"))
	s.polled, s.drained = false, false
	if n, err := s.Read(b[:1]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	s.polled = true
	if n, err := s.Read(b); n != 4 || err != nil || s.drained {
		t.Fatalf("a read that was filled leaves more to read: %d %v %v", n, err, s.drained)
	}
	if n, err := s.Read(b); n != 3 || err != nil || !s.drained {
		t.Fatalf("a read that was not filled has taken all: %d %v %v", n, err, s.drained)
	}
	nc.SetReadDeadline(time.Unix(1, 0))
	s.drained = false
	if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a deadline that has passed: %v", err)
	}
}
