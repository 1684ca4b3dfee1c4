package alarm

import (
	"math"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Kind says what a rule looks at.
type Kind string

// The kinds of rule.
const (
	Threshold  Kind = "threshold"  // a value
	Rate       Kind = "rate"       // how much a value has changed within a time
	Silence    Kind = "silence"    // that there is no reading
	Expression Kind = "expression" // each element that an expression in PromQL yields
)

// Op compares a value, or a change.
type Op string

// The comparisons.
const (
	Above   Op = "above"
	Below   Op = "below"
	Outside Op = "outside" // of Level to High
	Equals  Op = "equals"  // Level, or Text
)

// Condition is what a rule waits for.
//
// Above begins when a value is greater than Level, and ends when one is Clear or
// less; Below the other way round; Outside begins outside of Level to High and ends
// within Clear to ClearHigh. Between the two it stays as it was: that is
// hysteresis. Between readings the last one holds.
type Condition struct {
	Kind       Kind          `json:"kind"`
	Op         Op            `json:"op,omitempty"`
	Level      float64       `json:"level,omitempty"`
	High       float64       `json:"high,omitempty"`
	Text       string        `json:"text,omitempty"`
	Clear      *float64      `json:"clear,omitempty"`      // nil: Level
	ClearHigh  *float64      `json:"clear_high,omitempty"` // nil: High
	Per        time.Duration `json:"per,omitempty"`        // of Rate
	Silence    time.Duration `json:"silence,omitempty"`    // how long there is no reading
	Expression string        `json:"expression,omitempty"`
	For        time.Duration `json:"for,omitempty"`  // how long it must be so before the alarm fires
	Keep       time.Duration `json:"keep,omitempty"` // how long it must be over before the alarm is resolved
}

const longest = 30 * 24 * time.Hour

func (c *Condition) check(e Expressions) error {
	bad := func(format string, args ...any) error { return holdfast.Errorf(holdfast.Invalid, format, args...) }
	switch {
	case c.For < 0:
		return bad("for is how long it must be so before the alarm fires: 0 or more, as 5m")
	case c.Keep < 0:
		return bad("keep is how long it must be over before the alarm is resolved: 0 or more, as 5m")
	case c.For > longest || c.Keep > longest:
		return bad("for and keep are at most %d days", longest/(24*time.Hour))
	}
	switch c.Kind {
	case Silence:
		if c.Silence < time.Second || c.Silence > longest {
			return bad("silence is from 1s to %d days: how long there must be no reading", longest/(24*time.Hour))
		}
		return nil
	case Expression:
		if c.Expression == "" || len(c.Expression) > 4096 {
			return bad("an expression is written in PromQL, in at most 4096 bytes")
		}
		if e == nil {
			return holdfast.Errorf(holdfast.Unavailable, "this hub evaluates no expressions")
		}
		return e.Check(c.Expression)
	case Rate:
		if c.Per < time.Second || c.Per > 7*24*time.Hour {
			return bad("per is from 1s to 7 days: within which time the value changes so much")
		}
		if c.Op == Equals {
			return bad("a change is above, below or outside a level: equals is for values")
		}
	case Threshold:
	default:
		return bad("a rule is of kind threshold, rate, silence or expression")
	}
	return c.checkLevels()
}

// checkLevels refuses levels that could never begin, or never end.
func (c *Condition) checkLevels() error {
	bad := func(format string, args ...any) error { return holdfast.Errorf(holdfast.Invalid, format, args...) }
	for _, f := range []*float64{&c.Level, &c.High, c.Clear, c.ClearHigh} {
		if f != nil && (math.IsNaN(*f) || math.IsInf(*f, 0)) {
			return bad("a level is a finite number")
		}
	}
	low, high := c.clears()
	switch c.Op {
	case Above:
		if low > c.Level {
			return bad("an alarm above %g ends at a clear level of %g or less, not at %g: give the lower one", c.Level, c.Level, low)
		}
	case Below:
		if low < c.Level {
			return bad("an alarm below %g ends at a clear level of %g or more, not at %g: give the higher one", c.Level, c.Level, low)
		}
	case Outside:
		if c.Level >= c.High {
			return bad("outside needs a lower and a higher level: %g is not less than %g", c.Level, c.High)
		}
		if low < c.Level || high > c.High || low > high {
			return bad("an alarm outside of %g to %g ends within clear levels that lie between them, the lower one first", c.Level, c.High)
		}
	case Equals:
		if c.Clear != nil {
			return bad("equals has no clear level: it ends with the first other value")
		}
	default:
		return bad("compare with above, below, outside or equals")
	}
	switch {
	case c.Op != Outside && (c.ClearHigh != nil || c.High != 0):
		return bad("a higher level is for outside alone")
	case c.Text != "" && c.Op != Equals, len(c.Text) > 256:
		return bad("a text is compared by equals, and has at most 256 bytes")
	}
	return nil
}

func (c *Condition) clears() (low, high float64) {
	low, high = c.Level, c.High
	if c.Clear != nil {
		low = *c.Clear
	}
	if c.ClearHigh != nil {
		high = *c.ClearHigh
	}
	return low, high
}

// of reports whether the condition can be asked of values of a type.
func (c *Condition) of(t holdfast.ValueType) bool {
	switch {
	case c.Kind == Silence || c.Kind == Expression:
		return true
	case c.Text != "":
		return t == holdfast.Text
	}
	return t == holdfast.Number || t == holdfast.Integer || t == holdfast.Boolean
}

// point is a reading as a machine takes it.
type point struct {
	at    int64
	value float64
	text  string
	isNum bool
}

func pointOf(r holdfast.Reading) point {
	p := point{at: r.Time}
	switch r.Value.Type() {
	case holdfast.Number:
		p.value, p.isNum = r.Value.Number(), true
	case holdfast.Integer:
		p.value, p.isNum = float64(r.Value.Integer()), true
	case holdfast.Boolean:
		p.isNum = true
		if r.Value.Boolean() {
			p.value = 1
		}
	case holdfast.Text:
		p.text = r.Value.Text()
	}
	if math.IsNaN(p.value) {
		p.value, p.isNum = 0, false // no value, but a sign of life
	}
	return p
}

// holds says whether the condition is so after a value, given whether it was before.
func (c *Condition) holds(was bool, p point, v float64) bool {
	low, high := c.clears()
	switch c.Op {
	case Above:
		return v > c.Level || was && v > low
	case Below:
		return v < c.Level || was && v < low
	case Outside:
		return v < c.Level || v > c.High || was && (v < low || v > high)
	case Equals:
		if c.Text != "" {
			return p.text == c.Text
		}
		return v == c.Level
	}
	return false
}
