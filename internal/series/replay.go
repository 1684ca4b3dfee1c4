package series

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"

	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// record is a journal record, opened.
type record struct {
	pos, next journal.Pos
	header    Header
	content   Content
	retired   bool // its key was destroyed; there is no content
	data      []byte
}

// stretch is some records that follow each other: what one opener works on.
type stretch struct {
	records []record // beyond its length: memory to use again
	bytes   []byte
	err     error // what comes after the records
	opened  chan struct{}
}

// stretchBytes is large enough to make handing over cheap, and small enough that
// the rows of a few stretches are no burden.
const stretchBytes = 128 << 10

// records yields what the journal holds in [from, end), opened, in order; without
// rows their contents have none. Records are opened on all cores; a yielded one is
// valid until the next. It ends after the first error, which names the position.
func (s *Series) records(ctx context.Context, from, end journal.Pos, rows bool) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		openers := runtime.GOMAXPROCS(0)
		work := make(chan *stretch, openers)
		order := make(chan *stretch, openers)
		free := make(chan *stretch, 2*openers+2)
		ctx, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		running.Go(func() {
			defer close(work)
			defer close(order)
			s.readStretches(ctx, from, end, work, order, free)
		})
		for range openers {
			running.Go(func() {
				o := newOpener(s, rows)
				for st := range work {
					o.open(ctx, st)
				}
			})
		}
		for st := range order {
			<-st.opened
			for i := range st.records {
				if !yield(&st.records[i], nil) {
					return
				}
			}
			if st.err != nil {
				yield(nil, st.err)
				return
			}
			select {
			case free <- st:
			default:
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// readStretches hands each stretch to an opener and, in order, to the consumer.
func (s *Series) readStretches(ctx context.Context, from, end journal.Pos, work, order chan<- *stretch, free <-chan *stretch) {
	fresh := func() *stretch {
		st := &stretch{}
		select {
		case st = <-free:
		default:
		}
		st.records, st.bytes, st.err, st.opened = st.records[:0], st.bytes[:0], nil, make(chan struct{})
		return st
	}
	hand := func(st *stretch) bool {
		select {
		case work <- st:
		case <-ctx.Done():
			return false
		}
		select {
		case order <- st:
		case <-ctx.Done():
			return false
		}
		return true
	}
	st := fresh()
	for e, err := range s.log.Read(from) {
		if err != nil {
			st.err = fmt.Errorf("read journal: %w", err)
			break
		}
		if e.Pos >= end {
			break
		}
		if len(st.bytes) > 0 && len(st.bytes)+len(e.Data) > stretchBytes {
			if !hand(st) {
				return
			}
			st = fresh()
		}
		st.add(e)
	}
	hand(st)
}

func (st *stretch) add(e journal.Entry) {
	n := len(st.records)
	if n < cap(st.records) {
		st.records = st.records[:n+1]
	} else {
		st.records = append(st.records, record{})
	}
	at := len(st.bytes)
	st.bytes = append(st.bytes, e.Data...) // data of earlier records keeps its bytes if this moves
	r := &st.records[n]
	r.pos, r.next, r.retired, r.data = e.Pos, e.Next, false, st.bytes[at:len(st.bytes):len(st.bytes)]
}

// opener opens records; each goroutine has its own.
type opener struct {
	s       *Series
	rows    bool                        // decode them too
	ciphers map[seal.KeyID]*seal.Cipher // nil: retired
	key     seal.KeyID                  // of the last record
	cipher  *seal.Cipher
	scratch []byte
}

// openCiphers bounds the journal keys that an opener keeps: 1.3 KB each.
const openCiphers = 4096

func newOpener(s *Series, rows bool) *opener {
	return &opener{s: s, rows: rows, ciphers: map[seal.KeyID]*seal.Cipher{}}
}

func (o *opener) open(ctx context.Context, st *stretch) {
	defer close(st.opened)
	for i := range st.records {
		r := &st.records[i]
		err := o.record(ctx, r)
		if errors.Is(err, vault.ErrRetired) {
			r.retired = true
			continue
		}
		if err != nil {
			st.records, st.err = st.records[:i], fmt.Errorf("open journal record at position %d: %w", r.pos, err)
			return
		}
	}
}

// record opens r from its data. The error is vault.ErrRetired if its key was
// destroyed on purpose.
func (o *opener) record(ctx context.Context, r *record) error {
	h, box, err := ParseHeader(r.data)
	if err != nil {
		return err
	}
	r.header = h
	err = o.content(ctx, r, box)
	if errors.Is(err, seal.ErrWiped) { // since the key was taken: it is retired, or in its list anew
		delete(o.ciphers, h.Key)
		o.cipher = nil
		err = o.content(ctx, r, box)
	}
	return err
}

func (o *opener) content(ctx context.Context, r *record, box []byte) (err error) {
	h := r.header
	if o.cipher == nil || h.Key != o.key {
		if err := o.turn(ctx, h); err != nil {
			return err
		}
	}
	if o.cipher == nil {
		return vault.ErrRetired
	}
	if o.rows {
		o.scratch, err = OpenRecord(o.scratch, h, box, o.cipher, &r.content)
	} else {
		r.content.Rows = r.content.Rows[:0]
		if o.scratch, err = o.cipher.Open(o.scratch[:0], box, h.Place()); err == nil {
			_, _, err = decodeSession(o.scratch, h, &r.content)
		}
	}
	r.content.Session = bytes.Clone(r.content.Session) // it shares scratch
	return err
}

// turn takes the key of a record.
func (o *opener) turn(ctx context.Context, h Header) error {
	c, known := o.ciphers[h.Key]
	if !known {
		var err error
		if c, err = o.s.keys.JournalOpener(ctx, h.Assignment, h.Bucket, h.Key); err != nil && !errors.Is(err, vault.ErrRetired) {
			return err
		}
		if len(o.ciphers) >= openCiphers {
			clear(o.ciphers)
		}
		o.ciphers[h.Key] = c
	}
	o.key, o.cipher = h.Key, c
	return nil
}
