package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

func TestASecondRunFetchesWhatIsNew(t *testing.T) {
	h, dir := newHub(t), newDir(t)
	first := mustTake(t, h, dir)
	if first.New != first.Pieces || len(h.fetched) != first.Pieces {
		t.Errorf("of %d pieces %d are new, %d were asked for", first.Pieces, first.New, len(h.fetched))
	}
	if again := mustTake(t, h, dir); again.New != 0 || again.Written != 0 || len(h.fetched) != 0 {
		t.Errorf("nothing is new, and %d pieces were written, %d asked for", again.New, len(h.fetched))
	}
	h.grow(9)
	third := mustTake(t, h, dir)
	// The page that changed, the segment, and the tally.
	if third.New != 3 || len(h.fetched) != 3 {
		t.Errorf("%d pieces were written, %d asked for", third.New, len(h.fetched))
	}
	all, bad := checkAll(t, dir)
	if len(all) != 3 || len(bad) > 0 {
		t.Errorf("backups %v, wrong: %v", all, bad)
	}
}

// Who was taken off the list opens nothing that is written later.
func TestOtherRecipientsOtherPieces(t *testing.T) {
	h, dir := newHub(t), newDir(t)
	first := mustTake(t, h, dir)
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	to, err := ParseRecipients([]string{"age1e7gudry3sfnm8chjtzqhk3k54xtdkfr4k5wxyzvavppuzymmyswq4j5msa"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Take(t.Context(), h, f, to, TakeOptions{})
	if err != nil || second.New != first.Pieces {
		t.Errorf("%d of %d pieces are written for others (%v)", second.New, first.Pieces, err)
	}
	if _, err := f.Open(second.Snapshot, identities(t), ""); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("who is not meant any more: %v", err)
	}
}

// A file that was cut off is fetched again, not taken for what it is called.
func TestAFileThatWasCutOffIsFetchedAgain(t *testing.T) {
	h, dir := newHub(t), newDir(t)
	mustTake(t, h, dir)
	files, err := filepath.Glob(filepath.Join(dir, piecesDir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if err := os.Truncate(path, 5); err != nil {
			t.Fatal(err)
		}
	}
	if _, bad := checkAll(t, dir); len(bad) != len(files) {
		t.Errorf("%d of %d files were found to be cut off", len(bad), len(files))
	}
	if r := mustTake(t, h, dir); r.New != len(files) {
		t.Errorf("%d of %d pieces were written again", r.New, len(files))
	}
	if _, bad := checkAll(t, dir); len(bad) > 0 {
		t.Errorf("they are still wrong: %v", bad)
	}
}

// Whatever fails at whatever step: the earlier backup stays whole, the next run ends
// well and fetches nothing that was there, and a power cut, at once or after that run,
// takes nothing away.
func TestARunThatIsCutShortIsGoneOnWith(t *testing.T) {
	whole := newDir(t)
	before := mustTake(t, newHub(t), whole)
	stride := 4 // each step in one of the ways
	if os.Getenv("HOLDFAST_LONG") != "" {
		stride = 1
	}
	for m, what := range []string{fails: "fails", unheard: "fails but is done", dies: "is the last", full: "finds the disk full"} {
		t.Run(what, func(t *testing.T) {
			for at := 1 + m%stride; cutShort(t, mode(m), at, whole, before.Snapshot); at += stride {
				if at > 1000 {
					t.Fatal("a run has no end")
				}
			}
		})
	}
}

// cutShort is false when a run has no step of that number. whole is a folder with one
// backup.
func cutShort(t *testing.T, m mode, at int, whole, before string) bool {
	t.Helper()
	h, dir := newHub(t), newDir(t)
	if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
		t.Fatal(err)
	}
	h.run = 1
	h.grow(9)
	d := newShaky(t, dir, m, at)
	h.step = func() error { _, err := d.step(false); return err }
	_, err := takeOn(t, h, dir, d)
	if !d.reached() {
		if err != nil {
			t.Errorf("%s: nothing failed, and: %v", what(m, at), err)
		}
		return false
	}
	h.step = nil
	all, bad := checkAll(t, dir)
	if len(bad) > 0 || !slices.Contains(all, before) || err == nil && len(all) != 2 {
		t.Errorf("%s: backups %v, wrong: %v (%v)", what(m, at), all, bad, err)
	}
	had, half := piecesIn(t, dir)
	if m == full && err != nil && (half > 0 || !strings.Contains(err.Error(), "no space left") || holdfast.KindOf(err) != holdfast.Unavailable) {
		t.Errorf("%s: %d files are half written, and a full disk is told of as %v", what(m, at), half, err)
	}

	cutFirst := at/4%2 == 0
	if cutFirst {
		d.powerCut(t)
		had, _ = piecesIn(t, dir)
	}
	again := newShaky(t, dir, fails, 0)
	if !cutFirst { // what was not durable still is not
		again.names, again.unsure = d.names, d.unsure
	}
	next, err := takeOn(t, h, dir, again)
	if err != nil {
		t.Errorf("%s: the next run: %v", what(m, at), err)
		return true
	}
	for _, name := range h.fetched {
		if slices.Contains(had, name) {
			t.Errorf("%s: the next run fetched again what was there", what(m, at))
		}
	}
	if there := countIn(had, h); next.New != next.Pieces-there || there < 2 {
		t.Errorf("%s: of %d pieces %d were there, and %d were written", what(m, at), next.Pieces, there, next.New)
	}
	again.powerCut(t)
	if all, bad := checkAll(t, dir); len(bad) > 0 || all[0] != next.Snapshot || !slices.Contains(all, before) {
		t.Errorf("%s: in the end %v, wrong: %v", what(m, at), all, bad)
	}
	return true
}

// takeOn is a run on a disk that fails.
func takeOn(t *testing.T, h *hub, dir string, d *shaky) (Report, error) {
	t.Helper()
	f, err := openFolderOn(dir, d)
	if err != nil {
		return Report{}, errors.Join(err, d.disk.Close())
	}
	defer f.Close()
	return Take(t.Context(), h, f, recipients(t), TakeOptions{})
}

// countIn is how many parts of the hub's plan are among names.
func countIn(names []string, h *hub) (n int) {
	for _, p := range h.plan.Parts {
		if slices.Contains(names, name(testKey, h.to(), p)) {
			n++
		}
	}
	return n
}

func what(m mode, at int) string {
	return fmt.Sprintf("step %d (%s)", at, []string{"fails", "unheard", "dies", "full"}[m])
}
