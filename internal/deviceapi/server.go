package deviceapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast/internal/identity"
)

// Server makes the server of an API: its deadlines cut who dawdles over a
// handshake, a header or a body, and its connections can be cut by a revocation.
// Start it with ServeTLS(listener, "", ""); h is an *API or wraps one. Handshakes
// that fail are logged at debug level, for anybody can make them.
func Server(t *tls.Config, h http.Handler, log *slog.Logger) *http.Server {
	var links sync.Map // net.Conn → *link
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
			l := &link{conn: c}
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
	conn   net.Conn
	mu     sync.Mutex
	forget func()
}

func (l *link) end() {
	l.mu.Lock()
	forget := l.forget
	l.mu.Unlock()
	if forget != nil {
		forget()
	}
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
	if l.forget != nil {
		return nil
	}
	l.forget = a.d.Identity.Track(p, func(error) {
		// Not Close of the TLS connection: its farewell could wait for the peer.
		if t, ok := l.conn.(*tls.Conn); ok {
			t.NetConn().Close()
		} else {
			l.conn.Close()
		}
	})
	return nil
}
