// Package load is a load generator for MQTT servers: raw frames over mutual TLS,
// one connection per device certificate, MQTT 3.1.1 or 5, QoS 1.
//
// Busy keeps a window of messages in flight on every connection (closed loop: a
// slower server is sent less). Pace sends at a given rate whatever the server does
// (open loop) and takes each message's latency from the time at which it was to be
// sent, so that a stall counts for all who would have come in it. Storm makes new
// connections as fast as it can. Hold keeps them idle.
//
// It is made to need little processor time, since it mostly shares the machine
// with what it measures: frames are built once and patched, a window's messages
// leave in one write. It says how much it used; whoever reads a result must look
// at that, for on a small machine server and generator fill it together.
//
// It publishes readings: a payload of an exact length, a JSON object with time and
// value that is padded with spaces at its end. It checks acknowledgements: one that
// refuses is an error.
package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Target is the server and who connects to it.
type Target struct {
	Addr       string // HOST:PORT
	ServerName string
	Roots      *x509.CertPool
	Devices    []tls.Certificate // each makes one connection
	Version    byte              // 4: MQTT 3.1.1, 5: MQTT 5
	Curves     []tls.CurveID     // key exchanges that devices offer; nil: Go's own choice
	// From is the address that the nth connection comes from; nil: the system's
	// choice. Servers limit what one address may do.
	From func(n int) net.IP
}

// Versions of MQTT, as CONNECT writes them.
const (
	V311 = 4
	V5   = 5
)

// Conns are connections that have had their CONNACK.
type Conns struct{ all []*conn }

type conn struct {
	tls     *tls.Conn
	version byte
	frame   frame
}

// dialers is how many connections are being made at once by Hold.
const dialers = 32

// Hold connects every device.
func Hold(ctx context.Context, t Target) (*Conns, error) {
	c := &Conns{all: make([]*conn, len(t.Devices))}
	group, ctx := errgroup.WithContext(ctx)
	pin := &pin{}
	var next atomic.Int64
	for range min(dialers, len(t.Devices)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(t.Devices) {
					return nil
				}
				var err error
				if c.all[i], err = t.connect(ctx, i, pin); err != nil {
					return fmt.Errorf("connect device %d: %w", i, err)
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close says goodbye on every connection and closes it.
func (c *Conns) Close() {
	var wg sync.WaitGroup
	for _, x := range c.all {
		if x == nil {
			continue
		}
		wg.Go(x.close)
	}
	wg.Wait()
}

// Len is how many connections there are.
func (c *Conns) Len() int { return len(c.all) }

func (c *conn) close() {
	c.tls.SetDeadline(time.Now().Add(time.Second))
	c.tls.Write([]byte{0xe0, 0}) // DISCONNECT
	c.tls.Close()
}

// patience bounds a handshake with CONNECT and CONNACK.
const patience = 30 * time.Second

// connect makes the nth connection.
func (t Target) connect(ctx context.Context, n int, pin *pin) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	if t.From != nil {
		d.LocalAddr = &net.TCPAddr{IP: t.From(n)}
	}
	raw, err := d.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	device := t.Devices[n%len(t.Devices)]
	c := &conn{version: t.Version, tls: tls.Client(raw, &tls.Config{
		Certificates: []tls.Certificate{device}, ServerName: t.ServerName, RootCAs: t.Roots, MinVersion: tls.VersionTLS13, CurvePreferences: t.Curves,
		InsecureSkipVerify: true, VerifyConnection: pin.verifier(t),
	})}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err = c.hello(ctx, fmt.Sprintf("load-%d", n))
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	c.frame = newFrame(t.Version)
	return c, nil
}

// hello shakes hands, sends CONNECT and reads CONNACK.
func (c *conn) hello(ctx context.Context, id string) error {
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return err
	}
	body := append([]byte("\x00\x04MQTT"), c.version, 2, 600>>8, 600&0xff) // a clean session, keep-alive 10 min
	if c.version == V5 {
		body = append(body, 0)
	}
	body = binary.BigEndian.AppendUint16(body, uint16(len(id)))
	body = append(body, id...)
	if _, err := c.tls.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		return err
	}
	var b [256]byte
	n, err := io.ReadAtLeast(c.tls, b[:], 4)
	if err != nil {
		return fmt.Errorf("no CONNACK: %w", err)
	}
	if b[0] != 0x20 || b[3] != 0 {
		return fmt.Errorf("not let in: CONNACK %x", b[:min(n, 4)])
	}
	if rest := 2 + int(b[1]) - n; rest > 0 && b[1] < 0x80 {
		if _, err := io.ReadFull(c.tls, b[n:n+rest]); err != nil {
			return fmt.Errorf("no CONNACK: %w", err)
		}
	}
	return nil
}

// pin verifies a server's chain once, and takes the same certificate for good from
// then on: the server is what is measured, not this side's arithmetic. The
// handshake's own signature is checked every time.
type pin struct{ leaf atomic.Pointer[[]byte] }

func (p *pin) verifier(t Target) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if known := p.leaf.Load(); known != nil && bytes.Equal(*known, cs.PeerCertificates[0].Raw) {
			return nil
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: t.Roots, DNSName: t.ServerName})
		if err == nil {
			p.leaf.Store(&cs.PeerCertificates[0].Raw)
		}
		return err
	}
}
