package query_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// fleet makes devices of one stream each, with readings every second.
func fleet(b *testing.B, devices, rows int) *querytest.House {
	h := querytest.Build(b)
	draw := rand.New(rand.NewPCG(1, 2))
	for d := range devices {
		dev := h.Device(custody.DeviceSpec{Label: fmt.Sprint("press-", d)})
		for i := 0; i < rows; {
			var batch []holdfast.Sample
			for range min(8000, rows-i) {
				at := time.Duration(i)*time.Second + time.Duration(draw.IntN(1e7))
				batch = append(batch, number("load", at, math.Round(2000+500*draw.NormFloat64())/100))
				i++
			}
			h.Send(dev, batch...)
		}
	}
	h.Roll()
	return h
}

func BenchmarkRead(b *testing.B) {
	const devices, rows = 100, 3600
	h := fleet(b, devices, rows)
	one, err := h.Custody.DeviceByLabel(b.Context(), h.Acme, "press-7")
	if err != nil {
		b.Fatal(err)
	}
	mean := []query.Aggregate{query.Mean}
	for _, c := range []struct {
		name string
		rows int
		ask  query.Request
	}{
		{"device raw", rows, query.Request{Selection: query.Selection{Device: one.ID}}},
		{"device 1m mean", rows, query.Request{Selection: query.Selection{Device: one.ID}, Every: time.Minute, Aggregates: mean}},
		{"fleet raw", devices * rows, query.Request{Selection: query.Selection{Party: h.Acme}}},
		{"fleet 1h mean", devices * rows, query.Request{Selection: query.Selection{Party: h.Acme}, Every: time.Hour, Aggregates: mean}},
		{"fleet as one 1m mean", devices * rows, query.Request{Selection: query.Selection{Party: h.Acme}, Every: time.Minute, Aggregates: mean, By: query.Together}},
		{"fleet as one 1m p99", devices * rows, query.Request{Selection: query.Selection{Party: h.Acme}, Every: time.Minute, Aggregates: []query.Aggregate{query.Quantile(990_000)}, By: query.Together}},
		{"fleet as one 1m rate", devices * rows, query.Request{Selection: query.Selection{Party: h.Acme}, Every: time.Minute, Aggregates: []query.Aggregate{query.Rate}, By: query.Together}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.ask.Who = h.Admin
			c.ask.Span = holdfast.Span{From: noon.UnixNano(), To: noon.Add(time.Hour).UnixNano()}
			for b.Loop() {
				res, err := h.Query.Read(b.Context(), c.ask)
				if err != nil {
					b.Fatal(err)
				}
				n := uint64(0)
				for row, err := range res.Rows {
					if err != nil {
						b.Fatal(err)
					}
					if n++; row.Window != nil {
						n += row.Window.Count - 1
					}
				}
				if n != uint64(c.rows) {
					b.Fatal(n, "readings")
				}
			}
			b.ReportMetric(float64(c.rows)*float64(b.N)/b.Elapsed().Seconds(), "readings/s")
		})
	}
}
