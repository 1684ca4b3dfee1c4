package vault

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// leaseTime is how long a barrier waits for a lease of a journal key that is out: then
// it is void. No other lease ends by itself: what a slow disk has made durable under a
// key in use is acknowledged, or its sender sends again what is stored already.
const leaseTime = 10 * time.Second

// ErrRetired says that a journal record's key was destroyed on purpose: the
// record is to be skipped. Any other record that does not open is damage.
var ErrRetired = errors.New("the key of this record was destroyed by an erasure")

// Lease is the use of a journal key between sealing a record and acknowledging
// it. A key is not destroyed while a lease of it is out and valid.
type Lease struct {
	Cipher *seal.Cipher
	Bucket seal.Bucket
	key    *journalKey
}

// Valid reports whether the record sealed under the lease may be acknowledged.
// It is asked after the sync, before the ack.
func (l *Lease) Valid() bool { return !l.key.revoked.Load() }

// Done gives the lease back. It is called exactly once.
func (l *Lease) Done() { l.key.release() }

type leaseKey struct {
	assignment holdfast.AssignmentID
	bucket     seal.Bucket
}

// journalKey is the journal key in use for one assignment and bucket.
type journalKey struct {
	cipher  *seal.Cipher
	leases  atomic.Int64
	retired atomic.Bool // no new leases
	revoked atomic.Bool // leases that were still out are void
	idle    chan struct{}
	once    sync.Once
}

// acquire counts a lease in; it is false when the key was retired.
func (k *journalKey) acquire() bool {
	k.leases.Add(1)
	if k.retired.Load() {
		k.release()
		return false
	}
	return true
}

func (k *journalKey) release() {
	if k.leases.Add(-1) == 0 && k.retired.Load() {
		k.once.Do(func() { close(k.idle) })
	}
}

// retire stops new leases; idle is closed when the last one has come back.
func (k *journalKey) retire() {
	k.retired.Store(true)
	if k.leases.Load() == 0 {
		k.once.Do(func() { close(k.idle) })
	}
}

// leaseTable finds the key in use without a lock on the catalog.
type leaseTable struct {
	mu      sync.RWMutex
	keys    map[leaseKey]*journalKey
	leaving map[*journalKey]holdfast.AssignmentID // out of use, but leases may be out that no Barrier has waited for
	swept   time.Time
}

func (t *leaseTable) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.keys)
}

func (t *leaseTable) get(k leaseKey) *journalKey {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.keys[k]
}

func (t *leaseTable) put(k leaseKey, key *journalKey) *journalKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.keys[k]; have != nil && !have.retired.Load() {
		return have
	}
	t.keys[k] = key
	// Keys of buckets that ended long ago get no leases any more.
	if now := time.Now(); now.Sub(t.swept) > time.Hour {
		t.swept = now
		for at, old := range t.keys {
			if now.Add(-time.Hour).UnixNano() > at.bucket.Ends() {
				t.retire(at, old)
			}
		}
		for left := range t.leaving { // whose last lease has come back
			select {
			case <-left.idle:
				delete(t.leaving, left)
			default:
			}
		}
	}
	return key
}

// remove takes keys of the assignments out of use, all but those that are kept, and
// returns them with those that are leaving already. The caller says that they have left
// when no lease of them is out any more, or none that is good.
func (t *leaseTable) remove(in map[holdfast.AssignmentID]bool, kept map[seal.KeyID]bool) []*journalKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, key := range t.keys {
		if in[k.assignment] && !kept[key.cipher.ID()] {
			t.retire(k, key)
		}
	}
	var out []*journalKey
	for key, a := range t.leaving {
		if in[a] && !kept[key.cipher.ID()] {
			out = append(out, key)
		}
	}
	return out
}

// retire takes a key out of use; the caller has the lock.
func (t *leaseTable) retire(k leaseKey, key *journalKey) {
	key.retire()
	t.leaving[key] = k.assignment
	delete(t.keys, k)
}

func (t *leaseTable) left(keys []*journalKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		delete(t.leaving, k)
	}
}

// JournalKey leases the key that seals the records of assignment a that arrive
// in bucket b, making it if need be. The key is durable when it is given out.
func (v *Vault) JournalKey(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket) (*Lease, error) {
	at := leaseKey{a, b}
	for {
		k := v.leases.get(at)
		if k == nil || k.cipher.Spent() {
			var err error
			if k, err = v.useJournalKey(ctx, at, k != nil); err != nil {
				return nil, err
			}
		}
		if k.acquire() {
			return &Lease{Cipher: k.cipher, Bucket: b, key: k}, nil
		}
	}
}

// useJournalKey puts the newest journal key of the list into use; fresh asks for
// one that has sealed nothing.
func (v *Vault) useJournalKey(ctx context.Context, at leaseKey, fresh bool) (*journalKey, error) {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	if k := v.leases.get(at); k != nil && !k.retired.Load() && !k.cipher.Spent() {
		return k, nil // another was faster
	}
	l, err := v.list(ctx, OfAssignment(at.assignment), at.bucket, func(l *keyList) bool {
		if fresh {
			l.add(entryJournal, holdfast.StreamID{}, seal.NewKey())
			return true
		}
		return l.ensure(entryJournal, holdfast.StreamID{})
	})
	if err != nil {
		return nil, err
	}
	if fresh {
		v.leases.mu.Lock()
		if k := v.leases.keys[at]; k != nil && k.cipher.Spent() {
			v.leases.retire(at, k)
		}
		v.leases.mu.Unlock()
	}
	return v.leases.put(at, &journalKey{cipher: l.cipher(entryJournal, holdfast.StreamID{}), idle: make(chan struct{})}), nil
}

// JournalOpener returns the cipher of a journal record. The error is ErrRetired
// if the key is on the retired list.
func (v *Vault) JournalOpener(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket, id seal.KeyID) (*seal.Cipher, error) {
	l, err := v.list(ctx, OfAssignment(a), b, nil)
	if err == nil {
		if c := l.byID(id); c != nil {
			return c, nil
		}
	} else if holdfast.KindOf(err) != holdfast.NotFound {
		return nil, err
	}
	var n int
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT count(*) FROM retired_key WHERE key_id = $1`, id).Scan(&n)
	})
	switch {
	case err != nil:
		return nil, err
	case n > 0:
		return nil, ErrRetired
	}
	return nil, holdfast.Errorf(holdfast.Internal, "journal key %s of assignment %s is neither in its list nor retired", id, a)
}

// StreamCiphers returns the ciphers of the streams of a in bucket b, making the
// keys that are missing. They are durable when it returns.
func (v *Vault) StreamCiphers(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket, streams []holdfast.StreamID) (map[holdfast.StreamID]*seal.Cipher, error) {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	l, err := v.list(ctx, OfAssignment(a), b, func(l *keyList) bool {
		grew := false
		for _, s := range streams {
			grew = l.ensure(entryStream, s) || grew
		}
		return grew
	})
	if err != nil {
		return nil, err
	}
	out := make(map[holdfast.StreamID]*seal.Cipher, len(streams))
	for _, s := range streams {
		out[s] = l.cipher(entryStream, s)
	}
	return out, nil
}

// StreamCipher returns the cipher of one stream in bucket b, NotFound if there
// never was one or it was destroyed.
func (v *Vault) StreamCipher(ctx context.Context, a holdfast.AssignmentID, b seal.Bucket, s holdfast.StreamID) (*seal.Cipher, error) {
	l, err := v.list(ctx, OfAssignment(a), b, nil)
	if err != nil {
		return nil, err
	}
	if c := l.cipher(entryStream, s); c != nil {
		return c, nil
	}
	return nil, holdfast.Errorf(holdfast.NotFound, "stream %s has no key for bucket %d", s, b)
}
