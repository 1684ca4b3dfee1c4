// Package seal is the one place of authenticated encryption: AES-256-GCM with
// random nonces, and associated data that ties each box to what it is and where
// it stands.
//
// It promises that a box opens only with the key that sealed it and only in the
// place it was sealed for: moved to another row, stream, bucket or owner, it
// does not open. It keeps no keys (package vault does) and knows nothing of what
// it seals. The bytes are described in docs/format/seal.md.
package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
)

// Overhead is what a box has more than its plaintext: nonce and tag.
const Overhead = 12 + 16

// MaxSeals is how often one process seals under one key before it must take a
// fresh one: 2^28 random 96-bit nonces collide with probability below 2^-41.
const MaxSeals = 1 << 28

// ErrOpen says that a box is damaged, was sealed under another key or stands in
// another place; which of them can't be told, by design.
var ErrOpen = errors.New("box does not open")

// ErrWiped says that the key of a cipher was destroyed while somebody still had the
// cipher in hand.
var ErrWiped = holdfast.Errorf(holdfast.NotFound, "the key was destroyed")

// Key is 256 random bits. It prints as the word "key".
type Key [32]byte

// NewKey returns a fresh random key.
func NewKey() Key {
	var k Key
	rand.Read(k[:]) // never fails (crypto/rand, Go 1.24)
	return k
}

// Format and MarshalText keep keys out of logs and errors, whatever the verb.
func (k Key) Format(f fmt.State, _ rune)   { io.WriteString(f, "key") }
func (k Key) MarshalText() ([]byte, error) { return []byte("key"), nil }

// ID returns SHA-256("holdfast key id" ‖ 0 ‖ key), first 16 bytes. It may stand
// in clear and is compared at every unwrap.
func (k Key) ID() KeyID { return keyID(&k) }

func keyID(k *Key) KeyID {
	var b [len(keyIDLabel) + len(k)]byte
	copy(b[copy(b[:], keyIDLabel):], k[:])
	sum := sha256.Sum256(b[:])
	clear(b[:])
	return KeyID(sum[:16])
}

const keyIDLabel = "holdfast key id\x00"

// Wipe overwrites the key.
func (k *Key) Wipe() { clear(k[:]) }

// KeyID names a key without telling it.
type KeyID [16]byte

func (id KeyID) String() string               { return hex.EncodeToString(id[:]) }
func (id KeyID) IsZero() bool                 { return id == KeyID{} }
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *KeyID) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(id) {
		return fmt.Errorf("a key id has %d hexadecimal digits", hex.EncodedLen(len(id)))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// Value stores the id as 16 bytes.
func (id KeyID) Value() (driver.Value, error) { return id[:], nil }

// Scan reads what Value stored.
func (id *KeyID) Scan(src any) error {
	if b, ok := src.([]byte); ok && len(b) == len(id) {
		copy(id[:], b)
		return nil
	}
	return fmt.Errorf("scan key id: want %d bytes, have %T", len(id), src)
}

// Cipher seals and opens under one key. It is safe for concurrent use; making
// one costs about 1 µs and 1.4 KB, so callers keep it. What it keeps of the key is
// overwritten by Wipe, or once nobody holds the cipher any more.
type Cipher struct {
	id     KeyID
	seals  atomic.Uint64
	uses   atomic.Int64 // how many seal or open just now; wiped is added by Wipe
	secret *secret
}

// wiped is far below what any number of uses makes up for.
const wiped = math.MinInt64 / 2

// NewCipher prepares k for use.
func NewCipher(k Key) *Cipher {
	c := &Cipher{id: keyID(&k), secret: newSecret(&k)}
	k.Wipe()
	runtime.AddCleanup(c, (*secret).wipe, c.secret)
	return c
}

// ID returns the id of the key.
func (c *Cipher) ID() KeyID { return c.id }

// Spent reports that the key has sealed MaxSeals boxes in this process and must
// be replaced.
func (c *Cipher) Spent() bool { return c.seals.Load() >= MaxSeals }

// Wipe overwrites the key. Whoever is sealing or opening just now ends that first,
// and the last of them overwrites; from here on all else is refused with ErrWiped.
func (c *Cipher) Wipe() {
	for {
		n := c.uses.Load()
		if n < 0 {
			return
		}
		if c.uses.CompareAndSwap(n, n+wiped) {
			if n == 0 {
				c.secret.wipe()
			}
			return
		}
	}
}

// begin counts a use in; it is false once the key is wiped. end follows in any
// case: it also keeps c from being cleaned up meanwhile.
func (c *Cipher) begin() bool { return c.uses.Add(1) > 0 }

func (c *Cipher) end() {
	if c.uses.Add(-1) == wiped {
		c.secret.wipe()
	}
}

// Seal appends the box of plaintext at p to dst. dst and plaintext must not
// overlap. It fails with ErrWiped, and in no other way.
func (c *Cipher) Seal(dst, plaintext []byte, p Place) ([]byte, error) {
	defer c.end()
	if !c.begin() {
		return dst, ErrWiped
	}
	c.seals.Add(1)
	ad := sideData.Get().(*[adMax]byte)
	defer sideData.Put(ad)
	return c.secret.aead.Seal(dst, nil, plaintext, p.associated(ad[:0], c.id)), nil
}

// sideData are buffers for associated data, which escapes through the interface of
// the AEAD. What they held is no secret.
var sideData = sync.Pool{New: func() any { return new([adMax]byte) }}

// Open appends the plaintext of box to dst. It fails with ErrOpen unless box was
// sealed by this key for this place, and with ErrWiped if the key is no more.
func (c *Cipher) Open(dst, box []byte, p Place) ([]byte, error) {
	defer c.end()
	if !c.begin() {
		return nil, ErrWiped
	}
	if len(box) < Overhead {
		return nil, ErrOpen
	}
	ad := sideData.Get().(*[adMax]byte)
	defer sideData.Put(ad)
	out, err := c.secret.aead.Open(dst, nil, box, p.associated(ad[:0], c.id))
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// AppendKey appends the key itself to dst, which the caller overwrites after use.
func (c *Cipher) AppendKey(dst []byte) ([]byte, error) {
	defer c.end()
	if !c.begin() {
		return dst, ErrWiped
	}
	return append(dst, c.secret.key[:]...), nil
}

// Wrap seals a key under c.
func (c *Cipher) Wrap(dst []byte, k Key, p Place) ([]byte, error) {
	defer k.Wipe() // the copy, which is on the heap: it goes through an interface
	return c.Seal(dst, k[:], p)
}

// Unwrap opens a wrapped key and checks that it is the key called want.
func (c *Cipher) Unwrap(box []byte, want KeyID, p Place) (Key, error) {
	k := new(Key)
	defer k.Wipe()
	err := c.UnwrapInto(k, box, want, p)
	return *k, err
}

// UnwrapInto is Unwrap into k, which is left zero after an error.
func (c *Cipher) UnwrapInto(k *Key, box []byte, want KeyID, p Place) error {
	if len(box) != len(k)+Overhead {
		return ErrOpen
	}
	if _, err := c.Open(k[:0], box, p); err != nil {
		k.Wipe()
		return err
	}
	if id := keyID(k); subtle.ConstantTimeCompare(id[:], want[:]) != 1 {
		k.Wipe()
		return ErrOpen
	}
	return nil
}
