package identity

import (
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// broker is a listener that does what the MQTT server does with a connection:
// asks Peer, tracks it, reads until it is cut.
func (h *house) broker(least uint16) (address string, peers <-chan Peer) {
	h.t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", h.MQTTTLS(least))
	if err != nil {
		h.t.Fatal(err)
	}
	out := make(chan Peer, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { h.serve(c.(*tls.Conn), out) })
		}
	})
	h.t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String(), out
}

func (h *house) serve(c *tls.Conn, out chan<- Peer) {
	defer c.NetConn().Close()
	if err := c.HandshakeContext(h.t.Context()); err != nil {
		return
	}
	p, err := h.Peer(h.t.Context(), c.ConnectionState())
	if err != nil {
		return
	}
	forget := h.Track(p, func(error) { c.NetConn().Close() })
	defer forget()
	out <- p
	io.Copy(io.Discard, c)
}

// mustRefuse dials and expects the server to end it: with TLS 1.3 a client learns
// that at its first read.
func mustRefuse(t *testing.T, address string, c *tls.Config) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || timedOut(err) {
		t.Errorf("not refused: %v", err)
	}
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func TestRevocationCutsLiveConnectionsAtOnce(t *testing.T) {
	h := build(t)
	address, peers := h.broker(tls.VersionTLS13)
	lost, other := h.enrolled(), h.enrolled()
	dial := func(d *thing) *tls.Conn {
		c, err := tls.Dial("tcp", address, d.clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if p := <-peers; p.Device != d.id {
			t.Fatalf("the broker met %s", p.Device)
		}
		return c
	}
	first, second, third := dial(lost), dial(lost), dial(other)
	if h.Connected(lost.id) != 2 {
		t.Errorf("%d connections tracked", h.Connected(lost.id))
	}
	start := time.Now()
	if err := h.Revoke(t.Context(), lost.id, "left in a taxi"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*tls.Conn{first, second} {
		c.SetReadDeadline(start.Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || timedOut(err) {
			t.Errorf("a connection was open ten seconds later: %v", err)
		}
	}
	t.Logf("cut %s after the call", time.Since(start))
	if _, err := third.Write([]byte("x")); err != nil || h.Connected(other.id) != 1 {
		t.Errorf("another device was touched: %v, %d connections", err, h.Connected(other.id))
	}
	mustRefuse(t, address, lost.clientTLS())
	h.restart()
	_, err := lost.peer()
	wantKind(t, "after a restart", err, holdfast.Denied)

	kinds, data := lost.record()
	if !slices.Equal(kinds, []string{"enrolment code made", "certificate issued", "certificate revoked"}) {
		t.Fatalf("on record: %v", kinds)
	}
	var r Revocation
	if err := json.Unmarshal(data[2], &r); err != nil || r.Reason != "left in a taxi" || r.Certificates != 1 {
		t.Errorf("the ledger says %s, %v", data[2], err)
	}
	if strings.Contains(h.log.String(), "taxi") {
		t.Error("the log tells the reason")
	}
}

func TestTrackingAfterTheRevocationCutsToo(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	p := d.mustPeer() // and before the connection is tracked:
	if err := h.Revoke(t.Context(), d.id, "stolen"); err != nil {
		t.Fatal(err)
	}
	cut := false
	h.Track(p, func(reason error) { cut = holdfast.KindOf(reason) == holdfast.Denied })()
	if !cut || h.Connected(d.id) != 0 {
		t.Errorf("cut %v, %d tracked", cut, h.Connected(d.id))
	}
}

func TestForgottenConnectionIsNotCut(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	forget := h.Track(d.mustPeer(), func(error) { t.Error("cut after it was forgotten") })
	forget()
	forget()
	if err := h.Revoke(t.Context(), d.id, "stolen"); err != nil {
		t.Fatal(err)
	}
}

func TestRevokedDeviceMayBeLetInAgain(t *testing.T) {
	h := build(t)
	d := h.enrolled()
	if err := h.Revoke(t.Context(), d.id, "lost"); err != nil {
		t.Fatal(err)
	}
	again := *d
	again.newCode()
	again.mustEnrol()
	again.mustPeer()
	_, err := d.peer()
	wantKind(t, "the certificate from before", err, holdfast.Denied)
	wantKind(t, "a device that never was", h.Revoke(t.Context(), holdfast.NewID[holdfast.DeviceID](), ""), holdfast.NotFound)
}

// Whatever the order in which a revocation and a connection meet, the device is
// out when Revoke returns.
func TestRevocationAgainstConnectingDevices(t *testing.T) {
	h := build(t)
	for range 10 {
		d := h.enrolled()
		var wg sync.WaitGroup
		var open sync.Map
		start := make(chan struct{})
		for n := range 4 {
			wg.Go(func() {
				<-start
				for range 20 {
					p, err := d.peer()
					if err != nil {
						return
					}
					open.Store(n, true)
					h.Track(p, func(error) { open.Delete(n) })
				}
			})
		}
		close(start)
		if err := h.Revoke(t.Context(), d.id, "race"); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		open.Range(func(n, _ any) bool { t.Errorf("connection %v outlived the revocation", n); return true })
	}
}

func TestErasureLeavesNothingOfADevice(t *testing.T) {
	h := build(t)
	gone, stays := h.enrolled(), h.enrolled()
	gone.mustPeer()
	gone.renewed()
	cut := make(chan error, 1)
	h.Track(gone.mustPeer(), func(reason error) { cut <- reason })
	part := holdfast.Scope{Assignments: []holdfast.AssignmentID{gone.assignment}, Span: holdfast.Span{From: 0, To: 1}}
	if err := h.Erase(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	if h.find(string(gone.id[:])) == nil {
		t.Fatal("the search does not find what is there")
	}
	gone.mustPeer() // an erasure in part leaves the device its identity

	whole := holdfast.Scope{Assignments: []holdfast.AssignmentID{gone.assignment}, Span: holdfast.Always}
	for range 2 {
		if err := h.Erase(t.Context(), whole); err != nil {
			t.Fatal(err)
		}
	}
	if len(cut) != 1 {
		t.Error("the live connection was not cut")
	}
	for range 2 {
		_, err := gone.peer()
		wantKind(t, "erased", err, holdfast.Denied)
		_, err = h.Renew(t.Context(), gone.state(), csrOf(t, newKey(t), ""))
		wantKind(t, "renewal of an erased device", err, holdfast.Denied)
		stays.mustPeer()
		h.restart()
	}
	fingerprint, spki := fingerprintOf(gone.cert), spkiHash(gone.cert)
	h.mustNotFind(string(gone.id[:]), string(fingerprint[:]), string(spki[:]))
	var rows int
	err := h.db.Read(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT (SELECT COUNT(*) FROM identity_device) + (SELECT COUNT(*) FROM device_certificate) + (SELECT COUNT(*) FROM enrolment_code)`).Scan(&rows)
	})
	if err != nil || rows != 3 {
		t.Errorf("%d rows, %v: want the 3 of the other device", rows, err)
	}
}

func BenchmarkPeer(b *testing.B) {
	h := build(b)
	d := h.enrolled()
	cs := d.state()
	b.Run("known", func(b *testing.B) {
		d.mustPeer()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.Peer(b.Context(), cs); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new to this process", func(b *testing.B) {
		for b.Loop() {
			clear(h.known.leaf)
			h.live.forgetAdmissions()
			if _, err := h.Peer(b.Context(), cs); err != nil {
				b.Fatal(err)
			}
		}
	})
}
