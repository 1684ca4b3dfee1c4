package intake

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/holdfast-iot/holdfast"
)

// Gateway is the identity that an intake sends as.
type Gateway interface {
	// Way says how to come to the hub, after renewing the certificate if that is due.
	Way(ctx context.Context) (Way, error)
	// Due reports whether the certificate is due for renewal.
	Due() bool
}

// Way is how to come to a hub's port for MQTT.
type Way struct {
	Address string // HOST:PORT
	TLS     *tls.Config
	Device  holdfast.DeviceID
}

// hub is where readings go: the devices' MQTT edge. It is used by one goroutine, which writes some packs and
// then waits for what the hub says of each: there is nothing under way between
// two calls.
type hub struct {
	gateway Gateway

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

// connect makes a connection if there is none.
func (h *hub) connect(ctx context.Context) error {
	if h.conn != nil && time.Since(h.born) > hubRenewal {
		h.born = time.Now()
		if h.gateway.Due() {
			h.close() // the old certificate ends when the new one is first used
		}
	}
	if h.conn != nil {
		return nil
	}
	way, err := h.gateway.Way(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialConn(ctx, way.Address, way.TLS)
	if err != nil {
		return holdfast.Errorf(holdfast.Unavailable, "connect to the hub: %w", err)
	}
	h.conn, h.r, h.w = conn, bufio.NewReader(conn), bufio.NewWriterSize(conn, 32<<10)
	h.born, h.used, h.window = time.Now(), time.Now(), 20
	if err := h.greet(way.Device); err != nil {
		h.close()
		return err
	}
	return nil
}

func (h *hub) greet(device holdfast.DeviceID) error {
	if err := h.conn.SetDeadline(time.Now().Add(hubTimeout)); err != nil {
		return err
	}
	c := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "intake-" + device.String(), CleanStart: true, KeepAlive: 60,
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
