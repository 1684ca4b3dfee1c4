package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

var versions = []byte{v311, v5}

func each(t *testing.T, f func(t *testing.T, version byte)) {
	for _, v := range versions {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}

func TestNoAckBeforeDurable(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h := newHub()
		h.manual = true
		c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
		c.connect(hello{version: v, id: "a", clean: true})
		// Three publishes in one write are one batch, one commit, one write back.
		c.send(slices.Concat(
			c.publish(pub{qos: 1, id: 7, topic: "data/x", payload: "1"}),
			c.publish(pub{qos: 2, id: 8, topic: "data/x", payload: "2"}),
			c.publish(pub{qos: 0, topic: "data/x", payload: "3"})))
		c.send(c.publish(pub{qos: 1, id: 9, topic: "data/x", payload: "4"}))
		c.silent()
		if got := h.arrivals(); len(got) != 0 {
			t.Fatalf("durable before the commit: %v", got)
		}
		h.land(1)
		c.expect(typePuback, "0007")
		c.expect(typePubrec, "0008")
		c.silent()
		h.land(1)
		c.expect(typePuback, "0009")
		if v := values(t, h.arrivals(), "x"); !slices.Equal(v, []float64{1, 2, 3, 4}) {
			t.Errorf("arrived: %v", v)
		}
		if h.commits != 2 {
			t.Errorf("%d commits, want 2", h.commits)
		}
		c.send(pubrel(8))
		c.silent()
		h.land(1)
		c.expect(typePubcomp, "0008")
	})
}

func TestAcksKeepOrderWhenCommitsDoNot(t *testing.T) {
	h := newHub()
	h.manual = true
	c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true})
	c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
	c.send(c.publish(pub{qos: 1, id: 2, topic: "nowhere", payload: "1"})) // needs no commit
	c.send(c.publish(pub{qos: 1, id: 3, topic: "data/x", payload: "1"}))
	c.silent()
	h.mu.Lock()
	second := h.waiting[1]
	h.waiting = h.waiting[:1]
	h.mu.Unlock()
	second()
	c.silent()
	h.land(1)
	c.expect(typePuback, "0001")
	c.expectCode(typePuback, 2, topicInvalid)
	c.expect(typePuback, "0003")
}

func TestFailedCommitEndsTheConnection(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			for err, code := range map[error]reason{
				holdfast.Errorf(holdfast.Unavailable, "the journal is away"):          serverBusy,
				holdfast.Errorf(holdfast.Unavailable, "write: %w", syscall.ENOSPC):    quotaExceeded,
				holdfast.Errorf(holdfast.Internal, "secret detail of the inside"):     unspecified,
				fmt.Errorf("secret detail of the inside, without a kind %d", 1):       unspecified,
				holdfast.Errorf(holdfast.Denied, "the device is revoked since a bit"): notAuthorized,
			} {
				h := newHub()
				h.manual = true
				c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
				c.connect(hello{version: v, id: "a", clean: true})
				c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
				c.send(c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: "2"}))
				synctest.Wait()
				h.set(func() { h.failWith = err })
				h.land(1)
				h.set(func() { h.failWith = nil }) // what follows would succeed, and is not acked
				h.land(1)
				why := c.expectEnd(code)
				if strings.Contains(why, "secret") {
					t.Errorf("the client was told %q", why)
				}
			}
		})
	})
}

func TestUnavailableLeavesUnacknowledged(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.manual = true
			h.refuse = func(_ string, s []holdfast.Sample) error {
				if s[0].Value.Number() == 2 {
					return holdfast.Errorf(holdfast.Unavailable, "the key lease is lost")
				}
				return nil
			}
			c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", clean: true})
			start := time.Now()
			c.send(slices.Concat(
				c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}),
				c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: "2"}),
				c.publish(pub{qos: 1, id: 3, topic: "data/x", payload: "3"})))
			synctest.Wait()
			h.land(1) // what came before is acknowledged
			c.expect(typePuback, "0001")
			if why := c.expectEnd(serverBusy); v == v5 && why != "the key lease is lost" {
				t.Errorf("the client was told %q", why)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("the connection ended after %s", d)
			}

			// A commit that never lands doesn't keep the connection open.
			c = newPipes(t, h, Options{}).dial(holdfast.DeviceID{2})
			c.connect(hello{version: v, id: "a", clean: true})
			start = time.Now()
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
			c.send(c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: "2"}))
			c.expectEnd(serverBusy)
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("the connection ended after %s", d)
			}
			h.land(1)
		})
	})
}

// refusals that can't heal, by kind.
var refusalCodes = map[holdfast.Kind]reason{
	holdfast.Invalid:  payloadInvalid,
	holdfast.Denied:   notAuthorized,
	holdfast.NotFound: topicInvalid,
	holdfast.Conflict: implementationSpecific,
	holdfast.TooLarge: quotaExceeded,
}

func TestRefusalsOfTheGate(t *testing.T) {
	for kind, code := range refusalCodes {
		each(t, func(t *testing.T, v byte) {
			h := newHub()
			h.refuse = func(string, []holdfast.Sample) error { return holdfast.Errorf(kind, "not this one") }
			p := newPipes(t, h, Options{})
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", clean: true})
			want, text := code, "not this one"
			if v == v311 {
				want, text = success, ""
			}
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
			if why := c.expectCode(typePuback, 1, want); why != text {
				t.Errorf("%v: the reason is %q", kind, why)
			}
			c.send(c.publish(pub{qos: 0, topic: "data/x", payload: "1"}))
			c.send(c.publish(pub{qos: 2, id: 2, topic: "data/x", payload: "1"}))
			if why := c.expectCode(typePubrec, 2, want); why != text {
				t.Errorf("%v: the reason is %q", kind, why)
			}
			c.send(pubrel(2)) // 3.1.1 goes on; the id is not held
			if v == v311 {
				c.expect(typePubcomp, "0002")
			} else {
				c.expectCode(typePubcomp, 2, packetIDUnknown)
			}
			r := p.s.Refusals()
			if len(r) != 3 || r[0].Code != byte(code) || r[0].Reason != "not this one" || r[0].Device != (holdfast.DeviceID{1}) {
				t.Errorf("%v: remembered %+v", kind, r)
			}
			if h.commits != 0 {
				t.Errorf("%v: %d commits of nothing", kind, h.commits)
			}
		})
	}
}

func TestReasonStringsOnlyOnRequest(t *testing.T) {
	h := newHub()
	p := newPipes(t, h, Options{})
	c := p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true, props: []byte{propRequestProblemInfo, 0}})
	c.send(c.publish(pub{qos: 1, id: 1, topic: "nowhere", payload: "1"}))
	c.expect(typePuback, "0001 90")
	c.send([]byte{0xf0, 0})
	c.expect(typeDisconnect, "82")
	c.expectClosed()
	// A client that takes small packets only gets them without a reason string.
	c = p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true, props: []byte{propMaxPacketSize, 0, 0, 0, 60}})
	c.send(c.publish(pub{qos: 1, id: 1, topic: "nowhere", payload: "1"}))
	c.expect(typePuback, "0001 90")
	// A SUBACK can't be made shorter.
	many := unhex("0001 00")
	for range 60 {
		many = append(appendText(many, "a"), 0)
	}
	c.send(framed(0x82, many))
	c.expect(typeDisconnect, "95")
	c.expectClosed()
	// A refusal that doesn't fit is not sent.
	for n, want := range map[byte]string{4: "", 5: "20 03 00 85 00", 20: "20 03 00 85 00"} {
		c = p.dial(holdfast.DeviceID{1})
		c.send(hello{version: v5, id: strings.Repeat("x", maxClientID+1), props: []byte{propMaxPacketSize, 0, 0, 0, n}}.bytes())
		if want != "" {
			c.expect(typeConnack, want[5:])
		}
		c.expectClosed()
	}
	// User properties are never echoed.
	c = p.dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a", clean: true})
	user := append([]byte{propUserProperty}, appendText(appendText(nil, "planted"), "secret")...)
	c.send(c.publish(pub{qos: 1, id: 1, topic: "nowhere", payload: "1", props: user}))
	if why := c.expectCode(typePuback, 1, topicInvalid); why == "" || strings.Contains(why, "planted") {
		t.Errorf("the reason is %q", why)
	}
}
