package deviceapi

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/custody"
)

// TestConnectionsOfOneDevice: one device can't take the connections of all others.
func TestConnectionsOfOneDevice(t *testing.T) {
	h := build(t, Options{})
	d := h.api.door
	d.maxPerDevice = 2
	s := h.api.Server(h.identity.DeviceTLS(tls.VersionTLS13))
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	done := make(chan error)
	go func() { done <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-done })

	greedy, other := h.device(), h.enrolled(custody.DeviceSpec{Label: "pump 2"})
	for _, x := range []*thing{greedy, other} {
		x.h.address, x.h.url = l.Addr().String(), "https://"+l.Addr().String()
	}
	send := func(c *tls.Conn, want int) {
		t.Helper()
		if r := request(t, c, head(len(oneReading)), oneReading)(); r.status != want {
			t.Errorf("%d %s, want %d", r.status, r.text, want)
		}
	}
	first, second := greedy.dial(), greedy.dial()
	send(first, 204)
	send(second, 204)
	send(greedy.dial(), 503)
	send(other.dial(), 204)
	send(first, 204)
	second.NetConn().Close()
	until(t, "one has gone", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.devices[greedy.id] == 1
	})
	send(greedy.dial(), 204)
}
