package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Figure is one promise about speed or size.
type Figure struct {
	ID       string // P1
	Title    string // a few words
	What     string // what is done and counted, in sentences for the page
	Measures []Measure
	Holdfast Maker
}

// Measure is one number of a figure.
type Measure struct {
	Key  string // of Values
	What string
	Unit Unit
	Peer string // the side whose value Holdfast's is divided by; "": the value itself is judged
	Goal Goal   // the zero Goal: shown, not judged

	// Absolute: the goal is one of Holdfast's own value; the peer's only stands beside it.
	Absolute bool

	// Why says, from what was measured, why the goal was missed. nil: nothing is
	// known but the numbers.
	Why func(r *Result) string
}

// Unit is how a number is written.
type Unit string

const (
	Count      Unit = ""
	PerSecond  Unit = "/s"
	PerCore    Unit = "/s/core" // per second of the server's processor time
	Bytes      Unit = "B"
	Seconds    Unit = "s"
	Cores      Unit = "cores"
	Percentage Unit = "%"
	Times      Unit = "x"
)

// Goal is when a number is good enough: at least or at most so much. One of the
// two is set.
type Goal struct{ Least, Most float64 }

// Judged reports whether there is a goal.
func (g Goal) Judged() bool { return g != Goal{} }

// Met reports whether v reaches the goal.
func (g Goal) Met(v float64) bool {
	switch {
	case math.IsNaN(v):
		return false
	case g.Least != 0:
		return v >= g.Least
	default:
		return v <= g.Most
	}
}

// Values are what one round of one side measured, by Measure.Key. Values that no
// measure names are kept with the results, and serve Measure.Why.
type Values map[string]float64

// Side is one of the systems that a figure compares.
type Side struct {
	Name    string // Holdfast, mosquitto, ...
	Version string
	Year    int // in which this version came out; 0: not known

	// Round does the figure's work once. Rounds count from 0. The sides take turns,
	// so a server should not be at work between its rounds: Round starts and stops
	// it, or leaves it idle.
	Round func(ctx context.Context, round int) (Values, error)
	// Close ends what outlives a round; it may be nil.
	Close func() error
}

// Maker makes a side ready for its first round. An error of kind NotFound says
// that the system is not installed: the side is skipped, and the result says so.
type Maker func(ctx context.Context, b *Bench) (*Side, error)

// Figures are all that there are, in the order of the page.
func Figures() []Figure {
	return []Figure{p1(), p2(), p3(), p4(), p5(), p6(), p7(), p8(), p9(), gdpr(), erasure()}
}

// Find returns the figures of the given ids, all for "all", in their own order.
func Find(ids []string) ([]Figure, error) {
	all := Figures()
	if len(ids) == 1 && strings.EqualFold(ids[0], "all") {
		return all, nil
	}
	var names []string
	for _, f := range all {
		names = append(names, f.ID)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, id) }) {
			return nil, holdfast.Errorf(holdfast.Invalid, "there is no figure %q: choose from %s, or all", id, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(f Figure) bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(f.ID, id) })
	}), nil
}

// Spread is the least, the median and the most of some rounds.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// SpreadOf sorts a copy of values.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Spread{v[0], (v[(n-1)/2] + v[n/2]) / 2, v[n-1]}
}

func (s Spread) String() string { return fmt.Sprintf("%g/%g/%g", s.Min, s.Median, s.Max) }
