package mqtt

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// FuzzSequence reads its input as what two clients of a device do to a server, one
// after the other: publishes of all kinds, repeats, releases, subscriptions,
// takeovers, lost connections, packets that break the standard; and what its disk
// does meanwhile: nothing, its duty, or fail. Whatever it is, see player.
func FuzzSequence(f *testing.F) {
	f.Fuzz(func(t *testing.T, program []byte) { playSequence(t, program) })
}

// TestSequences plays random ones; HOLDFAST_SEED plays one again.
func TestSequences(t *testing.T) {
	seed, rounds := testseed.Of(t), 300
	if testseed.Given() {
		rounds = 1
	} else if os.Getenv("HOLDFAST_LONG") != "" {
		rounds = 10_000
	}
	for i := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed+i, 0))
		program := make([]byte, 1+r.IntN(200))
		for i := range program {
			program[i] = byte(r.Uint32())
			if op := program[i] % 20; i%2 == 1 && r.IntN(4) > 0 && (op == 12 || op > 14 && op < 18) {
				program[i] -= 8 // else connections don't live long
			}
		}
		if !t.Run(fmt.Sprint("seed ", seed+i), func(t *testing.T) { playSequence(t, program) }) {
			t.Fatalf("HOLDFAST_SEED=%d plays it again", seed+i)
		}
	}
}

// receiveMaximum is small, so that the clients come to it.
const receiveMaximum = 6

func playSequence(t *testing.T, program []byte) {
	if len(program) == 0 || len(program) > 400 {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		h.manual = true
		x := &player{t: t, h: h, v: versions[program[0]&1], held: map[string]*heldSession{}, lines: map[string]*line{}}
		x.pipes = newPipes(t, h, Options{ReceiveMaximum: receiveMaximum})
		for ops := program[1:]; len(ops) >= 2; ops = ops[2:] {
			x.op(ops[0], ops[1])
			x.settle()
		}
		x.end()
	})
}

// player plays a sequence and knows what must hold:
//
//   - acknowledgements come in the order of what they answer, once each, and never
//     before it is durable
//   - a QoS 2 message arrives once, whatever happens to its connections and however
//     often it is sent again; an acknowledged one has arrived
//   - an alias leads where it was set to, in its connection
//   - a session is present when there is one
//   - a packet that breaks the standard ends the connection, and nothing comes after it
//   - at the end nothing is left: no goroutine (synctest waits for all), no connection
type player struct {
	t     *testing.T
	h     *hub
	v     byte
	pipes *pipes
	last  float64                 // value published last: each is another
	held  map[string]*heldSession // by client id
	lines map[string]*line        // by client id, the present one
}

// heldSession is what a client remembers beyond a connection.
type heldSession struct {
	lasts     bool // the server keeps it when the connection ends
	exchanges map[uint16]*exchange
}

// exchange is a QoS 2 publish on its way.
type exchange struct {
	message  pub
	received bool // PUBREC came
	released bool // PUBREL was sent
	refused  bool // it is one that the server does not take
	line     *line
}

// line is a connection.
type line struct {
	c       *client
	session *heldSession
	acks    []answer // expected, in order
	others  []byte   // kinds of packet expected beside them, in order
	aliases map[byte]string
	over    bool
	told    bool // DISCONNECT came
	broken  bool // the client has broken the standard
}

type answer struct {
	kind    byte
	id      uint16
	value   float64
	stream  string
	refused bool
}

var clientIDs = []string{"a", "b"}

func (x *player) op(op, arg byte) {
	id := clientIDs[arg>>7]
	l := x.lines[id]
	if l == nil || l.over {
		x.connect(id, arg)
		return
	}
	switch op % 20 {
	case 0:
		l.write(x.message(0, arg))
	case 1, 2:
		x.qos1(l, x.message(1, arg))
	case 3, 4, 5:
		x.qos2(l, uint16(arg%3+1), x.message(2, arg))
	case 6:
		x.repeat(l)
	case 7, 8:
		x.release(l, uint16(arg%3+1))
	case 9, 10:
		x.land(1, nil)
	case 11:
		x.land(1<<20, nil)
	case 12:
		x.land(1, holdfast.Errorf(holdfast.Unavailable, "the disk is away"))
	case 13:
		l.others = append(l.others, typePingresp)
		l.c.write([]byte{typePingreq << 4, 0})
	case 14:
		x.subscribe(l, arg)
	case 15:
		x.connect(id, arg)
	case 16:
		if arg&1 == 0 {
			l.c.write([]byte{0xe0, 0})
		} else {
			l.c.nc.Close()
		}
		x.settle()
		l.over = true
	case 17:
		x.violate(l, arg)
	case 18:
		x.alias(l, arg)
	case 19:
		time.Sleep(time.Duration(arg) * 100 * time.Millisecond)
	}
}

// message is a publish that tells itself from all others. Some lead nowhere.
func (x *player) message(qos, arg byte) pub {
	x.last++
	p := pub{qos: qos, topic: fmt.Sprint("data/", arg%3), payload: fmt.Sprint(x.last)}
	if arg&0x70 == 0x70 {
		p.topic = "nowhere"
	}
	return p
}

func (l *line) write(p pub) { l.c.write(p.bytes(l.c.version)) }

func (p pub) answer(kind byte) answer {
	a := answer{kind: kind, id: p.id, refused: p.topic == "nowhere"}
	fmt.Sscan(p.payload, &a.value)
	fmt.Sscanf(p.topic, "data/%s", &a.stream)
	return a
}

// full says that a client of MQTT 5 may not publish above QoS 0 now.
func (x *player) full(l *line) bool {
	n := 0
	for _, a := range l.acks {
		if a.kind == typePuback {
			n++
		}
	}
	for _, e := range l.session.exchanges {
		if e.line == l {
			n++
		}
	}
	return x.v == v5 && n >= receiveMaximum
}

func (x *player) qos1(l *line, p pub) {
	if x.full(l) {
		return
	}
	p.id = 100 + uint16(x.last)
	l.acks = append(l.acks, p.answer(typePuback))
	l.write(p)
}

func (x *player) qos2(l *line, id uint16, p pub) {
	if l.session.exchanges[id] != nil || x.full(l) {
		return
	}
	p.id = id
	l.session.exchanges[id] = &exchange{message: p, refused: p.topic == "nowhere", line: l}
	l.acks = append(l.acks, p.answer(typePubrec))
	l.write(p)
}

// repeat sends all that is not complete again, in one write, as a client does that
// has come back.
func (x *player) repeat(l *line) {
	var b []byte
	for id := range uint16(9) {
		e := l.session.exchanges[id]
		switch {
		case e == nil:
		case e.released:
			l.acks = append(l.acks, answer{kind: typePubcomp, id: id})
			b = append(b, pubrel(id)...)
		case e.line != l && x.full(l), e.line == l && e.refused && x.v == v5: // it would count twice
		default:
			e.message.dup, e.line = true, l
			l.acks = append(l.acks, e.message.answer(typePubrec))
			b = append(b, e.message.bytes(x.v)...)
		}
	}
	l.c.write(b)
}

func (x *player) release(l *line, id uint16) {
	e := l.session.exchanges[id]
	if e != nil && (!e.received || e.released) {
		return // a client sends PUBREL behind PUBREC
	}
	if e != nil {
		e.released = true
	} else {
		id = 9 // of nothing; one that is not in use until PUBCOMP
	}
	l.acks = append(l.acks, answer{kind: typePubcomp, id: id})
	l.c.write(pubrel(id))
}

func (x *player) subscribe(l *line, arg byte) {
	s := &stage{v: x.v}
	if arg&1 == 0 {
		l.others = append(l.others, typeSuback)
		l.c.write(s.filters(1, []byte{arg % 3}, "cmd"))
	} else {
		l.others = append(l.others, typeUnsuback)
		l.c.write(s.filters(1, nil, "cmd", "a/#"))
	}
}

// alias sets an alias, or publishes by one; one that is not set is an error.
func (x *player) alias(l *line, arg byte) {
	if x.v != v5 {
		return
	}
	n := arg%2 + 1
	if x.full(l) {
		return
	}
	p := x.message(1, arg>>1)
	p.props = []byte{propTopicAlias, 0, n}
	topic, known := l.aliases[n]
	if arg&0x40 == 0 || !known && arg&0x0c != 0 {
		l.aliases[n] = p.topic
		x.qos1(l, p)
		return
	}
	p.topic = topic
	if known {
		p.id = 100 + uint16(x.last)
		l.acks = append(l.acks, p.answer(typePuback))
	}
	p.topic = ""
	l.write(p)
	if !known {
		x.mustEnd(l)
	}
}

// violate sends what ends a connection.
func (x *player) violate(l *line, arg byte) {
	s := &stage{v: x.v}
	broken := [][]byte{
		{0, 0}, {0xc1, 0}, {0xc0, 1, 0}, unhex("30 ffffffff"), unhex("30 ffffff7f"), unhex("40 02 0001"), unhex("20 02 0000"), pubrel(0),
		pub{qos: 3, id: 1, topic: "data/x", payload: "1"}.bytes(x.v), pub{dup: true, topic: "data/x", payload: "1"}.bytes(x.v),
		pub{qos: 1, topic: "data/x", payload: "1"}.bytes(x.v), pub{topic: "data/#", payload: "1"}.bytes(x.v), pub{payload: "1"}.bytes(x.v),
		hello{version: x.v, id: "a"}.bytes(), s.filters(1, []byte{3}, "a"), s.filters(1, []byte{}), s.filters(0, nil, "a"), {0xf0, 0}, {0xe0, 2, 0, 9},
	}
	// What stands before and behind it in the same write is answered, and not.
	before, behind := x.message(1, 0), x.message(1, 0)
	before.id, behind.id = 50_000+uint16(x.last), 60_000
	if x.full(l) {
		before = pub{topic: "nowhere"}
	} else {
		l.acks = append(l.acks, before.answer(typePuback))
	}
	l.broken = true
	l.c.write(slices.Concat(before.bytes(x.v), broken[int(arg&0x7f)%len(broken)], behind.bytes(x.v)))
	x.mustEnd(l)
	if n := x.arrived(behind.answer(0)); n > 0 {
		x.t.Error("what stood behind an error has arrived")
	}
}

// mustEnd wants the connection to end in the time that commits are waited for.
func (x *player) mustEnd(l *line) {
	l.broken = true
	time.Sleep(4 * time.Second)
	x.settle()
	if !l.over || x.v == v5 && !l.told {
		x.t.Fatalf("the connection goes on after an error (over: %v, told: %v)", l.over, l.told)
	}
}

// connect is a new connection of a client id, which takes the place of one that is
// still there.
func (x *player) connect(id string, arg byte) {
	session, older := x.held[id], x.lines[id]
	h := hello{version: x.v, id: id, clean: arg&1 != 0}
	lasts := !h.clean
	if x.v == v5 {
		if lasts = arg&2 != 0; lasts {
			h.props = []byte{propSessionExpiry, 0, 0, 0, 200}
		}
	}
	l := &line{c: x.pipes.dial(holdfast.DeviceID{1}), aliases: map[byte]string{}}
	l.c.version = x.v
	l.c.write(h.bytes())
	x.settle()
	if older != nil && !older.over {
		x.t.Fatal("the older connection goes on")
	}
	var p packet
	select {
	case p = <-l.c.packets:
	default: // it waits for the commits of the older one, with patience
		if arg&4 != 0 {
			time.Sleep(11 * time.Second)
			p = <-l.c.packets
			if p.kind != typeConnack || p.body[1] != map[byte]byte{v311: 3, v5: byte(serverBusy)}[x.v] {
				x.t.Fatalf("received %v while the older connection's commits wait", p)
			}
			l.c.expectClosed()
			return
		}
		x.land(1<<20, nil)
		synctest.Wait()
		p = <-l.c.packets
	}
	if err := p.check(x.v); err != nil || p.kind != typeConnack || p.body[1] != 0 {
		x.t.Fatalf("received %v, want CONNACK (%v)", p, err)
	}
	present := session != nil && session.lasts && !h.clean
	if (p.body[0] == 1) != present {
		x.t.Fatalf("session present is %v, want %v", p.body[0] == 1, present)
	}
	if !present {
		session = &heldSession{exchanges: map[uint16]*exchange{}}
	}
	session.lasts = lasts
	l.session, x.held[id], x.lines[id] = session, session, l
}

// land lets up to n commits land, or fail.
func (x *player) land(n int, err error) {
	x.h.set(func() { x.h.failWith = err })
	for range n {
		x.h.mu.Lock()
		waiting := len(x.h.waiting)
		x.h.mu.Unlock()
		if waiting == 0 {
			break
		}
		x.h.land(1)
		synctest.Wait() // a commit that was held back may come
	}
	x.h.set(func() { x.h.failWith = nil })
}

// settle lets the server do what it can and looks at what has come.
func (x *player) settle() {
	synctest.Wait()
	for _, id := range clientIDs {
		if l := x.lines[id]; l != nil {
			x.look(l)
		}
	}
}

func (x *player) look(l *line) {
	for {
		select {
		case p, ok := <-l.c.packets:
			if !ok {
				l.over = true
				return
			}
			if err := p.check(x.v); err != nil || l.told {
				x.t.Fatalf("received %v (%v), DISCONNECT before it: %v", p, err, l.told)
			}
			x.received(l, p)
		default:
			return
		}
	}
}

func (x *player) received(l *line, p packet) {
	switch p.kind {
	case typeDisconnect:
		if code := reason(p.body[0]); !l.broken && code != takenOver && code != serverBusy {
			x.t.Fatalf("received %v, and nothing was wrong", p)
		}
		l.told = true
	case typePuback, typePubrec, typePubcomp:
		if len(l.acks) == 0 {
			x.t.Fatalf("received %v, which answers nothing", p)
		}
		a := l.acks[0]
		l.acks = l.acks[1:]
		code := success
		if len(p.body) > 2 {
			code = reason(p.body[2])
		}
		if a.kind != p.kind || a.id != uint16(p.body[0])<<8|uint16(p.body[1]) {
			x.t.Fatalf("received %v, want the answer %+v", p, a)
		}
		x.acknowledged(l, a, code)
	default:
		if len(l.others) == 0 || l.others[0] != p.kind {
			x.t.Fatalf("received %v, want one of %v", p, l.others)
		}
		l.others = l.others[1:]
	}
}

func (x *player) acknowledged(l *line, a answer, code reason) {
	e := l.session.exchanges[a.id]
	// An id is free when nothing is under way for it: repeats may be.
	free := !slices.ContainsFunc(l.acks, func(b answer) bool { return b.id == a.id })
	if a.kind == typePubcomp {
		if free {
			delete(l.session.exchanges, a.id)
		}
		return
	}
	if refused := code != success; refused != (a.refused && x.v == v5) {
		x.t.Fatalf("the answer to %+v is 0x%02X", a, byte(code))
	}
	n := x.arrived(a)
	switch {
	case a.refused && n > 0, !a.refused && n == 0, a.kind == typePubrec && n > 1:
		x.t.Fatalf("%+v was acknowledged with 0x%02X and has arrived %d times", a, byte(code), n)
	case a.kind == typePubrec && code != success && free:
		delete(l.session.exchanges, a.id)
	case a.kind == typePubrec && code == success && e != nil:
		e.received = true
	}
}

// arrived says how often a message is durable, and that it is where it belongs.
func (x *player) arrived(a answer) (n int) {
	for _, got := range x.h.arrivals() {
		if got.Value.Number() == a.value {
			n++
			if a.stream != "" && got.Stream != a.stream {
				x.t.Fatalf("%+v has arrived in %s", a, got.Stream)
			}
		}
	}
	return n
}

// end ends what is left, and sees that nothing is.
func (x *player) end() {
	x.land(1<<20, nil)
	x.settle()
	for _, l := range x.lines {
		if !l.over && len(l.acks)+len(l.others) > 0 {
			x.t.Errorf("all has landed, and %v, %v are not answered", l.acks, l.others)
		}
		l.c.nc.Close()
	}
	for _, s := range x.held {
		for id, e := range s.exchanges {
			if n := x.arrived(e.message.answer(0)); n > 1 || e.received && !e.refused && n != 1 {
				x.t.Errorf("the QoS 2 message %d has arrived %d times (acknowledged: %v)", id, n, e.received)
			}
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	s := x.pipes.s
	if s.door.open != 0 || len(s.conns) != 0 || len(s.registry.slots) != 0 || len(s.registry.counts) != 0 {
		x.t.Errorf("left behind: %d at the door, %d connections, %d sessions", s.door.open, len(s.conns), len(s.registry.slots))
	}
}
