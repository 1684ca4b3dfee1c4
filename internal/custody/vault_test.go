package custody

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// The same keeper over the real keyring and ledger, through a restart.
func TestOverTheRealVaultAndLedger(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	db, err := catalog.Open(ctx, dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	holder, err := vault.CreateFileHolder(filepath.Join(t.TempDir(), "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ring := vault.Dir(t.TempDir())
	v, err := vault.Create(ctx, db, ring, []vault.Holder{holder}, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Create(ctx, db, v, "test.example/log")
	if err != nil {
		t.Fatal(err)
	}
	c := New(db, v, l, Options{})
	if _, err := c.AddOperating(ctx, "Acme"); err != nil {
		t.Fatal(err)
	}
	by := holdfast.NewID[holdfast.CredentialID]()
	ada, err := c.AddParty(ctx, by, "Ada", Person)
	if err != nil {
		t.Fatal(err)
	}
	added, err := c.AddDevice(ctx, by, DeviceSpec{Label: "band", Unclaimed: true, Serial: "S1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err = vault.Open(ctx, db, ring, []vault.Holder{holder}, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	if l, err = ledger.Open(ctx, db, v); err != nil {
		t.Fatal(err)
	}
	c = New(db, v, l, Options{})
	if _, err := c.Claim(ctx, by, ada.ID, added.ClaimCode); err != nil {
		t.Fatal(err)
	}
	r, err := c.Route(ctx, added.Device.ID)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := c.Accept(ctx, r, new(number("pulse", 60)))
	if err != nil || s.Name != "pulse" || r.Owner != ada.ID {
		t.Fatalf("%+v, %v", s, err)
	}
	events, err := l.Events(ctx, vault.OfParty(ada.ID), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	if !slices.Equal(kinds, []string{"party added", "device claimed"}) {
		t.Errorf("recorded %v", kinds)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
