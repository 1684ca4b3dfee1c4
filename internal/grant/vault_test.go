package grant

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
	ada := holdfast.NewID[holdfast.PartyID]()
	if err := v.AddOwner(ctx, vault.OfParty(ada)); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Create(ctx, db, v, "test.example/log")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(ctx, db, v, l, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddPurpose(ctx, holdfast.CredentialID{1}, research); err != nil {
		t.Fatal(err)
	}
	lab := holdfast.NewID[holdfast.PartyID]()
	spec := Spec{Recipient: lab, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: r.now().AddDate(0, 1, 0)}
	g, err := r.Make(ctx, Caller{Credential: holdfast.CredentialID{2}, Party: ada, Owner: true}, spec)
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
	if r, err = Open(ctx, db, v, l, Options{}); err != nil {
		t.Fatal(err)
	}
	if !r.Live(ctx, "research") {
		t.Error("the purpose is lost")
	}
	if got, err := r.For(ctx, lab, ada); err != nil || len(got) != 1 || got[0].ID != g.ID {
		t.Errorf("grants %+v, %v", got, err)
	}
	id, err := r.OpenDisclosure(ctx, Disclosure{Owner: ada, Recipient: lab, Purpose: "research", Grant: g.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.CloseDisclosure(ctx, id, 5, 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	events, err := l.Events(ctx, vault.OfParty(ada), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	if !slices.Equal(kinds, []string{"grant made", "disclosure opened", "disclosure closed"}) {
		t.Errorf("recorded %v", kinds)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
