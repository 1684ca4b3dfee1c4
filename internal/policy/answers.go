package policy

import (
	"encoding/binary"
	"sort"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// maxAnswers bounds what one Set remembers; one takes about half a kilobyte.
const maxAnswers = 512

// keyRoom is what a usual key takes, so that it needs no memory of its own.
const keyRoom = 512

// answers remembers what a Set answered. It belongs to a Set, which never changes:
// whatever else an answer depends on is in its key, or bounds its time.
type answers struct {
	mu   sync.RWMutex
	have map[string]*answer
}

// find returns the answer for a key at a time in milliseconds.
func (c *answers) find(key []byte, now int64) (*answer, bool) {
	c.mu.RLock()
	a, ok := c.have[string(key)]
	c.mu.RUnlock()
	return a, ok && a.from <= now && now < a.until
}

// keep remembers an answer. When there are too many all are forgotten: what is asked
// again is soon there again.
func (c *answers) keep(key []byte, a *answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have == nil || len(c.have) >= maxAnswers {
		c.have = make(map[string]*answer)
	}
	c.have[string(key)] = a
}

// key appends everything of a request that its answer depends on but the time: two
// requests of one key have one answer. Of those for whom the reader acts and of the
// span only what matters is taken.
func (r *Request) key(b []byte, w *weighed) []byte {
	flag := func(v bool) byte {
		if v {
			return 1
		}
		return 0
	}
	b = append(b, byte(r.Reader), flag(r.acts(r.Whose())))
	b = append(b, r.ReaderParty[:]...)
	b = append(b, r.Operating[:]...)
	b = append(b, r.Owner[:]...)
	b = append(b, r.Subject[:]...)
	b = append(b, r.Device[:]...)
	b = append(b, r.Assignment[:]...)
	b = text(b, string(r.Purpose))
	b = text(b, r.Stream)
	b = text(b, r.Category)
	b = binary.AppendUvarint(b, uint64(len(r.Broader)))
	for _, p := range r.Broader {
		b = text(b, string(p))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Categories)))
	for _, c := range r.Categories {
		b = text(b, c)
	}
	only, some := r.grants()
	b = append(b, flag(some))
	b = binary.AppendUvarint(b, uint64(len(only)))
	for _, g := range only {
		b = append(b, g[:]...)
	}
	b = r.Permission.key(b)
	// A grant is met if it begins by the request's end and ends not before its start.
	to, from := milliseconds(r.Span.To), milliseconds(r.Span.From)
	b = binary.AppendUvarint(b, uint64(sort.Search(len(w.begins), func(i int) bool { return w.begins[i] > to })))
	return binary.AppendUvarint(b, uint64(sort.Search(len(w.ends), func(i int) bool { return w.ends[i] >= from })))
}

func (p *Permission) key(b []byte) []byte {
	if p.ID.IsZero() {
		return append(b, 0)
	}
	b = append(append(append(b, 1), p.ID[:]...), p.Whose[:]...)
	b = text(b, string(p.Purpose))
	b = binary.BigEndian.AppendUint64(b, uint64(p.From))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Until))
	b = binary.AppendUvarint(b, uint64(len(p.Devices)))
	for _, d := range p.Devices {
		b = append(b, d[:]...)
	}
	return b
}

// text appends a string with its length before it, so that no two lists of texts
// read alike.
func text(b []byte, s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }

// boundTo reports whether the reader's credential is bound to a grant among others.
func (r *Request) boundTo(id holdfast.GrantID) bool {
	for _, g := range r.Bound {
		if g == id {
			return true
		}
	}
	return false
}
