package server

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// damaged is a halted house with readings in segments and in the journal.
func damagedHouse(t *testing.T) (*house, access.Principal, identity.Peer) {
	t.Helper()
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	start := time.Now().Add(-time.Hour)
	for i := range 60 {
		h.mustSend(hers, number("pulse", start.Add(time.Duration(i)*time.Second), float64(i)))
		if i == 39 {
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.halt()
	return h, anna, hers
}

// tryOpen opens the house's folder and closes it again.
func (h *house) tryOpen() error {
	s, err := Open(h.t.Context(), Config{Data: h.dir, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0"})
	if err == nil {
		s.stores.close()
	}
	return err
}

// unchanged compares the folder with what it was, but for the database's own
// files and the lock.
func (h *house) unchanged(before map[string]string) {
	h.t.Helper()
	now := snapshotOf(h.t, h.dir)
	for path, b := range before {
		switch got, ok := now[path]; {
		case strings.Contains(path, "/catalog/") || filepath.Base(path) == lockFile:
		case !ok:
			h.t.Errorf("%s is gone", path)
		case got != b:
			h.t.Errorf("%s was changed", path)
		}
	}
}

func only(t *testing.T, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %v %v", pattern, all, err)
	}
	return all[0]
}

var namesOffset = regexp.MustCompile(`(byte|offset|position) \d+`)

// A byte that is not what was written stops the start, with the file and the
// offset, and nothing is changed: put the byte back and all is there.
func TestDamageStopsTheStart(t *testing.T) {
	h, anna, hers := damagedHouse(t)
	seed := testseed.Of(t)
	r := rand.New(rand.NewPCG(seed, 2))
	journal := only(t, filepath.Join(h.dir, journalDir, "*.journal"))
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	page, head := only(t, filepath.Join(h.dir, keyringDir, "page-*")), only(t, filepath.Join(h.dir, keyringDir, "head-*"))
	tries := 3
	if long() {
		tries = 100
	}
	places := []struct {
		path     string
		from, to int
	}{{journal, 0, 60}, {journal, 4096, used}, {page, 0, 0}, {head, 0, 0}, {filepath.Join(h.dir, folderFile), 0, 0}}
	for _, x := range places {
		whole, err := os.ReadFile(x.path)
		if err != nil {
			t.Fatal(err)
		}
		if x.to == 0 {
			x.to = len(whole)
		}
		for range tries {
			at := x.from + r.IntN(x.to-x.from)
			bad := bytes.Clone(whole)
			bad[at] ^= 1 << r.IntN(8)
			if err := os.WriteFile(x.path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			before := snapshotOf(t, h.dir)
			err := h.tryOpen()
			switch {
			case err == nil:
				t.Errorf("%s with byte %d damaged: the hub starts", filepath.Base(x.path), at)
			case strings.Contains(err.Error(), "there is no root key at") && filepath.Base(x.path) == folderFile: // its path
			case !strings.Contains(err.Error(), x.path):
				t.Errorf("%s with byte %d damaged: %v", filepath.Base(x.path), at, err)
			}
			if err != nil && filepath.Base(x.path) != folderFile && x.path != head && !namesOffset.MatchString(err.Error()) {
				t.Errorf("%s with byte %d damaged: no offset: %v", filepath.Base(x.path), at, err)
			}
			h.unchanged(before)
			if err := os.WriteFile(x.path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				break
			}
		}
	}
	h.start()
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 60 {
		t.Errorf("%d readings when all is mended: %v", len(got), err)
	}
}

// Damage in a segment ends the reads that need it, with file and offset; others
// go on.
func TestDamagedSegmentEndsTheRead(t *testing.T) {
	h, anna, hers := damagedHouse(t)
	h.start()
	ben := h.person("Ben")
	his := h.device(ben.Party, "watch")
	h.halt()
	var segment string
	for path := range snapshotOf(t, filepath.Join(h.dir, segmentsDir)) {
		if filepath.Base(path) != "LAYOUT" {
			segment = path
		}
	}
	whole, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, uint64(len(whole))))
	loud := 0
	for range 12 {
		at := r.IntN(len(whole))
		bad := bytes.Clone(whole)
		bad[at] ^= 0x10
		if err := os.WriteFile(segment, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		h.start()
		got, err := h.read(anna, hers, "pulse")
		switch {
		case err == nil && len(got) == 60: // a byte that no reading stands on
		case err == nil:
			t.Errorf("byte %d damaged: %d readings and no error", at, len(got))
		case !strings.Contains(err.Error(), strings.TrimSuffix(filepath.Base(segment), filepath.Ext(segment))) || !namesOffset.MatchString(err.Error()):
			t.Errorf("byte %d damaged: %v", at, err)
		default:
			loud++
		}
		h.mustSend(his, number("pulse", time.Now(), 1))
		if _, err := h.read(ben, his, "pulse"); err != nil {
			t.Errorf("byte %d damaged: the other owner: %v", at, err)
		}
		h.halt()
		if err := os.WriteFile(segment, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if loud == 0 {
		t.Error("no damage was noticed")
	}
	h.start()
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 60 {
		t.Errorf("%d readings when the segment is mended: %v", len(got), err)
	}
}

// A crash in the middle of a write leaves half a record: it was never
// acknowledged and is cut.
func TestTornRecordIsCut(t *testing.T) {
	h, anna, hers := damagedHouse(t)
	// The crash left no mark: the journal is taken as it was while the hub ran.
	h.start()
	h.mustSend(hers, number("pulse", time.Now(), 100))
	journal := only(t, filepath.Join(h.dir, journalDir, "*.journal"))
	running, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	h.mustSend(hers, number("pulse", time.Now().Add(time.Second), 101))
	after, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	h.halt()
	from := len(bytes.TrimRight(running, "\x00"))
	to := len(bytes.TrimRight(after, "\x00"))
	if to-from < 100 {
		t.Fatalf("the last record has %d bytes", to-from)
	}
	for _, cut := range []int{from + 20, from + 60, (from + to) / 2, to - 1} {
		torn := bytes.Clone(after)
		clear(torn[cut:])
		if err := os.WriteFile(journal, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		h.start()
		got, err := h.read(anna, hers, "pulse")
		if err != nil || len(got) != 61 {
			t.Errorf("cut at %d of %d to %d: %d readings, %v", cut, from, to, len(got), err)
		}
		h.mustSend(hers, number("pulse", time.Now().Add(2*time.Second), 102))
		h.halt()
		h.start()
		if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 62 || got[61].Value.Number() != 102 {
			t.Errorf("cut at %d: %d readings after the next: %v", cut, len(got), err)
		}
		h.halt()
	}
}

// The newest owner's key is the last entry of its page: damage there must not be
// taken for an entry that a crash cut short.
func TestDamagedNewestOwnerStopsTheStart(t *testing.T) {
	h, anna, hers := damagedHouse(t)
	page := only(t, filepath.Join(h.dir, keyringDir, "page-*"))
	whole, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, back := range []int{1, 40, 95, 110} {
		bad := bytes.Clone(whole)
		bad[len(bad)-back] ^= 0x40
		if err := os.WriteFile(page, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		before := snapshotOf(t, h.dir)
		if err := h.tryOpen(); err == nil || !strings.Contains(err.Error(), page) || !namesOffset.MatchString(err.Error()) {
			t.Errorf("byte %d from the end damaged: %v", back, err)
		}
		h.unchanged(before)
	}
	if err := os.WriteFile(page, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 60 {
		t.Errorf("%d readings when the page is mended: %v", len(got), err)
	}
}
