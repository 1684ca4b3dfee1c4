package vault

import (
	"container/list"
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
}

type listKey struct {
	kind   entryKind
	stream holdfast.StreamID // zero but for entryStream
	key    seal.Key
	cipher *seal.Cipher // made at first use
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
	l.keys = append(l.keys, listKey{kind: k, stream: s, key: key, cipher: seal.NewCipher(key)})
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

func (l *keyList) key(k entryKind, s holdfast.StreamID) (seal.Key, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.keys) - 1; i >= 0; i-- {
		if e := &l.keys[i]; e.kind == k && e.stream == s {
			return e.key, true
		}
	}
	return seal.Key{}, false
}

func (l *keyList) wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.keys {
		l.keys[i].key.Wipe()
	}
	l.keys = nil
}

// The plaintext of a list, version 1: version, then per key its kind, stream and
// the key.
const (
	listVersion = 1
	listKeySize = 1 + 16 + 32
)

func (l *keyList) encode() []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := make([]byte, 0, 5+len(l.keys)*listKeySize)
	b = append(b, listVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.keys)))
	for i := range l.keys {
		e := &l.keys[i]
		b = append(b, byte(e.kind))
		b = append(b, e.stream[:]...)
		b = append(b, e.key[:]...)
	}
	return b
}

func (l *keyList) decode(b []byte) error {
	if len(b) < 5 || b[0] != listVersion || len(b) != 5+int(binary.BigEndian.Uint32(b[1:]))*listKeySize {
		return holdfast.Errorf(holdfast.Invalid, "a key list is damaged or of a newer version")
	}
	for b = b[5:]; len(b) > 0; b = b[listKeySize:] {
		key := seal.Key(b[17:listKeySize])
		l.keys = append(l.keys, listKey{kind: entryKind(b[0]), stream: holdfast.StreamID(b[1:17]), key: key, cipher: seal.NewCipher(key)})
	}
	return nil
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
	l, _ := v.lists.get(o, b)
	if l == nil {
		var err error
		if l, err = v.readList(ctx, o, b, true); err != nil {
			return nil, err
		}
	}
	next := l.clone()
	if grow(next) {
		row, err := v.sealList(next)
		if err != nil {
			return nil, err
		}
		if err := v.saves.save(ctx, row); err != nil {
			return nil, fmt.Errorf("save key list: %w", err)
		}
		l = next
	}
	v.lists.put(l)
	return l, nil
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
	owner, id, err := v.ownerKey(o)
	if err != nil {
		return nil, err
	}
	defer owner.Wipe()
	l := &keyList{owner: o, bucket: b}
	var box []byte
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT box_sealed FROM key_list WHERE owner = $1 AND bucket = $2 AND owner_key = $3`,
			o[:], int64(b), id).Scan(&box)
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
func (l *keyList) open(box []byte, owner seal.Key) error {
	plain, err := seal.NewCipher(owner).Open(nil, box, seal.ListPlace(l.owner, l.bucket))
	if err != nil {
		return fmt.Errorf("open key list of %s, bucket %d: %w", l.owner, l.bucket, err)
	}
	defer clear(plain)
	return l.decode(plain)
}

func (l *keyList) clone() *keyList {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return &keyList{owner: l.owner, bucket: l.bucket, keys: slices.Clone(l.keys)}
}

func (v *Vault) ownerKey(o Owner) (seal.Key, seal.KeyID, error) {
	v.ringMu.Lock()
	defer v.ringMu.Unlock()
	return v.ring.key(o)
}

// listRow is a key list as the catalog has it.
type listRow struct {
	owner    Owner
	bucket   seal.Bucket
	ownerKey seal.KeyID
	box      []byte
}

func (v *Vault) sealList(l *keyList) (listRow, error) {
	k, id, err := v.ownerKey(l.owner)
	if err != nil {
		return listRow{}, err
	}
	defer k.Wipe()
	return wrapList(l, k, id), nil
}

func wrapList(l *keyList, k seal.Key, id seal.KeyID) listRow {
	plain := l.encode()
	defer clear(plain)
	return listRow{l.owner, l.bucket, id, seal.NewCipher(k).Seal(nil, plain, seal.ListPlace(l.owner, l.bucket))}
}

func (r listRow) put(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO key_list (owner, bucket, owner_key, box_sealed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (owner, bucket, owner_key) DO UPDATE SET box_sealed = excluded.box_sealed`,
		r.owner[:], int64(r.bucket), r.ownerKey, r.box)
	return err
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
	row  listRow
	done chan error
}

func (s *saver) save(ctx context.Context, row listRow) error {
	p := &pendingSave{row: row, done: make(chan error, 1)}
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
				if err := p.row.put(ctx, tx); err != nil {
					return err
				}
			}
			return nil
		})
		for _, p := range group {
			p.done <- err
		}
	}
}

// maxCachedLists bounds the memory of opened lists: about 2 KB a key.
const maxCachedLists = 20_000

// listCache keeps opened lists, the least recently used leaving first.
type listCache struct {
	locks   [64]sync.Mutex // by owner: see Vault.list
	mu      sync.Mutex
	changes [64]uint64 // by owner: how often a list of theirs grew or was forgotten
	max     int
	byName  map[listName]*list.Element // of *keyList
	recent  *list.List                 // most recent in front
}

type listName struct {
	owner  Owner
	bucket seal.Bucket
}

func newListCache(max int) *listCache {
	return &listCache{max: max, byName: map[listName]*list.Element{}, recent: list.New()}
}

func (c *listCache) lock(o Owner) *sync.Mutex { return &c.locks[o[0]%64] }

// get returns the list, nil if it is not here, and how often lists near it have
// changed: what is read elsewhere now is only as good as that.
func (c *listCache) get(o Owner, b seal.Bucket) (*keyList, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byName[listName{o, b}]
	if !ok {
		return nil, c.changes[o[0]%64]
	}
	c.recent.MoveToFront(e)
	return e.Value.(*keyList), 0
}

// offer takes in a list that was read, nil for one that is not there. It reports
// false if lists have changed since: the reading may be older than they are.
func (c *listCache) offer(o Owner, l *keyList, changes uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes[o[0]%64] != changes {
		return false
	}
	if l != nil {
		c.add(l)
	}
	return true
}

func (c *listCache) put(l *keyList) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes[l.owner[0]%64]++
	c.add(l)
}

func (c *listCache) add(l *keyList) {
	name := listName{l.owner, l.bucket}
	if e, ok := c.byName[name]; ok {
		e.Value = l
		c.recent.MoveToFront(e)
		return
	}
	c.byName[name] = c.recent.PushFront(l)
	for c.recent.Len() > c.max {
		old := c.recent.Remove(c.recent.Back()).(*keyList)
		delete(c.byName, listName{old.owner, old.bucket})
	}
}

// forget drops the lists of the owners. The keys of those that are gone are
// overwritten; of those that live on, somebody may be about to use one.
func (c *listCache) forget(gone, renewed map[Owner]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, owners := range []map[Owner]bool{gone, renewed} {
		for o := range owners {
			c.changes[o[0]%64]++
		}
	}
	for name, e := range c.byName {
		if !gone[name.owner] && !renewed[name.owner] {
			continue
		}
		l := c.recent.Remove(e).(*keyList)
		delete(c.byName, name)
		if gone[name.owner] {
			l.wipe()
		}
	}
}
