package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// publisher is a device that never gives up: its MQTT session outlives the hub's
// processes, and it sends again what was not acknowledged.
type publisher struct {
	*thing
	qos   byte
	timed bool
	start time.Time

	at    atomic.Pointer[Addresses]
	next  atomic.Int64
	lost  atomic.Int64 // times that the hub did not know the session
	mu    sync.Mutex
	acked map[int64]bool

	session *state.State
	link    sync.RWMutex // held for writing while there is no connection
	wire    net.Conn
}

// run keeps the session connected and six publishes in flight until ctx ends; then
// it waits until everything that was begun has been answered, or patience ends.
func (p *publisher) run(ctx, patience context.Context) error {
	p.session = state.NewInMemory()
	connected, stop := context.WithCancel(patience)
	p.link.Lock()
	var links sync.WaitGroup
	links.Go(func() { p.stayConnected(connected) })
	defer links.Wait()
	defer stop()
	var senders sync.WaitGroup
	failed := make(chan error, 6)
	for range 6 {
		senders.Go(func() {
			for ctx.Err() == nil {
				if err := p.publish(patience); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	senders.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// stayConnected is called with link held, and lets go of it whenever there is a
// connection.
func (p *publisher) stayConnected(ctx context.Context) {
	defer p.link.Unlock()
	expiry := uint32(3600)
	for n := 0; ctx.Err() == nil; {
		gone := make(chan struct{}, 16)
		wire, err := p.dial(ctx, *p.at.Load())
		if err != nil {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		p.wire = packets.NewThreadSafeConn(wire)
		c := paho.NewClient(paho.ClientConfig{Conn: p.wire, Session: p.session, PacketTimeout: 10 * time.Second,
			OnClientError: func(error) { gone <- struct{}{} }, OnServerDisconnect: func(*paho.Disconnect) { gone <- struct{}{} }})
		ack, err := c.Connect(ctx, &paho.Connect{ClientID: "k", KeepAlive: 30, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
		if err != nil {
			wire.Close()
			continue
		}
		if n > 0 && !ack.SessionPresent {
			p.lost.Add(1)
		}
		n++
		p.link.Unlock()
		select {
		case <-gone:
		case <-ctx.Done():
			c.Disconnect(&paho.Disconnect{})
		}
		<-c.Done()
		p.link.Lock()
	}
}

// publish sends the next number until the hub has answered it.
func (p *publisher) publish(ctx context.Context) error {
	i := p.next.Add(1) - 1
	payload := fmt.Append(nil, i)
	if p.timed {
		payload = fmt.Appendf(nil, `{"t":%d,"v":%d}`, p.start.Unix()+i, i)
	}
	answer := make(chan packets.ControlPacket, 1)
	for {
		if err := p.begin(ctx, payload, answer); err == nil {
			break
		} else if ctx.Err() != nil {
			return fmt.Errorf("number %d is not begun: %w", i, err)
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case r := <-answer:
		if err := good(r); err != nil {
			return fmt.Errorf("number %d: %w", i, err)
		}
	case <-ctx.Done():
		return fmt.Errorf("number %d is not answered: %w", i, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[i] = true
	return nil
}

// begin puts a publish into the session, which from then on delivers it over
// whichever connection.
func (p *publisher) begin(ctx context.Context, payload []byte, answer chan packets.ControlPacket) error {
	p.link.RLock()
	defer p.link.RUnlock()
	pub := (&paho.Publish{QoS: p.qos, Topic: "data/n", Payload: payload}).Packet()
	if err := p.session.AddToSession(ctx, pub, answer); err != nil {
		return err
	}
	pub.WriteTo(p.wire) // if it fails, the next connection sends it
	return nil
}

func good(r packets.ControlPacket) error {
	switch x := r.Content.(type) {
	case *packets.Puback:
		if x.ReasonCode == 0 {
			return nil
		}
	case *packets.Pubcomp:
		if x.ReasonCode == 0 || x.ReasonCode == 0x92 { // released by an answer that was lost
			return nil
		}
	case nil:
		return errors.New("the session was dropped before the answer")
	}
	return fmt.Errorf("answered with %s", r.String())
}

// kill -9 at any moment: what was acknowledged is there after the restart; nothing
// that carried a time, and nothing sent by QoS 2 with a lasting session, is there
// twice.
func TestKilledHubLosesNothingAndDoublesNothing(t *testing.T) {
	rounds := 5
	if long() {
		rounds = 100
	}
	seed := testseed.Of(t)
	t.Logf("%d rounds", rounds)
	r := rand.New(rand.NewPCG(seed, 1))
	h := newHouse(t)
	anna := h.person("Anna")
	start := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	var all []*publisher
	for i, mode := range []struct {
		qos   byte
		timed bool
	}{{1, true}, {1, true}, {2, false}, {2, false}} {
		all = append(all, &publisher{thing: h.enrolled(anna.Party, fmt.Sprintf("device %d", i)), qos: mode.qos, timed: mode.timed, start: start, acked: map[int64]bool{}})
	}
	h.halt()
	sending, stop := context.WithCancel(t.Context())
	patience, giveUp := context.WithTimeout(t.Context(), time.Duration(rounds)*20*time.Second+time.Minute)
	defer giveUp()
	hub := h.spawn(childConfig{RollEvery: 150 * time.Millisecond})
	results := make([]error, len(all))
	var running sync.WaitGroup
	for i, p := range all {
		p.at.Store(&hub.at)
		running.Go(func() { results[i] = p.run(sending, patience) })
	}
	for range rounds {
		time.Sleep(time.Duration(50+r.IntN(1500)) * time.Millisecond)
		if r.IntN(3) == 0 {
			hub.signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
			if r.IntN(2) == 0 {
				hub.signal(syscall.SIGCONT)
				time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
			}
		}
		hub.kill()
		hub = h.spawn(childConfig{RollEvery: 150 * time.Millisecond})
		for _, p := range all {
			p.at.Store(&hub.at)
		}
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	running.Wait()
	hub.end()
	h.start()
	total := 0
	for i, p := range all {
		if results[i] != nil {
			t.Errorf("device %d: %v", i, results[i])
		}
		if n := p.lost.Load(); n > 0 {
			t.Errorf("device %d: its session was forgotten %d times", i, n)
		}
		got, err := h.read(anna, p.Peer, "n")
		if err != nil {
			t.Fatal(err)
		}
		total += len(got)
		p.check(t, i, got)
	}
	t.Logf("%d kills, %d readings", rounds, total)
}

func (p *publisher) check(t *testing.T, device int, got []holdfast.Reading) {
	t.Helper()
	count := map[int64]int{}
	for _, r := range got {
		i := int64(r.Value.Number())
		count[i]++
		if p.timed && r.Time != p.start.Add(time.Duration(i)*time.Second).UnixNano() {
			t.Errorf("device %d: number %d has another's time", device, i)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(count)) {
		if count[i] > 1 {
			t.Errorf("device %d (QoS %d): number %d is there %d times", device, p.qos, i, count[i])
		}
	}
	missing := 0
	for i := range p.acked {
		if count[i] == 0 {
			missing++
		}
	}
	if missing > 0 || len(p.acked) == 0 {
		t.Errorf("device %d (QoS %d): %d of %d acknowledged readings are missing", device, p.qos, missing, len(p.acked))
	}
}
