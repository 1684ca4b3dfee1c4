package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/holdfast-iot/holdfast"
)

func TestTopics(t *testing.T) {
	h := newHub()
	c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true})
	contentType := func(s string) []byte { return appendText([]byte{propContentType}, s) }
	text, number := holdfast.TextValue, holdfast.NumberValue
	for i, x := range []struct {
		pub
		code reason
		want []arrival
	}{
		{pub: pub{topic: "data/x", payload: "21.5"}, want: []arrival{{Stream: "x", Value: number(21.5)}}},
		{pub: pub{topic: "data/a/b/c", payload: "on"}, want: []arrival{{Stream: "a/b/c", Value: text("on")}}},
		{pub: pub{topic: "data/x", payload: `{"t":1735689600.25,"v":true,"seq":7}`},
			want: []arrival{{Stream: "x", Value: holdfast.BooleanValue(true), Timed: true, Time: 1735689600_250000000, Seq: 7}}},
		{pub: pub{topic: "data", payload: ` [{"n":"a","v":1},{"n":"b","vs":"z"}]`},
			want: []arrival{{Stream: "a", Value: number(1)}, {Stream: "b", Value: text("z")}}},
		{pub: pub{topic: "data", payload: "\x81\xa2\x00\x61a\x02\xf9\x3c\x00", props: contentType("application/senml+cbor")},
			want: []arrival{{Stream: "a", Value: number(1)}}},
		{pub: pub{topic: "data", payload: "\x81\xa2\x00\x61a\x02\xf9\x3c\x00"}, want: []arrival{{Stream: "a", Value: number(1)}}},
		{pub: pub{topic: "data", payload: "\x81\xa2\x00\x61a\x02\xf9\x3c\x00", props: contentType("application/senml+json; x=y")}, code: payloadInvalid},
		{pub: pub{topic: "child/pump 1/data/x", payload: "1"}, want: []arrival{{Child: "pump 1", Stream: "x", Value: number(1)}}},
		{pub: pub{topic: "child/p/data", payload: `[{"n":"a","v":1}]`}, want: []arrival{{Child: "p", Stream: "a", Value: number(1)}}},
		{pub: pub{topic: "child/p/event/boot", payload: "up"}, want: []arrival{{Child: "p", Stream: "event/boot", Value: text("up")}}},
		{pub: pub{topic: "event/tamper", payload: ""}, want: []arrival{{Stream: "event/tamper", Value: text("")}}},
		{pub: pub{topic: "event/log", payload: strings.Repeat("é", maxEvent/2)},
			want: []arrival{{Stream: "event/log", Value: text(strings.Repeat("é", maxEvent/2))}}},
		{pub: pub{topic: "event/log", payload: strings.Repeat("e", maxEvent+1)}, code: quotaExceeded},
		{pub: pub{topic: "event/log", payload: "\xff"}, code: payloadInvalid},
		{pub: pub{topic: "data/x", payload: ""}, code: payloadInvalid},
		{pub: pub{topic: "data/x", payload: "[1]"}, code: payloadInvalid},
		{pub: pub{topic: "data/x", payload: "\xff\xfe", props: []byte{propPayloadFormat, 1}}, code: payloadInvalid},
		{pub: pub{topic: "data", payload: "[]"}, code: payloadInvalid},
		{pub: pub{topic: "data/", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "data//x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "data/x/", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "data/ x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "data/" + strings.Repeat("x", 129), payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "/data/x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "Data/x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "event", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "event/", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "child/p", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "child//data/x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "child/p/child/q/data/x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "child/p/cmd", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "$SYS/x", payload: "1"}, code: topicInvalid},
		{pub: pub{topic: "object/x", payload: "1"}, code: topicInvalid},
	} {
		h.set(func() { h.got = nil })
		x.qos, x.id = 1, uint16(i+1)
		c.send(c.publish(x.pub))
		why := c.expectCode(typePuback, x.id, x.code)
		if (x.code != success) != (why != "") {
			t.Errorf("%q: code 0x%02X with reason %q", x.topic, byte(x.code), why)
		}
		for i := range x.want {
			x.want[i].Session = holdfast.DeviceID{1}.String() + "/a"
		}
		equal := cmp.Comparer(func(a, b holdfast.Value) bool { return a.Same(b) })
		if d := cmp.Diff(x.want, h.arrivals(), equal); d != "" {
			t.Errorf("%q %q: (-want +got)\n%s", x.topic, x.payload, d)
		}
	}
}

func TestTopicAliases(t *testing.T) {
	h := newHub()
	p := newPipes(t, h, Options{TopicAliasMaximum: 2})
	alias := func(n byte) []byte { return []byte{propTopicAlias, 0, n} }
	dial := func() *client {
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "a", clean: true})
		return c
	}
	c := dial()
	c.send(c.publish(pub{topic: "data/a", payload: "1", props: alias(1)}))
	c.send(c.publish(pub{topic: "data/b", payload: "2", props: alias(2)}))
	c.send(c.publish(pub{payload: "3", props: alias(1)}))
	c.send(c.publish(pub{topic: "data/c", payload: "4", props: alias(1)}))
	c.send(c.publish(pub{payload: "5", props: alias(1)}))
	c.send(c.publish(pub{payload: "6", props: alias(2)}))
	var streams []string
	for _, a := range h.await(6) {
		streams = append(streams, a.Stream)
	}
	if d := cmp.Diff([]string{"a", "b", "a", "c", "c", "b"}, streams); d != "" {
		t.Error(d)
	}
	c.send(c.publish(pub{topic: "data/a", payload: "1", props: alias(3)}))
	c.expectEnd(aliasInvalid)
	c = dial() // aliases end with their connection
	c.send(c.publish(pub{payload: "3", props: alias(1)}))
	c.expectEnd(protocolError)
	c = dial()
	c.send(c.publish(pub{topic: "data/a", payload: "3", props: alias(0)}))
	c.expectEnd(aliasInvalid)
}

// Each alias that was announced may be used, as often as the client likes, and what
// is kept for it does not grow with the topics it stood for.
func TestEveryAlias(t *testing.T) {
	h := newHub()
	p := newPipes(t, h, Options{})
	c := p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true})
	alias := func(n int) []byte { return []byte{propTopicAlias, byte(n >> 8), byte(n)} }
	for round := range 2 {
		for n := 32; n > 0; n-- {
			c.send(c.publish(pub{topic: fmt.Sprint("data/", round, "-", n), payload: "1", props: alias(n)}))
			c.send(c.publish(pub{payload: "2", props: alias(n)}))
		}
	}
	for i, a := range h.await(128) {
		if want := fmt.Sprint(i/64, "-", 32-i%64/2); a.Stream != want {
			t.Fatalf("publish %d went to %s, want %s", i, a.Stream, want)
		}
	}
	// One that leads nowhere is set all the same, and so is one of a topic too long to be any.
	long := "data/" + strings.Repeat("x", 60_000)
	for i, topic := range []string{"nowhere", "", long, ""} {
		c.send(c.publish(pub{qos: 1, id: uint16(i + 1), topic: topic, payload: "1", props: alias(1 + i/2)}))
		if c.expectCode(typePuback, uint16(i+1), topicInvalid) == "" {
			t.Errorf("no reason for publish %d", i)
		}
	}
	c.silent()
	p.s.mu.Lock()
	for c := range p.s.conns {
		kept := 0
		for _, r := range c.aliases {
			kept += len(r.topic) + len(r.stream) + len(r.child) + len(r.why)
		}
		if len(c.aliases) != 32 || kept > 32*3*maxRemembered {
			t.Errorf("%d aliases hold %d bytes", len(c.aliases), kept)
		}
	}
	p.s.mu.Unlock()
	for _, n := range []int{0, 33, 65535} {
		c := p.dial(holdfast.DeviceID{2})
		c.connect(hello{version: v5, id: "a", clean: true})
		c.send(c.publish(pub{topic: "data/a", payload: "3", props: alias(n)}))
		c.expectEnd(aliasInvalid)
	}
}
