package deviceapi

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Of connections that say nothing the oldest give way beyond a number; devices that
// were met before go on, others get in, and who has come and gone is not counted.
func TestSilentConnections(t *testing.T) {
	h := build(t, Options{})
	d := h.api.door
	d.maxStrangersPerPlace = 20
	s := h.api.Server(h.identity.DeviceTLS(tls.VersionTLS13))
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
	silent = append(silent, must(net.Dial("tcp", x.h.address))(t))
	within(t, 5*time.Second, "the first of too many silent connections", closed(silent[0]))
	other := x.dial() // is a stranger until it has asked
	if r := request(t, other, head(len(oneReading)), oneReading)(); r.status != 204 {
		t.Errorf("a new connection among the silent: %d %s", r.status, r.text)
	}
	other.NetConn().Close()
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
	d := newDoor()
	d.maxStrangers, d.maxStrangersPerPlace = 3, 2
	enter := func(from string, goes *link) *link {
		t.Helper()
		l := &link{place: netip.MustParseAddr(from)}
		if got := d.enter(l); got != goes {
			t.Errorf("from %s: %v goes, not %v", from, got, goes)
		}
		return l
	}
	a := enter("192.0.2.1", nil)
	b := enter("192.0.2.1", nil)
	c := enter("192.0.2.1", a) // of one place
	enter("192.0.2.2", nil)
	enter("192.0.2.3", b) // strangers: the first of those who are most
	d.isDevice(holdfast.DeviceID{1}, c)
	e := enter("192.0.2.3", nil)
	for _, l := range []*link{a, b, c, e} {
		d.leave(l)
	}
	if d.open != 2 || d.strangers != 2 || len(d.places) != 2 {
		t.Errorf("%d are open, %d strangers of %d places", d.open, d.strangers, len(d.places))
	}
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
