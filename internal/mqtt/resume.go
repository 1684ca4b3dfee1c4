package mqtt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// noteEvery is how often a live subscription notes how far its client has got. A crash
// of the hub gives the client that much again.
const noteEvery = 5 * time.Second

// maxCompared is how many messages of a subscription that goes on are compared with
// what its session had in flight: more than any window has.
const maxCompared = 1024

// kept is what a session keeps of a subscription, as JSON.
type kept struct {
	QoS     byte     `json:"qos"`
	Number  int      `json:"number,omitempty"`
	Purpose string   `json:"purpose,omitempty"`
	Mark    string   `json:"mark"`
	At      int64    `json:"at"` // ns since 1970: when Mark was the mark
	Flying  []flying `json:"flying,omitempty"`
}

// flying is a message behind the mark that was sent: not what it says, but enough to
// know it again when the Source gives it again.
type flying struct {
	ID   uint16 `json:"id"`
	Sum  uint64 `json:"sum"`
	Done bool   `json:"done,omitempty"` // acknowledged, though not all before it
}

func readKept(about []byte) (k kept, err error) {
	if err := json.Unmarshal(about, &k); err != nil || k.QoS > 1 {
		return kept{}, holdfast.Errorf(holdfast.Internal, "read subscription: it is damaged")
	}
	return k, nil
}

func sumOf(m *Message) uint64 {
	h := sha256.New()
	h.Write([]byte(m.Topic))
	h.Write([]byte{0})
	h.Write(m.Payload)
	h.Write(m.Correlation)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// state is what a session keeps of sub now.
func (st *stream) state(sub *subscriber) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stateLocked(sub)
}

func (st *stream) stateLocked(sub *subscriber) []byte {
	k := kept{Purpose: sub.purpose, Mark: st.mark, At: time.Now().UnixNano(), QoS: byte(sub.qos.Load()), Number: int(sub.number.Load())}
	if st.group == nil {
		for _, p := range st.unsure {
			if id := uint16(p.id.Load()); id != 0 {
				k.Flying = append(k.Flying, flying{ID: id, Sum: p.sum, Done: p.done})
			}
		}
		k.Flying = append(k.Flying, sub.resumed...) // not given again so far
	}
	b, err := json.Marshal(k)
	if err != nil {
		panic(fmt.Sprintf("write subscription: %v", err))
	}
	return b
}

func (st *stream) noteLocked(sub *subscriber) {
	if sub.lasting {
		st.s.sessions.Note(sub.c.session, sub.filter, st.stateLocked(sub))
	}
}

// compare looks for p among what the session had in flight when its last connection
// ended: then it keeps its packet id and is marked as sent before. It reports true if
// the client has p already.
func (st *stream) compare(sub *subscriber, p *parcel) (had bool) {
	if !p.fresh || st.group != nil {
		return false
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	p.fresh = false
	if p.QoS > 0 && sub.lasting || len(sub.resumed) > 0 {
		p.sum = sumOf(&p.Message)
	}
	if len(sub.resumed) == 0 {
		return false
	}
	if sub.matched++; sub.matched > maxCompared {
		sub.resumed = nil
		return false
	}
	i := slices.IndexFunc(sub.resumed, func(f flying) bool { return f.Sum == p.sum })
	if i < 0 {
		return false
	}
	f := sub.resumed[i]
	sub.resumed = slices.Delete(sub.resumed, i, i+1)
	p.id.Store(uint32(f.ID))
	p.dup = !f.Done
	return f.Done
}

// goOn opens the subscriptions of a session. Where one of them can't be had any more,
// the session isn't what the client believes, so it begins anew: CONNACK then says that
// nothing is present, and the client subscribes again and hears why it can't.
func (c *conn) goOn(ctx context.Context, s Session, present bool) (Session, bool, error) {
	if len(s.Subscriptions) == 0 {
		return s, present, nil
	}
	err := c.resume(ctx, s.Subscriptions)
	if err == nil {
		return s, present, nil
	}
	c.abandonStreams()
	switch holdfast.KindOf(err) {
	case holdfast.Unavailable, holdfast.Internal:
		return s, present, err
	}
	if err := c.s.sessions.Close(ctx, c.peer, c.key.clientID, 0); err != nil {
		return s, present, err
	}
	return c.s.sessions.Open(ctx, c.peer, c.key.clientID, true, c.expiry)
}

// resume opens the subscriptions that a session has kept. If one of them is refused for
// good, the session is not what the client believes: it says so with an error that is
// not of kind Unavailable or Internal.
func (c *conn) resume(ctx context.Context, subscriptions map[string][]byte) error {
	for filter, about := range subscriptions {
		k, err := readKept(about)
		if err != nil {
			return err
		}
		sub := c.subscriber(filter, k.QoS, k.Number, k.Purpose)
		sub.resumed = k.Flying
		if err := c.join(sub, k.Mark); err != nil {
			return err
		}
		c.mu.Lock()
		for _, f := range k.Flying {
			if f.Done {
				continue
			}
			if c.way.held == nil {
				c.way.held = make(map[uint16]struct{})
			}
			c.way.held[f.ID] = struct{}{}
		}
		c.mu.Unlock()
	}
	return nil
}

// abandonStreams ends what resume has opened.
func (c *conn) abandonStreams() {
	if c.way == nil {
		return
	}
	for _, sub := range c.way.subs {
		c.leave(sub)
	}
	c.mu.Lock()
	c.way = nil
	c.mu.Unlock()
}
