// Package vault keeps the keys: the keyring of owner keys, the key lists that
// they seal, and the destruction of both.
//
// The tree, from the root down (docs/format/keyring.md has the bytes):
//
//	root key RK_n     in the holders, outside the data folder
//	page key          RK_n wraps one per page, in the head
//	owner key         a page wraps about 1,000; one per party and per assignment
//	key list          an owner key seals one per bucket of arrival: stream keys
//	                  and a journal key; list 0 has the `fields` and `records` keys
//
// It promises that an owner key is durable before AddOwner returns, that a key
// is in its list before a cipher of it is given out, and that after Destroy has
// returned nothing on this machine opens what the named keys sealed: the root
// key that every older copy of the keyring hangs on is gone from every holder.
//
// It does not decide who may read or erase, and it does not purge ciphertext.
package vault

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Vault gives out ciphers and destroys keys.
type Vault struct {
	db      *catalog.DB
	place   Place
	holders []Holder
	opts    Options

	// rotating is held for reading while a list or page is added to, for writing
	// while keys are destroyed: two rotations never interleave, and nothing is
	// added to what is being left behind.
	rotating sync.RWMutex
	unsure   *roots // before the last destruction, if a holder did not confirm that one; guarded by rotating
	highest  uint64 // generation that a holder, a head or the catalog knows; guarded by rotating

	adding sync.Mutex   // the open page grows by one caller at a time
	ringMu sync.RWMutex // guards ring, but not while it rotates
	ring   *keyring

	copies  *copies
	lists   *listCache
	saves   saver
	leases  leaseTable
	metrics metrics
}

// Options is what a vault may be told besides; the zero value works.
type Options struct {
	// HolderTimeout bounds each call of a holder; 0: 30 seconds.
	HolderTimeout time.Duration
	// Fenced are holders that are not asked.
	Fenced []Fenced
	// Copies are other places that get all of the keyring; at least one has what
	// changes before it counts.
	Copies      []Copy
	CopyTimeout time.Duration // bounds each piece of work on a copy; 0: 30 seconds
	// Restored says that the catalog was put back to an earlier state than the
	// keyring's: Open brings its key lists up to date.
	Restored bool
	// Statements are what holders have said that had been fenced.
	Statements []Statement
}

// Create makes an empty keyring in place, under a first root key in every
// holder, with the hub as its first owner.
func Create(ctx context.Context, db *catalog.DB, place Place, holders []Holder, opts Options) (*Vault, error) {
	if names, err := place.List(); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	} else if len(names) > 0 {
		return nil, holdfast.Errorf(holdfast.Conflict, "there is a keyring here already")
	}
	if len(holders) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "a keyring needs a holder of its root key")
	}
	opts.Copies = slices.Clone(opts.Copies)
	for i := range opts.Copies {
		opts.Copies[i].New = true
	}
	holders = bound(holders, opts)
	ring := &keyring{generation: 1, at: map[Owner]slot{}}
	rand.Read(ring.id[:])
	if err := ring.seal(ctx, holders); err != nil {
		return nil, err
	}
	if err := ring.writeHead(place); err != nil {
		return nil, err
	}
	if err := db.Write(ctx, func(tx *sql.Tx) error { return writeEntries(ctx, tx, ring.generation, 0) }); err != nil {
		return nil, fmt.Errorf("create keyring: %w", err)
	}
	v := newVault(db, place, holders, opts, ring)
	v.highest = ring.generation
	if err := v.AddOwner(ctx, Hub); err != nil {
		return nil, err
	}
	return v, nil
}

// Open reads the keyring in place, finishing or undoing a rotation that a crash
// cut short.
func Open(ctx context.Context, db *catalog.DB, place Place, holders []Holder, opts Options) (*Vault, error) {
	holders = bound(holders, opts)
	found, err := recoverRing(ctx, db, place, holders, opts.Fenced)
	if err != nil {
		return nil, err
	}
	ring := found.ring
	v := newVault(db, place, holders, opts, ring)
	v.highest = found.highest
	check := v.checkEntries
	if opts.Restored {
		check = v.adopt
	}
	if err := check(ctx); err != nil {
		return nil, err
	}
	if err := found.destroyOlder(ctx, holders); err != nil {
		return nil, err
	}
	if err := v.settle(ctx); err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	if err := ring.sweep(place); err != nil {
		return nil, err
	}
	return v, nil
}

func newVault(db *catalog.DB, place Place, holders []Holder, opts Options, ring *keyring) *Vault {
	v := &Vault{db: db, place: place, holders: holders, opts: opts, ring: ring, lists: newListCache(maxListBytes), copies: newCopies(opts)}
	v.saves.db = db
	v.leases.keys, v.leases.leaving = map[leaseKey]*journalKey{}, map[*journalKey]holdfast.AssignmentID{}
	v.metrics = newMetrics(v)
	return v
}

// Close closes the keyring's files.
func (v *Vault) Close() error {
	v.ringMu.Lock()
	defer v.ringMu.Unlock()
	return v.ring.close()
}

// Generation returns n of the root key in force.
func (v *Vault) Generation() uint64 {
	v.ringMu.RLock()
	defer v.ringMu.RUnlock()
	return v.ring.generation
}

// Owners returns how many owner keys the keyring holds.
func (v *Vault) Owners() int {
	v.ringMu.RLock()
	defer v.ringMu.RUnlock()
	return len(v.ring.at)
}

// AllOwners returns whoever has a key, the hub too, in no order.
func (v *Vault) AllOwners() []Owner {
	v.ringMu.RLock()
	defer v.ringMu.RUnlock()
	return slices.Collect(maps.Keys(v.ring.at))
}

// HasOwner reports whether o has a key: after its destruction it does not.
func (v *Vault) HasOwner(o Owner) bool {
	v.ringMu.RLock()
	defer v.ringMu.RUnlock()
	_, ok := v.ring.at[o]
	return ok
}

// Holders returns who holds the root key, by name and grade.
func (v *Vault) Holders() []Holder { return v.holders }

// SealField seals a catalog column under o's fields key.
func (v *Vault) SealField(ctx context.Context, o Owner, table string, row []byte, column string, plain []byte) ([]byte, error) {
	return v.sealUnder(ctx, entryFields, o, table, row, column, plain)
}

// OpenField opens what SealField made. It is NotFound when the key has been
// destroyed.
func (v *Vault) OpenField(ctx context.Context, o Owner, table string, row []byte, column string, box []byte) ([]byte, error) {
	return v.openUnder(ctx, entryFields, o, table, row, column, box)
}

// SealRecord seals a ledger payload or a request under o's records key.
func (v *Vault) SealRecord(ctx context.Context, o Owner, table string, row []byte, column string, plain []byte) ([]byte, error) {
	return v.sealUnder(ctx, entryRecords, o, table, row, column, plain)
}

// OpenRecord opens what SealRecord made.
func (v *Vault) OpenRecord(ctx context.Context, o Owner, table string, row []byte, column string, box []byte) ([]byte, error) {
	return v.openUnder(ctx, entryRecords, o, table, row, column, box)
}

// RecordKeyID returns the id of o's records key, which stands beside what it
// sealed so that an erasure can be shown to cover it.
func (v *Vault) RecordKeyID(ctx context.Context, o Owner) (seal.KeyID, error) {
	c, err := v.zeroCipher(ctx, entryRecords, o)
	if err != nil {
		return seal.KeyID{}, err
	}
	return c.ID(), nil
}

func (v *Vault) sealUnder(ctx context.Context, k entryKind, o Owner, table string, row []byte, column string, plain []byte) ([]byte, error) {
	c, err := v.zeroCipher(ctx, k, o)
	if err != nil {
		return nil, fmt.Errorf("seal %s.%s: %w", table, column, err)
	}
	box, err := c.Seal(make([]byte, 0, len(plain)+seal.Overhead), plain, seal.FieldPlace(o, table, row, column))
	if err != nil {
		return nil, fmt.Errorf("seal %s.%s: %w", table, column, err)
	}
	return box, nil
}

func (v *Vault) openUnder(ctx context.Context, k entryKind, o Owner, table string, row []byte, column string, box []byte) ([]byte, error) {
	l, err := v.list(ctx, o, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("open %s.%s: %w", table, column, err)
	}
	c := l.cipher(k, holdfast.StreamID{})
	if c == nil {
		return nil, fmt.Errorf("open %s.%s: %w", table, column, noSuchKey(o))
	}
	place := seal.FieldPlace(o, table, row, column)
	plain, err := c.Open(nil, box, place)
	if errors.Is(err, seal.ErrOpen) { // it may be from before the owner got fresh keys
		for _, c := range l.older(k) {
			if plain, err = c.Open(nil, box, place); !errors.Is(err, seal.ErrOpen) {
				break
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s.%s: %w", table, column, err)
	}
	return plain, nil
}

func (v *Vault) zeroCipher(ctx context.Context, k entryKind, o Owner) (*seal.Cipher, error) {
	l, err := v.list(ctx, o, 0, nil)
	if err != nil {
		return nil, err
	}
	if c := l.cipher(k, holdfast.StreamID{}); c != nil {
		return c, nil
	}
	return nil, noSuchKey(o)
}

func noSuchKey(o Owner) error {
	return holdfast.Errorf(holdfast.NotFound, "owner %s has no such key", o)
}

// Hash returns the keyed hash of text by which a sealed name is looked up. The
// domain keeps the hashes of two kinds of name apart.
func (v *Vault) Hash(ctx context.Context, domain, text string) ([]byte, error) {
	l, err := v.list(ctx, Hub, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("hash name: %w", err)
	}
	c := l.cipher(entryLookup, holdfast.StreamID{})
	if c == nil {
		return nil, errors.New("hash name: the hub has no look-up key")
	}
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(domain)))
	return c.MAC(n[:], []byte(domain), []byte(text))
}
