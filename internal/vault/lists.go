package vault

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// entryKind says what a key of a list is for. The numbers are part of the
// format.
type entryKind uint8

const (
	entryJournal entryKind = 1 // seals journal records; the last one is in use
	entryStream  entryKind = 2 // seals the chunks of one stream
	entryFields  entryKind = 3 // list 0: seals catalog columns
	entryRecords entryKind = 4 // list 0: seals ledger payloads and requests
	entryLookup  entryKind = 5 // the hub's list 0: keyed hashes of names
)

// keyList is the keys of one owner and bucket. Its methods are safe for concurrent
// use; what grew is in the catalog before the vault lets it out.
type keyList struct {
	owner  Owner
	bucket seal.Bucket

	mu   sync.RWMutex
	keys []listKey

	cost int64 // in the cache, whose lock guards it
}

type listKey struct {
	kind   entryKind
	stream holdfast.StreamID // zero but for entryStream
	cipher *seal.Cipher      // holds the key
}

// ensure adds a fresh key of the kind if there is none and reports whether it
// did.
func (l *keyList) ensure(k entryKind, s holdfast.StreamID) bool {
	if l.cipher(k, s) != nil {
		return false
	}
	l.add(k, s, seal.NewKey())
	return true
}

func (l *keyList) add(k entryKind, s holdfast.StreamID, key seal.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = append(l.keys, listKey{kind: k, stream: s, cipher: seal.NewCipher(key)})
}

// cipher returns the newest cipher of the kind, nil if there is none.
func (l *keyList) cipher(k entryKind, s holdfast.StreamID) *seal.Cipher {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.keys) - 1; i >= 0; i-- {
		if e := &l.keys[i]; e.kind == k && e.stream == s {
			return e.cipher
		}
	}
	return nil
}

// byID returns the cipher called id.
func (l *keyList) byID(id seal.KeyID) *seal.Cipher {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := range l.keys {
		if l.keys[i].cipher.ID() == id {
			return l.keys[i].cipher
		}
	}
	return nil
}

// older returns the ciphers of the kind before the newest, the newer ones first.
func (l *keyList) older(k entryKind) (out []*seal.Cipher) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.keys) - 1; i >= 0; i-- {
		if e := &l.keys[i]; e.kind == k {
			out = append(out, e.cipher)
		}
	}
	return out[min(1, len(out)):]
}

// ids returns the ids of the keys of a kind.
func (l *keyList) ids(k entryKind) (out []seal.KeyID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := range l.keys {
		if e := &l.keys[i]; e.kind == k {
			out = append(out, e.cipher.ID())
		}
	}
	return out
}

func (l *keyList) len() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.keys)
}

func (l *keyList) wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.keys {
		l.keys[i].cipher.Wipe()
	}
	l.keys = nil
}

// wipeThose overwrites keys that others who have the list must not use any more. It
// keeps its other keys.
func (l *keyList) wipeThose(dead map[seal.KeyID]bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := range l.keys {
		if c := l.keys[i].cipher; dead[c.ID()] {
			c.Wipe()
		}
	}
}

// The plaintext of a list, version 1: version, then per key its kind, stream and
// the key.
const (
	listVersion = 1
	listKeySize = 1 + 16 + 32
)

func (l *keyList) encode() (b []byte, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b = make([]byte, 0, 5+len(l.keys)*listKeySize)
	b = append(b, listVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.keys)))
	for i := range l.keys {
		e := &l.keys[i]
		b = append(b, byte(e.kind))
		b = append(b, e.stream[:]...)
		if b, err = e.cipher.AppendKey(b); err != nil {
			clear(b)
			return nil, err
		}
	}
	return b, nil
}

func (l *keyList) decode(b []byte) error {
	if len(b) < 5 || b[0] != listVersion || len(b) != 5+int(binary.BigEndian.Uint32(b[1:]))*listKeySize {
		return holdfast.Errorf(holdfast.Invalid, "a key list is damaged or of a newer version")
	}
	for b = b[5:]; len(b) > 0; b = b[listKeySize:] {
		l.keys = append(l.keys, listKey{kind: entryKind(b[0]), stream: holdfast.StreamID(b[1:17]), cipher: seal.NewCipher(seal.Key(b[17:listKeySize]))})
	}
	return nil
}

// ensureZero adds what every owner's list without time has, and the hub's alone.
func (l *keyList) ensureZero() bool {
	added := l.ensure(entryFields, holdfast.StreamID{})
	added = l.ensure(entryRecords, holdfast.StreamID{}) || added
	if l.owner == Hub {
		added = l.ensure(entryLookup, holdfast.StreamID{}) || added
	}
	return added
}

// list returns the key list of o and bucket after grow, if given, has made sure
// of what the caller needs; what grow added is durable. Without grow a missing
// list is NotFound. The caller of a growing list holds v.rotating for reading.
func (v *Vault) list(ctx context.Context, o Owner, b seal.Bucket, grow func(*keyList) bool) (*keyList, error) {
	if grow == nil {
		return v.knownList(ctx, o, b)
	}
	// One list of an owner grows at a time, so that none loses what another added.
	lock := v.lists.lock(o)
	lock.Lock()
	defer lock.Unlock()
	return v.growList(ctx, o, b, grow)
}

// growList is list for who has the owner's lock.
func (v *Vault) growList(ctx context.Context, o Owner, b seal.Bucket, grow func(*keyList) bool) (*keyList, error) {
	l, _ := v.lists.get(o, b)
	if l == nil {
		var err error
		if l, err = v.readList(ctx, o, b, true); err != nil {
			return nil, err
		}
	}
	next := l.clone()
	grew := false
	seal.Quiet(func() { grew = grow(next) })
	if !grew {
		v.lists.put(l)
		return l, nil
	}
	row, err := v.sealList(next)
	if err != nil {
		return nil, err
	}
	if err := v.saveLists(ctx, []listRow{row}, []*keyList{next}); err != nil {
		return nil, err
	}
	return next, nil
}

// saveLists makes lists durable and known. The caller has their owners' locks.
func (v *Vault) saveLists(ctx context.Context, rows []listRow, lists []*keyList) error {
	v.ringMu.RLock()
	size := ringSize{v.ring.generation, len(v.ring.at)}
	v.ringMu.RUnlock()
	if err := v.saves.save(ctx, rows, size); err != nil {
		return fmt.Errorf("save key list: %w", err)
	}
	for _, l := range lists {
		v.lists.put(l)
	}
	return nil
}

// knownList returns a list as it is. It must not wait for a list that grows: that
// waits for the catalog's one writer, and whoever asks here may be that writer. So
// what was read while lists changed is read again instead, lest an older one
// come back into the cache over one that grew, or after its owner key died.
func (v *Vault) knownList(ctx context.Context, o Owner, b seal.Bucket) (*keyList, error) {
	for {
		l, changes := v.lists.get(o, b)
		if l != nil {
			return l, nil
		}
		l, err := v.readList(ctx, o, b, false)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return nil, err
		}
		if v.lists.offer(o, l, changes) {
			return l, err
		}
	}
}

// readList reads a list from the catalog; empty says that a missing one is an
// empty one.
func (v *Vault) readList(ctx context.Context, o Owner, b seal.Bucket, empty bool) (*keyList, error) {
	owner, err := v.ownerKey(o)
	if err != nil {
		return nil, err
	}
	defer owner.Wipe()
	l := &keyList{owner: o, bucket: b}
	var box []byte
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT box_sealed FROM key_list WHERE owner = $1 AND bucket = $2 AND owner_key = $3`,
			o[:], int64(b), owner.ID()).Scan(&box)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if !empty {
			return nil, holdfast.Errorf(holdfast.NotFound, "owner %s has no keys for bucket %d", o, b)
		}
		return l, nil
	case err != nil:
		return nil, fmt.Errorf("read key list: %w", err)
	}
	if err := l.open(box, owner); err != nil {
		return nil, err
	}
	return l, nil
}

// open fills l from its box under the owner key.
func (l *keyList) open(box []byte, owner *seal.Cipher) (err error) {
	seal.Quiet(func() {
		var plain []byte
		if plain, err = owner.Open(nil, box, seal.ListPlace(l.owner, l.bucket)); err == nil {
			err = l.decode(plain)
			clear(plain)
		}
	})
	if err != nil {
		return fmt.Errorf("open key list of %s, bucket %d: %w", l.owner, l.bucket, err)
	}
	return nil
}

func (l *keyList) clone() *keyList {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return &keyList{owner: l.owner, bucket: l.bucket, keys: slices.Clone(l.keys)}
}

// ownerKey returns the cipher of o's key, which the caller wipes.
func (v *Vault) ownerKey(o Owner) (*seal.Cipher, error) {
	v.ringMu.RLock()
	defer v.ringMu.RUnlock()
	return v.ring.key(v.place, o)
}

// listRow is a key list as the catalog has it.
type listRow struct {
	owner    Owner
	bucket   seal.Bucket
	ownerKey seal.KeyID
	box      []byte
}

func (v *Vault) sealList(l *keyList) (listRow, error) {
	owner, err := v.ownerKey(l.owner)
	if err != nil {
		return listRow{}, err
	}
	defer owner.Wipe()
	return wrapList(l, owner)
}

func wrapList(l *keyList, owner *seal.Cipher) (row listRow, err error) {
	row = listRow{owner: l.owner, bucket: l.bucket, ownerKey: owner.ID()}
	seal.Quiet(func() {
		var plain []byte
		if plain, err = l.encode(); err == nil {
			row.box, err = owner.Seal(nil, plain, seal.ListPlace(l.owner, l.bucket))
			clear(plain)
		}
	})
	if err != nil {
		return row, fmt.Errorf("seal key list of %s, bucket %d: %w", l.owner, l.bucket, err)
	}
	return row, nil
}

func putLists(ctx context.Context, tx *sql.Tx, rows []listRow) error {
	if len(rows) == 0 {
		return nil
	}
	put, err := tx.PrepareContext(ctx, `INSERT INTO key_list (owner, bucket, owner_key, box_sealed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (owner, bucket, owner_key) DO UPDATE SET box_sealed = excluded.box_sealed`)
	if err != nil {
		return err
	}
	defer put.Close()
	for i := range rows {
		r := &rows[i]
		if _, err := put.ExecContext(ctx, r.owner[:], int64(r.bucket), r.ownerKey, r.box); err != nil {
			return err
		}
	}
	return nil
}

// saver writes lists in groups: whoever comes while a transaction is under way
// shares the next one. At midnight on the first of a month every device needs a
// list.
type saver struct {
	db      *catalog.DB
	mu      sync.Mutex
	pending []*pendingSave
	busy    bool
}

type pendingSave struct {
	rows []listRow
	size ringSize
	done chan error
}

// ringSize is how many owners the keyring has, of whom some are about to use it
// for the first time: from then on a keyring with fewer is damaged.
type ringSize struct {
	generation uint64
	owners     int
}

func (s *saver) save(ctx context.Context, rows []listRow, size ringSize) error {
	p := &pendingSave{rows: rows, size: size, done: make(chan error, 1)}
	s.mu.Lock()
	s.pending = append(s.pending, p)
	lead := !s.busy
	s.busy = true
	s.mu.Unlock()
	if lead {
		s.drain(ctx)
	}
	return <-p.done
}

// drain commits what is pending, group after group, until nothing is.
func (s *saver) drain(ctx context.Context) {
	for {
		s.mu.Lock()
		group := s.pending
		s.pending = nil
		if len(group) == 0 {
			s.busy = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		// The group is not only the leader's: its going away must not fail others.
		err := s.db.Write(context.WithoutCancel(ctx), func(tx *sql.Tx) error {
			for _, p := range group {
				if err := putLists(ctx, tx, p.rows); err != nil {
					return err
				}
			}
			last := group[len(group)-1].size
			for _, p := range group {
				last.owners = max(last.owners, p.size.owners)
			}
			return raiseEntries(ctx, tx, last.generation, last.owners)
		})
		for _, p := range group {
			p.done <- err
		}
	}
}
