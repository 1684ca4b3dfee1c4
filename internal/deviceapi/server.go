package deviceapi

import (
	"container/list"
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

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// strangersTime is how long a connection lasts on which no device is met: an
// enrolment takes seconds.
const strangersTime = 30 * time.Second

// Server makes the API's server: its deadlines cut who dawdles over a header or a
// body; 64 connections may be of one device, 2,048 of nobody that it has met as a
// device, 512 of those from one place, and those for 30 s; and its connections can
// be cut by a revocation. Start it with Serve on a listener whose connections are
// *tls.Conn, or with ServeTLS(listener, "", ""). How many connections there are in
// all, and how long a handshake takes, is the listener's business.
func (a *API) Server(t *tls.Config) *http.Server {
	var links sync.Map // net.Conn → *link
	d, log := a.door, a.o.Logger
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           a,
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
			if goes := d.enter(l); goes != nil {
				a.metrics.refuse("displaced")
				goes.cut()
			}
			l.late = time.AfterFunc(strangersTime, l.endStranger(a))
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
	among *list.Element // the place's strangers; guarded by door.mu
	late  *time.Timer   // when a stranger has to go

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

// endStranger cuts the connection if it still is nobody's.
func (l *link) endStranger(a *API) func() {
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.forget == nil {
			a.metrics.refuse("timeout")
			l.cut()
		}
	}
}

// end is called once, when the connection has ended.
func (l *link) end() {
	l.late.Stop()
	l.mu.Lock()
	forget, device := l.forget, l.device
	l.mu.Unlock()
	if forget != nil {
		forget()
		l.door.was(device)
	}
	l.door.leave(l)
}

// follow has the request's connection cut when p is revoked. All requests of a
// connection come with the same certificate, so once is enough.
func (a *API) follow(r *http.Request, p identity.Peer) error {
	return a.meet(r, p.Device, func(cut func(error)) func() { return a.d.Identity.Track(p, cut) })
}

// meet notes whose a connection is: a device's, or a credential's, that share the
// limits by who they are. track has it cut when that is revoked.
func (a *API) meet(r *http.Request, id holdfast.DeviceID, track func(cut func(error)) func()) error {
	l, ok := r.Context().Value(linkKey{}).(*link)
	if !ok {
		return errors.New("deviceapi is not served by its Server: revocations could not cut connections")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forget == nil {
		if !l.door.isDevice(id, l) {
			a.metrics.refuse("connections")
			return errConnections
		}
		l.late.Stop()
		l.device = id
		l.forget = track(func(why error) {
			l.revoked.Store(&why)
			l.cut()
		})
	}
	if why := l.revoked.Load(); why != nil { // since Peer was asked, or the cut has not reached us yet
		return *why
	}
	return nil
}
