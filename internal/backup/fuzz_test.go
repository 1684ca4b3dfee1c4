package backup

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// FuzzStatement: whatever a manifest says, it is refused with a kind, or it was signed
// by the key that it names.
func FuzzStatement(f *testing.F) {
	golden, err := os.ReadFile(goldenPlain)
	if err != nil {
		f.Fatal(err)
	}
	_, signed, _ := strings.Cut(string(golden), ".age\n")
	signed, _, _ = strings.Cut(signed, "== ")
	h := newHub(f)
	f.Add([]byte(signed))
	f.Add([]byte(strings.Replace(signed, "backup 1", "backup 2", 1)))
	f.Add([]byte(strings.Replace(signed, `"key":"`, `"key":"AAAA`, 1)))
	f.Add([]byte(strings.Replace(signed, `"streams":2`, `"streams":-2`, 1)))
	f.Add([]byte(strings.Replace(signed, "2026-11-01", "-026-11-01", 1)))
	f.Add(sign(f, statementHeader, Statement{}))
	f.Add(sign(f, statementHeader, h.statement(Done{})))
	f.Add([]byte("holdfast backup 1\n{}\n\n— a AAAA\n"))
	f.Fuzz(func(t *testing.T, signed []byte) {
		st, err := ReadStatement(signed, "")
		if err != nil {
			if holdfast.KindOf(err) == holdfast.Internal {
				t.Errorf("of no kind: %v", err)
			}
			return
		}
		if again, err := ReadStatement(signed, st.Verifier); err != nil || again.ID != st.ID {
			t.Errorf("read again: %v", err)
		}
	})
}

// FuzzList: a list that is read is the one that is written of what was read, and its
// pieces lie in the folder.
func FuzzList(f *testing.F) {
	lists, err := filepath.Glob(filepath.Join(goldenFolder, snapshotsDir, "*"+listSuffix))
	if err != nil || len(lists) != 1 {
		f.Fatal(lists, err)
	}
	golden, err := os.ReadFile(lists[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add(bytes.Replace(golden, []byte("s "), []byte("c "), 1))
	f.Add(bytes.Replace(golden, []byte(" 100 "), []byte(" -100 "), 1))
	f.Add(bytes.Replace(golden, []byte("\n"), []byte("\r\n"), 3))
	f.Add(golden[:len(golden)-1])
	f.Fuzz(func(t *testing.T, text []byte) {
		var all []Entry
		digest, err := parseList(bytes.NewReader(text), func(e Entry) error {
			if !filepath.IsLocal(piecePath(e.File)) || filepath.Dir(filepath.Dir(piecePath(e.File))) != piecesDir {
				t.Errorf("a piece lies at %s", piecePath(e.File))
			}
			all = append(all, e)
			return nil
		})
		if err != nil {
			if holdfast.KindOf(err) == holdfast.Internal {
				t.Errorf("of no kind: %v", err)
			}
			return
		}
		if digest != listDigest(text) {
			t.Error("the digest is of another text")
		}
		lines := strings.ReplaceAll(string(text), "\r\n", "\n")
		if got := string(listText(all)); got != lines && got != lines+"\n" {
			t.Errorf("%q is written as %q", text, got)
		}
	})
}

// FuzzPlan: a plan that is taken leads nowhere but into the folder.
func FuzzPlan(f *testing.F) {
	p, err := newHub(f).Begin(f.Context(), 0)
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.Replace(text, []byte(`"kind"`), []byte(`"Kind"`), 1))
	f.Add(bytes.Replace(text, []byte(`"size":100`), []byte(`"size":1e3`), 1))
	f.Add([]byte(`{"parts":[[[{}]]]}`))
	f.Add([]byte(`{"parts":[{"kind":"tally"}],"parts":[]} {}`))
	to := recipients(f).Texts()
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ReadPlan(bytes.NewReader(text))
		if err != nil {
			if holdfast.KindOf(err) == holdfast.Internal {
				t.Errorf("of no kind: %v", err)
			}
			return
		}
		id := snapshotID(p.Began, p.ID)
		if _, ok := snapshotAt(id); !ok || p.Bytes() <= 0 {
			t.Errorf("it is called %q and has %d bytes", id, p.Bytes())
		}
		for _, part := range p.Parts {
			if dir := pieceDir(name(p.Key, to, part)); !filepath.IsLocal(dir) || part.Size <= 0 || part.Size > maxTally {
				t.Errorf("a part of %d bytes lies in %s", part.Size, dir)
			}
		}
	})
}
