package mqtt

import (
	"slices"
)

func scriptsOfSubscriptions() []script {
	return []script{
		{"3.8.3-2", "3.2.2-10", "wildcards, and every QoS", func(s *stage) {
			c := s.client()
			c.send(s.filters(1, []byte{0, 1, 2}, "feed/#", "feed/+/b", "cmd/#"))
			if s.v == v311 {
				c.expect(typeSuback, "0001 000101")
			} else {
				c.expect(typeSuback, "0001 00 000101")
			}
		}},
		{"3.8.3-3", "3.8.3-2", "SUBSCRIBE has a filter", func(s *stage) { s.breaks(protocolError, s.filters(1, []byte{})) }},
		{"3.8.3-4", "3.8.3-5", "reserved bits of the options", func(s *stage) {
			reserved := []byte{0x40, 0x80, 0xc1}
			if s.v == v311 {
				reserved = append(reserved, 0x04, 0x08, 0x10, 0x20, 3)
			}
			for _, o := range reserved {
				s.breaks(malformed, s.filters(1, []byte{0, o}, "a", "b"))
			}
		}},
		{"", "3.8.3-4", "a shared subscription without its own messages", func(s *stage) {
			s.breaks(protocolError, s.filters(1, []byte{4}, "$share/a/b"))
		}},
		{"3.8.4-4 3.8.4-5 3.9.3-1 3.9.3-2", "3.8.4-5 3.8.4-6 3.8.4-7 3.9.3-1 3.9.3-2", "a code for each filter", func(s *stage) {
			c := s.client()
			c.send(s.filters(2, []byte{0, 1, 2, 0}, "feed/a", "data/x", "feed/b", "bad/x"))
			if s.v == v311 {
				c.expect(typeSuback, "0002 00800180")
				return
			}
			c.expect(typeSuback, "0002 00 0087018f")
			c.send(s.filters(3, []byte{0x08, 0x10, 0x20, 0x04}, "feed/a", "feed/b", "feed/c", "feed/d")) // every option there is
			c.expect(typeSuback, "0003 00 00000000")
			c.send(s.filters(4, []byte{0, 0}, "many/x", "away/x"))
			c.expect(typeSuback, "0004 00 9780")
		}},
		{"", "4.8.2-1 4.8.2-2", "shared subscriptions, well formed or not", func(s *stage) {
			c := s.client()
			c.send(s.filters(1, []byte{1, 1, 1}, "$share/a/feed/b", "$share/a/feed/#", "$share/a/x"))
			c.expect(typeSuback, "0001 00 010187")
			for _, f := range []string{"$share//b", "$share/a", "$share/a/", "$share/", "$share/a+/b", "$share/+/b", "$share/#"} {
				s.breaks(protocolError, s.filters(1, []byte{0}, f))
			}
		}},
		{"4.7.1-2 4.7.1-3", "4.7.1-1 4.7.1-2", "filters that are none", func(s *stage) {
			for _, f := range []string{"a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c"} {
				s.breaks(protocolError, s.filters(1, []byte{0}, f), s.filters(1, []byte{0, 0}, "a", f), s.filters(1, nil, f))
			}
		}},
		{"3.10.3-2", "3.10.3-2", "UNSUBSCRIBE has a filter", func(s *stage) { s.breaks(protocolError, s.filters(1, nil)) }},
		{"3.10.4-1 3.10.4-6", "3.10.4-1 3.10.4-6 3.11.3-1 3.11.3-2", "there is no subscription to end", func(s *stage) {
			c := s.client()
			c.send(s.filters(9, nil, "a", "a/#", "+"))
			if s.v == v311 {
				c.expect(typeUnsuback, "0009")
			} else {
				c.expect(typeUnsuback, "0009 00 111111")
			}
		}},
	}
}

func scriptsOfTheEnd() []script {
	return []script{
		{"3.12.4-1", "3.12.4-1", "PINGREQ", func(s *stage) {
			c := s.client()
			c.send(unhex("c000 c000"))
			c.expect(typePingresp, "")
			c.expect(typePingresp, "")
		}},
		{"", "3.14.2-1", "DISCONNECT with a code of the server's or of nobody's", func(s *stage) {
			allowed := []reason{0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
			for code := range reason(0xff) {
				if slices.Contains(allowed, code) {
					c := s.client()
					c.send([]byte{0xe0, 1, byte(code)})
					c.expectClosed()
				} else {
					s.breaks(protocolError, []byte{0xe0, 1, byte(code)})
				}
			}
		}},
		{"3.14.4-1 3.14.4-2", "3.14.4-1 3.14.4-2", "nothing comes behind DISCONNECT", func(s *stage) {
			c := s.client()
			c.write(slices.Concat([]byte{0xe0, 0, 0xc0, 0}, c.publish(pub{topic: "data/x", payload: "1"})))
			c.expectClosed()
			if s.v == v5 { // nor behind the server's
				c = s.client()
				c.write(slices.Concat([]byte{0xf0, 0, 0xc0, 0}, c.publish(pub{topic: "data/x", payload: "1"})))
				c.expectEnd(protocolError)
			}
			if got := s.h.arrivals(); len(got) != 0 {
				s.t.Errorf("arrived: %v", got)
			}
		}},
		{"", "3.14.2-2", "the server's DISCONNECT has a reason string at most", func(s *stage) {
			c := s.client()
			c.send([]byte{0xf0, 0})
			if c.expectEnd(protocolError) == "" {
				s.t.Error("there is no reason string")
			}
		}},
		{"", "4.12.0-7", "AUTH", func(s *stage) {
			s.breaks(protocolError, unhex("f000"), unhex("f00118"), unhex("f0061804 15000161"))
		}},
		{"4.8.0-1", "4.13.1-1", "packets out of place", func(s *stage) {
			for _, raw := range []string{"20020000", "40020001", "50020001", "70020001", "9003000100", "b0020001", "d000"} {
				s.breaks(protocolError, unhex(raw))
			}
			s.breaks(malformed, unhex("0000"))
			if s.v == v311 {
				s.breaks(malformed, unhex("f000"))
			}
		}},
	}
}
