package vault

import (
	"container/list"
	"sync"

	"github.com/holdfast-iot/holdfast/internal/seal"
)

// maxListBytes bounds the memory of opened lists. A key with its cipher takes
// about 1 KiB: this is room for the lists of 10,000 devices with a few streams
// each.
const maxListBytes = 64 << 20

// What a list takes, in bytes (BenchmarkListMemory measures it).
const (
	listBytes = 320
	keyBytes  = 1024
)

// listCache keeps opened lists, the least recently used leaving first. Somebody may
// have a cipher of one that leaves in hand: it is overwritten when nobody has it any
// more (seal.Cipher).
type listCache struct {
	locks   [64]sync.Mutex // by owner: see Vault.list
	mu      sync.Mutex
	changes [64]uint64 // by owner: how often a list of theirs grew or was forgotten
	max     int64
	bytes   int64
	byName  map[listName]*list.Element // of *keyList
	recent  *list.List                 // most recent in front

	hits, misses, evicted uint64
}

type listName struct {
	owner  Owner
	bucket seal.Bucket
}

func newListCache(max int64) *listCache {
	return &listCache{max: max, byName: map[listName]*list.Element{}, recent: list.New()}
}

func (c *listCache) lock(o Owner) *sync.Mutex { return &c.locks[o[0]%64] }

// lockAll takes the locks of all the owners.
func (c *listCache) lockAll(owners []Owner) (unlock func()) {
	var taken [64]bool
	for _, o := range owners {
		taken[o[0]%64] = true
	}
	for i := range taken { // in one order, lest two wait for each other
		if taken[i] {
			c.locks[i].Lock()
		}
	}
	return func() {
		for i := range taken {
			if taken[i] {
				c.locks[i].Unlock()
			}
		}
	}
}

// get returns the list, nil if it is not here, and how often lists near it have
// changed: what is read elsewhere now is only as good as that.
func (c *listCache) get(o Owner, b seal.Bucket) (*keyList, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byName[listName{o, b}]
	if !ok {
		c.misses++
		return nil, c.changes[o[0]%64]
	}
	c.hits++
	c.recent.MoveToFront(e)
	return e.Value.(*keyList), 0
}

// offer takes in a list that was read, nil for one that is not there. It reports
// false if lists have changed since: the reading may be older than they are.
func (c *listCache) offer(o Owner, l *keyList, changes uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes[o[0]%64] != changes {
		return false
	}
	if l != nil {
		c.add(l)
	}
	return true
}

func (c *listCache) put(l *keyList) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes[l.owner[0]%64]++
	c.add(l)
}

func (c *listCache) add(l *keyList) {
	l.cost = listBytes + keyBytes*int64(l.len())
	name := listName{l.owner, l.bucket}
	if e, ok := c.byName[name]; ok {
		c.remove(e)
	}
	c.byName[name] = c.recent.PushFront(l)
	c.bytes += l.cost
	for c.bytes > c.max && c.recent.Len() > 1 {
		c.evicted++
		c.remove(c.recent.Back())
	}
}

func (c *listCache) remove(e *list.Element) *keyList {
	l := c.recent.Remove(e).(*keyList)
	delete(c.byName, listName{l.owner, l.bucket})
	c.bytes -= l.cost
	return l
}

// forget drops the lists of the owners, and overwrites the keys of those that are
// gone. Of those that live on it overwrites the dropped ones: another one,
// somebody may be about to use.
func (c *listCache) forget(gone, renewed map[Owner]bool, dropped map[seal.KeyID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, owners := range []map[Owner]bool{gone, renewed} {
		for o := range owners {
			c.changes[o[0]%64]++
		}
	}
	for name, e := range c.byName {
		if !gone[name.owner] && !renewed[name.owner] {
			continue
		}
		l := c.remove(e)
		if gone[name.owner] {
			l.wipe()
		} else {
			l.wipeThose(dropped)
		}
	}
}
