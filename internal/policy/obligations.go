package policy

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Obligations are what a grant asks of whoever gives its readings out. Package
// query carries them out; here they are only said. The zero value asks nothing.
type Obligations struct {
	// Every lets readings out as windows of at least this length, which begin at its
	// multiples; 0: as they are.
	Every time.Duration `json:"every,omitempty"`
	// Decimals are those kept of a latitude and a longitude; nil: all.
	Decimals *int `json:"decimals,omitempty"`
	// Step rounds numbers to its multiples; 0: not at all.
	Step float64 `json:"step,omitempty"`
	// Delay holds readings back until they are so old.
	Delay time.Duration `json:"delay,omitempty"`
	// Drop are the fields that are left out.
	Drop []Field `json:"drop,omitempty"`
	// MinGroup lets readings out only in windows over a declared group with at least
	// so many data subjects in each; 0: alone, too.
	MinGroup int `json:"min_group,omitempty"`
}

// Field is a part of a row that can be left out.
type Field string

// The fields.
const (
	FieldDevice   Field = "device"   // id, name and profile of the device
	FieldSequence Field = "sequence" // the device's number of a reading
	FieldAltitude Field = "altitude" // of a location
	FieldMark     Field = "mark"     // how the reading came
)

var fields = []Field{FieldDevice, FieldSequence, FieldAltitude, FieldMark}

// Bounds of an obligation.
const (
	MaxEvery    = 366 * 24 * time.Hour
	MaxDelay    = 366 * 24 * time.Hour
	MaxDecimals = 6
	MaxGroup    = 100_000
)

// IsZero reports whether o asks nothing.
func (o Obligations) IsZero() bool {
	return o.Every == 0 && o.Decimals == nil && o.Step == 0 && o.Delay == 0 && len(o.Drop) == 0 && o.MinGroup == 0
}

// compare returns a positive number if o asks more than p, by the first that tells
// them apart: a group, windows, a delay, fewer decimals, a step, fields left out.
func (o Obligations) compare(p Obligations) int {
	decimals := func(o Obligations) int {
		if o.Decimals == nil {
			return math.MaxInt
		}
		return *o.Decimals
	}
	return cmp.Or(
		cmp.Compare(o.MinGroup, p.MinGroup),
		cmp.Compare(o.Every, p.Every),
		cmp.Compare(o.Delay, p.Delay),
		cmp.Compare(decimals(p), decimals(o)),
		cmp.Compare(o.Step, p.Step),
		cmp.Compare(len(o.Drop), len(p.Drop)),
	)
}

// Check refuses obligations that nobody could carry out.
func (o Obligations) Check() error {
	switch {
	case o.Every < 0 || o.Every > MaxEvery || o.Every%time.Second != 0:
		return holdfast.Errorf(holdfast.Invalid, "down-sampling is to whole seconds, at most 366 days")
	case o.Decimals != nil && (*o.Decimals < 0 || *o.Decimals > MaxDecimals):
		return holdfast.Errorf(holdfast.Invalid, "a location keeps 0 to %d decimals", MaxDecimals)
	case o.Step < 0 || math.IsNaN(o.Step) || math.IsInf(o.Step, 0):
		return holdfast.Errorf(holdfast.Invalid, "the step that numbers are rounded to is a positive number")
	case o.Delay < 0 || o.Delay > MaxDelay:
		return holdfast.Errorf(holdfast.Invalid, "a delay is at most 366 days")
	case o.MinGroup < 0 || o.MinGroup == 1 || o.MinGroup > MaxGroup:
		return holdfast.Errorf(holdfast.Invalid, "a group has at least 2 members, at most %d can be asked for", MaxGroup)
	}
	for i, f := range o.Drop {
		if !slices.Contains(fields, f) || slices.Contains(o.Drop[:i], f) {
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = string(f)
			}
			return holdfast.Errorf(holdfast.Invalid, "the fields that can be dropped, each once, are %s", strings.Join(names, ", "))
		}
	}
	return nil
}
