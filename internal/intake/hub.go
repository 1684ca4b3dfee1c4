package intake

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// hub is where readings go: the devices' MQTT edge, as the gateway whose identity
// stands in a folder. It is used by one goroutine, which writes some packs and
// then waits for what the hub says of each: there is nothing under way between
// two calls.
type hub struct {
	dir     string
	address string // HOST:PORT, "" for what the identity says

	conn   net.Conn
	r      *bufio.Reader
	w      *bufio.Writer
	window int
	id     uint16
	used   time.Time
	born   time.Time
}

// pack is one publish: readings of one device.
type pack struct {
	child string // "" for the gateway
	body  []byte // SenML
	items []int  // indexes of the messages it is made of
}

// refusal is what the hub says of a pack that it will never take.
type refusal struct {
	code byte
	why  string
}

func (r *refusal) Error() string {
	if r.why != "" {
		return r.why
	}
	return fmt.Sprintf("the hub refuses it, code 0x%02X", r.code)
}

const (
	hubTimeout = 30 * time.Second
	hubIdle    = 20 * time.Second // between signs of life
	hubRenewal = 12 * time.Hour   // between looks at the certificate
)

// ParseHub reads mqtts://HOST[:PORT] of a hub.
func ParseHub(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "mqtts" || u.Hostname() == "" || u.User != nil {
		return "", holdfast.Errorf(holdfast.Invalid, "a hub's address for readings looks like mqtts://HOST:8883")
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "8883"), nil
	}
	return u.Host, nil
}

// connect makes a connection if there is none, renewing the certificate when that
// is due.
func (h *hub) connect(ctx context.Context) error {
	if h.conn != nil && time.Since(h.born) > hubRenewal {
		if i, err := client.LoadIdentity(h.dir); err == nil && i.Due(time.Now()) {
			h.close() // the old certificate ends when the new one is first used
		}
		h.born = time.Now()
	}
	if h.conn != nil {
		return nil
	}
	i, err := client.RenewIfDue(ctx, "", h.dir)
	if err != nil && (i.Device.IsZero() || time.Now().After(i.NotAfter)) {
		return err
	}
	if i.Device.IsZero() {
		return holdfast.Errorf(holdfast.Invalid, "the identity in %s is not a device's", h.dir)
	}
	config, err := deviceTLS(h.dir)
	if err != nil {
		return err
	}
	address, err := h.at(i)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialConn(ctx, address, config)
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "connect to the hub: %w", err)
	}
	h.conn, h.r, h.w = conn, bufio.NewReader(conn), bufio.NewWriterSize(conn, 32<<10)
	h.born, h.used, h.window = time.Now(), time.Now(), 20
	if err := h.greet(i); err != nil {
		h.close()
		return err
	}
	return nil
}

func (h *hub) at(i client.Identity) (string, error) {
	if h.address != "" {
		return h.address, nil
	}
	if i.Hub.MQTT != "" {
		return ParseHub(i.Hub.MQTT)
	}
	u, err := url.Parse(i.Hub.Device)
	if err != nil || u.Hostname() == "" {
		return "", holdfast.Errorf(holdfast.Invalid, "say where the hub takes readings: --hub mqtts://HOST:8883")
	}
	return net.JoinHostPort(u.Hostname(), "8883"), nil
}

func deviceTLS(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, holdfast.Errorf(holdfast.Invalid, "in %s, cert.pem and key.pem are not a key and its certificate", dir)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, holdfast.Errorf(holdfast.Invalid, "%s holds no certificate", filepath.Join(dir, "ca.pem"))
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool}, nil
}

// stateKey is what only this identity knows: checks in the state's files are
// keyed with it, so that they tell nobody what a message said.
func stateKey(dir string) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	sum := sha256.Sum256(append([]byte("holdfast intake state\n"), key...))
	clear(key)
	return sum[:], nil
}

func (h *hub) greet(i client.Identity) error {
	if err := h.conn.SetDeadline(time.Now().Add(hubTimeout)); err != nil {
		return err
	}
	c := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "intake-" + i.Device.String(), CleanStart: true, KeepAlive: 60,
		Properties: &packets.Properties{}, WillProperties: &packets.Properties{}}
	if _, err := c.WriteTo(h.w); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "connect to the hub: %w", err)
	}
	if err := h.w.Flush(); err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "connect to the hub: %w", err)
	}
	p, err := packets.ReadPacket(h.r)
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "connect to the hub: %w", err)
	}
	ack, ok := p.Content.(*packets.Connack)
	if !ok || ack.ReasonCode != 0 {
		return holdfast.Errorf(holdfast.Unavailable, "the hub refuses the connection%s", reasonOf(p))
	}
	if n := ack.Properties.ReceiveMaximum; n != nil {
		h.window = min(int(*n), 100)
	}
	return nil
}

func reasonOf(p *packets.ControlPacket) string {
	switch c := p.Content.(type) {
	case *packets.Connack:
		return fmt.Sprintf(", code 0x%02X%s", c.ReasonCode, inWords(c.Properties.ReasonString))
	case *packets.Disconnect:
		return fmt.Sprintf(", code 0x%02X%s", c.ReasonCode, inWords(c.Properties.ReasonString))
	}
	return ""
}

// publish sends packs. said has, for each, nil when it is durable or a refusal;
// on an error, the hub has said nothing of the packs for which said has no entry
// set: answered tells which.
func (h *hub) publish(ctx context.Context, packs []pack) (said []error, answered []bool, err error) {
	said, answered = make([]error, len(packs)), make([]bool, len(packs))
	if err := h.connect(ctx); err != nil {
		return said, answered, err
	}
	stop := context.AfterFunc(ctx, func() { h.conn.SetDeadline(time.Now()) })
	defer stop()
	for from := 0; from < len(packs); from += h.window {
		to := min(from+h.window, len(packs))
		if err := h.some(packs, from, to, said, answered); err != nil {
			h.close()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return said, answered, holdfast.Errorf(holdfast.Unavailable, "send to the hub: %w", err)
		}
	}
	h.used = time.Now()
	return said, answered, nil
}

// some publishes one window of packs and reads what the hub says.
func (h *hub) some(packs []pack, from, to int, said []error, answered []bool) error {
	if err := h.conn.SetDeadline(time.Now().Add(hubTimeout)); err != nil {
		return err
	}
	under := map[uint16]int{}
	for i := from; i < to; i++ {
		if h.id++; h.id == 0 {
			h.id = 1
		}
		under[h.id] = i
		topic := "data"
		if packs[i].child != "" {
			topic = "child/" + packs[i].child + "/data"
		}
		p := &packets.Publish{Topic: topic, QoS: 1, PacketID: h.id, Payload: packs[i].body, Properties: &packets.Properties{}}
		if _, err := p.WriteTo(h.w); err != nil {
			return err
		}
	}
	if err := h.w.Flush(); err != nil {
		return err
	}
	for len(under) > 0 {
		p, err := packets.ReadPacket(h.r)
		if err != nil {
			return err
		}
		ack, ok := p.Content.(*packets.Puback)
		if !ok {
			if p.Type == packets.DISCONNECT {
				return holdfast.Errorf(holdfast.Unavailable, "the hub ends the connection%s", reasonOf(p))
			}
			continue
		}
		i, ok := under[ack.PacketID]
		if !ok {
			continue
		}
		delete(under, ack.PacketID)
		if ack.ReasonCode >= 0x80 {
			if ack.ReasonCode == packets.PubackUnspecifiedError {
				return holdfast.Errorf(holdfast.Unavailable, "the hub has a fault of its own")
			}
			said[i] = &refusal{ack.ReasonCode, ack.Properties.ReasonString}
		}
		answered[i] = true
	}
	return nil
}

// alive keeps a connection that has nothing to say.
func (h *hub) alive() {
	if h.conn == nil || time.Since(h.used) < hubIdle {
		return
	}
	h.used = time.Now()
	err := h.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err == nil {
		_, err = packets.NewControlPacket(packets.PINGREQ).WriteTo(h.w)
	}
	if err == nil {
		err = h.w.Flush()
	}
	if err == nil {
		_, err = packets.ReadPacket(h.r)
	}
	if err != nil {
		h.close()
	}
}

func (h *hub) close() {
	if h.conn != nil {
		_ = h.conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = (&packets.Disconnect{Properties: &packets.Properties{}}).WriteTo(h.conn)
		h.conn.Close()
		h.conn = nil
	}
}
