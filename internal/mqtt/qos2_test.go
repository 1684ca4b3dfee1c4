package mqtt

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/holdfast-iot/holdfast"
)

func TestQoS2OnceAcrossReconnects(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{})
			expiry := []byte{propSessionExpiry, 0, 0, 0, 60}
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", props: expiry})
			h.set(func() { h.manual = true })
			c.send(c.publish(pub{qos: 2, id: 5, topic: "data/x", payload: "1"}))
			c.send(c.publish(pub{qos: 2, id: 5, dup: true, topic: "data/x", payload: "1"})) // an eager client
			c.silent()                                                                      // the repeat, too, waits for the disk
			h.land(1)
			c.expect(typePubrec, "0005")
			c.expect(typePubrec, "0005")
			c.nc.Close() // before PUBREL
			synctest.Wait()

			c = p.dial(holdfast.DeviceID{1})
			if present, _ := c.connect(hello{version: v, id: "a", props: expiry}); !present {
				t.Fatal("the session is gone")
			}
			c.send(c.publish(pub{qos: 2, id: 5, dup: true, topic: "data/x", payload: "1"}))
			c.expect(typePubrec, "0005")
			c.send(pubrel(5))
			c.silent() // PUBCOMP waits for the disk
			h.land(1)
			c.expect(typePubcomp, "0005")
			c.send(pubrel(5)) // PUBCOMP was lost
			if v == v5 {
				c.expectCode(typePubcomp, 5, packetIDUnknown)
			} else {
				c.expect(typePubcomp, "0005")
			}
			// The id is free for another message.
			c.send(c.publish(pub{qos: 2, id: 5, topic: "data/x", payload: "2"}))
			synctest.Wait()
			h.land(1)
			c.expect(typePubrec, "0005")
			if got := values(t, h.arrivals(), "x"); !slices.Equal(got, []float64{1, 2}) {
				t.Errorf("arrived: %v", got)
			}
		})
	})
}

// The connection is lost while a commit is in flight: the next connection waits
// until it is known whether the packet id counts.
func TestQoS2LostBeforePubrec(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.manual = true
			p := newPipes(t, h, Options{})
			expiry := []byte{propSessionExpiry, 0, 0, 0, 60}
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v5, id: "a", props: expiry})
			c.send(c.publish(pub{qos: 2, id: 5, topic: "data/x", payload: "1"}))
			synctest.Wait()
			c.nc.Close()
			d := p.dial(holdfast.DeviceID{1})
			d.version = v5
			d.send(hello{version: v5, id: "a", props: expiry}.bytes())
			synctest.Wait()
			select {
			case x := <-d.packets:
				t.Fatalf("received %v before the older connection's commit had landed", x)
			default:
			}
			if fails {
				h.set(func() { h.failWith = holdfast.Errorf(holdfast.Unavailable, "no") })
			}
			h.land(1)
			if x := d.next(); x.kind != typeConnack || x.body[0] != 1 {
				t.Fatalf("received %v", x)
			}
			h.set(func() { h.failWith, h.manual = nil, false })
			d.send(d.publish(pub{qos: 2, id: 5, dup: true, topic: "data/x", payload: "1"}))
			d.expect(typePubrec, "0005")
			if got := values(t, h.arrivals(), "x"); !slices.Equal(got, []float64{1}) {
				t.Errorf("commit failed %v: arrived %v", fails, got)
			}
		})
	}
}

func TestReleaseAndReuseInOneRead(t *testing.T) {
	h := newHub()
	c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
	c.connect(hello{version: v311, id: "a", clean: true})
	c.send(c.publish(pub{qos: 2, id: 5, topic: "data/x", payload: "1"}))
	c.expect(typePubrec, "0005")
	c.send(slices.Concat(pubrel(5), c.publish(pub{qos: 2, id: 5, topic: "data/x", payload: "2"}), pubrel(5)))
	c.expect(typePubcomp, "0005")
	c.expect(typePubrec, "0005")
	c.expect(typePubcomp, "0005")
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[holdfast.DeviceID{1}.String()+"/a"]; len(s.ids) != 0 {
		t.Errorf("ids %v are still held", s.ids)
	}
	if len(h.got) != 2 {
		t.Errorf("arrived: %v", h.got)
	}
}

func TestUnreleasedIDsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h := newHub()
		p := newPipes(t, h, Options{ReceiveMaximum: 65535})
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v, id: "a", clean: true})
		for i := range maxUnreleased {
			c.send(c.publish(pub{qos: 2, id: uint16(i + 1), topic: "data/x", payload: "1"}))
			c.expectCode(typePubrec, uint16(i+1), success)
		}
		c.send(c.publish(pub{qos: 2, id: maxUnreleased + 1, topic: "data/x", payload: "1"}))
		if v == v5 {
			c.expectCode(typePubrec, maxUnreleased+1, quotaExceeded)
			c.send(pubrel(1))
			c.expect(typePubcomp, "0001")
			c.send(c.publish(pub{qos: 2, id: maxUnreleased + 1, topic: "data/x", payload: "1"}))
			c.expectCode(typePubrec, maxUnreleased+1, success)
		} else {
			c.expectClosed()
		}
	})
}
