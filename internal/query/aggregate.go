package query

import (
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Aggregate is what to say of the readings in a window.
type Aggregate uint8

// The aggregates. Count, First and Last are of every type; the others of number,
// integer and boolean, where true is 1 and false is 0.
const (
	Count Aggregate = 1 + iota
	Sum
	Mean
	Min
	Max
	First // of equal times the first to arrive
	Last  // of equal times the last to arrive
)

var aggregateNames = [...]string{"", "count", "sum", "mean", "min", "max", "first", "last"}

func (a Aggregate) String() string {
	if a.valid() {
		return aggregateNames[a]
	}
	return "unknown"
}

func (a Aggregate) valid() bool { return a >= Count && a <= Last }

// ParseAggregate reads the name that String writes.
func ParseAggregate(s string) (Aggregate, error) {
	if i := slices.Index(aggregateNames[1:], s); i >= 0 {
		return Aggregate(i + 1), nil
	}
	return 0, holdfast.Errorf(holdfast.Invalid, "an aggregate is count, sum, mean, min, max, first or last")
}

// ofNumbers reports whether a needs values that can be added and compared.
func (a Aggregate) ofNumbers() bool { return a >= Sum && a <= Max }
