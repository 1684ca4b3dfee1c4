package series

import (
	"encoding/binary"
	"iter"
	"slices"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// tail knows where in the journal each assignment's records stand, from the
// rolled position on. A record takes three bytes or so: a gibibyte of journal is
// known in tens of mebibytes.
type tail struct {
	mu    sync.Mutex
	of    map[holdfast.AssignmentID]*tailList
	floor journal.Pos // rolled: older records are in chunks
	seen  journal.Pos // behind the last record that was added
	bytes int64
	most  int                       // records of one assignment
	pins  map[*tailView]journal.Pos // what may not be trimmed yet
}

// A tail with no more than fewBytes in all and fewRecords of each assignment is
// short: a scan is as fast as without it, and what slow devices send is not worth a
// roll, since each leaves a chunk and a row of the catalog for every stream.
const (
	fewBytes   = 1 << 20
	fewRecords = 100
)

func (t *tail) short() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes <= fewBytes && t.most <= fewRecords
}

// tailList only grows at its end; dropping makes new slices, so that a view can
// share them.
type tailList struct {
	blocks  []tailBlock // the last one grows
	records int
	bytes   int64
}

// tailBlock is up to tailBlockRecords records of an assignment in order. Of the
// first it has the position; of each, as uvarints, the way from the one before (of
// the first: 0) and the size.
type tailBlock struct {
	first, last journal.Pos
	records     int
	steps       []byte
}

const tailBlockRecords = 128

// positions yields where the block's records stand, and their sizes.
func (b *tailBlock) positions() iter.Seq2[journal.Pos, int64] {
	return func(yield func(journal.Pos, int64) bool) {
		pos, p := b.first, b.steps
		for range b.records {
			step, n := binary.Uvarint(p)
			size, m := binary.Uvarint(p[n:])
			p = p[n+m:]
			if pos += journal.Pos(step); !yield(pos, int64(size)) {
				return
			}
		}
	}
}

func (b *tailBlock) add(pos journal.Pos, size int64) {
	if b.records == 0 {
		b.first, b.last = pos, pos
	}
	b.steps = binary.AppendUvarint(b.steps, uint64(pos-b.last))
	b.steps = binary.AppendUvarint(b.steps, uint64(size))
	b.last = pos
	b.records++
}

func (l *tailList) add(pos journal.Pos, size int64) {
	n := len(l.blocks)
	if n == 0 || l.blocks[n-1].records == tailBlockRecords {
		if n > 0 {
			l.blocks[n-1].steps = slices.Clip(l.blocks[n-1].steps)
		}
		l.blocks = append(l.blocks, tailBlock{})
		n++
	}
	l.blocks[n-1].add(pos, size)
	l.records++
	l.bytes += size
}

// drop forgets what lies before pos, and returns its bytes.
func (l *tailList) drop(pos journal.Pos) (dropped int64) {
	whole := 0
	for whole < len(l.blocks) && l.blocks[whole].last < pos {
		for _, size := range l.blocks[whole].positions() {
			dropped += size
		}
		l.records -= l.blocks[whole].records
		whole++
	}
	rest := l.blocks[whole:]
	if len(rest) > 0 && rest[0].first < pos {
		rest = slices.Clone(rest)
		var b tailBlock
		for at, size := range rest[0].positions() {
			if at < pos {
				dropped += size
				l.records--
			} else {
				b.add(at, size)
			}
		}
		rest[0] = b
	} else if whole > 0 {
		rest = slices.Clone(rest) // lets go of the blocks before
	}
	l.blocks = rest
	l.bytes -= dropped
	return dropped
}

// Observe puts a durable record into the tail, so that scans see it. Ingest
// calls it from the journal's done callback, before the acknowledgement; next is
// pos plus the bytes the record takes, or more. Who watches the assignment gets a copy
// of rows, which may be nil before anybody does.
func (s *Series) Observe(h Header, rows []Row, pos, next journal.Pos) {
	if s.tail.add(h.Assignment, pos, next) >= s.opt.Bytes {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
	if s.live.on.Load() {
		s.live.observe(&h, rows, pos, next)
	}
}

func (t *tail) add(a holdfast.AssignmentID, pos, next journal.Pos) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = max(t.seen, next)
	if pos < t.floor { // a roll was faster than the callback
		return t.bytes
	}
	l := t.of[a]
	if l == nil {
		l = &tailList{}
		t.of[a] = l
	}
	size := int64(next - pos)
	l.add(pos, size)
	t.bytes += size
	t.most = max(t.most, l.records)
	return t.bytes
}

// restart begins an empty tail at pos.
func (t *tail) restart(pos journal.Pos) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.of)
	t.bytes, t.most, t.floor, t.seen = 0, 0, pos, pos
}

// observed is behind the last record that was added, and before the next.
func (t *tail) observed() journal.Pos {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}

// drop forgets what lies before pos, and returns how far the journal may be
// trimmed: views may still read older records.
func (t *tail) drop(pos journal.Pos) journal.Pos {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floor = max(t.floor, pos)
	t.most = 0
	for a, l := range t.of {
		t.bytes -= l.drop(pos)
		if t.most = max(t.most, l.records); len(l.blocks) == 0 {
			delete(t.of, a)
		}
	}
	for _, p := range t.pins {
		pos = min(pos, p)
	}
	return pos
}

// forget drops an erased assignment.
func (t *tail) forget(a holdfast.AssignmentID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.of[a]; l != nil {
		t.bytes -= l.bytes
		delete(t.of, a)
	}
}

func (t *tail) size() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}

// sizeOf returns the bytes of one assignment's records.
func (t *tail) sizeOf(a holdfast.AssignmentID) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.of[a]; l != nil {
		return l.bytes
	}
	return 0
}

// tailView is the tail of one assignment at a moment. Its records stay in the
// journal until release.
type tailView struct {
	blocks []tailBlock // but for the last
	last   tailBlock   // a copy: the list's own grows on
	bytes  int64
	t      *tail
}

func (t *tail) view(a holdfast.AssignmentID) *tailView {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := &tailView{t: t}
	if l := t.of[a]; l != nil {
		n := len(l.blocks) - 1
		v.blocks, v.last, v.bytes = l.blocks[:n:n], l.blocks[n], l.bytes
		t.pins[v] = l.blocks[0].first
	}
	return v
}

// positions yields where the records at or after from stand, in order.
func (v *tailView) positions(from journal.Pos) iter.Seq[journal.Pos] {
	return func(yield func(journal.Pos) bool) {
		for i := range len(v.blocks) + 1 {
			b := &v.last
			if i < len(v.blocks) {
				b = &v.blocks[i]
			}
			if b.records == 0 || b.last < from {
				continue
			}
			for pos := range b.positions() {
				if pos >= from && !yield(pos) {
					return
				}
			}
		}
	}
}

func (v *tailView) release() {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	delete(v.t.pins, v)
}
