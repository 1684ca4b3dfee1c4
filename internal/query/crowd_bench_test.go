package query_test

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// BenchmarkGroup asks about a declared group whose members are told only together.
func BenchmarkGroup(b *testing.B) {
	const members = 200
	h := build(b, members, policy.Obligations{MinGroup: 5})
	var all []int
	for n := range members {
		all = append(all, n)
		for day := range 3 {
			h.use(n, time.Duration(24*day)*time.Hour, float64(n))
		}
	}
	h.Roll()
	ask := h.declare("house", "1d", all...)
	for b.Loop() {
		if rows, _ := collect(b, h.Query, ask); len(rows) != 2 {
			b.Fatal(len(rows))
		}
	}
	b.ReportMetric(float64(members), "members")
}

// BenchmarkReadObliged is BenchmarkRead's device, coarse and down-sampled.
func BenchmarkReadObliged(b *testing.B) {
	for _, c := range []struct {
		name string
		o    policy.Obligations
		ask  query.Request
	}{
		{"raw step", policy.Obligations{Step: 0.5}, query.Request{}},
		{"every 1m mean", policy.Obligations{Every: time.Minute}, query.Request{Every: time.Minute, Aggregates: []query.Aggregate{query.Mean}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := lend(b, c.o)
			d := h.device("a")
			for i := 0; i < 3600; i++ {
				h.Send(d, h.at(time.Duration(i)*time.Second, "x", number("x", 0, float64(i)/7).Value))
			}
			h.Roll()
			c.ask.Who, c.ask.Device, c.ask.Span = h.lab, d.ID, h.span(0, 2*time.Hour)
			for b.Loop() {
				if rows, _ := collect(b, h.Query, c.ask); len(rows) == 0 {
					b.Fatal("no rows")
				}
			}
		})
	}
}
