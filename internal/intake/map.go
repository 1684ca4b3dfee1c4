package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones of maps, also where the system has none

	"github.com/holdfast-iot/holdfast"
)

// Map says what the messages of a broker mean. The first rule whose topic fits a
// message decides.
type Map struct {
	Note      string   `json:"note,omitempty"`
	Subscribe []string `json:"subscribe,omitempty"` // in place of what follows from the rules
	Rules     []Rule   `json:"rules"`
}

// Rule is what messages of some topics mean.
type Rule struct {
	Note  string `json:"note,omitempty"`
	Topic string `json:"topic"`
	// Ignore: they are acknowledged and nothing else.
	Ignore bool `json:"ignore,omitempty"`
	// Payload is how they are read: scalar (also if it is left out), json, sparkplug.
	Payload string `json:"payload,omitempty"`
	// Device and Stream are names, in which {placeholders} of the topic stand. No
	// device: the gateway itself. Of JSON and Sparkplug, Stream is what the names
	// begin with.
	Device string  `json:"device,omitempty"`
	Stream string  `json:"stream,omitempty"`
	Time   *TimeAt `json:"time,omitempty"`
	Fields []Field `json:"fields,omitempty"`
	// Only: nothing is taken but what Fields name.
	Only bool `json:"only,omitempty"`
	// Retained: also what the broker has kept from before.
	Retained bool `json:"retained,omitempty"`
	Convert

	levels []level
	zone   *time.Location
	timeAt []string
}

// TimeAt says where in a JSON payload its time stands.
type TimeAt struct {
	At   string `json:"at"`
	Zone string `json:"zone,omitempty"` // of times that name none; that of this machine
}

// Field is what some members of a payload mean.
type Field struct {
	At     string `json:"at"` // a JSON pointer in which * is any level, x* one that begins so, ** any rest
	Drop   bool   `json:"drop,omitempty"`
	Stream string `json:"stream,omitempty"` // in place of the member's path
	Convert

	path []string
}

// Convert makes a value another.
type Convert struct {
	Type   string         `json:"type,omitempty"` // number, integer, boolean, text; as it comes
	Unit   string         `json:"unit,omitempty"`
	Scale  *float64       `json:"scale,omitempty"` // of numbers: value × scale + offset
	Offset float64        `json:"offset,omitempty"`
	Words  map[string]any `json:"words,omitempty"` // texts that mean a boolean, a number, another text, or with null nothing
}

// Bounds of a map.
const (
	maxMapBytes = 256 << 10
	maxRules    = 500
)

// Parse reads a map and checks it.
func Parse(text []byte) (*Map, error) {
	if len(text) > maxMapBytes {
		return nil, holdfast.Errorf(holdfast.TooLarge, "a map has at most %d bytes", maxMapBytes)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	m := &Map{}
	if err := d.Decode(m); err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s", jsonFault(text, err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, holdfast.Errorf(holdfast.Invalid, "something follows the map's last brace")
	}
	return m, m.check()
}

// jsonFault is what is wrong with a JSON text, with the line.
func jsonFault(text []byte, err error) string {
	at := int64(-1)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at = e.Offset
	}
	what := strings.TrimPrefix(err.Error(), "json: ")
	if at < 0 || at > int64(len(text)) {
		return "the map is not as it should be: " + what
	}
	return "the map is not as it should be, line " + itoa(1+bytes.Count(text[:at], []byte("\n"))) + ": " + what
}

func (m *Map) check() error {
	if len(m.Rules) == 0 || len(m.Rules) > maxRules {
		return holdfast.Errorf(holdfast.Invalid, "a map has 1 to %d rules", maxRules)
	}
	for i := range m.Rules {
		if err := m.Rules[i].check(); err != nil {
			return holdfast.Errorf(holdfast.Invalid, "rule %d: %w", i+1, err)
		}
	}
	for _, f := range m.Subscribe {
		if err := checkFilter(f); err != nil {
			return err
		}
	}
	_, err := m.Filters()
	return err
}

func (r *Rule) check() (err error) {
	if r.levels, err = parseTopic(r.Topic); err != nil {
		return err
	}
	if r.Ignore {
		return nil
	}
	names := map[string]bool{}
	for _, l := range r.levels {
		if l.name != "" && names[l.name] {
			return holdfast.Errorf(holdfast.Invalid, "the topic names {%s} twice", l.name)
		}
		names[l.name] = true
	}
	for _, t := range []string{r.Device, r.Stream} {
		if err := checkTemplate(t, names); err != nil {
			return err
		}
	}
	switch r.Payload {
	case "", "scalar":
		if r.Stream == "" {
			return holdfast.Errorf(holdfast.Invalid, "a rule for scalars says which stream: \"stream\"")
		}
		if r.Time != nil || len(r.Fields) > 0 || r.Only {
			return holdfast.Errorf(holdfast.Invalid, "\"time\", \"fields\" and \"only\" are for \"payload\": \"json\" or \"sparkplug\"")
		}
	case "json":
	case "sparkplug":
		if r.Time != nil {
			return holdfast.Errorf(holdfast.Invalid, "Sparkplug's messages have their times: leave out \"time\"")
		}
	default:
		return holdfast.Errorf(holdfast.Invalid, "\"payload\" is scalar, json or sparkplug")
	}
	if err := r.Convert.check(); err != nil {
		return err
	}
	return r.checkFields()
}

func (r *Rule) checkFields() (err error) {
	r.zone = time.Local
	if r.Time != nil {
		if r.timeAt, err = parsePointer(r.Time.At); err != nil {
			return err
		}
		if r.Time.Zone != "" {
			if r.zone, err = time.LoadLocation(r.Time.Zone); err != nil {
				return holdfast.Errorf(holdfast.Invalid, "there is no time zone of this name: zones look like Europe/Berlin or UTC")
			}
		}
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.path, err = parsePointer(f.At); err == nil {
			err = f.Convert.check()
		}
		if err != nil {
			return holdfast.Errorf(holdfast.Invalid, "field %d: %w", i+1, err)
		}
	}
	return nil
}

func (c Convert) check() error {
	switch c.Type {
	case "", "number", "integer", "boolean", "text":
	default:
		return holdfast.Errorf(holdfast.Invalid, "\"type\" is number, integer, boolean or text")
	}
	for _, v := range c.Words {
		switch v.(type) {
		case nil, bool, float64, string:
		default:
			return holdfast.Errorf(holdfast.Invalid, "\"words\" mean true, false, a number, a text or null")
		}
	}
	return nil
}

// parsePointer reads a JSON pointer (RFC 6901).
func parsePointer(p string) ([]string, error) {
	rest, ok := strings.CutPrefix(p, "/")
	if !ok {
		return nil, holdfast.Errorf(holdfast.Invalid, "\"at\" is a JSON pointer, as /ENERGY/Power")
	}
	path := strings.Split(rest, "/")
	for i, s := range path {
		if s == "**" && i < len(path)-1 {
			return nil, holdfast.Errorf(holdfast.Invalid, "** is the last of a JSON pointer")
		}
		path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(s)
	}
	return path, nil
}

// fits reports whether a pattern of parsePointer means a path.
func fits(pattern, path []string) bool {
	for i, p := range pattern {
		if p == "**" {
			return true
		}
		if i == len(path) || !fitsLevel(p, path[i]) {
			return false
		}
	}
	return len(pattern) == len(path)
}

func fitsLevel(pattern, s string) bool {
	if head, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, head)
	}
	return pattern == s
}

// Join makes one map of several: the rules of the first come first.
func Join(maps ...*Map) (*Map, error) {
	out := &Map{}
	for _, m := range maps {
		filters, err := m.Filters()
		if err != nil {
			return nil, err
		}
		out.Subscribe = append(out.Subscribe, filters...)
		out.Rules = append(out.Rules, m.Rules...)
	}
	filters, err := reduce(out.Subscribe)
	out.Subscribe = filters
	return out, err
}

// Filters are what to subscribe to: nothing twice, since brokers may then deliver
// a message twice.
func (m *Map) Filters() ([]string, error) {
	if len(m.Subscribe) > 0 {
		return reduce(slices.Clone(m.Subscribe))
	}
	var all []string
	for _, r := range m.Rules {
		if !r.Ignore {
			all = append(all, filterOf(r.levels))
		}
	}
	if len(all) == 0 {
		return nil, holdfast.Errorf(holdfast.Invalid, "all rules of the map ignore what they are for")
	}
	return reduce(all)
}
