package alarm

import (
	"math"
)

// Phase is where an instance of a rule stands.
type Phase string

// The phases. Acknowledged is firing, with somebody who knows.
const (
	OK           Phase = "ok"
	Pending      Phase = "pending"
	Firing       Phase = "firing"
	Acknowledged Phase = "acknowledged"
)

// machine follows one instance through time. What it comes to depends on the
// readings and their times alone, not on when somebody looks: between two readings
// it passes the moments at which "for", "keep" or "silence" are over, in their order.
// A reading that is older than what it has taken already is not taken.
type machine struct {
	Phase Phase `json:"phase"`
	Since int64 `json:"since,omitempty"` // since when it is pending; of firing, when it began to fire
	Over  int64 `json:"over,omitempty"`  // firing, and not so any more since; 0: it is so
	Holds bool  `json:"holds,omitempty"` // the condition is so
	Mark  int64 `json:"mark,omitempty"`  // time of the last reading that was taken; 0: none
	Clock int64 `json:"clock,omitempty"` // what is before is settled
	Seen  int64 `json:"seen,omitempty"`  // of Silence: since when there was no reading

	Value float64 `json:"value,omitempty"` // the last one, or change
	Text  string  `json:"text,omitempty"`

	window []point // of Rate; not kept: what is read again fills it
}

// change is an instance that has begun to fire, or is resolved.
type change struct {
	phase Phase // Firing or OK
	at    int64
	value float64
	text  string
}

// maxWindow is about how many readings are kept of the time that a change is measured in.
const maxWindow = 1000

// advance takes in readings, in order of time, and lets time pass up to now.
func (m *machine) advance(c *Condition, readings []point, now int64) (changes []change) {
	for n, p := range readings {
		if p.at > now {
			break // its time will come
		}
		if n+1 < len(readings) && readings[n+1].at == p.at {
			continue // of one time the last to arrive counts
		}
		if m.Mark != 0 && p.at <= m.Mark {
			if c.Kind == Rate {
				m.remember(c, p)
			}
			continue
		}
		at := max(p.at, m.Clock)
		changes = m.pass(c, at-1, changes)
		m.take(c, p, at)
		m.Clock = at
	}
	changes = m.pass(c, now, changes)
	m.Clock = max(m.Clock, now)
	return changes
}

// remember keeps a reading to measure changes from.
func (m *machine) remember(c *Condition, p point) {
	if !p.isNum {
		return
	}
	if n := len(m.window); n == 0 || p.at-m.window[n-1].at >= int64(c.Per)/maxWindow && p.at > m.window[n-1].at {
		m.window = append(m.window, p)
	}
}

func (m *machine) take(c *Condition, p point, at int64) {
	m.Mark = p.at
	switch c.Kind {
	case Silence:
		m.Seen, m.Value = at, 0
		m.set(false, at)
	case Rate:
		if !p.isNum {
			return
		}
		m.remember(c, p)
		for len(m.window) > 0 && m.window[0].at < p.at-int64(c.Per) {
			m.window = m.window[1:]
		}
		m.Value = p.value - m.window[0].value
		m.set(c.holds(m.Holds, p, m.Value), at)
	case Threshold:
		if !p.isNum && c.Text == "" {
			return
		}
		m.Value, m.Text = p.value, p.text
		m.set(c.holds(m.Holds, p, p.value), at)
	}
}

// set says whether the condition is so from a time on.
func (m *machine) set(holds bool, at int64) {
	if holds == m.Holds {
		return
	}
	m.Holds = holds
	switch {
	case holds && m.Phase == Firing:
		m.Over = 0
	case holds:
		m.Phase, m.Since = Pending, at
	case m.Phase == Firing:
		m.Over = at
	default:
		m.Phase, m.Since = OK, 0
	}
}

// pass lets time go by, up to and with a moment.
func (m *machine) pass(c *Condition, to int64, changes []change) []change {
	for {
		at := int64(math.MaxInt64)
		switch {
		case m.Phase == Pending:
			at = later(m.Since, int64(c.For))
		case m.Phase == Firing && !m.Holds:
			at = later(m.Over, int64(c.Keep))
		}
		if c.Kind == Silence && !m.Holds {
			if quiet := later(m.Seen, int64(c.Silence)); quiet <= min(at, to) {
				m.set(true, quiet)
				continue
			}
		}
		if at > to {
			return changes
		}
		if m.Phase == Pending {
			m.Phase, m.Since = Firing, at
			changes = append(changes, change{Firing, at, m.Value, m.Text})
			continue
		}
		m.Phase, m.Since, m.Over = OK, 0, 0
		changes = append(changes, change{OK, at, m.Value, m.Text})
	}
}

// later is at + d, or the end of time.
func later(at, d int64) int64 {
	if at > math.MaxInt64-d {
		return math.MaxInt64
	}
	return at + d
}

// observe is advance for an expression: whether it yields the instance now.
func (m *machine) observe(c *Condition, holds bool, value float64, now int64) (changes []change) {
	changes = m.pass(c, now-1, changes)
	if holds {
		m.Value = value
	}
	m.set(holds, max(now, m.Clock))
	changes = m.pass(c, now, changes)
	m.Clock = max(m.Clock, now)
	return changes
}
