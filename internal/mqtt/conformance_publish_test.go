package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/holdfast-iot/holdfast"
)

func scriptsOfPublish() []script {
	alias := func(n int) []byte { return []byte{propTopicAlias, byte(n >> 8), byte(n)} }
	return []script{
		{"3.3.1-2", "3.3.1-2", "DUP with QoS 0", func(s *stage) {
			s.breaks(protocolError, pub{dup: true, topic: "data/x", payload: "1"}.bytes(s.v))
		}},
		{"3.3.1-4", "3.3.1-4", "QoS 3", func(s *stage) {
			s.breaks(malformed, pub{qos: 3, id: 1, topic: "data/x", payload: "1"}.bytes(s.v))
		}},
		{"3.3.2-2 4.7.1-1", "3.3.2-2 4.7.0-1", "a topic with wildcards", func(s *stage) {
			for _, topic := range []string{"#", "+", "data/#", "data/+/x", "data/x+"} {
				s.breaks(protocolError, pub{topic: topic, payload: "1"}.bytes(s.v))
			}
		}},
		{"4.7.3-1", "4.7.3-1", "topics and filters have a character", func(s *stage) {
			s.breaks(protocolError, pub{payload: "1"}.bytes(s.v), s.filters(1, []byte{0}, ""), s.filters(1, nil, ""))
			s.breaks(protocolError, s.only(v5, property(propResponseTopic, 0, 0))...)
		}},
		{"4.7.3-3", "4.7.3-3", "the longest topic", func(s *stage) {
			c := s.client()
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/" + strings.Repeat("x", 65530), payload: "1"}))
			code := success
			if s.v == v5 {
				code = topicInvalid
			}
			c.expectCode(typePuback, 1, code)
			c.silent()
		}},
		{"4.7.3-4", "4.7.3-4", "topics are what they are", func(s *stage) {
			c := s.client()
			topics := []string{"x", "X", "a/b", "a b", "\u00e9", "e\u0301"}
			for _, x := range topics {
				c.send(c.publish(pub{topic: "data/" + x, payload: "1"}))
			}
			for i, a := range s.h.await(len(topics)) {
				if a.Stream != topics[i] {
					s.t.Errorf("%q is %q", topics[i], a.Stream)
				}
			}
		}},
		{"3.3.4-1", "3.3.4-1", "what a publish is answered with", func(s *stage) {
			c := s.client()
			c.send(slices.Concat(c.publish(pub{topic: "data/x", payload: "1"}), c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}),
				c.publish(pub{qos: 2, id: 2, topic: "data/x", payload: "1"})))
			c.expect(typePuback, "0001")
			c.expect(typePubrec, "0002")
			c.silent()
		}},
		{"3.3.5-2", "3.4.2-1 3.5.2-1", "what may not be published", func(s *stage) {
			c := s.client()
			for i, code := range []reason{notAuthorized, topicInvalid, implementationSpecific, quotaExceeded, payloadInvalid} {
				kinds := []holdfast.Kind{holdfast.Denied, holdfast.NotFound, holdfast.Conflict, holdfast.TooLarge, holdfast.Invalid}
				s.h.set(func() { s.h.refuse = func(string, []holdfast.Sample) error { return holdfast.Errorf(kinds[i], "no") } })
				if s.v == v311 {
					code = success // there is no other word
				}
				c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
				c.expectCode(typePuback, 1, code)
				c.send(c.publish(pub{qos: 2, id: 2, topic: "data/x", payload: "1"}))
				c.expectCode(typePubrec, 2, code)
			}
			if n := len(s.h.arrivals()); n != 0 {
				s.t.Errorf("%d arrivals", n)
			}
		}},
		{"", "3.2.2-14", "RETAIN", func(s *stage) {
			b := pub{qos: 1, id: 1, topic: "data/x", payload: "1"}.bytes(v5)
			b[0] |= 1
			s.breaks(retainNotSupported, b)
		}},
		{"", "3.2.2-15", "a packet beyond the maximum", func(s *stage) {
			s.breaks(packetTooLarge, []byte{0x30, 0xfd, 0xff, 0x1f}) // 512 KiB and 1
			c := s.client()
			c.send(c.publish(pub{qos: 1, id: 1, topic: "event/x", payload: strings.Repeat("x", 512<<10-16)}))
			c.expectCode(typePuback, 1, quotaExceeded) // a packet of 512 KiB is read; an event is shorter
		}},
		{"", "3.2.2-17 3.3.2-8 3.3.2-9", "an alias that may not be", func(s *stage) {
			for _, n := range []int{0, 33, 65535} {
				s.breaks(aliasInvalid, pub{topic: "data/x", payload: "1", props: alias(n)}.bytes(v5), pub{payload: "1", props: alias(n)}.bytes(v5))
			}
			s.breaks(protocolError, pub{payload: "1", props: alias(1)}.bytes(v5), pub{topic: "data/x", payload: "1", props: append(alias(1), alias(1)...)}.bytes(v5))
		}},
		{"", "3.3.2-12", "every alias up to the maximum", func(s *stage) {
			c := s.client()
			for n := 1; n <= 32; n++ {
				c.send(c.publish(pub{topic: fmt.Sprint("data/", n), payload: "1", props: alias(n)}))
				c.send(c.publish(pub{qos: 1, id: 1, payload: "2", props: alias(n)}))
				c.expectCode(typePuback, 1, success)
				if got := s.h.await(2 * n); got[2*n-1].Stream != fmt.Sprint(n) {
					s.t.Errorf("alias %d is %s", n, got[2*n-1].Stream)
				}
			}
		}},
		{"", "3.3.2-7", "aliases end with their connection", func(s *stage) {
			c, _ := s.again(hello{})
			c.send(c.publish(pub{topic: "data/x", payload: "1", props: alias(1)}))
			c.silent()
			other := s.as(hello{id: "b"})
			other.send(other.publish(pub{payload: "1", props: alias(1)}))
			other.expectEnd(protocolError)
			c.nc.Close()
			c, _ = s.again(hello{})
			c.send(c.publish(pub{payload: "1", props: alias(1)}))
			c.expectEnd(protocolError)
		}},
		{"", "3.3.2-14", "a response topic with wildcards", func(s *stage) {
			s.breaks(protocolError, property(appendText([]byte{propResponseTopic}, "a/#")...), property(appendText([]byte{propResponseTopic}, "+")...))
		}},
		{"", "3.3.4-6", "a subscription id of a client", func(s *stage) { s.breaks(protocolError, property(propSubscriptionID, 1)) }},
		{"", "3.6.2-1", "a PUBREL with another code", func(s *stage) {
			s.breaks(protocolError, unhex("62 03 000180"), unhex("62 04 000191 00"))
		}},
		{"", "3.7.2-1", "a PUBREL of nothing", func(s *stage) {
			c := s.client()
			c.send(unhex("62 03 000192"))
			c.expectCode(typePubcomp, 1, packetIDUnknown)
		}},
	}
}

func scriptsOfDelivery() []script {
	return []script{
		{"4.3.2-2", "4.3.2-4 4.3.2-5", "QoS 1", func(s *stage) {
			s.h.manual = true
			c := s.client()
			for i, dup := range []bool{false, true} { // the same id again is another message
				c.send(c.publish(pub{qos: 1, id: 7, dup: dup, topic: "data/x", payload: fmt.Sprint(i)}))
				c.silent()
				if n := len(s.h.arrivals()); n != i {
					s.t.Errorf("%d arrivals", n)
				}
				s.h.land(1)
				c.expect(typePuback, "0007")
			}
			if got := values(s.t, s.h.arrivals(), "x"); !slices.Equal(got, []float64{0, 1}) {
				s.t.Errorf("arrived: %v", got)
			}
		}},
		{"4.3.3-2", "4.3.3-8 4.3.3-10 4.3.3-11 4.3.3-12", "QoS 2", func(s *stage) {
			s.h.manual = true
			c := s.client()
			for i := range 2 {
				first := pub{qos: 2, id: 7, topic: "data/x", payload: fmt.Sprint(i)}
				c.send(c.publish(first))
				c.silent()
				s.h.land(1)
				c.expect(typePubrec, "0007")
				for _, dup := range []bool{true, false} {
					first.dup = dup
					c.send(c.publish(first))
					c.expect(typePubrec, "0007")
				}
				c.send(pubrel(7))
				c.silent()
				s.h.land(1)
				c.expect(typePubcomp, "0007")
			}
			if got := values(s.t, s.h.arrivals(), "x"); !slices.Equal(got, []float64{0, 1}) {
				s.t.Errorf("arrived: %v", got)
			}
		}},
		{"", "4.3.3-9", "after a refusing PUBREC the id is new", func(s *stage) {
			c := s.client()
			c.send(c.publish(pub{qos: 2, id: 7, topic: "nowhere", payload: "1"}))
			c.expectCode(typePubrec, 7, topicInvalid)
			c.send(c.publish(pub{qos: 2, id: 7, topic: "data/x", payload: "2"}))
			c.expect(typePubrec, "0007")
			if got := values(s.t, s.h.arrivals(), "x"); !slices.Equal(got, []float64{2}) {
				s.t.Errorf("arrived: %v", got)
			}
		}},
		{"4.8.0-2", "", "what can heal ends the connection unanswered", func(s *stage) {
			s.h.refuse = func(string, []holdfast.Sample) error {
				return holdfast.Errorf(holdfast.Unavailable, "write: %w", syscall.ENOSPC)
			}
			c := s.client()
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
			c.expectEnd(quotaExceeded)
		}},
	}
}
