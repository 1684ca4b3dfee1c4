package series

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// Want is a stream to read, and the time of it.
type Want struct {
	Assignment holdfast.AssignmentID
	Stream     holdfast.StreamID
	Span       holdfast.Span
	Since      int64 // only what arrived then or later, as extent.arrived has it; 0: all
	Minutes    bool  // minutes may come as summaries in place of their rows
}

// Batch is a part of a stream's readings: rows [From, To) of the columns; or, if
// Minutes is not nil, minutes [From, To) of it, each of which is whole: nothing else
// of the stream and its span lies in it. What it refers to is valid until the next
// batch, and not to be changed.
type Batch struct {
	Want     int // whose: index of the wants
	Columns  *chunk.Columns
	Minutes  *chunk.Minutes
	From, To int

	snap *snapshot
	kept *cached // whose Columns or Minutes are
}

// Overtaken fails once an erasure has taken of the stream what the batch may hold.
// What is handed on row by row asks before each.
func (b *Batch) Overtaken() error { return b.snap.check() }

// Read gives the readings of streams as columns: stream by stream in the order of
// wants, within one by time, equal times in order of arrival, repeats once. Each
// stream is read at a moment of its own, not before the call. It ends after the
// first error, which names the stream; a damaged chunk's names segment and offset.
//
// Chunks are decoded ahead on all cores, little at first, so that a reader who
// soon has enough costs little. How much is ahead is bounded: a few tens of
// thousands of rows for each core.
func (s *Series) Read(ctx context.Context, wants []Want) iter.Seq2[*Batch, error] {
	return s.ReadOn(ctx, runtime.GOMAXPROCS(0), wants)
}

// ReadOn is Read on so many cores, for who has little memory.
func (s *Series) ReadOn(ctx context.Context, cores int, wants []Want) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		r := reading{s: s, ctx: ctx, cores: cores, wants: wants, target: 1}
		defer r.end()
		defer stop()
		for {
			b, err := r.next()
			if err != nil {
				yield(nil, err)
				return
			}
			if b == nil || !yield(b, nil) {
				return
			}
		}
	}
}

// A job is decoded at a time: at first little, then about jobRows rows. It pauses
// when what it made takes jobBytes.
const (
	jobRows  = 16 << 10
	jobBytes = 4 << 20
)

// reading is a Read under way.
type reading struct {
	s      *Series
	ctx    context.Context // of the Read, for as long as it goes on
	cores  int
	wants  []Want
	at     int    // the next want to open
	rest   *part  // of a stream too large for one job
	queue  []*job // under way, in order
	now    *job   // given out
	given  int    // batches of now
	target int    // cost of the next job

	running sync.WaitGroup
	mu      sync.Mutex
	idle    []*chunk.Columns
	spare   []*chunk.Minutes
	tools   []*unsealer
}

// next returns the next batch, nil at the end.
func (r *reading) next() (*Batch, error) {
	for {
		if r.now != nil {
			if r.given > 0 {
				r.recycle(r.now.out[r.given-1])
				r.now.out[r.given-1] = nil
			}
			if r.given < len(r.now.out) {
				b := r.now.out[r.given]
				r.given++
				if err := b.Overtaken(); err != nil {
					return nil, r.failed(b.Want, err)
				}
				return b, nil
			}
			r.given = 0
			if r.now.err == nil && len(r.now.parts) > 0 { // it paused
				r.now.run(r.ctx)
				continue
			}
			if r.now.err != nil {
				return nil, r.now.err
			}
			r.now.leave()
			r.now = nil
		}
		if err := r.ahead(); err != nil {
			return nil, err
		}
		if len(r.queue) == 0 {
			return nil, r.ctx.Err()
		}
		r.now, r.queue = r.queue[0], r.queue[1:]
		if r.now.done == nil {
			r.now.run(r.ctx)
		} else {
			<-r.now.done
		}
	}
}

// ahead keeps a job under way for each core, besides the one that is given out. The
// first one of all is the reader's own: most reads have no other.
func (r *reading) ahead() error {
	first := r.target == 1
	for len(r.queue) <= r.cores {
		j, err := r.job()
		if err != nil || j == nil {
			return err
		}
		r.queue = append(r.queue, j)
		r.target = min(jobRows, r.target*64)
		if first {
			return nil
		}
		j.done = make(chan struct{})
		r.running.Go(func() {
			defer close(j.done)
			j.run(r.ctx)
		})
	}
	return nil
}

// end waits for what is under way and lets go of all.
func (r *reading) end() {
	r.running.Wait()
	if r.now != nil {
		r.now.leave()
	}
	for _, j := range r.queue {
		j.leave()
	}
	if r.rest != nil {
		r.rest.snap.leave()
	}
}

// job gathers streams, or pieces of a large one, until they make a job.
func (r *reading) job() (*job, error) {
	j := &job{r: r}
	cost := 0
	for cost < r.target {
		if r.rest != nil {
			n := 0
			for n < len(r.rest.pieces) && (cost < r.target || n == 0) {
				cost += r.rest.pieces[n].cost(r.wants[r.rest.want].Minutes)
				n++
			}
			p := *r.rest
			p.pieces, r.rest.pieces = p.pieces[:n], p.pieces[n:]
			if p.last = len(r.rest.pieces) == 0; p.last {
				r.rest = nil
			}
			j.take(p)
			continue
		}
		if r.at == len(r.wants) {
			break
		}
		w := r.wants[r.at]
		snap, err := r.s.snapshot(r.ctx, streamName{w.Assignment, w.Stream}, w.Span, w.Since)
		if err != nil {
			j.leave()
			return nil, r.failed(r.at, err)
		}
		p := part{want: r.at, snap: snap, last: true}
		r.at++
		c := p.estimate(w.Minutes)
		if c > jobRows {
			if err := p.plan(r.ctx); err != nil {
				snap.leave()
				j.leave()
				return nil, r.failed(p.want, err)
			}
			r.rest = &p
			if len(p.pieces) == 0 {
				snap.leave()
				r.rest = nil
			}
			continue
		}
		cost += c
		j.take(p)
	}
	if len(j.parts) == 0 {
		return nil, nil
	}
	return j, nil
}

func (r *reading) failed(want int, err error) error {
	return fmt.Errorf("scan stream %s: %w", r.wants[want].Stream, err)
}

// last takes the last of what is kept for use again, or makes one.
func last[T any](r *reading, kept *[]*T) *T {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(*kept)
	if n == 0 {
		return new(T)
	}
	v := (*kept)[n-1]
	*kept = (*kept)[:n-1]
	return v
}

func (r *reading) recycle(b *Batch) {
	if b.kept != nil {
		r.s.cache.release(b.kept)
		b.kept = nil
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Columns != nil {
		r.idle = append(r.idle, b.Columns)
	}
	if b.Minutes != nil {
		r.spare = append(r.spare, b.Minutes)
	}
}

func (r *reading) tool() *unsealer {
	u := last(r, &r.tools)
	u.s = r.s
	return u
}

func (r *reading) putTool(u *unsealer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tools = append(r.tools, u)
}
