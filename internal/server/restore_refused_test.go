package server

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// forge has the manifest of a backup say something else, under a key of its own, as
// whoever has the identity can write it.
func (b *shelf) forge(snapshot, ledger string, change func(*backup.Statement)) {
	b.t.Helper()
	path := filepath.Join(b.dir, "snapshots", snapshot+".age")
	file, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	plain, err := age.Decrypt(file, b.ids...)
	if err != nil {
		b.t.Fatal(err)
	}
	signed, err := io.ReadAll(plain)
	if err = errors.Join(err, file.Close()); err != nil {
		b.t.Fatal(err)
	}
	st, err := backup.ReadStatement(signed, "")
	if err != nil {
		b.t.Fatal(err)
	}
	private, public, err := note.GenerateKey(rand.Reader, ledger)
	if err != nil {
		b.t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		b.t.Fatal(err)
	}
	st.Ledger, st.Verifier = ledger, public
	change(&st)
	text, err := json.Marshal(st)
	if err != nil {
		b.t.Fatal(err)
	}
	signed, err = note.Sign(&note.Note{Text: "holdfast backup 1\n" + string(text) + "\n"}, signer)
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	w, err := age.Encrypt(out, b.ids[0].(*age.X25519Identity).Recipient())
	if err == nil {
		_, err = w.Write(signed)
		err = errors.Join(err, w.Close(), out.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// What a restore refuses, and what it leaves: nothing, or a folder in which it goes on
// when what was wrong is put right.
func TestARestoreRefuses(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.owner("ada")
	h.mustSend(ada.device, number("lux", time.Now().Add(-time.Hour), 5))
	before := filepath.Join(t.TempDir(), "before") // a copy that lags
	if err := os.CopyFS(before, os.DirFS(filepath.Join(h.dir, keyringDir))); err != nil {
		t.Fatal(err)
	}
	h.person("Ben") // who has a key
	taken, verifier := b.take(h), h.ledger.VerifierKey()
	h.halt()
	other := newHouse(t)
	other.halt()
	ring, otherRing := filepath.Join(h.dir, keyringDir), filepath.Join(other.dir, keyringDir)
	manifest := filepath.Join(b.dir, "snapshots", taken.Snapshot+".age")
	honest, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var piece string // any of the catalog's
	filepath.Walk(filepath.Join(b.dir, "pieces"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			piece = path
		}
		return err
	})
	origin := taken.Statement.Ledger
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "theirs"), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, says string
		kind       holdfast.Kind
		nothing    bool // is left
		spoil      func(o *RestoreOptions, c *Config) (mend func() error)
	}{
		{"a statement of another ledger", "put together from two", holdfast.Invalid, false, func(*RestoreOptions, *Config) func() error {
			b.forge(taken.Snapshot, "holdfast/another", func(*backup.Statement) {})
			return nil
		}},
		{"a statement by another key", "not signed by the key in its own catalog", holdfast.Invalid, false, func(*RestoreOptions, *Config) func() error {
			b.forge(taken.Snapshot, origin, func(*backup.Statement) {})
			return nil
		}},
		{"a statement by another key than is known", "does not verify", holdfast.Invalid, true, func(o *RestoreOptions, _ *Config) func() error {
			o.Verifier = verifier
			b.forge(taken.Snapshot, origin, func(*backup.Statement) {})
			return nil
		}},
		{"a newer catalog", "use that one, or a newer", holdfast.Conflict, true, func(*RestoreOptions, *Config) func() error {
			b.forge(taken.Snapshot, origin, func(st *backup.Statement) { st.Catalog++ })
			return nil
		}},
		{"a copy that lags", "lacks 1 owner key", holdfast.Conflict, false, func(o *RestoreOptions, _ *Config) func() error {
			o.Keyring = before
			return nil
		}},
		{"another hub's keyring", "does not open the catalog", holdfast.Conflict, false, func(o *RestoreOptions, c *Config) func() error {
			o.Keyring, c.RootKey = otherRing, other.rootKey
			return nil
		}},
		{"another hub's root key", "opens nothing of this keyring", holdfast.Conflict, true, func(_ *RestoreOptions, c *Config) func() error {
			c.RootKey = other.rootKey
			return nil
		}},
		{"no keyring", "no copy of a keyring", holdfast.Invalid, true, func(o *RestoreOptions, _ *Config) func() error {
			o.Keyring = full
			return nil
		}},
		{"a folder that is not empty", "is not empty", holdfast.Conflict, true, func(_ *RestoreOptions, c *Config) func() error {
			c.Data = full
			return nil
		}},
		{"a missing piece", "is missing from", holdfast.Invalid, false, func(*RestoreOptions, *Config) func() error {
			if err := os.Rename(piece, piece+".away"); err != nil {
				t.Fatal(err)
			}
			return func() error { return os.Rename(piece+".away", piece) }
		}},
	} {
		dir := filepath.Join(t.TempDir(), "new")
		o, c := b.options(ring), Config{Data: dir, RootKey: h.rootKey}
		mend := x.spoil(&o, &c)
		_, err := Restore(t.Context(), c, o)
		if holdfast.KindOf(err) != x.kind || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v", x.name, err)
		}
		if gone(dir) != x.nothing {
			t.Errorf("%s: nothing is left: %v", x.name, gone(dir))
		}
		if mend != nil {
			if err := mend(); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(manifest, honest, 0o600); err != nil {
			t.Fatal(err)
		}
		if x.nothing {
			continue
		}
		if _, err := Open(t.Context(), Config{Data: dir, RootKey: h.rootKey}); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "has not ended") {
			t.Errorf("%s: the folder that was refused: %v", x.name, err)
		}
		if r, err := Restore(t.Context(), Config{Data: dir, RootKey: h.rootKey}, b.options(ring)); err != nil || r.Readings != 1 {
			t.Errorf("%s: put right it does not go on: %+v, %v", x.name, r, err)
		}
	}
	dir, c := filepath.Join(t.TempDir(), "new"), Config{RootKey: h.rootKey}
	c.Data = dir
	first := b.options(ring)
	first.fault = func(step string) error {
		if step != "catalog" {
			return nil
		}
		_, err := Restore(t.Context(), c, b.options(ring))
		if holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "another restore writes to") {
			t.Errorf("a second one at the same time: %v", err)
		}
		return nil
	}
	if _, err := Restore(t.Context(), c, first); err != nil || !gone(filepath.Join(dir, restoreLock)) {
		t.Errorf("the first of two at the same time: %v", err)
	}
	if entries, err := os.ReadDir(full); err != nil || len(entries) != 1 {
		t.Errorf("what lay in a folder that was not empty: %v, %v", entries, err)
	}

	// A backup of another hub among those of this one.
	other.start()
	theirs := newShelf(t)
	theirs.to, theirs.ids = b.to, b.ids
	mixed := theirs.take(other)
	other.halt()
	for _, sub := range []string{"snapshots", "pieces"} {
		filepath.WalkDir(filepath.Join(theirs.dir, sub), func(path string, d os.DirEntry, err error) error {
			rel, rerr := filepath.Rel(theirs.dir, path)
			if err = errors.Join(err, rerr); err == nil && d.IsDir() {
				return os.MkdirAll(filepath.Join(b.dir, rel), 0o700)
			} else if err == nil {
				err = os.Link(path, filepath.Join(b.dir, rel))
			}
			if err != nil {
				t.Fatal(err)
			}
			return nil
		})
	}
	dir = filepath.Join(t.TempDir(), "new")
	o := b.options(ring)
	c.Data, o.Snapshot = dir, mixed.Snapshot
	if _, err := Restore(t.Context(), c, o); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "put together from two") || !gone(dir) {
		t.Errorf("another hub's backup among those of this one: %v", err)
	}
	if err := os.Remove(filepath.Join(b.dir, "hub.json")); err != nil { // a folder that nobody has named
		t.Fatal(err)
	}
	o.From = b.options(ring).From
	if _, err := Restore(t.Context(), c, o); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "another hub's") {
		t.Errorf("another hub's backup with this one's keyring: %v", err)
	}
	o.Snapshot = taken.Snapshot
	if _, err := Restore(t.Context(), c, o); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "go on with that") {
		t.Errorf("into the folder of another restore: %v", err)
	}
	c.Data = filepath.Join(t.TempDir(), "new")
	if r, err := Restore(t.Context(), c, o); err != nil || r.Backups != 1 {
		t.Errorf("this hub's, of the mixed folder: %+v, %v", r, err)
	}
	own, err := os.ReadFile(filepath.Join(b.dir, "snapshots", mixed.Snapshot+".list"))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "snapshots", taken.Snapshot+".list"), own, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Data = filepath.Join(t.TempDir(), "new")
	if _, err := Restore(t.Context(), c, o); holdfast.KindOf(err) != holdfast.Invalid || !gone(c.Data) {
		t.Errorf("with the other's list of pieces: %v", err)
	}
}

// Who restores an early backup has the later ones, too: certificates say until when
// the last of them is kept, of those too that the identities don't open.
func TestARestoredHubKnowsLaterBackups(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.owner("ada")
	h.mustSend(ada.device, number("lux", time.Now().Add(-time.Hour), 5))
	take := func(to backup.Recipients, keep time.Duration) backup.Report {
		t.Helper()
		f, err := backup.OpenFolder(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := backup.Take(t.Context(), ownSource{h.Server}, f, to, backup.TakeOptions{Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := take(b.to, 50*24*time.Hour)
	longest := take(b.to, 100*24*time.Hour)
	unread := take(newShelf(t).to, 24*time.Hour)
	h.halt()
	o := b.options(filepath.Join(h.dir, keyringDir))
	o.Snapshot = first.Snapshot
	dir := filepath.Join(t.TempDir(), "new")
	r, err := Restore(t.Context(), Config{Data: dir, RootKey: h.rootKey}, o)
	if err != nil || r.Backups != 3 || r.Unread != 1 {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	if _, err := ConfirmRestore(t.Context(), Config{Data: dir, RootKey: h.rootKey}); err != nil {
		t.Fatal(err)
	}
	restored := &house{t: t, dir: dir, rootKey: h.rootKey}
	restored.start()
	t.Cleanup(restored.halt)
	until, err := restored.backups.Expiry(t.Context())
	if err != nil || until.Before(longest.Statement.Expires) || until.Before(unread.Statement.Began.Add(100*24*time.Hour).Truncate(time.Second)) {
		t.Errorf("backups expire %s (%v), the longest %s", until, err, longest.Statement.Expires)
	}
	if last, _ := restored.backups.Last(); last == nil || !last.Began.Equal(longest.Statement.Began) {
		t.Errorf("the last that it knows to have ended: %+v", last)
	}
	scope, err := restored.custody.ScopeOfParty(t.Context(), ada.Party)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := erasure.VerifyCertificate(restored.erase(ada.Principal, scope), "")
	if err != nil || cert.BackupsExpire.Before(longest.Statement.Expires.Truncate(time.Second)) {
		t.Errorf("the certificate: %+v, %v", cert.BackupsExpire, err)
	}
}
