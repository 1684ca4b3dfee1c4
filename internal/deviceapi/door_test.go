package deviceapi

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Connections that say nothing are closed beyond a number; devices that were met
// before go on, and who has come and gone is not counted.
func TestSilentConnections(t *testing.T) {
	h := build(t, Options{})
	d := newDoor()
	d.maxStrangersPerPlace = 20
	s := newServer(d, h.identity.DeviceTLS(tls.VersionTLS13), h.api, h.api.o.Logger)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	done := make(chan error)
	go func() { done <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-done })

	x := h.device()
	x.h.address, x.h.url = l.Addr().String(), "https://"+l.Addr().String()
	known := x.dial()
	send := func() reply { return request(t, known, head(len(oneReading)), oneReading)() }
	if r := send(); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	var silent []net.Conn
	for range 20 {
		silent = append(silent, must(net.Dial("tcp", x.h.address))(t))
	}
	more := must(net.Dial("tcp", x.h.address))(t)
	within(t, 5*time.Second, "one silent connection too many", closed(more))
	if r := send(); r.status != 204 {
		t.Errorf("a device among the silent: %d %s", r.status, r.text)
	}
	for _, c := range silent {
		c.Close()
	}
	until(t, "all strangers have gone", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.strangers == 0 && len(d.places) == 0 && d.open == 1
	})
	if r := x.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 204 {
		t.Errorf("a new connection afterwards: %d %s", r.status, r.text)
	}
	known.NetConn().Close()
	x.http.CloseIdleConnections()
	until(t, "all have gone", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.open == 0
	})
}

func TestTheDoorsLimits(t *testing.T) {
	place := netip.MustParseAddr
	d := &door{maxOpen: 4, maxStrangers: 3, maxStrangersPerPlace: 2, places: make(map[netip.Addr]int)}
	enter := func(from string, want bool) {
		t.Helper()
		if d.enter(place(from)) != want {
			t.Errorf("from %s: not %v", from, want)
		}
	}
	enter("192.0.2.1", true)
	enter("192.0.2.1", true)
	enter("192.0.2.1", false) // of one place
	enter("192.0.2.2", true)
	enter("192.0.2.3", false) // strangers
	d.met(place("192.0.2.1"))
	enter("192.0.2.3", true)
	d.met(place("192.0.2.1"))
	enter("192.0.2.4", false) // all together
	d.leave()
	enter("192.0.2.4", true)
}

type from string

func (f from) Network() string { return "tcp" }
func (f from) String() string  { return string(f) }

type conn struct {
	net.Conn
	from from
}

func (c conn) RemoteAddr() net.Addr { return c.from }

func TestPlaces(t *testing.T) {
	for at, want := range map[from]string{
		"192.0.2.7:1": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::", "[fe80::1%eth0]:1": "fe80::",
	} {
		if got := placeOf(conn{from: at}).String(); got != want {
			t.Errorf("%s is %s, want %s", at, got, want)
		}
	}
}
