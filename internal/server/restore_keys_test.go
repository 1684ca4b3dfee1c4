package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// options are those of a restore of the newest backup.
func (b *shelf) options(keyring string) RestoreOptions {
	b.t.Helper()
	f, err := backup.ReadFolder(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return RestoreOptions{From: f, Identities: b.ids, Keyring: keyring}
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// The machine is lost, with the root key file on it: a program elsewhere holds the root
// key, too. It opens the keyring, the copies are kept in step again, and the file is
// named by certificates until somebody answers for it.
func TestARestoreByAProgram(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	c := Config{Data: h.dir}
	h.halt()
	url, _ := programHolder(t)
	other, _ := programHolder(t)
	near, far := t.TempDir(), t.TempDir()
	if _, err := AddHolder(t.Context(), c, HolderSpec{Name: "hsm", URL: url}); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"near": near, "far": far} {
		if err := AddCopy(t.Context(), c, name, "file:"+dir); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	ada := h.person("Ada")
	lamp := h.device(ada.Party, "lamp")
	h.mustSend(lamp, number("lux", time.Now().Add(-time.Hour), 5))
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.take(h)
	h.halt()
	if err := errors.Join(os.Remove(h.rootKey), os.RemoveAll(h.dir), os.RemoveAll(far)); err != nil {
		t.Fatal(err)
	}

	dir, o := filepath.Join(t.TempDir(), "new"), b.options(near)
	for name, wrong := range map[string]struct {
		url, rootKey string
		kind         holdfast.Kind
	}{
		"another program":      {other, "", holdfast.Conflict},
		"another hub's file":   {"", newHouse(t).rootKey, holdfast.Conflict},
		"the lost file":        {"", h.rootKey, holdfast.NotFound},
		"a lost TPM":           {"tpm:unix:/none?state=" + filepath.Join(t.TempDir(), "tpm.json"), "", holdfast.NotFound},
		"two at once":          {url, h.rootKey, holdfast.Invalid},
		"none":                 {"", "", holdfast.Invalid},
		"a file in the folder": {"", filepath.Join(dir, "root.key"), holdfast.Invalid},
	} {
		o.Holder = wrong.url
		_, err := Restore(t.Context(), Config{Data: dir, RootKey: wrong.rootKey}, o)
		if holdfast.KindOf(err) != wrong.kind || !gone(dir) {
			t.Errorf("%s: %v; the folder is gone: %v", name, err, gone(dir))
		}
		if kind := wrong.kind; kind != holdfast.Invalid && (!strings.Contains(err.Error(), "held by file, hsm") || !strings.Contains(err.Error(), "recovery shares")) {
			t.Errorf("%s: the error shows no other way: %v", name, err)
		}
	}
	o.Holder = url
	r, err := Restore(t.Context(), Config{Data: dir}, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Holder != "hsm" || !slices.Equal(r.Fenced, []string{rootKeyHolder}) || !strings.HasSuffix(r.Suspended, "may be newer: far") || r.Until.IsZero() || len(r.Copies) != 2 {
		t.Errorf("restored: %+v", r)
	}
	for _, c := range r.Copies {
		if !c.Registered || (c.Why == "") != (c.Name == "near") {
			t.Errorf("copy: %+v", c)
		}
	}

	if _, err := ConfirmRestore(t.Context(), Config{Data: dir}); err != nil {
		t.Fatal(err)
	}
	restored := &house{t: t, dir: dir}
	restored.start()
	t.Cleanup(restored.halt)
	if have, err := restored.read(ada, lamp, "lux"); err != nil || len(have) != 1 {
		t.Errorf("%d readings (%v)", len(have), err)
	}
	scope, err := restored.custody.ScopeOfParty(t.Context(), ada.Party)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := erasure.VerifyCertificate(restored.erase(ada, scope), "")
	if err != nil || len(cert.Destroyed.Holders) != 2 {
		t.Fatalf("%+v, %v", cert, err)
	}
	for _, e := range cert.Destroyed.Holders {
		if want := map[string]string{"hsm": vault.HolderDestroyed, rootKeyHolder: vault.HolderPending}[e.Holder]; e.State != want {
			t.Errorf("%s is %s, want %s", e.Holder, e.State, want)
		}
	}
	for _, s := range restored.stores.vault.Copies() {
		if s.Late != (s.Name == "far") {
			t.Errorf("copy: %+v", s)
		}
	}
	restored.halt()
	if _, err := RemoveHolder(t.Context(), Config{Data: dir}, rootKeyHolder, "Ada Lovelace"); err != nil {
		t.Error(err)
	}
}

// A copy that the hub had and that is newer than the one that was given is named; with
// no copy in reach the hub is told which to add again.
func TestARestoreLooksForNewerCopies(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	h.halt()
	near, far, old := t.TempDir(), t.TempDir(), t.TempDir()
	for name, dir := range map[string]string{"near": near, "far": far} {
		if err := AddCopy(t.Context(), Config{Data: h.dir}, name, "file:"+dir); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	ada := h.owner("ada")
	b.take(h)
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(old, os.DirFS(near)); err != nil {
		t.Fatal(err)
	}
	h.person("Ben") // has a key
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, c := filepath.Join(t.TempDir(), "new"), Config{RootKey: h.rootKey}
	c.Data = dir
	refused := func(what string) {
		t.Helper()
		if _, err := Restore(t.Context(), c, b.options(old)); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "is newer than the one") || !gone(dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a copy with another owner key")
	scope, err := h.custody.ScopeOfParty(t.Context(), ada.Party)
	if err != nil {
		t.Fatal(err)
	}
	h.erase(ada.Principal, scope)
	h.halt()
	if _, err := Restore(t.Context(), c, b.options(old)); holdfast.KindOf(err) != holdfast.Conflict || !gone(dir) { // whose root key is gone
		t.Errorf("a copy of before an erasure: %v", err)
	}
	if err := errors.Join(os.Rename(near, near+"-away"), os.Rename(far, far+"-away"), os.RemoveAll(h.dir)); err != nil {
		t.Fatal(err)
	}
	r, err := Restore(t.Context(), c, b.options(near+"-away"))
	if err != nil || len(r.Copies) != 2 || r.TakenBack == 0 {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	for _, c := range r.Copies {
		if c.Registered || c.Why == "" {
			t.Errorf("copy: %+v", c)
		}
	}
	k, err := ShowKeyring(t.Context(), Config{Data: dir}, true, "")
	if err != nil || len(k.Copies) != 0 {
		t.Errorf("%+v, %v", k, err)
	}
	restored := &house{t: t, dir: dir, rootKey: h.rootKey}
	restored.start() // which erases again
	restored.halt()
}

// Every holder is lost: the shares of enough shareholders open the keyring, for a root
// key file that is made.
func TestARestoreByShares(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.owner("ada")
	h.mustSend(ada.device, number("lux", time.Now().Add(-time.Hour), 5))
	deal, shares, err := escrow.Deal("holdfast/test", 2, []string{"notary", "safe", "board"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.stores.vault.SetEscrow(t.Context(), &deal); err != nil {
		t.Fatal(err)
	}
	b.take(h)
	h.halt()
	if err := os.Remove(h.rootKey); err != nil {
		t.Fatal(err)
	}
	o := b.options(filepath.Join(h.dir, keyringDir))
	_, others, err := escrow.Deal("holdfast/test", 2, []string{"a", "b"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir, made := filepath.Join(t.TempDir(), "new"), filepath.Join(t.TempDir(), "made.key")
	c := Config{Data: dir, RootKey: made}
	if o.Shares, err = escrow.Combine(others); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), c, o); holdfast.KindOf(err) != holdfast.Invalid || !gone(made) {
		t.Errorf("shares of another deal: %v; there is no root key: %v", err, gone(made))
	}
	if o.Shares, err = escrow.Combine(shares[1:]); err != nil {
		t.Fatal(err)
	}
	taken := newHouse(t).rootKey
	if _, err := Restore(t.Context(), Config{Data: dir, RootKey: taken}, o); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("where another root key is: %v", err)
	}
	cut := errors.New("cut")
	o.fault = func(step string) error {
		if step == "holders" {
			return cut
		}
		return nil
	}
	if _, err := Restore(t.Context(), c, o); !errors.Is(err, cut) {
		t.Fatal(err)
	}
	o.fault = nil
	if _, err := Restore(t.Context(), c, o); err != nil {
		t.Fatal(err)
	}
	restored := &house{t: t, dir: dir, rootKey: made}
	restored.start()
	t.Cleanup(restored.halt)
	if have, err := restored.read(ada.Principal, ada.device, "lux"); err != nil || len(have) != 1 {
		t.Errorf("%d readings (%v)", len(have), err)
	}
}
