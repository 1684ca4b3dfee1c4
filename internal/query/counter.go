package query

import (
	"math/bits"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// counter is how the readings of a window went on from one to the next, the first
// from the last one before the window if the span asked for has one. Nothing is
// assumed of the time before the first reading or after the last.
type counter struct {
	steps         uint64 // from one reading to the next
	from, to      int64  // times between which they lie
	up            chunk.Sum
	upWhole       chunk.Whole
	base, last    float64
	baseI, lastI  int64
	merged        bool // of several streams: what follows is in force
	rated         bool // one of them has a rate
	rates, deltas chunk.Sum
	deltaWhole    chunk.Whole
}

// before is the reading that a step begins at.
type before struct {
	is bool
	at int64
	f  float64
	i  int64
}

// number takes in a reading of a counter; NaN is no reading.
func (c *counter) number(b *before, at int64, f float64) {
	if f != f {
		return
	}
	if b.is {
		c.step(b, at)
		if f >= b.f {
			c.up.Add(f - b.f)
		} else if f > 0 { // it began again at 0
			c.up.Add(f)
		}
		c.last = f
	}
	*b = before{is: true, at: at, f: f}
}

func (c *counter) integer(b *before, at, i int64) {
	if b.is {
		c.step(b, at)
		if i >= b.i {
			c.upWhole.Merge(chunk.Whole{Lo: uint64(i) - uint64(b.i)})
		} else if i > 0 {
			c.upWhole.Add(i)
		}
		c.lastI = i
	}
	*b = before{is: true, at: at, i: i}
}

func (c *counter) step(b *before, at int64) {
	if c.steps == 0 {
		c.from, c.base, c.baseI = b.at, b.f, b.i
	}
	c.steps++
	c.to = at
}

// delta is the last reading less the first, exactly.
func (c *counter) delta() chunk.Whole {
	lo, borrow := bits.Sub64(uint64(c.lastI), uint64(c.baseI), 0)
	return chunk.Whole{Lo: lo, Hi: c.lastI>>63 - c.baseI>>63 - int64(borrow)}
}

func (c *counter) rate(t holdfast.ValueType) (float64, bool) {
	if c.to == c.from {
		return 0, false
	}
	up := c.up.Total()
	if t == holdfast.Integer {
		up = wholeNumber(c.upWhole)
	}
	return up / (float64(uint64(c.to)-uint64(c.from)) / 1e9), true
}

// merge adds what another stream did.
func (c *counter) merge(o *counter, t holdfast.ValueType) {
	c.merged = true
	if o.steps == 0 {
		return
	}
	if c.steps == 0 || o.from < c.from {
		c.from = o.from
	}
	c.steps += o.steps
	c.up.Add(o.up.Total())
	c.upWhole.Merge(o.upWhole)
	c.deltas.Add(o.last - o.base)
	c.deltaWhole.Merge(o.delta())
	if r, ok := o.rate(t); ok {
		c.rates.Add(r)
		c.rated = true
	}
}

func (c *counter) value(a Aggregate, t holdfast.ValueType) (holdfast.Value, bool) {
	whole := t == holdfast.Integer
	switch {
	case c.steps == 0:
		return holdfast.Value{}, false
	case a == Increase && whole:
		return wholeValue(c.upWhole), true
	case a == Increase:
		return holdfast.NumberValue(c.up.Total()), true
	case a == Delta && whole && c.merged:
		return wholeValue(c.deltaWhole), true
	case a == Delta && whole:
		return wholeValue(c.delta()), true
	case a == Delta && c.merged:
		return holdfast.NumberValue(c.deltas.Total()), true
	case a == Delta:
		return holdfast.NumberValue(c.last - c.base), true
	case c.merged:
		return holdfast.NumberValue(c.rates.Total()), c.rated
	}
	r, ok := c.rate(t)
	return holdfast.NumberValue(r), ok
}
