package simtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// message is one publish, from the first try to its answer.
type message struct {
	n       int // what the reading is known by: its value
	stream  string
	qos     byte
	time    time.Time // zero: without
	payload []byte

	id       uint16 // packet id while it is under way
	received bool   // by QoS 2: PUBREC came
}

// thing is a device's MQTT client: what it knows survives the hub's crashes.
type thing struct {
	device device
	roots  *x509.CertPool
	settle func(m *message, code byte) // told of the answer: 0 is yes

	mu       sync.Mutex
	pending  []*message // sent and not answered, in order
	next     uint16
	session  bool // the hub said once that it keeps one
	lost     int  // how often it had none after that
	closed   bool // it was ended for good: nothing is promised
	conn     *tls.Conn
	reading  chan struct{} // closed when the reader has ended
	answered int
}

const sessionExpiry = 7 * 24 * 3600

func (d *thing) config() *tls.Config {
	return &tls.Config{RootCAs: d.roots, Certificates: []tls.Certificate{d.device.cert}, ServerName: "localhost", MinVersion: tls.VersionTLS13}
}

// connect opens a connection if there is none, and sends what is not answered.
func (d *thing) connect(ctx context.Context, n *Network) error {
	d.mu.Lock()
	live := d.conn != nil
	d.mu.Unlock()
	if live {
		return nil
	}
	raw, err := n.Dial(ctx, 8883)
	if err != nil {
		return err
	}
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(raw, d.config())
	answer, err := hello(ctx, c)
	if err != nil {
		raw.Close()
		return err
	}
	raw.SetDeadline(time.Time{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session && !answer.SessionPresent && !d.closed {
		d.lost++
	}
	d.session = true
	d.conn, d.reading = c, make(chan struct{})
	if !answer.SessionPresent {
		for _, m := range d.pending {
			m.received = false
		}
	}
	for _, m := range d.pending {
		if d.write(m, true) != nil {
			break
		}
	}
	go d.read(c, d.reading)
	return nil
}

// hello is CONNECT and CONNACK.
func hello(ctx context.Context, c *tls.Conn) (*packets.Connack, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	p := packets.NewControlPacket(packets.CONNECT)
	expiry := uint32(sessionExpiry)
	in := p.Content.(*packets.Connect)
	in.ClientID, in.KeepAlive, in.CleanStart = "thing", 0, false
	in.Properties = &packets.Properties{SessionExpiryInterval: &expiry}
	if err := send(c, p); err != nil {
		return nil, err
	}
	back, err := packets.ReadPacket(c)
	if err != nil {
		return nil, err
	}
	answer, ok := back.Content.(*packets.Connack)
	if !ok {
		return nil, fmt.Errorf("CONNECT was answered with %s", back.PacketType())
	}
	if answer.ReasonCode != 0 {
		return nil, fmt.Errorf("CONNECT was refused: %#x", answer.ReasonCode)
	}
	return answer, nil
}

func send(c net.Conn, p *packets.ControlPacket) error {
	var b bytes.Buffer
	if _, err := p.WriteTo(&b); err != nil {
		return err
	}
	_, err := c.Write(b.Bytes())
	return err
}

// publish sends a message and does not wait. If there is no connection, the next
// one sends it.
func (d *thing) publish(m *message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.qos > 0 {
		for busy := true; busy; {
			d.next++
			busy = d.next == 0
			for _, other := range d.pending {
				busy = busy || other.id == d.next
			}
		}
		m.id = d.next
		d.pending = append(d.pending, m)
	}
	if d.conn != nil {
		d.write(m, false)
	}
}

func (d *thing) write(m *message, again bool) error {
	if m.received {
		p := packets.NewControlPacket(packets.PUBREL)
		p.Content.(*packets.Pubrel).PacketID = m.id
		return send(d.conn, p)
	}
	p := packets.NewControlPacket(packets.PUBLISH)
	p.Content = &packets.Publish{Topic: "data/" + m.stream, Payload: m.payload, QoS: m.qos, PacketID: m.id, Duplicate: again, Properties: &packets.Properties{}}
	return send(d.conn, p)
}

// read takes answers until the connection ends.
func (d *thing) read(c *tls.Conn, ended chan struct{}) {
	defer close(ended)
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			break
		}
		if err := d.answer(c, p); err != nil {
			break
		}
	}
	c.NetConn().Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == c {
		d.conn = nil
	}
}

func (d *thing) answer(c *tls.Conn, p *packets.ControlPacket) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.under(p.PacketID())
	switch x := p.Content.(type) {
	case *packets.Puback:
		d.end(m, x.ReasonCode)
	case *packets.Pubrec:
		if m == nil {
			return nil
		}
		if x.ReasonCode >= 0x80 {
			d.end(m, x.ReasonCode)
			return nil
		}
		if !m.received {
			d.settle(m, 0)
		}
		m.received = true
		return d.write(m, false)
	case *packets.Pubcomp:
		if m != nil && m.received {
			d.drop(m)
		}
	case *packets.Disconnect:
		return errors.New("the hub ends the connection")
	}
	return nil
}

func (d *thing) under(id uint16) *message {
	for _, m := range d.pending {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (d *thing) end(m *message, code byte) {
	if m == nil {
		return
	}
	if code == 0x10 { // nobody subscribes: it was taken all the same
		code = 0
	}
	d.settle(m, code)
	d.drop(m)
}

func (d *thing) drop(m *message) {
	for i, other := range d.pending {
		if other == m {
			d.pending = append(d.pending[:i], d.pending[i+1:]...)
			d.answered++
			return
		}
	}
}

// hangUp ends the connection without a word, and waits for the reader.
func (d *thing) hangUp() {
	d.mu.Lock()
	c, reading := d.conn, d.reading
	d.conn, d.reading = nil, nil
	d.mu.Unlock()
	if c != nil {
		c.NetConn().Close()
	}
	if reading != nil {
		<-reading
	}
}

// open is how many messages wait for an answer.
func (d *thing) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}
