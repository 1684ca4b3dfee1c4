package checkpoint

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

func goldenWitness(t testing.TB) *Witness {
	t.Helper()
	w, err := ParseWitness(key(t, "witness.key"))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestGoldenCosignature(t *testing.T) {
	w := goldenWitness(t)
	for _, name := range []string{"6.checkpoint", "8.checkpoint", "extended.checkpoint"} {
		signed := golden(t, name)
		by := Cosigned(signed, w)
		got := by["witness.example/golden"]
		if len(by) != 1 || got.At != time.Unix(1_790_000_000, 0).UTC() || !bytes.HasSuffix(signed, []byte("\n"+got.Line)) {
			t.Errorf("%s: %+v", name, by)
		}
	}
	c, err := ParseCosigner(key(t, "witness.secret"))
	if err != nil || c.Name() != w.Name() || c.KeyHash() != w.KeyHash() {
		t.Fatal(err)
	}
	// The same bytes at the same time; at another it is another, and as good.
	text, sigs, _ := strings.Cut(string(golden(t, "8.checkpoint")), "\n\n")
	_, sig64, _ := strings.Cut(strings.TrimSpace(sigs[strings.Index(sigs, "— witness")+len("— "):]), " ")
	want, err := base64.StdEncoding.DecodeString(sig64)
	if err != nil {
		t.Fatal(err)
	}
	if !w.Verify([]byte(text+"\n"), want[4:]) {
		t.Error("the golden cosignature does not verify")
	}
	now, err := c.Sign([]byte(text + "\n"))
	if err != nil || !w.Verify([]byte(text+"\n"), now) {
		t.Error("an own cosignature does not verify:", err)
	}
	if !bytes.Equal(cosigned(1_790_000_000, []byte(text+"\n")), []byte("cosignature/v1\ntime 1790000000\n"+text+"\n")) {
		t.Error("something else is signed")
	}
}

// A line counts for the checkpoint, the time and the key that it was made for.
func TestForgedCosignature(t *testing.T) {
	w := goldenWitness(t)
	eight, six := string(golden(t, "8.checkpoint")), string(golden(t, "6.checkpoint"))
	head, line, _ := strings.Cut(eight, "— witness")
	line = "— witness" + line
	_, other, _ := strings.Cut(six, "— witness")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]))
	if err != nil {
		t.Fatal(err)
	}
	with := func(b []byte) string {
		return head + "— witness.example/golden " + base64.StdEncoding.EncodeToString(b) + "\n"
	}
	for name, signed := range map[string]string{
		"none":                   head,
		"of another checkpoint":  head + "— witness" + other,
		"another name":           strings.Replace(eight, "witness.example/golden", "witness.example/gulden", 1),
		"without its time":       with(append(append([]byte(nil), raw[:4]...), raw[12:]...)),
		"another time":           with(append(append(append([]byte(nil), raw[:11]...), raw[11]+1), raw[12:]...)),
		"a time beyond 63 bits":  with(append(append(append([]byte(nil), raw[:4]...), raw[4]|0x80), raw[5:]...)),
		"cut":                    with(raw[:len(raw)-1]),
		"longer":                 with(append(append([]byte(nil), raw...), 0)),
		"not a note":             line,
		"empty":                  "",
		"the text's end missing": strings.Replace(eight, "\n\n", "\n", 1),
	} {
		if by := Cosigned([]byte(signed), w); len(by) > 0 {
			t.Errorf("%s: %v", name, by)
		}
	}
	for at := range raw {
		for bit := range 8 {
			b := bytes.Clone(raw)
			b[at] ^= 1 << bit
			if by := Cosigned([]byte(with(b)), w); len(by) > 0 {
				t.Fatalf("bit %d of byte %d does not count", bit, at)
			}
		}
	}
	// Lines of others, and one's own twice, change nothing.
	if by := Cosigned([]byte(head+"— stranger.example AAAAAAAA\n"+line+line), w, w); len(by) != 1 {
		t.Errorf("%v", by)
	}
}

func TestWitnessKeys(t *testing.T) {
	secret, verifier, err := NewCosigner("witness.example/ada")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCosigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ParseWitness(verifier)
	if err != nil || w.Name() != "witness.example/ada" || w.KeyHash() != c.KeyHash() {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb", "a\u2003b", "\xff"} {
		if _, _, err := NewCosigner(name); err == nil {
			t.Errorf("%q is the name of a witness", name)
		}
	}
	good := key(t, "witness.key")
	for name, bad := range map[string]string{
		"nothing":          "",
		"a log's key":      key(t, "log.key"),
		"a private key":    key(t, "witness.secret"),
		"another hash":     strings.Replace(good, "51ee31f8", "51ee31f9", 1),
		"a longer hash":    strings.Replace(good, "51ee31f8", "051ee31f8", 1),
		"no hash":          strings.Replace(good, "51ee31f8", "", 1),
		"another name":     strings.Replace(good, "golden", "gulden", 1),
		"no name":          strings.TrimPrefix(good, "witness.example/golden"),
		"a shorter key":    good[:len(good)-4],
		"a longer key":     good + "AAAA",
		"not base64":       good[:len(good)-4] + "****",
		"with a line feed": good + "\n",
	} {
		if _, err := ParseWitness(bad); err == nil && name != "with a line feed" { // base64 passes over it
			t.Errorf("%s: taken", name)
		} else if err != nil {
			refused(t, name, err)
		}
	}
	hidden := key(t, "witness.secret")
	for name, bad := range map[string]string{
		"nothing":      "",
		"a public key": good,
		"another hash": strings.Replace(hidden, "51ee31f8", "51ee31f9", 1),
		"another name": strings.Replace(hidden, "golden", "gulden", 1),
		"a bit":        strings.Replace(hidden, "BCAh", "BCAi", 1),
		"cut":          hidden[:len(hidden)-4],
	} {
		if _, err := ParseCosigner(bad); err == nil {
			t.Errorf("private key, %s: taken", name)
		} else if strings.Contains(err.Error(), "ICEiIy") {
			t.Error("an error names the key")
		}
	}
}

func FuzzWitness(f *testing.F) {
	f.Add(key(f, "witness.key"))
	f.Add(key(f, "log.key"))
	f.Add("a+00000000+BA==")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWitness(text)
		if err != nil {
			return
		}
		if !strings.HasPrefix(text, w.Name()+"+") || !goodName(w.Name()) || w.Verify(nil, make([]byte, 72)) {
			t.Errorf("%q is a witness's key", text)
		}
	})
}

func FuzzCosigner(f *testing.F) {
	f.Add(key(f, "witness.secret"))
	f.Add("PRIVATE+KEY+a+00000000+BA==")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCosigner(text)
		if err != nil {
			return
		}
		signed, err := note.Sign(&note.Note{Text: "a\n0\nAAAA\n"}, c)
		if err != nil || !strings.Contains(string(signed), "— "+c.Name()+" ") {
			t.Errorf("the key %q does not sign: %v", text, err)
		}
	})
}

func FuzzCosigned(f *testing.F) {
	w := goldenWitness(f)
	texts := map[string]bool{}
	for _, name := range []string{"6.checkpoint", "8.checkpoint", "extended.checkpoint"} {
		f.Add(golden(f, name))
		text, _, _ := strings.Cut(string(golden(f, name)), "\n\n")
		texts[text] = true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, c := range Cosigned(b, w) {
			text, _, _ := strings.Cut(string(b), "\n\n")
			if name != w.Name() || c.At != time.Unix(1_790_000_000, 0).UTC() || !texts[text] {
				t.Errorf("%q counts as cosigned: %v", b, c)
			}
		}
	})
}
