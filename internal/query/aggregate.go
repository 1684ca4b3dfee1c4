package query

import (
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Aggregate is what to say of the readings in a window. Quantile makes those that
// have no name here.
type Aggregate uint32

// The aggregates. Count, First and Last are of every type; Increase, Rate and Delta
// of number and integer; the others of number, integer and boolean, where true is 1
// and false is 0.
const (
	Count Aggregate = 1 + iota
	Sum
	Mean
	Min
	Max
	First // of equal times the first to arrive
	Last  // of equal times the last to arrive
	Stddev
	Variance
	Increase
	Rate
	Delta
)

// A quantile stands above its kind, in millionths.
const (
	quantile      Aggregate = 0xff
	quantileShift int       = 8
	million       uint64    = 1_000_000
)

var aggregateNames = [...]string{"", "count", "sum", "mean", "min", "max", "first", "last", "stddev", "variance", "increase", "rate", "delta"}

// Quantile is the value at or below which so many millionths of the readings lie.
func Quantile(millionths int) Aggregate { return quantile | Aggregate(millionths)<<quantileShift }

func (a Aggregate) isQuantile() bool   { return a&0xff == quantile }
func (a Aggregate) millionths() uint64 { return uint64(a >> quantileShift) }

func (a Aggregate) String() string {
	switch {
	case a.isQuantile() && a.valid():
		whole, rest := a.millionths()/10_000, a.millionths()%10_000
		s := "p" + strconv.FormatUint(whole, 10)
		if rest > 0 {
			s += "." + strings.TrimRight(strconv.FormatUint(10_000+rest, 10)[1:], "0")
		}
		return s
	case a.valid():
		return aggregateNames[a]
	}
	return "unknown"
}

func (a Aggregate) valid() bool {
	return a >= Count && a <= Delta || a.isQuantile() && a.millionths() <= million
}

// ParseAggregate reads the name that String writes.
func ParseAggregate(s string) (Aggregate, error) {
	if i := slices.Index(aggregateNames[1:], s); i >= 0 {
		return Aggregate(i + 1), nil
	}
	if percent, ok := strings.CutPrefix(s, "p"); ok {
		if n, ok := parsePercent(percent); ok {
			return Quantile(n), nil
		}
	}
	return 0, holdfast.Errorf(holdfast.Invalid, "an aggregate is %s, or a quantile like p50 or p99.9 with up to four decimals", strings.Join(aggregateNames[1:], ", "))
}

// parsePercent reads 0 to 100 with up to four decimals, as millionths.
func parsePercent(s string) (int, bool) {
	whole, rest, point := strings.Cut(s, ".")
	if len(whole) == 0 || len(whole) > 3 || len(rest) > 4 || point && rest == "" || strings.Trim(whole+rest, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(whole + rest + "0000"[len(rest):])
	return n, err == nil && n <= int(million)
}

// of reports whether a means something for values of a type.
func (a Aggregate) of(t holdfast.ValueType) bool {
	switch a {
	case Count, First, Last:
		return true
	case Increase, Rate, Delta:
		return t == holdfast.Number || t == holdfast.Integer
	}
	return t == holdfast.Number || t == holdfast.Integer || t == holdfast.Boolean
}

// needs is what a window has to keep for its aggregates.
type needs uint8

const (
	sums needs = 1 << iota
	extremes
	spreads
	counters
	sketches
)

func needsOf(all []Aggregate) (n needs) {
	for _, a := range all {
		switch a {
		case Sum, Mean:
			n |= sums
		case Min, Max:
			n |= extremes
		case Stddev, Variance:
			n |= spreads
		case Increase, Rate, Delta:
			n |= counters
		default:
			if a.isQuantile() {
				n |= sketches
			}
		}
	}
	return n
}
