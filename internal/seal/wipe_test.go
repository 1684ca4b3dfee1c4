package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/holdfast-iot/holdfast/internal/seal/residue"
)

// knownGo are the releases of Go whose ciphers somebody has looked at: where they
// keep what they derive from a key, and that nothing of it is anywhere else
// (crypto/internal/fips140/aes and aes/gcm).
const knownGo = "go1.26"

// memoryOf is all of what a cipher's AEAD points to.
func memoryOf(c *Cipher) []byte {
	v := reflect.ValueOf(c.secret.aead)
	for v.Kind() == reflect.Struct {
		v = v.Field(0)
	}
	return unsafe.Slice((*byte)(v.UnsafePointer()), v.Type().Elem().Size())
}

func TestWipeOverwritesAllThatACipherKeeps(t *testing.T) {
	if v := runtime.Version(); v != knownGo && !strings.HasPrefix(v, knownGo+".") {
		t.Errorf("built by %s: see whether wipe.go knows where its AES and GCM keep keys, then name it here", v)
	}
	if !Overwrites() {
		t.Error("wipe.go does not know where this release of Go keeps keys")
	}
	k := NewKey()
	find := new(residue.Search)
	find.Add("key", k)
	c := NewCipher(k)
	p := PagePlace(id16(1), 1)
	sealed(t, c, []byte("used"), p)
	before := find.In(memoryOf(c), 0)
	parts := map[string]bool{}
	for _, h := range before {
		parts[h.Part] = true
	}
	// 15 round keys to encrypt, of which two are the key; 15 to decrypt, of which all
	// but the inner 13 are among those.
	if len(parts) < 2+13+12 {
		t.Errorf("in a fresh cipher are %d parts of its key: the search is blind, or Go keeps them elsewhere: %v", len(parts), before)
	}
	table := bytes.Clone(memoryOf(c)[len(memoryOf(c))-256:])
	c.Wipe()
	if after := find.In(memoryOf(c), 0); len(after) > 0 {
		t.Errorf("after Wipe: %v", after)
	}
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		if bytes.Equal(table, make([]byte, 256)) || !bytes.Equal(memoryOf(c)[len(memoryOf(c))-256:], make([]byte, 256)) {
			t.Error("the product table was not there, or is there still")
		}
	}
	if c.secret.key != (Key{}) {
		t.Error("the key is there still")
	}
}

// A wiped cipher would seal under a key of zeros, which everybody knows.
func TestWipedCipherRefuses(t *testing.T) {
	c, p := NewCipher(NewKey()), PagePlace(id16(1), 1)
	box := sealed(t, c, []byte("reading"), p)
	c.Wipe()
	c.Wipe()
	for range 3 {
		if out, err := c.Seal(nil, []byte("reading"), p); !errors.Is(err, ErrWiped) || len(out) > 0 {
			t.Errorf("sealed %x, %v", out, err)
		}
		if _, err := c.Open(nil, box, p); !errors.Is(err, ErrWiped) {
			t.Errorf("opened: %v", err)
		}
		if _, err := c.AppendKey(nil); !errors.Is(err, ErrWiped) {
			t.Errorf("gave its key: %v", err)
		}
		if _, err := c.MAC([]byte("name")); !errors.Is(err, ErrWiped) {
			t.Errorf("hashed: %v", err)
		}
	}
}

// While a cipher is wiped, others use it: what they seal opens with the key, or is
// refused. The race detector watches.
func TestWipeWhileInUse(t *testing.T) {
	p := PagePlace(id16(1), 1)
	plain := bytes.Repeat([]byte("reading "), 200)
	for range 200 {
		k := NewKey()
		c := NewCipher(k)
		box := sealed(t, c, plain, p)
		var wg sync.WaitGroup
		boxes := make([][]byte, 4)
		started := make(chan struct{}, 2*len(boxes))
		for i := range boxes {
			wg.Go(func() {
				for first := true; ; first = false {
					out, err := c.Seal(nil, plain, p)
					if first {
						started <- struct{}{}
					}
					if err != nil {
						return
					}
					boxes[i] = out
				}
			})
			wg.Go(func() {
				for first := true; ; first = false {
					out, err := c.Open(nil, box, p)
					if first {
						started <- struct{}{}
					}
					if errors.Is(err, ErrWiped) {
						return
					}
					if err != nil || !bytes.Equal(out, plain) {
						t.Errorf("opened while it was wiped: %v", err)
						return
					}
				}
			})
		}
		<-started
		c.Wipe()
		wg.Wait()
		again := NewCipher(k)
		for _, b := range boxes {
			if b == nil {
				continue
			}
			if out, err := again.Open(nil, b, p); err != nil || !bytes.Equal(out, plain) {
				t.Fatalf("what was sealed while the cipher was wiped does not open: %v", err)
			}
		}
		if c.secret.key != (Key{}) {
			t.Fatal("the last user left the key")
		}
	}
}

// Of a cipher that nobody holds any more the key is overwritten, so that caches need
// not know who holds one.
func TestForgottenCipherIsOverwritten(t *testing.T) {
	kept := NewCipher(NewKey()).secret
	for end := time.Now().Add(30 * time.Second); !kept.done.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never")
		}
		runtime.GC()
	}
	if kept.key != (Key{}) {
		t.Error("the key is there still")
	}
}

func TestMACIsHMAC(t *testing.T) {
	k := NewKey()
	m := hmac.New(sha256.New, k[:])
	for n := range 200 {
		text := bytes.Repeat([]byte{byte(n)}, n)
		m.Reset()
		m.Write(text)
		got, err := NewCipher(k).MAC(text[:n/3], text[n/3:])
		if err != nil || !bytes.Equal(got, m.Sum(nil)) {
			t.Fatalf("%d bytes: %x, %v", n, got, err)
		}
	}
}

func BenchmarkNewCipher(b *testing.B) {
	k := NewKey()
	b.ReportAllocs()
	for b.Loop() {
		NewCipher(k).Wipe()
	}
}

func BenchmarkQuiet(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Quiet(func() {})
	}
}
