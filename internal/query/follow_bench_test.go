package query_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// Many followers get all that they follow, within little memory. HOLDFAST_LONG=1:
// a thousand, of 10,000 readings a second.
func TestManyFollowers(t *testing.T) {
	followers, devices, rate, rounds := 40, 8, 1000, 3
	if os.Getenv("HOLDFAST_LONG") != "" {
		followers, devices, rate, rounds = 1000, 200, 10_000, 100
	}
	h := querytest.Build(t)
	anna := h.Party("Anna Kowalska")
	all := make([]custody.Device, devices)
	at := h.Now()
	for i := range all {
		all[i] = h.Device(custody.DeviceSpec{Label: fmt.Sprint("device ", i), Owner: anna.Party})
		h.Send(all[i], querytest.At("temp", at, holdfast.NumberValue(0)))
	}
	h.Query = budgeted(h, query.Options{})
	each := rate / devices / 10 // readings of a device in a tenth of a second
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	var running sync.WaitGroup
	var given atomic.Int64
	var mu sync.Mutex
	var delays []time.Duration
	for n := range followers {
		feed, err := h.Query.Follow(ctx, query.Follow{Who: anna, Selection: query.Selection{Device: all[n%devices].ID}})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			seen, want := 0, rounds*each
			last := int64(0)
			for item, err := range feed.Items {
				if err != nil {
					t.Errorf("a follower ended after %d readings: %v", seen, err)
					return
				}
				if item.Row == nil {
					continue
				}
				if item.Row.Time <= last {
					t.Errorf("reading %d came after %d", item.Row.Time, last)
				}
				last = item.Row.Time
				given.Add(1)
				if seen++; seen%each == 0 {
					mu.Lock()
					delays = append(delays, time.Duration(time.Now().UnixNano()-item.Arrived))
					mu.Unlock()
				}
				if seen == want {
					return
				}
			}
		})
	}
	began := time.Now()
	for round := range rounds {
		var sending sync.WaitGroup
		for d := range 8 {
			sending.Go(func() {
				for i := d; i < devices; i += 8 {
					samples := make([]holdfast.Sample, each)
					for k := range samples {
						samples[k] = querytest.At("temp", at.Add(time.Duration(round*each+k+1)*time.Millisecond), holdfast.NumberValue(float64(k)))
					}
					h.Send(all[i], samples...)
				}
			})
		}
		sending.Wait()
		if wait := time.Until(began.Add(time.Duration(round+1) * 100 * time.Millisecond)); rounds > 10 && wait > 0 {
			<-time.After(wait)
		}
	}
	running.Wait()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	slices.Sort(delays)
	if len(delays) == 0 {
		t.Fatal("nothing came")
	}
	t.Logf("%d followers took %d readings in %s; delay median %s, 99 %% %s; memory %d MiB", followers, given.Load(), time.Since(began).Round(time.Millisecond),
		delays[len(delays)/2].Round(time.Microsecond), delays[len(delays)*99/100].Round(time.Microsecond), (m.Sys-m.HeapReleased)>>20)
	if used := m.Sys - m.HeapReleased; used > 256<<20 {
		t.Errorf("the process takes %d MiB", used>>20)
	}
}

// BenchmarkFollow is one reading to one follower, by way of the journal.
func BenchmarkFollow(b *testing.B) {
	h := querytest.Build(b)
	anna := h.Party("Anna Kowalska")
	d := h.Device(custody.DeviceSpec{Label: "one", Owner: anna.Party})
	at := h.Now()
	h.Send(d, querytest.At("temp", at, holdfast.NumberValue(0)))
	h.Query = budgeted(h, query.Options{})
	r := follow(b, h, query.Follow{Who: anna, Selection: query.Selection{Party: anna.Party}})
	const batch = 1000
	samples := make([]holdfast.Sample, batch)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for i := range samples {
			n++
			samples[i] = querytest.At("temp", at.Add(time.Duration(n)), holdfast.NumberValue(1))
		}
		h.Send(d, samples...)
		r.rows(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/reading")
}
