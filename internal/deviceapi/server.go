package deviceapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// Server makes the server of an API: its deadlines cut who dawdles over a
// handshake, a header or a body; it holds 10,000 connections, 64 of one device, of
// which 2,048 may be of nobody that it has met as a device, 512 of those from one
// place; and its
// connections can be cut by a revocation. Start it with ServeTLS(listener, "", "");
// h is an *API or wraps one. Handshakes that fail are logged at debug level, for
// anybody can make them.
func Server(t *tls.Config, h http.Handler, log *slog.Logger) *http.Server {
	return newServer(newDoor(), t, h, log)
}

func newServer(d *door, t *tls.Config, h http.Handler, log *slog.Logger) *http.Server {
	var links sync.Map // net.Conn → *link
	warnings := rate.Sometimes{Interval: 10 * time.Second}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		TLSConfig:         t,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second, // the handshake's too
		ReadTimeout:       2 * time.Minute,  // EST; API bounds its own bodies
		WriteTimeout:      3 * time.Minute,  // from the end of the header: body, commit, answer
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			l := &link{conn: c, door: d, place: placeOf(c)}
			if !d.enter(l.place) {
				warnings.Do(func() { log.Warn("deviceapi: too many connections, new ones are closed") })
				l.cut()
				return ctx
			}
			links.Store(c, l)
			return context.WithValue(ctx, linkKey{}, l)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s != http.StateClosed && s != http.StateHijacked {
				return
			}
			if l, ok := links.LoadAndDelete(c); ok {
				l.(*link).end()
			}
		},
	}
}

type linkKey struct{}

// link is one connection, from its first request by a device on known to whoever
// can revoke the device.
type link struct {
	conn  net.Conn
	door  *door
	place netip.Addr

	mu      sync.Mutex
	forget  func() // nil while no device was met
	device  holdfast.DeviceID
	revoked atomic.Pointer[error]
}

// cut ends the connection at once. It does not close TLS, whose farewell could
// wait for the peer.
func (l *link) cut() {
	if t, ok := l.conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	l.conn.Close()
}

// end is called once, when the connection has ended.
func (l *link) end() {
	l.mu.Lock()
	forget, device := l.forget, l.device
	l.mu.Unlock()
	if forget != nil {
		forget()
		l.door.was(device)
	} else {
		l.door.met(l.place)
	}
	l.door.leave()
}

// follow has the request's connection cut when p is revoked. All requests of a
// connection come with the same certificate, so once is enough.
func (a *API) follow(r *http.Request, p identity.Peer) error {
	l, ok := r.Context().Value(linkKey{}).(*link)
	if !ok {
		return errors.New("deviceapi is not served by its Server: revocations could not cut connections")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forget == nil {
		if !l.door.isDevice(p.Device, l.place) {
			return errConnections
		}
		l.device = p.Device
		l.forget = a.d.Identity.Track(p, func(why error) {
			l.revoked.Store(&why)
			l.cut()
		})
	}
	if why := l.revoked.Load(); why != nil { // since Peer was asked, or the cut has not reached us yet
		return *why
	}
	return nil
}
