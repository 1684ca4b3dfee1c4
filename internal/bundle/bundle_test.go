package bundle

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(name, diff)
	}
}

// TestRows: the canonical bytes and the digest over them, frozen.
func TestRows(t *testing.T) {
	var out strings.Builder
	var tally Tally
	for typ := holdfast.Number; typ <= holdfast.Location; typ++ {
		for s, readings := range corner() {
			if s.Type != typ {
				continue
			}
			for _, r := range readings {
				tally.Add(s.StreamID, r)
				out.WriteString(hex.EncodeToString(AppendRow(nil, s.StreamID, r)) + "\n")
			}
		}
	}
	b, err := json.Marshal(tally.Balance(holdfast.StreamID{2}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "rows.txt", out.String()+string(b)+"\n")
}

// TestTallyForgetsOrder and nothing else.
func TestTallyForgetsOrder(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 1))
	id := holdfast.StreamID{7}
	rows := make([]holdfast.Reading, 100)
	for i := range rows {
		rows[i] = holdfast.Reading{Time: int64(draw.Uint64()), Seq: draw.Uint64(), Value: holdfast.NumberValue(draw.Float64())}
	}
	sum := func() Balance {
		var t Tally
		for _, r := range rows {
			t.Add(id, r)
		}
		return t.Balance(id)
	}
	want := sum()
	draw.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	if diff := cmp.Diff(want, sum()); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(r *holdfast.Reading){
		"time":  func(r *holdfast.Reading) { r.Time ^= 1 },
		"seq":   func(r *holdfast.Reading) { r.Seq ^= 1 },
		"mark":  func(r *holdfast.Reading) { r.Mark ^= 1 },
		"type":  func(r *holdfast.Reading) { r.Value = holdfast.IntegerValue(int64(math.Float64bits(r.Value.Number()))) },
		"value": func(r *holdfast.Reading) { r.Value = holdfast.NumberValue(-r.Value.Number()) },
	} {
		was := rows[50]
		change(&rows[50])
		if sum().Digest == want.Digest {
			t.Error("a changed", name, "is not seen")
		}
		rows[50] = was
	}
	rows = append(rows, rows[3], rows[3])
	if sum().Digest == want.Digest {
		t.Error("a row that is there three times is not seen")
	}
}

func TestManifest(t *testing.T) {
	files := []File{FileOf("data/b", []byte("b")), FileOf("data/a/ü x", nil)}
	text := AppendManifest(nil, files)
	golden(t, "manifest.txt", string(text))
	got, err := ParseManifest(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, AppendManifest(nil, got)); diff != "" {
		t.Error(diff)
	}
	sum := strings.Repeat("0", 64)
	for _, line := range []string{
		"x", sum, sum + "  ", sum + "  ../a", sum + "  /etc/passwd", sum + "  a/../b", sum + "  a\\b", "zz" + sum[2:] + "  a", sum + "  a\n" + sum + "  a",
		sum + "  .", sum[1:] + "  a",
	} {
		if got, err := ParseManifest(strings.NewReader(line + "\n")); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q: %v %v", line, got, err)
		}
	}
	if got, err := ParseManifest(strings.NewReader(sum + " *a\n")); err != nil || got[0].Name != "a" {
		t.Error(got, err)
	}
}

func TestInfo(t *testing.T) {
	info := Info{{"Source-Organization", "hub.example"}, {LabelID, "a\nb"}}
	text := info.Append(nil)
	if string(text) != "Source-Organization: hub.example\nHoldfast-Bundle-Id: a b\n" {
		t.Errorf("%s", text)
	}
	got, err := ParseInfo([]byte("A: 1\r\n  and 2\n\nholdfast-bundle-id:x:y\n"))
	if err != nil || got.Get("a") != "1 and 2" || got.Get(LabelID) != "x:y" || got.Get("none") != "" {
		t.Error(got, err)
	}
	for _, s := range []string{"no label", ": x", " x"} {
		if _, err := ParseInfo([]byte(s)); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestPackage(t *testing.T) {
	files := []File{FileOf(PartName(1), []byte("x")), FileOf(NextName(EventsName, 2), []byte("{}\n")), FileOf(NextName(GrantsName, 1), nil)}
	text, err := NewPackage("abc", time.Date(2026, 11, 22, 12, 0, 0, 1, time.UTC), files).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "datapackage.json", string(text))
	golden(t, "signed.txt", SignedText("abc", []byte("manifest")))
}

func FuzzManifest(f *testing.F) {
	f.Add(string(AppendManifest(nil, []File{FileOf("data/a", nil)})))
	f.Fuzz(func(t *testing.T, s string) {
		files, err := ParseManifest(strings.NewReader(s))
		if err != nil {
			return
		}
		text := AppendManifest(nil, files)
		again, err := ParseManifest(bytes.NewReader(text))
		if err != nil || !bytes.Equal(text, AppendManifest(nil, again)) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func FuzzInfo(f *testing.F) {
	f.Add("A: b\n c\n")
	f.Fuzz(func(t *testing.T, s string) {
		info, err := ParseInfo([]byte(s))
		if err != nil {
			return
		}
		if _, err := ParseInfo(info.Append(nil)); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
