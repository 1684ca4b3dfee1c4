package intake

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Report is what an intake has seen and done. It holds names of topics, devices
// and streams, and no values.
type Report struct {
	Messages int `json:"messages"` // from the broker
	Again    int `json:"again"`    // of those, delivered again
	Retained int `json:"retained"` // of those, kept by the broker from before
	Ignored  int `json:"ignored"`  // as the map says
	Readings int `json:"readings"` // stored, durable
	Unmapped int `json:"unmapped"` // messages without a reading: see topics
	Refused  int `json:"refused"`  // messages that the hub will not take: see topics

	Left    int `json:"left_members"`    // members of payloads that can't be readings
	NoClock int `json:"times_not_taken"` // times that can't be one: the first receipt was taken
	Gaps    int `json:"sparkplug_gaps"`  // sequence numbers that were left out
	Unknown int `json:"sparkplug_unknown_aliases"`

	Declared   int `json:"declared"`
	Rebirths   int `json:"rebirths_asked"`
	Reconnects int `json:"broker_reconnects"`
	Retries    int `json:"hub_retries"`

	Topics  map[string]*TopicLine  `json:"-"`
	Devices map[string]*DeviceLine `json:"-"`
}

// TopicLine is what became of the messages of a pattern of topics.
type TopicLine struct {
	Topic    string `json:"topic"` // levels that differ are +
	Messages int    `json:"messages"`
	Stored   int    `json:"stored"`
	Why      string `json:"why,omitempty"` // of the last that was not
	NotTaken int    `json:"not_taken"`
}

// DeviceLine is a device and what it sends.
type DeviceLine struct {
	Device   string                 `json:"device"` // "" for the gateway
	Messages int                    `json:"messages"`
	Unknown  bool                   `json:"unknown"` // the hub does not know this child
	Streams  map[string]*StreamLine `json:"-"`
}

// StreamLine is a stream of a device.
type StreamLine struct {
	Stream   string `json:"stream"`
	Type     string `json:"type"`
	Unit     string `json:"unit,omitempty"`
	Timed    bool   `json:"timed"` // the message says when
	Readings int    `json:"readings"`
}

// Bounds of a report.
const (
	maxTopics  = 200
	maxDevices = 2000
	maxStreams = 200
)

func newReport() *Report {
	return &Report{Topics: map[string]*TopicLine{}, Devices: map[string]*DeviceLine{}}
}

// count adds what became of a message, and reports whether nothing of it is lost.
func (r *Report) count(m *Message, t *Taken, said error) (stored bool) {
	r.Messages++
	if m.Dup {
		r.Again++
	}
	if m.Retained {
		r.Retained++
	}
	r.Left += t.Left
	r.NoClock += t.NoClock
	r.Unknown += t.Unknown
	if t.Gap {
		r.Gaps++
	}
	line := r.topic(m.Topic)
	line.Messages++
	switch {
	case t.Ignored:
		r.Ignored++
		return true
	case t.Why != "":
		r.Unmapped++
		line.NotTaken, line.Why = line.NotTaken+1, t.Why
		return false
	case said != nil:
		r.Refused++
		line.NotTaken, line.Why = line.NotTaken+1, said.Error()
		r.device(t).unknown(said)
		return false
	}
	line.Stored++
	r.Readings += len(t.Samples)
	r.device(t)
	return true
}

func (d *DeviceLine) unknown(said error) {
	if refused, ok := errors.AsType[*refusal](said); ok && refused.code == 0x90 && d != nil {
		d.Unknown = true
	}
}

// topic is the line of a topic: of its own while there are few, then of its first
// and last level.
func (r *Report) topic(topic string) *TopicLine {
	if l := r.Topics[topic]; l != nil {
		return l
	}
	if len(r.Topics) >= maxTopics/2 {
		levels := strings.Split(topic, "/")
		for i := 1; i < len(levels)-1; i++ {
			levels[i] = "+"
		}
		topic = strings.Join(levels, "/")
	}
	if r.Topics[topic] == nil && len(r.Topics) >= maxTopics {
		topic = "#"
	}
	l := r.Topics[topic]
	if l == nil {
		l = &TopicLine{Topic: topic}
		r.Topics[topic] = l
	}
	return l
}

func (r *Report) device(t *Taken) *DeviceLine {
	d := r.Devices[t.Device]
	if d == nil {
		if len(r.Devices) >= maxDevices {
			return nil
		}
		d = &DeviceLine{Device: t.Device, Streams: map[string]*StreamLine{}}
		r.Devices[t.Device] = d
	}
	d.Messages++
	for _, s := range t.Samples {
		l := d.Streams[s.Stream]
		if l == nil {
			if len(d.Streams) >= maxStreams {
				continue
			}
			l = &StreamLine{Stream: s.Stream}
			d.Streams[s.Stream] = l
		}
		l.Type, l.Timed = typeOf(s), s.Timed && !t.Stamped
		l.Unit = cmp.Or(s.Unit, l.Unit)
		l.Readings++
	}
	return d
}

func typeOf(s holdfast.Sample) string { return s.Value.Type().String() }

// TopicLines are the topics, those with most that was not taken first.
func (r *Report) TopicLines() []*TopicLine {
	return slices.SortedFunc(maps.Values(r.Topics), func(a, b *TopicLine) int {
		return cmp.Or(cmp.Compare(b.NotTaken, a.NotTaken), cmp.Compare(a.Topic, b.Topic))
	})
}

// DeviceLines are the devices, by name.
func (r *Report) DeviceLines() []*DeviceLine {
	return slices.SortedFunc(maps.Values(r.Devices), func(a, b *DeviceLine) int { return cmp.Compare(a.Device, b.Device) })
}

// StreamLines are a device's streams, by name.
func (d *DeviceLine) StreamLines() []*StreamLine {
	return slices.SortedFunc(maps.Values(d.Streams), func(a, b *StreamLine) int { return cmp.Compare(a.Stream, b.Stream) })
}
