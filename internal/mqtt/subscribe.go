package mqtt

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/holdfast-iot/holdfast"
)

// subscriber is a connection's part in a stream: its subscription with one filter.
type subscriber struct {
	c       *conn
	filter  string
	qos     atomic.Uint32
	number  atomic.Uint32 // the subscription identifier, 0: none
	purpose string
	lasting bool // its session outlives the connection
	st      *stream
	resumed []flying // what the session has in flight from before; the stream's
	matched int      // how many parcels have been compared with resumed
}

// onSubscribe opens what a SUBSCRIBE asks for, filter by filter, and answers when all
// of it is known. What is granted begins behind the answer.
func (c *conn) onSubscribe(h byte, body []byte) error {
	q, err := parseSubscribe(typeSubscribe, h, body, c.version)
	if err != nil {
		return err
	}
	if err := c.sendable(q.n); err != nil {
		return err
	}
	c.commit() // the publishes of this read don't wait for it
	purpose := q.purpose
	if purpose == "" {
		purpose = c.purpose
	}
	codes := make([]reason, 0, q.n)
	var begun []*subscriber
	for tries := 0; len(codes) < q.n; {
		filter, options := q.next(typeSubscribe)
		code := quotaExceeded
		if tries < c.s.o.MaxSubscriptions { // one packet asks for no more than a connection may have
			var sub *subscriber
			if code, sub = c.subscribe(string(filter), options[0], q.number, purpose); sub != nil {
				begun = append(begun, sub)
			}
			tries++
		}
		if code >= unspecified {
			c.s.m.count(&c.s.m.refusedFilters, code)
			if c.version == v311 {
				code = unspecified // all that it knows
			}
		}
		codes = append(codes, code)
	}
	if err := c.sendSuback(typeSuback, q.id, codes); err != nil {
		return err
	}
	for _, sub := range begun {
		sub.st.begin()
	}
	return nil
}

// subscribe opens one filter. It returns the subscriber if its stream has to begin.
func (c *conn) subscribe(filter string, options byte, number int, purpose string) (reason, *subscriber) {
	qos := min(options&3, 1) // QoS 2 is granted as 1: MQTT-3.9.3-2 lets a server grant less
	many := 0
	if c.way != nil {
		many = len(c.way.subs)
	}
	if have := c.subscription(filter); have != nil {
		if have.purpose == purpose { // it goes on as it is, with the new options: nothing is lost
			have.qos.Store(uint32(qos))
			have.number.Store(uint32(number))
			return c.save(have), nil
		}
		if err := c.unsubscribe(filter); err != nil {
			return unspecified, nil
		}
	}
	if many >= c.s.o.MaxSubscriptions {
		return quotaExceeded, nil
	}
	sub := c.subscriber(filter, qos, number, purpose)
	if err := c.join(sub, ""); err != nil {
		return codeOfFilter(err), nil
	}
	if code := c.save(sub); code >= unspecified {
		c.leave(sub)
		return code, nil
	}
	return reason(qos), sub
}

// join opens the stream of sub, or the one that its group has. mark is where it stood.
func (c *conn) join(sub *subscriber, mark string) error {
	if c.s.o.Source == nil {
		return holdfast.Errorf(holdfast.Denied, "there is nothing to subscribe to")
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.s.o.ConnectTimeout)
	defer cancel()
	who := Subscriber{Peer: c.peer, ClientID: c.key.clientID, Purpose: sub.purpose}
	var err error
	if sub.st, err = c.s.streamOf(ctx, who, sub, mark); err != nil {
		c.s.log.Debug("mqtt: subscription refused", "error", err)
		return err
	}
	o := c.outlet()
	o.subs[sub.filter] = sub
	c.mu.Lock()
	o.streams = append(o.streams, sub.st)
	c.mu.Unlock()
	c.s.m.subscribed.Add(1)
	return nil
}

// subscription returns what c has subscribed to with a filter, nil if nothing.
func (c *conn) subscription(filter string) *subscriber {
	if c.way == nil {
		return nil
	}
	return c.way.subs[filter]
}

func (c *conn) subscriber(filter string, qos byte, number int, purpose string) *subscriber {
	sub := &subscriber{c: c, filter: filter, purpose: purpose, lasting: c.expiry > 0}
	sub.qos.Store(uint32(qos))
	sub.number.Store(uint32(number))
	return sub
}

// save makes a subscription durable, if its session outlives the connection. It
// returns what SUBACK says.
func (c *conn) save(sub *subscriber) reason {
	if !sub.lasting {
		return reason(sub.qos.Load())
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.s.o.ConnectTimeout)
	defer cancel()
	if err := c.s.sessions.Keep(ctx, c.session, sub.filter, sub.st.state(sub)); err != nil {
		c.s.warnings.Do(func() { c.s.log.Warn("mqtt: subscription not kept", "error", err) })
		return unspecified
	}
	return reason(sub.qos.Load())
}

func (c *conn) onUnsubscribe(h byte, body []byte) error {
	q, err := parseSubscribe(typeUnsubscribe, h, body, c.version)
	if err != nil {
		return err
	}
	if err := c.sendable(q.n); err != nil {
		return err
	}
	codes := make([]reason, 0, q.n)
	for len(codes) < q.n {
		filter, _ := q.next(typeUnsubscribe)
		code := noSubscription
		if c.subscription(string(filter)) != nil {
			if code = success; c.unsubscribe(string(filter)) != nil {
				code = unspecified
			}
		}
		codes = append(codes, code)
	}
	return c.sendSuback(typeUnsuback, q.id, codes)
}

// unsubscribe ends a subscription for good. What is in flight is delivered to its end.
func (c *conn) unsubscribe(filter string) error {
	if c.expiry > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), c.s.o.ConnectTimeout)
		defer cancel()
		if err := c.s.sessions.Drop(ctx, c.session, filter); err != nil {
			c.s.warnings.Do(func() { c.s.log.Warn("mqtt: subscription not ended", "error", err) })
			return err
		}
	}
	c.leave(c.subscription(filter))
	return nil
}

// leave takes sub from its stream.
func (c *conn) leave(sub *subscriber) {
	o := c.way
	delete(o.subs, sub.filter)
	c.mu.Lock()
	if i := slices.Index(o.streams, sub.st); i >= 0 {
		o.streams = slices.Delete(o.streams, i, i+1)
	}
	c.mu.Unlock()
	sub.st.leave(sub)
	c.s.m.unsubscribed.Add(1)
}

// codeOfFilter is what SUBACK says of a filter that can't be had.
func codeOfFilter(err error) reason {
	switch holdfast.KindOf(err) {
	case holdfast.Invalid, holdfast.NotFound:
		return filterInvalid
	case holdfast.Denied:
		return notAuthorized
	case holdfast.Conflict:
		return implementationSpecific
	case holdfast.TooLarge:
		return quotaExceeded
	}
	return unspecified
}

// sendable refuses a SUBSCRIBE or UNSUBSCRIBE of n filters whose answer the client
// would not take: the one answer of ours whose length the client decides.
func (c *conn) sendable(n int) error {
	if !c.fits(n+maxHeader+3) && !c.fits(len(appendSuback(nil, typeSuback, 1, make([]reason, n), c.dialect))) {
		return &fault{packetTooLarge, "the answer would be larger than the client's Maximum Packet Size"}
	}
	return nil
}

func (c *conn) sendSuback(packet byte, id uint16, codes []reason) error {
	b := appendSuback(nil, packet, id, codes, c.dialect)
	c.send(func(out []byte) []byte { return append(out, b...) })
	return nil
}
