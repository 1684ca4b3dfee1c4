package query

import (
	"math"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// coarse is what is done to each reading of a stream before anything else is done
// with it. So whatever is made of the readings, by whatever question, says no more
// than the coarse ones do.
type coarse struct {
	step                     float64 // 0: none
	places                   bool    // locations keep decimals
	decimals                 int
	altitude, sequence, mark bool // dropped
}

// coarseOf returns what a stream's obligations do to its readings; nil if nothing.
func coarseOf(t holdfast.ValueType, o policy.Obligations) *coarse {
	var k coarse
	if t == holdfast.Number || t == holdfast.Integer {
		k.step = o.Step
	}
	if t == holdfast.Location {
		if k.places = o.Decimals != nil; k.places {
			k.decimals = *o.Decimals
		}
		k.altitude = slices.Contains(o.Drop, policy.FieldAltitude)
	}
	k.sequence = slices.Contains(o.Drop, policy.FieldSequence)
	k.mark = slices.Contains(o.Drop, policy.FieldMark)
	if k == (coarse{}) {
		return nil
	}
	return &k
}

// rounding is the step that a stream's readings are rounded to, 0 if they are not.
func (c *candidate) rounding() float64 {
	if c.coarse == nil {
		return 0
	}
	return c.coarse.step
}

// values reports whether values become others.
func (k *coarse) values() bool { return k != nil && (k.step > 0 || k.places || k.altitude) }

// take puts rows [i, j) of c into out as they may be seen. c is left as it is: it is
// others' too.
func (k *coarse) take(out, c *chunk.Columns, i, j int) {
	out.Reset(c.Type)
	out.Times = append(out.Times, c.Times[i:j]...)
	if !k.sequence && c.Seqs != nil {
		out.Seqs = append(out.Seqs, c.Seqs[i:j]...)
	}
	if !k.mark && c.Marks != nil {
		out.Marks = append(out.Marks, c.Marks[i:j]...)
	}
	switch c.Type {
	case holdfast.Number:
		out.Numbers = append(out.Numbers, c.Numbers[i:j]...)
		if k.step > 0 {
			for n, f := range out.Numbers {
				out.Numbers[n] = roundNumber(f, k.step)
			}
		}
	case holdfast.Integer:
		out.Integers = append(out.Integers, c.Integers[i:j]...)
		if k.step > 0 {
			for n, v := range out.Integers {
				out.Integers[n] = roundInteger(v, k.step)
			}
		}
	case holdfast.Boolean:
		out.Booleans = append(out.Booleans, c.Booleans[i:j]...)
	case holdfast.Text:
		out.Texts = append(out.Texts, c.Texts[i:j]...)
	case holdfast.Bytes:
		out.Blobs = append(out.Blobs, c.Blobs[i:j]...)
	case holdfast.Location:
		for _, p := range c.Positions[i:j] {
			out.Positions = append(out.Positions, k.position(p))
		}
	}
}

// reading is r as it may be seen.
func (k *coarse) reading(r holdfast.Reading) holdfast.Reading {
	if k == nil {
		return r
	}
	if k.sequence {
		r.Seq = 0
	}
	if k.mark {
		r.Mark = 0
	}
	switch r.Value.Type() {
	case holdfast.Number:
		if k.step > 0 {
			r.Value = holdfast.NumberValue(roundNumber(r.Value.Number(), k.step))
		}
	case holdfast.Integer:
		if k.step > 0 {
			r.Value = holdfast.IntegerValue(roundInteger(r.Value.Integer(), k.step))
		}
	case holdfast.Location:
		r.Value = holdfast.LocationValue(k.position(r.Value.Position()))
	}
	return r
}

func (k *coarse) position(p holdfast.Position) holdfast.Position {
	if k.places {
		step := math.Pow10(-k.decimals)
		p.Latitude, p.Longitude = roundNumber(p.Latitude, step), roundNumber(p.Longitude, step)
	}
	if k.altitude {
		p.Altitude = math.NaN()
	}
	return p
}

// roundNumber is the multiple of step nearest to f, of two the one farther from 0.
// Every NaN is the usual one, and -0 is 0: both would tell more.
func roundNumber(f, step float64) float64 {
	if math.IsNaN(f) {
		return math.NaN()
	}
	if parts := math.Round(1 / step); 1/parts == step { // 0.1 has no exact multiples, 1/10 has tenths
		if k := f * parts; math.Abs(k) < 1<<52 {
			return math.Round(k)/parts + 0
		}
		return f // its neighbours lie farther from it than a step
	}
	if k := f / step; math.Abs(k) < 1<<52 {
		return math.Round(k)*step + 0
	}
	return f
}

// roundInteger is the multiple nearest to i of the least integer that is no less than
// step; of two, the one farther from 0. One beyond an integer becomes the last before.
func roundInteger(i int64, step float64) int64 {
	switch {
	case step <= 1:
		return i
	case step >= math.MaxInt64:
		return 0
	}
	s := int64(math.Ceil(step))
	rest := i % s
	down := i - rest
	switch {
	case rest > 0 && rest >= s-rest && down <= math.MaxInt64-s:
		return down + s
	case rest < 0 && -rest >= s+rest && down >= math.MinInt64+s:
		return down - s
	}
	return down
}

// round is Value of a window whose readings were rounded: what is in their unit is
// rounded once more. What is not (counts, variances, rates) is as it comes of them.
func (w *Window) round(a Aggregate, v holdfast.Value) holdfast.Value {
	if v.Type() != holdfast.Number || a == Variance || a == Rate {
		return v
	}
	return holdfast.NumberValue(roundNumber(v.Number(), w.step))
}
