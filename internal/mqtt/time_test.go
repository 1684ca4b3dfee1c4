package mqtt

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func TestDeadlineBeforeConnect(t *testing.T) {
	for _, said := range []string{"", "10", "10 14 0004 4d515454 05"} {
		synctest.Test(t, func(t *testing.T) {
			c := newPipes(t, newHub(), Options{}).dial(holdfast.DeviceID{1})
			start := time.Now()
			c.send(unhex(said))
			c.expectClosed()
			if d := time.Since(start); d != 10*time.Second {
				t.Errorf("after %q it was closed after %s", said, d)
			}
		})
	}
	// One byte a second is not faster.
	synctest.Test(t, func(t *testing.T) {
		c := newPipes(t, newHub(), Options{}).dial(holdfast.DeviceID{1})
		start := time.Now()
		for _, b := range (hello{version: v5, id: "a"}).bytes() {
			if c.write([]byte{b}) != nil {
				break
			}
			time.Sleep(time.Second)
		}
		c.expectClosed()
		if d := time.Since(start); d > 11*time.Second {
			t.Errorf("it was closed after %s", d)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	for _, x := range []struct {
		version byte
		asked   uint16
		want    time.Duration
	}{
		{v311, 10, 15 * time.Second},
		{v5, 10, 15 * time.Second},
		{v5, 0, 90 * time.Minute},
		{v5, 7200, 90 * time.Minute},
		{v311, 7200, 90 * time.Minute},
		{v311, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newPipes(t, newHub(), Options{}).dial(holdfast.DeviceID{1})
			_, props := c.connect(hello{version: x.version, id: "a", clean: true, keepAlive: x.asked})
			if x.version == v5 {
				told := slices.Equal(props[max(len(props)-3, 0):], []byte{propServerKeepAlive, 0x0e, 0x10}) // 3600 s
				if (x.want == 90*time.Minute) != told {
					t.Errorf("asked for %d: CONNACK properties %x", x.asked, props)
				}
			}
			if x.want == 0 {
				time.Sleep(24 * time.Hour)
				c.silent()
				return
			}
			// Any packet keeps it alive, one that doesn't end does not.
			time.Sleep(x.want - time.Second)
			c.silent()
			time.Sleep(x.want - time.Second)
			c.send(c.publish(pub{topic: "data/x", payload: "1"}))
			start := time.Now()
			c.expectEnd(keepAliveTimeout)
			if d := time.Since(start); d != x.want {
				t.Errorf("asked for %d: ended after %s, want %s", x.asked, d, x.want)
			}
		})
	}
}

func TestKeepAliveDoesNotCountOurOwnSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		h.manual = true
		c := newPipes(t, h, Options{MaxInflightBytes: 10}).dial(holdfast.DeviceID{1})
		c.connect(hello{version: v311, id: "a", clean: true, keepAlive: 10})
		payload := `"` + strings.Repeat("x", 8) + `"`
		c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: payload}))
		go c.write(slices.Concat(
			c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: payload}),
			[]byte{typePingreq << 4, 0}))
		time.Sleep(time.Minute) // the disk takes its time
		h.land(2)
		c.expect(typePuback, "0001")
		for range 2 {
			if p := c.next(); p.kind != typePuback && p.kind != typePingresp {
				t.Errorf("received %v", p)
			}
		}
		c.silent()
	})
}

func TestPacketTimeout(t *testing.T) {
	for _, sent := range [][]byte{
		{0x30},
		{0x30, 0x20, 0, 6, 'd'},
		append(framed(0x30, unhex("0006 646174612f78 31")), 0x30, 0x20),
		framed(0x30, make([]byte, 20_000))[:9000],
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newPipes(t, newHub(), Options{}).dial(holdfast.DeviceID{1})
			c.connect(hello{version: v311, id: "a", clean: true}) // no keep-alive
			time.Sleep(time.Hour)
			start := time.Now()
			c.send(sent)
			c.expectClosed()
			if d := time.Since(start); d != 30*time.Second {
				t.Errorf("%d bytes: closed after %s", len(sent), d)
			}
		})
	}
	// A packet that comes slowly but in time, and silence after it.
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "a", clean: true})
		for range 3 {
			for _, b := range c.publish(pub{topic: "data/x", payload: "1"}) {
				c.send([]byte{b})
				time.Sleep(time.Second)
			}
			time.Sleep(50 * time.Minute)
		}
		if n := len(h.arrivals()); n != 3 {
			t.Errorf("%d arrivals", n)
		}
		c.silent()
	})
}

func TestCertificateExpiresMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{})
			idle := p.dialUntil(holdfast.DeviceID{1}, time.Now().Add(20*time.Minute))
			idle.connect(hello{version: v, id: "a", will: &testWill{topic: "data/x", payload: "1"}})
			busy := p.dialUntil(holdfast.DeviceID{2}, time.Now().Add(20*time.Minute))
			busy.connect(hello{version: v, id: "a", clean: true})
			start := time.Now()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for busy.write([]byte{typePingreq << 4, 0}) == nil {
					time.Sleep(time.Second)
				}
			}()
			idle.expectEnd(notAuthorized)
			if d := time.Since(start); d != 20*time.Minute {
				t.Errorf("it ended after %s", d)
			}
			<-ended
			if d := time.Since(start); d > 20*time.Minute+3*time.Second {
				t.Errorf("a busy connection ended after %s", d)
			}
			synctest.Wait()
			if n := len(h.arrivals()); n != 0 {
				t.Error("the will of an expired certificate was published")
			}
		})
	})
}

func TestShutdown(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.manual = true
			s := New(authenticate, h, h, Options{})
			ctx, cancel := context.WithCancel(t.Context())
			p := &pipes{t: t, s: s, ctx: ctx}
			early := p.dial(holdfast.DeviceID{3}) // has not sent CONNECT
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", will: &testWill{topic: "data/x", payload: "9"}})
			stuck := p.dial(holdfast.DeviceID{2})
			stuck.connect(hello{version: v, id: "a"})
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
			synctest.Wait()
			stuck.send(stuck.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "2"}))
			synctest.Wait()
			start := time.Now()
			cancel()
			time.Sleep(time.Second)
			h.land(1)
			c.expect(typePuback, "0001")
			c.expectEnd(shuttingDown)
			early.expectClosed()
			stuck.expectEnd(shuttingDown)
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("connections ended after %s", d)
			}
			h.land(1)
			p.wg.Wait()
			if got := values(t, h.arrivals(), "x"); !slices.Equal(got, []float64{1, 2}) {
				t.Errorf("arrived: %v", got)
			}
		})
	})
}
