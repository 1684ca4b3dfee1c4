package policy

import (
	"iter"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go"
)

// permits are the grants to one reader for one purpose, as policies. One that names
// streams can't allow another, and is only found by these names.
type permits struct {
	any     policies // of all streams
	streams map[string]policies
}

// permit takes in a grant. One of no stream can't allow anything, and is in no list.
func (w *weighed) permit(g *Grant, p named) {
	of := w.permits[g.Purpose]
	if of == nil {
		of = &permits{streams: map[string]policies{}}
		w.permits[g.Purpose] = of
	}
	if g.AllStreams {
		of.any = append(of.any, p)
		return
	}
	for i, name := range g.Streams {
		if !slices.Contains(g.Streams[:i], name) {
			of.streams[name] = append(of.streams[name], p)
		}
	}
}

// matter are the policies that can matter to one request. It is a
// cedar.PolicyIterator.
type matter struct {
	lists       []policies
	permitsOnly bool
}

// matter leaves out grants for purposes and of streams that the request is not about:
// what remains is decided by Cedar, and every forbid is there.
func (w *weighed) matter(r *Request) *matter {
	m := &matter{lists: append(make([]policies, 0, 4), w.always)}
	m.add(w.permits[r.Purpose], r.Stream)
	for i, p := range r.Broader {
		if p != r.Purpose && !slices.Contains(r.Broader[:i], p) {
			m.add(w.permits[p], r.Stream)
		}
	}
	return m
}

func (m *matter) add(of *permits, stream string) {
	if of == nil {
		return
	}
	m.lists = append(m.lists, of.any, of.streams[stream])
}

// everything is what matters to some request, each policy once.
func (w *weighed) everything() *matter {
	m := &matter{lists: []policies{w.always}}
	seen := map[cedar.PolicyID]bool{}
	for _, of := range w.permits {
		m.lists = append(m.lists, of.any)
		var named policies
		for list := range maps.Values(of.streams) {
			for _, p := range list {
				if !seen[p.id] {
					seen[p.id], named = true, append(named, p)
				}
			}
		}
		m.lists = append(m.lists, named)
	}
	return m
}

// All returns the policies.
func (m *matter) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, list := range m.lists {
			for _, p := range list {
				if m.permitsOnly && p.policy.Effect() != cedar.Permit {
					continue
				}
				if !yield(p.id, p.policy) {
					return
				}
			}
		}
	}
}
