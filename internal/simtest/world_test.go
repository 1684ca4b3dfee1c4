package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

// world is one seed's: the disk and what its people know, across boots of the hub.
type world struct {
	img    *image
	r      *rand.Rand // of the operations
	faults *rand.Rand // of the disk
	disk   *Disk
	books  *books
	things []*thing
	past   []*message // with a time: what may be sent again
	gone   []bool     // by device: revoked or erased, it won't come back
	party  []bool     // by owner: erased
	clock  time.Duration
	steady bool // the clock is never set back, and the hub soon started again
	trace  hash.Hash64
	say    func(format string, args ...any)
	logger *slog.Logger
	roots  rootKeys
	others rootKeys          // of the second holder
	lost   map[string]bool   // copies of the keyring that were, and did not come back yet
	newest map[string]uint64 // generation of a copy
	texts  []string          // of certificates
	waits  []*wait           // erasures that can be undone

	spilled  atomic.Pointer[string] // where a canary was written
	lossSeed uint64                 // changes what power cuts leave, and nothing else
	begun    int                    // steps before the first life
	told     int                    // in it

	boots  int
	cuts   int
	erased int
	lapsed map[int]lapse  // by device
	kinds  map[string]int // of erasures
}

// streams are those that devices send by MQTT; everyStream those of line protocol too.
var (
	streams     = []string{"n", "s"}
	everyStream = []string{"n", "s", "n_n", "n_s"}
)

func newWorld(img *image, seed uint64, say func(string, ...any)) *world {
	w := &world{img: img, books: &books{ended: map[part]bool{}}, trace: fnv.New64a(), say: say,
		r: rand.New(rand.NewPCG(seed, 1)), faults: rand.New(rand.NewPCG(seed, 2)), disk: img.disk.Clone(seed),
		gone: make([]bool, len(img.devices)), party: make([]bool, len(img.owners))}
	w.disk.watch, w.disk.trace = w.watch, fnv.New64a()
	w.books.of = w.whose
	w.lapsed, w.kinds = map[int]lapse{}, map[string]int{}
	w.lost, w.newest = map[string]bool{}, map[string]uint64{}
	if img.guarded {
		w.disk.volumes = newVolumes()
		if b, err := img.disk.ReadFile(SecondKey); err == nil {
			w.others.see(b)
		}
	}
	w.begun = w.disk.Steps()
	for _, d := range img.devices {
		w.things = append(w.things, &thing{device: d, roots: img.roots, settle: func(m *message, code byte) {
			s := acked
			if code != 0 {
				s = refused
			}
			w.books.settle(m.n, s)
		}})
	}
	if b, err := img.disk.ReadFile(RootKey); err == nil {
		w.roots.see(b)
	}
	w.clock = time.Duration(w.r.IntN(7200)) * time.Second
	if img.made > 0 { // less than 20 minutes before the month ends
		w.clock = img.made + monthLeft - w.clock/6 - time.Second
	}
	return w
}

// watch sees every write.
func (w *world) watch(path string, p []byte) {
	if bytes.Contains(p, []byte(canary)) {
		w.spilled.Store(&path)
	}
	if strings.HasPrefix(path, "/key/") {
		w.roots.see(p)
	}
	if strings.HasPrefix(path, "/key2/") {
		w.others.see(p)
	}
}

func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintln(w.trace, line)
	w.say("%s", line)
}

// run plays a seed. Its error is a broken promise.
func (w *world) run(t *testing.T, seed uint64) error {
	lives := make([]func(context.Context) error, 1+w.r.IntN(4))
	for i := range lives {
		lives[i] = w.boot
	}
	return w.lives(t, seed, append(lives, w.mend, w.heal, w.once)...)
}

// lives lets the hub live some lives, and takes the disk apart then.
func (w *world) lives(t *testing.T, seed uint64, lives ...func(context.Context) error) error {
	cryptotest.SetGlobalRandom(t, seed)
	for len(lives) > 0 {
		var err error
		if lives, err = w.bubble(t, lives); err != nil {
			return err
		}
	}
	if at := w.spilled.Load(); at != nil {
		return fmt.Errorf("%s was written what must not leave memory in clear", *at)
	}
	return w.dissect(t.Context())
}

// bubble runs lives of the hub in a bubble, whose clock begins anew, until the
// clock's battery is empty and the next bubble's is behind. It returns the lives
// that are left.
func (w *world) bubble(t *testing.T, lives []func(context.Context) error) (left []func(context.Context) error, err error) {
	synctest.Test(t, func(*testing.T) {
		begun := time.Now()
		time.Sleep(w.clock)
		for left = lives; len(left) > 0 && err == nil; {
			w.boots++
			err, left = left[0](context.Background()), left[1:]
			if w.steady {
				time.Sleep(time.Minute)
				continue
			}
			if w.r.IntN(8) == 0 {
				w.clock = w.img.made + time.Duration(w.r.Int64N(int64(time.Since(begun)-w.img.made)))
				w.books.slips = true
				w.note("the clock is set back to %s", w.clock)
				break
			}
			down := time.Minute
			if w.r.IntN(8) == 0 {
				down = 40 * time.Hour
			}
			time.Sleep(time.Duration(w.r.Int64N(int64(down))))
		}
	})
	// What the bubble left in pools has channels of that bubble.
	runtime.GC()
	runtime.GC()
	if err != nil {
		err = fmt.Errorf("boot %d: %w", w.boots, err)
	}
	return left, err
}

// plan draws what the disk does in this boot.
func (w *world) plan() func(op, path string) Fate {
	cut, steps := 0, 0
	switch w.r.IntN(4) {
	case 0: // at the start
		cut = 1 + w.r.IntN(60)
	case 1, 2:
		cut = 1 + w.r.IntN(600)
	}
	rate := 0
	if w.r.IntN(3) == 0 {
		rate = 20 + w.r.IntN(300)
	}
	w.note("boot %d: power goes at step %d, one step in %d fails", w.boots, cut, rate)
	return func(op, path string) Fate {
		steps++
		if steps == cut {
			return PowerCut + Fate(w.faults.IntN(3))
		}
		if rate > 0 && w.faults.IntN(rate) == 0 {
			return NotDone + Fate(w.faults.IntN(3))
		}
		return Fine
	}
}

// latency is how long a sync takes.
func (w *world) latency() time.Duration {
	return time.Duration(100+w.faults.IntN(9900)) * time.Microsecond
}

// boot is one life of the hub under drawn operations and faults.
func (w *world) boot(ctx context.Context) error {
	if err := w.tend(ctx); err != nil {
		return err
	}
	h, alive, err := start(ctx, w.disk, w.plan(), w.latency, w.logger)
	if err != nil {
		return err
	}
	if alive {
		err = w.operate(ctx, h)
	}
	return w.end(h, err)
}

// end ends a boot and leaves the disk as the next one finds it.
func (w *world) end(h *hub, err error) error {
	for _, d := range w.things {
		d.hangUp()
	}
	if e := h.end(); e != nil {
		err = errors.Join(err, e)
	}
	synctest.Wait()
	if w.told == 0 {
		w.told = w.disk.Steps() - w.begun
	}
	if w.disk.Dead() && !h.killed {
		w.cuts++
		w.note("power cut: %v", h.err != nil)
		w.disk = w.disk.Reboot(w.r.Uint64() ^ w.lossSeed)
	} else {
		w.note("process ended: %v", h.err != nil)
		w.say("%v", h.err)
	}
	w.disk.Revive()
	return err
}

// operate draws and does operations until the hub is gone or enough was done.
func (w *world) operate(ctx context.Context, h *hub) error {
	p := h.people(w.img)
	for range 5 + w.r.IntN(20) {
		select {
		case <-h.power:
			return nil
		case <-h.ended:
			return nil
		default:
		}
		if err := w.operation(ctx, h, p); err != nil {
			return err
		}
		synctest.Wait()
	}
	if w.r.IntN(3) == 0 {
		w.note("kill")
		h.killed = true
		w.disk.CutNow()
	}
	return nil
}

func (w *world) operation(ctx context.Context, h *hub, p *people) error {
	at := w.r.IntN(len(w.things))
	switch x := w.r.IntN(100); {
	case x < 43:
		for range 1 + w.r.IntN(6) {
			w.publish(ctx, h, w.r.IntN(len(w.things)))
			w.pause(h, 2*time.Millisecond)
		}
	case x < 52:
		w.post(ctx, p, at)
	case x < 66:
		w.pause(h, 100*time.Second)
	case x < 74:
		return w.read(ctx, p)
	case x < 78:
		w.note("device %d hangs up", at)
		w.things[at].hangUp()
	case x < 81:
		full := w.r.IntN(2) == 0
		w.note("disk full: %v", full)
		w.disk.Fill(full)
	case x < 83 && w.img.guarded:
		w.upset()
	case x < 89:
		w.erase(ctx, p, at)
	case x < 93:
		return w.eraseLater(ctx, h, p, at)
	case x < 94:
		w.rekey(ctx, p, at)
	case x < 95:
		w.revoke(ctx, p, at)
	case x < 98:
		return w.undo(ctx, p)
	default:
		w.pause(h, 20*time.Minute)
	}
	return nil
}

// pause lets time go by, unless the hub goes first.
func (w *world) pause(h *hub, most time.Duration) {
	w.wait(h, time.Duration(1+w.r.Int64N(int64(most))))
}

func (w *world) wait(h *hub, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.power:
	case <-h.ended:
	}
	synctest.Wait()
}

// publish sends a reading by MQTT, a new one or one that was sent before.
func (w *world) publish(ctx context.Context, h *hub, at int) {
	d := w.things[at]
	if w.gone[at] {
		return
	}
	if err := d.connect(ctx, h.network); err != nil {
		w.note("device %d can't connect: %s", at, class(err))
		return
	}
	if len(w.past) > 0 && w.r.IntN(5) == 0 {
		old := w.past[w.r.IntN(len(w.past))]
		if w.books.all[old.n].device == at {
			w.again(old)
			m := *old
			m.qos = 1
			w.note("device %d repeats %d", at, m.n)
			d.publish(&m)
		}
		return
	}
	m := w.message(at, byte(w.r.IntN(3)))
	w.note("device %d publishes %d by QoS %d to %s, timed %v", at, m.n, m.qos, m.stream, !m.time.IsZero())
	d.publish(m)
}

// again enters that a reading is handed over once more.
func (w *world) again(m *message) {
	w.books.mu.Lock()
	defer w.books.mu.Unlock()
	w.books.all[m.n].sent++
}

// message makes a reading.
func (w *world) message(at int, qos byte) *message {
	m := &message{qos: qos, stream: streams[w.r.IntN(len(streams))]}
	if w.r.IntN(2) == 0 {
		m.time = time.Now().Add(-time.Duration(w.r.Int64N(int64(time.Hour)))).Truncate(time.Microsecond)
	}
	r := w.books.add(reading{device: at, stream: m.stream, timed: !m.time.IsZero(), time: m.time, once: qos == 2 || !m.time.IsZero(), sent: 1})
	m.n = r.n
	if !m.time.IsZero() { // no two at one time
		m.time = m.time.Add(time.Duration(m.n) * time.Nanosecond)
		r.time = m.time
	}
	r.maybe = w.late(r)
	m.payload = []byte(m.value())
	if !m.time.IsZero() {
		m.payload = fmt.Appendf(nil, `{"t":%d.%09d,"v":%s}`, m.time.Unix(), m.time.Nanosecond(), m.value())
		w.past = append(w.past, m)
	}
	return m
}

// value is the reading's value as JSON.
func (m *message) value() string {
	if m.stream == "s" {
		return fmt.Sprintf("%q", fmt.Sprintf("%s%d", canary, m.n))
	}
	return fmt.Sprint(m.n)
}

// post sends a batch by HTTP, in SenML or line protocol.
func (w *world) post(ctx context.Context, p *people, at int) {
	var all []*message
	var body bytes.Buffer
	lines := w.r.IntN(3) == 0
	for range 1 + w.r.IntN(5) {
		m := w.message(at, 0)
		if lines {
			m.stream = "n_" + m.stream
			r := w.books.all[m.n]
			r.stream = m.stream
			r.maybe = w.late(r) // by the other name
		}
		all = append(all, m)
		switch {
		case lines && m.time.IsZero():
			fmt.Fprintf(&body, "n %s=%s\n", m.stream[2:], (&message{n: m.n, stream: m.stream[2:]}).value())
		case lines:
			fmt.Fprintf(&body, "n %s=%s %d\n", m.stream[2:], (&message{n: m.n, stream: m.stream[2:]}).value(), m.time.UnixNano())
		default:
			what := map[string]any{"n": m.stream, "v": m.n}
			if m.stream == "s" {
				what = map[string]any{"n": m.stream, "vs": fmt.Sprintf("%s%d", canary, m.n)}
			}
			if !m.time.IsZero() {
				what["t"] = json.RawMessage(fmt.Sprintf("%d.%09d", m.time.Unix(), m.time.Nanosecond()))
			}
			b, _ := json.Marshal(what)
			if body.Len() == 0 {
				body.WriteByte('[')
			} else {
				body.WriteByte(',')
			}
			body.Write(b)
		}
	}
	path, media := "/write", "text/plain"
	if !lines {
		path, media = "/v1/data", "application/senml+json"
		body.WriteByte(']')
	}
	for _, m := range all { // a repeat goes by MQTT, under its stream's name
		m.payload = nil
	}
	w.past = w.past[:len(w.past)-timed(all)]
	status, answer := ask(ctx, p.things[at], "POST", deviceURL+path, "", media, body.Bytes())
	w.note("device %d posts %d readings from %d: %d", at, len(all), all[0].n, status)
	for _, m := range all {
		switch {
		case status/100 == 2:
			w.books.settle(m.n, acked)
		case status/100 == 4 && status != 429:
			w.books.settle(m.n, refused)
			if !w.gone[at] && status == 400 {
				w.say("%s", answer)
			}
		}
	}
}

func timed(all []*message) (n int) {
	for _, m := range all {
		if !m.time.IsZero() {
			n++
		}
	}
	return n
}

// read compares every stream with the books, as far as the hub answers.
func (w *world) read(ctx context.Context, p *people) error {
	for at := range w.things {
		for _, who := range w.img.devices[at].users() {
			for _, stream := range everyStream {
				if err := w.readOne(ctx, p, part{at, who}, stream); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *world) readOne(ctx context.Context, p *people, of part, stream string) error {
	got, err := p.read(ctx, of, stream)
	switch {
	case errors.Is(err, errNoAnswer):
		w.note("no answer to a read of device %d, stream %s", of.device, stream)
		return nil
	case errors.Is(err, errNotFound):
	case err != nil:
		return err
	}
	w.note("device %d, stream %s has %d for owner %d", of.device, stream, len(got), of.whose)
	return w.books.check(of, stream, got)
}

func (w *world) revoke(ctx context.Context, p *people, at int) {
	status, _ := ask(ctx, p.admin, "POST", apiURL+"/v1/devices/"+w.img.devices[at].id.String()+"/revocation", "", "application/json", []byte("{}"))
	w.note("revoke device %d: %d", at, status)
	if status/100 != 4 {
		w.gone[at], w.things[at].closed = true, true
	}
}

// class names an error without what chance puts into it.
func class(err error) string {
	for _, known := range []string{"no power", "refused", "reset", "EOF", "deadline", "bad certificate"} {
		if strings.Contains(err.Error(), known) {
			return known
		}
	}
	return err.Error()
}
