package series

import (
	"container/list"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// cache keeps decoded chunks and summaries of what is asked again and again, as
// dashboards do. It is plaintext, in memory only, of values of fixed size, which are
// overwritten when they are let go of. Who reads from it has taken the key in force
// of the chunk's cell first, so it shows nothing that is erased; and an erasure
// empties it of what it covers when it is asked for and when it is carried out.
//
// A chunk is kept when it is asked for the second time: who reads all of a stream
// once does not take the place of what others need.
type cache struct {
	mu     sync.Mutex
	limit  int64
	used   int64
	items  map[cacheKey]*list.Element // of *cached
	recent list.List                  // most recent in front
	asked  map[cacheKey]struct{}      // once
	forgot uint64                     // how often something was forgotten

	hits, misses uint64
}

type cacheKey struct {
	chunk   [16]byte
	minutes bool
}

// cached is a chunk's columns or minutes. Who gets one gives it back.
type cached struct {
	key     cacheKey
	name    streamName
	columns *chunk.Columns
	minutes *chunk.Minutes
	size    int64
	users   int
	gone    bool // wiped by its last user
}

// askedMax bounds what is remembered of chunks asked for once.
const askedMax = 1 << 15

func newCache(limit int64) *cache {
	return &cache{limit: limit, items: map[cacheKey]*list.Element{}, asked: map[cacheKey]struct{}{}}
}

// now is what put wants to hear: what is decoded after it may be kept, unless
// something was forgotten meanwhile.
func (c *cache) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forgot
}

// get returns what is kept under k, nil if nothing is.
func (c *cache) get(k cacheKey) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		c.misses++
		return nil
	}
	c.hits++
	c.recent.MoveToFront(e)
	x := e.Value.(*cached)
	x.users++
	return x
}

// put takes x over, if it is worth it; then its maker is a user of it.
func (c *cache) put(x *cached, since uint64) bool {
	x.size = x.weigh()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, again := c.asked[x.key]; !again {
		if len(c.asked) >= askedMax {
			clear(c.asked)
		}
		if x.size <= c.limit/16 {
			c.asked[x.key] = struct{}{}
		}
		return false
	}
	if c.forgot != since || c.items[x.key] != nil {
		return false
	}
	delete(c.asked, x.key)
	x.users = 1
	c.items[x.key] = c.recent.PushFront(x)
	c.used += x.size
	for c.used > c.limit {
		c.drop(c.recent.Back())
	}
	return true
}

// release gives back what get returned or put took.
func (c *cache) release(x *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.users--; x.gone && x.users == 0 {
		x.wipe()
	}
}

// drop is called with c.mu held.
func (c *cache) drop(e *list.Element) {
	x := c.recent.Remove(e).(*cached)
	delete(c.items, x.key)
	c.used -= x.size
	if x.gone = true; x.users == 0 {
		x.wipe()
	}
}

// forget drops what is of the streams that which tells.
func (c *cache) forget(which func(streamName) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgot++
	for e := c.recent.Front(); e != nil; {
		next := e.Next()
		if which(e.Value.(*cached).name) {
			c.drop(e)
		}
		e = next
	}
}

// replaced drops chunks that a merge has put into others.
func (c *cache) replaced(rows []chunkRow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range rows {
		for _, minutes := range [...]bool{false, true} {
			if e, ok := c.items[cacheKey{rows[i].id, minutes}]; ok {
				c.drop(e)
			}
		}
	}
}

func (c *cache) stats() (used int64, hits, misses uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used, c.hits, c.misses
}

// weigh returns the bytes of memory that x takes; more than any cache holds for
// what can't be overwritten.
func (x *cached) weigh() int64 {
	if x.minutes != nil {
		return int64(x.minutes.Size())
	}
	c := x.columns
	switch c.Type {
	case holdfast.Number, holdfast.Integer, holdfast.Boolean, holdfast.Location:
		return int64(8*(cap(c.Times)+cap(c.Seqs)+cap(c.Numbers)+cap(c.Integers)) + cap(c.Marks) + cap(c.Booleans) + 24*cap(c.Positions))
	}
	return 1 << 62
}

func (x *cached) wipe() {
	if x.minutes != nil {
		x.minutes.Clear()
		return
	}
	c := x.columns
	clear(c.Times[:cap(c.Times)])
	clear(c.Seqs[:cap(c.Seqs)])
	clear(c.Marks[:cap(c.Marks)])
	clear(c.Numbers[:cap(c.Numbers)])
	clear(c.Integers[:cap(c.Integers)])
	clear(c.Booleans[:cap(c.Booleans)])
	clear(c.Positions[:cap(c.Positions)])
}
