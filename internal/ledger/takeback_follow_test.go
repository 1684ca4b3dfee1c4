package ledger

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// One file of take-backs takes the place of another only if it begins with all that
// the other has.
func TestWhichTakeBacksFollow(t *testing.T) {
	l := open(t).Ledger
	only := func(generation uint64) string {
		all := files(t, l, generation)
		return string(all[slices.Min(slices.Collect(maps.Keys(all)))])
	}
	add(t, l, many(3)...)
	short := only(1)
	add(t, l, many(4)...)
	long, later := only(1), only(2)
	forget(t, l, 3)
	add(t, l, many(9)...)
	fork := only(5) // longer, and of a later generation, than all others

	flipped := func(s, at string) string { return strings.Replace(s, at, "~"+at[1:], 1) }
	lines := strings.SplitAfter(long, "\n")
	forkLines := strings.SplitAfter(fork, "\n")
	for _, c := range []struct {
		name, ours, theirs string
		want               bool
	}{
		{"the same", long, long, true},
		{"more of the same", long, short, true},
		{"less", short, long, false},
		{"a later generation", later, long, true},
		{"an earlier generation", long, later, false},
		{"longer, of another history", fork, long, false},
		{"shorter, of another history", long, fork, false},
		{"another beginning only", fork, short, true},
		{"empty", long, "", true},
		{"zeros", long, strings.Repeat("\x00", len(long)), true},
		{"cut", long, long[:len(long)*2/3], true},
		{"ours, damaged in its head", long, flipped(long, lines[6]), true},
		{"ours, damaged in a line", long, flipped(long, lines[9]), true},
		{"further, damaged in a line", short, flipped(long, lines[9]), false},
		{"further, damaged in its head", short, flipped(long, lines[6]), false},
		{"another history, damaged in its head", long, flipped(fork, forkLines[6]), false},
		{"another history, damaged in a line", long, flipped(fork, forkLines[8]), false},
		{"of a newer version", long, strings.Replace(long, takeBackHeader, "holdfast take-backs 2", 1), false},
	} {
		if err := TakeBacksFollow([]byte(c.ours), []byte(c.theirs)); (err == nil) != c.want {
			t.Errorf("%s: %v, want it to follow: %v", c.name, err, c.want)
		}
	}
}
