package server

import (
	"errors"
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
	for _, written := range []bool{false, true} {
		recoveryCutShort(t, c, private, h.rootKey, written)
	}
	got, err := RecoverRootKey(t.Context(), c, private)
	if left, _ := filepath.Glob(h.rootKey + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
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

// cutShort is a place of the keyring that fails at the next file, before or after it
// is there.
type cutShort struct {
	vault.Place
	written bool
	at      func()
}

func (p cutShort) Write(name string, data []byte) error {
	var err error
	if p.written {
		err = p.Place.Write(name, data)
	}
	p.at()
	return errors.Join(err, errors.New("the power is gone"))
}

// recoveryCutShort lets a recovery end where the keyring is put under the new root
// key: where that is to lie there is nothing, and what a crash leaves is in nobody's
// way.
func recoveryCutShort(t *testing.T, c Config, shares *escrow.Private, rootKey string, written bool) {
	t.Helper()
	ground, asked := *Machine(), false
	c.Ground = &ground
	var left []byte
	ground.Keyring = func(dir string) vault.Place {
		return cutShort{vault.Dir(dir), written, func() {
			asked = true
			if _, err := os.Lstat(rootKey); err == nil {
				t.Error("a root key is in its place before it opens anything")
			}
			var err error
			if left, err = os.ReadFile(rootKey + recoveringExt); err != nil {
				t.Error(err)
			}
		}}
	}
	if _, err := RecoverRootKey(t.Context(), c, shares); err == nil || !asked {
		t.Fatalf("a recovery that is cut short: %v", err)
	}
	if all, _ := filepath.Glob(rootKey + "*"); len(all) > 0 {
		t.Errorf("a refusal leaves %v", all)
	}
	for _, ext := range []string{"", ".tmp"} { // as a crash would
		if err := os.WriteFile(rootKey+recoveringExt+ext, left, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
