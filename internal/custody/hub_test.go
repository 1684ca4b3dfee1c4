package custody

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keyring is the vault as these tests need it: one key per owner, in memory. It
// refuses an owner that nobody has added.
type keyring struct {
	mu     sync.Mutex
	owners map[vault.Owner]*seal.Cipher
	lookup [32]byte
}

func newKeyring() *keyring {
	return &keyring{owners: map[vault.Owner]*seal.Cipher{vault.Hub: seal.NewCipher(seal.NewKey())}, lookup: [32]byte(seal.NewKey())}
}

func (k *keyring) AddOwner(_ context.Context, o vault.Owner) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owners[o] == nil {
		k.owners[o] = seal.NewCipher(seal.NewKey())
	}
	return nil
}

func (k *keyring) HasOwner(o vault.Owner) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.owners[o] != nil
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

// diary is the ledger as these tests need it: what was recorded on whose record.
// It fails on demand, to show that nothing happens unrecorded.
type diary struct {
	keys    *keyring
	entries []entry
	broken  error
}

type entry struct {
	owner vault.Owner
	kind  string
	text  string
}

func (d *diary) Append(_ context.Context, _ *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error) {
	if d.broken != nil {
		return 0, d.broken
	}
	if _, err := d.keys.cipher(o); err != nil {
		return 0, err
	}
	b, err := json.Marshal(payload)
	d.entries = append(d.entries, entry{o, kind, string(b)})
	return uint64(len(d.entries)), err
}

func (d *diary) AppendAll(ctx context.Context, tx *sql.Tx, all []ledger.Happening) (first uint64, err error) {
	first = uint64(len(d.entries) + 1)
	for _, h := range all {
		if _, err := d.Append(ctx, tx, h.About, h.Kind, h.Data); err != nil {
			return 0, err
		}
	}
	return first, nil
}

func (d *diary) kinds(o vault.Owner) []string {
	var kinds []string
	for _, e := range d.entries {
		if e.owner == o {
			kinds = append(kinds, e.kind)
		}
	}
	return kinds
}

type hub struct {
	*Custody
	t      testing.TB
	dir    string
	keys   *keyring
	diary  *diary
	clock  time.Time
	acme   holdfast.PartyID // the operating organisation
	admin  holdfast.CredentialID
	handle *catalog.DB
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, dir: t.TempDir(), keys: newKeyring(), clock: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	h.diary = &diary{keys: h.keys}
	db, err := catalog.Open(t.Context(), h.dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h.handle = db
	h.restart()
	h.admin = holdfast.NewID[holdfast.CredentialID]()
	p, err := h.AddOperating(t.Context(), "Acme")
	if err != nil {
		t.Fatal(err)
	}
	h.acme = p.ID
	return h
}

// restart forgets all that is kept in memory.
func (h *hub) restart() {
	h.Custody = New(h.handle, h.keys, h.diary, Options{Now: func() time.Time { return h.clock }})
}

func (h *hub) party(name string) holdfast.PartyID {
	h.t.Helper()
	p, err := h.AddParty(h.t.Context(), h.admin, name, Person)
	if err != nil {
		h.t.Fatal(err)
	}
	return p.ID
}

func (h *hub) device(s DeviceSpec) Device {
	h.t.Helper()
	d, err := h.AddDevice(h.t.Context(), h.admin, s)
	if err != nil {
		h.t.Fatal(err)
	}
	return d.Device
}

func (h *hub) profile(file string) {
	h.t.Helper()
	if _, err := h.AddProfile(h.t.Context(), h.admin, []byte(file)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) route(d holdfast.DeviceID) *Route {
	h.t.Helper()
	r, err := h.Route(h.t.Context(), d)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// send gives one reading and returns its stream.
func (h *hub) send(d holdfast.DeviceID, x holdfast.Sample) *Stream {
	h.t.Helper()
	s, _, err := h.Accept(h.t.Context(), h.route(d), &x)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func number(stream string, f float64) holdfast.Sample {
	return holdfast.Sample{Stream: stream, Value: holdfast.NumberValue(f), Literal: true}
}

// wants fails the test unless err is of that kind and says those words.
func wants(t testing.TB, err error, kind holdfast.Kind, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("no error, want %v with %q", kind, words)
	case holdfast.KindOf(err) != kind || !strings.Contains(err.Error(), words):
		t.Errorf("%v error %q, want %v with %q", holdfast.KindOf(err), err, kind, words)
	}
}

// onDisk reports whether text stands in any file of the catalog.
func (h *hub) onDisk(text string) bool {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	if err != nil || len(files) == 0 {
		h.t.Fatal("no catalog files", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			return true
		}
	}
	return false
}
