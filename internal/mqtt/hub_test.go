package mqtt

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// hub is a Gate and a SessionStore in memory. Batches become durable when the test
// says so, or at once.
type hub struct {
	mu       sync.Mutex
	cond     sync.Cond
	manual   bool     // commits wait for land
	waiting  []func() // commits not yet durable, oldest first
	failWith error    // commits fail with it
	refuse   func(child string, samples []holdfast.Sample) error
	got      []arrival
	adds     int // publishes ever added
	commits  int
	sessions map[string]*memSession
	closed   []time.Duration // expiries given to Close
	openErr  error
	peers    []Peer // of all batches
	board    *board
}

// arrival is a sample that has become durable.
type arrival struct {
	Session string
	Child   string
	Stream  string
	Value   holdfast.Value
	Time    int64
	Timed   bool
	Seq     uint64
}

type memSession struct {
	open   bool
	expiry time.Duration
	ids    map[uint16]bool
	kept   map[string][]byte // subscriptions
}

func newHub() *hub {
	h := &hub{sessions: make(map[string]*memSession), board: newBoard()}
	h.cond.L = &h.mu
	return h
}

type memBatch struct {
	h        *hub
	session  string
	got      []arrival
	ids      []uint16
	released []uint16
}

func (h *hub) Batch(p Peer, session string) Batch {
	h.set(func() { h.peers = append(h.peers, p) })
	return &memBatch{h: h, session: session}
}

func (b *memBatch) Add(child string, samples []holdfast.Sample, d Delivery) error {
	b.h.mu.Lock()
	defer b.h.mu.Unlock()
	if b.h.refuse != nil {
		if err := b.h.refuse(child, samples); err != nil {
			return err
		}
	}
	b.h.adds++
	for _, s := range samples {
		b.got = append(b.got, arrival{b.session, child, s.Stream, s.Value, s.Time, s.Timed, s.Seq})
	}
	if d.QoS2 {
		b.ids = append(b.ids, d.PacketID)
	} else if d.PacketID != 0 {
		panic("a packet id without QoS 2")
	}
	return nil
}

func (b *memBatch) Release(id uint16) { b.released = append(b.released, id) }

func (b *memBatch) Commit(done func(error)) {
	h := b.h
	land := func() {
		h.mu.Lock()
		err := h.failWith
		if err == nil {
			h.got = append(h.got, b.got...)
			if s := h.sessions[b.session]; s != nil {
				for _, id := range b.released {
					delete(s.ids, id)
				}
				for _, id := range b.ids {
					s.ids[id] = true
				}
			}
		}
		h.cond.Broadcast()
		h.mu.Unlock()
		done(err)
	}
	h.mu.Lock()
	h.commits++
	manual := h.manual
	if manual {
		h.waiting = append(h.waiting, land)
		h.cond.Broadcast()
	}
	h.mu.Unlock()
	if !manual {
		land()
	}
}

// land makes n waiting commits durable, the oldest first, waiting for them to come.
func (h *hub) land(n int) {
	for range n {
		h.mu.Lock()
		for len(h.waiting) == 0 {
			h.cond.Wait()
		}
		f := h.waiting[0]
		h.waiting = h.waiting[1:]
		h.mu.Unlock()
		f()
	}
}

// await returns when n samples are durable.
func (h *hub) await(n int) []arrival {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.got) < n {
		h.cond.Wait()
	}
	return slices.Clone(h.got)
}

func (h *hub) arrivals() []arrival {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

func (h *hub) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

func (h *hub) Open(ctx context.Context, p Peer, clientID string, clean bool, expiry time.Duration) (Session, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.openErr != nil {
		return Session{}, false, h.openErr
	}
	name := p.Device.String() + "/" + clientID
	s := h.sessions[name]
	if s != nil && s.open {
		panic("Open of a session that is open")
	}
	present := s != nil && !clean
	if !present {
		s = &memSession{ids: make(map[uint16]bool), kept: make(map[string][]byte)}
		h.sessions[name] = s
	}
	s.open, s.expiry = true, expiry
	return Session{Name: name, Received: slices.Sorted(maps.Keys(s.ids)), Subscriptions: maps.Clone(s.kept)}, present, nil
}

func (h *hub) Close(ctx context.Context, p Peer, clientID string, expiry time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := p.Device.String() + "/" + clientID
	s := h.sessions[name]
	if s == nil || !s.open {
		panic("Close of a session that is not open")
	}
	s.open = false
	if expiry == 0 {
		delete(h.sessions, name)
	}
	h.closed = append(h.closed, expiry)
	h.cond.Broadcast()
	return nil
}

func (h *hub) Siblings(ctx context.Context, session, filter string) (all [][]byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	peer, _, _ := strings.Cut(session, "/")
	for name, s := range h.sessions {
		if about, ok := s.kept[filter]; ok && strings.HasPrefix(name, peer+"/") {
			all = append(all, about)
		}
	}
	return all, nil
}

func (h *hub) Keep(ctx context.Context, session, filter string, about []byte) error {
	h.Note(session, filter, about)
	return nil
}

func (h *hub) Note(session, filter string, about []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[session]; s != nil {
		s.kept[filter] = about
	}
}

func (h *hub) Drop(ctx context.Context, session, filter string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[session]; s != nil {
		delete(s.kept, filter)
	}
	return nil
}

// values returns the numbers of a stream, in order of arrival.
func values(t *testing.T, got []arrival, stream string) []float64 {
	t.Helper()
	var out []float64
	for _, a := range got {
		if a.Stream == stream {
			if a.Value.Type() != holdfast.Number {
				t.Fatalf("stream %s has a value of type %v", stream, a.Value.Type())
			}
			out = append(out, a.Value.Number())
		}
	}
	return out
}
