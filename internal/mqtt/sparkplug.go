package mqtt

import (
	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// Bounds of the births that a connection is held to.
const (
	maxBirths  = 100  // the node and its devices
	maxMetrics = 1000 // of all of them
)

// sparkplugRoute reads a topic of Sparkplug B. Group and node are the device's own
// words for itself: who it is stands in its certificate. Its devices are children.
func (r route) sparkplugRoute() route {
	topic, err := sparkplug.ParseTopic(r.topic)
	if err != nil {
		return r.nowhere(err.Error())
	}
	if len(r.topic) > maxRemembered {
		return r.nowhere("the names in the topic are too long")
	}
	if !topic.Birth() && !topic.Data() && !topic.Death() {
		return r.nowhere("of Sparkplug B, a device publishes births, data and deaths")
	}
	if topic.Device != "" {
		if err := holdfast.CheckName("child", topic.Device); err != nil {
			return r.nowhere(err.Error())
		}
	}
	r.kind, r.child = toSparkplug, topic.Device
	return r
}

// births are what this connection's node has said of its metrics: a node says it
// again after each CONNECT.
func (c *conn) births() *sparkplug.Tables {
	if c.born == nil {
		c.born = &sparkplug.Tables{MaxPlaces: maxBirths, MaxMetrics: maxMetrics}
	}
	return c.born
}

// metrics makes the readings of a payload of Sparkplug B: its metrics, and of a birth
// or death the stream online. A message is taken whole or not at all: data sets,
// templates and arrays, which can't be readings, are left out of it.
func (r *route) metrics(m message, born *sparkplug.Tables) ([]holdfast.Sample, error) {
	topic, err := sparkplug.ParseTopic(r.topic)
	if err != nil {
		return nil, err
	}
	p, err := sparkplug.Decode(m.payload)
	if err != nil {
		return nil, err
	}
	taken, err := born.Take(topic, p)
	if err != nil {
		return nil, err
	}
	if taken.Unknown > 0 {
		return nil, &fault{payloadInvalid, "metrics that no birth on this connection has named: publish NBIRTH and DBIRTH again"}
	}
	samples := make([]holdfast.Sample, 0, len(taken.Values)+1)
	for _, v := range taken.Values {
		name, ok := sparkplug.Stream(v.Metric)
		if !ok {
			return nil, holdfast.Errorf(holdfast.Invalid, "the name of a metric can't be that of a stream")
		}
		s := holdfast.Sample{Stream: name, Unit: v.Unit, Value: v.Value}
		s.Time, s.Timed = v.Time.Nanos()
		samples = append(samples, s)
	}
	if taken.Online || taken.Offline {
		s := holdfast.Sample{Stream: "online", Value: holdfast.BooleanValue(taken.Online)}
		if taken.Online { // a death was written when the connection began
			s.Time, s.Timed = p.Timestamp.Nanos()
		}
		samples = append(samples, s)
	}
	return samples, nil
}
