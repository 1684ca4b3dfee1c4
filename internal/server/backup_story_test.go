package server

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// open decrypts every piece and the manifest of a backup, with age and no code of ours.
func (b *shelf) open(id string) (all map[string][]byte) {
	b.t.Helper()
	all = map[string][]byte{}
	list, err := os.ReadFile(filepath.Join(b.dir, "snapshots", id+".list"))
	if err != nil {
		b.t.Fatal(err)
	}
	paths := []string{filepath.Join(b.dir, "snapshots", id+".age")}
	for _, line := range strings.Split(strings.TrimSpace(string(list)), "\n")[1:] {
		file := strings.Fields(line)[1]
		paths = append(paths, filepath.Join(b.dir, "pieces", file[:2], file+".age"))
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			b.t.Fatal(err)
		}
		r, err := age.Decrypt(f, b.ids...)
		if err != nil {
			b.t.Fatal(err)
		}
		if all[filepath.Base(path)], err = io.ReadAll(r); err != nil {
			b.t.Fatal(err)
		}
		f.Close()
	}
	return all
}

// marks are what a backup may have of a device's readings: the first and last bytes of
// each box, and the ids of its keys and its owner's.
func (h *house) marks(p identity.Peer, owner holdfast.PartyID) (ciphertext, keys [][]byte) {
	h.t.Helper()
	type box struct {
		blob holdfast.BlobID
		at   int64
		size int64
	}
	var boxes []box
	err := h.stores.catalog.Read(h.t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT s.blob, c.at, c.size, c.key_id FROM chunk c JOIN segment s ON s.id = c.segment WHERE c.assignment = $1`, p.Assignment)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var x box
			var id []byte
			if err := rows.Scan(&x.blob, &x.at, &x.size, &id); err != nil {
				return err
			}
			boxes, keys = append(boxes, x), append(keys, id)
		}
		for _, o := range [][]byte{p.Assignment[:], owner[:]} {
			var id []byte
			if err := tx.QueryRow(`SELECT owner_key FROM key_list WHERE owner = $1`, o).Scan(&id); err != nil {
				return err
			}
			keys = append(keys, id)
		}
		return rows.Err()
	})
	if err != nil || len(boxes) == 0 {
		h.t.Fatalf("%d boxes: %v", len(boxes), err)
	}
	for _, x := range boxes {
		for _, at := range []int64{x.at, x.at + x.size/2, x.at + x.size - 32} {
			mark := make([]byte, 32)
			if err := h.stores.blobs.ReadAt(h.t.Context(), x.blob, mark, at); err != nil {
				h.t.Fatal(err)
			}
			ciphertext = append(ciphertext, mark)
		}
	}
	return ciphertext, keys
}

// count is how many of the marks are in some piece.
func count(pieces map[string][]byte, marks [][]byte) (n int) {
	for _, mark := range marks {
		for _, content := range pieces {
			if bytes.Contains(content, mark) {
				n++
				break
			}
		}
	}
	return n
}

// What was erased before a backup began is not in it: no ciphertext, no id of a key.
// Pieces that it shares with an older one hold nothing of it either.
func TestABackupAfterAnErasureHasNothingOfIt(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada, ben := h.person("Ada"), h.person("Ben")
	lamp, clock := h.device(ada.Party, "lamp"), h.device(ben.Party, "clock")
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	draw := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		h.mustSend(lamp, number("lux", at.Add(time.Duration(i)*time.Second), draw.Float64()))
		h.mustSend(clock, number("tick", at.Add(time.Duration(i)*time.Second), draw.Float64()))
	}
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	hers, herKeys := h.marks(lamp, ada.Party)
	his, hisKeys := h.marks(clock, ben.Party)
	first := b.take(h)
	before := b.open(first.Snapshot)
	if n, k := count(before, hers), count(before, herKeys); n != len(hers) || k != len(herKeys) {
		t.Fatalf("the backup before has %d of %d marks of her readings and %d of %d ids of keys: nothing is shown by their absence", n, len(hers), k, len(herKeys))
	}
	scope, err := h.custody.ScopeOfParty(t.Context(), ada.Party)
	if err != nil {
		t.Fatal(err)
	}
	h.erase(ada, scope)
	for time.Now().Unix() == first.Statement.Began.Unix() { // of two in one second neither is the newest
		time.Sleep(10 * time.Millisecond)
	}
	after := b.open(b.take(h).Snapshot)
	if n, k := count(after, hers), count(after, herKeys); n > 0 || k > 0 {
		t.Errorf("the backup after her erasure has %d marks of her readings and %d ids of her keys", n, k)
	}
	if n, k := count(after, his), count(after, hisKeys); n != len(his) || k != len(hisKeys) {
		t.Errorf("it has %d of %d marks of his readings and %d of %d ids of his keys", n, len(his), k, len(hisKeys))
	}
	// When the older one is pruned, nothing of hers is left in the folder.
	f, err := backup.OpenFolder(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Prune(t.Context(), 24*time.Hour, time.Now().Add(25*time.Hour), backup.PruneOptions{})
	if err = errors.Join(err, f.Close()); err != nil || p.Kept != 1 || len(p.Snapshots) != 1 {
		t.Fatalf("pruned: %+v (%v)", p, err)
	}
	files, err := filepath.Glob(filepath.Join(b.dir, "pieces", "*", "*.age"))
	if err != nil || len(files) != len(after)-1 {
		t.Errorf("%d pieces are left, the backup has %d (%v)", len(files), len(after)-1, err)
	}
	if c := b.check(""); c.BadPieces > 0 {
		t.Errorf("after the pruning: %v", c.Bad)
	}
}

// watchedSource waits, in the middle of a backup, for readings to be acknowledged.
type watchedSource struct {
	ownSource
	acknowledged *atomic.Int64
	before       int64 // acknowledged before it began
}

func (s *watchedSource) Begin(ctx context.Context, keep time.Duration) (backup.Plan, error) {
	s.before = s.acknowledged.Load()
	return s.ownSource.Begin(ctx, keep)
}

func (s *watchedSource) Parts(ctx context.Context, plan string, n, count int, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for until := s.acknowledged.Load() + 20; s.acknowledged.Load() < until; {
		select {
		case <-ctx.Done():
			return errors.New("nothing is acknowledged while a backup runs")
		case <-time.After(time.Millisecond):
		}
	}
	return s.ownSource.Parts(ctx, plan, n, count, w)
}

func TestABackupWhileReadingsArrive(t *testing.T) {
	h, b := newHouse(t), newShelf(t)
	ada := h.person("Ada")
	lamp := h.device(ada.Party, "lamp")
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var acknowledged atomic.Int64
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := h.send(lamp, number("lux", at.Add(time.Duration(i)*time.Second), float64(i))); err != nil {
				stopped <- err
				return
			}
			acknowledged.Add(1)
		}
	}()
	f, err := backup.OpenFolder(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var last backup.Report
	for range 3 {
		s := &watchedSource{ownSource: ownSource{h.Server}, acknowledged: &acknowledged}
		if last, err = backup.Take(t.Context(), s, f, b.to, backup.TakeOptions{}); err != nil {
			t.Fatal(err)
		}
		now := acknowledged.Load()
		if last.Statement.Readings < s.before || last.Statement.Readings > now+1 || now < s.before+20 {
			t.Errorf("the backup has %d readings; %d were acknowledged before it began, %d when it ended", last.Statement.Readings, s.before, now)
		}
		if c := b.check(last.Snapshot); c.BadPieces > 0 {
			t.Errorf("wrong: %v", c.Bad)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	h.halt()
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := b.restore(h, dir, last.Snapshot, b.ids); err != nil {
		t.Fatal(err)
	}
	restored := &house{t: t, dir: dir, rootKey: h.rootKey}
	restored.start()
	t.Cleanup(restored.halt)
	have, err := restored.read(ada, lamp, "lux")
	if err != nil || int64(len(have)) != last.Statement.Readings {
		t.Fatalf("%d readings restored, the backup has %d (%v)", len(have), last.Statement.Readings, err)
	}
	for i, r := range have {
		if r.Value != holdfast.NumberValue(float64(i)) {
			t.Fatalf("reading %d is %v: one is missing", i, r.Value)
		}
	}
}

// A disk of backups that is full: said so, the earlier backup is whole, and when there
// is room the next run goes on.
func TestABackupToAFullDisk(t *testing.T) {
	disk := mounted(t, 64)
	h, b := newHouse(t), newShelf(t)
	b.dir = filepath.Join(disk, "backups")
	lamp := h.device(h.person("Ada").Party, "lamp")
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	draw := rand.NewChaCha8([32]byte{1})
	h.mustSend(lamp, number("lux", at, 1))
	first := b.take(h)
	for i := range 24 { // what does not compress
		raw := make([]byte, 48<<10)
		draw.Read(raw)
		h.mustSend(lamp, holdfast.Sample{Stream: "log", Time: at.Add(time.Duration(i) * time.Second).UnixNano(), Timed: true, Value: holdfast.TextValue(fmt.Sprintf("%x", raw))})
	}
	ballast := fillDisk(t, disk)
	info, err := os.Stat(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ballast, info.Size()-900<<10); err != nil { // room for some of the catalog's pages, not for the segment
		t.Fatal(err)
	}
	f, err := backup.OpenFolder(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := backup.Take(t.Context(), ownSource{h.Server}, f, b.to, backup.TakeOptions{})
	if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("a run onto a full disk: %+v, %v", r, err)
	}
	f.Close()
	if left, _ := filepath.Glob(filepath.Join(b.dir, "*", "*", "*.tmp")); len(left) > 0 {
		t.Errorf("half written: %v", left)
	}
	if c := b.check(""); c.Snapshot != first.Snapshot || c.BadPieces > 0 { // it is the only one
		t.Errorf("backup %s of before: %v", c.Snapshot, c.Bad)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	second := b.take(h)
	if c := b.check(second.Snapshot); c.BadPieces > 0 || second.New == second.Pieces {
		t.Errorf("with room: %d of %d pieces new, wrong: %v", second.New, second.Pieces, c.Bad)
	}
}
