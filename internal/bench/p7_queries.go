package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
	"github.com/holdfast-iot/holdfast/internal/server"
)

func p7() Figure {
	p50 := func(key, what string, most float64) Measure {
		return Measure{Key: key, What: what, Unit: Seconds, Peer: "VictoriaMetrics", Goal: Goal{Most: most}, Why: queriesMissed}
	}
	return Figure{
		ID:    "P7",
		Title: "Queries",
		What: "1,000 devices have sent a reading a second for an hour, 3.6 million in all, rolled and merged. Asked are, 40 times each, one after the other, median of the times until " +
			"the last byte is there: all readings of a device in the hour, another device each time; its means by the minute; the mean of the whole fleet. In the first round nobody has asked about these devices before, and each first question makes a disclosure durable; in later rounds somebody has. Holdfast answers over HTTPS " +
			"to an administrator's certificate, decides the right to read, writes the disclosure and decrypts; it gives columns, CSV and NDJSON. VictoriaMetrics answers over plain HTTP: export, " +
			"query_range and query, its cache of answers left out",
		Measures: []Measure{
			p50("raw", "a device's hour, raw", 0.6),
			p50("minutes", "a device's hour by the minute", 0.8),
			p50("fleet", "mean of the fleet", 1),
			{Key: "rss", What: "memory at most", Unit: Bytes, Goal: Goal{Most: 512 << 20}},
		},
		Holdfast: queriesOfHub,
	}
}

func queriesMissed(r *Result) string {
	raw, minutes := r.Own("raw"), r.Own("minutes")
	return fmt.Sprintf("Where nobody asked about a device before, its disclosure is synced before the first byte leaves: an hour took %s raw and %s by the minute at most, %s and %s at least, when the "+
		"disclosure stood already. What is left of a raw hour is 3,600 readings of text, written, encrypted and carried over TLS; a binary answer would take most of that away.",
		Seconds.Format(raw.Max), Seconds.Format(minutes.Max), Seconds.Format(raw.Min), Seconds.Format(minutes.Min))
}

// Of P7: how many devices, and how often each question is asked.
const (
	QueryDevices = 1000
	Asked        = 40
)

// QueryCorpus is what lies in the databases of P7: an hour that begins on the hour.
// No reading is near the end of a window.
func QueryCorpus() corpus.Corpus {
	return corpus.Corpus{Seed: 7, Devices: QueryDevices, Kinds: []corpus.Kind{corpus.Temperature}, From: Yesterday().Add(6*time.Hour + 500*time.Millisecond),
		Every: time.Second, Steps: 3600}
}

// QueryHour is the hour that is asked about, and its end.
func QueryHour() (from, to time.Time) {
	from = QueryCorpus().From.Truncate(time.Hour)
	return from, from.Add(time.Hour)
}

func queriesOfHub(ctx context.Context, b *Bench) (_ *Side, err error) {
	c := QueryCorpus()
	g, err := b.Gateway(ctx, c.Devices)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	load := c.Load(corpus.Texts, LinesPerRequest)
	if _, err := Pour(ctx, LineSenders, len(load.Bodies), func(ctx context.Context, i int) error { return g.Write(ctx, load.Bodies[i]) }); err != nil {
		return nil, err
	}
	if err := g.Verify(ctx, &c, load.Sums); err != nil {
		return nil, err
	}
	if err := g.Stop(); err != nil {
		return nil, err
	}
	if err := g.within(ctx, func(s *server.Server) error { return s.Settle(ctx) }); err != nil {
		return nil, err
	}
	if err := g.Resume(ctx); err != nil {
		return nil, err
	}
	want := load.Sums[corpus.Temperature]
	return b.OwnSide(func(ctx context.Context, round int) (Values, error) {
		if err := ForgetPeak(g.PID()); err != nil {
			return nil, err
		}
		v, err := AskAll(ctx, g.askRaw, g.askMinutes, g.askFleet, want)
		if err != nil {
			return nil, err
		}
		_, peak, err := Memory(g.PID())
		v["rss"] = float64(peak)
		return v, err
	}, g.Close), nil
}

// AskAll asks the three questions of P7. The first two return how many readings or
// windows there were, the third the mean.
func AskAll(ctx context.Context, raw, minutes func(ctx context.Context, device int) (int, error), fleet func(ctx context.Context) (float64, error), want corpus.Sum) (Values, error) {
	v := Values{}
	device := 0
	rows := func(key string, ask func(context.Context, int) (int, error), most int) error {
		times, err := Latencies(ctx, Asked, func(ctx context.Context, _ int) error {
			device = (device + 17) % QueryDevices
			n, err := ask(ctx, device)
			if err == nil && n != most {
				err = holdfast.Errorf(holdfast.Internal, "%d rows came instead of %d", n, most)
			}
			return err
		})
		v[key] = Quantile(times, 0.5).Seconds()
		return err
	}
	if err := rows("raw", raw, 3600); err != nil {
		return nil, fmt.Errorf("ask for readings: %w", err)
	}
	if err := rows("minutes", minutes, 60); err != nil {
		return nil, fmt.Errorf("ask for minutes: %w", err)
	}
	times, err := Latencies(ctx, Asked, func(ctx context.Context, _ int) error {
		mean, err := fleet(ctx)
		if err == nil && !want.Close(float64(want.Count), mean) {
			err = holdfast.Errorf(holdfast.Internal, "the mean is %v instead of %v", mean, want.Mean())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the mean: %w", err)
	}
	v["fleet"] = Quantile(times, 0.5).Seconds()
	return v, nil
}

// answer asks for readings of the hour and returns the answer as it came.
func (g *Gateway) answer(ctx context.Context, query url.Values) ([]byte, error) {
	from, to := QueryHour()
	query.Set("from", from.Format(time.RFC3339))
	query.Set("to", to.Add(-time.Nanosecond).Format(time.RFC3339Nano))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.API()+"/v1/readings?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	a, err := g.asks.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != http.StatusOK {
		err = holdfast.Errorf(holdfast.Internal, "the hub answers %s: %.300s", a.Status, text)
	}
	return text, err
}

func (g *Gateway) askRaw(ctx context.Context, device int) (int, error) {
	text, err := g.answer(ctx, url.Values{"device": {g.ids[corpus.Name(device)]}, "stream": {corpus.Temperature.Stream()}, "format": {"columns"}})
	rows := 0
	for line := range bytes.Lines(text) {
		if _, times, ok := bytes.Cut(line, []byte(`"time":[`)); ok {
			times, _, _ = bytes.Cut(times, []byte("]"))
			rows += 1 + bytes.Count(times, []byte(","))
		}
	}
	return rows, err
}

func (g *Gateway) askMinutes(ctx context.Context, device int) (int, error) {
	text, err := g.answer(ctx, url.Values{"device": {g.ids[corpus.Name(device)]}, "stream": {corpus.Temperature.Stream()}, "format": {"csv"}, "every": {"1m"}, "agg": {"mean"}})
	return bytes.Count(text, []byte("\n")) - 1, err // the first line names the columns
}

// askFleet asks for the mean of all streams of the name, as one group.
func (g *Gateway) askFleet(ctx context.Context) (float64, error) {
	text, err := g.answer(ctx, url.Values{"device": {"*"}, "stream": {corpus.Temperature.Stream()}, "format": {"ndjson"}, "every": {"1h"}, "by": {"none"}, "agg": {"mean"}})
	if err != nil {
		return 0, err
	}
	var row struct{ Mean float64 }
	line, _, _ := bytes.Cut(text, []byte("\n"))
	err = json.Unmarshal(line, &row)
	return row.Mean, err
}
