package ledger

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata anew: the format on disk has changed")

const (
	goldenProof = "testdata/entry.tlog-proof"
	goldenKey   = "testdata/verifier.txt"
)

// writeGolden makes a ledger of five entries and keeps the proof of one.
func writeGolden(t *testing.T) {
	t.Helper()
	b := open(t)
	anna, ben := b.party(), b.party()
	for i := range 5 {
		o := anna
		if i == 2 {
			o = ben
		}
		b.append(o, "grant made", map[string]int{"n": i})
	}
	p, err := b.Prove(t.Context(), ben, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(goldenProof), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenProof, p.Text(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenKey, []byte(b.VerifierKey()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t testing.TB) (text []byte, p Proof, verifier string) {
	t.Helper()
	text, err := os.ReadFile(goldenProof)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = ParseProof(text); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(goldenKey)
	if err != nil {
		t.Fatal(err)
	}
	return text, p, strings.TrimSpace(string(key))
}

// A proof that was given out once is read the same for ever: times, salt and key
// are those of the day it was made, so the file is not made again but checked.
func TestGoldenProof(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	text, p, verifier := readGolden(t)
	e, err := p.Check(verifier)
	if err != nil {
		t.Fatal(err)
	}
	if e.Index != 2 || e.Kind != "grant made" || string(e.Data) != `{"n":2}` || e.Time.IsZero() || e.Seq != 0 {
		t.Errorf("the proof says %+v", e)
	}
	if diff := cmp.Diff(string(text), string(p.Text())); diff != "" {
		t.Errorf("a proof is written differently than testdata and docs/format/ledger.md say: %s", diff)
	}

	for name, alter := range map[string]func(*Proof){
		"index":      func(p *Proof) { p.Index++ },
		"commitment": func(p *Proof) { p.Commitment[0] ^= 1 },
		"payload":    func(p *Proof) { p.Salted[len(p.Salted)-2] ^= 1 },
		"salt":       func(p *Proof) { p.Salted[0] ^= 1 },
		"path":       func(p *Proof) { p.Hashes[0][0] ^= 1 },
		"checkpoint": func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n3\n", "\n4\n", 1) },
	} {
		_, bad, _ := readGolden(t)
		alter(&bad)
		if _, err := bad.Check(verifier); err == nil {
			t.Errorf("a proof with another %s is accepted", name)
		}
	}
}

// Whatever is made of a proof is refused, or proves the entry that it did.
func FuzzProof(f *testing.F) {
	text, p, verifier := readGolden(f)
	f.Add(text)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseProof(b)
		if err != nil {
			return
		}
		if e, err := got.Check(verifier); err == nil && (e.Index != p.Index || string(got.Salted) != string(p.Salted)) {
			t.Errorf("a proof of what is not there is accepted: %q", b)
		}
	})
}
