package query

import (
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/holdfast-iot/holdfast"
)

// Budget is what reads may take; the zero value is derived from the memory that
// the process may have (GOMEMLIMIT).
type Budget struct {
	// Memory is what all reads under way may take together, in bytes. Default: a
	// quarter of the memory limit if there is one, at most 256 MiB.
	Memory int64
	// Query is what one may take; default a quarter of Memory.
	Query int64
	// Rows is how many readings the windows of one read may be of; default 2^31.
	Rows uint64
}

const (
	defaultMemory = 256 << 20
	leastMemory   = 32 << 20
	defaultRows   = 1 << 31
)

func (b Budget) withDefaults() Budget {
	if b.Memory <= 0 {
		b.Memory = defaultMemory
		if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
			b.Memory = max(leastMemory, min(b.Memory, limit/4))
		}
	}
	if b.Query <= 0 {
		b.Query = b.Memory / 4
	}
	b.Query = min(b.Query, b.Memory)
	if b.Rows == 0 {
		b.Rows = defaultRows
	}
	return b
}

// purse is the budget of all reads.
type purse struct {
	Budget
	mu    sync.Mutex
	taken int64
}

func newPurse(b Budget) *purse { return &purse{Budget: b.withDefaults()} }

// What large reads leave for small ones: a quarter.
func (p *purse) forLarge() int64 { return p.Memory - p.Memory/4 }

// take takes n bytes until the function that it returns is called. What a small read
// takes, large ones have left for it.
func (p *purse) take(n int64) (release func(), err error) {
	if n > p.Query {
		return nil, p.tooLarge()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	most := p.Memory
	if n > p.small() {
		most = p.forLarge()
	}
	if p.taken+n > most {
		return nil, holdfast.Errorf(holdfast.Unavailable, "too many large queries are under way: ask again, or for less at once")
	}
	p.taken += n
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken -= n
	}), nil
}

// small is what a read takes that reads one stream.
func (p *purse) small() int64 { return streamBytes }

func (p *purse) tooLarge() error {
	return holdfast.Errorf(holdfast.TooLarge, "the query needs more than the %d MiB that one may take (--query-memory): ask for a shorter time, longer windows, fewer streams at once, or pages (limit)", p.Query>>20)
}

const (
	// streamBytes is what reading takes for each core: chunks as they are stored, and
	// decoded ahead.
	streamBytes = 1 << 20
	// sketchBytes is what a sketch takes of values within some orders of magnitude.
	sketchBytes = 4 << 10
	// wildBytes is room for some sketches of values of all orders of magnitude.
	wildBytes = 4 << 20
	// listBytes is what a window takes in a group beside itself.
	listBytes = 64
)

func windowBytes(disclosures int) int64 {
	n := int64(unsafe.Sizeof(Window{})) + listBytes
	if disclosures > 1 {
		n += int64(disclosures) * int64(unsafe.Sizeof(amount{}))
	}
	return n
}

// needs is about what a read takes: for the streams that are read at a time, and for
// the windows of a group.
func (r *run) needs() int64 {
	n := int64(streamBytes)
	r.cores = runtime.GOMAXPROCS(0)
	if r.req.windows() && len(r.streams) > 1 {
		// On a machine of many cores, streams leave half for the windows.
		r.cores = min(r.cores, len(r.streams), max(1, int(r.q.purse.Query/2/streamBytes)))
		n *= int64(r.cores)
	}
	if len(r.groups) == 0 {
		return n
	}
	if r.req.crowd != nil { // all of its windows at once, with what each member has in them
		for _, g := range r.groups {
			windows := int64(r.req.manyWindows(g.spans[0])) + 2
			r.memory += windows * windowBytes(len(g.streams))
		}
		return n + r.memory
	}
	spare := r.q.purse.Query - n
	wanted := int64(0)
	for _, g := range r.groups {
		windows := r.req.manyWindows(holdfast.Span{From: g.spans[0].From, To: g.spans[len(g.spans)-1].To})
		wanted = max(wanted, int64(min(windows, MaxWindows))*r.windowCost(len(g.streams)))
	}
	if r.plan.needs&sketches != 0 {
		wanted = max(wanted, wildBytes)
	}
	r.memory = max(min(wanted, spare), r.windowCost(1))
	return n + r.memory
}

// windowCost is what a window of a group of streams is taken to cost.
func (r *run) windowCost(streams int) int64 {
	n := windowBytes(min(streams, 8))
	if r.plan.needs&sketches != 0 {
		n += sketchBytes
	}
	return n
}

// windowsAtOnce is how many windows of a group are made at a time.
func (r *run) windowsAtOnce(g *group) int {
	cost := windowBytes(len(g.opened))
	if r.plan.needs&sketches != 0 {
		cost += sketchBytes
	}
	return int(max(1, r.memory/cost))
}
