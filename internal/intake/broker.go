package intake

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Broker is where messages come from.
type Broker struct {
	URL      *url.URL // mqtts://HOST[:PORT] or mqtt://
	TLS      *tls.Config
	User     string
	Password string
	ClientID string
	Version  string        // 5, 3.1.1; empty: 5, and 3.1.1 if the broker does not know that
	Expiry   time.Duration // of the session while nobody is connected (MQTT 5)
	Window   int           // messages delivered and not acknowledged; a broker of 3.1.1 has its own
	Clean    bool          // nothing is kept: for a look
	Retained bool          // what the broker kept is wanted, once
}

// Default values of a Broker, and its bounds.
const (
	DefaultWindow = 128
	DefaultExpiry = 7 * 24 * time.Hour
	maxPacket     = 512 << 10
	keepAlive     = 30 * time.Second
	dialTimeout   = 15 * time.Second
)

// ParseBroker reads mqtts://HOST[:PORT] or mqtt://HOST[:PORT].
func ParseBroker(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "mqtt" && u.Scheme != "mqtts" {
		return nil, holdfast.Errorf(holdfast.Invalid, "a broker's address looks like mqtts://HOST:PORT, without a user's name or password")
	}
	if u.Port() == "" {
		port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[u.Scheme]
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// codec is one version of MQTT on a connection. Writes go to a buffer.
type codec interface {
	connect(w io.Writer, b *Broker) error
	subscribe(w io.Writer, b *Broker, filters []string) error
	puback(w io.Writer, id uint16) error
	publish(w io.Writer, topic string, payload []byte) error
	ping(w io.Writer) error
	disconnect(w io.Writer) error
	read(r io.Reader) (packet, error)
}

// packet is what a broker says.
type packet struct {
	kind    packetKind
	message *Message
	code    byte   // of connack; of suback the worst
	reason  string // in words, if the broker says
	present bool   // the session was there
}

type packetKind byte

const (
	other packetKind = iota
	connack
	suback
	publication
	ended
)

// link is one connection to a broker.
type link struct {
	conn    net.Conn
	codec   codec
	r       *bufio.Reader
	present bool

	mu sync.Mutex // of w
	w  *bufio.Writer

	messages chan *Message // closed when the connection ends
	why      error         // then, why
	done     chan struct{}
	wg       sync.WaitGroup
}

// errVersion: the broker may know MQTT 3.1.1 only.
var errVersion = errors.New("the broker does not speak MQTT 5")

// dial connects and subscribes.
func (b *Broker) dial(ctx context.Context, filters []string) (*link, error) {
	if b.Version != "" {
		return b.dialAs(ctx, filters, b.Version)
	}
	l, err := b.dialAs(ctx, filters, "5")
	if errors.Is(err, errVersion) {
		return b.dialAs(ctx, filters, "3.1.1")
	}
	return l, err
}

func (b *Broker) dialAs(ctx context.Context, filters []string, version string) (_ *link, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialConn(ctx, b.URL.Host, b.TLS)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "connect to the broker: %w", err)
	}
	l := &link{conn: conn, codec: codec5{}, r: bufio.NewReaderSize(conn, 32<<10), w: bufio.NewWriterSize(conn, 32<<10),
		messages: make(chan *Message, b.Window), done: make(chan struct{})}
	if version == "3.1.1" {
		l.codec = codec3{}
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	if err := l.send(func(w io.Writer) error { return l.codec.connect(w, b) }); err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "connect to the broker: %w", err)
	}
	p, err := l.read()
	switch {
	case err != nil && version == "5" && ctx.Err() == nil:
		return nil, errVersion
	case err != nil:
		return nil, holdfast.Errorf(holdfast.Unavailable, "connect to the broker: %w", err)
	case p.kind != connack:
		return nil, holdfast.Errorf(holdfast.Invalid, "what listens there is no MQTT broker")
	case version == "5" && (p.code == 0x84 || p.code == 1):
		return nil, errVersion
	case p.code != 0:
		return nil, holdfast.Errorf(holdfast.Denied, "the broker refuses the connection, code %d%s: are user, password and client certificate right?", p.code, inWords(p.reason))
	}
	l.present = p.present
	if err := l.send(func(w io.Writer) error { return l.codec.subscribe(w, b, filters) }); err != nil {
		return nil, holdfast.Errorf(holdfast.Unavailable, "subscribe: %w", err)
	}
	if !stop() {
		return nil, holdfast.Errorf(holdfast.Unavailable, "connect to the broker: %w", context.Cause(ctx))
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	l.wg.Go(l.hear)
	l.wg.Go(l.ping)
	return l, nil
}

func dialConn(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
}

func inWords(reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%.200q)", reason)
}

// send writes something whole.
func (l *link) send(write func(io.Writer) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(keepAlive)); err != nil {
		return err
	}
	if err := write(l.w); err != nil {
		return err
	}
	return l.w.Flush()
}

// read takes the next packet. A publication over maxPacket comes without its
// payload.
func (l *link) read() (packet, error) {
	head, size, err := peekHeader(l.r)
	if err != nil {
		return packet{}, err
	}
	if size <= maxPacket {
		return l.codec.read(l.r)
	}
	if head>>4 != 3 {
		return packet{}, holdfast.Errorf(holdfast.TooLarge, "the broker sends a packet of %d bytes", size)
	}
	return l.skip(head, size)
}

// peekHeader looks at a packet's first byte and its length.
func peekHeader(r *bufio.Reader) (head byte, size int, err error) {
	for n := 2; n <= 5; n++ {
		b, err := r.Peek(n)
		if err != nil {
			return 0, 0, err
		}
		if b[n-1] < 0x80 {
			for i := n - 1; i >= 1; i-- {
				size = size<<7 | int(b[i]&0x7f)
			}
			return b[0], size, nil
		}
	}
	return 0, 0, holdfast.Errorf(holdfast.Invalid, "the broker sends what is not MQTT")
}

// skip reads a PUBLISH and drops what follows topic and packet id.
func (l *link) skip(head byte, size int) (packet, error) {
	if _, err := l.r.ReadByte(); err != nil {
		return packet{}, err
	}
	for {
		b, err := l.r.ReadByte() // of the length
		if err != nil {
			return packet{}, err
		}
		if b < 0x80 {
			break
		}
	}
	two := func() (int, error) {
		var b [2]byte
		_, err := io.ReadFull(l.r, b[:])
		return int(b[0])<<8 | int(b[1]), err
	}
	n, err := two()
	if err != nil {
		return packet{}, err
	}
	topic := make([]byte, n)
	if _, err := io.ReadFull(l.r, topic); err != nil {
		return packet{}, err
	}
	m := &Message{Topic: string(topic), QoS: head >> 1 & 3, Dup: head&8 != 0, Retained: head&1 != 0, TooLarge: true}
	size -= 2 + n
	if m.QoS > 0 {
		id, err := two()
		if err != nil {
			return packet{}, err
		}
		m.ID, size = uint16(id), size-2
	}
	_, err = io.CopyN(io.Discard, l.r, int64(size))
	return packet{kind: publication, message: m}, err
}

// hear reads until the connection ends. It waits while nobody takes messages: the
// broker notices by TCP.
func (l *link) hear() {
	defer close(l.messages)
	for {
		if err := l.conn.SetReadDeadline(time.Now().Add(2 * keepAlive)); err != nil {
			l.why = err
			return
		}
		p, err := l.read()
		switch {
		case err != nil:
			l.why = err
			return
		case p.kind == suback && p.code >= 0x80:
			l.why = holdfast.Errorf(holdfast.Denied, "the broker refuses a subscription, code %d%s", p.code, inWords(p.reason))
			return
		case p.kind == ended:
			l.why = holdfast.Errorf(holdfast.Unavailable, "the broker ends the connection, code %d%s", p.code, inWords(p.reason))
			return
		case p.kind != publication:
			continue
		}
		select {
		case l.messages <- p.message:
		case <-l.done:
			l.why = net.ErrClosed
			return
		}
	}
}

func (l *link) ping() {
	t := time.NewTicker(keepAlive / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if l.send(l.codec.ping) != nil {
				l.conn.Close()
				return
			}
		case <-l.done:
			return
		}
	}
}

// ack acknowledges messages, in the order in which they came.
func (l *link) ack(messages []*Message) error {
	return l.send(func(w io.Writer) error {
		for _, m := range messages {
			if m.QoS == 0 {
				continue
			}
			if err := l.codec.puback(w, m.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// close ends the connection; the broker keeps the session.
func (l *link) close() {
	_ = l.send(l.codec.disconnect)
	close(l.done)
	l.conn.Close()
	l.wg.Wait()
}
