package erasure

import (
	"database/sql"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

var update = flag.Bool("update", false, "write testdata anew: the format has changed")

const (
	goldenCertificate = "testdata/certificate.txt"
	goldenKey         = "testdata/verifier.txt"
)

// openLedger makes a ledger in a temporary folder.
func openLedger(t *testing.T) (*catalog.DB, *ledger.Ledger) {
	t.Helper()
	db, v := vaulttest.New(t)
	l, err := ledger.Create(t.Context(), db, v, "holdfast/example")
	if err != nil {
		t.Fatal(err)
	}
	return db, l
}

// example is an erasure of one stream's morning and, beside it, the keys that a
// whole assignment would lose, so that every field of a certificate has a value.
func example() Erasure {
	at := func(second int) time.Time { return time.Date(2026, 11, 22, 12, 0, second, 500_000_000, time.UTC) }
	from, to := at(0).Add(-4*time.Hour), at(0).Add(-time.Hour)
	e := Erasure{ID: holdfast.ErasureID{1}, Party: holdfast.PartyID{2}, State: Destroyed}
	e.Plan = Plan{
		Scope: Scope{Assignments: []holdfast.AssignmentID{{3}}, Streams: []holdfast.StreamID{{4}}, From: &from, To: &to, Before: at(0)},
		By:    "owner", AskedAt: at(0), RefusedAt: at(0),
		OwnerKeys: []seal.KeyID{{5}}, RecordKeys: []seal.KeyID{{6}}, From: 41, To: 42,
		Holders:    []vault.HolderEvidence{{Holder: "file", Grade: vault.Clear}},
		KeysDeadAt: at(1), PurgedAt: at(2),
	}
	return e
}

// certify puts an erasure on the ledger and signs its certificate, as finish does.
func certify(t *testing.T, db *catalog.DB, l *ledger.Ledger, e Erasure) []byte {
	t.Helper()
	var index uint64
	if err := db.Write(t.Context(), func(tx *sql.Tx) (err error) {
		index, err = l.Append(t.Context(), tx, vault.Hub, ledger.KindErasure,
			entry{Erasure: e.ID, Covers: ledger.Covers{RecordKeys: e.RecordKeys}, OwnerKeys: e.OwnerKeys, Scope: e.Scope})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p, err := l.Prove(t.Context(), vault.Hub, index)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{Deps: Deps{Ledger: l}}
	signed, err := g.certify(e, p)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func readGolden(t testing.TB) (signed []byte, verifier string) {
	t.Helper()
	signed, err := os.ReadFile(goldenCertificate)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(goldenKey)
	if err != nil {
		t.Fatal(err)
	}
	return signed, strings.TrimSpace(string(key))
}

// A certificate outlives the program that wrote it: the golden one is not made
// again but checked, and must be read, and written back, as it is.
func TestGoldenCertificate(t *testing.T) {
	if *update {
		db, l := openLedger(t)
		for range 4 { // so that the proof has a path
			if err := db.Write(t.Context(), func(tx *sql.Tx) error {
				_, err := l.Append(t.Context(), tx, vault.Hub, "purpose added", nil)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenCertificate, certify(t, db, l, example()), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenKey, []byte(l.VerifierKey()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	signed, verifier := readGolden(t)
	if !IsCertificate(signed) {
		t.Error("the golden certificate does not look like one")
	}
	for _, trusted := range []string{verifier, ""} {
		c, err := VerifyCertificate(signed, trusted)
		if err != nil {
			t.Fatal(err)
		}
		e := example()
		want := Certificate{
			Hub: "holdfast/example", Erasure: e.ID, Party: e.Party, Scope: e.Scope, AskedBy: e.By, Asked: e.AskedAt, Refused: e.RefusedAt,
			Destroyed: Destruction{At: e.KeysDeadAt, From: e.From, To: e.To, OwnerKeys: e.OwnerKeys, RecordKeys: e.RecordKeys, Holders: e.Holders, Grade: vault.Clear},
			Purged:    e.PurgedAt, Limits: limits(e), Ledger: c.Ledger,
		}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("the golden certificate says something else: %s", diff)
		}
		body, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if text := certificateHeader + "\n" + string(body) + "\n"; !strings.HasPrefix(string(signed), text+"\n") {
			t.Error("a certificate is written differently than testdata and docs/format/certificate.md say")
		}
	}
}

// What another hub signed, or was signed for another erasure, is not a proof.
func TestCertificateOfAnotherIsRefused(t *testing.T) {
	signed, verifier := readGolden(t)
	db, l := openLedger(t)
	if _, err := VerifyCertificate(signed, l.VerifierKey()); err == nil {
		t.Error("a certificate passes for another hub's")
	}
	if _, err := VerifyCertificate(certify(t, db, l, example()), verifier); err == nil {
		t.Error("another hub's certificate passes")
	}
	other := example()
	other.ID = holdfast.ErasureID{9}
	first, err := VerifyCertificate(certify(t, db, l, example()), l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{Deps: Deps{Ledger: l}}
	mixed, err := g.certify(other, first.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyCertificate(mixed, l.VerifierKey()); err == nil {
		t.Error("a certificate with the ledger entry of another erasure passes")
	}
}

func FuzzVerifyCertificate(f *testing.F) {
	signed, verifier := readGolden(f)
	text, _, _ := strings.Cut(string(signed), "\n\n")
	f.Add(signed)
	f.Add([]byte(text))
	f.Add([]byte(certificateHeader + "\n{}\n\n— holdfast/example AAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := VerifyCertificate(b, verifier); err == nil && !strings.HasPrefix(string(b), text+"\n\n") {
			t.Errorf("a certificate that nobody signed is accepted: %q", b)
		}
		VerifyCertificate(b, "") // of whichever hub: must end, with whatever answer
	})
}
