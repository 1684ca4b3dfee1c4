package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// With both of two holders lost, shareholders bring the root key back: the hub starts,
// erases, and certificates name the one that may turn up.
func TestBothHoldersLost(t *testing.T) {
	h := newHouse(t)
	c := Config{Data: h.dir}
	h.halt()
	usb := filepath.Join(t.TempDir(), "usb.key")
	if _, err := AddHolder(t.Context(), c, HolderSpec{Name: "usb", URL: "file:" + usb}); err != nil {
		t.Fatal(err)
	}
	h.start()
	anna := h.person("Anna")
	watch := h.device(anna.Party, "watch")
	h.mustSend(watch, number("pulse", time.Now(), 61))
	deal, shares, err := escrow.Deal("holdfast/test", 2, []string{"notary", "safe", "board"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.stores.vault.SetEscrow(t.Context(), &deal); err != nil {
		t.Fatal(err)
	}
	h.halt()
	for _, path := range []string{usb, h.rootKey} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), c); err == nil {
		t.Fatal("a hub without any root key starts")
	}
	private, err := escrow.Combine(shares[1:])
	if err != nil {
		t.Fatal(err)
	}
	got, err := RecoverRootKey(t.Context(), c, private)
	if err != nil || strings.Join(got.Lost, " ") != "usb" || got.RootKey != h.rootKey {
		t.Fatalf("%+v, %v", got, err)
	}
	h.start()
	if got, err := h.read(anna, watch, "pulse"); err != nil || len(got) != 1 {
		t.Errorf("%d readings are left, %v", len(got), err)
	}
	scope, err := h.custody.ScopeOfParty(t.Context(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := erasure.VerifyCertificate(h.erase(anna, scope), "")
	if err != nil || len(cert.Destroyed.Holders) != 2 {
		t.Fatalf("%+v, %v", cert.Destroyed.Holders, err)
	}
	for _, e := range cert.Destroyed.Holders {
		if want := map[string]string{rootKeyHolder: vault.HolderDestroyed, "usb": vault.HolderPending}[e.Holder]; e.State != want {
			t.Errorf("%s is %s, want %s", e.Holder, e.State, want)
		}
	}
	h.halt()
	if _, err := RemoveHolder(t.Context(), c, "usb", "Ada Lovelace"); err != nil {
		t.Fatal(err)
	}
	h.start()
	if got := h.stores.vault.Pending(); len(got) != 0 {
		t.Errorf("pending: %v", got)
	}
}
