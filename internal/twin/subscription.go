package twin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Message is one thing for a device, as it is published to it.
type Message struct {
	Topic         string
	Payload       []byte
	Expiry        time.Duration // from now; 0: none
	Correlation   []byte        // of a command: its id
	ResponseTopic string        // of a command: where the device publishes its result
	Mark          string        // of a desired document: which one it is
}

// Subscription gives a device, or a gateway for its declared children, either
// commands or desired documents. One goroutine asks Next; Done and Close may be called
// by others, Done after Close, too.
type Subscription struct {
	s       *Store
	peer    Peer
	filter  filter
	watch   *watch
	later   []holdfast.DeviceID // in somebody else's hands now
	handed  map[holdfast.DeviceID]int64
	marks   map[holdfast.DeviceID]string
	resumed string
	closed  context.Context
	end     context.CancelFunc

	mu    sync.Mutex
	given map[holdfast.CommandID]holdfast.DeviceID // and not yet Done
}

// filter is what a subscription's topic filter means.
type filter struct {
	desired  bool
	child    string // the declared child of this name
	children bool   // every declared child
}

// parseFilter reads cmd/#, cmd/+ or desired, alone or behind child/NAME/ or child/+/.
func parseFilter(text string) (f filter, err error) {
	rest := text
	if tail, ok := strings.CutPrefix(text, "child/"); ok {
		child, after, _ := strings.Cut(tail, "/")
		rest = after
		if f.children = child == "+"; !f.children {
			if err := holdfast.CheckName("child", child); err != nil {
				return f, err
			}
			f.child = child
		}
	}
	switch rest {
	case "cmd/#", "cmd/+":
	case "desired":
		f.desired = true
	default:
		return f, holdfast.Errorf(holdfast.Invalid, "a device subscribes to cmd/#, desired, and the same under child/NAME/ or child/+/")
	}
	return f, nil
}

// lookAgain is how often a device is looked at that is in somebody else's hands, or
// waits to be erased.
const lookAgain = 5 * time.Second

// Subscribe opens what a filter asks for. resume is the Mark of the last message that
// the device is known to have; a desired document of that mark is not given again.
func (s *Store) Subscribe(ctx context.Context, p Peer, topics, resume string) (*Subscription, error) {
	f, err := parseFilter(topics)
	if err != nil {
		return nil, err
	}
	targets := []holdfast.DeviceID{p.Device}
	if f.children {
		if _, err = s.of(ctx, p, ""); err == nil {
			targets, err = s.house.Children(ctx, p.Device)
		}
	} else {
		var st Standing
		st, err = s.of(ctx, p, f.child)
		targets[0] = st.Device
	}
	if err != nil {
		return nil, err
	}
	w, err := s.devices.enter(p.Device)
	if err != nil {
		return nil, err
	}
	w.mark(targets...)
	u := &Subscription{s: s, peer: p, filter: f, watch: w, resumed: resume,
		handed: map[holdfast.DeviceID]int64{}, marks: map[holdfast.DeviceID]string{}, given: map[holdfast.CommandID]holdfast.DeviceID{}}
	u.closed, u.end = context.WithCancel(context.Background())
	return u, nil
}

// Close ends a subscription. Next returns.
func (u *Subscription) Close() error {
	u.end()
	u.watch.leave()
	return nil
}

// Next blocks until there is something for the device. A command that was given and
// not Done is given again by the next subscription, not by this one.
func (u *Subscription) Next(ctx context.Context) (Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(u.closed, cancel)()
	for {
		for {
			d, ok := u.watch.next()
			if !ok {
				break
			}
			m, ok, err := u.look(ctx, d)
			if err != nil {
				return Message{}, err
			}
			if ok {
				u.watch.mark(d) // there may be more
				return m, nil
			}
		}
		var most time.Duration
		if len(u.later) > 0 {
			most = lookAgain
		}
		if err := u.watch.wait(ctx, most); err != nil {
			if errors.Is(err, errOver) {
				err = holdfast.Errorf(holdfast.Unavailable, "the hub stops: come again")
			}
			return Message{}, err
		}
		u.watch.again(u.later...)
		u.later = nil
	}
}

// look returns what there is next for one device.
func (u *Subscription) look(ctx context.Context, d holdfast.DeviceID) (m Message, ok bool, err error) {
	st, err := u.s.house.Standing(ctx, d)
	if err == nil {
		err = st.Refused
	}
	own := d == u.peer.Device
	switch {
	case err != nil && !own && (holdfast.KindOf(err) == holdfast.Denied || holdfast.KindOf(err) == holdfast.NotFound):
		return m, false, nil // the gateway's others go on
	case err != nil:
		return m, false, err
	case own != (u.filter.child == "" && !u.filter.children), !own && (st.Gateway != u.peer.Device || u.filter.child != "" && st.Child != u.filter.child):
		return m, false, nil
	case own && st.Assignment != u.peer.Assignment:
		return m, false, holdfast.Errorf(holdfast.Denied, "the device is in another assignment now: enrol again")
	case st.Elsewhere, st.Ending != nil:
		if !slices.Contains(u.later, d) {
			u.later = append(u.later, d)
		}
		return m, false, nil
	}
	prefix := ""
	if !own {
		prefix = "child/" + st.Child + "/"
	}
	if u.filter.desired {
		return u.desired(ctx, st, prefix)
	}
	return u.command(ctx, st, prefix)
}

func (u *Subscription) command(ctx context.Context, st Standing, prefix string) (m Message, ok bool, err error) {
	all, err := u.s.commands(ctx, `device = $1 AND state = 'queued' AND n > $2`, st.Device, u.handed[st.Device])
	if err != nil {
		return m, false, err
	}
	for _, c := range all {
		u.handed[st.Device] = c.N
		if c.assignment != st.Assignment || u.s.over(c) {
			continue
		}
		if err := u.s.openArgs(ctx, &c); err != nil {
			if holdfast.KindOf(err) == holdfast.NotFound {
				continue
			}
			return m, false, err
		}
		topic := prefix + "cmd/" + c.ID.String()
		payload, err := json.Marshal(c.Order())
		if err != nil {
			return m, false, err
		}
		u.mu.Lock()
		u.given[c.ID] = c.Device
		u.mu.Unlock()
		return Message{Topic: topic, Payload: payload, Expiry: c.Expires.Sub(u.s.now()), Correlation: []byte(c.ID.String()), ResponseTopic: topic + "/result"}, true, nil
	}
	return m, false, nil
}

// Order is a command as its device gets it.
type Order struct {
	ID      holdfast.CommandID `json:"id"`
	Name    string             `json:"name"`
	Args    json.RawMessage    `json:"args"`
	Expires time.Time          `json:"expires"`
}

// Order returns a command whose arguments are known as its device gets it.
func (c Command) Order() Order {
	return Order{c.ID, c.Name, c.Args, c.Expires.Truncate(time.Millisecond)}
}

func (u *Subscription) desired(ctx context.Context, st Standing, prefix string) (m Message, ok bool, err error) {
	w, err := u.s.twin(ctx, st.Device)
	if err != nil || w.DesiredVersion == 0 || w.assignment != st.Assignment {
		return m, false, err
	}
	mark := fmt.Sprintf("%s/%d", st.Device, w.DesiredVersion)
	if u.marks[st.Device] == mark || u.resumed == mark {
		return m, false, nil
	}
	u.marks[st.Device] = mark
	payload, err := json.Marshal(Desired{w.DesiredVersion, w.Desired})
	return Message{Topic: prefix + "desired", Payload: payload, Mark: mark}, err == nil, err
}

// Done says that the device has the message of a correlation; of a message without
// one it is not asked.
func (u *Subscription) Done(ctx context.Context, correlation []byte) error {
	id, err := holdfast.ParseID[holdfast.CommandID](string(correlation))
	if err != nil {
		return nil
	}
	u.mu.Lock()
	d, ok := u.given[id]
	u.mu.Unlock()
	if !ok {
		return nil
	}
	if err := u.s.delivered(ctx, d, id); err != nil {
		return err
	}
	u.mu.Lock()
	delete(u.given, id)
	u.mu.Unlock()
	return nil
}

// delivered writes down that a device has a command. One that has ended meanwhile
// stays as it is.
func (s *Store) delivered(ctx context.Context, d holdfast.DeviceID, ids ...holdfast.CommandID) error {
	defer s.change(d)()
	for _, id := range ids {
		all, err := s.commands(ctx, `id = $1 AND device = $2 AND state = 'queued'`, id, d)
		if err != nil {
			return err
		}
		for _, c := range all {
			c.State, c.Given = Delivered, s.now()
			if err := s.move(ctx, c, Queued, "", holdfast.CredentialID{}); err != nil && holdfast.KindOf(err) != holdfast.NotFound {
				return fmt.Errorf("deliver command: %w", err)
			}
		}
		s.people.changed(Standing{Device: d})
	}
	return nil
}

// Bounds of one answer to a device that polls.
const (
	pollCommands = 16
	pollBytes    = 256 << 10
)

// Poll returns the commands that a device, or a declared child of it, has not answered
// yet, in order: those after one that it names, which it has by that with all before
// it. If there are none it waits for one until a time is over.
func (s *Store) Poll(ctx context.Context, p Peer, child string, after holdfast.CommandID, most time.Duration) ([]Command, error) {
	st, err := s.of(ctx, p, child)
	if err != nil {
		return nil, err
	}
	from, err := s.upTo(ctx, st, after)
	if err != nil {
		return nil, err
	}
	w, err := s.devices.enter(p.Device)
	if err != nil {
		return nil, err
	}
	defer w.leave()
	for until := s.now().Add(most); ; {
		if st, err = s.of(ctx, p, child); err != nil {
			return nil, err
		}
		if !st.Elsewhere {
			if all, err := s.orders(ctx, st, from); err != nil || len(all) > 0 {
				return all, err
			}
		}
		left := until.Sub(s.now())
		if left <= 0 {
			return nil, nil
		}
		if err := w.wait(ctx, min(left, lookAgain)); err != nil {
			if errors.Is(err, errOver) {
				err = nil
			}
			return nil, err
		}
	}
}

// upTo takes the commands up to the one that a device names for delivered.
func (s *Store) upTo(ctx context.Context, st Standing, after holdfast.CommandID) (n int64, err error) {
	if after.IsZero() {
		return 0, nil
	}
	all, err := s.commands(ctx, `device = $1 AND id = $2`, st.Device, after)
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, holdfast.Errorf(holdfast.NotFound, "there is no such command: leave out after to get all that wait")
	}
	n = all[0].N
	if all, err = s.commands(ctx, `device = $1 AND state = 'queued' AND n <= $2`, st.Device, n); err != nil {
		return 0, err
	}
	var ids []holdfast.CommandID
	for _, c := range all {
		ids = append(ids, c.ID)
	}
	if len(ids) == 0 {
		return n, nil
	}
	return n, s.delivered(ctx, st.Device, ids...)
}

// orders returns what waits for a device's answer, with arguments.
func (s *Store) orders(ctx context.Context, st Standing, from int64) ([]Command, error) {
	all, err := s.commands(ctx, `device = $1 AND state IN ('queued', 'delivered') AND n > $2`, st.Device, from)
	if err != nil {
		return nil, err
	}
	var out []Command
	size := 0
	for _, c := range all {
		if c.assignment != st.Assignment || s.over(c) {
			continue
		}
		if err := s.openArgs(ctx, &c); err != nil {
			return nil, err
		}
		if size += len(c.Args); len(out) > 0 && size > pollBytes || len(out) == pollCommands {
			break
		}
		out = append(out, c)
	}
	return out, nil
}
