// Package vaultbench measures a keyring with many owners, in a folder of its own:
// how long it takes to open, to destroy one owner's keys and a hundred's, and to
// give every page a fresh key; what that writes, and the memory it takes.
//
// It measures the vault with a catalog and a root key file as a hub has them. It
// does not measure erasures, of which the vault is a part.
package vaultbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Rotation is what a destruction took.
type Rotation struct {
	Time    time.Duration // until the keys were dead and what was left was cleared
	Dead    time.Duration // until the keys were dead
	Holder  time.Duration // of Dead, in the holder of the root key
	Written int64         // bytes, into the place of the keyring
}

// Figures is what Run measured.
type Figures struct {
	Owners  int
	Add     time.Duration // all of them, in batches
	Open    time.Duration
	Use     time.Duration // of one owner's key that nobody has used yet
	One     Rotation      // one owner destroyed
	Hundred Rotation      // a hundred, on as many pages
	Rewrap  Rotation      // every page under a fresh key
	Heap    uint64        // bytes in use with the keyring open
	RSS     uint64        // of the process with the keyring open; 0 where the system does not say
}

// Run measures a keyring of owners in dir, which must exist and be empty. progress
// is told what comes next; it may be nil.
func Run(ctx context.Context, dir string, owners int, progress func(string)) (f Figures, err error) {
	f.Owners = owners
	if progress == nil {
		progress = func(string) {}
	}
	db, err := catalog.Open(ctx, dir, catalog.Options{})
	if err != nil {
		return f, err
	}
	defer db.Close()
	ring := filepath.Join(dir, "keyring")
	if err := os.Mkdir(ring, 0o700); err != nil {
		return f, err
	}
	file, err := vault.CreateFileHolder(filepath.Join(dir, "root", "root.key"), nil)
	if err != nil {
		return f, err
	}
	place, holder := &countingPlace{Place: vault.Dir(ring)}, &timedHolder{FileHolder: file}
	holders := []vault.Holder{holder}

	progress(fmt.Sprintf("adding %d owners", owners))
	begun := time.Now()
	all, err := fill(ctx, db, place, holders, owners)
	if err != nil {
		return f, err
	}
	f.Add = time.Since(begun)

	progress("opening the keyring")
	runtime.GC()
	begun = time.Now()
	v, err := vault.Open(ctx, db, place, holders, vault.Options{})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	f.Open = time.Since(begun)
	f.Heap, f.RSS = memory()
	if f.Use, err = use(ctx, v, all); err != nil {
		return f, err
	}
	m := measure{ctx, v, place, holder}
	progress("destroying one owner's keys")
	if f.One, err = m.destroy(vault.Destruction{Owners: all[:1]}); err != nil {
		return f, err
	}
	var hundred []vault.Owner
	for i := range min(100, owners-1) {
		hundred = append(hundred, all[1+i*((owners-1)/100)])
	}
	progress("destroying a hundred owners' keys")
	if f.Hundred, err = m.destroy(vault.Destruction{Owners: hundred}); err != nil {
		return f, err
	}
	progress("giving every page a fresh key")
	f.Rewrap, err = m.destroy(vault.Destruction{AllPages: true})
	return f, err
}

// fill makes a keyring with owners in it.
func fill(ctx context.Context, db *catalog.DB, place vault.Place, holders []vault.Holder, owners int) ([]vault.Owner, error) {
	v, err := vault.Create(ctx, db, place, holders, vault.Options{})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	all := make([]vault.Owner, owners)
	for i := range all {
		all[i] = holdfast.NewID[vault.Owner]()
	}
	const batch = 20_000
	for i := 0; i < owners; i += batch {
		if err := v.AddOwners(ctx, all[i:min(i+batch, owners)]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func use(ctx context.Context, v *vault.Vault, all []vault.Owner) (time.Duration, error) {
	begun, n := time.Now(), 0
	for i := 0; i < len(all); i += max(1, len(all)/200) {
		if _, err := v.RecordKeyID(ctx, all[i]); err != nil {
			return 0, err
		}
		n++
	}
	return time.Since(begun) / time.Duration(n), nil
}

type measure struct {
	ctx    context.Context
	vault  *vault.Vault
	place  *countingPlace
	holder *timedHolder
}

func (m measure) destroy(d vault.Destruction) (r Rotation, err error) {
	m.place.written.Store(0)
	m.holder.took = 0
	begun := time.Now()
	rot, err := m.vault.Destroy(m.ctx, d)
	if err != nil {
		return r, err
	}
	if n := len(rot.OwnerKeys); n != len(d.Owners) {
		return r, fmt.Errorf("%d of %d owner keys destroyed", n, len(d.Owners))
	}
	return Rotation{Time: time.Since(begun), Dead: rot.At.Sub(begun), Holder: m.holder.took, Written: m.place.written.Load()}, nil
}

// countingPlace counts what is written into it, not what is overwritten when a
// file goes.
type countingPlace struct {
	vault.Place
	written atomic.Int64
}

func (p *countingPlace) Write(name string, data []byte) error {
	p.written.Add(int64(len(data)))
	return p.Place.Write(name, data)
}

func (p *countingPlace) Create(files []vault.NewFile) error {
	for _, f := range files {
		p.written.Add(int64(len(f.Data)))
	}
	return p.Place.Create(files)
}

func (p *countingPlace) Append(name string, at int64, data []byte) error {
	p.written.Add(int64(len(data)))
	return p.Place.Append(name, at, data)
}

// timedHolder measures what the holder takes.
type timedHolder struct {
	*vault.FileHolder
	took time.Duration
}

func (h *timedHolder) timed(f func()) {
	begun := time.Now()
	f()
	h.took += time.Since(begun)
}

func (h *timedHolder) Prepare(ctx context.Context, n uint64) (err error) {
	h.timed(func() { err = h.FileHolder.Prepare(ctx, n) })
	return err
}

func (h *timedHolder) Seal(ctx context.Context, n uint64, root seal.Key) (box []byte, err error) {
	h.timed(func() { box, err = h.FileHolder.Seal(ctx, n, root) })
	return box, err
}

func (h *timedHolder) Open(ctx context.Context, n uint64, box []byte) (root seal.Key, err error) {
	h.timed(func() { root, err = h.FileHolder.Open(ctx, n, box) })
	return root, err
}

func (h *timedHolder) Destroy(ctx context.Context, n uint64) (evidence []byte, err error) {
	h.timed(func() { evidence, err = h.FileHolder.Destroy(ctx, n) })
	return evidence, err
}

// memory returns what is in use, and what the system counts for the process.
func memory() (heap, rss uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b, err := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(b); err == nil && len(fields) > 1 {
		if n, err := strconv.ParseUint(string(fields[1]), 10, 64); err == nil {
			rss = n * uint64(os.Getpagesize())
		}
	}
	return m.HeapAlloc, rss
}
