package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// house is a vault in a temporary folder that can be closed and opened again.
type house struct {
	t    testing.TB
	dir  string
	root string
	db   *catalog.DB
	*Vault
}

func build(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), root: filepath.Join(t.TempDir(), "root.key")}
	var err error
	if h.db, err = catalog.Open(t.Context(), h.dir, catalog.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close() })
	if err := os.Mkdir(h.keyring(), 0o700); err != nil {
		t.Fatal(err)
	}
	holder, err := CreateFileHolder(h.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.Vault, err = Create(t.Context(), h.db, Dir(h.keyring()), []Holder{holder}, Options{}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) keyring() string { return filepath.Join(h.dir, "keyring") }

func (h *house) holder() *FileHolder {
	h.t.Helper()
	holder, err := OpenFileHolder(h.root, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return holder
}

// reopen opens the vault anew, as after a crash.
func (h *house) reopen() *house {
	h.t.Helper()
	v, err := Open(h.t.Context(), h.db, Dir(h.keyring()), []Holder{h.holder()}, Options{})
	if err != nil {
		h.t.Fatalf("reopen: %v", err)
	}
	h.Vault = v
	return h
}

func (h *house) owner() Owner {
	h.t.Helper()
	o := holdfast.NewID[Owner]()
	if err := h.AddOwner(h.t.Context(), o); err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h *house) field(o Owner) []byte {
	h.t.Helper()
	box, err := h.SealField(h.t.Context(), o, "t", []byte("r"), "c", []byte("secret of "+o.String()))
	if err != nil {
		h.t.Fatal(err)
	}
	return box
}

func (h *house) opens(o Owner, box []byte) bool {
	plain, err := h.OpenField(h.t.Context(), o, "t", []byte("r"), "c", box)
	return err == nil && string(plain) == "secret of "+o.String()
}

func TestOwnersSurviveRestart(t *testing.T) {
	h := build(t)
	var owners []Owner
	var boxes [][]byte
	for range PageEntries + 20 { // more than a page
		o := h.owner()
		owners = append(owners, o)
	}
	for _, o := range owners[990:1010] {
		boxes = append(boxes, h.field(o))
	}
	h.reopen()
	if got := h.Owners(); got != PageEntries+21 {
		t.Errorf("%d owners after restart", got)
	}
	for i, o := range owners[990:1010] {
		if !h.opens(o, boxes[i]) {
			t.Errorf("owner %d can't open its field", i)
		}
	}
}

func TestDestroyedOwnerIsGoneOthersStay(t *testing.T) {
	h := build(t)
	dead, alive := h.owner(), h.owner()
	deadBox, aliveBox := h.field(dead), h.field(alive)
	owner, err := h.ownerKey(dead)
	if err != nil {
		t.Fatal(err)
	}
	oldKey, err := owner.AppendKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rot, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{dead}})
	if err != nil {
		t.Fatal(err)
	}
	if rot.From != 1 || rot.To != 2 || len(rot.OwnerKeys) != 1 || len(rot.RecordKeys) != 1 {
		t.Errorf("rotation %+v", rot)
	}
	for range 2 {
		if h.opens(dead, deadBox) {
			t.Error("a destroyed owner's field opens")
		}
		if !h.opens(alive, aliveBox) {
			t.Error("a living owner's field does not open")
		}
		h.reopen()
	}
	if h.HasOwner(dead) {
		t.Error("the destroyed owner is in the keyring")
	}
	// Nothing on disk has the owner's key, the old head or the old root key.
	filepath.Walk(h.dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			b, _ := os.ReadFile(path)
			if bytes.Contains(b, oldKey) {
				t.Errorf("%s has the destroyed key in clear", path)
			}
		}
		return nil
	})
	if names, _ := Dir(h.keyring()).List(); len(names) != 2 {
		t.Errorf("files after rotation: %v", names)
	}
}

// An older copy of the keyring and the catalog opens nothing once the root key
// has been rotated.
func TestOldCopyOfKeyringIsDead(t *testing.T) {
	h := build(t)
	dead := h.owner()
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(h.keyring())); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Destroy(t.Context(), Destruction{Owners: []Owner{dead}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), h.db, Dir(old), []Holder{h.holder()}, Options{}); err == nil {
		t.Error("an old copy of the keyring opens")
	}
}

func TestReissueDropsOneStream(t *testing.T) {
	h := build(t)
	a := holdfast.AssignmentID(h.owner())
	keep, drop, part := holdfast.NewID[holdfast.StreamID](), holdfast.NewID[holdfast.StreamID](), holdfast.NewID[holdfast.StreamID]()
	streams := []holdfast.StreamID{keep, drop, part}
	before, err := h.StreamCiphers(t.Context(), a, 202611, streams)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.StreamCiphers(t.Context(), a, 202612, streams[:1]); err != nil {
		t.Fatal(err)
	}
	lease, err := h.JournalKey(t.Context(), a, 202611)
	if err != nil {
		t.Fatal(err)
	}
	oldJournal := lease.Cipher.ID()
	lease.Done()
	box := h.field(Owner(a))
	if err := h.Barrier(t.Context(), []holdfast.AssignmentID{a}, true); err != nil {
		t.Fatal(err)
	}
	fresh := seal.NewKey()
	_, err = h.Destroy(t.Context(), Destruction{Reissue: []Reissue{{
		Assignment: a,
		Drop:       []StreamBucket{{streams[1], 0}, {streams[2], 202611}},
		Replace:    map[StreamBucket]seal.Key{{streams[2], 202611}: fresh},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err := h.StreamCipher(t.Context(), a, 202611, streams[0]); err != nil || c.ID() != before[streams[0]].ID() {
			t.Errorf("the kept stream lost its key: %v", err)
		}
		if _, err := h.StreamCipher(t.Context(), a, 202611, streams[1]); holdfast.KindOf(err) != holdfast.NotFound {
			t.Errorf("the dropped stream has a key: %v", err)
		}
		if c, err := h.StreamCipher(t.Context(), a, 202611, streams[2]); err != nil || c.ID() != fresh.ID() {
			t.Errorf("the stream touched in part has not the new key: %v", err)
		}
		if !h.opens(Owner(a), box) {
			t.Error("the assignment's fields do not open")
		}
		if _, err := h.JournalOpener(t.Context(), a, 202611, oldJournal); !errors.Is(err, ErrRetired) {
			t.Errorf("the old journal key: %v", err)
		}
		l, err := h.JournalKey(t.Context(), a, 202611)
		if err != nil || l.Cipher.ID() == oldJournal {
			t.Fatalf("no fresh journal key: %v", err)
		}
		l.Done()
		h.reopen()
	}
}

func TestBarrierWaitsForLeases(t *testing.T) {
	h := build(t)
	a := holdfast.AssignmentID(h.owner())
	lease, err := h.JournalKey(t.Context(), a, 202611)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(chan error)
	go func() { passed <- h.Barrier(t.Context(), []holdfast.AssignmentID{a}, true) }()
	for !lease.key.retired.Load() {
	}
	select {
	case <-passed:
		t.Fatal("the barrier passed a lease that was out")
	default:
	}
	if !lease.Valid() {
		t.Error("a lease within its time is void")
	}
	lease.Done()
	if err := <-passed; err != nil {
		t.Error(err)
	}
	next, err := h.JournalKey(t.Context(), a, 202611)
	if err != nil || next.Cipher.ID() == lease.Cipher.ID() {
		t.Errorf("a retired key was leased: %v", err)
	}
	next.Done()
}

var errFault = errors.New("injected fault")

func TestTornPageIsMended(t *testing.T) {
	h := build(t)
	o := h.owner()
	box := h.field(o)
	page := filepath.Join(h.keyring(), h.ring.pages[0].name())
	b, _ := os.ReadFile(page)
	if err := os.WriteFile(page, append(b, make([]byte, 40)...), 0o600); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	p := h.owner() // overwrites the torn end
	h.reopen()
	if !h.opens(o, box) || !h.HasOwner(p) {
		t.Error("an owner was lost to a torn page")
	}
	b, _ = os.ReadFile(page)
	b[pageHeaderSize+20] ^= 1
	os.WriteFile(page, b, 0o600)
	if _, err := Open(t.Context(), h.db, Dir(h.keyring()), []Holder{h.holder()}, Options{}); err == nil {
		t.Error("a damaged page was opened")
	}
}

// A keyring that lost the key of an owner who has lists is damaged, not torn: the
// start ends with the file's name, and the owner is whole when it is put back.
func TestKeyringThatLostOwnersIsRefused(t *testing.T) {
	h := build(t)
	o := h.owner()
	box := h.field(o)
	page := filepath.Join(h.keyring(), h.ring.pages[0].name())
	whole, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-50] ^= 4
	for name, b := range map[string][]byte{
		"flipped bit": flipped, "half an entry less": whole[:len(whole)-50], "an entry less": whole[:len(whole)-entrySize],
	} {
		if err := os.WriteFile(page, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := Open(t.Context(), h.db, Dir(h.keyring()), []Holder{h.holder()}, Options{})
			if err == nil || !strings.Contains(err.Error(), h.keyring()) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if left, _ := os.ReadFile(page); !bytes.Equal(left, b) {
			t.Errorf("%s: the page was changed", name)
		}
	}
	if err := os.WriteFile(page, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if h.reopen(); !h.opens(o, box) {
		t.Error("the owner is lost")
	}
}

// A crash while a file of the last generation is overwritten leaves zeros under no
// name that counts, and the next start removes them.
func TestHalfRemovedFileIsNoKeyring(t *testing.T) {
	h := build(t)
	o := h.owner()
	box := h.field(o)
	head := filepath.Join(h.keyring(), headName(h.ring.generation))
	before, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Destroy(t.Context(), Destruction{}); err != nil {
		t.Fatal(err)
	}
	clear(before[len(before)/2:])
	if err := os.WriteFile(head+goneExt, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if h.reopen(); !h.opens(o, box) {
		t.Error("the owner is lost")
	}
	left, err := filepath.Glob(head + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	// And Remove goes that way: nothing is overwritten under its own name.
	if err := os.WriteFile(head, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := os.Open(head)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if err := os.Mkdir(head+goneExt, 0o700); err != nil { // the new name can't be taken
		t.Fatal(err)
	}
	if err := Dir(h.keyring()).Remove(filepath.Base(head)); err == nil {
		t.Error("removed")
	}
	if b, err := os.ReadFile(head); err != nil || string(b) != "old" {
		t.Errorf("%q %v", b, err)
	}
}

func TestFileHolderWithPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "root.key")
	h, err := CreateFileHolder(path, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Prepare(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	root := seal.NewKey()
	box, err := h.Seal(t.Context(), 1, root)
	if err != nil {
		t.Fatal(err)
	}
	for pass, want := range map[string]bool{"correct horse": true, "battery": false, "": false} {
		again, err := OpenFileHolder(path, []byte(pass))
		if (err == nil) != want {
			t.Errorf("passphrase %q: %v", pass, err)
		}
		if err == nil {
			if got, err := again.Open(t.Context(), 1, box); err != nil || got != root {
				t.Errorf("the root key does not come back: %v", err)
			}
		}
	}
	os.Chmod(path, 0o640)
	if _, err := OpenFileHolder(path, []byte("correct horse")); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a root key that others may read: %v", err)
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(headMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b)
		if err == nil && len(h.pages)*pageRefSize > len(b) {
			t.Error("more pages than bytes")
		}
	})
}

// A crash between putting the new file in place and overwriting the old one
// leaves the old one a name; the next open overwrites it.
func TestReplacedFileIsOverwrittenAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	holder, err := CreateFileHolder(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Prepare(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, path+oldExt); err != nil { // a crash before the rename
		t.Fatal(err)
	}
	if _, err := OpenFileHolder(path, nil); err != nil {
		t.Fatal(err)
	}
	held, err := OpenFileHolder(path, nil)
	if gens, _ := held.Generations(t.Context()); err != nil || len(gens) != 1 {
		t.Fatalf("the file was overwritten though it is in force: %v, %v", gens, err)
	}

	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	if err := os.WriteFile(path+oldExt, old, 0o600); err != nil { // a crash after it
		t.Fatal(err)
	}
	if err := os.Link(path+oldExt, stale); err != nil { // to see the bytes behind the name
		t.Fatal(err)
	}
	if _, err := OpenFileHolder(path, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(stale); err != nil || !bytes.Equal(b, make([]byte, len(old))) {
		t.Errorf("the old root key was not overwritten: %v", err)
	}
	if _, err := os.Stat(path + oldExt); err == nil {
		t.Error("the old name is still there")
	}
}
