package mqtt

import (
	"bytes"
	"slices"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// leave drops a connection as a lost network does.
func leave(c *client) {
	c.nc.Close()
	synctest.Wait()
}

func goodbye(c *client) {
	c.send([]byte{0xe0, 0})
	c.expectClosed()
	synctest.Wait()
}

func scriptsOfSessions() []script {
	qos2 := func(id uint16, dup bool) pub { return pub{qos: 2, id: id, dup: dup, topic: "data/x", payload: "1"} }
	return []script{
		{"3.1.2-4 3.1.3-2 3.2.2-2 3.2.2-3 4.1.0-1", "3.1.2-5 3.1.2-6 3.1.2-23 3.1.3-2 3.2.2-3 4.1.0-1", "a session goes on", func(s *stage) {
			c, present := s.again(hello{})
			if present {
				s.t.Error("a new session was there before")
			}
			c.send(c.publish(qos2(5, false)))
			c.expect(typePubrec, "0005")
			for _, end := range []func(*client){leave, goodbye} {
				end(c)
				time.Sleep(time.Minute)
				if c, present = s.again(hello{}); !present {
					s.t.Error("the session is gone")
				}
				c.send(c.publish(qos2(5, true))) // what the server knows of the id is part of the session
				c.expect(typePubrec, "0005")
			}
			if n := len(s.h.arrivals()); n != 1 {
				s.t.Errorf("%d arrivals", n)
			}
			other := s.as(hello{id: "b"}) // the client id tells sessions apart
			other.send(other.publish(qos2(5, true)))
			other.expect(typePubrec, "0005")
			if n := len(s.h.arrivals()); n != 2 {
				s.t.Errorf("%d arrivals", n)
			}
		}},
		{"3.1.2-6 3.1.4-3 3.2.2-1", "3.1.2-4 3.1.4-4 3.2.2-2", "a clean start", func(s *stage) {
			c, _ := s.again(hello{})
			c.send(c.publish(qos2(5, false)))
			c.expect(typePubrec, "0005")
			leave(c)
			c, present := s.again(hello{clean: true})
			if present {
				s.t.Error("session present after a clean start")
			}
			c.send(c.publish(qos2(5, true))) // of a message that the new session doesn't know
			c.expect(typePubrec, "0005")
			if n := len(s.h.arrivals()); n != 2 {
				s.t.Errorf("%d arrivals", n)
			}
			leave(c)
			_, present = s.again(hello{})
			if present != (s.v == v5) { // 3.1.1 ends a clean session with its connection
				s.t.Errorf("after a clean start: present is %v", present)
			}
		}},
		{"3.1.4-2", "3.1.4-3", "the same client id again", func(s *stage) {
			c := s.client()
			next := s.client()
			c.expectEnd(takenOver)
			next.silent()
		}},
		{"3.2.2-4", "3.2.2-6 3.2.2-7 4.13.2-1", "a refusal has no session present, and ends", func(s *stage) {
			c, _ := s.again(hello{})
			leave(c)
			s.h.openErr = holdfast.Errorf(holdfast.Unavailable, "not now")
			code := byte(3)
			if s.v == v5 {
				code = byte(serverUnavailable)
			}
			s.dial(holdfast.DeviceID{1}).connectRefused(hello{version: s.v, id: "a"}, code)
		}},
		{"4.1.0-2", "4.1.0-2", "a session lasts as long as its connection, and ends", func(s *stage) {
			c := s.client() // without anything beyond the connection
			c.send(c.publish(qos2(5, false)))
			c.expect(typePubrec, "0005")
			time.Sleep(time.Hour)
			c.send(c.publish(qos2(5, true)))
			c.expect(typePubrec, "0005")
			goodbye(c)
			if n := len(s.h.sessions); n != 0 || len(s.h.arrivals()) != 1 {
				s.t.Errorf("%d sessions", n)
			}
		}},
	}
}

func scriptsOfWills() []script {
	will := func(delay uint32) *testWill { return &testWill{topic: "event/gone", payload: "bye", delay: delay} }
	wills := func(s *stage, want int) {
		s.t.Helper()
		synctest.Wait()
		if n := len(s.h.arrivals()); n != want {
			s.t.Errorf("%d wills, want %d", n, want)
		}
	}
	return []script{
		{"3.1.2-8 3.1.2-10 3.1.2-16", "3.1.2-7 3.1.2-8 3.1.2-10 3.1.2-14", "a will comes once", func(s *stage) {
			ends := []func(*client){
				func(c *client) { c.nc.Close() },
				func(c *client) { c.send([]byte{0, 0}); c.expectEnd(malformed) },
				func(c *client) { s.client(); c.expectEnd(takenOver) },
			}
			if s.v == v5 {
				ends = append(ends, func(c *client) { c.send([]byte{0xe0, 1, 4}); c.expectClosed() })
			}
			for i, end := range ends {
				c := s.as(hello{id: "a", clean: true, will: will(0)})
				end(c)
				wills(s, i+1)
				time.Sleep(time.Hour)
				goodbye(s.as(hello{id: "a"})) // no other connection has it
				wills(s, i+1)
			}
		}},
		{"3.14.4-3", "3.14.4-3", "a goodbye takes the will back", func(s *stage) {
			goodbye(s.as(hello{id: "a", clean: true, will: will(0)}))
			time.Sleep(time.Hour)
			wills(s, 0)
		}},
		{"", "3.1.3-9", "who is back in time has no will", func(s *stage) {
			c, _ := s.again(hello{will: will(20)})
			leave(c)
			time.Sleep(19 * time.Second)
			c, _ = s.again(hello{will: will(20)})
			_, _ = s.again(hello{}) // at once, and without a will
			c.expectEnd(takenOver)
			time.Sleep(time.Hour)
			wills(s, 0)
		}},
		{"3.1.2-9", "3.1.2-9", "a will has a topic and a message", func(s *stage) {
			h := hello{id: "a", clean: true, flags: 4}
			text := func(fields ...string) []byte {
				return s.hello(h, func(b []byte) []byte {
					if s.v == v5 {
						b = append(b, 0)
					}
					for _, f := range fields {
						b = appendText(b, f)
					}
					return b
				})
			}
			s.refuses(0, malformed, s.hello(h, slices.Clip), text(), text("data/x"))
		}},
		{"3.1.2-11 3.1.2-13 3.1.2-15", "3.1.2-11 3.1.2-13", "without a will there are no flags of one", func(s *stage) {
			for _, flags := range []byte{0x08, 0x10, 0x18, 0x20, 0x28} {
				s.refuses(0, malformed, s.hello(hello{id: "a", flags: flags}, slices.Clip))
			}
			s.refuses(0, malformed, s.hello(hello{id: "a"}, func(b []byte) []byte { return appendText(appendText(b, "data/x"), "1") }))
		}},
		{"3.1.2-12", "", "without a will nothing is published", func(s *stage) {
			leave(s.client())
			time.Sleep(time.Hour)
			wills(s, 0)
		}},
		{"3.1.2-14", "3.1.2-12", "a will's QoS", func(s *stage) {
			s.refuses(0, malformed, s.hello(hello{id: "a", flags: 0x10, will: will(0)}, slices.Clip)) // beside the 1 it has
			for i, flags := range []byte{0, 0x08, 0x10} {
				h := hello{id: "a", clean: true, will: will(0)}
				c := s.dial(holdfast.DeviceID{1})
				c.send(s.hello(h, func(b []byte) []byte { b[7] = b[7]&^0x18 | flags; return b }))
				if p := c.next(); p.kind != typeConnack || p.body[1] != 0 {
					s.t.Fatalf("received %v", p)
				}
				leave(c)
				wills(s, i+1)
			}
		}},
	}
}

// scriptsInTime are those of the other lists that take time, or another peer.
func scriptsInTime() []script {
	return []script{
		{"3.1.2-24", "3.1.2-22 3.2.2-22", "one and a half times the keep-alive", func(s *stage) {
			c := s.as(hello{id: "a", clean: true, keepAlive: 10, will: &testWill{topic: "event/gone", payload: "x"}})
			for range 3 {
				time.Sleep(14 * time.Second)
				c.silent()
			}
			start := time.Now()
			c.expectEnd(keepAliveTimeout)
			if d := time.Since(start); d != 15*time.Second || len(s.h.await(1)) != 1 {
				s.t.Errorf("the connection ended after %s", d)
			}
		}},
		{"3.1.3-6", "3.1.3-6 3.1.3-7 3.2.2-16", "an empty client id", func(s *stage) {
			one, two := s.as(hello{clean: true}), s.as(hello{clean: true})
			one.silent() // not taken over
			two.silent()
			if len(s.h.sessions) != 2 {
				s.t.Errorf("%d sessions", len(s.h.sessions))
			}
			if s.v == v311 {
				return
			}
			c := s.dial(holdfast.DeviceID{1})
			_, props := c.connect(hello{version: v5, props: []byte{propSessionExpiry, 0, 0, 0, 60}})
			i := bytes.Index(props, []byte("auto-"))
			assigned := string(props[i : i+int(props[i-1])])
			c.nc.Close()
			synctest.Wait()
			if present, _ := s.dial(holdfast.DeviceID{1}).connect(hello{version: v5, id: assigned}); !present {
				s.t.Errorf("no session of %s", assigned)
			}
		}},
		{"", "3.1.4-2", "who is no device", func(s *stage) {
			s.dial(holdfast.DeviceID{}).connectRefused(hello{version: v5, id: "a"}, byte(notAuthorized))
		}},
		{"", "3.3.4-7", "more than Receive Maximum", func(s *stage) {
			c := s.client()
			s.h.set(func() { s.h.manual = true })
			for id := range uint16(64) {
				c.send(c.publish(pub{qos: 1 + byte(id%2), id: id + 1, topic: "data/x", payload: "1"}))
			}
			c.send(c.publish(pub{topic: "data/x", payload: "1"})) // QoS 0 doesn't count, nor do other packets
			c.silent()
			c.send(c.publish(pub{qos: 1, id: 65, topic: "data/x", payload: "1"}))
			c.expectEnd(receiveMaxExceeded)
			synctest.Wait()
			s.h.land(len(s.h.waiting))
		}},
		{"", "4.3.3-13", "a message that has expired is acknowledged to the end", func(s *stage) {
			c := s.client()
			c.send(c.publish(pub{qos: 2, id: 7, topic: "data/x", payload: "1", props: []byte{propMessageExpiry, 0, 0, 0, 1}}))
			c.expect(typePubrec, "0007")
			time.Sleep(time.Minute)
			c.send(c.publish(pub{qos: 2, id: 7, dup: true, topic: "data/x", payload: "1", props: []byte{propMessageExpiry, 0, 0, 0, 1}}))
			c.expect(typePubrec, "0007")
			c.send(pubrel(7))
			c.expect(typePubcomp, "0007")
		}},
	}
}
