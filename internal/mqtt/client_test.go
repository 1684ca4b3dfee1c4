package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// client writes raw frames and reads raw packets.
type client struct {
	t       *testing.T
	nc      net.Conn
	version byte
	packets chan packet // closed at the end of the connection
}

type packet struct {
	kind  byte
	body  []byte
	flags byte
}

func (p packet) String() string { return fmt.Sprintf("%s %x", packetNames[p.kind], p.body) }

// state is what TLS would say of a device.
func state(id holdfast.DeviceID, notAfter time.Time) tls.ConnectionState {
	if id.IsZero() {
		return tls.ConnectionState{}
	}
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{{
		Subject: pkix.Name{CommonName: id.String()}, NotAfter: notAfter,
	}}}
}

// pipes connects clients to a server without sockets; all ends with the test.
type pipes struct {
	t   *testing.T
	s   *Server
	ctx context.Context
	wg  sync.WaitGroup
}

func newPipes(t *testing.T, h *hub, o Options) *pipes {
	ctx, cancel := context.WithCancel(context.Background())
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Source == nil {
		o.Source = h.board
	}
	p := &pipes{t: t, s: New(authenticate, h, h, o), ctx: ctx}
	t.Cleanup(func() {
		cancel()
		p.s.registry.close()
		p.wg.Wait()
	})
	return p
}

// dial opens a connection and says nothing.
func (p *pipes) dial(id holdfast.DeviceID) *client { return p.dialUntil(id, time.Time{}) }

func (p *pipes) dialUntil(id holdfast.DeviceID, notAfter time.Time) *client {
	ours, theirs := net.Pipe()
	p.wg.Go(func() { p.s.ServeConn(p.ctx, theirs, state(id, notAfter)) })
	c := newClient(p.t, ours)
	p.t.Cleanup(func() { ours.Close() })
	return c
}

// newClient reads what comes on nc.
func newClient(t *testing.T, nc net.Conn) *client {
	c := &client{t: t, nc: nc, packets: make(chan packet, 4096)}
	go func() {
		defer close(c.packets)
		for {
			p, err := readPacket(nc)
			if err != nil {
				return
			}
			c.packets <- p
		}
	}()
	return c
}

func readPacket(r io.Reader) (p packet, err error) {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return p, err
	}
	p.kind, p.flags = b[0]>>4, b[0]&0x0f
	if p.flags != 0 && p.kind != typePublish {
		return p, errors.New("flags that no packet of a server has")
	}
	n := 0
	for shift := 0; ; shift += 7 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return p, err
		}
		n |= int(b[0]&0x7f) << shift
		if b[0] == 0 && shift > 0 || shift > 21 {
			return p, errors.New("a length that is not in its shortest form")
		}
		if b[0] < 0x80 {
			break
		}
	}
	p.body = make([]byte, n)
	_, err = io.ReadFull(r, p.body)
	return p, err
}

// write sends bytes; a connection that the server has ended takes none.
func (c *client) write(b []byte) error {
	c.nc.SetWriteDeadline(time.Now().Add(20 * time.Second))
	_, err := c.nc.Write(b)
	return err
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if err := c.write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// next returns the next packet of the server.
func (c *client) next() packet {
	c.t.Helper()
	select {
	case p, ok := <-c.packets:
		if !ok {
			c.t.Fatal("the connection has ended")
		}
		version := c.version
		if p.kind == typeConnack && len(p.body) > 2 { // to a CONNECT that a test has written itself
			version = v5
		}
		if err := p.check(version); version != 0 && err != nil {
			c.t.Error(err)
		}
		return p
	case <-time.After(patience()):
		c.t.Fatal("nothing came")
	}
	panic("unreachable")
}

// expect wants the next packet to be this one, body in hex.
func (c *client) expect(kind byte, body string) {
	c.t.Helper()
	p := c.next()
	if want := unhex(body); p.kind != kind || !bytes.Equal(p.body, want) {
		c.t.Fatalf("received %v, want %v", p, packet{kind: kind, body: want})
	}
}

// expectCode wants an ack with a reason code and returns its reason string.
func (c *client) expectCode(kind byte, id uint16, code reason) string {
	c.t.Helper()
	p := c.next()
	if p.kind != kind || len(p.body) < 2 || binary.BigEndian.Uint16(p.body) != id {
		c.t.Fatalf("received %v, want %s of %d", p, packetNames[kind], id)
	}
	got := success
	if len(p.body) > 2 {
		got = reason(p.body[2])
	}
	if got != code {
		c.t.Fatalf("received %v, want code 0x%02X", p, byte(code))
	}
	if len(p.body) > 3 {
		return reasonString(c.t, p.body[3:])
	}
	return ""
}

// expectEnd wants the connection to end, in MQTT 5 with a DISCONNECT of code.
func (c *client) expectEnd(code reason) string {
	c.t.Helper()
	why := ""
	if c.version == v5 && code != success {
		p := c.next()
		if p.kind != typeDisconnect || len(p.body) == 0 || reason(p.body[0]) != code {
			c.t.Fatalf("received %v, want DISCONNECT 0x%02X", p, byte(code))
		}
		if len(p.body) > 1 {
			why = reasonString(c.t, p.body[1:])
		}
	}
	c.expectClosed()
	return why
}

func (c *client) expectClosed() {
	c.t.Helper()
	select {
	case p, ok := <-c.packets:
		if ok {
			c.t.Fatalf("received %v, want the end of the connection", p)
		}
		c.nc.Close() // the server lingers for it
	case <-time.After(patience()):
		c.t.Fatal("the connection is still open")
	}
}

// nextUntilClosed returns what else comes before the connection ends, which must be
// soon.
func (c *client) nextUntilClosed() (all []packet) {
	c.t.Helper()
	for {
		select {
		case p, ok := <-c.packets:
			if !ok {
				return all
			}
			all = append(all, p)
		case <-time.After(patience()):
			c.t.Fatalf("the connection is still open after %v", all)
		}
	}
}

// silent wants that nothing has come so far, after the server has had its turn: it
// asks for a PINGRESP, which overtakes what waits for the disk.
func (c *client) silent() {
	c.t.Helper()
	c.send([]byte{typePingreq << 4, 0})
	c.expect(typePingresp, "")
}

func reasonString(t *testing.T, props []byte) string {
	t.Helper()
	d := decoder{b: props}
	in := decoder{b: d.take(d.varint())}
	if in.byte() != propReasonString {
		t.Fatalf("properties %x are no reason string", props)
	}
	s := string(in.text())
	if d.bad || in.bad || len(in.b) > 0 || len(d.b) > 0 {
		t.Fatalf("properties %x are malformed", props)
	}
	return s
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// hello is a CONNECT to be written.
type hello struct {
	version   byte
	id        string
	clean     bool
	keepAlive uint16
	props     []byte // MQTT 5, without their length
	will      *testWill
	flags     byte // set beside
}

type testWill struct {
	topic   string
	payload string
	delay   uint32
	retain  bool
}

func (h hello) bytes() []byte {
	flags := h.flags
	if h.clean {
		flags |= 2
	}
	if h.will != nil {
		flags |= 4 | 1<<3
		if h.will.retain {
			flags |= 0x20
		}
	}
	b := appendText(nil, "MQTT")
	b = append(b, h.version, flags)
	b = binary.BigEndian.AppendUint16(b, h.keepAlive)
	if h.version == v5 {
		b = append(appendVarint(b, len(h.props)), h.props...)
	}
	b = appendText(b, h.id)
	if w := h.will; w != nil {
		if h.version == v5 {
			p := binary.BigEndian.AppendUint32([]byte{propWillDelay}, w.delay)
			b = append(appendVarint(b, len(p)), p...)
		}
		b = appendText(appendText(b, w.topic), w.payload)
	}
	return framed(typeConnect<<4, b)
}

func framed(h byte, body []byte) []byte {
	return append(appendVarint([]byte{h}, len(body)), body...)
}

// connect sends CONNECT and wants it accepted.
func (c *client) connect(h hello) (present bool, props []byte) {
	c.t.Helper()
	c.version = h.version
	c.send(h.bytes())
	p := c.next()
	if p.kind != typeConnack || p.body[1] != 0 {
		c.t.Fatalf("received %v, want CONNACK", p)
	}
	return p.body[0] == 1, p.body[2:]
}

// connectRefused sends CONNECT and wants it refused.
func (c *client) connectRefused(h hello, code byte) {
	c.t.Helper()
	c.version = h.version
	c.send(h.bytes())
	p := c.next()
	if p.kind != typeConnack || p.body[0] != 0 || p.body[1] != code {
		c.t.Fatalf("received %v, want CONNACK with code 0x%02X", p, code)
	}
	c.expectClosed()
}

// pub is a PUBLISH to be written.
type pub struct {
	qos     byte
	dup     bool
	id      uint16
	topic   string
	payload string
	props   []byte
}

func (c *client) publish(p pub) []byte { return p.bytes(c.version) }

func (p pub) bytes(version byte) []byte {
	h := byte(typePublish<<4) | p.qos<<1
	if p.dup {
		h |= 8
	}
	b := appendText(nil, p.topic)
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, p.id)
	}
	if version == v5 {
		b = append(appendVarint(b, len(p.props)), p.props...)
	}
	return framed(h, append(b, p.payload...))
}

func pubrel(id uint16) []byte { return []byte{typePubrel<<4 | 2, 2, byte(id >> 8), byte(id)} }

// patience is how long a test waits for the server. Time in a synctest bubble,
// which begins in the year 2000, costs nothing.
func patience() time.Duration {
	if time.Now().Year() == 2000 {
		return 24 * time.Hour
	}
	return 30 * time.Second
}
