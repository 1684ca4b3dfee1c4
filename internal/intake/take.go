package intake

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// Message is one message of a broker.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte
	ID       uint16 // of QoS 1
	Dup      bool
	Retained bool
	TooLarge bool // the payload was left out
}

// Taken is what a map makes of a message.
type Taken struct {
	Rule    int // index of the rule that decided, -1 for none
	Device  string
	Samples []holdfast.Sample
	Ignored bool
	Stamped bool // some samples have got the time of the first receipt
	// Why is the reason that there are no samples, "" if that is as it should be.
	Why string
	// Left are members that can't be readings, NoClock times that were not believed.
	Left    int
	NoClock int
	// Of Sparkplug.
	Births  bool // Tables changed
	Unknown int  // aliases that no birth has named
	Gap     bool
}

// maxLeaves bounds the readings of one JSON payload, maxLevels how deep they lie: a
// stream's name has no room for more.
const (
	maxLeaves = 1000
	maxLevels = 64
)

// Take says what a message holds. tables are Sparkplug's births; no other state
// is used, and none is kept.
func (m *Map) Take(msg *Message, tables *sparkplug.Tables) Taken {
	for i := range m.Rules {
		r := &m.Rules[i]
		names, ok := r.matches(msg.Topic)
		if !ok {
			continue
		}
		t := Taken{Rule: i}
		switch {
		case r.Ignore || msg.Retained && !r.Retained:
			t.Ignored = true
		case msg.TooLarge:
			t.Why = "the payload is too large"
		default:
			r.take(msg, names, tables, &t)
		}
		return t
	}
	return Taken{Rule: -1, Why: "no rule of the map is for this topic"}
}

func (r *Rule) take(msg *Message, names map[string]string, tables *sparkplug.Tables, t *Taken) {
	lookup := func(name string) (string, bool) { v, ok := names[name]; return v, ok }
	device, err := expand(r.Device, lookup)
	if err == nil && r.Device != "" {
		device = strings.ReplaceAll(device, "/", ".")
		err = holdfast.CheckName("child", device)
	}
	if err != nil {
		t.Why = "the device's name can't be one: " + err.Error()
		return
	}
	t.Device = device
	stream, err := expand(r.Stream, lookup)
	if err != nil {
		t.Why = err.Error()
		return
	}
	switch r.Payload {
	case "json":
		r.takeJSON(msg.Payload, stream, t)
	case "sparkplug":
		r.takeSparkplug(msg, stream, tables, t)
	default:
		r.takeScalar(msg.Payload, stream, t)
	}
	if len(t.Samples) == 0 && t.Why == "" && !t.Births && !t.Ignored {
		t.Why = "it holds nothing that can be a reading"
	}
}

func (r *Rule) takeScalar(payload []byte, stream string, t *Taken) {
	name, ok := sparkplug.Stream(stream)
	if !ok {
		t.Why = "the stream's name can't be one"
		return
	}
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 {
		t.Ignored = true // how a retained message is taken back
		return
	}
	var leaf any = string(payload)
	if payload[0] == '"' || payload[0] == '-' || payload[0] >= '0' && payload[0] <= '9' || string(payload) == "true" || string(payload) == "false" || string(payload) == "null" {
		d := json.NewDecoder(bytes.NewReader(payload))
		d.UseNumber()
		var v any
		if d.Decode(&v) == nil && !d.More() && d.InputOffset() == int64(len(payload)) {
			leaf = v
		}
	}
	if payload[0] == '{' || payload[0] == '[' {
		if json.Valid(payload) {
			t.Why = `it is JSON, not a scalar: use "payload": "json"`
			return
		}
	}
	r.Convert.add(t, name, leaf)
}

func (r *Rule) takeJSON(payload []byte, stream string, t *Taken) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var root any
	if d.Decode(&root) != nil || len(bytes.TrimSpace(payload[d.InputOffset():])) > 0 {
		t.Why = "it is not JSON"
		return
	}
	at, timed := int64(0), false
	if r.Time != nil {
		if leaf, ok := find(root, r.timeAt); ok {
			if at, timed = parseTime(leaf, r.zone); !timed {
				t.NoClock++
			}
		}
	}
	r.leaves(root, nil, stream, t)
	for i := range t.Samples {
		t.Samples[i].Time, t.Samples[i].Timed = at, timed
	}
}

// find follows a path without wildcards.
func find(v any, path []string) (any, bool) {
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[p]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// leaves takes the scalars below v.
func (r *Rule) leaves(v any, path []string, stream string, t *Taken) {
	if len(path) > maxLevels {
		t.Left++
		return
	}
	switch x := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			r.leaves(x[k], append(slices.Clip(path), k), stream, t)
		}
	case []any:
		for i, e := range x {
			r.leaves(e, append(slices.Clip(path), strconv.Itoa(i)), stream, t)
		}
	case nil:
	default:
		if r.Time != nil && slices.Equal(path, r.timeAt) {
			return
		}
		convert, name, ok := r.named(path, stream)
		if !ok {
			return
		}
		if name, ok = sparkplug.Stream(name); !ok || len(t.Samples) >= maxLeaves {
			t.Left++
			return
		}
		convert.add(t, name, v)
	}
}

// named is what the rule says of a member: how to convert it, and its stream.
func (r *Rule) named(path []string, stream string) (*Convert, string, bool) {
	name := strings.Join(path, "/")
	if stream != "" && name != "" {
		name = stream + "/" + name
	} else {
		name += stream
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if !fits(f.path, path) {
			continue
		}
		if f.Stream != "" {
			name = f.Stream
		}
		return &f.Convert, name, !f.Drop
	}
	return &r.Convert, name, !r.Only
}

func (r *Rule) takeSparkplug(msg *Message, stream string, tables *sparkplug.Tables, t *Taken) {
	topic, err := sparkplug.ParseTopic(msg.Topic)
	if err == nil && (topic.Type == "NCMD" || topic.Type == "DCMD" || topic.Type == "STATE") {
		t.Ignored = true
		return
	}
	var p sparkplug.Payload
	if err == nil {
		p, err = sparkplug.Decode(msg.Payload)
	}
	var taken sparkplug.Taken
	if err == nil {
		taken, err = tables.Take(topic, p)
	}
	if err != nil {
		t.Why = err.Error()
		return
	}
	t.Births, t.Unknown, t.Gap, t.Left = taken.Changed, taken.Unknown, taken.Gap, taken.Left
	for _, v := range taken.Values {
		convert, name, ok := r.named(strings.Split(v.Metric, "/"), stream)
		if !ok {
			continue
		}
		if name, ok = sparkplug.Stream(name); !ok {
			t.Left++
			continue
		}
		s := holdfast.Sample{Stream: name, Unit: v.Unit, Value: v.Value}
		s.Time, s.Timed = v.Time.Nanos()
		if convert.Unit != "" {
			s.Unit = convert.Unit
		}
		t.Samples = append(t.Samples, s)
	}
	if taken.Online || taken.Offline {
		s := holdfast.Sample{Stream: "online", Value: holdfast.BooleanValue(taken.Online)}
		if taken.Online {
			s.Time, s.Timed = p.Timestamp.Nanos()
		}
		t.Samples = append(t.Samples, s)
	}
	if len(t.Samples) == 0 && taken.Unknown > 0 {
		t.Why = "no birth has said what its aliases are"
	}
}

// add makes a scalar a sample, or counts it as left.
func (c *Convert) add(t *Taken, stream string, leaf any) {
	v, is, skip := c.value(leaf)
	switch {
	case skip:
		if len(t.Samples) == 0 && t.Why == "" {
			t.Ignored = true
		}
	case !is:
		t.Left++
	default:
		t.Ignored = false
		_, number := leaf.(json.Number)
		t.Samples = append(t.Samples, holdfast.Sample{Stream: stream, Unit: c.Unit, Value: v, Literal: number && v.Type() == holdfast.Number})
	}
}

// value converts a scalar of JSON. skip: it means nothing.
func (c *Convert) value(leaf any) (v holdfast.Value, is, skip bool) {
	if s, ok := leaf.(string); ok && c.Words != nil {
		if w, ok := c.Words[s]; ok {
			leaf = w
			if f, ok := w.(float64); ok {
				leaf = json.Number(strconv.FormatFloat(f, 'g', -1, 64))
			}
		}
	}
	switch x := leaf.(type) {
	case nil:
		return v, false, true
	case bool:
		v, is = c.boolean(x)
	case json.Number:
		v, is = c.number(x)
	case string:
		v, is = c.text(x)
	}
	return v, is, false
}

func (c *Convert) boolean(x bool) (holdfast.Value, bool) {
	n := 0.0
	if x {
		n = 1
	}
	switch c.Type {
	case "number":
		return holdfast.NumberValue(n), true
	case "integer":
		return holdfast.IntegerValue(int64(n)), true
	case "text":
		return holdfast.TextValue(strconv.FormatBool(x)), true
	}
	return holdfast.BooleanValue(x), true
}

func (c *Convert) number(x json.Number) (holdfast.Value, bool) {
	f, err := strconv.ParseFloat(x.String(), 64)
	i, whole := int64(0), false
	if n, e := strconv.ParseInt(x.String(), 10, 64); e == nil {
		i, whole = n, true
	}
	if err != nil && !whole {
		return holdfast.Value{}, false
	}
	if c.Scale != nil || c.Offset != 0 {
		scale := 1.0
		if c.Scale != nil {
			scale = *c.Scale
		}
		f = f*scale + c.Offset
		i, whole = int64(f), f == math.Trunc(f) && math.Abs(f) < 1<<53
	}
	switch c.Type {
	case "integer":
		if !whole && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			i, whole = int64(f), true
		}
		return holdfast.IntegerValue(i), whole
	case "boolean":
		return holdfast.BooleanValue(f != 0), f == 0 || f == 1
	case "text":
		return holdfast.TextValue(x.String()), true
	case "":
		if whole && (math.Abs(f) >= 1<<63 || int64(f) != i) { // only 64 bits hold it
			return holdfast.IntegerValue(i), true
		}
	}
	return holdfast.NumberValue(f), !math.IsNaN(f) && !math.IsInf(f, 0)
}

func (c *Convert) text(x string) (holdfast.Value, bool) {
	switch c.Type {
	case "number", "integer":
		return c.number(json.Number(strings.TrimSpace(x)))
	case "boolean":
		switch strings.ToLower(strings.TrimSpace(x)) {
		case "on", "true", "1", "yes", "online":
			return holdfast.BooleanValue(true), true
		case "off", "false", "0", "no", "offline":
			return holdfast.BooleanValue(false), true
		}
		return holdfast.Value{}, false
	}
	if !utf8.ValidString(x) || len(x) > holdfast.MaxValueBytes {
		return holdfast.Value{}, false
	}
	return holdfast.TextValue(x), true
}

// notBefore is 2000-01-01: a clock that says less has not been set.
const notBefore = 946_684_800 * int64(time.Second)

// parseTime reads a time of JSON: RFC 3339, the same without zone, or a number
// since 1970 whose size says whether it counts s, ms, µs or ns.
func parseTime(leaf any, zone *time.Location) (int64, bool) {
	var at time.Time
	switch x := leaf.(type) {
	case json.Number:
		ns, ok := parseEpoch(x.String())
		return ns, ok && ns >= notBefore
	case string:
		var err error
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700"} {
			if at, err = time.Parse(layout, x); err == nil {
				break
			}
		}
		for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999"} {
			if err != nil {
				at, err = time.ParseInLocation(layout, x, zone)
			}
		}
		if err != nil || at.After(holdfast.MaxTime) || at.Before(holdfast.MinTime) {
			return 0, false
		}
	default:
		return 0, false
	}
	return at.UnixNano(), at.UnixNano() >= notBefore
}

func parseEpoch(s string) (int64, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	digits := 9
	for _, limit := range []int64{1e11, 1e14, 1e17} {
		if n < limit {
			break
		}
		digits -= 3
	}
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	fraction = (fraction + "000000000")[:digits]
	if len(whole)+digits > 19 {
		return 0, false
	}
	ns, err := strconv.ParseInt(whole+fraction, 10, 64)
	return ns, err == nil
}
