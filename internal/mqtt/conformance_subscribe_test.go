package mqtt

import (
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// scriptsOfSubscribers are about what the server publishes.
func scriptsOfSubscribers() []script {
	return slices.Concat(scriptsOfMessages(), scriptsOfOverlaps(), scriptsOfFlow(), scriptsOfLastingSubscriptions())
}

func scriptsOfMessages() []script {
	return []script{
		{"2.3.1-4 3.3.1-3 3.3.1-9 3.3.2-3 4.3.2-1 4.6.0-5 4.6.0-6", "2.2.1-4 3.3.1-3 3.3.1-12 3.3.2-3 4.3.2-1 4.3.2-2 4.3.2-3 4.6.0-5 4.6.0-6",
			"messages at QoS 1", func(s *stage) {
				c := s.client()
				c.subscribe(1, "feed/pump/+")
				s.h.board.post(reading(0), Message{Topic: "feed/other/t", QoS: 1}, reading(1), reading(2), Message{Topic: "feed/pump/t/more", QoS: 1}, reading(3))
				ids := map[uint16]bool{}
				for n := range 4 { // nothing is acknowledged so far
					m := c.receive()
					if m.payload != string(reading(n).Payload) || m.topic != "feed/pump/t" || m.qos != 1 || m.dup || m.retain || ids[m.id] {
						s.t.Errorf("message %d: %+v, ids %v", n, m, ids)
					}
					ids[m.id] = true
				}
				c.silent()
				for id := range ids {
					c.send(puback(id))
				}
				c.silent()
				if got := s.h.board.dones(); len(got) != 4 {
					s.t.Errorf("done: %v", got)
				}
			}},
		{"4.3.1-1", "4.3.1-1", "messages at QoS 0", func(s *stage) {
			c := s.client()
			c.subscribe(0, "feed/#")
			s.h.board.post(readings(3)...)
			for _, m := range c.receives("0", "1", "2") {
				if m.qos != 0 || m.dup || m.retain {
					s.t.Errorf("%+v", m)
				}
			}
		}},
		{"3.8.4-6", "3.8.4-8", "the lower of both QoS", func(s *stage) {
			c := s.client()
			c.subscribe(1, "feed/#")
			s.h.board.post(Message{Topic: "feed/a", Payload: []byte("a"), QoS: 0}, Message{Topic: "feed/b", Payload: []byte("b"), QoS: 1})
			if all := c.receives("a", "b"); all[0].qos != 0 || all[1].qos != 1 {
				s.t.Errorf("%+v", all)
			}
		}},
		{"", "3.3.2-15 3.3.2-16 3.3.2-20", "response topic, correlation data, content type", func(s *stage) {
			c := s.client()
			c.subscribe(1, "cmd/#")
			s.h.board.post(Message{Topic: "cmd/x", Payload: []byte("{}"), QoS: 1, ResponseTopic: "cmd/x/result", Correlation: []byte("\x00x"), ContentType: "application/json"})
			if m := c.receive(); m.response != "cmd/x/result" || m.correlation != "\x00x" || m.content != "application/json" {
				s.t.Errorf("%+v", m)
			}
		}},
		{"", "3.3.1-11", "retain handling, of what is never retained", func(s *stage) {
			c := s.client()
			s.h.board.post(readings(3)...)
			for _, options := range []byte{0x00, 0x10, 0x20, 0x28} {
				c.subscribe(options, "feed/#")
				c.silent()
			}
		}},
		{"", "3.1.2-25", "a message larger than the client takes counts as sent", func(s *stage) {
			c := s.as(hello{id: "a", clean: true, props: []byte{propMaxPacketSize, 0, 0, 0, 40}})
			c.subscribe(1, "feed/#")
			s.h.board.post(Message{Topic: "feed/pump/t", Payload: []byte(strings.Repeat("x", 40)), QoS: 1}, reading(1))
			c.receives("1")
		}},
		{"3.10.4-2 3.10.4-3", "3.10.4-2 3.10.4-3", "UNSUBSCRIBE ends delivery, not what has begun", func(s *stage) {
			c := s.client()
			c.subscribe(1, "feed/#")
			s.h.board.post(reading(0))
			m := c.receive()
			c.unsubscribe("feed/#")
			if p := c.next(); p.kind != typeUnsuback || s.v == v5 && p.body[3] != 0 {
				s.t.Fatalf("received %v", p)
			}
			s.h.board.post(reading(1))
			c.silent()
			c.send(puback(m.id))
			c.silent()
			if got := s.h.board.dones(); !slices.Equal(got, []string{"0"}) {
				s.t.Errorf("done: %v", got)
			}
		}},
	}
}

func scriptsOfOverlaps() []script {
	return []script{
		{"3.3.5-1", "3.3.4-2 3.3.4-3 3.3.4-5", "overlapping subscriptions: a copy for each, with its QoS and id", func(s *stage) {
			c := s.client()
			for i, f := range []string{"feed/#", "feed/pump/t"} {
				c.send(c.subscribeWith(uint16(i+1), byte(i), []byte{propSubscriptionID, byte(i + 1)}, f))
				c.next()
			}
			s.h.board.post(reading(0))
			seen := map[byte][]int{}
			for range 2 {
				m := c.receives("0")[0]
				seen[m.qos] = m.numbers
			}
			if len(seen) != 2 || s.v == v5 && (!slices.Equal(seen[0], []int{1}) || !slices.Equal(seen[1], []int{2})) {
				s.t.Errorf("subscription ids by QoS: %v", seen)
			}
			c.silent()
		}},
		{"3.8.4-3", "3.8.4-3 3.8.4-4", "an identical filter replaces the subscription and loses nothing", func(s *stage) {
			c := s.client()
			c.subscribe(1, "feed/#")
			s.h.board.post(readings(10)...)
			c.send(c.subscribeWith(1, 0, []byte{propSubscriptionID, 7}, "feed/#"))
			answered := false
			for n := 0; n < 10; {
				p := c.next()
				if answered = answered || p.kind == typeSuback; p.kind == typeSuback {
					continue
				}
				m, _ := p.message(s.v)
				if m.payload != string(reading(n).Payload) {
					s.t.Fatalf("message %d: %+v", n, m)
				}
				n++
			}
			if !answered {
				c.next()
			}
			s.h.board.post(reading(10))
			if m := c.receives("10")[0]; m.qos != 0 || s.v == v5 && !slices.Equal(m.numbers, []int{7}) {
				s.t.Errorf("%+v", m)
			}
			if n := s.h.board.isOpen(); n != 1 {
				s.t.Errorf("%d subscriptions", n)
			}
		}},
		{"", "4.8.2-3", "each sharer gets the QoS it was granted, each message once", func(s *stage) {
			a, b := s.as(hello{id: "a", clean: true}), s.as(hello{id: "b", clean: true})
			a.subscribe(1, "$share/g/feed/#")
			b.subscribe(0, "$share/g/feed/#")
			s.h.board.post(readings(10)...)
			seen := map[string]byte{}
			for range 10 {
				var p packet
				select {
				case p = <-a.packets:
				case p = <-b.packets:
				}
				m, ok := p.message(s.v)
				if _, again := seen[m.payload]; !ok || again {
					s.t.Fatalf("received %v", p)
				}
				seen[m.payload] = m.qos
			}
			qos := map[byte]int{}
			for _, q := range seen {
				qos[q]++
			}
			if qos[0] != 5 || qos[1] != 5 {
				s.t.Errorf("messages by QoS: %v", qos)
			}
		}},
		{"", "4.8.2-6", "what a sharer has refused goes to no other", func(s *stage) {
			a, b := s.as(hello{id: "a", clean: true}), s.as(hello{id: "b", clean: true})
			a.subscribe(1, "$share/g/feed/#")
			b.subscribe(1, "$share/g/feed/#")
			s.h.board.post(reading(0))
			var m got
			first, other := a, b
			select {
			case p := <-a.packets:
				m, _ = p.message(s.v)
			case p := <-b.packets:
				m, _ = p.message(s.v)
				first, other = b, a
			}
			first.send([]byte{typePuback << 4, 3, byte(m.id >> 8), byte(m.id), byte(unspecified)})
			first.silent()
			first.leave()
			other.silent()
		}},
	}
}

func scriptsOfFlow() []script {
	return []script{
		{"", "3.3.4-9 3.3.4-10 4.9.0-1 4.9.0-2 4.9.0-3", "the client's Receive Maximum", func(s *stage) {
			c := s.as(hello{id: "a", clean: true, props: []byte{propReceiveMaximum, 0, 3}})
			c.subscribe(1, "feed/#")
			c.subscribe(0, "cmd/#")
			s.h.board.post(readings(8)...)
			var ids []uint16
			for n := range 3 {
				m := c.receive()
				if m.payload != string(reading(n).Payload) {
					s.t.Fatalf("message %d: %+v", n, m)
				}
				ids = append(ids, m.id)
			}
			c.silent() // PINGRESP comes, PUBLISH doesn't
			s.h.board.post(Message{Topic: "cmd/x", Payload: []byte("now"), QoS: 1})
			if m := c.receive(); m.payload != "now" || m.qos != 0 { // QoS 0 needs no room
				s.t.Errorf("%+v", m)
			}
			for n := 3; n < 8; n++ {
				c.send(puback(ids[0]))
				m := c.receive()
				if m.payload != string(reading(n).Payload) {
					s.t.Fatalf("message %d: %+v", n, m)
				}
				ids = append(ids[1:], m.id)
				c.silent()
			}
		}},
	}
}

func scriptsOfLastingSubscriptions() []script {
	return []script{
		{"2.3.1-3 3.1.2-5 4.4.0-1 4.5.0-1 4.6.0-1", "2.2.1-3 4.4.0-1 4.5.0-1 4.6.0-1", "messages wait for the session, those in flight come again", func(s *stage) {
			c, _ := s.again(hello{})
			c.subscribe(1, "feed/#")
			s.h.board.post(readings(4)...)
			var first []got
			for range 4 {
				first = append(first, c.receive())
			}
			c.send(puback(first[0].id))
			c.send(puback(first[2].id)) // not all before it
			c.silent()
			c.leave()
			s.h.board.post(reading(4), reading(5))
			c, present := s.again(hello{})
			if !present {
				s.t.Fatal("the session is gone")
			}
			var ids []uint16
			for _, want := range []got{{payload: "1", id: first[1].id, dup: true}, {payload: "3", id: first[3].id, dup: true}, {payload: "4"}, {payload: "5"}} {
				m := c.receive()
				if m.payload != want.payload || m.dup != want.dup || want.id != 0 && m.id != want.id || want.id == 0 && (m.id == first[1].id || m.id == first[3].id) {
					s.t.Errorf("received %+v, want %+v", m, want)
				}
				ids = append(ids, m.id)
			}
			for _, id := range ids { // not before: an id that is acknowledged is free for the next message
				c.send(puback(id))
			}
			c.silent()
			c.leave()
			c, _ = s.again(hello{})
			c.silent() // all is acknowledged
		}},
	}
}

// scriptsOfWaiting let time pass.
func scriptsOfWaiting() []script {
	return []script{
		{"", "3.3.2-5 3.3.2-6", "what waits expires", func(s *stage) {
			c := s.as(hello{id: "a", clean: true, props: []byte{propReceiveMaximum, 0, 1}})
			c.subscribe(1, "feed/#")
			brief, long := reading(1), reading(2)
			brief.Expiry, long.Expiry = 5*time.Second, time.Minute
			s.h.board.post(reading(0), brief, long)
			m := c.receive()
			synctest.Wait()
			time.Sleep(8 * time.Second)
			c.send(puback(m.id))
			if m = c.receive(); m.payload != "2" || m.expiry != 60 && m.expiry != 52 {
				s.t.Errorf("%+v", m)
			}
		}},
	}
}
