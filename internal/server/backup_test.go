package server

import (
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

// shelf is what a test of backups keeps beside its hub: a folder of backups and
// who can open them.
type shelf struct {
	t   *testing.T
	dir string
	to  backup.Recipients
	ids []age.Identity
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := backup.ParseRecipients([]string{id.Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{t: t, dir: filepath.Join(t.TempDir(), "backups"), to: to, ids: []age.Identity{id}}
}

func (b *shelf) take(h *house) backup.Report {
	b.t.Helper()
	f, err := backup.OpenFolder(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	r, err := backup.Take(b.t.Context(), ownSource{h.Server}, f, b.to, backup.TakeOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *shelf) check(id string) backup.Checked {
	b.t.Helper()
	f, err := backup.ReadFolder(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	r, err := f.Open(id, b.ids, "")
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := r.Check(b.t.Context(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func TestASecondBackupWritesWhatChanged(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.person("Ada")
	lamp := h.device(ada.Party, "lamp")
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range 2000 {
		h.mustSend(lamp, number("lux", at.Add(time.Duration(i)*time.Second), float64(i*i%977)))
	}
	first := b.take(h)
	if first.Statement.Readings != 2000 || first.New != first.Pieces || first.Statement.Streams != 1 {
		t.Errorf("the first backup has %d readings of %d streams, %d pieces of %d are new", first.Statement.Readings, first.Statement.Streams, first.New, first.Pieces)
	}
	second := b.take(h)
	if second.Statement.Segments != 1 || second.New > second.Pieces-2 { // its segment and its tally are there
		t.Errorf("a second backup after nothing but a backup writes %d of %d pieces", second.New, second.Pieces)
	}
	for _, r := range []backup.Report{first, second} {
		if c := b.check(r.Snapshot); len(c.Bad) > 0 || c.Pieces != r.Pieces {
			t.Errorf("backup %s: %d pieces checked of %d, bad: %v", r.Snapshot, c.Pieces, r.Pieces, c.Bad)
		}
	}
	if _, drill := h.backups.Last(); !drill.IsZero() {
		t.Error("a drill is on record that nobody made")
	}
	until, err := h.backups.Expiry(t.Context())
	if err != nil || until.Sub(second.Statement.Began) != backup.DefaultKeep {
		t.Errorf("backups expire %s (%v)", until, err)
	}
}

// What is looked at when a backup begins is not looked at with each piece: these are
// for the same credential alone.
func TestABackupIsOfWhoBeganIt(t *testing.T) {
	h := newHouse(t)
	p, err := h.backups.Begin(t.Context(), "anna", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.backups.Mine(p.ID, "anna"); err != nil {
		t.Errorf("who began it: %v", err)
	}
	if err := h.backups.Mine(p.ID, "ben"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("another: %v", err)
	}
	h.backups.End(p.ID)
}
