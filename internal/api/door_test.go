package api

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// TestStrangersAtTheDoor: connections of nobody are few, and who has shown a
// credential does not count among them; nor may one party have all the others.
func TestStrangersAtTheDoor(t *testing.T) {
	h := build(t, Limits{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	d := &door{maxOpen: 5, maxPerOwner: 2, maxStrangers: 3, maxStrangersPerPlace: 2, places: make(map[netip.Addr]int), owners: make(map[holdfast.PartyID]int)}
	srv := newServer(d, h.API.Identity.PeopleTLS(), h.API, nil)
	counted, closed := srv.ConnState, make(chan struct{}, 16)
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		counted(c, s)
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	defer func() { srv.Close(); <-served }()
	roots := x509.NewCertPool()
	roots.AddCert(h.API.Identity.CA())
	ask := func(path, token string) (status int) { // each on a connection of its own
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
		t.Cleanup(c.CloseIdleConnections)
		r, err := http.NewRequest("GET", "https://"+ln.Addr().String()+path, nil)
		h.must(err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		got, err := c.Do(r)
		if err != nil {
			return 0
		}
		io.Copy(io.Discard, got.Body)
		got.Body.Close()
		return got.StatusCode
	}
	asked := []struct {
		path, token string
		want        int
	}{
		{"/v1/me", h.anna, 200}, {"/v1/me", h.anna, 200},
		{"/v1/me", h.anna, 429}, // and stays a stranger's
		{"/v1/me", h.ben, 200},
		{"/healthz", "", 200},
		{"/healthz", "", 0}, // the third of nobody from one place
		{"/v1/me", h.ben, 0},
	}
	for _, x := range asked {
		if got := ask(x.path, x.token); got != x.want {
			t.Fatalf("%s answers %d, want %d", x.path, got, x.want)
		}
	}
	srv.Close()
	for range asked {
		<-closed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != 0 || d.strangers != 0 || len(d.places) != 0 || len(d.owners) != 0 {
		t.Errorf("left behind: %d open, %d strangers, %d places, %d owners", d.open, d.strangers, len(d.places), len(d.owners))
	}
}
