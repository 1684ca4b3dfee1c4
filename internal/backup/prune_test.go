package backup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

const day = 24 * time.Hour

func prune(t *testing.T, dir string, keep time.Duration, now time.Time) (Pruned, error) {
	t.Helper()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Prune(t.Context(), keep, now, PruneOptions{})
}

// A hub whose third backup needs none of what the first one had alone.
func threeBackups(t *testing.T) (h *hub, dir string, all []Report) {
	t.Helper()
	h, dir = newHub(t), newDir(t)
	all = append(all, mustTake(t, h, dir))
	h.grow(9)
	all = append(all, mustTake(t, h, dir))
	h.segments, h.streams = h.segments[1:], h.streams[1:] // as an erasure does
	h.pages[0] = []byte("page one after an erasure")
	return h, dir, append(all, mustTake(t, h, dir))
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	h, dir, all := threeBackups(t)
	began := func(n int) time.Time { return all[n].Statement.Began }

	p, err := prune(t, dir, 2*day, began(2))
	if err != nil || len(p.Snapshots) != 0 || p.Kept != 3 || p.Pieces != 0 {
		t.Errorf("none is older than two days, and %+v was removed (%v)", p, err)
	}
	p, err = prune(t, dir, 2*day, began(2).Add(time.Second))
	// Of the first backup alone: its last page and its tally.
	if err != nil || !slices.Equal(p.Snapshots, []string{all[0].Snapshot}) || p.Kept != 2 || p.Pieces != 2 || p.Bytes == 0 {
		t.Errorf("of the first: %+v (%v)", p, err)
	}
	if have, bad := checkAll(t, dir); len(have) != 2 || len(bad) > 0 {
		t.Errorf("left: %v, wrong: %v", have, bad)
	}
	// The newest stays, however old it is.
	p, err = prune(t, dir, day, began(2).AddDate(10, 0, 0))
	if err != nil || !slices.Equal(p.Snapshots, []string{all[1].Snapshot}) || p.Kept != 1 {
		t.Errorf("ten years later: %+v (%v)", p, err)
	}
	if have, bad := checkAll(t, dir); len(have) != 1 || len(bad) > 0 {
		t.Errorf("left: %v, wrong: %v", have, bad)
	}
	// What only the others had is gone, what was erased before the third with it.
	names, _ := piecesIn(t, dir)
	if n := countIn(names, h); len(names) != all[2].Pieces || n != all[2].Pieces {
		t.Errorf("%d pieces are left, %d are needed, the last backup has %d", len(names), n, all[2].Pieces)
	}
	if again := mustTake(t, h, dir); again.New != 0 {
		t.Errorf("after it a run writes %d pieces", again.New)
	}
}

// What runs that were cut short have left goes; if it can't be told what is needed,
// nothing does.
func TestPruneRemovesLitterAndNothingOnDoubt(t *testing.T) {
	h, dir, all := threeBackups(t)
	h.grow(77)
	h.step = failAt(1 + 2*3 + 1) // when all is stored: its beginning, two steps of each of three pieces, its end
	if _, err := takeInto(t, h, dir); err == nil || h.fetched == nil {
		t.Fatalf("it was not cut short: %v", err)
	}
	h.step = nil
	for _, name := range []string{filepath.Join(snapshotsDir, "x"+tempSuffix), listPath("20200101T000000.000Z-aaaaaaaa"), filepath.Join(pieceDir(all[0].Statement.ID), "half"+tempSuffix)} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := piecesIn(t, dir)
	list := filepath.Join(dir, listPath(all[1].Snapshot))
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{"missing": nil, "cut off": text[:len(text)-60], "altered": []byte("x")} {
		os.Remove(list)
		if content != nil {
			if err := os.WriteFile(list, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := prune(t, dir, 30*day, all[2].Statement.Began); holdfast.KindOf(err) != holdfast.Invalid || p.Pieces+len(p.Snapshots) > 0 {
			t.Errorf("a list is %s: %+v, %v", what, p, err)
		}
	}
	if left, _ := piecesIn(t, dir); len(left) != len(before) {
		t.Errorf("%d of %d pieces are left", len(left), len(before))
	}
	if err := os.WriteFile(list, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := prune(t, dir, 30*day, all[2].Statement.Began)
	if err != nil || len(p.Snapshots) > 0 || p.Pieces == 0 || p.Pieces != len(before)-len(needed(t, dir)) {
		t.Errorf("with litter: %+v (%v)", p, err)
	}
	left, half := piecesIn(t, dir)
	if half > 0 || len(left) != len(needed(t, dir)) {
		t.Errorf("%d pieces are left, %d are needed, %d are half written", len(left), len(needed(t, dir)), half)
	}
	if lists, _ := filepath.Glob(filepath.Join(dir, snapshotsDir, "*"+listSuffix)); len(lists) != 3 {
		t.Errorf("lists: %v", lists)
	}
	if _, err := prune(t, dir, time.Hour, time.Now()); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("to keep an hour: %v", err)
	}
}

// failAt is a hub whose n-th step fails.
func failAt(n int64) func() error {
	var steps atomic.Int64
	return func() error {
		if steps.Add(1) == n {
			return errors.New("the hub is gone")
		}
		return nil
	}
}

// needed is what the folder's backups need.
func needed(t *testing.T, dir string) map[string]bool {
	t.Helper()
	f, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := f.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	need := map[string]bool{}
	for _, s := range all {
		if _, err := f.eachEntry(s.ID, func(e Entry) error { need[e.File] = true; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return need
}

// A prune that is cut short at whatever step leaves every backup that it kept whole,
// and the next one does the rest.
func TestAPruneThatIsCutShort(t *testing.T) {
	_, whole, all := threeBackups(t)
	now := all[2].Statement.Began.Add(time.Hour)
	for at, ended := 1, false; !ended; at++ {
		dir := newDir(t)
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		d := newShaky(t, dir, dies, at)
		f, err := openFolderOn(dir, d)
		if err == nil {
			_, err = f.Prune(t.Context(), 2*day, now, PruneOptions{})
			f.Close()
		} else {
			d.disk.Close()
		}
		ended = !d.reached()
		if ended && err != nil {
			t.Fatal(err)
		}
		if have, bad := checkAll(t, dir); len(bad) > 0 || !slices.Contains(have, all[2].Snapshot) || !slices.Contains(have, all[1].Snapshot) {
			t.Errorf("step %d: %v are left, wrong: %v", at, have, bad)
		}
		if _, err := prune(t, dir, 2*day, now); err != nil {
			t.Errorf("step %d: the next: %v", at, err)
		}
		if names, _ := piecesIn(t, dir); len(names) != len(needed(t, dir)) {
			t.Errorf("step %d: %d pieces are left, %d are needed", at, len(names), len(needed(t, dir)))
		}
	}
}

// Names sort by when the backups began, also those of one second.
func TestNamesSortByTime(t *testing.T) {
	first := time.Date(2026, 11, 23, 2, 15, 0, 1e6, time.UTC)
	a, b := snapshotID(first, "zzzzzzzzzz"), snapshotID(first.Add(time.Millisecond), "aaaaaaaaaa")
	if a >= b {
		t.Errorf("%s does not come before %s", a, b)
	}
	if at, ok := snapshotAt(b); !ok || !at.Equal(first.Add(time.Millisecond)) {
		t.Errorf("%s began %v, %v", b, at, ok)
	}
}
