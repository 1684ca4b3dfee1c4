// Package querytest builds a whole hub without its edges, on the real keepers in
// temporary folders, for tests of what goes out: parties and devices are made,
// readings are sent through the gate, and rows are read through query.
package querytest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/blob"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// House is a hub of the operating organisation Acme.
type House struct {
	t        testing.TB
	Dir      string
	Catalog  *catalog.DB
	Vault    *vault.Vault
	Ledger   *ledger.Ledger
	Custody  *custody.Custody
	Register *grant.Register
	Series   *series.Series
	Gate     *ingest.Gate
	Query    *query.Query

	Window time.Duration // of series.Options, from the next Restart on

	holder vault.Holder
	stop   func()

	Acme  holdfast.PartyID
	Admin access.Principal

	mu  sync.Mutex
	now time.Time
	lag time.Duration // of what Later has let pass
}

// Build makes a house.
func Build(t testing.TB) *House {
	t.Helper()
	ctx := t.Context()
	h := &House{t: t, Dir: t.TempDir(), now: time.Now()}
	for _, name := range []string{"catalog", "keyring", "journal"} {
		h.must(os.Mkdir(filepath.Join(h.Dir, name), 0o700))
	}
	var err error
	h.holder, err = vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	h.must(err)
	h.open(true)
	t.Cleanup(func() { h.stop() })
	acme, err := h.Custody.AddOperating(ctx, "Acme")
	h.must(err)
	h.Acme = acme.ID
	h.Admin = access.Principal{
		Settled:    true,
		Credential: holdfast.NewID[holdfast.CredentialID](), Party: h.Acme, Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite,
	}
	return h
}

// open opens the stores and the keepers over them.
func (h *House) open(fresh bool) {
	ctx := h.t.Context()
	var err error
	h.Catalog, err = catalog.Open(ctx, filepath.Join(h.Dir, "catalog"), catalog.Options{})
	h.must(err)
	keyring := vault.Dir(filepath.Join(h.Dir, "keyring"))
	if fresh {
		h.Vault, err = vault.Create(ctx, h.Catalog, keyring, []vault.Holder{h.holder}, vault.Options{})
		h.must(err)
		h.Ledger, err = ledger.Create(ctx, h.Catalog, h.Vault, "hub.example/log")
	} else {
		h.Vault, err = vault.Open(ctx, h.Catalog, keyring, []vault.Holder{h.holder}, vault.Options{})
		h.must(err)
		h.Ledger, err = ledger.Open(ctx, h.Catalog, h.Vault)
	}
	h.must(err)
	h.Custody = custody.New(h.Catalog, h.Vault, h.Ledger, custody.Options{Now: h.running})
	h.Register, err = grant.Open(ctx, h.Catalog, h.Vault, h.Ledger, grant.Options{Holdings: h.Custody, Now: h.clock})
	h.must(err)
	log, err := journal.OpenFile(filepath.Join(h.Dir, "journal"), journal.Options{})
	h.must(err)
	blobs, err := blob.OpenDir(filepath.Join(h.Dir, "blobs"))
	h.must(err)
	h.Series = series.New(h.Catalog, log, blobs, h.Vault, series.Options{Window: h.Window})
	h.must(h.Series.Recover(ctx, func(series.Header, *series.Content) error { return nil }))
	sessions, clock, err := ingest.OpenSessions(ctx, h.Catalog, h.Vault)
	h.must(err)
	h.Gate = ingest.New(h.Custody, h.Register, h.Vault, log, h.Series, sessions, clock, ingest.Options{})
	h.Query = query.New(h.Custody, h.Register, h.Series, query.Options{Now: h.clock, Recheck: time.Nanosecond})
	h.stop = func() {
		log.Close()
		blobs.Close()
		h.Vault.Close()
		h.Catalog.Close()
	}
}

// Restart stops the hub, without a word to anybody, and starts it again over the same
// folders. Nothing may be under way.
func (h *House) Restart() {
	h.t.Helper()
	h.stop()
	h.open(false)
}

func (h *House) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *House) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// Later lets time pass, for grants and decisions.
func (h *House) Later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
	h.lag += d
}

// running is the time of the system's clock, and what Later has let pass besides.
func (h *House) running() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.lag)
}

// Now returns the house's time.
func (h *House) Now() time.Time { return h.clock() }

// Party adds a person and returns the credential of an owner in person.
func (h *House) Party(name string) access.Principal {
	h.t.Helper()
	p, err := h.Custody.AddParty(h.t.Context(), h.Admin.Credential, name, custody.Person)
	h.must(err)
	return access.Principal{
		Settled:    true,
		Credential: holdfast.NewID[holdfast.CredentialID](), Party: p.ID, Role: access.Owner, Scopes: access.ScopeRead | access.ScopeWrite,
	}
}

// Program returns the credential of a party's program.
func (h *House) Program(party holdfast.PartyID, purposes ...holdfast.Purpose) access.Principal {
	return access.Principal{
		Settled:    true,
		Credential: holdfast.NewID[holdfast.CredentialID](), Party: party, Role: access.Program, Purposes: purposes, Scopes: access.ScopeRead,
	}
}

// Purpose adds a purpose.
func (h *House) Purpose(name holdfast.Purpose) {
	h.t.Helper()
	_, err := h.Register.AddPurpose(h.t.Context(), h.Admin.Credential, grant.Purpose{
		Name: name, IRI: "https://w3id.org/dpv#ServiceProvision", LegalBasis: "consent", Text: "To show " + string(name) + ".",
	})
	h.must(err)
}

// Grant makes a grant with the owner's own credential.
func (h *House) Grant(owner access.Principal, s grant.Spec) grant.Grant {
	h.t.Helper()
	g, err := h.Register.Make(h.t.Context(), h.Caller(owner), s)
	h.must(err)
	return g
}

// Caller returns a principal as grants are made by it.
func (h *House) Caller(p access.Principal) grant.Caller {
	return grant.Caller{Credential: p.Credential, Party: p.Party, Owner: p.Role == access.Owner}
}

// Device adds a device.
func (h *House) Device(s custody.DeviceSpec) custody.Device {
	h.t.Helper()
	d, err := h.Custody.AddDevice(h.t.Context(), h.Admin.Credential, s)
	h.must(err)
	return d.Device
}

// Send sends samples as a device does and returns when they are acknowledged.
func (h *House) Send(d custody.Device, samples ...holdfast.Sample) {
	h.t.Helper()
	b := h.Gate.Batch(h.t.Context(), identity.Peer{Device: d.ID, Assignment: d.Assignment}, "")
	h.must(b.Add("", samples, ingest.Delivery{}))
	acked := make(chan error, 1)
	b.Commit(func(err error) { acked <- err })
	h.must(<-acked)
}

// Roll moves what is in the journal into segments.
func (h *House) Roll() {
	h.t.Helper()
	h.must(h.Series.Roll(h.t.Context()))
}

// At returns a sample with a time.
func At(stream string, t time.Time, v holdfast.Value) holdfast.Sample {
	return holdfast.Sample{Stream: stream, Time: t.UnixNano(), Timed: true, Value: v}
}
