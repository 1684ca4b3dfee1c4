package alarm

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/testseed"
)

const second = int64(time.Second)

// told is what a rule came to by the definition: each second by itself, from all
// readings up to it. It knows nothing of machines.
func told(c *Condition, all []point, began, end int64) (out []change) {
	value := func(s int64) (p point, ok bool) {
		for _, q := range all {
			if q.at <= s && (!ok || q.at >= p.at) {
				p, ok = q, true
			}
		}
		return p, ok
	}
	holds, firing := false, false
	var run, over int64 // since when it is so, or is not, without a break
	for s := began; s <= end; s += second {
		was := holds
		p, ok := value(s)
		switch {
		case c.Kind == Silence:
			last := began
			if ok {
				last = p.at
			}
			holds = s-last >= int64(c.Silence)
		case !ok || p.at != s:
		case c.Kind == Rate:
			first := p
			for _, q := range all {
				if q.at >= s-int64(c.Per) && q.at < first.at {
					first = q
				}
			}
			holds = byWords(c, was, p.value-first.value)
		default:
			holds = byWords(c, was, p.value)
		}
		if holds != was || s == began {
			run, over = s, s
		}
		switch {
		case holds && !firing && s-run >= int64(c.For):
			firing = true
			out = append(out, change{phase: Firing, at: s})
		case !holds && firing && s-over >= int64(c.Keep):
			firing = false
			out = append(out, change{phase: OK, at: s})
		}
	}
	return out
}

// byWords is hysteresis as docs/alarms.md has it.
func byWords(c *Condition, was bool, v float64) bool {
	begins, ends := false, false
	switch c.Op {
	case Above:
		begins, ends = v > c.Level, v <= *c.Clear
	case Below:
		begins, ends = v < c.Level, v >= *c.Clear
	case Outside:
		begins, ends = v < c.Level || v > c.High, v >= *c.Clear && v <= *c.ClearHigh
	case Equals:
		begins, ends = v == c.Level, v != c.Level
	}
	if was {
		return !ends
	}
	return begins
}

func drawn(r *rand.Rand) *Condition {
	f := func(v float64) *float64 { return &v }
	c := &Condition{Kind: []Kind{Threshold, Rate, Silence}[r.IntN(3)], Op: []Op{Above, Below, Outside, Equals}[r.IntN(4)],
		For: time.Duration(r.IntN(4)) * 3 * time.Second, Keep: time.Duration(r.IntN(3)) * 4 * time.Second}
	c.Per, c.Silence = time.Duration(1+r.IntN(30))*time.Second, time.Duration(1+r.IntN(12))*time.Second
	c.Level = float64(r.IntN(5))
	switch c.Op {
	case Above:
		c.Clear = f(c.Level - float64(r.IntN(3)))
	case Below:
		c.Clear = f(c.Level + float64(r.IntN(3)))
	case Outside:
		c.High = c.Level + 4
		c.Clear, c.ClearHigh = f(c.Level+float64(r.IntN(2))), f(c.High-float64(r.IntN(2)))
	case Equals:
		if c.Kind == Rate {
			c.Op, c.Clear = Above, f(c.Level)
		}
	}
	return c
}

// TestIncrementsAgreeWithHistory: however often somebody looks, and with restarts in
// between, a rule comes to what it comes to over the whole history at once, and to
// what its words say of each second.
func TestIncrementsAgreeWithHistory(t *testing.T) {
	seed, fired := testseed.Of(t), 0
	for round := range 400 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		c := drawn(r)
		if err := c.check(nil); err != nil {
			t.Fatalf("seed %d round %d: %v", seed, round, err)
		}
		began := 1_000_000 * second
		end := began + 120*second
		var all []point
		for at := began; at <= end; at += second {
			if r.IntN(3) > 0 {
				all = append(all, point{at: at, value: float64(r.IntN(11) - 2), isNum: true})
			}
			if r.IntN(20) == 0 {
				at += int64(r.IntN(20)) * second
			}
		}
		start := machine{Phase: OK, Seen: began, Clock: began - 1}
		once := start
		want := once.advance(c, all, end)
		m := start
		var got []change
		for now := began; now < end; {
			now = min(end, now+int64(r.IntN(15))*second)
			from := m.Mark
			if c.Kind == Rate && m.window == nil {
				from -= int64(c.Per) + second
			}
			var fresh []point
			for _, p := range all {
				if p.at > from && p.at <= now {
					fresh = append(fresh, p)
				}
			}
			got = append(got, m.advance(c, fresh, now)...)
			if r.IntN(4) == 0 { // a restart
				text, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				m = machine{}
				if err := json.Unmarshal(text, &m); err != nil {
					t.Fatal(err)
				}
			}
		}
		said, _ := json.Marshal(c)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d round %d %s: in steps %v, at once %v", seed, round, said, got, want)
		}
		plain := func(all []change) (s string) {
			for _, x := range all {
				s += fmt.Sprint(x.phase, " ", (x.at-began)/second, " ")
			}
			return s
		}
		if oracle := plain(told(c, all, began, end)); plain(want) != oracle {
			t.Fatalf("seed %d round %d %s:\n has  %s\n want %s", seed, round, said, plain(want), oracle)
		}
		fired += len(want)
	}
	if fired < 400 {
		t.Errorf("seed %d: only %d changes: the test asks for little", seed, fired)
	}
}

// TestLateReadings: what comes after a newer one was taken fires nothing.
func TestLateReadings(t *testing.T) {
	c := &Condition{Kind: Threshold, Op: Above, Level: 5}
	m := machine{Phase: OK}
	if got := m.advance(c, []point{{at: 10 * second, value: 9, isNum: true}}, 11*second); len(got) != 1 || got[0].phase != Firing {
		t.Fatal(got)
	}
	late := []point{{at: 8 * second, value: 1, isNum: true}, {at: 9 * second, value: 9, isNum: true}, {at: 10 * second, value: 9, isNum: true}}
	if got := m.advance(c, late, 12*second); len(got) != 0 || m.Phase != Firing {
		t.Fatal(got)
	}
}
