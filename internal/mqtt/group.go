package mqtt

import (
	"context"
	"sync"
)

// groupKey names a shared subscription. It is shared by the sessions of one credential
// that name one purpose: others may have other rights, and what each may read is
// decided for who reads it.
type groupKey struct {
	peer    peerID
	filter  string // with $share/NAME/
	purpose string
}

// group is a shared subscription with its stream, while it has members.
type group struct {
	s   *Server
	key groupKey
	in  int // who is joining or leaving, and the stream; under Server.groupsMu

	mu sync.Mutex // held by who joins or leaves
	st *stream    // nil: it has no members
}

// lock and unlock do nothing for a stream that is not shared.
func (g *group) lock() {
	if g != nil {
		g.mu.Lock()
	}
}

func (g *group) unlock() {
	if g != nil {
		g.mu.Unlock()
	}
}

// end says that a stream has lost its last member. The caller holds the lock.
func (g *group) end(st *stream) {
	if g == nil {
		return
	}
	if g.st == st {
		g.st = nil
	}
	g.s.letGo(g)
}

// add makes sub a member, unless the stream has failed.
func (st *stream) add(sub *subscriber) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.failed != nil || st.closed {
		return false
	}
	st.members = append(st.members[:len(st.members):len(st.members)], sub)
	return true
}

// enterGroup returns the group of a key, which stays until letGo.
func (s *Server) enterGroup(key groupKey) *group {
	s.groupsMu.Lock()
	defer s.groupsMu.Unlock()
	g := s.groups[key]
	if g == nil {
		g = &group{s: s, key: key}
		s.groups[key] = g
	}
	g.in++
	return g
}

func (s *Server) letGo(g *group) {
	s.groupsMu.Lock()
	defer s.groupsMu.Unlock()
	if g.in--; g.in == 0 {
		delete(s.groups, g.key)
	}
}

// streamOf opens what sub asks for, or joins the stream of its group. mark is where
// the session stood, "" for a new subscription.
func (s *Server) streamOf(ctx context.Context, who Subscriber, sub *subscriber, mark string) (*stream, error) {
	_, inner, shared := splitShared(sub.filter)
	if !shared {
		src, err := s.o.Source.Open(ctx, who, sub.filter, mark)
		if err != nil {
			return nil, err
		}
		return s.newStream(src, sub.filter, nil, sub), nil
	}
	g := s.enterGroup(groupKey{who.Peer.id(), sub.filter, sub.purpose})
	defer s.letGo(g)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.st != nil && g.st.add(sub) {
		return g.st, nil
	}
	mark, err := s.latest(ctx, sub, mark)
	if err != nil {
		return nil, err
	}
	src, err := s.o.Source.Open(ctx, who, inner, mark)
	if err != nil {
		return nil, err
	}
	g.st = s.newStream(src, sub.filter, g, sub)
	s.groupsMu.Lock()
	g.in++ // the stream's
	s.groupsMu.Unlock()
	return g.st, nil
}

// latest is where a shared subscription stands that has no stream: where the session
// that was in it last has left it.
func (s *Server) latest(ctx context.Context, sub *subscriber, mark string) (string, error) {
	all, err := s.sessions.Siblings(ctx, sub.c.session, sub.filter)
	if err != nil {
		return "", err
	}
	var at int64
	for _, about := range all {
		if k, err := readKept(about); err == nil && k.Purpose == sub.purpose && k.At > at {
			at, mark = k.At, k.Mark
		}
	}
	return mark, nil
}
