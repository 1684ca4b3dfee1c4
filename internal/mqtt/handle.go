package mqtt

import (
	"errors"
	"time"

	"github.com/holdfast-iot/holdfast"
)

const (
	// maxUnanswered is the Receive Maximum of 3.1.1, which can't be announced:
	// beyond it reading pauses.
	maxUnanswered = 1024
	// maxUnreleased bounds the QoS 2 packet ids that a session keeps.
	maxUnreleased = 1024
	// publishCost is what a publish takes beside its bytes until it is durable.
	publishCost = 100
	// maxRoutes is how many topics a connection remembers.
	maxRoutes = 16
)

func (c *conn) onPublish(h byte, body []byte) error {
	var p publish
	if err := parsePublish(h, body, c.version, &p); err != nil {
		return err
	}
	if p.retain && c.version == v5 { // in 3.1.1 it can't be refused: a reading like any other
		return &fault{retainNotSupported, "nothing is retained here"}
	}
	r, err := c.resolve(&p)
	if err != nil {
		return err
	}
	if p.qos == 2 {
		if mine, known := c.qos2[p.id]; known {
			return c.again(p.id, mine)
		}
		if c.cur != nil && c.cur.released { // a record says one thing about a packet id
			c.commit()
		}
	}
	if p.qos > 0 {
		if err := c.takeUnit(); err != nil {
			return err
		}
	}
	cost := len(body) + publishCost
	c.makeRoom(cost)
	if r.kind.ofTwin() { // which may take its time; what was read before doesn't wait for it
		c.commit()
	}
	f := c.flight()
	f.size += cost
	if p.qos == 2 && len(c.qos2) >= maxUnreleased {
		err = &fault{quotaExceeded, "too many QoS 2 packet ids are not released"}
		if c.version == v311 {
			return err
		}
	} else {
		err = c.add(r, message{p.payload, p.content, p.utf8}, Delivery{p.id, p.qos == 2})
	}
	return c.answer(f, &p, err)
}

// add decodes m and adds it to the batch of this read.
func (c *conn) add(r *route, m message, d Delivery) error {
	if !d.QoS2 {
		d.PacketID = 0
	}
	if c.peer.Device.IsZero() {
		return &fault{notAuthorized, "devices publish; a person or a program subscribes"}
	}
	if r.kind.ofTwin() {
		if err := c.charge(r, 0, len(m.payload)); err != nil {
			return err
		}
		return c.s.tell(c.peer, r, m)
	}
	var samples []holdfast.Sample
	var err error
	if r.kind == toSparkplug {
		samples, err = r.metrics(m, c.births())
	} else {
		samples, err = r.samples(m, &c.one)
	}
	if over := c.charge(r, len(samples), len(m.payload)); err == nil {
		err = over
	}
	if err != nil {
		return err
	}
	if len(samples) == 0 {
		return nil
	}
	if c.batch == nil {
		c.batch = c.s.gate.Batch(c.peer, c.session)
	}
	if err := c.batch.Add(r.child, samples, d); err != nil {
		return err
	}
	f := c.flight()
	f.added = true
	f.held = f.held || d.QoS2
	return nil
}

// answer writes what f says about p when it lands.
func (c *conn) answer(f *flight, p *publish, err error) error {
	code := success
	if err != nil {
		var end error
		if code, end = c.refuse(err); end != nil {
			return end
		}
	}
	switch p.qos {
	case 1:
		f.units++
		f.acks = appendAck(f.acks, typePuback, p.id, code, refusalText(err), c.dialect)
	case 2:
		f.acks = appendAck(f.acks, typePubrec, p.id, code, refusalText(err), c.dialect)
		// MQTT 5 gives the unit back at PUBCOMP. 3.1.1 knows no units: a reader that
		// waited for a PUBREL would never read it.
		if code != success || c.version == v311 {
			f.units++
		}
		if code == success {
			if c.qos2 == nil {
				c.qos2 = make(map[uint16]bool)
			}
			c.qos2[p.id] = c.version == v5
		}
	}
	return nil
}

// refuse translates why a publish was not added: to the code of its answer, or to
// the end of the connection where it is not to be answered.
func (c *conn) refuse(err error) (reason, error) {
	if f, ok := errors.AsType[*fault](err); ok {
		c.s.refused(c.peer, f.code, f.text)
		return f.code, nil
	}
	code, end := reasonsOf(err)
	if code == 0 {
		c.s.failed(err)
		return 0, &fault{end, toldText(err)}
	}
	c.s.refused(c.peer, code, toldText(err))
	return code, nil
}

func refusalText(err error) string {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return f.text
	}
	return toldText(err)
}

// again answers a QoS 2 publish that is here already. mine: this connection has
// taken a unit for it.
func (c *conn) again(id uint16, mine bool) error {
	if !mine && c.version == v5 {
		if err := c.takeUnit(); err != nil {
			return err
		}
		c.qos2[id] = true
	}
	c.s.m.repeats.Add(1)
	f := c.flight() // behind the flight that makes the first one durable
	f.acks = appendAck(f.acks, typePubrec, id, success, "", c.dialect)
	return nil
}

func (c *conn) onPubrel(id uint16) {
	if c.cur != nil && c.cur.held { // a record says one thing about a packet id
		c.commit()
	}
	f := c.flight()
	mine, known := c.qos2[id]
	if !known {
		f.acks = appendAck(f.acks, typePubcomp, id, packetIDUnknown, "", c.dialect)
		return
	}
	delete(c.qos2, id)
	if c.batch == nil {
		c.batch = c.s.gate.Batch(c.peer, c.session)
	}
	c.batch.Release(id)
	f.added, f.released = true, true
	if mine {
		f.units++
	}
	f.acks = appendAck(f.acks, typePubcomp, id, success, "", c.dialect)
}

// takeUnit counts an unacknowledged publish. MQTT 5 clients know how many they may
// have; of others the reader waits.
func (c *conn) takeUnit() error {
	limit := int64(c.s.o.ReceiveMaximum)
	if c.version == v311 {
		limit = maxUnanswered
	}
	if c.taken-c.returned.Load() >= limit {
		if c.version == v5 {
			return &fault{receiveMaxExceeded, "more publishes in flight than the announced Receive Maximum"}
		}
		c.commit()
		c.wait(time.Time{}, func() bool { return c.taken-c.returned.Load() < limit })
	}
	c.taken++
	return nil
}

// makeRoom waits until n more bytes may be in flight.
func (c *conn) makeRoom(n int) {
	limit := c.s.o.MaxInflightBytes
	if c.cur != nil && c.cur.size > 0 && c.cur.size+n > limit {
		c.commit()
	}
	read := 0
	if c.cur != nil {
		read = c.cur.size
	}
	c.mu.Lock()
	full := c.waiting > 0 && c.waiting+read+n > limit
	c.mu.Unlock()
	if full {
		c.commit()
		c.wait(time.Time{}, func() bool { return c.waiting == 0 || c.waiting+n <= limit })
	}
}

// resolve finds what p's topic means, through the alias if it has one.
func (c *conn) resolve(p *publish) (*route, error) {
	if p.alias > c.s.o.TopicAliasMaximum {
		return nil, &fault{aliasInvalid, "the topic alias is beyond the announced maximum"}
	}
	if len(p.topic) > 0 {
		r, err := c.recall(p.topic)
		if err == nil && p.alias > 0 {
			if n := int(p.alias); n > len(c.aliases) {
				c.aliases = append(c.aliases, make([]route, n-len(c.aliases))...)
			}
			c.aliases[p.alias-1] = *r
		}
		return r, err
	}
	if int(p.alias) > len(c.aliases) || !c.aliases[p.alias-1].known() {
		return nil, &fault{protocolError, "a topic alias that was never set"}
	}
	return &c.aliases[p.alias-1], nil
}

// recall finds the route of a topic among those used lately. Only topics that
// passed the check get there, so a known one needs none.
func (c *conn) recall(topic []byte) (*route, error) {
	for i := range c.routes {
		if string(topic) == c.routes[i].topic {
			return &c.routes[i], nil
		}
	}
	if err := checkTopic(topic); err != nil {
		return nil, err
	}
	r := routeOf(string(topic))
	if len(r.topic) > maxRemembered { // it leads nowhere, and an alias of it takes no memory
		r.topic = ""
		return &r, nil
	}
	if len(c.routes) < maxRoutes {
		c.routes = append(c.routes, r)
		return &c.routes[len(c.routes)-1], nil
	}
	c.nextSlot = (c.nextSlot + 1) % maxRoutes
	c.routes[c.nextSlot] = r
	return &c.routes[c.nextSlot], nil
}

// maxRemembered is the longest topic worth keeping: child/NAME/data/STREAM.
const maxRemembered = 2*holdfast.MaxNameBytes + 16

func (c *conn) onRare(h byte, body []byte) error {
	kind := h >> 4
	c.s.m.received[kind].Add(1)
	switch kind {
	case typePubrel:
		id, err := parsePubrel(h, body, c.version)
		if err == nil {
			c.onPubrel(id)
		}
		return err
	case typePingreq:
		if h&0x0f != 0 || len(body) > 0 {
			return &fault{malformed, "PINGREQ is malformed"}
		}
		c.send(func(b []byte) []byte { return append(b, typePingresp<<4, 0) })
		return nil
	case typeSubscribe:
		return c.onSubscribe(h, body)
	case typeUnsubscribe:
		return c.onUnsubscribe(h, body)
	case typePuback:
		return c.onPuback(h, body)
	case typeDisconnect:
		return c.onDisconnect(h, body)
	case typeConnect:
		return &fault{protocolError, "a second CONNECT"}
	case typeAuth:
		if c.version == v5 && h&0x0f == 0 {
			return &fault{protocolError, "AUTH without an authentication method in CONNECT"}
		}
	case typePubrec, typePubcomp:
		return &fault{protocolError, "an acknowledgement of nothing that was sent"}
	case typeConnack, typeSuback, typeUnsuback, typePingresp:
		return &fault{protocolError, "a packet that only servers send"}
	}
	return &fault{malformed, "a packet type that does not exist"}
}

func (c *conn) onDisconnect(h byte, body []byte) error {
	x, err := parseDisconnect(h, body, c.version)
	if err != nil {
		return err
	}
	if x.hasExpiry {
		if c.expiry == 0 && x.expiry > 0 {
			return &fault{protocolError, "a session expiry that CONNECT didn't ask for"}
		}
		c.expiry = min(x.expiry, c.s.o.MaxSessionExpiry)
		if c.will != nil {
			c.will.delay = min(c.will.delay, c.expiry)
		}
	}
	c.commit()
	c.quit(ending{abrupt: true, noWill: x.code == success})
	return errOver
}
