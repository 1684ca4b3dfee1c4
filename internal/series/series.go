// Package series keeps readings: from the journal, where they are durable, into
// sealed chunks in immutable segments, where they are small, and back out in
// order of time.
//
// A cell is a stream in a bucket of one assignment: what one stream key seals and
// what dies with it. A roll takes the journal's records, sorts each cell's
// readings by time and arrival, and writes them as chunks into a segment; the
// catalog has a row per chunk and the position up to which the journal is
// rolled. A merge makes few full chunks of a cell's many small ones. A scan reads
// chunks and the journal's tail from one snapshot; of dense chunks there are
// summaries by the minute, which Read gives in place of rows where they say as much.
//
// It promises that a reading which is durable in the journal is in every scan
// exactly once, whatever roll, merge or crash comes between; that equal times keep
// the order of arrival; that a repeat (holdfast.Reading.Repeats) shows once; and
// that a chunk opens only with the key of its cell, in its own place.
//
// It decides nothing: who may read is decided before Scan, what is accepted before
// the journal, what dies by package erasure and package vault. It knows readings,
// not devices or owners.
//
// Every step may be the last before a crash. A segment is announced in the catalog,
// then written, then named by chunk rows in one transaction with the rolled
// position, then the journal is trimmed; what a crash leaves is cleared by the
// next roll, merge or start. docs/format/record.md and docs/format/segment.md have
// the bytes.
package series

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Keys is the vault, as this package needs it.
type Keys interface {
	// JournalOpener returns the cipher of the journal key called id, vault.ErrRetired
	// if it was destroyed on purpose.
	JournalOpener(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket, id seal.KeyID) (*seal.Cipher, error)
	// StreamCiphers returns the ciphers of cells, making those that are missing;
	// NotFound if a's key was destroyed.
	StreamCiphers(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket, streams []holdfast.StreamID) (map[holdfast.StreamID]*seal.Cipher, error)
	// StreamCipher returns the cipher in force of one cell, NotFound if it was
	// destroyed.
	StreamCipher(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket, s holdfast.StreamID) (*seal.Cipher, error)
}

// Cell is what one stream key seals.
type Cell struct {
	Assignment holdfast.AssignmentID
	Stream     holdfast.StreamID
	Bucket     seal.Bucket
}

// Options tunes a Series; the zero value works.
type Options struct {
	Every      time.Duration // between rolls, default 5 minutes
	Slow       time.Duration // between rolls while the tail is short (see tail.short), default an hour
	Bytes      int64         // roll earlier when the journal's tail exceeds this, default 48 MiB
	MergeEvery time.Duration // between merges, default a day
	MergeAfter int           // merge earlier after this many new chunks, default 250,000
	Window     time.Duration // for how long at least it is known in which order readings arrived, default a day
	CacheBytes int64         // of decoded readings kept in memory, default 64 MiB; negative: none
	Logger     *slog.Logger  // default slog.Default()
}

// Series is the keeper of readings. All methods are safe for concurrent use.
type Series struct {
	db    *catalog.DB
	log   journal.Log
	blobs blob.Store
	keys  Keys
	opt   Options

	tail      tail
	live      live
	readers   readers
	positions positions
	kept      kept
	cache     *cache
	stats     *stats
	rolling   rolling
	remains   remains
	withheld  atomic.Pointer[func(Cell) bool]
	full      chan struct{} // the tail exceeds Options.Bytes
	cells     sync.Pool     // of empty *sliceCell: rolls make as many as there are streams

	// work is held by whoever changes segments: one roll, merge, erase or rewrite at
	// a time.
	work chan struct{}

	sliceBytes  int                     // of decoded rows that one slice of a roll may hold
	segmentSize int                     // largest segment
	fault       func(step string) error // tests end a run between two steps
}

const (
	defaultSliceBytes  = 32 << 20
	defaultSegmentSize = 64 << 20
)

// New makes a Series over its stores. Recover comes before all else.
func New(db *catalog.DB, log journal.Log, blobs blob.Store, keys Keys, o Options) *Series {
	if o.Every <= 0 {
		o.Every = 5 * time.Minute
	}
	if o.Slow <= 0 {
		o.Slow = time.Hour
	}
	if o.Bytes <= 0 {
		o.Bytes = 48 << 20
	}
	if o.MergeEvery <= 0 {
		o.MergeEvery = 24 * time.Hour
	}
	if o.MergeAfter <= 0 {
		o.MergeAfter = 250_000
	}
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Series{
		db: db, log: log, blobs: blobs, keys: keys, opt: o,
		tail:       tail{of: map[holdfast.AssignmentID]*tailList{}, pins: map[*tailView]journal.Pos{}},
		readers:    readers{active: map[uint64]int{}, open: map[*snapshot]struct{}{}, blocked: map[int64]uint64{}},
		cache:      newCache(max(0, o.CacheBytes)),
		full:       make(chan struct{}, 1),
		work:       make(chan struct{}, 1),
		sliceBytes: defaultSliceBytes, segmentSize: defaultSegmentSize,
	}
	s.remains.all = map[int64]Remaining{}
	s.kept.ends = map[int64]journal.Pos{}
	s.cells.New = func() any { return new(sliceCell) }
	s.stats = newStats(s)
	return s
}

// lock takes the right to change segments.
func (s *Series) lock(ctx context.Context) error {
	select {
	case s.work <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Series) unlock() { <-s.work }

// step marks a point at which a crash must do no harm.
func (s *Series) step(name string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(name)
}

// Run rolls and merges until ctx ends. What fails is logged and tried again after a
// while, longer each time: the journal keeps the readings meanwhile.
func (s *Series) Run(ctx context.Context) error {
	tick := time.NewTicker(s.opt.Every)
	defer tick.Stop()
	rolled, merge := time.Now(), time.Now().Add(s.opt.MergeEvery)
	pause := firstPause
	for {
		full := false
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.full:
			full = true
		}
		if !full && s.tail.short() && time.Since(rolled) < s.opt.Slow {
			continue
		}
		err := s.Roll(ctx)
		if err == nil {
			rolled = time.Now()
			if !rolled.Before(merge) || int(s.stats.unmerged.Load()) >= s.opt.MergeAfter {
				merge = time.Now().Add(s.opt.MergeEvery)
				if err = s.Merge(ctx); err != nil {
					merge = time.Now().Add(min(time.Hour, s.opt.MergeEvery))
				}
			}
		}
		if err == nil || ctx.Err() != nil {
			pause = firstPause
			continue
		}
		s.opt.Logger.ErrorContext(ctx, "keep readings", "error", err, "again_in", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// A full disk does not heal by asking it: what failed is left alone for a while.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)
