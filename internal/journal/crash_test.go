package journal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

// story is what happened to a journal: what was handed over, in order, and what
// of it was acknowledged, where.
type story struct {
	given   []string
	acked   map[string]Pos
	trimmed Pos // asked of Trim
	err     error
}

// live hands over records in groups of several, trims now and then, and stops at
// the first failure.
func (s *story) live(f *File, rng *rand.Rand, groups int) {
	for range groups {
		type result struct {
			record string
			pos    Pos
			err    error
		}
		n := 1 + rng.IntN(6)
		results := make(chan result, n)
		for range n {
			// All different, of all lengths, now and then larger than a block.
			size := 8 * rng.IntN(3)
			if rng.IntN(3) == 0 {
				size = rng.IntN(200)
			}
			if rng.IntN(8) == 0 {
				size = rng.IntN(3000)
			}
			record := fmt.Sprintf("%07d:", len(s.given)) + strings.Repeat(string(rune('a'+rng.IntN(26))), size)
			s.given = append(s.given, record)
			f.Append([]byte(record), func(pos Pos, err error) { results <- result{record, pos, err} })
		}
		for range n {
			r := <-results
			if r.err != nil {
				s.err = r.err
				continue
			}
			s.acked[r.record] = r.pos
		}
		if s.err != nil {
			return
		}
		if rng.IntN(4) == 0 {
			s.trimmed = f.End() / 2
			if s.err = f.Trim(s.trimmed); s.err != nil {
				return
			}
		}
	}
}

// check reads a journal after a crash: everything acknowledged and not trimmed is
// there once, where it was said to be, and all there is was once handed over,
// in the order it was.
func (s *story) check(t *testing.T, f *File) {
	t.Helper()
	var order []int
	found := map[string]Pos{}
	last, fresh := Pos(0), true
	for e, err := range f.Read(0) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if !fresh && e.Pos < last {
			t.Fatalf("position %d comes after a record that ends at %d", e.Pos, last)
		}
		i := slices.Index(s.given, string(e.Data))
		if i < 0 {
			t.Fatalf("at %d stands what nobody appended: %.40q", e.Pos, e.Data)
		}
		if b, err := f.At(e.Pos); err != nil || string(b) != string(e.Data) {
			t.Fatalf("at %d: %.40q, %v", e.Pos, b, err)
		}
		order = append(order, i)
		found[string(e.Data)] = e.Pos
		last, fresh = e.Next, false
	}
	if !slices.IsSorted(order) || len(found) != len(order) {
		t.Fatalf("records out of order or twice: %v", order)
	}
	if f.End() < last {
		t.Fatalf("end %d is before the end of the last record, %d", f.End(), last)
	}
	for record, pos := range s.acked {
		at, ok := found[record]
		switch {
		case ok && at != pos:
			t.Fatalf("%.7s was acknowledged at %d and is at %d", record, pos, at)
		case !ok && pos >= s.trimmed:
			t.Fatalf("%.7s at %d was acknowledged and is lost", record, pos)
		}
	}
}

func memOpen(d *memDisk) (*File, error) {
	o, err := small.withDefaults()
	if err != nil {
		return nil, err
	}
	return open(d, o)
}

// TestPowerCutAtEveryStep cuts the power before, in the middle of and after each
// write, sync, rename and unlink of a whole life: open, append, rotate, trim,
// close, and then the same for the recovery itself.
func TestPowerCutAtEveryStep(t *testing.T) {
	for _, x := range []fate{powerCut, powerTorn, powerAfter} {
		for seed := range uint64(4) {
			for at := 1; ; at++ {
				d := newMemDisk(seed)
				d.fault = cutAt(d, at, x)
				s := story{acked: map[string]Pos{}}
				if f, err := memOpen(d); err == nil {
					s.live(f, rand.New(rand.NewPCG(seed, 2)), 25)
					f.Close() // its error is that the power is gone
				}
				if !d.dead {
					if at < 60 {
						t.Fatalf("a life of only %d steps", at)
					}
					break
				}
				afterPowerCut(t, d, &s, seed*1000+uint64(at))
				if t.Failed() {
					t.Fatalf("fate %d, seed %d, step %d", x, seed, at)
				}
			}
		}
	}
}

// TestManyPowerCuts lets one log live through many of them, so that what an
// earlier one left behind meets the later ones.
func TestManyPowerCuts(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 5))
		d := newMemDisk(seed)
		s := story{acked: map[string]Pos{}}
		for life := range 30 {
			d.fault = cutAt(d, 3+rng.IntN(40), fate(int(powerCut)+rng.IntN(3)))
			if f, err := memOpen(d); err == nil {
				s.check(t, f)
				s.err = nil
				s.live(f, rng, 25)
				f.Close() // its error is that the power is gone
			} else if !d.dead {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			if t.Failed() {
				t.Fatalf("seed %d, life %d", seed, life)
			}
			d = d.reboot(rng.Uint64())
		}
	}
}

func cutAt(d *memDisk, at int, x fate) func() fate {
	return func() fate {
		if d.steps == at {
			return x
		}
		return fine
	}
}

func afterPowerCut(t *testing.T, d *memDisk, s *story, seed uint64) {
	t.Helper()
	// The power may go again while the first recovery works.
	again := d.reboot(seed)
	again.fault = cutAt(again, 1+int(seed%7), powerTorn)
	if f, err := memOpen(again); err == nil {
		s.check(t, f)
		f.Close()
	}
	f, err := memOpen(again.reboot(seed + 1))
	if err != nil {
		t.Errorf("open after the power cut: %v", err)
		return
	}
	defer f.Close()
	s.check(t, f)
	// It works on, and a clean restart keeps everything.
	before := get(t, f, 0)
	put(t, f, "after the power cut")
	if diff := cmp.Diff(append(before, "after the power cut"), get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
}

// TestFailureAtEveryStep makes each step fail, done or not. Nothing may be
// acknowledged after it that a power cut could take.
func TestFailureAtEveryStep(t *testing.T) {
	for _, x := range []fate{notDone, butDone, torn} {
		for at := 1; ; at++ {
			d := newMemDisk(uint64(at))
			d.fault = cutAt(d, at, x)
			s := story{acked: map[string]Pos{}}
			f, err := memOpen(d)
			if err == nil {
				s.live(f, rand.New(rand.NewPCG(uint64(at), 3)), 25)
				checkRefusal(t, d, f)
				f.Close()
				if d.steps < at {
					break
				}
			}
			if s.err != nil && holdfast.KindOf(s.err) != holdfast.Unavailable {
				t.Errorf("a failed step gave %v", s.err)
			}
			for name, next := range map[string]*memDisk{"process": d.restart(), "power": d.reboot(uint64(at))} {
				g, err := memOpen(next)
				if err != nil {
					t.Fatalf("fate %d, step %d: open after the %s ended: %v", x, at, name, err)
				}
				s.check(t, g)
				mustClose(t, g)
			}
			if t.Failed() {
				t.Fatalf("fate %d, step %d", x, at)
			}
		}
	}
}

// checkRefusal asserts that a failed journal takes nothing and syncs nothing.
func checkRefusal(t *testing.T, d *memDisk, f *File) {
	t.Helper()
	select {
	case <-f.Failed():
	default:
		return // the step was not the committer's: the log works on
	}
	syncs := d.syncs
	for range 3 {
		if _, err := appendOne(f, "late"); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("append after a failure: %v", err)
		}
	}
	if err := f.Trim(f.End()); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("trim after a failure: %v", err)
	}
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "new process") {
		t.Errorf("close after a failure: %v", err)
	}
	if d.syncs != syncs {
		t.Errorf("%d syncs after a failure", d.syncs-syncs)
	}
}

// TestSyncFailsOnceThenProcessRestarts is the trap of the kernel that forgets: the
// sync failed, the page cache still shows the record, the disk never got it. If
// recovery shows the record to a reader, it must have become durable.
func TestSyncFailsOnceThenProcessRestarts(t *testing.T) {
	d := newMemDisk(1)
	f, err := memOpen(d)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f, "first")
	d.forgetful = true
	if _, err := appendOne(f, "second"); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Fatalf("append: %v", err)
	}
	<-f.Failed()
	f.Close() // its error is the failure
	d.forgetful = false
	// The next process, on the same kernel.
	g, err := memOpen(d)
	if err != nil {
		t.Fatal(err)
	}
	shown := get(t, g, 0)
	h, err := memOpen(d.reboot(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(shown, get(t, h, 0)); diff != "" {
		t.Errorf("shown before the power cut, and after it: %s", diff)
	}
	mustClose(t, g)
	mustClose(t, h)
}

func TestFullDiskHeals(t *testing.T) {
	d := newMemDisk(1)
	f, err := memOpen(d)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.full = true
	d.mu.Unlock()
	put(t, f, long("a"), long("b"))
	for range 3 {
		_, err := appendOne(f, long("c"))
		if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "free 1 MiB") {
			t.Errorf("append to a full disk: %v", err)
		}
	}
	if err := f.Cut(); holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("cut on a full disk: %v", err)
	}
	put(t, f, "short") // there is room for it
	if all, _ := d.List(); len(all) != 1 {
		t.Errorf("files left by the tries: %v", all)
	}
	d.mu.Lock()
	d.full = false
	d.mu.Unlock()
	put(t, f, long("d"))
	want := []string{long("a"), long("b"), "short", long("d")}
	if diff := cmp.Diff(want, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
	select {
	case <-f.Failed():
		t.Error("a full disk is no failure")
	default:
	}
	mustClose(t, f)
	d.full = true // a full disk does not stop the start of a log that is there
	if f, err = memOpen(d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, get(t, f, 0)); diff != "" {
		t.Error(diff)
	}
	mustClose(t, f)
	empty := newMemDisk(1)
	empty.full = true
	if _, err := memOpen(empty); holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("open a new log on a full disk: %v", err)
	}
}
