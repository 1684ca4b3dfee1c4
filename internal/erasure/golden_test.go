package erasure

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
	"github.com/holdfast-iot/holdfast/internal/witness"
)

var update = flag.Bool("update", false, "write testdata anew: the format has changed")

const (
	goldenCertificate = "testdata/certificate.txt"
	goldenKey         = "testdata/verifier.txt"
	goldenWitness     = "testdata/witness.txt" // the verifier key of who cosigned the ledger in it

	goldenCertificate1 = "testdata/certificate1.txt" // of version 1, which is written no more
	goldenKey1         = "testdata/verifier1.txt"
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
		Holders: []vault.HolderEvidence{{Holder: "file", Kind: "file", Grade: vault.Clear, State: vault.HolderDestroyed, At: at(1)},
			{Holder: "module", Kind: "exec", Grade: vault.Purge, Vouched: "Ada", State: vault.HolderDestroyed, At: at(1), Evidence: []byte("evidence")},
			{Holder: "vault", Kind: "exec", Grade: vault.Clear, State: vault.HolderPending, At: at(0)}},
		KeysDeadAt: at(1), PurgedAt: at(2),
		Kept: []Kept{{Assignment: holdfast.AssignmentID{7}, Streams: []holdfast.StreamID{{8}}, Why: grant.Claim, Hold: holdfast.HoldID{9}},
			{Assignment: holdfast.AssignmentID{10}, Why: grant.Law}},
		Paper: Paper{Salt: bytes.Repeat([]byte{11}, saltSize), Late: []string{"nas"}, BackupsExpire: at(3).AddDate(0, 0, 35), Told: &Told{Recipients: 2, Told: 1},
			Escrow:  Escrow{State: EscrowPending, Names: []string{"Ada", "Grace"}, N: 3, K: 2},
			Earlier: [][]byte{[]byte("an earlier one\n")}},
	}
	return e
}

// certify puts an erasure on the ledger and signs its certificate, as finish does; a
// witness, if there is one, has seen the entry.
func certify(t *testing.T, db *catalog.DB, l *ledger.Ledger, e Erasure, w note.Signer) []byte {
	t.Helper()
	said, err := e.entry()
	if err != nil {
		t.Fatal(err)
	}
	var index uint64
	if err := db.Write(t.Context(), func(tx *sql.Tx) (err error) {
		index, err = l.Append(t.Context(), tx, vault.Hub, ledger.KindErasure, said)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p, err := l.Prove(t.Context(), vault.Hub, index)
	if err != nil {
		t.Fatal(err)
	}
	if w != nil {
		text, _, _ := strings.Cut(p.Checkpoint, "\n\n")
		v, err := note.NewVerifier(l.VerifierKey())
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open([]byte(p.Checkpoint), note.VerifierList(v))
		if err != nil || n.Text != text+"\n" {
			t.Fatal(err)
		}
		cosigned, err := note.Sign(n, w)
		if err != nil {
			t.Fatal(err)
		}
		p.Checkpoint = string(cosigned)
	}
	g := &Gate{Deps: Deps{Ledger: l}}
	signed, err := g.certify(e, p)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func readGolden(t testing.TB, file, key string) (signed []byte, verifier string) {
	t.Helper()
	signed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed, strings.TrimSpace(string(text))
}

// writeGolden makes the golden certificate anew, of a ledger with entries before it, so
// that the proof has a path.
func writeGolden(t *testing.T) {
	db, l := openLedger(t)
	for range 4 {
		if err := db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := l.Append(t.Context(), tx, vault.Hub, "purpose added", nil)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	secret, public, err := checkpoint.NewCosigner("witness.example/golden")
	if err != nil {
		t.Fatal(err)
	}
	w, err := checkpoint.ParseCosigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := witness.ParseClient("https://witness.example/ " + public)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Witnesses(t.Context(), 1, []*witness.Client{asked}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{goldenCertificate: certify(t, db, l, example(), w), goldenKey: []byte(l.VerifierKey() + "\n"), goldenWitness: []byte(public + "\n")} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A certificate outlives the program that wrote it: the golden one is not made
// again but checked, and must be read, and written back, as it is.
func TestGoldenCertificate(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	signed, verifier := readGolden(t, goldenCertificate, goldenKey)
	if !IsCertificate(signed) {
		t.Error("the golden certificate does not look like one")
	}
	for _, trusted := range []string{verifier, ""} {
		c, err := VerifyCertificate(signed, trusted)
		if err != nil {
			t.Fatal(err)
		}
		e := example()
		line, err := e.opening()
		if err != nil {
			t.Fatal(err)
		}
		want := Certificate{
			Version: 2, Hub: "holdfast/example", Issue: 2, Supersedes: signedHash(e.Earlier[0]), Commitment: commit(e.Salt, line), InPart: true,
			AskedBy: e.By, Asked: e.AskedAt, Refused: e.RefusedAt,
			Destroyed: Destruction{At: e.KeysDeadAt, From: e.From, To: e.To, OwnerKeys: e.OwnerKeys, RecordKeys: e.RecordKeys,
				Holders: holders(e.Holders), Late: e.Late, Grade: vault.Clear},
			Escrow: e.Escrow, Purged: e.PurgedAt, BackupsExpire: e.BackupsExpire, Told: e.Told, Kept: []grant.HoldKind{grant.Claim, grant.Law}, Witnesses: 1,
			Limits: c.limits(), Ledger: c.Ledger, Opened: &Opening{Erasure: e.ID, Party: e.Party, Scope: e.Scope, Kept: e.Kept},
		}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("the golden certificate says something else: %s", diff)
		}
		if pending := c.Pending(); len(pending) != 3 { // a holder, a copy and the shares; the witness is there
			t.Errorf("pending: %q", pending)
		}
		body, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if text := certificateHeader + "\n" + string(body) + "\n"; !strings.HasPrefix(string(signed), text+"\n") {
			t.Error("a certificate is written differently than testdata and docs/format/certificate.md say")
		}
		end := "\n" + scopeHeader + "\n" + base64.StdEncoding.EncodeToString(e.Salt) + "\n" + string(line) + "\n"
		if !bytes.HasSuffix(signed, []byte(end)) {
			t.Error("the scope is written differently than testdata and docs/format/certificate.md say")
		}
	}
	w, key := readGolden(t, goldenCertificate, goldenWitness)
	v, err := checkpoint.ParseWitness(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := VerifyCertificate(w, verifier)
	if err != nil || len(checkpoint.Cosigned([]byte(c.Ledger.Checkpoint), v)) != 1 {
		t.Errorf("the golden certificate's ledger is not cosigned: %v", err)
	}
}

// What version 0.1.0 signed is verified for ever.
func TestGoldenCertificateOfVersion1(t *testing.T) {
	signed, verifier := readGolden(t, goldenCertificate1, goldenKey1)
	for _, trusted := range []string{verifier, ""} {
		c, err := VerifyCertificate(signed, trusted)
		if err != nil {
			t.Fatal(err)
		}
		if e := example(); c.Version != 1 || c.Opened.Erasure != e.ID || c.Opened.Party != e.Party || !c.InPart || c.Destroyed.To != 42 ||
			len(c.Destroyed.Holders) != 1 || c.Destroyed.Grade != vault.Clear || !c.Purged.Equal(e.PurgedAt) || len(c.Pending()) > 0 {
			t.Errorf("the golden certificate of version 1 says something else: %+v", c)
		}
	}
}

// Without the part behind the signature a certificate proves the same, and tells
// nothing that could be asked further.
func TestRedactedCertificate(t *testing.T) {
	signed, verifier := readGolden(t, goldenCertificate, goldenKey)
	short := Redact(signed)
	c, err := VerifyCertificate(short, verifier)
	if err != nil || c.Opened != nil || len(c.Commitment) != 32 {
		t.Fatalf("redacted: %+v %v", c, err)
	}
	e := example()
	salted := string(c.Ledger.Salted)
	for what, id := range map[string]string{"erasure": e.ID.String(), "party": e.Party.String(), "assignment": e.Scope.Assignments[0].String(),
		"stream": e.Scope.Streams[0].String(), "hold": e.Kept[0].Hold.String(), "kept assignment": e.Kept[0].Assignment.String()} {
		if bytes.Contains(short, []byte(id)) || strings.Contains(salted, id) {
			t.Errorf("a redacted certificate names the %s", what)
		}
		if !bytes.Contains(signed, []byte(id)) {
			t.Errorf("the whole certificate does not name the %s", what)
		}
	}
	if again := Redact(short); !bytes.Equal(again, short) {
		t.Error("to redact twice takes something more")
	}
}

// Whatever is altered in a certificate, wherever: it is refused.
func TestAlteredCertificate(t *testing.T) {
	for _, g := range [][2]string{{goldenCertificate, goldenKey}, {goldenCertificate1, goldenKey1}} {
		signed, verifier := readGolden(t, g[0], g[1])
		refused := func(what string, at int, b []byte) {
			t.Helper()
			if _, err := VerifyCertificate(b, verifier); err == nil {
				t.Errorf("%s: a certificate with %s at %d passes", g[0], what, at)
			}
		}
		bits := 1
		if os.Getenv("HOLDFAST_LONG") != "" {
			bits = 8
		}
		behind := bytes.Index(signed, []byte("\n\n"))
		short := len(Redact(signed))
		for at := range signed {
			n := bits
			if at >= behind { // signature and scope: all of them
				n = 8
			}
			for i := range n {
				b := bytes.Clone(signed)
				b[at] ^= 1 << ((at + i) % 8)
				refused("a bit altered", at, b)
			}
			if at%16 == 0 {
				if at != short {
					refused("the end cut", at, signed[:at])
				}
				refused("a byte more", at, append(append(bytes.Clone(signed[:at]), '\n'), signed[at:]...))
			}
		}
		refused("a byte behind", len(signed), append(bytes.Clone(signed), '\n'))
		refused("another line behind", len(signed), append(bytes.Clone(signed), "— x AAAA\n"...))
		refused("a part behind", len(signed), append(bytes.Clone(signed), "\n"+scopeHeader+"\nAA==\n{}\n"...))
		refused("the part behind empty", short, append(bytes.Clone(signed[:short]), behindText...))
	}
}

const behindText = "\n" + scopeHeader + "\n"

// What another hub signed, or was signed for another erasure, is not a proof.
func TestCertificateOfAnotherIsRefused(t *testing.T) {
	signed, verifier := readGolden(t, goldenCertificate, goldenKey)
	db, l := openLedger(t)
	if _, err := VerifyCertificate(signed, l.VerifierKey()); err == nil {
		t.Error("a certificate passes for another hub's")
	}
	own := certify(t, db, l, example(), nil)
	if _, err := VerifyCertificate(own, verifier); err == nil {
		t.Error("another hub's certificate passes")
	}
	other := example()
	other.ID = holdfast.ErasureID{9}
	first, err := VerifyCertificate(own, l.VerifierKey())
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
	scope := certify(t, db, l, other, nil)
	swapped := append(bytes.Clone(Redact(own)), scope[len(Redact(scope)):]...)
	if _, err := VerifyCertificate(swapped, l.VerifierKey()); err == nil {
		t.Error("a certificate with the scope of another erasure passes")
	}
}

func FuzzVerifyCertificate(f *testing.F) {
	signed, verifier := readGolden(f, goldenCertificate, goldenKey)
	text, _, _ := strings.Cut(string(signed), "\n\n")
	f.Add(signed)
	f.Add(Redact(signed))
	f.Add([]byte(text))
	f.Add([]byte(certificateHeader + "\n{}\n\n— holdfast/example AAAA\n"))
	old, _ := readGolden(f, goldenCertificate1, goldenKey1)
	f.Add(old)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := VerifyCertificate(b, verifier); err == nil && !bytes.Equal(b, signed) && !bytes.Equal(b, Redact(signed)) {
			t.Errorf("a certificate that nobody signed is accepted: %q", b)
		}
		VerifyCertificate(b, "") // of whichever hub: must end, with whatever answer
	})
}
