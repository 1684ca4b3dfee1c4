package erasure

import (
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// A hub that was restored signs under another name: who has the old key is told that,
// and who has another hub's is told that it is another hub's.
func TestACertificateUnderAnotherNameOfItsHub(t *testing.T) {
	key := func(name string) (string, string) {
		secret, verifier, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			t.Fatal(err)
		}
		return secret, verifier
	}
	secret, verifier := key("holdfast/a/2")
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	const text = "header\nbody\n"
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkSigned(signed, text, "holdfast/a/2", verifier); err != nil {
		t.Fatal(err)
	}
	for name, another := range map[string]bool{"holdfast/a": true, "holdfast/a/3": true, "holdfast/ab": false, "holdfast/b/2": false, "holdfast/a/2": false} {
		_, old := key(name)
		err := checkSigned(signed, text, "holdfast/a/2", old)
		if err == nil || strings.Contains(err.Error(), "another name of the same hub") != another {
			t.Errorf("under a key of %s: %v", name, err)
		}
	}
}
