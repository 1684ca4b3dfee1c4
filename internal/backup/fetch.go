package backup

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// FetchCatalog writes the backup's catalog into a folder, in place of what an earlier
// attempt has left there.
func (r *Reader) FetchCatalog(ctx context.Context, dir string) error {
	path := filepath.Join(dir, catalog.File)
	for _, left := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure("restore catalog", err)
		}
	}
	t, err := create(path + tempSuffix)
	if err != nil {
		return err
	}
	for _, e := range r.entries {
		if e.Kind != KindCatalog {
			continue
		}
		if err := r.read(ctx, e, t); err != nil {
			return errors.Join(err, t.drop())
		}
	}
	if err := t.keep(path); err != nil {
		return err
	}
	if err := syncFolder(dir); err != nil {
		return err
	}
	return catalog.Sound(ctx, dir)
}

// FetchSegments puts the segments that the catalog in dir names into a store. What
// is there whole from an earlier attempt is not put again.
func (r *Reader) FetchSegments(ctx context.Context, dir string, to blob.Store, progress func(Progress)) error {
	var held []*series.Held
	err := catalog.Look(ctx, filepath.Join(dir, catalog.File), func(tx *sql.Tx) error {
		for h, err := range series.HeldIn(ctx, tx) {
			if err != nil {
				return err
			}
			held = append(held, h)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read restored catalog: %w", err)
	}
	var entries []Entry
	var total int64
	for _, e := range r.entries {
		if e.Kind == KindSegment {
			entries = append(entries, e)
			total += e.Size
		}
	}
	if len(entries) != len(held) {
		return holdfast.Errorf(holdfast.Invalid, "the backup has %d segments, its catalog names %d", len(entries), len(held))
	}
	var p Progress
	p.Of, p.Total = len(held), total
	done := make(chan int64)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for n := range done {
			p.Pieces++
			p.Bytes += n
			if progress != nil {
				progress(p)
			}
		}
	}()
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for i, h := range held {
		group.Go(func() error {
			if err := r.fetchSegment(within, entries[i], h, to); err != nil {
				return err
			}
			done <- entries[i].Size
			return nil
		})
	}
	err = group.Wait()
	close(done)
	<-told
	return err
}

// fetchers is how many segments are in memory at once.
const fetchers = 3

func (r *Reader) fetchSegment(ctx context.Context, e Entry, h *series.Held, to blob.Store) error {
	if p := segmentPart(h); e.ID != p.ID || e.Size != p.Size {
		return holdfast.Errorf(holdfast.Invalid, "piece %s is not what the catalog names of segment %s: the backup is mixed", e.File, h.Blob)
	}
	if have, err := to.Size(ctx, h.Blob); err == nil && have == h.Bytes {
		return nil
	}
	content, err := r.whole(ctx, e)
	if err != nil {
		return err
	}
	// What has died is zero, as in the segment when it has been tidied.
	whole := make([]byte, h.Bytes)
	for _, g := range h.Ranges {
		content = content[copy(whole[g.At:g.At+g.Size], content):]
	}
	if err := to.Put(ctx, h.Blob, whole); err != nil {
		return fmt.Errorf("restore segment: %w", err)
	}
	return nil
}

// Tallies reads how much there was of each stream when the backup was made.
func (r *Reader) Tallies(ctx context.Context) (all []series.Tally, err error) {
	for _, e := range r.entries {
		if e.Kind != KindTally {
			continue
		}
		b, err := r.whole(ctx, e)
		if err != nil {
			return nil, err
		}
		b, ok := bytes.CutPrefix(b, []byte(tallyMagic))
		if !ok || len(b)%tallySize != 0 {
			return nil, holdfast.Errorf(holdfast.Invalid, "the backup's tally is damaged, or of a newer version")
		}
		for ; len(b) > 0; b = b[tallySize:] {
			var t series.Tally
			copy(t.Assignment[:], b)
			copy(t.Stream[:], b[16:])
			t.Chunks, t.Readings = int(binary.BigEndian.Uint32(b[32:])), int64(binary.BigEndian.Uint64(b[36:]))
			all = append(all, t)
		}
	}
	return all, nil
}
