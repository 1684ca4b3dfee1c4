package query

import (
	"slices"

	"github.com/DataDog/sketches-go/ddsketch/mapping"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/chunk"
)

// plan is what all windows of a read have in common.
type plan struct {
	ruler   ruler
	needs   needs
	asked   []Aggregate
	mapping mapping.IndexMapping // of sketches
}

func (req *Request) plan() *plan {
	p := &plan{ruler: req.ruler(), needs: needsOf(req.Aggregates), asked: slices.Clone(req.Aggregates)}
	if p.needs&sketches != 0 {
		p.mapping = newMapping()
	}
	return p
}

// stored reports whether what is stored of a minute is all that is asked of it, so
// that its readings need not be read.
func (p *plan) stored() bool { return p.needs&^(sums|extremes) == 0 }

// fold makes windows of the readings of one stream, which come in order of time, by
// columns or by what is stored of a minute.
type fold struct {
	plan   *plan
	typ    holdfast.ValueType
	step   float64 // that readings were rounded to, 0: not
	w      Window  // the one that readings are added to, if it has any
	before before
	// emit takes a window, which is valid until it returns; false ends the fold.
	emit func(*Window) bool
}

// at makes the open window the one that t lies in; false if emit has enough.
func (f *fold) at(t int64) bool {
	if f.w.Count > 0 && t <= f.w.last {
		return true
	}
	if !f.end() {
		return false
	}
	f.w.start(f.plan, f.typ, t)
	f.w.step = f.step
	return true
}

// end gives the open window.
func (f *fold) end() bool {
	if f.w.Count == 0 {
		return true
	}
	more := f.emit(&f.w)
	f.w.Count = 0
	return more
}

// rows takes the readings [i, n) of c; false if emit has enough.
func (f *fold) rows(c *chunk.Columns, i, n int) bool {
	for i < n {
		if !f.at(c.Times[i]) {
			return false
		}
		j := n
		if c.Times[n-1] > f.w.last {
			for j = i + 1; c.Times[j] <= f.w.last; {
				j++
			}
		}
		f.w.take(c, i, j)
		if f.plan.needs&counters != 0 {
			f.steps(c, i, j)
		}
		i = j
	}
	return true
}

// steps is on from one reading to the next, over the ends of windows.
func (f *fold) steps(c *chunk.Columns, i, j int) {
	for ; i < j; i++ {
		switch c.Type {
		case holdfast.Number:
			f.w.counter.number(&f.before, c.Times[i], c.Numbers[i])
		case holdfast.Integer:
			f.w.counter.integer(&f.before, c.Times[i], c.Integers[i])
		}
	}
}

// stored takes minutes [i, n) of m; false if emit has enough.
func (f *fold) stored(m *chunk.Minutes, i, n int) bool {
	for ; i < n; i++ {
		s := m.At(i)
		if !f.stretch(&s) {
			return false
		}
	}
	return true
}

// stretch takes the readings of one whole minute by what is stored of them.
func (f *fold) stretch(s *chunk.Stretch) bool {
	if !f.at(s.FirstAt) {
		return false
	}
	f.w.absorb(s)
	return true
}
