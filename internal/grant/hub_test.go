package grant

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keyring is the vault as these tests need it: one key per owner, in memory.
type keyring struct {
	mu     sync.Mutex
	owners map[vault.Owner]*seal.Cipher
	lookup [32]byte
}

func (k *keyring) add(o vault.Owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owners[o] = seal.NewCipher(seal.NewKey())
}

func (k *keyring) destroy(o vault.Owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.owners, o)
}

func (k *keyring) cipher(o vault.Owner) (*seal.Cipher, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.owners[o]; c != nil {
		return c, nil
	}
	return nil, holdfast.Errorf(holdfast.NotFound, "owner %s has no such key", o)
}

func (k *keyring) SealField(_ context.Context, o vault.Owner, table string, row []byte, column string, plain []byte) ([]byte, error) {
	c, err := k.cipher(o)
	if err != nil {
		return nil, err
	}
	return c.Seal(nil, plain, seal.FieldPlace(o, table, row, column))
}

func (k *keyring) OpenField(_ context.Context, o vault.Owner, table string, row []byte, column string, box []byte) ([]byte, error) {
	c, err := k.cipher(o)
	if err != nil {
		return nil, err
	}
	return c.Open(nil, box, seal.FieldPlace(o, table, row, column))
}

func (k *keyring) Hash(_ context.Context, domain, text string) ([]byte, error) {
	m := hmac.New(sha256.New, k.lookup[:])
	fmt.Fprintf(m, "%d %s%s", len(domain), domain, text)
	return m.Sum(nil), nil
}

// diary is the ledger as these tests need it. It fails on demand, to show that
// nothing happens unrecorded.
type diary struct {
	keys    *keyring
	mu      sync.Mutex
	entries []string // "kind payload", with the owner before it
	broken  error
}

func (d *diary) Append(_ context.Context, _ *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return 0, d.broken
	}
	if _, err := d.keys.cipher(o); err != nil {
		return 0, err
	}
	b, err := json.Marshal(payload)
	d.entries = append(d.entries, fmt.Sprintf("%s|%s|%s", o, kind, b))
	return uint64(len(d.entries)), err
}

func (d *diary) kinds(o vault.Owner) (kinds []string) {
	for _, e := range d.entries {
		if parts := strings.SplitN(e, "|", 3); parts[0] == o.String() {
			kinds = append(kinds, parts[1])
		}
	}
	return kinds
}

type hub struct {
	*Register
	t        testing.TB
	dir      string
	keys     *keyring
	diary    *diary
	clock    time.Time
	catalog  *catalog.DB
	ada, bob holdfast.PartyID
	lab      holdfast.PartyID
	admin    holdfast.CredentialID
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{
		t: t, dir: t.TempDir(), clock: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		keys: &keyring{owners: make(map[vault.Owner]*seal.Cipher), lookup: [32]byte(seal.NewKey())},
		ada:  holdfast.NewID[holdfast.PartyID](), bob: holdfast.NewID[holdfast.PartyID](), lab: holdfast.NewID[holdfast.PartyID](),
		admin: holdfast.NewID[holdfast.CredentialID](),
	}
	h.diary = &diary{keys: h.keys}
	for _, o := range []vault.Owner{vault.Hub, vault.OfParty(h.ada), vault.OfParty(h.bob), vault.OfParty(h.lab)} {
		h.keys.add(o)
	}
	db, err := catalog.Open(t.Context(), h.dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h.catalog = db
	h.restart()
	return h
}

// Held, HeldAs and Employs make a hub where device and assignment 1 are Ada's and Bob
// works for the lab.
func (h *hub) Held(_ context.Context, party holdfast.PartyID, device holdfast.DeviceID) (bool, error) {
	return party == h.ada && device == holdfast.DeviceID{1}, nil
}

func (h *hub) HeldAs(_ context.Context, party holdfast.PartyID, assignments []holdfast.AssignmentID) (bool, error) {
	return party == h.ada && !slices.ContainsFunc(assignments, func(a holdfast.AssignmentID) bool { return a != holdfast.AssignmentID{1} }), nil
}

func (h *hub) Employs(_ context.Context, employer, worker holdfast.PartyID) (bool, error) {
	return employer == h.lab && worker == h.bob, nil
}

// restart is what a crash and a new start do: memory is lost.
func (h *hub) restart() {
	h.t.Helper()
	r, err := Open(h.t.Context(), h.catalog, h.keys, h.diary, Options{Now: func() time.Time { return h.clock }, Holdings: h})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Register = r
}

func (h *hub) research() {
	h.t.Helper()
	if _, err := h.AddPurpose(h.t.Context(), h.admin, research); err != nil {
		h.t.Fatal(err)
	}
}

var research = Purpose{
	Name: "research", IRI: "https://w3id.org/dpv#ResearchAndDevelopment", LegalBasis: "consent", BasisIRI: "https://w3id.org/dpv/legal/eu/gdpr#A6-1-a", RetentionDays: 365, Text: "Finding out how bearings wear.",
}

func (h *hub) own(p holdfast.PartyID) Caller {
	return Caller{Credential: holdfast.NewID[holdfast.CredentialID](), Party: p, Owner: true}
}

// everything is a grant to the lab of all there is, for a month.
func (h *hub) everything(change ...func(*Spec)) Spec {
	s := Spec{Recipient: h.lab, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.clock.AddDate(0, 1, 0)}
	for _, f := range change {
		f(&s)
	}
	return s
}

func wants(t testing.TB, err error, kind holdfast.Kind, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("no error, want %v with %q", kind, words)
	case holdfast.KindOf(err) != kind || !strings.Contains(err.Error(), words):
		t.Errorf("%v error %q, want %v with %q", holdfast.KindOf(err), err, kind, words)
	}
}
