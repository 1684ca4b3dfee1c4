package budget

import (
	"fmt"
	"testing"
	"time"
)

func TestBudgetIsSpentAndComesBack(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	b := New(1, time.Second, 2)
	for i, want := range []bool{true, true, false} {
		if got := b.Spend("a", now); got != want {
			t.Errorf("event %d: %v", i, got)
		}
	}
	if !b.Spend("b", now) {
		t.Error("one name's events count for another")
	}
	if !b.Spend("a", now.Add(time.Second)) {
		t.Error("the allowance does not come back")
	}
}

func TestBudgetIsBounded(t *testing.T) {
	now := time.Now()
	b := New(1, time.Second, 2)
	for n := range 3 * maxNames {
		b.Spend(fmt.Sprint(n), now)
	}
	if len(b.of) > maxNames {
		t.Errorf("%d names", len(b.of))
	}
}

func TestNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":            "192.0.2.7",
		"[::ffff:192.0.2.7]:1":      "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:5":          "fe80::/64",
		"somewhere":                 "somewhere",
	} {
		if got := Network(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}
