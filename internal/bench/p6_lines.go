package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

func p6() Figure {
	rate := func(peer string, least float64) Measure {
		return Measure{Key: "points_per_core", What: "points", Unit: PerCore, Peer: peer, Goal: Goal{Least: least}, Why: linesMissed}
	}
	return Figure{
		ID:    "P6",
		Title: "Line protocol from a gateway",
		What: "A gateway posts readings of 1,000 declared devices in line protocol, 5,000 lines a request, one number a line with its clock's jitter, over two " +
			"connections. Holdfast takes them over HTTPS with the gateway's certificate and answers when they are sealed with each owner's key and synced; the peers " +
			"take them over plain HTTP, PostgreSQL by a binary COPY from two connections into a table with an index over series and time. VictoriaMetrics answers " +
			"before anything is synced. Processor time is the server's from the first request until it rests after the last answer; then the number of readings and their mean are compared with " +
			"what was sent",
		Measures: []Measure{
			rate("VictoriaMetrics", 1), rate("InfluxDB", 3), rate("PostgreSQL", 4),
			{Key: "points", What: "points", Unit: PerSecond},
			{Key: "rss", What: "memory at most", Unit: Bytes, Goal: Goal{Most: 512 << 20}},
			{Key: "rolled", What: "of the points rolled into chunks meanwhile", Unit: Percentage},
		},
		Holdfast: linesOfHub,
	}
}

func linesMissed(r *Result) string {
	return fmt.Sprintf("A reading cost Holdfast %.2f µs of processor time. Each device's readings of a request are sealed as a record of their own, since no record holds readings of two owners: "+
		"here are five readings to a record, and about two thirds of the cost is by the record (key lease, box, journal, its opening at the roll). With more readings of a device in a request it falls; "+
		"what would help besides is to hand a request's records to the journal as one.", 1e6/r.Own("points_per_core").Median)
}

// Of P6: what a request holds, who sends, and how much in a round.
const (
	LinesPerRequest = 5000
	LineSenders     = 2
	lineDevices     = 1000
	lineSteps       = 4000
)

// LinesCorpus is what all sides are sent in a round of P6. The first one is to
// warm them up.
func LinesCorpus(round int) corpus.Corpus {
	c := corpus.Corpus{Seed: 6, Devices: lineDevices, Kinds: []corpus.Kind{corpus.Temperature}, Every: time.Second, Steps: lineSteps}
	if c.Steps, c.From = 100, Yesterday(); round >= 0 {
		c.Steps, c.From = lineSteps, Yesterday().Add(time.Duration(round)*(lineSteps+10)*time.Second+time.Hour)
	}
	return c
}

// Yesterday is when readings of the past begin: a time that all sides agree on
// through a run.
func Yesterday() time.Time { return time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1) }

// WarmUp is LinesCorpus's round before the first.
const WarmUp = -1

func linesOfHub(ctx context.Context, b *Bench) (*Side, error) {
	g, err := b.Gateway(ctx, lineDevices)
	if err != nil {
		return nil, err
	}
	round := func(ctx context.Context, round int) (Values, error) {
		if round == 0 {
			c := LinesCorpus(WarmUp)
			load := c.Load(corpus.Texts, LinesPerRequest)
			if _, err := Pour(ctx, 1, len(load.Bodies), func(ctx context.Context, i int) error { return g.Write(ctx, load.Bodies[i]) }); err != nil {
				return nil, err
			}
		}
		c := LinesCorpus(round)
		load := c.Load(corpus.Texts, LinesPerRequest)
		const rolled = "holdfast_series_rolled_readings_total"
		before, err := g.Metric(ctx, rolled)
		if err != nil {
			return nil, err
		}
		v, err := Ingest(ctx, load, g.PID(), func(ctx context.Context, i int) error { return g.Write(ctx, load.Bodies[i]) })
		if err != nil {
			return nil, err
		}
		after, err := g.Metric(ctx, rolled)
		if err != nil {
			return nil, err
		}
		v["rolled"] = 100 * (after - before) / float64(load.Points)
		return v, g.Verify(ctx, &c, load.Sums)
	}
	return b.OwnSide(round, g.Close), nil
}

// Ingest pours a load into a server and measures that until the server rests.
func Ingest(ctx context.Context, load *corpus.Load, pid int, send func(ctx context.Context, i int) error) (Values, error) {
	if err := ForgetPeak(pid); err != nil {
		return nil, err
	}
	before, err := CPUOfGroup(pid)
	if err != nil {
		return nil, err
	}
	took, err := Pour(ctx, LineSenders, max(len(load.Bodies), len(load.Rows)), send)
	if err != nil {
		return nil, err
	}
	if err := Rest(ctx, pid); err != nil {
		return nil, err
	}
	after, err := CPUOfGroup(pid)
	if err != nil {
		return nil, err
	}
	_, peak, err := Memory(pid)
	if err != nil {
		return nil, err
	}
	return Values{
		"points":          float64(load.Points) / took.Seconds(),
		"points_per_core": float64(load.Points) / (after - before).Seconds(),
		"cpu":             (after - before).Seconds(),
		"rss":             float64(peak),
	}, nil
}

// Rest waits until a server has used less than a tenth of a core for a second and
// a half: what it puts off for a moment is then done.
func Rest(ctx context.Context, pid int) error {
	const window = 1500 * time.Millisecond
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		before, err := CPUOfGroup(pid)
		if err != nil {
			return err
		}
		select {
		case <-patience.Done():
			return holdfast.Errorf(holdfast.Internal, "the server does not come to rest: %w", patience.Err())
		case <-time.After(window):
		}
		after, err := CPUOfGroup(pid)
		if err != nil {
			return err
		}
		if after-before < window/10 {
			return nil
		}
	}
}
