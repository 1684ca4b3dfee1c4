package journal

import (
	"fmt"
	"time"
)

// groupLimit ends a group that has this many bytes: the disk is at its best, and
// the next records should not wait longer.
const groupLimit = 1 << 20

// run is the committer: the one goroutine that writes to the log.
func (f *File) run() {
	defer close(f.stopped)
	for open := true; open; {
		var items []pending
		items, open = f.queue.take(f.linger())
		f.commit(items)
		f.queue.recycle(items)
		if open {
			f.prepare()
		}
	}
	err := f.mark()
	f.mu.Lock()
	f.closed = err
	f.mu.Unlock()
}

// linger is how long to wait for company: no longer than a sync takes, so that
// half of a slow disk's time is left to others, and not at all on a quick disk.
// There the wait would cost more than the sync it saves, since an idle program's
// timers are a millisecond late.
func (f *File) linger() time.Duration {
	if f.syncTime < time.Millisecond {
		return 0
	}
	return min(f.opts.Linger, f.syncTime)
}

// commit makes the records durable and answers them, all in order.
func (f *File) commit(items []pending) {
	for len(items) > 0 {
		if f.hasFailed() {
			f.answer(items, f.refusal())
			return
		}
		n, full := f.fill(items)
		if full {
			err := f.rotate()
			switch {
			case items[0].cut:
				f.answer(items[:1], err)
				items = items[1:]
			case err != nil:
				f.answer(items, err)
				return
			}
			continue
		}
		if err := f.flush(); err != nil {
			f.answer(items, err)
			return
		}
		f.answer(items[:n], nil)
		items = items[n:]
	}
}

func (f *File) hasFailed() bool {
	select {
	case <-f.failed:
		return true
	default:
		return false
	}
}

// fill lays the first n of items into the group, as many as belong in it. It
// reports full if a new segment is needed before the first of them.
func (f *File) fill(items []pending) (n int, full bool) {
	end := f.End()
	limit := f.active().limit() - recordHeadSize // the mark of Close always has room
	f.group = f.group[:0]
	pos := end
	for n < len(items) && len(f.group) < groupLimit {
		p := &items[n]
		switch {
		case p.err != nil:
		case p.cut && pos == f.active().base: // nothing to end
		case p.cut, pos+Pos(recordSize(len(p.data))) > limit:
			return n, n == 0
		default:
			p.pos = pos
			f.group = appendRecord(f.group, &f.id, end, pos, p.data)
			pos = end + Pos(len(f.group))
		}
		n++
	}
	return n, false
}

// active is the segment that is written to.
func (f *File) active() *segment {
	segments := f.snapshot()
	return segments[len(segments)-1]
}

// flush writes the group and makes it durable.
func (f *File) flush() error {
	if len(f.group) == 0 {
		return nil
	}
	s, began := f.active(), time.Now()
	if _, err := s.file.WriteAt(f.group, s.offset(f.End())); err != nil {
		return f.fail(fmt.Errorf("write %s: %w", s.path, err))
	}
	if err := s.file.Sync(); err != nil {
		return f.fail(fmt.Errorf("sync %s: %w", s.path, err))
	}
	took := time.Since(began)
	f.syncTime += (took - f.syncTime) / 8
	f.stats.syncTime.Add(int64(took))
	f.stats.syncs.Add(1)
	f.marked = false
	f.end.Add(uint64(len(f.group)))
	return nil
}

// answer tells the items' outcome; err is for those that have none of their own.
func (f *File) answer(items []pending, err error) {
	var bytes int
	for i := range items {
		p := &items[i]
		bytes += len(p.data)
		switch {
		case p.err != nil:
			p.done(0, p.err)
		case err != nil:
			p.done(0, err)
		default:
			if !p.cut {
				f.stats.records.Add(1)
				f.stats.bytes.Add(uint64(len(p.data)))
			}
			p.done(p.pos, nil)
		}
	}
	f.queue.answered(bytes)
}

// mark leaves a witness behind the newest record, so that damage to it, while the
// process is down, is not taken for a torn write.
func (f *File) mark() error {
	s := f.active()
	if f.hasFailed() || f.marked || f.End() == s.base || f.End()+recordHeadSize > s.limit() {
		return nil
	}
	f.group = appendMark(f.group[:0], &f.id, f.End())
	return f.flush()
}
