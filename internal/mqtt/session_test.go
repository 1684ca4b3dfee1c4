package mqtt

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
)

func TestTakeover(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.manual = true
			p := newPipes(t, h, Options{})
			older := p.dial(holdfast.DeviceID{1})
			older.connect(hello{version: v, id: "a"})
			other := p.dial(holdfast.DeviceID{2}) // the same client id of another device
			other.connect(hello{version: v, id: "a"})
			sibling := p.dial(holdfast.DeviceID{1}) // another client id of the same device
			sibling.connect(hello{version: v, id: "b"})
			older.send(older.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
			synctest.Wait()

			newer := p.dial(holdfast.DeviceID{1})
			newer.version = v
			newer.send(hello{version: v, id: "a"}.bytes())
			older.expectEnd(takenOver)
			h.land(1) // its acknowledgement goes nowhere
			if x := newer.next(); x.kind != typeConnack || x.body[1] != 0 {
				t.Fatalf("received %v", x)
			}
			newer.silent()
			other.silent()
			sibling.silent()
			if n := len(h.arrivals()); n != 1 {
				t.Errorf("%d arrivals", n)
			}
		})
	})
}

func TestTakeoverGivesUpOnAStuckCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		h.manual = true
		p := newPipes(t, h, Options{})
		older := p.dial(holdfast.DeviceID{1})
		older.connect(hello{version: v5, id: "a"})
		older.send(older.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
		synctest.Wait()
		newer := p.dial(holdfast.DeviceID{1})
		newer.connectRefused(hello{version: v5, id: "a"}, byte(serverBusy))
		h.land(1)
	})
}

func TestSessionExpiry(t *testing.T) {
	expiry := func(n uint32) []byte {
		return []byte{propSessionExpiry, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	for _, x := range []struct {
		hello
		bye   []byte // DISCONNECT
		open  time.Duration
		close time.Duration
		told  bool // CONNACK names another expiry
	}{
		{hello: hello{version: v311, clean: true}},
		{hello: hello{version: v311}, open: time.Hour, close: time.Hour},
		{hello: hello{version: v5}},
		{hello: hello{version: v5, clean: true, props: expiry(60)}, open: time.Minute, close: time.Minute},
		{hello: hello{version: v5, props: expiry(7200)}, open: time.Hour, close: time.Hour, told: true},
		{hello: hello{version: v5, props: expiry(math.MaxUint32)}, open: time.Hour, close: time.Hour, told: true},
		{hello: hello{version: v5, props: expiry(60)}, bye: []byte{0xe0, 7, 0, 5, propSessionExpiry, 0, 0, 0, 30}, open: time.Minute, close: 30 * time.Second},
		{hello: hello{version: v5, props: expiry(60)}, bye: []byte{0xe0, 7, 0, 5, propSessionExpiry, 0, 0, 0, 0}, open: time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			c := newPipes(t, h, Options{MaxSessionExpiry: time.Hour}).dial(holdfast.DeviceID{1})
			x.id = "a"
			_, props := c.connect(x.hello)
			if told := x.version == v5 && props[1] == propSessionExpiry; told != x.told {
				t.Errorf("%+v: CONNACK properties %x", x.hello, props)
			}
			if x.bye == nil {
				x.bye = []byte{0xe0, 0}
			}
			h.mu.Lock()
			open := h.sessions[holdfast.DeviceID{1}.String()+"/a"].expiry
			h.mu.Unlock()
			c.send(x.bye)
			c.expectClosed()
			synctest.Wait()
			if open != x.open || !slices.Equal(h.closed, []time.Duration{x.close}) {
				t.Errorf("%+v: opened with %s, closed with %v", x.hello, open, h.closed)
			}
		})
	}
	// MQTT 5, 3.14.2.2.2: an expiry of 0 can't be raised at the end.
	h := newHub()
	c := newPipes(t, h, Options{}).dial(holdfast.DeviceID{1})
	c.connect(hello{version: v5, id: "a"})
	c.send([]byte{0xe0, 7, 0, 5, propSessionExpiry, 0, 0, 0, 30})
	c.expectEnd(protocolError)
}

func TestCleanStart(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			p := newPipes(t, h, Options{})
			for _, x := range []struct{ clean, present bool }{{false, false}, {false, true}, {true, false}} {
				c := p.dial(holdfast.DeviceID{1})
				present, _ := c.connect(hello{version: v, id: "a", clean: x.clean, props: []byte{propSessionExpiry, 0, 0, 0, 60}})
				if present != x.present {
					t.Errorf("clean %v: session present is %v", x.clean, present)
				}
				c.nc.Close()
				synctest.Wait()
			}
		})
	})
}

// A client need not wait for CONNACK.
func TestPublishesBehindConnect(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h := newHub()
		p := newPipes(t, h, Options{})
		c := p.dial(holdfast.DeviceID{1})
		c.version = v
		one := c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"})
		two := c.publish(pub{qos: 1, id: 2, topic: "data/x", payload: "2"})
		c.send(slices.Concat(hello{version: v, id: "a", clean: true}.bytes(), one, two[:5]))
		if p := c.next(); p.kind != typeConnack || p.body[1] != 0 {
			t.Fatalf("received %v", p)
		}
		c.expect(typePuback, "0001")
		c.send(two[5:])
		c.expect(typePuback, "0002")
		// Many, in one piece with CONNECT.
		c = p.dial(holdfast.DeviceID{1})
		c.version = v
		all := hello{version: v, id: "b", clean: true}.bytes()
		for range 1000 {
			all = append(all, c.publish(pub{topic: "data/y", payload: "1"})...)
		}
		c.send(append(all, typePingreq<<4, 0))
		c.next()
		c.expect(typePingresp, "")
		if n := len(values(t, h.await(1002), "y")); n != 1000 {
			t.Errorf("%d arrivals", n)
		}
	})
}

// The Gate learns who is at the other end from TLS alone.
func TestThePeerIsTheCertificate(t *testing.T) {
	a, h := newAuthority(t), newHub()
	_, addr := serving(t, a, h, Options{})
	for i, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := a.client(holdfast.DeviceID{7})
		config.MinVersion, config.MaxVersion = version, version
		nc, err := tls.Dial("tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, nc)
		c.connect(hello{version: v5, id: holdfast.DeviceID{8}.String()})
		c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
		c.expectCode(typePuback, 1, success)
		h.mu.Lock()
		p := h.peers[i]
		h.mu.Unlock()
		leaf := config.Certificates[0].Leaf
		want := Peer{Device: holdfast.DeviceID{7}, Fingerprint: sha256.Sum256(leaf.Raw), NotAfter: leaf.NotAfter, TLS12: version == tls.VersionTLS12}
		if p != want {
			t.Errorf("the peer is %+v, want %+v", p, want)
		}
		nc.Close()
	}
}

func TestClientIDs(t *testing.T) {
	h := newHub()
	p := newPipes(t, h, Options{})
	c := p.dial(holdfast.DeviceID{1})
	_, props := c.connect(hello{version: v5})
	d := decoder{b: props}
	assigned := ""
	for in := (decoder{b: d.take(d.varint())}); len(in.b) > 0; {
		switch id := in.byte(); id {
		case propAssignedClientID:
			assigned = string(in.text())
		case propMaxPacketSize, propSessionExpiry:
			in.uint32()
		case propReceiveMaximum, propTopicAliasMaximum, propServerKeepAlive:
			in.uint16()
		default:
			in.byte()
		}
	}
	if assigned == "" {
		t.Errorf("no client id was assigned: %x", props)
	}
	p.dial(holdfast.DeviceID{1}).connect(hello{version: v311, clean: true})
	p.dial(holdfast.DeviceID{1}).connectRefused(hello{version: v311}, 2)
	long := string(bytes.Repeat([]byte("x"), maxClientID+1))
	p.dial(holdfast.DeviceID{1}).connectRefused(hello{version: v5, id: long}, byte(badClientID))
	p.dial(holdfast.DeviceID{1}).connectRefused(hello{version: v311, id: long, clean: true}, 2)
}

func TestRefusedConnects(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		h := newHub()
		code := func(five reason, three byte) byte {
			if v == v5 {
				return byte(five)
			}
			return three
		}
		for err, want := range map[error]byte{
			holdfast.Errorf(holdfast.Denied, "revoked"):         code(notAuthorized, 5),
			holdfast.Errorf(holdfast.Unavailable, "no catalog"): code(serverUnavailable, 3),
			errors.New("inside"):                                code(serverUnavailable, 3),
		} {
			h.set(func() { h.openErr = err })
			newPipes(t, h, Options{}).dial(holdfast.DeviceID{1}).connectRefused(hello{version: v, id: "a"}, want)
		}
		h.set(func() { h.openErr = nil })
		p := newPipes(t, h, Options{MaxPerDevice: 2})
		p.dial(holdfast.DeviceID{}).connectRefused(hello{version: v, id: "a"}, code(notAuthorized, 5)) // no identity in the certificate
		p.dialUntil(holdfast.DeviceID{1}, time.Now().Add(-time.Hour)).connectRefused(hello{version: v, id: "a"}, code(notAuthorized, 5))
		p.dial(holdfast.DeviceID{1}).connect(hello{version: v, id: "a"})
		p.dial(holdfast.DeviceID{1}).connect(hello{version: v, id: "b"})
		p.dial(holdfast.DeviceID{1}).connectRefused(hello{version: v, id: "c"}, code(quotaExceeded, 3))
		p.dial(holdfast.DeviceID{2}).connect(hello{version: v, id: "c"})
	})
}

func TestWills(t *testing.T) {
	leave := func(c *client) { c.nc.Close() }
	goodbye := func(c *client) { c.send([]byte{0xe0, 0}); c.expectClosed() }
	hour := []byte{propSessionExpiry, 0, 0, 14, 16}
	for _, x := range []struct {
		name    string
		version byte
		delay   uint32
		props   []byte
		end     func(c *client)
		after   time.Duration // when the will is published, -1 never
	}{
		{name: "lost", version: v311, end: leave},
		{name: "lost", version: v5, end: leave},
		{name: "goodbye", version: v311, end: goodbye, after: -1},
		{name: "goodbye", version: v5, end: goodbye, after: -1},
		{name: "goodbye with will", version: v5, end: func(c *client) { c.send([]byte{0xe0, 1, 4}); c.expectClosed() }},
		{name: "violation", version: v311, end: func(c *client) { c.send([]byte{0xf0, 0}); c.expectClosed() }},
		{name: "violation", version: v5, end: func(c *client) { c.send([]byte{0, 0}); c.expectEnd(malformed) }},
		{name: "keep-alive", version: v5, end: func(c *client) { c.expectEnd(keepAliveTimeout) }, after: 15 * time.Second},
		{name: "delayed", version: v5, delay: 20, props: hour, end: leave, after: 20 * time.Second},
		{name: "delay is capped", version: v5, delay: 3000, props: hour, end: leave, after: time.Minute},
		{name: "session ends first", version: v5, delay: 20, props: []byte{propSessionExpiry, 0, 0, 0, 5}, end: leave, after: 5 * time.Second},
		{name: "no session", version: v5, delay: 20, end: leave},
		{name: "goodbye shortens the session", version: v5, delay: 20, props: hour,
			end: func(c *client) { c.send(unhex("e0 07 04 05 11 00000005")); c.expectClosed() }, after: 5 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				c := newPipes(t, h, Options{MaxWillDelay: time.Minute}).dial(holdfast.DeviceID{1})
				start := time.Now()
				c.connect(hello{version: x.version, id: "a", keepAlive: 10, props: x.props, will: &testWill{topic: "event/gone", payload: "bye", delay: x.delay}})
				x.end(c)
				if x.after < 0 {
					time.Sleep(2 * time.Hour)
					synctest.Wait()
					if got := h.arrivals(); len(got) != 0 {
						t.Errorf("the will was published: %v", got)
					}
					return
				}
				got := h.await(1)
				if d := time.Since(start); d < x.after || d > x.after+time.Second {
					t.Errorf("the will came after %s, want %s", d, x.after)
				}
				if got[0].Stream != "event/gone" || got[0].Value.Text() != "bye" {
					t.Errorf("the will is %+v", got[0])
				}
				time.Sleep(2 * time.Hour)
				if n := len(h.arrivals()); n != 1 {
					t.Errorf("the will was published %d times", n)
				}
			})
		})
	}
}

func TestWillsAndTheNextConnection(t *testing.T) {
	hour := []byte{propSessionExpiry, 0, 0, 14, 16}
	for _, x := range []struct {
		name  string
		taken bool // the older connection is still there
		clean bool
		delay uint32
		want  int
	}{
		{name: "back in time", delay: 20, want: 0},
		{name: "back in time, clean", delay: 20, clean: true, want: 1},
		{name: "taken over", taken: true, want: 1},
		{name: "taken over, delayed", taken: true, delay: 20, want: 0},
		{name: "taken over, delayed, clean", taken: true, delay: 20, clean: true, want: 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				p := newPipes(t, h, Options{})
				c := p.dial(holdfast.DeviceID{1})
				c.connect(hello{version: v5, id: "a", props: hour, will: &testWill{topic: "data/gone", payload: "1", delay: x.delay}})
				if !x.taken {
					c.nc.Close()
					time.Sleep(10 * time.Second)
				}
				c = p.dial(holdfast.DeviceID{1})
				c.connect(hello{version: v5, id: "a", props: hour, clean: x.clean})
				synctest.Wait()
				if n := len(h.arrivals()); n != x.want {
					t.Errorf("%d wills at once, want %d", n, x.want)
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if n := len(h.arrivals()); n != x.want {
					t.Errorf("%d wills, want %d", n, x.want)
				}
			})
		})
	}
}

// A newer connection that is not let in keeps no will back.
func TestWillsOutliveARefusedTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{})
		hour := []byte{propSessionExpiry, 0, 0, 14, 16}
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "a", props: hour, will: &testWill{topic: "data/gone", payload: "1", delay: 20}})
		h.set(func() { h.openErr = holdfast.Errorf(holdfast.Denied, "revoked") })
		p.dial(holdfast.DeviceID{2}).connectRefused(hello{version: v5, id: "a"}, byte(notAuthorized))
		c.silent()
		h.set(func() { h.openErr = nil })
		h.manual = true
		c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
		synctest.Wait()
		p.dial(holdfast.DeviceID{1}).connectRefused(hello{version: v5, id: "a"}, byte(serverBusy))
		h.set(func() { h.manual = false })
		h.land(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(values(t, h.arrivals(), "gone")); n != 1 {
			t.Errorf("%d wills", n)
		}
	})
}

func TestRefusedWills(t *testing.T) {
	h := newHub()
	p := newPipes(t, h, Options{})
	d := func() *client { return p.dial(holdfast.DeviceID{1}) }
	d().connectRefused(hello{version: v5, id: "a", will: &testWill{topic: "status", payload: "1"}}, byte(topicInvalid))
	d().connectRefused(hello{version: v5, id: "a", will: &testWill{topic: "data/x", payload: "1", retain: true}}, byte(retainNotSupported))
	d().connectRefused(hello{version: v5, id: "a", will: &testWill{topic: "data/+", payload: "1"}}, byte(protocolError))
	big := string(bytes.Repeat([]byte("x"), maxWill+1))
	d().connectRefused(hello{version: v5, id: "a", will: &testWill{topic: "data/x", payload: big}}, byte(quotaExceeded))
	// 3.1.1 can't be told: the will is counted when it is due.
	c := d()
	c.connect(hello{version: v311, id: "a", clean: true, will: &testWill{topic: "status", payload: "1", retain: true}})
	c.nc.Close()
	for range time.Tick(time.Millisecond) {
		if r := p.s.Refusals(); len(r) == 1 && r[0].Code == byte(topicInvalid) {
			break
		}
	}
}

func TestRevocationCutsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, v byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.manual = true
			var revoke func(error)
			forgotten := 0
			p := newPipes(t, h, Options{Track: func(p Peer, cut func(error)) func() {
				revoke = cut
				return func() { forgotten++ }
			}})
			c := p.dial(holdfast.DeviceID{1})
			c.connect(hello{version: v, id: "a", will: &testWill{topic: "data/x", payload: "9"}})
			c.send(c.publish(pub{qos: 1, id: 1, topic: "data/x", payload: "1"}))
			synctest.Wait()
			start := time.Now()
			revoke(holdfast.Errorf(holdfast.Denied, "the device was revoked"))
			if why := c.expectEnd(administrative); v == v5 && why != "the device was revoked" {
				t.Errorf("the client was told %q", why)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("it took %s", d)
			}
			h.land(1)
			synctest.Wait()
			revoke(nil) // late, and harmless
			if got := values(t, h.arrivals(), "x"); !slices.Equal(got, []float64{1}) || forgotten != 1 {
				t.Errorf("arrived: %v, forgotten %d times", got, forgotten)
			}
		})
	})
}
