package escrow

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
)

var update = flag.Bool("update", false, "write the golden files")

var made = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func deal(t testing.TB, k int, names ...string) (Public, []Share) {
	t.Helper()
	p, shares, err := Deal("holdfast/test", k, names, made)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p, shares
}

// TestEveryEnoughOpensAndNoFewer: all sets of shares of a deal, one of 3 of 5.
func TestEveryEnoughOpensAndNoFewer(t *testing.T) {
	p, shares := deal(t, 3, "notary", "safe", "board", "a code of honour", "bank")
	secret := bytes.Repeat([]byte{7}, 32)
	use := Root([16]byte{1}, 4)
	box, err := p.Wrap(use, secret)
	if err != nil {
		t.Fatal(err)
	}
	for set := range 1 << len(shares) {
		var some []Share
		for i, s := range shares {
			if set>>i&1 == 1 {
				some = append(some, s)
			}
		}
		private, err := Combine(some)
		if len(some) < 3 {
			if err == nil {
				t.Fatalf("%d shares of 3 come together", len(some))
			}
			if len(some) > 0 && !strings.Contains(err.Error(), "more") {
				t.Errorf("the refusal does not say how many are missing: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := private.Open(use, box)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%05b opens %x: %v", set, got, err)
		}
		for what, other := range map[string]Use{"generation": Root([16]byte{1}, 5), "keyring": Root([16]byte{2}, 4), "use": Rehearsal()} {
			if _, err := private.Open(other, box); err == nil {
				t.Errorf("it opens for another %s", what)
			}
		}
	}
}

// TestWhatDoesNotComeTogether: each kind of wrong share is named.
func TestWhatDoesNotComeTogether(t *testing.T) {
	p, a := deal(t, 2, "one", "two", "three")
	_, b := deal(t, 2, "one", "two", "three")
	altered := a[1]
	altered.Y[3] ^= 1
	for what, c := range map[string]struct {
		shares []Share
		want   string
	}{
		"two deals": {[]Share{a[0], b[1]}, "two deals"},
		"twice":     {[]Share{a[0], a[0]}, "twice"},
		"altered":   {[]Share{a[0], altered}, "damaged"},
		"none":      {nil, "no share"},
	} {
		if _, err := Combine(c.shares); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	for i, s := range a {
		if !s.Is(p) {
			t.Errorf("share %d is not known as the deal's", i+1)
		}
		if got, ok := p.Destroyed(s.Code); !ok || got.Name != s.Name {
			t.Errorf("its code names %q", got.Name)
		}
	}
	if altered.Is(p) || b[0].Is(p) {
		t.Error("another share passes for the deal's")
	}
	if _, ok := p.Destroyed(b[0].Code); ok {
		t.Error("the code of another deal counts")
	}
}

func TestDealsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		hub   string
		k     int
		names []string
	}{
		{"h", 1, []string{"a", "b"}}, {"h", 3, []string{"a", "b"}}, {"h", 2, []string{"a"}}, {"h", 2, []string{"a", "a"}}, {"h", 2, []string{"a", ""}},
		{"h", 2, []string{"a", "b\nx 1"}}, {"", 2, []string{"a", "b"}}, {"h", 2, []string{"a", " b"}}, {"h", 2, []string{"a", strings.Repeat("b", 65)}},
		{"h", 2, strings.Split("abcdefghijklmnopq", "")},
	} {
		if _, _, err := Deal(c.hub, c.k, c.names, made); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%d of %q: %v", c.k, c.names, err)
		}
	}
	p, _ := deal(t, 2, "a", "b")
	for what, spoil := range map[string]func(*Public){
		"key": func(p *Public) { p.Key = bytes.Clone(p.Key); p.Key[5] ^= 1 }, "id": func(p *Public) { p.ID[0] ^= 1 }, "cut": func(p *Public) { p.Key = p.Key[1:] },
		"threshold": func(p *Public) { p.Threshold = 9 }, "date": func(p *Public) { p.Made = time.Time{} },
		"commitment": func(p *Public) { p.Shareholders = []Shareholder{{Name: "a"}, {Name: "b"}} },
	} {
		q := p
		if spoil(&q); q.Check() == nil {
			t.Errorf("a deal with another %s passes", what)
		}
	}
}

// TestSharesOnPaper: what is written down is read back, and every slip is found.
func TestSharesOnPaper(t *testing.T) {
	_, shares := deal(t, 2, "notary", "a code of honour")
	for _, s := range shares {
		text := s.Text()
		got, err := ParseShare(text)
		if err != nil || got != s {
			t.Fatalf("%v: %v", got, err)
		}
		if got, err = ParseShare(strings.ReplaceAll(text, "\n", "\r\n")); err != nil || got != s {
			t.Errorf("with the line ends of Windows: %v", err)
		}
		for i := range text {
			b := []byte(text)
			b[i] ^= 1
			if _, err := ParseShare(string(b)); err == nil {
				t.Errorf("byte %d altered passes: %q", i, b)
			}
			if _, err := ParseShare(text[:i]); err == nil {
				t.Errorf("cut at %d passes", i)
			}
		}
	}
}

func TestSharesInAgeFiles(t *testing.T) {
	_, shares := deal(t, 2, "notary", "safe")
	key, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := shares[0].Encrypt(&file, key.Recipient()); err != nil {
		t.Fatal(err)
	}
	if got, err := Decrypt(bytes.NewReader(file.Bytes()), other, key); err != nil || got != shares[0] {
		t.Errorf("%v", err)
	}
	if _, err := Decrypt(bytes.NewReader(file.Bytes()), other); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("with another identity: %v", err)
	}
	if _, err := Decrypt(bytes.NewReader(file.Bytes())); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("with none: %v", err)
	}
	if got, err := Decrypt(strings.NewReader(shares[1].Text())); err != nil || got != shares[1] {
		t.Errorf("in clear: %v", err)
	}
	if bytes.Contains(file.Bytes(), []byte("notary")) {
		t.Error("the file names its shareholder")
	}
}

// TestWitness: Python puts the golden shares together, with what docs/format/recovery.md
// says and nothing of ours.
func TestWitness(t *testing.T) {
	golden := filepath.Join("testdata", "shares")
	if *update {
		_, shares := deal(t, 3, "notary", "safe", "board", "bank")
		for i, s := range shares {
			if err := os.WriteFile(filepath.Join(golden, string(rune('1'+i))+".txt"), []byte(s.Text()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	var some []Share
	var paths []string
	for _, n := range []string{"4", "1", "3"} {
		path := filepath.Join(golden, n+".txt")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseShare(string(b))
		if err != nil {
			t.Fatal(err)
		}
		some, paths = append(some, s), append(paths, path)
	}
	private, err := Combine(some)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "python3", append([]string{filepath.Join("testdata", "combine.py")}, paths...)...).Output()
	if err != nil {
		t.Fatal("python3 is needed: ", err)
	}
	if got := strings.TrimSpace(string(out)); got != encodeHex(private.seed[:]) {
		t.Errorf("Python finds another seed")
	}
}

func encodeHex(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, x := range b {
		out.WriteByte(digits[x>>4])
		out.WriteByte(digits[x&15])
	}
	return out.String()
}

func FuzzParseShare(f *testing.F) {
	_, shares := deal(f, 2, "a", "b")
	f.Add(shares[0].Text())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShare(text)
		if err == nil && s.Text() != strings.ReplaceAll(text, "\r\n", "\n") {
			t.Error("a share that reads differently than it is written")
		}
	})
}
