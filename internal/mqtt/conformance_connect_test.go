package mqtt

import (
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// badText are strings that no field may hold: cut, surrogates, longer than needed,
// beyond Unicode.
func badText() []string {
	return []string{"\xc3", "\xc3\x28", "\xed\xa0\x80", "\xed\xbf\xbf", "\xc0\xaf", "\xf4\x90\x80\x80", "\xff"}
}

func scriptsOfStrings() []script {
	everywhere := func(s *stage, bad []string) {
		for _, x := range bad {
			s.breaks(malformed, pub{topic: "data/" + x, payload: "1"}.bytes(s.v), s.filters(1, []byte{0}, x), s.filters(1, nil, x))
			s.breaks(malformed, s.only(v5, property(appendText([]byte{propContentType}, x)...), property(appendText([]byte{propResponseTopic}, x)...),
				property(appendText(appendText([]byte{propUserProperty}, "k"), x)...), property(appendText(appendText([]byte{propUserProperty}, x), "v")...))...)
			s.refuses(0, malformed, hello{version: s.v, id: x, clean: true}.bytes(),
				hello{version: s.v, id: "a", clean: true, will: &testWill{topic: x}}.bytes(),
				s.hello(hello{id: "a", clean: true, flags: 0x80}, func(b []byte) []byte { return appendText(b, x) }))
		}
	}
	return []script{
		{"1.5.3-1 3.1.3-4 3.1.3-10 3.1.3-11 3.3.2-1 3.8.3-1 3.10.3-1", "1.5.4-1 1.5.7-1 3.1.3-4 3.1.3-11 3.1.3-12 3.3.2-1 3.3.2-13 3.3.2-19 3.8.3-1 3.10.3-1",
			"ill-formed UTF-8", func(s *stage) { everywhere(s, badText()) }},
		{"1.5.3-2 4.7.3-2", "1.5.4-2 4.7.3-2", "NUL", func(s *stage) { everywhere(s, []string{"\x00", "a\x00b"}) }},
		{"1.5.3-3", "1.5.4-3", "U+FEFF is kept", func(s *stage) {
			c := s.client()
			c.send(c.publish(pub{topic: "data/\ufeffx\ufeff", payload: "1"}))
			if got := s.h.await(1); got[0].Stream != "\ufeffx\ufeff" {
				s.t.Errorf("the stream is %q", got[0].Stream)
			}
		}},
		{"", "1.5.5-1", "lengths have their shortest form", func(s *stage) {
			s.breaks(malformed, unhex("c0 8000"), unhex("30 8900 0006 646174612f78 00"), framed(0x30, unhex("0006 646174612f78 8000 31")), framed(0x82, unhex("0001 8000 0001 61 00")))
		}},
		{"2.2.2-1 2.2.2-2 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1", "2.1.3-1 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1 3.15.1-1", "reserved flags", func(s *stage) {
			for flags := range byte(16) {
				if flags != 0 {
					s.breaks(malformed, []byte{0xc0 | flags, 0}, []byte{0xe0 | flags, 0})
					s.breaks(malformed, s.only(v5, []byte{0xf0 | flags, 0})...)
					s.refuses(0, 0, framed(0x10|flags, hello{version: s.v, id: "a"}.bytes()[2:]))
				}
				if flags != 2 {
					s.breaks(malformed, []byte{0x60 | flags, 2, 0, 1})
					for _, b := range [][]byte{s.filters(1, []byte{0}, "a"), s.filters(1, nil, "a")} {
						b[0] = b[0]&0xf0 | flags
						s.breaks(malformed, b)
					}
				}
			}
		}},
		{"2.3.1-1", "2.2.1-3", "packet id 0", func(s *stage) {
			s.breaks(protocolError, pub{qos: 1, topic: "data/x", payload: "1"}.bytes(s.v), pub{qos: 2, topic: "data/x", payload: "1"}.bytes(s.v),
				s.filters(0, []byte{0}, "a"), s.filters(0, nil, "a"), pubrel(0))
		}},
		{"2.3.1-5", "2.2.1-2", "QoS 0 has no packet id", func(s *stage) {
			c := s.client()
			c.send(c.publish(pub{topic: "data/x", payload: "12"}))
			if got := values(s.t, s.h.await(1), "x"); got[0] != 12 {
				s.t.Errorf("received %v", got)
			}
		}},
		{"2.3.1-6", "2.2.1-5", "acknowledgements have the publish's id", func(s *stage) {
			c := s.client()
			for _, id := range []uint16{1, 255, 256, 65535} {
				c.send(c.publish(pub{qos: 1, id: id, topic: "data/x", payload: "1"}))
				c.expectCode(typePuback, id, success)
				c.send(c.publish(pub{qos: 2, id: id, topic: "data/x", payload: "1"}))
				c.expectCode(typePubrec, id, success)
				c.send(pubrel(id))
				c.expectCode(typePubcomp, id, success)
			}
		}},
		{"2.3.1-7 3.8.4-1 3.8.4-2 3.10.4-4 3.10.4-5", "2.2.1-6 3.8.4-1 3.8.4-2 3.10.4-4 3.10.4-5", "SUBACK and UNSUBACK have the request's id", func(s *stage) {
			c := s.client()
			for _, id := range []uint16{1, 255, 256, 65535} {
				for _, b := range [][]byte{s.filters(id, []byte{1}, "a"), s.filters(id, nil, "a")} {
					c.send(b)
					if p := c.next(); p.kind != b[0]>>4+1 || p.body[0] != byte(id>>8) || p.body[1] != byte(id) {
						s.t.Errorf("%x was answered with %v", b, p)
					}
				}
			}
		}},
		{"", "2.2.2-1", "no properties are a length of 0", func(s *stage) {
			c := s.client()
			c.send(s.filters(1, []byte{1}, "a"))
			c.expect(typeSuback, "0001 00 87")
			s.breaks(malformed, pub{topic: "data/x"}.bytes(v311), framed(0x82, unhex("0001")), framed(0xa2, unhex("0001")))
		}},
	}
}

func scriptsOfConnect() []script {
	ok := hello{id: "a", clean: true}
	return []script{
		{"3.1.0-1 3.2.2-6", "3.1.0-1 3.14.0-1", "the first packet is CONNECT", func(s *stage) {
			for kind := range byte(16) {
				if kind != typeConnect {
					s.refuses(0, 0, []byte{kind << 4, 0}, framed(kind<<4|2, unhex("0001 00 0001 61")))
				}
			}
		}},
		{"3.1.0-2", "3.1.0-2", "a second CONNECT", func(s *stage) {
			s.breaks(protocolError, s.hello(ok, slices.Clip), s.hello(hello{id: "b"}, slices.Clip))
		}},
		{"3.1.2-1", "3.1.2-1", "the protocol's name", func(s *stage) {
			for _, name := range []string{"", "MQTX", "mqtt", "MQTT\x00", "MQIsdp"} {
				s.refuses(0, 0, s.hello(ok, func(b []byte) []byte { return append(appendText(nil, name), b[6:]...) }))
			}
		}},
		{"3.1.2-2", "3.1.2-2", "other versions", func(s *stage) {
			level := func(n byte) []byte {
				return s.hello(ok, func(b []byte) []byte { b[6] = n; return b })
			}
			if s.v == v311 {
				s.refuses(1, 0, level(0), level(3), level(0x84), framed(0x10, unhex("0006 4d5149736470 03 02 003c 0001 61")))
			} else {
				s.refuses(0, unsupportedVersion, level(6), level(255))
			}
		}},
		{"3.1.2-3", "3.1.2-3", "the reserved flag of CONNECT", func(s *stage) {
			s.refuses(0, malformed, s.hello(hello{id: "a", clean: true, flags: 1}, slices.Clip))
		}},
		{"3.1.2-18 3.1.2-19 3.1.2-20 3.1.2-21 3.1.2-22", "3.1.2-16 3.1.2-17 3.1.2-18 3.1.2-19", "user name and password are there as the flags say", func(s *stage) {
			with := func(flags byte, fields ...string) []byte {
				return s.hello(hello{id: "a", clean: true, flags: flags}, func(b []byte) []byte {
					for _, f := range fields {
						b = appendText(b, f)
					}
					return b
				})
			}
			s.refuses(0, malformed, with(0, "u"), with(0x80), with(0x80, "u", "p"), with(0xc0, "u"), with(0x40))
			alone := with(0x40, "p") // 3.1.1 has no password without a user name
			if s.v == v311 {
				s.refuses(0, 0, alone)
				alone = nil
			}
			for _, b := range [][]byte{with(0x80, "u"), with(0xc0, "u", "p"), with(0xc0, "", ""), alone} {
				if b != nil {
					c := s.dial(holdfast.DeviceID{1})
					c.send(b)
					if p := c.next(); p.kind != typeConnack || p.body[1] != 0 {
						s.t.Errorf("%x: received %v", b, p)
					}
				}
			}
		}},
		{"3.1.3-1 3.1.3-3", "3.1.3-1 3.1.3-3", "the payload's fields in order", func(s *stage) {
			c := s.dial(holdfast.DeviceID{1})
			c.version = s.v
			c.send(s.hello(hello{id: "a", clean: true, flags: 0xc0, will: &testWill{topic: "event/gone", payload: "bye"}},
				func(b []byte) []byte { return appendText(appendText(b, "u"), "p") }))
			c.expect(typeConnack, map[byte]string{v311: "0000", v5: "0000 10 210040 2500 2700080000 220020 130e10"}[s.v])
			c.nc.Close()
			if got := s.h.await(1); got[0].Stream != "event/gone" || got[0].Value.Text() != "bye" || got[0].Session != (holdfast.DeviceID{1}).String()+"/a" {
				s.t.Errorf("the will is %+v", got[0])
			}
			s.refuses(0, malformed, s.hello(ok, func(b []byte) []byte { return b[:len(b)-3] }), s.hello(ok, func(b []byte) []byte { return b[:len(b)-1] }))
		}},
		{"3.1.3-5", "3.1.3-5", "every usual client id", func(s *stage) {
			for _, id := range []string{"a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"} {
				s.as(hello{id: id, clean: true}).silent()
			}
		}},
		{"3.1.3-8", "", "an empty client id without a clean session", func(s *stage) {
			s.refuses(2, 0, hello{version: s.v}.bytes())
		}},
		{"3.1.3-9 3.2.2-5", "3.1.3-8", "a client id that is too long", func(s *stage) {
			s.refuses(2, badClientID, hello{version: s.v, id: strings.Repeat("x", 257), clean: true}.bytes())
		}},
		{"3.1.4-1", "3.1.4-1", "a CONNECT that is none", func(s *stage) {
			s.refuses(0, malformed, s.hello(ok, func(b []byte) []byte { return append(b, 0) }))
			s.refuses(0, 0, []byte{0x10, 0}, framed(0x10, unhex("0004 4d515454")))
			if s.v == v5 {
				s.refuses(0, protocolError, hello{version: v5, id: "a", props: []byte{propReceiveMaximum, 0, 0}}.bytes(),
					hello{version: v5, id: "a", props: []byte{propRequestProblemInfo, 2}}.bytes())
			}
		}},
		{"3.1.4-4 3.2.0-1", "3.1.4-5 3.2.0-1 3.2.0-2 3.2.2-1", "CONNACK comes first and once", func(s *stage) {
			c := s.dial(holdfast.DeviceID{1})
			c.version = s.v
			c.send(slices.Concat(s.hello(ok, slices.Clip), []byte{0xc0, 0}, c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"})))
			if p := c.next(); p.kind != typeConnack || p.body[0]&0xfe != 0 || p.body[1] != 0 {
				s.t.Errorf("received %v first", p)
			}
			for range 2 {
				if p := c.next(); p.kind != typePingresp && p.kind != typePuback {
					s.t.Errorf("received %v", p)
				}
			}
			c.silent()
		}},
		{"3.1.4-5", "3.1.4-6", "nothing counts behind a CONNECT that was refused", func(s *stage) {
			s.h.openErr = holdfast.Errorf(holdfast.Denied, "no")
			s.refuses(5, notAuthorized, slices.Concat(s.hello(ok, slices.Clip), pub{topic: "data/x", payload: "1"}.bytes(s.v)))
			if got := s.h.arrivals(); len(got) != 0 {
				s.t.Errorf("arrived: %v", got)
			}
		}},
		{"", "3.1.2-24 3.2.2-19 3.4.2-2 3.5.2-2 3.7.2-2 3.14.2-3", "the client's Maximum Packet Size", func(s *stage) {
			small := func(n byte) hello {
				return hello{version: v5, id: "a", clean: true, props: []byte{propMaxPacketSize, 0, 0, 0, n}}
			}
			c := s.dial(holdfast.DeviceID{1})
			c.send(small(20).bytes())
			c.expectClosed() // no room for CONNACK
			c = s.as(small(40))
			c.send(c.publish(pub{qos: 1, id: 1, topic: "nowhere", payload: "1"}))
			c.expect(typePuback, "0001 90")
			c.send(c.publish(pub{qos: 2, id: 1, topic: "nowhere", payload: "1"}))
			c.expect(typePubrec, "0001 90")
			c.send(pubrel(9))
			c.expect(typePubcomp, "0009 92")
			c.send([]byte{0xf0, 0})
			c.expect(typeDisconnect, "82")
			c.expectClosed()
			h := small(20)
			h.id = strings.Repeat("x", 257)
			c = s.dial(holdfast.DeviceID{1})
			c.send(h.bytes())
			c.expect(typeConnack, "0085 00")
		}},
		{"", "3.1.2-28 3.1.2-29 4.12.0-6", "what was not asked for is not sent", func(s *stage) {
			c := s.as(hello{id: "a", clean: true, props: []byte{propRequestProblemInfo, 0, propRequestResponseInfo, 0}})
			c.send(c.publish(pub{qos: 1, id: 1, topic: "nowhere", payload: "1"}))
			c.expect(typePuback, "0001 90")
			c = s.dial(holdfast.DeviceID{1})
			c.send(hello{version: v5, id: "b", props: []byte{propRequestResponseInfo, 1}}.bytes())
			c.expect(typeConnack, "0000 10 210040 2500 2700080000 220020 130e10")
		}},
		{"", "4.12.0-1", "an authentication method", func(s *stage) {
			s.refuses(0, badAuthMethod, hello{version: v5, id: "a", props: appendText([]byte{propAuthMethod}, "SCRAM-SHA-1")}.bytes())
		}},
		{"", "3.2.2-13", "a retained will", func(s *stage) {
			s.refuses(0, retainNotSupported, hello{version: v5, id: "a", will: &testWill{topic: "data/x", payload: "1", retain: true}}.bytes())
		}},
	}
}
