package mqtt

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfast-iot/holdfast"
)

// board is a Source that keeps all that was ever posted. A subscription to feed/... or
// cmd/# gives what matches and is posted from then on, or behind its mark.
type board struct {
	mu     sync.Mutex
	all    []Message
	more   chan struct{} // closed when there is more
	ended  error         // what Next answers
	doneBy error         // what Done answers
	open   int
	opened []string // filter and mark of each Open
	done   []string // payloads
	who    []Subscriber
	refuse error // of each Open

	fromStart bool // a new subscription gets all there is
}

func newBoard() *board { return &board{more: make(chan struct{})} }

func (b *board) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.more)
	b.more = make(chan struct{})
}

func (b *board) post(all ...Message) { b.change(func() { b.all = append(b.all, all...) }) }

// end ends the subscriptions that there are, and lets none begin while err is not nil.
func (b *board) end(err error) { b.change(func() { b.ended, b.refuse = err, err }) }

func (b *board) dones() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.done...)
}

func (b *board) isOpen() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *board) Open(ctx context.Context, who Subscriber, filter, resume string) (Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, _, _ := strings.Cut(filter, "/")
	switch {
	case b.refuse != nil:
		return nil, b.refuse
	case first == "bad":
		return nil, holdfast.Errorf(holdfast.Invalid, "no such filter")
	case first == "many":
		return nil, holdfast.Errorf(holdfast.TooLarge, "too many")
	case first == "away":
		return nil, holdfast.Errorf(holdfast.Unavailable, "come again")
	case filter == first, first != "feed" && first != "cmd":
		return nil, holdfast.Errorf(holdfast.Denied, "not yours")
	}
	at := len(b.all)
	if b.fromStart {
		at = 0
	}
	if resume != "" {
		at, _ = strconv.Atoi(resume)
	}
	b.open++
	b.opened = append(b.opened, filter+" "+resume)
	b.who = append(b.who, who)
	return &pinned{b: b, filter: filter, at: at, mark: strconv.Itoa(at), closed: make(chan struct{})}, nil
}

// pinned is a subscription to a board.
type pinned struct {
	b      *board
	filter string
	at     int
	mark   string
	once   sync.Once
	closed chan struct{}
}

func (p *pinned) Mark() string { return p.mark }

func (p *pinned) Next(ctx context.Context) (Message, error) {
	for {
		p.b.mu.Lock()
		err, more := p.b.ended, p.b.more
		for p.at < len(p.b.all) && err == nil {
			m := p.b.all[p.at]
			p.at++
			m.Mark = strconv.Itoa(p.at)
			if m.Topic == "" || matches(p.filter, m.Topic) {
				p.b.mu.Unlock()
				return m, nil
			}
		}
		p.b.mu.Unlock()
		if err != nil {
			return Message{}, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		case <-p.closed:
			return Message{}, holdfast.Errorf(holdfast.Unavailable, "closed")
		}
	}
}

func (p *pinned) Done(ctx context.Context, m Message) error {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.b.doneBy != nil {
		return p.b.doneBy
	}
	p.b.done = append(p.b.done, string(m.Payload))
	return nil
}

func (p *pinned) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.b.mu.Lock()
		defer p.b.mu.Unlock()
		p.b.open--
	})
	return nil
}

// matches is section 4.7.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t), level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

func reading(n int) Message {
	return Message{Topic: "feed/pump/t", Payload: []byte(strconv.Itoa(n)), QoS: 1}
}

func readings(n int) (all []Message) {
	for i := range n {
		all = append(all, reading(i))
	}
	return all
}

// got is a PUBLISH of the server.
type got struct {
	topic, payload string
	qos            byte
	dup, retain    bool
	id             uint16
	expiry         uint32
	content        string
	response       string
	correlation    string
	numbers        []int // subscription identifiers
}

func (p packet) message(version byte) (m got, ok bool) {
	if p.kind != typePublish {
		return m, false
	}
	m.qos, m.dup, m.retain = p.flags>>1&3, p.flags&8 != 0, p.flags&1 != 0
	d := decoder{b: p.body}
	m.topic = string(d.text())
	if m.qos > 0 {
		m.id = d.uint16()
	}
	if version == v5 {
		in := decoder{b: d.take(d.varint())}
		for len(in.b) > 0 && !in.bad {
			switch in.byte() {
			case propMessageExpiry:
				m.expiry = in.uint32()
			case propContentType:
				m.content = string(in.text())
			case propResponseTopic:
				m.response = string(in.text())
			case propCorrelationData:
				m.correlation = string(in.binary())
			case propSubscriptionID:
				m.numbers = append(m.numbers, in.varint())
			default:
				in.bad = true
			}
		}
		d.bad = d.bad || in.bad
	}
	m.payload = string(d.b)
	return m, !d.bad && m.qos < 2 && !(m.dup && m.qos == 0) && (m.qos == 0 || m.id != 0)
}

// receive wants the next packet to be a PUBLISH.
func (c *client) receive() got {
	c.t.Helper()
	p := c.next()
	m, ok := p.message(c.version)
	if !ok {
		c.t.Fatalf("received %v, want PUBLISH", p)
	}
	return m
}

// receives wants these payloads in their order, and acknowledges them.
func (c *client) receives(payloads ...string) (all []got) {
	c.t.Helper()
	for _, want := range payloads {
		m := c.receive()
		if m.payload != want {
			c.t.Fatalf("received %+v, want %s", m, want)
		}
		if m.qos > 0 {
			c.send(puback(m.id))
		}
		all = append(all, m)
	}
	return all
}

func puback(id uint16) []byte { return []byte{typePuback << 4, 2, byte(id >> 8), byte(id)} }

// subscribed is a SUBSCRIBE of version with one filter; props are of MQTT 5.
func (c *client) subscribeWith(id uint16, options byte, props []byte, filters ...string) []byte {
	b := []byte{byte(id >> 8), byte(id)}
	if c.version == v5 {
		b = append(appendVarint(b, len(props)), props...)
	}
	for _, f := range filters {
		b = append(appendText(b, f), options)
	}
	return framed(typeSubscribe<<4|2, b)
}

// subscribe subscribes and wants it granted.
func (c *client) subscribe(options byte, filters ...string) {
	c.t.Helper()
	c.send(c.subscribeWith(9, options, nil, filters...))
	p := c.next()
	if p.kind != typeSuback {
		c.t.Fatalf("received %v, want SUBACK", p)
	}
	for _, code := range p.body[len(p.body)-len(filters):] {
		if code != min(options&3, 1) {
			c.t.Fatalf("received %v, want %d granted", p, min(options&3, 1))
		}
	}
}

func (c *client) unsubscribe(filters ...string) {
	c.t.Helper()
	b := []byte{0, 8}
	if c.version == v5 {
		b = append(b, 0)
	}
	for _, f := range filters {
		b = appendText(b, f)
	}
	c.send(framed(typeUnsubscribe<<4|2, b))
}

// leave says goodbye and waits until the server knows.
func (c *client) leave() {
	c.t.Helper()
	c.send([]byte{typeDisconnect << 4, 0})
	c.expectClosed()
}
