package budget

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func TestAllowance(t *testing.T) {
	now := time.Unix(1000, 0).UnixNano()
	a := newAllowance(Rate{Readings: 10, Bytes: 1000, Burst: 2 * time.Second})
	for _, x := range []struct {
		after           time.Duration
		readings, bytes int
		debt            time.Duration
	}{
		{0, 20, 100, 0}, // the burst
		{0, 1, 0, 100 * time.Millisecond},
		{0, 1, 0, 200 * time.Millisecond},
		{200 * time.Millisecond, 0, 0, 0}, // paid
		{0, 0, 2000, 0},                   // the 100 are back
		{0, 0, 500, 500 * time.Millisecond},
		{time.Hour, 20, 2000, 0}, // no more than the burst was saved
		{0, 1, 1, 100 * time.Millisecond},
	} {
		now += int64(x.after)
		if x.readings+x.bytes == 0 {
			if d := a.Debt(now); d != x.debt {
				t.Errorf("%+v: the debt is %s", x, d)
			}
			continue
		}
		if d := a.Take(now, x.readings, x.bytes); d != x.debt {
			t.Errorf("%+v: %s", x, d)
		}
	}
	var nobody *Allowance
	if nobody.Take(now, 1<<30, 1<<30) != 0 || nobody.Debt(now) != 0 || newAllowance(Rate{}).Take(now, 1<<30, 1<<30) != 0 {
		t.Error("without a rate something is bounded")
	}
}

// Whatever the interleaving, what all take together is what is owed.
func TestAllowanceIsShared(t *testing.T) {
	now := time.Unix(1000, 0).UnixNano()
	a := newAllowance(Rate{Readings: 1000, Burst: time.Second})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				a.Take(now, 1, 1)
			}
		})
	}
	wg.Wait()
	if d := a.Debt(now); d != 7*time.Second {
		t.Errorf("8,000 of 1,000 a second, 1,000 at once: a debt of %s", d)
	}
}

func TestQuotas(t *testing.T) {
	q := NewQuotas()
	now := time.Unix(1000, 0).UnixNano()
	r := Rate{Readings: 1, Burst: time.Second}
	id := func(i int) (d holdfast.DeviceID) { binary.BigEndian.PutUint64(d[8:], uint64(i+1)); return d }
	a := q.Of(id(0), r, now)
	a.Take(now, 2, 0)
	q.Of(id(1), r, now).Take(now+1, 3, 0)
	q.Of(id(2), r, now).Take(now, 1, 0)
	if q.Of(id(0), r, now) != a || q.Of(id(0), Rate{Readings: 2, Burst: time.Second}, now) == a {
		t.Error("an allowance goes with the device and its rate")
	}
	q.Of(id(0), r, now).Take(now, 2, 0)
	if got := q.Slowed(now); !slices.Equal(got, []holdfast.DeviceID{id(1), id(0)}) {
		t.Errorf("slowed were %v", got)
	}
	now += 2 * int64(time.Hour)
	busy := q.Of(id(3), r, now)
	busy.Take(now, 5, 0)
	for i := range 3 * leastPrune {
		q.Of(id(10+i), r, now)
	}
	if n := len(q.of); n > 2*leastPrune || q.Of(id(3), r, now) != busy {
		t.Errorf("%d are remembered; the busy one has its debt: %v", n, q.Of(id(3), r, now) == busy)
	}
}

// BenchmarkTake is what a read costs a connection, however many publishes it
// brings.
func BenchmarkTake(b *testing.B) {
	a := newAllowance(Rate{Readings: 20_000, Bytes: 8 << 20, Burst: 30 * time.Second})
	now := time.Now().UnixNano()
	b.ReportAllocs()
	for b.Loop() {
		now += int64(time.Millisecond)
		if a.Take(now, 1, 100) != 0 {
			b.Fatal("over the rate")
		}
	}
}
