package lobby

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// stage is how far a guest has come.
type stage byte

const (
	silent  stage = iota // nothing was heard
	talking              // the ClientHello is on its way, or is here
	begun                // the hub has answered it
	inside
	gone
)

// guest is a connection, in the lobby and, as the socket under its TLS, afterwards.
type guest struct {
	net.Conn
	l     *Lobby
	place *place

	// Of the goroutine that does the handshake; whoever reads a guest inside reads
	// what it left.
	heard   [1]byte // what a silent guest is waited for with
	unread  []byte  // read from the socket, not yet by TLS
	buffer  *[readAhead]byte
	granted chan struct{} // for Turns; nil inside
	turn    bool          // is held
	spent   time.Duration // that the other end has kept us waiting

	// Guarded by l.mu.
	stage stage
	since time.Time // it is waited for, as long as if since then; zero: it waits for us

	close sync.Once
}

// readAhead holds what a client sends in one flight, so that TLS, which reads
// records piecemeal, waits for the other end only when it must.
const readAhead = 4 << 10

var errGaveUp = errors.New("the place was given to another connection")

// Read is the socket's, inside. In the lobby it gives the turn back while it waits.
func (g *guest) Read(p []byte) (int, error) {
	if len(g.unread) > 0 {
		n := copy(p, g.unread)
		if g.unread = g.unread[n:]; len(g.unread) == 0 {
			g.unread = nil
			if g.granted == nil {
				g.dropBuffer()
			}
		}
		return n, nil
	}
	if g.granted == nil {
		return g.Conn.Read(p)
	}
	g.giveTurn()
	n, err := g.await(g.buffer[:])
	if err != nil {
		return 0, err
	}
	g.unread = g.buffer[:n]
	g.takeTurn()
	return g.Read(p)
}

// await reads from the other end, for as long as its time in the lobby lasts.
func (g *guest) await(p []byte) (int, error) {
	began := time.Now()
	if !g.l.waits(g, began.Add(-g.spent)) {
		return 0, errGaveUp
	}
	g.Conn.SetReadDeadline(began.Add(g.l.o.Timeout - g.spent))
	n, err := g.Conn.Read(p)
	g.spent += time.Since(began)
	g.l.heard(g)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// Write is the socket's. In the lobby the hub's answer to a ClientHello passes
// here, and whoever doesn't take it is a guest that keeps us waiting.
func (g *guest) Write(p []byte) (int, error) {
	if g.granted == nil {
		return g.Conn.Write(p)
	}
	g.l.answered(g)
	g.Conn.SetWriteDeadline(time.Now().Add(g.l.o.Timeout))
	return g.Conn.Write(p)
}

func (g *guest) takeTurn() {
	if !g.turn {
		g.l.o.Turns.take(g.place.addr, g.l.hasBegun(g), g.granted)
		g.turn = true
	}
}

func (g *guest) giveTurn() {
	if g.turn {
		g.turn = false
		g.l.o.Turns.give()
	}
}

func (g *guest) dropBuffer() {
	if b := g.buffer; b != nil {
		g.buffer = nil
		clear(b[:])
		g.l.buffers.Put(b)
	}
}

// shake does the handshake; err says why the guest leaves.
func (g *guest) shake(config *tls.Config) (*tls.Conn, error) {
	if _, err := g.await(g.heard[:]); err != nil {
		return nil, err
	}
	if g.buffer, _ = g.l.buffers.Get().(*[readAhead]byte); g.buffer == nil {
		g.buffer = new([readAhead]byte)
	}
	g.buffer[0] = g.heard[0]
	n, err := g.await(g.buffer[1:]) // it is here already, but for very slow links
	if err != nil {
		return nil, err
	}
	g.unread = g.buffer[:1+n]
	g.takeTurn()
	defer g.giveTurn()
	t := tls.Server(g, config)
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	g.Conn.SetDeadline(time.Time{})
	return t, nil
}

// settle makes g the plain socket of a connection inside.
func (g *guest) settle() {
	g.granted = nil
	if len(g.unread) == 0 {
		g.dropBuffer()
	}
}

// Close closes the socket and gives back what the connection held.
func (g *guest) Close() error {
	err := g.Conn.Close()
	g.close.Do(func() { g.l.left(g) })
	return err
}

// NetConn is the socket as the port's listener gave it. It must be closed by the
// guest.
func (g *guest) NetConn() net.Conn { return g.Conn }

// CloseWrite ends what is sent, where the socket can.
func (g *guest) CloseWrite() error {
	if w, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// reasonOf says why a handshake failed, for the metrics.
func (g *guest) reasonOf(err error) reason {
	switch {
	case errors.Is(err, errGaveUp) || g.l.isGone(g):
		return 0 // counted where its place was given away
	case errors.Is(err, os.ErrDeadlineExceeded):
		return late
	}
	return failed
}
