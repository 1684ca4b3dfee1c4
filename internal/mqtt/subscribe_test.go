package mqtt

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

var anHour = []byte{propSessionExpiry, 0, 0, 14, 16}

// A session goes on where it was, also on a server that has only what was kept; a
// crash gives what was acknowledged since the last note again.
func TestSessionGoesOn(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			x := hello{version: v, id: "a", props: anHour}
			p := newPipes(t, h, Options{})
			c := p.dial(holdfast.DeviceID{1})
			c.connect(x)
			c.subscribe(1, "feed/#")
			h.board.post(readings(3)...)
			c.receives("0", "1")
			unsure := c.receive()
			c.leave()
			synctest.Wait()
			if n := h.board.isOpen(); n != 0 {
				t.Errorf("%d subscriptions without a connection", n)
			}
			h.board.post(reading(3))

			p = newPipes(t, h, Options{}) // after a restart
			c = p.dial(holdfast.DeviceID{1})
			if present, _ := c.connect(x); !present {
				t.Fatal("the session is gone")
			}
			m := c.receive()
			if m.payload != "2" || m.id != unsure.id || !m.dup {
				t.Errorf("received %+v, it was %+v", m, unsure)
			}
			c.send(puback(m.id))
			c.receives("3")
			synctest.Wait()
			kept := h.kept("feed/#") // what a crash now leaves is what was noted last
			c.leave()
			synctest.Wait()
			h.set(func() { h.sessions[state1(x)].kept["feed/#"] = kept })
			c = newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
			c.connect(x)
			for m := c.receive(); m.payload != "3"; m = c.receive() {
				c.send(puback(m.id))
			}
		})
	})
}

func state1(x hello) string { return (holdfast.DeviceID{1}).String() + "/" + x.id }

// kept is what the only session has of a filter.
func (h *hub) kept(filter string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		return slices.Clone(s.kept[filter])
	}
	return nil
}

// A session whose subscription can't be had any more begins anew; one that the hub
// can't open just now is not let in.
func TestSessionThatCannotGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{})
		x := hello{version: v5, id: "a", props: anHour}
		c := p.dial(holdfast.DeviceID{1})
		c.connect(x)
		c.subscribe(1, "feed/#", "cmd/#")
		c.leave()
		h.board.end(holdfast.Errorf(holdfast.Unavailable, "away"))
		p.dial(holdfast.DeviceID{1}).connectRefused(x, byte(serverUnavailable))
		h.board.end(holdfast.Errorf(holdfast.Denied, "withdrawn"))
		c = p.dial(holdfast.DeviceID{1})
		if present, _ := c.connect(x); present {
			t.Error("the session is said to go on")
		}
		c.send(c.subscribeWith(1, 1, nil, "feed/#"))
		c.next()
		synctest.Wait()
		if n := h.board.isOpen(); n != 0 {
			t.Errorf("%d subscriptions are open", n)
		}
	})
}

// What ends a subscription ends the connection with a code; a right that has ended
// takes the session along, and what was not written goes out no more.
func TestSubscriptionEnds(t *testing.T) {
	for kind, code := range map[holdfast.Kind]reason{holdfast.Denied: notAuthorized, holdfast.TooLarge: quotaExceeded, holdfast.Unavailable: serverBusy, holdfast.Internal: serverBusy} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{})
			x := hello{version: v5, id: "a", props: anHour}
			c := p.dial(holdfast.DeviceID{1})
			c.connect(x)
			c.subscribe(1, "feed/#")
			other := p.dial(holdfast.DeviceID{2})
			other.connect(x)
			h.board.end(holdfast.Errorf(kind, "ended"))
			c.expectEnd(code)
			other.silent()
			h.board.end(nil)
			c = p.dial(holdfast.DeviceID{1})
			if present, _ := c.connect(x); present != (kind != holdfast.Denied) {
				t.Errorf("%v: session present: %v", kind, present)
			}
		})
	}
}

// Done that fails leaves the message for the next connection.
func TestDoneThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{})
		x := hello{version: v5, id: "a", props: anHour}
		c := p.dial(holdfast.DeviceID{1})
		c.connect(x)
		c.subscribe(1, "cmd/#")
		h.board.change(func() { h.board.doneBy = holdfast.Errorf(holdfast.Unavailable, "disk") })
		h.board.post(Message{Topic: "cmd/1", Payload: []byte("go"), QoS: 1})
		c.send(puback(c.receive().id))
		c.expectEnd(serverBusy)
		h.board.change(func() { h.board.doneBy = nil })
		c = p.dial(holdfast.DeviceID{1})
		c.connect(x)
		if m := c.receives("go")[0]; !m.dup {
			t.Errorf("%+v", m)
		}
		c.silent()
		if got := h.board.dones(); !slices.Equal(got, []string{"go"}) {
			t.Errorf("done: %v", got)
		}
	})
}

// Of a shared subscription each message goes to one member; what a member leaves
// unacknowledged goes to the others, and the last one's stays for the next.
func TestSharedSubscription(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{})
			member := func(id string) *client {
				c := p.dial(holdfast.DeviceID{1})
				c.connect(hello{version: v, id: id, props: anHour})
				return c
			}
			a, b := member("a"), member("b")
			a.subscribe(1, "$share/g/feed/#")
			b.subscribe(1, "$share/g/feed/#")
			stranger := p.dial(holdfast.DeviceID{2})
			stranger.connect(hello{version: v, id: "a", clean: true})
			stranger.subscribe(1, "$share/g/feed/#") // another's group of the same name
			h.board.post(readings(6)...)
			stranger.receives("0", "1", "2", "3", "4", "5")
			synctest.Wait()
			if n, m := len(a.packets), len(b.packets); n+m != 6 || n != m {
				t.Errorf("%d and %d messages", n, m)
			}
			left := map[string]bool{}
			for range 3 {
				left[a.receive().payload] = true // and says nothing
				m := b.receive()
				b.send(puback(m.id))
			}
			a.leave()
			for range 3 {
				m := b.receive()
				if !left[m.payload] || m.dup {
					t.Errorf("handed over: %+v, of %v", m, left)
				}
				delete(left, m.payload)
				if len(left) > 0 {
					b.send(puback(m.id))
				}
			}
			b.leave() // with one message
			synctest.Wait()
			if n := h.board.isOpen(); n != 1 {
				t.Errorf("%d subscriptions, want the stranger's", n)
			}
			h.board.post(reading(6))
			a = member("a") // whose session was in the group, and left earlier than b's
			if m := a.receive(); m.payload == "6" {
				t.Errorf("received %+v: the last member's message is lost", m)
			} else {
				a.send(puback(m.id))
			}
			for m := a.receive(); m.payload != "6"; m = a.receive() {
				a.send(puback(m.id))
			}
		})
	})
}

// Who never acknowledges is cut when more waits; one that only lets time pass is not.
func TestWhoNeverAcknowledges(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{SendMaximum: 4})
			c, slow, other := p.dial(holdfast.DeviceID{1}), p.dial(holdfast.DeviceID{2}), p.dial(holdfast.DeviceID{3})
			for _, c := range []*client{c, slow, other} {
				c.connect(hello{version: v, id: "a", clean: true})
				c.subscribe(1, "feed/#")
			}
			h.board.post(readings(4)...)
			synctest.Wait()
			time.Sleep(5 * time.Minute) // four are in flight and nothing waits
			slow.silent2(4)
			h.board.post(readings(20)...)
			other.receives("0", "1", "2", "3")
			for i := range 20 {
				other.receives(fmt.Sprint(i))
			}
			time.Sleep(20 * time.Second)
			slow.send(puback(1)) // slow, but it goes on
			time.Sleep(20 * time.Second)
			for range 4 {
				c.receive()
			}
			c.expectEnd(quotaExceeded)
			slow.send([]byte{typePingreq << 4, 0})
			for slow.next().kind == typePublish {
			}
			if n := p.s.m.slow.Load(); n != 1 {
				t.Errorf("%d were slow", n)
			}
		})
	})
}

// silent2 wants n messages and no more.
func (c *client) silent2(n int) {
	c.t.Helper()
	for range n {
		c.receive()
	}
	c.silent()
}

// Who never reads is cut by the write's deadline; what it costs is bounded.
func TestWhoNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{})
		deaf, theirs := net.Pipe()
		p.wg.Go(func() { p.s.ServeConn(p.ctx, theirs, state(holdfast.DeviceID{1}, time.Time{})) })
		defer deaf.Close()
		deaf.Write(hello{version: v5, id: "deaf", clean: true}.bytes())
		readPacket(deaf)
		deaf.Write((&client{version: v5}).subscribeWith(1, 0, nil, "feed/#"))
		readPacket(deaf)
		for range 100 {
			h.board.post(Message{Topic: "feed/x", Payload: make([]byte, 10<<10)})
		}
		synctest.Wait()
		p.s.mu.Lock()
		for c := range p.s.conns {
			c.mu.Lock()
			if len(c.out) > maxOut+11<<10 {
				t.Errorf("%d bytes wait to be written", len(c.out))
			}
			c.mu.Unlock()
		}
		p.s.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := h.board.isOpen(); n != 0 {
			t.Error("it is still there")
		}
	})
}

// Acknowledgements of nothing, ten thousand filters, filters for ever: each gets its
// answer, and nothing grows.
func TestHostileSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{})
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "a", clean: true})
		many := make([]string, 10_000)
		for i := range many {
			many[i] = fmt.Sprint("feed/x/", i)
		}
		c.send(c.subscribeWith(1, 1, nil, many...))
		x := c.next()
		if x.kind != typeSuback || strings.Count(string(x.body[3:]), "\x01") != 64 || strings.Count(string(x.body[3:]), "\x97") != 9936 {
			t.Errorf("received %s of %d", packetNames[x.kind], len(x.body))
		}
		for i := range 5_000 {
			c.send(puback(uint16(i%0xfffe + 1)))
		}
		c.silent()
		if n := h.board.isOpen(); n != 64 {
			t.Errorf("%d subscriptions", n)
		}
		h.board.post(Message{Topic: "feed/x/7", Payload: []byte("7"), QoS: 1})
		m := c.receive()
		for id := range uint16(20) {
			c.send(puback(m.id + 1 + id))
		}
		c.send(puback(m.id))
		c.send(puback(m.id))
		c.silent()
		if n := p.s.m.strangeAcks.Load(); n != 5_021 {
			t.Errorf("%d acknowledgements of nothing", n)
		}
		c.leave()
		synctest.Wait()
		if n := h.board.isOpen(); n != 0 || len(p.s.groups) != 0 {
			t.Errorf("%d subscriptions are left, %d groups", n, len(p.s.groups))
		}
	})
}

// A person or a program subscribes, says what for, and publishes nothing.
func TestPrograms(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h := newHub()
		p := newPipes(t, h, Options{})
		program := Peer{Credential: holdfast.CredentialID{7}, Party: holdfast.PartyID{8}}
		p.s.authenticate = func(context.Context, tls.ConnectionState) (Peer, error) { return program, nil }
		purpose := func(s string) []byte { return appendText(appendText([]byte{propUserProperty}, "purpose"), s) }
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v, id: "a", clean: true, props: purpose("care")})
		c.subscribe(1, "feed/a")
		c.send(c.subscribeWith(2, 1, purpose("study"), "feed/b"))
		c.next()
		c.send(c.publish(pub{qos: 1, id: 5, topic: "data/x", payload: "1"}))
		if v == v5 {
			c.expectCode(typePuback, 5, notAuthorized)
		} else {
			c.expect(typePuback, "0005")
		}
		if n := len(h.arrivals()); n != 0 {
			t.Errorf("%d readings of a program", n)
		}
		want := []Subscriber{{program, "a", "care"}, {program, "a", "study"}}
		if v == v311 {
			want[0].Purpose, want[1].Purpose = "", ""
		}
		if got := h.board.who; !slices.Equal(got, want) || got[0].IsDevice() {
			t.Errorf("subscribed: %+v", got)
		}
		c = p.dial(holdfast.DeviceID{1})
		code := byte(notAuthorized)
		if v == v311 {
			code = 5
		}
		c.connectRefused(hello{version: v, id: "b", clean: true, will: &testWill{topic: "data/x"}}, code)
	})
}

// What devices say of commands and of their state goes to the Twin, and is acknowledged
// when that has it.
func TestTwin(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h, twin := newHub(), &memTwin{}
		p := newPipes(t, h, Options{Twin: twin})
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v, id: "a", clean: true, will: &testWill{topic: "reported", payload: "gone"}})
		for i, topic := range []string{"cmd/c1/result", "child/k/cmd/c2/result", "reported", "child/k/reported"} {
			c.send(c.publish(pub{qos: 1, id: uint16(i + 1), topic: topic, payload: topic}))
			c.expect(typePuback, fmt.Sprintf("%04x", i+1))
		}
		c.send(c.publish(pub{qos: 2, id: 9, topic: "reported", payload: "two"}))
		c.expect(typePubrec, "0009")
		c.send(pubrel(9))
		c.expect(typePubcomp, "0009")
		for i, topic := range []string{"cmd/result", "cmd/a/b/result", "cmd/a", "reported/x", "desired"} {
			c.send(c.publish(pub{qos: 1, id: uint16(i + 20), topic: topic, payload: "x"}))
			if v == v5 {
				c.expectCode(typePuback, uint16(i+20), topicInvalid)
			} else {
				c.expect(typePuback, fmt.Sprintf("%04x", i+20))
			}
		}
		twin.err = holdfast.Errorf(holdfast.Invalid, "no such command")
		c.send(c.publish(pub{qos: 1, id: 40, topic: "cmd/c9/result", payload: "x"}))
		if v == v5 {
			c.expectCode(typePuback, 40, payloadInvalid)
		} else {
			c.expect(typePuback, "0028")
		}
		twin.err = holdfast.Errorf(holdfast.Unavailable, "disk")
		c.send(c.publish(pub{qos: 1, id: 41, topic: "reported", payload: "x"}))
		c.expectEnd(serverBusy)
		want := []string{" c1 cmd/c1/result", "k c2 child/k/cmd/c2/result", "  reported", "k  child/k/reported", "  two"}
		if !slices.Equal(twin.got, want) {
			t.Errorf("told: %q", twin.got)
		}
	})
}

type memTwin struct {
	got []string
	err error
}

func (m *memTwin) Result(ctx context.Context, p Peer, child, id string, payload []byte) error {
	if m.err == nil {
		m.got = append(m.got, child+" "+id+" "+string(payload))
	}
	return m.err
}

func (m *memTwin) Report(ctx context.Context, p Peer, child string, payload []byte) error {
	return m.Result(ctx, p, child, "", payload)
}
