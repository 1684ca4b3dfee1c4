package bench

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	for _, x := range []struct {
		in   []float64
		want Spread
	}{
		{[]float64{3, 1, 2}, Spread{1, 2, 3}},
		{[]float64{4, 1, 3, 2}, Spread{1, 2.5, 4}},
		{[]float64{7}, Spread{7, 7, 7}},
	} {
		if got := SpreadOf(x.in); got != x.want {
			t.Errorf("SpreadOf(%v) = %v, want %v", x.in, got, x.want)
		}
	}
	if s := SpreadOf(nil); !math.IsNaN(s.Median) {
		t.Errorf("nothing has a median of %v", s)
	}
}

func TestFormat(t *testing.T) {
	for _, x := range []struct {
		unit Unit
		v    float64
		want string
	}{
		{PerCore, 552_341, "552k/s/core"}, {PerSecond, 9_999, "9999/s"}, {PerSecond, 2_500_000, "2.50M/s"},
		{Bytes, 24_371, "23.8 KiB"}, {Bytes, 256 << 20, "256 MiB"}, {Bytes, 0.812, "0.812 B"},
		{Seconds, 0.000512, "512 µs"}, {Seconds, 0.0125, "12.5 ms"}, {Seconds, 3, "3 s"}, {Seconds, 2.55e-8, "25.5 ns"},
		{Times, 1.25, "1.25x"}, {Count, 3, "3"}, {PerSecond, math.NaN(), "-"}, {PerSecond, math.Inf(1), "-"},
	} {
		if got := x.unit.Format(x.v); got != x.want {
			t.Errorf("%v as %q: %q, want %q", x.v, x.unit, got, x.want)
		}
	}
}

// made is a result of a figure that exists, with a peer.
func made() *Result {
	return &Result{
		Figure: "P1", Date: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Command: "./test --peers P1",
		Machine: Machine{CPU: "a processor", Cores: 2, Memory: 24 << 30, Kernel: "6.18", Filesystem: "ext4", Go: "go1.26"},
		Sides: []Rounds{
			{Own, "0.1.0", 2026, []Values{
				{"per_core": 400, "rate": 300_000, "peak": 300 << 20, "server_cores": 1, "generator_cores": 0.9},
				{"per_core": 900, "rate": 200_000, "peak": 290 << 20, "server_cores": 1, "generator_cores": 0.9},
				{"per_core": 500, "rate": 260_000, "peak": 310 << 20, "server_cores": 1, "generator_cores": 0.9},
			}},
			{mosquitto, "2.0.11", 2021, []Values{{"per_core": 50, "rate": 40}, {"per_core": 100, "rate": 50}, {"per_core": 50, "rate": 45}}},
		},
		Before: Probe{time.Millisecond, 2 * time.Millisecond, time.Millisecond, 2 * time.Millisecond},
		After:  Probe{time.Millisecond, 2 * time.Millisecond, time.Millisecond, 2 * time.Millisecond},
	}
}

// A ratio is the median of the rounds' ratios, not the ratio of medians; a goal
// that is Holdfast's own is judged without the peer.
func TestRows(t *testing.T) {
	f, r := p1(), made()
	rows := map[string]Row{}
	for _, row := range f.Rows(r) {
		rows[row.Measure.Key] = row
	}
	if got := *rows["per_core"].Ratio; got != (Spread{8, 9, 10}) {
		t.Errorf("the ratios are %v", got)
	}
	if rows["per_core"].Verdict != Hit || rows["rate"].Verdict != Hit || rows["peak"].Verdict != Miss {
		t.Errorf("verdicts %q, %q, %q", rows["per_core"].Verdict, rows["rate"].Verdict, rows["peak"].Verdict)
	}
	r.Sides = r.Sides[:1]
	for _, row := range f.Rows(r) {
		if row.Measure.Key == "per_core" && row.Verdict != NotCompared {
			t.Errorf("without its peer: %q", row.Verdict)
		}
	}
}

// The page keeps what it says of figures that are not measured anew, and is the
// same for the same results.
func TestPageKeepsOtherFigures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := WritePage(path, []*Result{made()}); err != nil {
		t.Fatal(err)
	}
	other := made()
	other.Figure, other.Command = "P2", "./test --peers P2 --for 1s"
	other.Sides[1].Version = "2.0.99"
	if err := WritePage(path, []*Result{other}); err != nil {
		t.Fatal(err)
	}
	both, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## P1", "## P2", "`./test --peers P1`", "`./test --peers P2 --for 1s`", "mosquitto 2.0.11 (2021)", "2.0.99", "**9x** (8x to 10x)", "≥ 8x", "Missed: peak memory", "a processor"} {
		if !strings.Contains(string(both), want) {
			t.Errorf("the page does not say %q:\n%s", want, both)
		}
	}
	if err := WritePage(path, nil); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(both), string(again)); d != "" {
		t.Errorf("written again, the page differs:\n%s", d)
	}
}

func TestFind(t *testing.T) {
	all, err := Find([]string{"all"})
	if err != nil || len(all) != len(Figures()) {
		t.Fatalf("all: %d %v", len(all), err)
	}
	seen := map[string]bool{}
	for _, f := range all {
		if seen[f.ID] || f.Title == "" || f.What == "" || f.Holdfast == nil || len(f.Measures) == 0 {
			t.Errorf("figure %q is not whole, or there twice", f.ID)
		}
		seen[f.ID] = true
	}
	if some, err := Find([]string{"p3", "P1"}); err != nil || len(some) != 2 || some[0].ID != "P1" {
		t.Errorf("p3 and P1: %v %v", some, err)
	}
	if _, err := Find([]string{"P1", "P0"}); err == nil {
		t.Error("P0 was found")
	}
}

// Processor time is the process's, whatever its name is.
func TestCPUAndMemory(t *testing.T) {
	program := filepath.Join(t.TempDir(), "a) R (b")
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(sh, program); err != nil {
		t.Fatal(err)
	}
	p, err := StartProcess(t.Context(), "spinner", exec.Command(program, "-c", "while :; do :; done"), nothingToWaitFor)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		used, err := CPU(p.PID())
		if err != nil {
			t.Fatal(err)
		}
		if used >= 50*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a process that only spins has used %s", used)
		}
	}
	if now, peak, err := Memory(p.PID()); err != nil || now <= 0 || peak < now {
		t.Errorf("memory %d, at most %d: %v", now, peak, err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := CPU(p.PID()); err == nil {
		t.Error("a process that has ended has processor time")
	}
}

func nothingToWaitFor(context.Context) error { return nil }

func never(context.Context) error { return errors.New("not yet") }

// A server that ends by itself is told with what it said last.
func TestProcessThatEnds(t *testing.T) {
	_, err := StartProcess(t.Context(), "broken", exec.Command("sh", "-c", "echo no such port >&2; exit 3"), never)
	if err == nil || !strings.Contains(err.Error(), "no such port") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	p, err := ProbeDisk(t.Context(), dir)
	if err != nil || p.AppendP50 <= 0 || p.OverwriteP99 < p.OverwriteP50 {
		t.Errorf("%v %v", p, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	slow := p
	slow.OverwriteP50 = 4 * p.OverwriteP50
	if p.Differs(p) || !p.Differs(slow) || !slow.Differs(p) {
		t.Error("a disk that is four times as slow is disturbed, one that is the same is not")
	}
}
