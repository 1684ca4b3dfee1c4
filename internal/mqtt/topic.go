package mqtt

import (
	"bytes"
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/senml"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

// tell hands what a device says of a command or of its state to the Twin, and waits
// until that has it for good.
func (s *Server) tell(p Peer, r *route, m message) error {
	if s.o.Twin == nil {
		return &fault{topicInvalid, "the hub takes no results and no reported state"}
	}
	if m.utf8 && !utf8.Valid(m.payload) {
		return holdfast.Errorf(holdfast.Invalid, "the payload is said to be UTF-8 and is not")
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.o.ConnectTimeout)
	defer cancel()
	if r.kind == toResult {
		return s.o.Twin.Result(ctx, p, r.child, r.stream, m.payload)
	}
	return s.o.Twin.Report(ctx, p, r.child, m.payload)
}

// maxEvent bounds the text of an event.
const maxEvent = 4 << 10

// route is what a topic means. A route with why set means nothing here.
type route struct {
	topic  string
	kind   routeKind
	child  string // "" for the device itself
	stream string // of scalars and events; of a result the command's id
	why    string
	asked  bool              // whether quota is known
	quota  *budget.Allowance // the child's
}

type routeKind byte

const (
	toNowhere   routeKind = iota
	toPack                // data
	toScalar              // data/STREAM
	toEvent               // event/KIND
	toResult              // cmd/ID/result
	toReport              // reported
	toSparkplug           // spBv1.0/...
)

// ofTwin tells what goes to the Twin from what becomes readings.
func (k routeKind) ofTwin() bool { return k == toResult || k == toReport }

// routeOf reads a topic that checkTopic has passed.
func routeOf(topic string) route {
	r := route{topic: topic}
	rest := topic
	if tail, ok := strings.CutPrefix(topic, "child/"); ok {
		child, after, ok := strings.Cut(tail, "/")
		if !ok {
			return r.nowhere("a child's topic is child/NAME/data, child/NAME/data/STREAM or child/NAME/event/KIND")
		}
		if err := holdfast.CheckName("child", child); err != nil {
			return r.nowhere(err.Error())
		}
		r.child, rest = child, after
	}
	switch {
	case strings.HasPrefix(topic, sparkplug.Namespace+"/"):
		return r.sparkplugRoute()
	case rest == "data":
		r.kind = toPack
		return r
	case strings.HasPrefix(rest, "data/"):
		r.kind, r.stream = toScalar, strings.TrimPrefix(rest, "data/")
	case strings.HasPrefix(rest, "event/") && len(rest) > len("event/"):
		r.kind, r.stream = toEvent, rest
	case rest == "reported":
		r.kind = toReport
		return r
	case strings.HasPrefix(rest, "cmd/"):
		id, ok := strings.CutSuffix(strings.TrimPrefix(rest, "cmd/"), "/result")
		if !ok || strings.Contains(id, "/") {
			return r.nowhere(topics)
		}
		if err := holdfast.CheckName("command", id); err != nil {
			return r.nowhere(err.Error())
		}
		r.kind, r.stream = toResult, id
		return r
	default:
		return r.nowhere(topics)
	}
	if err := holdfast.CheckName("stream", r.stream); err != nil {
		return r.nowhere(err.Error())
	}
	return r
}

const topics = "topics are data, data/STREAM, event/KIND, cmd/ID/result, reported and the same under child/NAME/, and spBv1.0/..."

// known tells a route from the place of one.
func (r *route) known() bool { return r.kind != toNowhere || r.why != "" }

func (r route) nowhere(why string) route { return route{topic: r.topic, why: why} }

// message is a publish whose topic has been resolved.
type message struct {
	payload []byte
	content []byte // MQTT 5 content type, nil if not given
	utf8    bool   // the client says so
}

// samples decodes m as r says. one is where a single sample goes, so that the
// common case allocates none.
func (r *route) samples(m message, one *[1]holdfast.Sample) ([]holdfast.Sample, error) {
	if m.utf8 && !utf8.Valid(m.payload) {
		return nil, holdfast.Errorf(holdfast.Invalid, "the payload is said to be UTF-8 and is not")
	}
	switch r.kind {
	case toScalar:
		s, err := senml.DecodeScalar(m.payload)
		if err != nil {
			return nil, err
		}
		s.Stream = r.stream
		one[0] = s
		return one[:], nil
	case toEvent:
		return r.event(m, one)
	case toPack:
		return pack(m)
	case toSparkplug: // of a will; a connection's own has its births
		return r.metrics(m, &sparkplug.Tables{})
	}
	return nil, &fault{topicInvalid, r.why}
}

func (r *route) event(m message, one *[1]holdfast.Sample) ([]holdfast.Sample, error) {
	if len(m.payload) > maxEvent {
		return nil, holdfast.Errorf(holdfast.TooLarge, "an event has at most %d bytes", maxEvent)
	}
	if !utf8.Valid(m.payload) {
		return nil, holdfast.Errorf(holdfast.Invalid, "an event is UTF-8 text")
	}
	one[0] = holdfast.Sample{Stream: r.stream, Value: holdfast.TextValue(string(m.payload))}
	return one[:], nil
}

// pack decodes a SenML pack: by content type where the client gives one that says
// which, else by its first byte, which in JSON is a bracket and in CBOR never is.
func pack(m message) ([]holdfast.Sample, error) {
	now := time.Now().UnixNano()
	media, _, _ := bytes.Cut(m.content, []byte(";"))
	switch string(bytes.TrimSpace(media)) {
	case senml.MediaJSON, "application/json":
		return senml.DecodeJSON(m.payload, now)
	case senml.MediaCBOR, "application/cbor":
		return senml.DecodeCBOR(m.payload, now)
	}
	if head := bytes.TrimLeft(m.payload, " \t\r\n"); len(head) > 0 && head[0] == '[' {
		return senml.DecodeJSON(m.payload, now)
	}
	return senml.DecodeCBOR(m.payload, now)
}
