package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

var update = flag.Bool("update", false, "write the golden files")

func id16(b byte) (a [16]byte) { a[0], a[15] = b, b; return }

// places are one of each kind, and for each kind all that differ in one part.
func places() map[string]Place {
	a, a2 := holdfast.AssignmentID(id16(1)), holdfast.AssignmentID(id16(2))
	s, s2 := holdfast.StreamID(id16(3)), holdfast.StreamID(id16(4))
	c, c2 := id16(5), id16(6)
	return map[string]Place{
		"chunk":               ChunkPlace(a, s, 202611, c, 7),
		"chunk, assignment":   ChunkPlace(a2, s, 202611, c, 7),
		"chunk, stream":       ChunkPlace(a, s2, 202611, c, 7),
		"chunk, bucket":       ChunkPlace(a, s, 202612, c, 7),
		"chunk, id":           ChunkPlace(a, s, 202611, c2, 7),
		"chunk, rows":         ChunkPlace(a, s, 202611, c, 8),
		"summary":             SummaryPlace(a, s, 202611, c, 7),
		"arrival":             ArrivalPlace(a, s, 202611, c, 7),
		"journal":             JournalPlace(a, id16(5), 7),
		"journal, assignment": JournalPlace(a2, id16(5), 7),
		"journal, writer":     JournalPlace(a, id16(6), 7),
		"journal, counter":    JournalPlace(a, id16(5), 8),
		"list":                ListPlace(a, 202611),
		"list, owner":         ListPlace(a2, 202611),
		"list, bucket":        ListPlace(a, 0),
		"entry":               EntryPlace(a, id16(9), KeyID(id16(1))),
		"entry, owner":        EntryPlace(a2, id16(9), KeyID(id16(1))),
		"entry, page":         EntryPlace(a, id16(8), KeyID(id16(1))),
		"entry, key":          EntryPlace(a, id16(9), KeyID(id16(2))),
		"page":                PagePlace(id16(9), 1),
		"page, id":            PagePlace(id16(8), 1),
		"page, generation":    PagePlace(id16(9), 2),
		"root":                RootPlace(id16(9), 1),
		"root, generation":    RootPlace(id16(9), 2),
		"field":               FieldPlace(a, "device", []byte("row"), "label"),
		"field, owner":        FieldPlace(a2, "device", []byte("row"), "label"),
		"field, table":        FieldPlace(a, "devic", []byte("erow"), "label"),
		"field, row":          FieldPlace(a, "device", []byte("rowl"), "abel"),
		"field, column":       FieldPlace(a, "device", []byte("row"), "labels"),
	}
}

func sealed(t testing.TB, c *Cipher, plain []byte, p Place) []byte {
	t.Helper()
	box, err := c.Seal(nil, plain, p)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// Each kind of box is moved to every other place and must be refused.
func TestBoxOpensOnlyInItsPlace(t *testing.T) {
	c := NewCipher(NewKey())
	for name, p := range places() {
		box := sealed(t, c, []byte("content of "+name), p)
		for other, q := range places() {
			got, err := c.Open(nil, box, q)
			switch {
			case name == other && (err != nil || string(got) != "content of "+name):
				t.Errorf("%s does not open in its own place: %v", name, err)
			case name != other && !errors.Is(err, ErrOpen):
				t.Errorf("%s opened as %s", name, other)
			}
		}
	}
}

func TestBoxRefusesOtherKeyAndDamage(t *testing.T) {
	p := PagePlace(id16(1), 1)
	c := NewCipher(NewKey())
	box := sealed(t, c, []byte("reading"), p)
	if _, err := NewCipher(NewKey()).Open(nil, box, p); !errors.Is(err, ErrOpen) {
		t.Error("opened with another key")
	}
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := c.Open(nil, bad, p); !errors.Is(err, ErrOpen) {
			t.Errorf("opened with byte %d altered", i)
		}
	}
	for n := range box {
		if _, err := c.Open(nil, box[:n], p); !errors.Is(err, ErrOpen) {
			t.Errorf("opened cut to %d bytes", n)
		}
	}
}

func TestUnwrapChecksKeyID(t *testing.T) {
	c, k, p := NewCipher(NewKey()), NewKey(), PagePlace(id16(1), 1)
	box := sealed(t, c, k[:], p)
	if got, err := c.Unwrap(box, k.ID(), p); err != nil || got != k {
		t.Fatalf("unwrap: %v", err)
	}
	if _, err := c.Unwrap(box, NewKey().ID(), p); !errors.Is(err, ErrOpen) {
		t.Error("unwrapped a key under another name")
	}
	if _, err := c.Unwrap(sealed(t, c, k[:31], p), k.ID(), p); !errors.Is(err, ErrOpen) {
		t.Error("unwrapped 31 bytes")
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	k := NewKey()
	for _, f := range []string{"%v", "%s", "%#v", "%d", "%x", "%q", "%+v"} {
		if got := fmt.Sprintf(f, k); got != "key" {
			t.Errorf("%s prints %q", f, got)
		}
	}
	if b, err := json.Marshal(k); string(b) != `"key"` {
		t.Errorf("JSON prints %s, %v", b, err)
	}
}

// The golden file holds one box of every kind under a fixed key and fixed
// nonces: a changed format changes it.
func TestGolden(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	var k Key
	copy(k[:], "an example key of thirty-two bytes")
	c := NewCipher(k)
	var out strings.Builder
	fmt.Fprintf(&out, "key id %s\n", k.ID())
	names := []string{"chunk", "summary", "journal", "list", "entry", "page", "field", "root", "arrival"}
	for _, n := range names {
		p := places()[n]
		var ad [adMax]byte
		fmt.Fprintf(&out, "%s\n  ad  %x\n  box %x\n", n, p.associated(ad[:0], c.id), sealed(t, c, []byte("plaintext"), p))
	}
	const file = "testdata/boxes.txt"
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("boxes differ from %s:\n%s", file, out.String())
	}
	// What was written by another build opens here.
	for i, line := range strings.Split(string(want), "\n") {
		if hex, ok := strings.CutPrefix(line, "  box "); ok {
			var box []byte
			fmt.Sscanf(hex, "%x", &box)
			if got, err := c.Open(nil, box, places()[names[(i-3)/3]]); err != nil || string(got) != "plaintext" {
				t.Errorf("golden box of line %d: %v", i+1, err)
			}
		}
	}
}

func TestBucket(t *testing.T) {
	at := time.Date(2026, 12, 31, 23, 59, 59, 999, time.UTC).UnixNano()
	if got := BucketOf(at, false); got != 202612 {
		t.Errorf("month %d", got)
	}
	if got := BucketOf(at, true); got != 20261231 {
		t.Errorf("day %d", got)
	}
	newYear := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	if Bucket(202612).Ends() != newYear || Bucket(20261231).Ends() != newYear {
		t.Error("December ends at new year")
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{100, 2000, 16 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, p := NewCipher(NewKey()), JournalPlace(holdfast.AssignmentID(id16(1)), id16(2), 3)
			plain, dst := make([]byte, n), make([]byte, 0, n+Overhead)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = c.Seal(dst[:0], plain, p)
			}
		})
	}
}
