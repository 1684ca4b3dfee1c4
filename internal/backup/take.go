package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
)

// Source is a hub that is backed up: this process's own, or one over the network.
type Source interface {
	Begin(ctx context.Context, keep time.Duration) (Plan, error)
	// Parts writes count parts of the plan to w, the n-th and those behind it.
	Parts(ctx context.Context, plan string, n, count int, w io.Writer) error
	// Finish returns the signed statement.
	Finish(ctx context.Context, plan string, d Done) ([]byte, error)
}

// TakeOptions tune a Take; the zero value works.
type TakeOptions struct {
	Keep time.Duration // default DefaultKeep
	Rate int64         // bytes per second that are fetched at most; 0: no limit
	// Progress is told now and then; it may be nil.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Pieces, Of   int
	Bytes, Total int64 // looked at, and all
	Written      int64
}

// Report is what a run did.
type Report struct {
	Snapshot  string        `json:"snapshot"`
	Pieces    int           `json:"pieces"`
	Bytes     int64         `json:"bytes"`
	New       int           `json:"new_pieces"`
	Written   int64         `json:"written"` // bytes of the new ones before encryption
	Stored    int64         `json:"stored"`  // on the disk, of all of this backup
	Took      time.Duration `json:"took_ns"`
	Statement Statement     `json:"statement"`
}

// takers is how many pieces are under way at once: one is fetched while another is
// synced.
const takers = 4

// Take makes a backup of what from offers. What is in the folder already is not
// fetched; an error leaves the folder as it was but for pieces that the next run
// finds.
func Take(ctx context.Context, from Source, f *Folder, to Recipients, o TakeOptions) (r Report, err error) {
	began := time.Now()
	plan, err := from.Begin(ctx, o.Keep)
	if err != nil {
		return r, err
	}
	if err := plan.sound(); err != nil {
		return r, err
	}
	if err := f.ofHub(plan.Hub); err != nil {
		return r, err
	}
	cut, err := f.begun()
	if err != nil {
		return r, err
	}
	t := &taking{from: from, f: f, to: to, plan: plan, total: plan.Bytes(), o: o, entries: make([]Entry, len(plan.Parts)), names: make([]string, len(plan.Parts)), pace: pace{rate: o.Rate}}
	if err := t.look(ctx); err != nil {
		return r, err
	}
	if err := t.all(ctx); err != nil {
		return r, err
	}
	if err := t.settle(cut); err != nil {
		return r, err
	}
	// The list is there before the hub is told that all is stored, for a disk that has
	// no room for it; the manifest comes last: with it the backup is there.
	id := snapshotID(plan.Began, plan.ID)
	list := listText(t.entries)
	if err := write(f.disk, listPath(id), list); err != nil {
		return r, err
	}
	signed, err := from.Finish(ctx, plan.ID, Done{List: listDigest(list), Written: t.written.Load(), Recipients: to.texts})
	if err != nil {
		return r, err
	}
	st, err := ReadStatement(signed, "")
	if err != nil {
		return r, err
	}
	if st.ID != plan.ID || st.Hub != plan.Hub || !st.Began.Equal(plan.Began) || st.List != listDigest(list) || st.Pieces != len(plan.Parts) || st.Bytes != t.total || !bytes.Equal(st.Key, plan.Key) {
		return r, holdfast.Errorf(holdfast.Invalid, "what the hub signed is not the backup that it offered: is it one, of this version?")
	}
	if err := f.writeManifest(id, signed, to); err != nil {
		return r, err
	}
	r = Report{Snapshot: id, Pieces: len(plan.Parts), Bytes: t.total, New: int(t.fresh.Load()), Written: t.written.Load(), Stored: t.stored.Load(), Took: time.Since(began), Statement: st}
	return r, f.ended()
}

// hubFile says whose backups lie in a folder.
const hubFile = "hub.json"

type hubName struct {
	Hub string `json:"hub"`
}

// ofHub refuses a folder with backups of another hub.
func (f *Folder) ofHub(hub string) error {
	have, err := f.hub()
	if err != nil {
		return err
	}
	if have == "" {
		b, err := json.Marshal(hubName{hub})
		if err != nil {
			return err
		}
		return write(f.disk, hubFile, append(b, '\n'))
	}
	if have != hub {
		return holdfast.Errorf(holdfast.Conflict, "%s has backups of hub %s, this is hub %s: each hub has a folder of its own. Nothing was changed", f.dir, have, hub)
	}
	return nil
}

// hub is whose backups the folder has; "" if none was begun.
func (f *Folder) hub() (string, error) {
	b, err := readSmall(f.disk, hubFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", failure("read the folder of backups", err)
	}
	var have hubName
	if err := json.Unmarshal(b, &have); err != nil || !isHub(have.Hub) {
		return "", holdfast.Errorf(holdfast.Invalid, "%s is damaged", filepath.Join(f.dir, hubFile))
	}
	return have.Hub, nil
}

// taking is a Take under way.
type taking struct {
	from  Source
	f     *Folder
	to    Recipients
	plan  Plan
	total int64    // bytes of the plan's parts
	names []string // of the plan's parts
	have  map[string]stored
	o     TakeOptions
	pace  pace

	entries []Entry // each written by one taker

	pieces                         atomic.Int64
	looked, fresh, written, stored atomic.Int64

	mu      sync.Mutex
	changed map[string]bool // folders in which there are new names
}

// look names the plan's parts and finds those that are in the folder. A file that is
// shorter than what it is to hold was cut off, and is fetched again.
func (t *taking) look(ctx context.Context) error {
	wanted := make(map[string]int64, len(t.names))
	for n, p := range t.plan.Parts {
		t.names[n] = name(t.plan.Key, t.to.texts, p)
		wanted[t.names[n]] = p.Size
	}
	t.have, t.changed = map[string]stored{}, map[string]bool{}
	return t.f.walk(ctx, true, func(s stored) (bool, error) {
		if size, ok := wanted[s.file[:nameLength]]; ok && s.size > size {
			t.have[s.file[:nameLength]] = s
		}
		return false, nil
	})
}

// settle makes durable what the pieces are called; after a run that was cut short
// also what that had renamed.
func (t *taking) settle(cut bool) error {
	if cut {
		for _, name := range t.names {
			t.changed[pieceDir(name)] = true
		}
	}
	for dir := range t.changed {
		if err := syncFolder(t.f.disk, dir); err != nil {
			return err
		}
	}
	return syncFolder(t.f.disk, piecesDir)
}

// batchBytes is how much is fetched with one question, unless a single part is larger.
const batchBytes = 16 << 20

func (t *taking) all(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(takers)
	parts := t.plan.Parts
	for n := 0; n < len(parts) && ctx.Err() == nil; {
		first := n
		if have, ok := t.have[t.names[n]]; ok {
			t.done(n, have)
			n++
			continue
		}
		for bytes := int64(0); n < len(parts) && (n == first || bytes+parts[n].Size <= batchBytes); n++ {
			if _, ok := t.have[t.names[n]]; ok {
				break
			}
			bytes += parts[n].Size
		}
		group.Go(func() error {
			if err := t.fetch(ctx, first, n-first); err != nil {
				return fmt.Errorf("back up pieces %d to %d of %d: %w", first+1, n, len(parts), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// done notes that a part is in the folder.
func (t *taking) done(n int, have stored) {
	p := t.plan.Parts[n]
	t.stored.Add(have.size)
	t.entries[n] = Entry{Kind: p.Kind, File: have.file, Size: p.Size, ID: p.ID}
	looked, pieces := t.looked.Add(p.Size), t.pieces.Add(1)
	if t.o.Progress != nil {
		t.o.Progress(Progress{Pieces: int(pieces), Of: len(t.plan.Parts), Bytes: looked, Total: t.total, Written: t.written.Load()})
	}
}

// fetch stores parts that are not there yet.
func (t *taking) fetch(ctx context.Context, first, count int) (err error) {
	in := &intake{t: t, ctx: ctx, n: first, end: first + count}
	defer func() {
		if in.file != nil {
			in.file.drop()
		}
	}()
	if err := t.from.Parts(ctx, t.plan.ID, first, count, in); err != nil {
		return err
	}
	if in.n != in.end {
		return holdfast.Errorf(holdfast.Unavailable, "the hub's answer ended early: run the backup again")
	}
	return nil
}

// intake is what parts are written to, one behind the other: hashed, encrypted, not
// faster than allowed, each into a file of its own.
type intake struct {
	t      *taking
	ctx    context.Context
	n, end int
	bytes  int64 // of the part under way

	file   *temp // nil: none is under way
	sealed io.WriteCloser
	tag    hash.Hash
}

func (i *intake) Write(p []byte) (int, error) {
	if err := i.t.pace.wait(i.ctx, len(p)); err != nil {
		return 0, err
	}
	written := 0
	for len(p) > 0 {
		if i.n == i.end {
			return written, holdfast.Errorf(holdfast.Unavailable, "the hub's answer is too long: run the backup again")
		}
		if i.file == nil {
			if err := i.begin(); err != nil {
				return written, err
			}
		}
		some := p[:min(int64(len(p)), i.t.plan.Parts[i.n].Size-i.bytes)]
		i.tag.Write(some)
		if _, err := i.sealed.Write(some); err != nil {
			return written, failure("write backup", err)
		}
		i.bytes += int64(len(some))
		written += len(some)
		p = p[len(some):]
		if i.bytes == i.t.plan.Parts[i.n].Size {
			if err := i.finish(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (i *intake) begin() error {
	disk, name := i.t.f.disk, i.t.names[i.n]
	if err := disk.Mkdir(pieceDir(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return failure("write backup", err)
	}
	file, err := create(disk, filepath.Join(pieceDir(name), fmt.Sprintf("%s.%d%s", name, i.n, tempSuffix)))
	if err != nil {
		return err
	}
	i.file, i.bytes, i.tag = file, 0, tagger(i.t.plan.Key, i.t.plan.Parts[i.n])
	if i.sealed, err = i.t.to.seal(file); err != nil {
		return failure("write backup", err)
	}
	return nil
}

// finish gives the piece its name.
func (i *intake) finish() error {
	p := i.t.plan.Parts[i.n]
	tag := tagText(i.tag)
	if p.Tag != "" && tag != p.Tag {
		return holdfast.Errorf(holdfast.Unavailable, "a piece came altered: run the backup again")
	}
	if err := i.sealed.Close(); err != nil {
		return failure("write backup", err)
	}
	info, err := i.file.Stat()
	if err != nil {
		return failure("write backup", err)
	}
	s := stored{i.t.names[i.n] + "-" + tag, info.Size()}
	file := i.file
	i.file = nil
	if err := file.keep(piecePath(s.file)); err != nil {
		return err
	}
	i.t.mu.Lock()
	i.t.changed[pieceDir(s.file)] = true
	i.t.mu.Unlock()
	i.t.fresh.Add(1)
	i.t.written.Add(p.Size)
	i.t.done(i.n, s)
	i.n++
	return nil
}

// pace lets so many bytes a second through.
type pace struct {
	rate int64
	mu   sync.Mutex
	next time.Time
}

func (p *pace) wait(ctx context.Context, n int) error {
	if p.rate <= 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(at)):
		return nil
	}
}

// writeManifest encrypts the signed statement like a piece.
func (f *Folder) writeManifest(id string, signed []byte, to Recipients) error {
	file, err := create(f.disk, manifestPath(id)+tempSuffix)
	if err != nil {
		return err
	}
	sealed, err := to.seal(file)
	if err == nil {
		_, err = sealed.Write(signed)
	}
	if err == nil {
		err = sealed.Close()
	}
	if err != nil {
		return errors.Join(failure("write backup", err), file.drop())
	}
	if err := file.keep(manifestPath(id)); err != nil {
		return err
	}
	return syncFolder(f.disk, snapshotsDir)
}
