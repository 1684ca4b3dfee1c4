package query

import (
	"math"
	"math/big"
	"math/bits"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Window is the readings of one stream in [Start, End), a stretch that begins at
// a multiple of Request.Every since 1970 UTC, before 1970 too. A window without
// readings does not exist.
//
// Integers and booleans are added exactly; a sum beyond int64 becomes the number
// nearest to it. Numbers are added with Neumaier's compensation. A NaN counts,
// makes sum and mean NaN as in IEEE 754 and in SQL, and is left out of min and
// max unless there is nothing else.
type Window struct {
	Start, End int64 // ns since 1970, at the far ends of time cut to what an int64 holds
	Count      uint64

	typ         holdfast.ValueType
	last        int64 // the last instant in it
	firstAt     int64
	lastAt      int64
	firstValue  holdfast.Value
	lastValue   holdfast.Value
	sum, carry  float64 // of numbers
	low, high   float64
	ranked      bool   // low and high are set
	lo          uint64 // of integers: a sum of 128 bits
	hi          int64
	least, most int64
}

// start makes w the empty window around t.
func (w *Window) start(typ holdfast.ValueType, t int64, every time.Duration) {
	in := t % int64(every)
	if in < 0 {
		in += int64(every)
	}
	*w = Window{typ: typ, Start: math.MinInt64, End: math.MaxInt64, last: math.MaxInt64}
	if t >= math.MinInt64+in {
		w.Start = t - in
	}
	if rest := int64(every) - in; t <= math.MaxInt64-rest {
		w.End, w.last = t+rest, t+rest-1
	}
}

// add takes in a reading of the window; readings come in order of time.
func (w *Window) add(r holdfast.Reading) {
	if w.Count == 0 {
		w.firstAt, w.firstValue = r.Time, r.Value
	}
	w.lastAt, w.lastValue = r.Time, r.Value
	w.Count++
	switch w.typ {
	case holdfast.Number:
		w.addNumber(r.Value.Number())
	case holdfast.Integer:
		w.addInteger(r.Value.Integer())
	case holdfast.Boolean:
		if r.Value.Boolean() {
			w.addInteger(1)
		} else {
			w.addInteger(0)
		}
	}
}

func (w *Window) addNumber(f float64) {
	t := w.sum + f
	if math.Abs(w.sum) >= math.Abs(f) {
		w.carry += (w.sum - t) + f
	} else {
		w.carry += (f - t) + w.sum
	}
	w.sum = t
	switch {
	case f != f:
	case !w.ranked:
		w.low, w.high, w.ranked = f, f, true
	case f < w.low:
		w.low = f
	case f > w.high:
		w.high = f
	}
}

func (w *Window) addInteger(i int64) {
	lo, carry := bits.Add64(w.lo, uint64(i), 0)
	w.lo, w.hi = lo, w.hi+i>>63+int64(carry)
	if w.Count == 1 {
		w.least, w.most = i, i
	}
	w.least, w.most = min(w.least, i), max(w.most, i)
}

// Value returns what a says of the window; false where a means nothing for the
// stream's type.
func (w *Window) Value(a Aggregate) (holdfast.Value, bool) {
	switch a {
	case Count:
		return holdfast.IntegerValue(int64(w.Count)), true
	case First:
		return w.firstValue, true
	case Last:
		return w.lastValue, true
	}
	switch w.typ {
	case holdfast.Number:
		return w.ofNumbers(a)
	case holdfast.Integer, holdfast.Boolean:
		return w.ofIntegers(a)
	}
	return holdfast.Value{}, false
}

func (w *Window) ofNumbers(a Aggregate) (holdfast.Value, bool) {
	switch a {
	case Sum:
		return holdfast.NumberValue(w.total()), true
	case Mean:
		return holdfast.NumberValue(w.mean()), true
	case Min, Max:
		switch {
		case !w.ranked:
			return holdfast.NumberValue(math.NaN()), true
		case a == Min:
			return holdfast.NumberValue(w.low), true
		}
		return holdfast.NumberValue(w.high), true
	}
	return holdfast.Value{}, false
}

// total is the compensated sum; infinities have nothing to compensate. A NaN is
// the plain one, whatever the bits of those that made it.
func (w *Window) total() float64 {
	switch t := w.sum + w.carry; {
	case math.IsInf(w.sum, 0):
		return w.sum
	case math.IsNaN(t):
		return math.NaN()
	default:
		return t
	}
}

// mean is total / Count. Where finite values add up beyond float64 it is Inf.
func (w *Window) mean() float64 { return w.total() / float64(w.Count) }

func (w *Window) ofIntegers(a Aggregate) (holdfast.Value, bool) {
	small := w.hi == int64(w.lo)>>63 // it fits in an int64
	switch a {
	case Sum:
		if small {
			return holdfast.IntegerValue(int64(w.lo)), true
		}
		f, _ := new(big.Float).SetInt(w.bigSum()).Float64()
		return holdfast.NumberValue(f), true
	case Mean:
		const exact = 1 << 53
		if i := int64(w.lo); small && -exact <= i && i <= exact {
			return holdfast.NumberValue(float64(i) / float64(w.Count)), true
		}
		f, _ := new(big.Rat).SetFrac(w.bigSum(), new(big.Int).SetUint64(w.Count)).Float64()
		return holdfast.NumberValue(f), true
	case Min:
		return holdfast.IntegerValue(w.least), true
	case Max:
		return holdfast.IntegerValue(w.most), true
	}
	return holdfast.Value{}, false
}

func (w *Window) bigSum() *big.Int {
	sum := new(big.Int).Lsh(big.NewInt(w.hi), 64)
	return sum.Add(sum, new(big.Int).SetUint64(w.lo))
}
