package backup

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// FetchCatalog writes the backup's catalog into a folder, in place of what an earlier
// attempt has left there.
func (r *Reader) FetchCatalog(ctx context.Context, dir string) (err error) {
	to, err := openDisk(dir)
	if err != nil {
		return failure("restore catalog", err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	for _, left := range []string{catalog.File, catalog.File + "-wal", catalog.File + "-shm"} {
		if err := to.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure("restore catalog", err)
		}
	}
	t, err := create(to, catalog.File+tempSuffix)
	if err != nil {
		return err
	}
	for _, e := range r.of(KindCatalog) {
		if err := r.read(ctx, e, t); err != nil {
			return errors.Join(err, t.drop())
		}
	}
	if err := t.keep(catalog.File); err != nil {
		return err
	}
	if err := syncFolder(to, "."); err != nil {
		return err
	}
	if err := plainTables(ctx, dir); err != nil {
		return err
	}
	return catalog.Sound(ctx, dir)
}

// plainTables refuses a catalog with what none of ours has, and what could make a
// question to it cost without end: views and triggers.
func plainTables(ctx context.Context, dir string) error {
	var other int
	err := catalog.Look(ctx, filepath.Join(dir, catalog.File), func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index')`).Scan(&other)
	})
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "the catalog in the backup can't be read: %w", err)
	}
	if other > 0 {
		return holdfast.Errorf(holdfast.Invalid, "the catalog in the backup has views or triggers, as no catalog of a hub has: it was made by somebody else")
	}
	return nil
}

// of returns the entries of a kind; they stand together.
func (r *Reader) of(kind string) []Entry {
	is := func(e Entry) bool { return e.Kind == kind }
	first := slices.IndexFunc(r.entries, is)
	if first < 0 {
		return nil
	}
	all := r.entries[first:]
	if end := slices.IndexFunc(all, func(e Entry) bool { return !is(e) }); end >= 0 {
		all = all[:end]
	}
	return all
}

// fetchers is how many segments are in memory at once.
const fetchers = 3

// FetchSegments puts the segments that the catalog in dir names into a store. What
// is there whole from an earlier attempt is not put again.
func (r *Reader) FetchSegments(ctx context.Context, dir string, to blob.Store, progress func(Progress)) error {
	entries := r.of(KindSegment)
	p := Progress{Of: len(entries)}
	for _, e := range entries {
		p.Total += e.Size
	}
	var mu sync.Mutex
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	named := 0
	mixed := func() error {
		return holdfast.Errorf(holdfast.Invalid, "the backup has %d segments, its catalog names others: it is mixed", len(entries))
	}
	err := catalog.Look(ctx, filepath.Join(dir, catalog.File), func(tx *sql.Tx) error {
		for h, err := range series.HeldIn(ctx, tx) {
			if err != nil {
				return err
			}
			if named == len(entries) {
				return mixed()
			}
			if within.Err() != nil {
				return nil // the group has the reason
			}
			e := entries[named]
			named++
			group.Go(func() error {
				if err := r.fetchSegment(within, e, h, to); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				p.Pieces++
				p.Bytes += e.Size
				if progress != nil {
					progress(p)
				}
				return nil
			})
		}
		return nil
	})
	if failed := group.Wait(); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("read restored catalog: %w", err)
	}
	if named != len(entries) {
		return mixed()
	}
	return nil
}

func (r *Reader) fetchSegment(ctx context.Context, e Entry, h *series.Held, to blob.Store) error {
	if p := segmentPart(h); e.ID != p.ID || e.Size != p.Size || h.Bytes > maxSegment {
		return holdfast.Errorf(holdfast.Invalid, "piece %s is not what the catalog names of segment %s: the backup is mixed", e.File, h.Blob)
	}
	if have, err := to.Size(ctx, h.Blob); err == nil && have == h.Bytes {
		return nil
	}
	// What has died is zero, as in the segment when it has been tidied.
	whole := &spread{to: make([]byte, h.Bytes), ranges: h.Ranges}
	if err := r.read(ctx, e, whole); err != nil {
		return err
	}
	if err := to.Put(ctx, h.Blob, whole.to); err != nil {
		return fmt.Errorf("restore segment: %w", err)
	}
	return nil
}

// spread puts what is written to it, which has as many bytes as the ranges, where the
// ranges are.
type spread struct {
	to     []byte
	ranges []series.Range
	at     int64 // in the first range
}

func (s *spread) Write(p []byte) (n int, err error) {
	for len(p) > 0 && len(s.ranges) > 0 {
		g := s.ranges[0]
		some := copy(s.to[g.At+s.at:g.At+g.Size], p)
		n, p = n+some, p[some:]
		if s.at += int64(some); s.at == g.Size {
			s.ranges, s.at = s.ranges[1:], 0
		}
	}
	return n + len(p), nil // one byte too many is for the reader to see
}

// Tallies reads how much there was of each stream when the backup was made.
func (r *Reader) Tallies(ctx context.Context) (all []series.Tally, err error) {
	for _, e := range r.of(KindTally) {
		t := new(tallies)
		if err := r.read(ctx, e, t); err != nil {
			return nil, err
		}
		if !t.begun || len(t.left) > 0 {
			return nil, holdfast.Errorf(holdfast.Invalid, "the backup's tally is damaged, or of a newer version")
		}
		all = append(all, t.all...)
	}
	return all, nil
}

// tallies are read from what is written to it.
type tallies struct {
	begun bool   // the magic was there
	left  []byte // the beginning of the next
	all   []series.Tally
}

func (t *tallies) Write(p []byte) (int, error) {
	b := append(t.left, p...)
	if !t.begun {
		if len(b) < len(tallyMagic) {
			t.left = b
			return len(p), nil
		}
		if b, t.begun = bytes.CutPrefix(b, []byte(tallyMagic)); !t.begun {
			return 0, holdfast.Errorf(holdfast.Invalid, "it is no tally, or of a newer version")
		}
	}
	for ; len(b) >= tallySize; b = b[tallySize:] {
		var one series.Tally
		copy(one.Assignment[:], b)
		copy(one.Stream[:], b[16:])
		one.Chunks, one.Readings = int(binary.BigEndian.Uint32(b[32:])), int64(binary.BigEndian.Uint64(b[36:]))
		t.all = append(t.all, one)
	}
	t.left = append([]byte(nil), b...)
	return len(p), nil
}
