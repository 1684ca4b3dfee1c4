package sparkplug

import (
	"cmp"
	"strings"
	"unicode"

	"github.com/holdfast-iot/holdfast"
)

// Bounds of what births may make Tables hold, if they say none.
const (
	defaultPlaces  = 10_000
	defaultMetrics = 200_000
)

// Tables are what births have said, by node and device. The zero value has seen
// none. It is not safe for concurrent use.
type Tables struct {
	Places map[string]*Place `json:"places"` // by GROUP/NODE or GROUP/NODE/DEVICE

	// How many places and metrics are kept in mind; 0: 10,000 and 200,000.
	MaxPlaces  int `json:"-"`
	MaxMetrics int `json:"-"`

	born  int
	nodes map[string]uint8 // last sequence number
}

// Place is a node or a device that was born.
type Place struct {
	Names   map[string]Born `json:"names"`
	Aliases map[uint64]Born `json:"aliases,omitempty"`
}

// Born is what a birth says of a metric.
type Born struct {
	Name string   `json:"name"`
	Type DataType `json:"type"`
	Unit string   `json:"unit,omitempty"`
}

// Value is a metric with its name, type and time.
type Value struct {
	Metric string // as the birth calls it
	Unit   string
	Time   Millis
	Value  holdfast.Value
}

// Taken is what a message says.
type Taken struct {
	Values  []Value
	Online  bool // the message is a birth
	Offline bool // the message is a death
	Changed bool // Tables have

	Null    int  // metrics that say they have no value
	Left    int  // metrics that can't be readings: data sets, templates, arrays, types that are not known or do not fit
	Unknown int  // metrics of an alias that no birth has named: ask for a birth
	Gap     bool // sequence numbers were left out: a message was lost, or was before the first that was seen
}

// Take reads a message at a topic: births are remembered, data are named.
func (t *Tables) Take(topic Topic, p Payload) (Taken, error) {
	var out Taken
	switch {
	case topic.Birth():
		if err := t.birth(topic, p); err != nil {
			return out, err
		}
		out.Online, out.Changed = true, true
	case topic.Death():
		out.Offline = true
		out.Gap = topic.Device != "" && t.gap(topic, p)
		return out, nil // its metrics are the session's bdSeq
	case !topic.Data():
		return out, holdfast.Errorf(holdfast.Invalid, "a %s carries no readings", topic.Type)
	}
	out.Gap = t.gap(topic, p)
	place := t.Places[topic.place()]
	for _, m := range p.Metrics {
		born, ok := place.resolve(m)
		if !ok {
			out.Unknown++
			continue
		}
		if control(born.Name) {
			continue
		}
		v, ok := m.value(born.Type)
		switch {
		case m.Null:
			out.Null++
		case !ok:
			out.Left++
		default:
			at := m.Timestamp
			if !at.Known {
				at = p.Timestamp
			}
			out.Values = append(out.Values, Value{born.Name, born.Unit, at, v})
		}
	}
	return out, nil
}

// control are metrics of the protocol itself.
func control(name string) bool {
	return name == "bdSeq" || strings.HasPrefix(name, "Node Control/") || strings.HasPrefix(name, "Device Control/")
}

func (t Topic) place() string {
	if t.Device == "" {
		return t.Group + "/" + t.Node
	}
	return t.Group + "/" + t.Node + "/" + t.Device
}

// resolve finds what a metric is: by its alias, by its name, or by what it says
// of itself.
func (p *Place) resolve(m Metric) (Born, bool) {
	var born Born
	ok := false
	switch {
	case p != nil && m.HasAlias && m.Name == "":
		born, ok = p.Aliases[m.Alias]
	case p != nil && m.Name != "":
		born, ok = p.Names[m.Name]
	}
	if !ok && m.Name != "" && m.Type != 0 {
		born, ok = Born{m.Name, m.Type, m.Unit}, true
	}
	if m.Type != 0 {
		born.Type = m.Type
	}
	return born, ok
}

func (t *Tables) places() int { return cmp.Or(t.MaxPlaces, defaultPlaces) }

func (t *Tables) birth(topic Topic, p Payload) error {
	if t.Places == nil {
		t.Places = map[string]*Place{}
	}
	if t.born == 0 {
		for _, p := range t.Places { // they were read from a file
			t.born += len(p.Names)
		}
	}
	key := topic.place()
	old := t.Places[key]
	before := 0
	if old != nil {
		before = len(old.Names)
	}
	places, metrics := t.places(), cmp.Or(t.MaxMetrics, defaultMetrics)
	if old == nil && len(t.Places) >= places || t.born-before+len(p.Metrics) > metrics {
		return holdfast.Errorf(holdfast.TooLarge, "at most %d nodes and devices with %d metrics are kept in mind", places, metrics)
	}
	place := &Place{Names: make(map[string]Born, len(p.Metrics)), Aliases: map[uint64]Born{}}
	for _, m := range p.Metrics {
		if m.Name == "" {
			continue
		}
		b := Born{m.Name, m.Type, m.Unit}
		place.Names[m.Name] = b
		if m.HasAlias {
			place.Aliases[m.Alias] = b // no more than metrics
		}
	}
	t.born += len(place.Names) - before
	t.Places[key] = place
	return nil
}

// gap follows a node's sequence number, which its devices share. The same number
// again is a message that was delivered again.
func (t *Tables) gap(topic Topic, p Payload) bool {
	if !p.HasSeq {
		return false
	}
	if t.nodes == nil {
		t.nodes = map[string]uint8{}
	}
	node := topic.Group + "/" + topic.Node
	last, ok := t.nodes[node]
	if !ok && len(t.nodes) >= t.places() {
		return false
	}
	t.nodes[node] = p.Seq
	return topic.Type != "NBIRTH" && ok && p.Seq != last+1 && p.Seq != last
}

// Stream makes a metric's name that of a stream: what a stream's name can't hold
// becomes an underscore. It is false if nothing sensible is left.
func Stream(metric string) (string, bool) {
	name := strings.Map(func(r rune) rune {
		if r == '+' || r == '#' || unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '_'
		}
		return r
	}, metric)
	name = strings.TrimSpace(strings.Trim(strings.TrimSpace(name), "/"))
	return name, holdfast.CheckName("stream", name) == nil
}

// Rebirth is the payload of an NCMD that asks a node for its births.
func Rebirth(now Millis) []byte {
	m := appendText(nil, 1, "Node Control/Rebirth")
	m = appendVarint(m, 3, now.At)
	m = appendVarint(m, 4, uint64(Boolean))
	m = appendVarint(m, booleanValue, 1)
	p := appendVarint(nil, 1, now.At)
	return appendText(p, 2, string(m))
}
