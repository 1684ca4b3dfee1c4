package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"
)

// What a key becomes in memory, and how it is overwritten.
//
// Go's ciphers can't be told to forget: the round keys of AES and the product
// table of GCM lie in structures that crypto/internal/fips140 keeps to itself.
// This file is the only one that reaches into them. It looks at their types at run
// time, and where these consist of nothing but numbers and arrays of numbers it
// overwrites the arrays: that can't harm the memory of anything else, whatever
// the arrays are for. A type that has grown a pointer, a slice or an interface is
// not known here: then the arrays are overwritten as well, Overwrites says false,
// and the tests fail until somebody has looked at the new release of Go.

// secret is all that a cipher keeps of its key.
type secret struct {
	key  Key
	aead cipher.AEAD
	mu   sync.Mutex
	done atomic.Bool
}

func newSecret(k *Key) *secret {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic("seal: " + err.Error()) // only for a wrong key length
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("seal: " + err.Error())
	}
	overwrite(block) // of which the AEAD has a copy
	return &secret{key: *k, aead: aead}
}

// wipe overwrites the secret. Nobody uses it any more.
func (s *secret) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key.Wipe()
	overwrite(s.aead)
	s.done.Store(true)
}

// Overwrites reports whether this build overwrites all that its ciphers derive
// from a key. Where it does not, they are only let go.
func Overwrites() bool { return overwrites() }

var overwrites = sync.OnceValue(func() bool {
	var zero Key
	block, err := aes.NewCipher(zero[:])
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return err == nil && overwrite(block) && overwrite(aead)
})

// roundKeys is what a schedule of AES-256 takes at least: 15 round keys each way.
const roundKeys = 2 * 15 * aes.BlockSize

// overwrite fills with zeros what a block or an AEAD holds, and reports whether
// that was all of it.
func overwrite(of any) bool {
	v := reflect.ValueOf(of)
	for v.Kind() == reflect.Struct && v.NumField() == 1 { // an AEAD that wraps another
		v = v.Field(0)
	}
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Kind() != reflect.Struct {
		return false
	}
	l := layoutOf(v.Type().Elem())
	at := v.UnsafePointer()
	for _, a := range l.arrays {
		clear(unsafe.Slice((*byte)(unsafe.Add(at, a.offset)), a.size))
	}
	return l.known
}

// layout is where a type has arrays of numbers.
type layout struct {
	arrays []array
	known  bool // and nothing else that could hold part of a key
}

type array struct{ offset, size uintptr }

// layouts are those of the types met so far, of which there are two.
var layouts sync.Map // reflect.Type → layout

func layoutOf(t reflect.Type) layout {
	if l, ok := layouts.Load(t); ok {
		return l.(layout)
	}
	l := layout{known: true}
	l.add(t, 0)
	var sum uintptr
	for _, a := range l.arrays {
		sum += a.size
	}
	l.known = l.known && sum >= roundKeys
	layouts.Store(t, l)
	return l
}

func (l *layout) add(t reflect.Type, offset uintptr) {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			l.add(f.Type, offset+f.Offset)
		}
	case reflect.Array:
		switch t.Elem().Kind() {
		case reflect.Uint8, reflect.Uint32, reflect.Uint64:
			l.arrays = append(l.arrays, array{offset, t.Size()})
		default:
			l.known = false
		}
	case reflect.Int: // how many rounds, how long a nonce
	default:
		l.known = false
	}
}

// MAC returns HMAC-SHA-256 of the parts under the key of c, as RFC 2104 has it. It
// keeps nothing of the key, where crypto/hmac keeps two padded copies for the
// collector to find.
func (c *Cipher) MAC(parts ...[]byte) ([]byte, error) {
	defer c.end()
	if !c.begin() {
		return nil, ErrWiped
	}
	var pad [sha256.BlockSize]byte
	defer clear(pad[:])
	h := sha256.New()
	defer h.Reset()
	fill := func(with byte) {
		for i := range pad {
			pad[i] = with
		}
		for i, b := range c.secret.key {
			pad[i] ^= b
		}
		h.Write(pad[:]) // a whole block: it is not buffered
	}
	fill(0x36)
	for _, p := range parts {
		h.Write(p)
	}
	var sum [sha256.Size]byte
	inner := h.Sum(sum[:0])
	h.Reset()
	fill(0x5c)
	h.Write(inner)
	return h.Sum(nil), nil
}

// Quiet runs f, which handles keys, and then overwrites the stack that f used: a
// key that goes from function to function leaves copies in their frames. The stack
// is made large enough beforehand, because one that grows is copied. What f hands
// over in memory of its own is f's to overwrite.
func Quiet(f func()) {
	overwriteStack()
	f()
	overwriteStack()
}

// stackOfKeys is more than what is below Quiet where keys are handled.
const stackOfKeys = 12 << 10

//go:noinline
func overwriteStack() {
	var b [stackOfKeys]byte
	for i := range b {
		b[i] = 0
	}
	touch(&b)
}

//go:noinline
func touch(*[stackOfKeys]byte) {}
