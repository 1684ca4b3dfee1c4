package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
)

// The files in testdata are of a log with eight leaves, those of RFC 6962's tests
// (roots below), signed by the Ed25519 seed 00 01 ... 1f, and cosigned by the seed 20
// 21 ... 3f at 1,790,000,000 s. Another implementation than this one made them, from
// the words of the C2SP documents.

// roots are those of the first n leaves, from 1.
var roots = []string{
	"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
	"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
	"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
	"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
	"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
	"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
	"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
	"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}

func hash(t testing.TB, text string) tlog.Hash {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != tlog.HashSize {
		t.Fatal("not a hash:", text)
	}
	return tlog.Hash(b)
}

func root(t testing.TB, size int) tlog.Hash { return hash(t, roots[size-1]) }

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(t testing.TB, name string) string { return strings.TrimSpace(string(golden(t, name))) }

// logSigner is the key that signed the golden checkpoints.
func logSigner(t testing.TB) note.Signer {
	t.Helper()
	_, rest, _ := strings.Cut(key(t, "log.key"), "+")
	id, _, _ := strings.Cut(rest, "+")
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	s, err := note.NewSigner("PRIVATE+KEY+log.example/golden+" + id + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed...)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, text string) []byte {
	t.Helper()
	b, err := note.Sign(&note.Note{Text: text}, logSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func refused(t testing.TB, what string, err error) {
	t.Helper()
	if holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("%s: %v", what, err)
	}
}

func TestGoldenCheckpoint(t *testing.T) {
	for name, size := range map[string]int{"6.checkpoint": 6, "8.checkpoint": 8, "extended.checkpoint": 8} {
		signed := golden(t, name)
		c, err := Parse(signed, key(t, "log.key"))
		if err != nil || c.Origin != "log.example/golden" || c.Size != uint64(size) || c.Root != root(t, size) || !bytes.Equal(c.Note, signed) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		said, err := Unverified(signed)
		if err != nil || said.Origin != c.Origin || said.Size != c.Size || said.Root != c.Root {
			t.Errorf("%s, unverified: %+v, %v", name, said, err)
		}
	}
	// Signing makes the same bytes: Ed25519 draws nothing.
	want, _, _ := bytes.Cut(golden(t, "8.checkpoint"), []byte("— witness"))
	if got := sign(t, Text("log.example/golden", 8, root(t, 8))); !bytes.Equal(got, want) {
		t.Errorf("a checkpoint is written as\n%s\nnot\n%s", got, want)
	}
}

// Whatever is done to a signed checkpoint: it is refused, or says what was signed.
func TestAlteredCheckpoint(t *testing.T) {
	whole := golden(t, "8.checkpoint")
	check := func(what string, at int, b []byte) {
		t.Helper()
		c, err := Parse(b, key(t, "log.key"))
		if err != nil {
			refused(t, what, err)
		} else if c.Size != 8 || c.Root != root(t, 8) || c.Origin != "log.example/golden" {
			t.Errorf("%s at %d says %+v", what, at, c)
		}
	}
	signature := bytes.Index(whole, []byte("\n\n")) + 2
	for at := range whole {
		check("cut", at, whole[:at])
		check("the beginning cut", at, whole[at:])
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			check("a bit", at, b)
			if at < signature {
				_, err := Parse(b, key(t, "log.key"))
				refused(t, "a bit of the text", err)
			}
		}
	}
}

// What the key itself signed is no checkpoint yet.
func TestSignedNonsense(t *testing.T) {
	good := root(t, 8)
	r := base64.StdEncoding.EncodeToString(good[:])
	for name, text := range map[string]string{
		"no root":                 "log.example/golden\n8\n",
		"no size":                 "log.example/golden\n" + r + "\n",
		"no origin":               "\n8\n" + r + "\n",
		"another's name":          "other.example\n8\n" + r + "\n",
		"a name with more to it":  "log.example/golden/2\n8\n" + r + "\n",
		"leading zero":            "log.example/golden\n08\n" + r + "\n",
		"negative":                "log.example/golden\n-8\n" + r + "\n",
		"a plus":                  "log.example/golden\n+8\n" + r + "\n",
		"hexadecimal":             "log.example/golden\n0x8\n" + r + "\n",
		"a space":                 "log.example/golden\n8 \n" + r + "\n",
		"an underscore":           "log.example/golden\n1_0\n" + r + "\n",
		"more than the most":      "log.example/golden\n4611686018427387905\n" + r + "\n",
		"more than 63 bits":       "log.example/golden\n9223372036854775808\n" + r + "\n",
		"more than 64 bits":       "log.example/golden\n18446744073709551624\n" + r + "\n",
		"a short root":            "log.example/golden\n8\n" + base64.StdEncoding.EncodeToString(good[:31]) + "\n",
		"a long root":             "log.example/golden\n8\n" + base64.StdEncoding.EncodeToString(append(good[:], 0)) + "\n",
		"a root in hexadecimal":   "log.example/golden\n8\n" + roots[7] + "\n",
		"another thing it signs":  "holdfast bundle 1\nid\n" + roots[7] + "\n",
		"the statement of a name": "holdfast ledger renewal 1\nlog.example/golden\nlog.example/golden/2\nkey\n8\n" + r + "\n",
	} {
		_, err := Parse(sign(t, text), key(t, "log.key"))
		refused(t, name, err)
	}
	most := sign(t, Text("log.example/golden", MaxSize, good))
	if c, err := Parse(most, key(t, "log.key")); err != nil || c.Size != MaxSize {
		t.Error("the largest size:", err)
	}
	for name, k := range map[string]string{
		"no key":               "",
		"not a key":            "log.example/golden",
		"the witness's key":    key(t, "witness.key"),
		"another's":            "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
		"the key with another": strings.Replace(key(t, "log.key"), "15cad01a", "15cad01b", 1),
	} {
		_, err := Parse(golden(t, "8.checkpoint"), k)
		refused(t, name, err)
	}
	for _, text := range []string{"", "\n", "\n\n", "a\n8\n" + r, "a\n8\n" + r + "\n", "a\nx\n" + r + "\n\n", "\n8\n" + r + "\n\n— a b\n"} {
		_, err := Unverified([]byte(text))
		refused(t, "unverified "+text, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"6.checkpoint", "8.checkpoint", "extended.checkpoint"} {
		f.Add(golden(f, name))
	}
	f.Add([]byte("log.example/golden\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n\n"))
	trusted := key(f, "log.key")
	signed := map[string]bool{} // texts
	for _, name := range []string{"6.checkpoint", "8.checkpoint", "extended.checkpoint"} {
		text, _, _ := strings.Cut(string(golden(f, name)), "\n\n")
		signed[text] = true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		said, sayErr := Unverified(b)
		if sayErr == nil && (said.Origin == "" || said.Size > MaxSize) {
			t.Errorf("%+v", said)
		}
		c, err := Parse(b, trusted)
		if err != nil {
			return
		}
		text, _, _ := strings.Cut(string(b), "\n\n")
		if !signed[text] || sayErr != nil || said.Origin != c.Origin || said.Size != c.Size || said.Root != c.Root {
			t.Errorf("a checkpoint that nobody signed is accepted: %q", b)
		}
	})
}
