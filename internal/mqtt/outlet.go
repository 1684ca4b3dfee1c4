package mqtt

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// outlet is a connection's way out: what it subscribes to, and what it was sent and
// has not acknowledged. One without subscriptions has none.
type outlet struct {
	subs map[string]*subscriber // by filter; the reader's

	// Under the connection's mu.
	streams []*stream          // of subs
	sent    map[uint16]*parcel // at QoS 1, by packet id
	bytes   int                // of sent
	lastID  uint16
	serial  uint64              // of the last parcel that was sent
	held    map[uint16]struct{} // packet ids of the session that are for what it has in flight from before
	full    time.Time           // since when no acknowledgement has come though more waits; zero: it has room
	left    bool                // nothing is taken any more
}

// outlet returns c's way out, and makes it. Only the reader may call it.
func (c *conn) outlet() *outlet {
	if c.way == nil {
		o := &outlet{subs: make(map[string]*subscriber), sent: make(map[uint16]*parcel)}
		c.mu.Lock()
		c.way = o
		c.mu.Unlock()
	}
	return c.way
}

// parcel is a message on its way through a stream.
type parcel struct {
	Message
	st     *stream
	came   time.Time
	done   bool          // the client has it, or nobody gets it any more
	id     atomic.Uint32 // the packet id, 0: none so far
	sum    uint64        // what it is known by when its session goes on
	qos    byte
	serial uint64 // the order of sending on its connection
	dup    bool   // the session had it before, on another connection
	fresh  bool   // it was never compared with what a session has in flight
}

// verdict is what becomes of a parcel that is offered to a connection.
type verdict int

const (
	taken verdict = iota
	full          // later
	gone          // never: the connection has ended
	unfit         // never: larger than the client takes
)

// offer puts p into the out-buffer, if there is room there and in what the client may
// leave unacknowledged.
func (c *conn) offer(sub *subscriber, p *parcel) verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.way
	if c.over != nil || c.closing || o.left {
		return gone
	}
	if len(c.out) > maxOut || !c.connected {
		return full
	}
	qos := min(p.QoS, byte(sub.qos.Load()), 1)
	if qos > 0 && len(o.sent) > 0 && (len(o.sent) >= c.window() || o.bytes+len(p.Payload) > c.s.o.MaxInflightBytes) {
		if o.full.IsZero() {
			o.full = time.Now()
		}
		return full
	}
	p.qos = qos
	if qos > 0 && p.id.Load() == 0 {
		p.id.Store(uint32(o.nextID()))
	}
	before := len(c.out)
	c.out = appendPublish(c.out, p, int(sub.number.Load()), c.dialect)
	if !c.fits(len(c.out) - before) {
		c.out = c.out[:before]
		return unfit
	}
	if qos > 0 {
		o.serial++
		p.serial = o.serial
		o.sent[uint16(p.id.Load())] = p
		o.bytes += len(p.Payload)
	}
	c.s.m.published[qos].Add(1)
	if p.dup && qos > 0 {
		c.s.m.resent.Add(1)
	}
	c.kickLocked()
	return taken
}

// window is how many messages the client may leave unacknowledged.
func (c *conn) window() int {
	most := int(c.s.o.SendMaximum)
	if c.receiveMax > 0 {
		most = min(most, int(c.receiveMax))
	}
	return most
}

// nextID finds a packet id that is not in use. There are far more than any window has.
func (o *outlet) nextID() uint16 {
	for {
		o.lastID++
		_, held := o.held[o.lastID]
		if o.lastID != 0 && o.sent[o.lastID] == nil && !held {
			return o.lastID
		}
	}
}

// onPuback takes the acknowledgement of a message. One of nothing that is in flight is
// of an older connection of the session, or of a client that is wrong; it does no harm.
func (c *conn) onPuback(h byte, body []byte) error {
	id, err := parsePuback(h, body, c.version)
	if err != nil {
		return err
	}
	if c.way == nil {
		return &fault{protocolError, "an acknowledgement of nothing that was sent"}
	}
	c.mu.Lock()
	p := c.way.take(id)
	c.mu.Unlock()
	if p == nil {
		c.s.m.strangeAcks.Add(1)
		return nil
	}
	c.commit() // what follows may wait for the catalog, and the publishes of this read don't
	return p.st.delivered(c, p)
}

// take takes what was acknowledged from what is in flight, and tells streams that there
// is room. The caller holds the connection's mu.
func (o *outlet) take(id uint16) *parcel {
	p := o.sent[id]
	if p == nil {
		return nil
	}
	delete(o.sent, id)
	delete(o.held, id)
	o.bytes -= len(p.Payload)
	o.full = time.Time{}
	o.stir()
	return p
}

// stir has streams try again. The caller holds the connection's mu.
func (o *outlet) stir() {
	for _, st := range o.streams {
		st.stir()
	}
}

// leaveAll ends the subscriptions of a connection that has ended. Streams of its own
// end, shared ones go on with what it leaves.
func (c *conn) leaveAll() {
	o := c.way
	if o == nil {
		return
	}
	c.mu.Lock()
	o.left = true
	var sent []*parcel
	for _, p := range o.sent {
		sent = append(sent, p)
	}
	clear(o.sent)
	c.mu.Unlock()
	slices.SortFunc(sent, func(a, b *parcel) int { return cmp.Compare(a.serial, b.serial) })
	for _, sub := range o.subs {
		sub.st.leave(sub)
		c.s.m.unsubscribed.Add(1)
	}
	for _, p := range sent { // also of subscriptions that have ended before
		p.st.handBack(p)
	}
}

// parsePuback reads a PUBACK. Whatever its code says, the message is done with.
func parsePuback(h byte, body []byte, version byte) (id uint16, err error) {
	d := decoder{b: body}
	id = d.uint16()
	if h&0x0f != 0 || d.bad {
		return 0, &fault{malformed, "PUBACK is malformed"}
	}
	if id == 0 {
		return 0, &fault{protocolError, "packet id 0"}
	}
	if version == v5 && len(d.b) > 0 {
		switch code := reason(d.byte()); code {
		case success, noSubscribers, unspecified, implementationSpecific, notAuthorized, topicInvalid, packetIDInUse, quotaExceeded, payloadInvalid:
		default:
			return 0, &fault{protocolError, "a reason code that PUBACK doesn't have"}
		}
		if len(d.b) > 0 {
			var p properties
			if err := d.properties(typePuback, &p); err != nil {
				return 0, err
			}
		}
	}
	if len(d.b) > 0 {
		return 0, &fault{malformed, "PUBACK is malformed"}
	}
	return id, nil
}

// appendPublish writes a PUBLISH. number is the subscription identifier.
func appendPublish(b []byte, p *parcel, number int, d dialect) []byte {
	h := byte(typePublish<<4) | p.qos<<1
	if p.dup && p.qos > 0 {
		h |= 8
	}
	size := 2 + len(p.Topic) + len(p.Payload)
	if p.qos > 0 {
		size += 2
	}
	var props []byte
	if d.version == v5 {
		var space [64]byte
		props = appendPublishProperties(space[:0], p, number)
		size += len(props) + varintSize(len(props))
	}
	b = appendVarint(append(b, h), size)
	b = appendText(b, p.Topic)
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(p.id.Load()))
	}
	if d.version == v5 {
		b = append(appendVarint(b, len(props)), props...)
	}
	return append(b, p.Payload...)
}

func appendPublishProperties(b []byte, p *parcel, number int) []byte {
	if p.Expiry > 0 { // what is left of it (MQTT-3.3.2-6)
		left := max(p.Expiry-time.Since(p.came), 0)
		b = binary.BigEndian.AppendUint32(append(b, propMessageExpiry), uint32((left+time.Second-1)/time.Second))
	}
	if p.ContentType != "" {
		b = appendText(append(b, propContentType), p.ContentType)
	}
	if p.ResponseTopic != "" {
		b = appendText(append(b, propResponseTopic), p.ResponseTopic)
	}
	if len(p.Correlation) > 0 {
		b = appendText(append(b, propCorrelationData), string(p.Correlation))
	}
	if number > 0 {
		b = appendVarint(append(b, propSubscriptionID), number)
	}
	return b
}

func varintSize(n int) int {
	size := 1
	for ; n > 0x7f; n >>= 7 {
		size++
	}
	return size
}

// withdraw ends a connection whose right to a subscription has ended, and its session:
// the next one begins without, so that the client subscribes again and hears why it
// can't. What waits to be written goes out no more.
func (c *conn) withdraw(err error) {
	c.ended.Store(true)
	c.mu.Lock()
	if !c.closing {
		c.out = c.out[:c.greeting]
	}
	c.mu.Unlock()
	c.cut(ending{code: notAuthorized, text: toldText(err)})
}

// endOfStream is what a DISCONNECT says when a subscription ends.
func endOfStream(err error) reason {
	switch holdfast.KindOf(err) {
	case holdfast.TooLarge:
		return quotaExceeded
	case holdfast.Denied, holdfast.NotFound:
		return notAuthorized
	}
	return serverBusy
}
