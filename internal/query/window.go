package query

import (
	"math"
	"math/big"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// Window is the readings of one stream, or of the streams of one group, in [Start,
// End).
//
// Integers and booleans are added exactly; a sum beyond int64 becomes the number
// nearest to it. Numbers are added with Neumaier's compensation: those of each
// minute since 1970, rounded; then the minutes; then the streams of a group, in
// their order. So it does not matter whether a minute was added up now or when it
// was stored. A NaN counts, makes sum and mean NaN as in IEEE 754 and in SQL, and is
// left out of min, max and quantiles unless there is nothing else, and of what
// counters did.
type Window struct {
	Start, End int64 // ns since 1970, at the far ends of time cut to what an int64 holds
	Count      uint64

	plan       *plan
	typ        holdfast.ValueType
	step       float64 // that its readings were rounded to, of a group the largest; 0: not
	last       int64   // the last instant in it
	firstAt    int64
	lastAt     int64
	firstValue holdfast.Value
	lastValue  holdfast.Value

	minutes     chunk.Sum // of numbers: the minutes before the open one
	open        chunk.Sum // the minute that readings are added to
	minute      int64     // its start
	isOpen      bool
	low, high   float64
	ranked      bool // low and high are set
	whole       chunk.Whole
	least, most int64
	spread      spread
	counter     counter
	sketch      *sketch

	filled []holdfast.Value // of a window without readings: what fill says, by aggregate
	tally  *tally           // of a crowd
	shares []amount         // of a group with several disclosures: what came under each
}

// start makes w the empty window around t. It keeps the memory of its sketch.
func (w *Window) start(p *plan, typ holdfast.ValueType, t int64) {
	keep := w.sketch
	*w = Window{plan: p, typ: typ, sketch: keep}
	w.Start, w.End, w.last = p.ruler.around(t)
	if p.needs&sketches != 0 {
		if w.sketch == nil {
			w.sketch = p.newSketch()
		}
		w.sketch.reset()
	}
}

// Ends returns when the first and the last of its readings were.
func (w *Window) Ends() (first, last int64) { return w.firstAt, w.lastAt }

// take takes in rows i up to j of c, which lie in the window; readings come in order
// of time.
func (w *Window) take(c *chunk.Columns, i, j int) {
	if w.Count == 0 {
		w.firstAt, w.firstValue = c.Times[i], c.Reading(i).Value
	}
	w.lastAt, w.lastValue = c.Times[j-1], c.Reading(j-1).Value
	before := w.Count
	w.Count += uint64(j - i)
	switch c.Type {
	case holdfast.Number:
		w.takeNumbers(c, i, j)
	case holdfast.Integer, holdfast.Boolean:
		w.takeIntegers(c.Stretch(i, j), before == 0)
	}
	if w.plan.needs&(spreads|sketches) != 0 {
		for k := i; k < j; k++ {
			if f, ok := numeric(c, k); ok {
				w.spread.add(f)
				if w.sketch != nil {
					w.sketch.add(f)
				}
			}
		}
	}
}

// numeric returns row i as a number.
func numeric(c *chunk.Columns, i int) (float64, bool) {
	switch c.Type {
	case holdfast.Number:
		return c.Numbers[i], true
	case holdfast.Integer:
		return float64(c.Integers[i]), true
	case holdfast.Boolean:
		if c.Booleans[i] {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

func (w *Window) takeNumbers(c *chunk.Columns, i, j int) {
	if w.plan.needs&extremes != 0 {
		w.takeExtremes(chunk.Extremes(c.Numbers[i:j]))
	}
	if w.plan.needs&sums == 0 {
		return
	}
	for i < j {
		m := minuteOf(c.Times[i])
		k := i + 1
		for k < j && uint64(c.Times[k])-uint64(m) < uint64(chunk.Minute) {
			k++
		}
		if !w.isOpen || m != w.minute {
			w.closeMinute()
			w.minute, w.isOpen = m, true
		}
		w.open.AddAll(c.Numbers[i:k])
		i = k
	}
}

// minuteOf returns the start of the minute since 1970 that t lies in; what the
// first one of time lacks does not matter.
func minuteOf(t int64) int64 {
	in := t % chunk.Minute
	if in < 0 {
		in += chunk.Minute
	}
	return t - in
}

func (w *Window) closeMinute() {
	if w.isOpen {
		w.minutes.Add(w.open.Total())
		w.open, w.isOpen = chunk.Sum{}, false
	}
}

func (w *Window) takeExtremes(low, high float64, ranked bool) {
	switch {
	case !ranked:
	case !w.ranked:
		w.low, w.high, w.ranked = low, high, true
	default:
		if low < w.low {
			w.low = low
		}
		if high > w.high {
			w.high = high
		}
	}
}

func (w *Window) takeIntegers(s chunk.Stretch, first bool) {
	w.whole.Merge(s.Whole)
	if first {
		w.least, w.most = s.Least, s.Most
	}
	w.least, w.most = min(w.least, s.Least), max(w.most, s.Most)
}

// Absorb takes in the readings of one whole minute by what was stored of them. They
// come in order of time as all readings do. It must not be called for a window that
// needs more (plan.stored), or that the minute does not lie in.
func (w *Window) absorb(s *chunk.Stretch) {
	if w.Count == 0 {
		w.firstAt, w.firstValue = s.FirstAt, s.First
	}
	w.lastAt, w.lastValue = s.LastAt, s.Last
	first := w.Count == 0
	w.Count += s.Rows
	switch w.typ {
	case holdfast.Number:
		w.closeMinute()
		w.minutes.Add(s.Total)
		w.takeExtremes(s.Low, s.High, s.Ranked)
	case holdfast.Integer, holdfast.Boolean:
		w.takeIntegers(*s, first)
	}
}

// merge takes in the same window of another stream. Equal times are in the order of
// streams.
func (w *Window) merge(o *Window) {
	if o.Count == 0 {
		return
	}
	if w.Count == 0 {
		w.firstAt, w.firstValue, w.lastAt, w.lastValue = o.firstAt, o.firstValue, o.lastAt, o.lastValue
	}
	if o.firstAt < w.firstAt {
		w.firstAt, w.firstValue = o.firstAt, o.firstValue
	}
	if o.lastAt >= w.lastAt {
		w.lastAt, w.lastValue = o.lastAt, o.lastValue
	}
	if w.Count == 0 {
		w.least, w.most = o.least, o.most
	}
	w.step = max(w.step, o.step)
	w.Count += o.Count
	w.minutes.Add(o.total())
	w.takeExtremes(o.low, o.high, o.ranked)
	w.whole.Merge(o.whole)
	w.least, w.most = min(w.least, o.least), max(w.most, o.most)
	w.spread.merge(o.spread)
	w.counter.merge(&o.counter, o.typ)
	if w.sketch != nil && o.sketch != nil {
		w.sketch.merge(o.sketch)
	}
}

// Value returns what a says of the window; false where that is nothing: for the
// stream's type, or of so few readings.
func (w *Window) Value(a Aggregate) (holdfast.Value, bool) {
	if w.Count == 0 {
		return w.fillOf(a)
	}
	v, ok := w.value(a)
	if ok && w.step > 0 {
		v = w.round(a, v)
	}
	return v, ok
}

func (w *Window) value(a Aggregate) (holdfast.Value, bool) {
	switch a {
	case Count:
		return holdfast.IntegerValue(int64(w.Count)), true
	case First:
		return w.firstValue, true
	case Last:
		return w.lastValue, true
	}
	switch {
	case !a.of(w.typ):
		return holdfast.Value{}, false
	case a == Increase, a == Rate, a == Delta:
		return w.counter.value(a, w.typ)
	case a == Stddev, a == Variance:
		return w.spread.value(a)
	case a.isQuantile():
		return holdfast.NumberValue(w.sketch.quantile(a.millionths())), true
	case w.typ == holdfast.Number:
		return w.ofNumbers(a), true
	}
	return w.ofIntegers(a), true
}

func (w *Window) ofNumbers(a Aggregate) holdfast.Value {
	switch {
	case a == Sum:
		return holdfast.NumberValue(w.total())
	case a == Mean:
		return holdfast.NumberValue(w.mean())
	case !w.ranked:
		return holdfast.NumberValue(math.NaN())
	case a == Min:
		return holdfast.NumberValue(w.low)
	}
	return holdfast.NumberValue(w.high)
}

// total is the sum of the minutes.
func (w *Window) total() float64 {
	all := w.minutes
	if w.isOpen {
		all.Add(w.open.Total())
	}
	return all.Total()
}

// mean is total / Count. Where finite values add up beyond float64 it is Inf.
func (w *Window) mean() float64 { return w.total() / float64(w.Count) }

func (w *Window) ofIntegers(a Aggregate) holdfast.Value {
	switch a {
	case Sum:
		return wholeValue(w.whole)
	case Mean:
		const exact = 1 << 53
		if i := int64(w.whole.Lo); small(w.whole) && -exact <= i && i <= exact {
			return holdfast.NumberValue(float64(i) / float64(w.Count))
		}
		f, _ := new(big.Rat).SetFrac(bigOf(w.whole), new(big.Int).SetUint64(w.Count)).Float64()
		return holdfast.NumberValue(f)
	case Min:
		return holdfast.IntegerValue(w.least)
	}
	return holdfast.IntegerValue(w.most)
}

// small reports whether a sum fits in an int64.
func small(s chunk.Whole) bool { return s.Hi == int64(s.Lo)>>63 }

// wholeValue is an integer, beyond int64 the number nearest to it.
func wholeValue(s chunk.Whole) holdfast.Value {
	if small(s) {
		return holdfast.IntegerValue(int64(s.Lo))
	}
	return holdfast.NumberValue(wholeNumber(s))
}

func wholeNumber(s chunk.Whole) float64 {
	f, _ := new(big.Float).SetInt(bigOf(s)).Float64()
	return f
}

func bigOf(s chunk.Whole) *big.Int {
	sum := new(big.Int).Lsh(big.NewInt(s.Hi), 64)
	return sum.Add(sum, new(big.Int).SetUint64(s.Lo))
}
