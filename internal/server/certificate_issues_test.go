package server

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// issued is what one issue of a certificate is to say is pending: part of each line.
type issued struct {
	certificate []byte
	pending     []string
}

// agree fails unless both verifiers take each issue, and say what was pending then.
func (i issued) agree(t *testing.T, node, key string) {
	t.Helper()
	c, err := erasure.VerifyCertificate(i.certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "issue.cert")
	if err := os.WriteFile(file, i.certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(node, "../../examples/verify/certificate.mjs", file, key).CombinedOutput()
	if err != nil {
		t.Fatalf("the other verifier: %v: %s", err, out)
	}
	var theirs []string
	for line := range strings.Lines(string(out)) {
		if what, ok := strings.CutPrefix(strings.TrimSpace(line), "pending: "); ok {
			theirs = append(theirs, what)
		}
	}
	for name, got := range map[string][]string{"ours": c.Pending(), "the other verifier": theirs} {
		if len(got) != len(i.pending) {
			t.Errorf("issue %d: %s says pending %q, want %q", c.Issue, name, got, i.pending)
			continue
		}
		for n, want := range i.pending {
			if !strings.Contains(got[n], want) {
				t.Errorf("issue %d: %s says pending %q, want %q", c.Issue, name, got[n], want)
			}
		}
	}
}

// What a certificate names as pending comes in one by one: a copy of the keyring, the
// word of shareholders, a holder. Each time it is issued anew, about the same
// destruction; the issues of before stay valid and say what they said.
func TestCertificateIsIssuedAnew(t *testing.T) {
	need(t, "node")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t)
	h.halt()
	disks := t.TempDir()
	c := Config{Data: h.dir}
	for _, name := range []string{"safe", "nas"} {
		if err := os.Mkdir(filepath.Join(disks, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := AddCopy(t.Context(), c, name, "file:"+filepath.Join(disks, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := AddHolder(t.Context(), c, HolderSpec{Name: "usb", URL: "file:" + filepath.Join(disks, "usb.key")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := FenceHolder(t.Context(), c, "usb"); err != nil {
		t.Fatal(err)
	}
	h.start()
	deal, shares, err := escrow.Deal("holdfast/test", 2, []string{"notary", "safe", "board"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	deal.Hub = h.ledger.Origin()
	if _, err := h.recovery.Put(t.Context(), h.admin(), deal); err != nil {
		t.Fatal(err)
	}
	anna := h.person("Anna")
	h.mustSend(h.device(anna.Party, "watch"), number("pulse", time.Now(), 60))
	if err := os.Rename(filepath.Join(disks, "nas"), filepath.Join(disks, "away")); err != nil {
		t.Fatal(err)
	}
	e := h.passes(h.wants(anna, h.scope(h.custody.ScopeOfParty(t.Context(), anna.Party)), erasure.Wish{}).ID, erasure.Done)
	const holder, late, escrowed = "usb", "nas", "board"
	issues := []issued{{e.Certificate, []string{holder, late, escrowed}}}
	key := h.ledger.VerifierKey()

	// next has the certificate issued anew, or not, by what has come in.
	next := func(pending ...string) {
		t.Helper()
		if err := h.Server.erasure.Complete(t.Context()); err != nil {
			t.Fatal(err)
		}
		now, err := h.Server.erasure.Erasure(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		last := issues[len(issues)-1]
		if same := slices.Equal(pending, last.pending); same != (string(now.Certificate) == string(last.certificate)) {
			t.Errorf("pending %q, then %q: the same certificate %v", last.pending, pending, !same)
		} else if !same {
			issues = append(issues, issued{now.Certificate, pending})
		}
	}
	tend := func() {
		t.Helper()
		if err := h.stores.vault.TendCopies(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tend()
	next(holder, late, escrowed)
	if err := os.Rename(filepath.Join(disks, "away"), filepath.Join(disks, "nas")); err != nil {
		t.Fatal(err)
	}
	tend()
	next(holder, escrowed)
	gone := 0
	for _, s := range shares {
		if _, _, err := h.recovery.Destroyed(t.Context(), h.admin(), s.Code); err == nil {
			gone++
		} else if holdfast.KindOf(err) != holdfast.Conflict {
			t.Fatal(err)
		}
	}
	if gone != 1 { // of a deal in force as many stay as open it
		t.Errorf("%d shares of a deal in force are gone", gone)
	}
	next(holder, escrowed) // with two of three it opens
	if err := h.recovery.End(t.Context(), h.admin()); err != nil {
		t.Fatal(err)
	}
	for _, s := range shares {
		if _, _, err := h.recovery.Destroyed(t.Context(), h.admin(), s.Code); err != nil {
			t.Fatal(err)
		}
	}
	next(holder)
	h.halt()
	if _, err := ReturnHolder(t.Context(), c, "usb", ""); err != nil {
		t.Fatal(err)
	}
	h.start()
	next()
	if len(issues) != 4 {
		t.Fatalf("%d issues", len(issues))
	}
	before := ""
	for n, i := range issues {
		i.agree(t, node, key)
		c, err := erasure.VerifyCertificate(i.certificate, key)
		if err != nil || c.Issue != n+1 || c.Supersedes != before || c.Opened.Erasure != e.ID || c.Destroyed.To != e.To {
			t.Errorf("issue %d: %+v, %v", n+1, c, err)
		}
		sum := sha256.Sum256(erasure.Redact(i.certificate))
		before = hex.EncodeToString(sum[:])
	}
	last, err := erasure.VerifyCertificate(issues[3].certificate, key)
	if err != nil || slices.ContainsFunc(last.Destroyed.Holders, func(x erasure.Holder) bool { return x.State != vault.HolderDestroyed }) {
		t.Errorf("the last: %+v, %v", last.Destroyed.Holders, err)
	}
}
