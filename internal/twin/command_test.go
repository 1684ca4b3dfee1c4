package twin

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func scanInt(q *sql.Rows) (n int, err error) { return n, q.Scan(&n) }

// next is a message that must be there already.
func next(t testing.TB, u *Subscription) Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := u.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// silent fails if there is a message now.
func silent(t testing.TB, u *Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if m, err := u.Next(ctx); err == nil {
		t.Errorf("given %s", m.Topic)
	}
}

func (e *estate) subscribe(p Peer, filter, resume string) *Subscription {
	e.t.Helper()
	u, err := e.Subscribe(e.t.Context(), p, filter, resume)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { u.Close() })
	return u
}

// A command goes its way: durable, given in order, given again until the device has
// it, answered once; and all of it is on the owner's record.
func TestACommandsWay(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	var sent []Command
	for i := range 3 {
		sent = append(sent, e.mustSend(by, lamp, "blink", fmt.Sprintf(`{ "times": %d }`, i+1)))
	}
	first := e.subscribe(lamp, "cmd/#", "")
	for i, c := range sent {
		m := next(t, first)
		var o Order
		if err := json.Unmarshal(m.Payload, &o); err != nil {
			t.Fatal(err)
		}
		if o.ID != c.ID || o.Name != "blink" || string(o.Args) != fmt.Sprintf(`{"times":%d}`, i+1) || o.Expires.IsZero() {
			t.Errorf("command %d is %s", i, m.Payload)
		}
		if m.Topic != "cmd/"+c.ID.String() || m.ResponseTopic != m.Topic+"/result" || string(m.Correlation) != c.ID.String() || m.Expiry <= 59*time.Minute || m.Expiry > time.Hour {
			t.Errorf("message %+v", m)
		}
		if i == 0 {
			if err := first.Done(t.Context(), m.Correlation); err != nil {
				t.Fatal(err)
			}
		}
	}
	silent(t, first)
	if len(first.watch.signal) > 0 {
		t.Error("a subscription with nothing to give ends its own wait: it keeps a core busy")
	}
	first.Close()

	again := e.subscribe(lamp, "cmd/+", "") // the connection broke: two of three were not acknowledged
	for _, c := range sent[1:] {
		m := next(t, again)
		if string(m.Correlation) != c.ID.String() {
			t.Errorf("given again: %s", m.Correlation)
		}
		if err := again.Done(t.Context(), m.Correlation); err != nil {
			t.Fatal(err)
		}
	}
	silent(t, again)

	for _, r := range []struct {
		i           int
		says, state string
	}{
		{0, `{"status":"accepted"}`, Accepted}, {0, `{"status":"accepted"}`, Accepted}, {0, `{"status":"done","result":{"ok":true}}`, Done},
		{0, ` {"status":"done","result":{"ok": true}}`, Done}, {0, `{"status":"accepted"}`, Done}, {1, `{"status":"failed","result":"no bulb"}`, Failed},
	} {
		if err := e.Result(t.Context(), lamp, "", sent[r.i].ID.String(), []byte(r.says)); err != nil {
			t.Errorf("%s: %v", r.says, err)
		}
		if got := e.state(by, sent[r.i].ID); got != r.state {
			t.Errorf("after %s it is %s", r.says, got)
		}
	}
	kind(t, e.Result(t.Context(), lamp, "", sent[0].ID.String(), []byte(`{"status":"failed"}`)), holdfast.Conflict, "is done")
	c, err := e.Command(t.Context(), by, sent[0].ID)
	if err != nil || string(c.Result) != `{"ok":true}` || c.Given.IsZero() || c.Accepted.IsZero() || c.Ended.IsZero() || c.Purpose != holdfast.OwnAccess || c.By != by.Credential {
		t.Errorf("%+v, %v", c, err)
	}
	all, err := e.Commands(t.Context(), by, lamp.Device)
	if err != nil || len(all) != 3 || all[0].ID != sent[2].ID || all[0].State != Delivered {
		t.Errorf("listed: %+v, %v", all, err)
	}
	want := []string{"command sent", "command sent", "command sent", "command done", "command failed"}
	if d := cmp.Diff(want, e.record(anna)); d != "" {
		t.Error(d)
	}
}

// What a sender sends again is the same command; a lost answer costs nothing.
func TestIdempotence(t *testing.T) {
	e := newEstate(t, Options{})
	anna, ben := e.party(), e.party()
	lamp, other, by := e.device(anna, holdfast.DeviceID{}, ""), e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	s := Spec{Device: lamp.Device, Name: "on", Args: json.RawMessage(`{"a":1}`), Key: "k"}
	first, err := e.Send(t.Context(), by, s)
	if err != nil {
		t.Fatal(err)
	}
	s.Args = json.RawMessage(` { "a" : 1 } `)
	again, err := e.Send(t.Context(), owner(anna), s)
	if err != nil || again.ID != first.ID {
		t.Errorf("%v, %v", again.ID, err)
	}
	s.Args = json.RawMessage(`{"a":2}`)
	_, err = e.Send(t.Context(), by, s)
	kind(t, err, holdfast.Conflict, first.ID.String())
	s.Device = other.Device
	if c, err := e.Send(t.Context(), by, s); err != nil || c.ID == first.ID {
		t.Errorf("another device: %v, %v", c.ID, err)
	}
	his := e.device(ben, holdfast.DeviceID{}, "")
	s.Device = his.Device
	if c, err := e.Send(t.Context(), owner(ben), s); err != nil || c.ID == first.ID {
		t.Errorf("another sender: %v, %v", c.ID, err)
	}
	if n := len(e.record(anna)); n != 2 {
		t.Errorf("%d events", n)
	}
}

// Nobody but the one whose device it is, and staff for the organisation's own.
func TestWhoMayCommand(t *testing.T) {
	e := newEstate(t, Options{})
	anna, ben := e.party(), e.party()
	hers, ours := e.device(anna, holdfast.DeviceID{}, ""), e.device(e.operating, holdfast.DeviceID{}, "")
	nobodys := e.device(holdfast.PartyID{}, holdfast.DeviceID{}, "")
	staff := Caller{Party: e.operating, Staff: true}
	for _, x := range []struct {
		who  string
		by   Caller
		of   Peer
		says string // of the refusal; "": allowed
	}{
		{"the owner", owner(anna), hers, ""},
		{"another owner", owner(ben), hers, "are for the one whose data"},
		{"staff, of an owner's", staff, hers, "are for the one whose data"},
		{"a program of the owner", Caller{Party: anna}, hers, "are for the one whose data"},
		{"staff of another organisation", Caller{Party: anna, Staff: true}, hers, "are for the one whose data"},
		{"staff", staff, ours, ""},
		{"the owner, of the organisation's", owner(anna), ours, "are for the one whose data"},
		{"staff, of an unclaimed one", staff, nobodys, "has no owner"},
		{"a nobody, of an unclaimed one", owner(holdfast.PartyID{}), nobodys, "has no owner"},
	} {
		c, err := e.Send(t.Context(), x.by, Spec{Device: x.of.Device, Name: "on"})
		_, desired := e.SetDesired(t.Context(), x.by, x.of.Device, -1, Change{State: []byte(`{"a":1}`)})
		_, twin := e.Twin(t.Context(), x.by, x.of.Device)
		_, list := e.Commands(t.Context(), x.by, x.of.Device)
		for what, err := range map[string]error{"send": err, "set": desired, "see": twin, "list": list} {
			if x.says == "" && err != nil {
				t.Errorf("%s can't %s: %v", x.who, what, err)
			}
			if x.says != "" {
				kind(t, err, holdfast.Denied, x.says)
			}
		}
		if x.says == "" {
			_, err = e.Command(t.Context(), owner(ben), c.ID)
			kind(t, err, holdfast.NotFound, "no such command")
			_, err = e.Cancel(t.Context(), owner(ben), c.ID)
			kind(t, err, holdfast.NotFound, "no such command")
			_, err = e.Wait(t.Context(), owner(ben), c.ID, time.Minute)
			kind(t, err, holdfast.NotFound, "no such command")
		}
	}
	e.dead = true
	_, err := e.Send(t.Context(), staff, Spec{Device: ours.Device, Name: "on"})
	kind(t, err, holdfast.Denied, "has ended")
	_, err = e.Send(t.Context(), staff, Spec{Device: holdfast.NewID[holdfast.DeviceID](), Name: "on"})
	kind(t, err, holdfast.NotFound, "no such device")
}

// What is wrong is refused with what to change, and nothing is kept of it.
func TestBadCommands(t *testing.T) {
	e := newEstate(t, Options{Waiting: 3})
	anna, ben := e.party(), e.party()
	lamp, his, by := e.device(anna, holdfast.DeviceID{}, ""), e.device(ben, holdfast.DeviceID{}, ""), owner(anna)
	deep := strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)
	for _, x := range []struct {
		s    Spec
		kind holdfast.Kind
		says string
	}{
		{Spec{}, holdfast.Invalid, "has no name"},
		{Spec{Name: "a/b"}, holdfast.Invalid, "must not contain /"},
		{Spec{Name: "a", Args: json.RawMessage(`{"a":`)}, holdfast.Invalid, "must be JSON"},
		{Spec{Name: "a", Args: json.RawMessage("\"\xff\"")}, holdfast.Invalid, "UTF-8"},
		{Spec{Name: "a", Args: json.RawMessage(deep)}, holdfast.Invalid, "16 levels"},
		{Spec{Name: "a", Args: json.RawMessage(`"` + strings.Repeat("x", MaxArgs) + `"`)}, holdfast.TooLarge, "65536 bytes"},
		{Spec{Name: "a", Life: -time.Second}, holdfast.Invalid, "expires in the future"},
		{Spec{Name: "a", Life: MaxLife + 1}, holdfast.Invalid, "at most 30 days"},
		{Spec{Name: "a", Key: strings.Repeat("k", MaxKey+1)}, holdfast.Invalid, "key"},
		{Spec{Name: "a", Reason: "\x1b[2J"}, holdfast.Invalid, "reason"},
	} {
		x.s.Device = lamp.Device
		_, err := e.Send(t.Context(), by, x.s)
		kind(t, err, x.kind, x.says)
	}
	if n := e.rows(lamp); n != 0 {
		t.Errorf("%d rows are kept", n)
	}
	var sent []Command
	for range 3 {
		sent = append(sent, e.mustSend(by, lamp, "on", "null"))
	}
	_, err := e.Send(t.Context(), by, Spec{Device: lamp.Device, Name: "on"})
	kind(t, err, holdfast.TooLarge, "cancel some")
	id := sent[0].ID.String()
	for payload, says := range map[string]string{
		``: "must be JSON", `7`: "a result is", `{"status":"perhaps"}`: "a result is", `{"status":"done","more":1}`: "a result is", `{}`: "a result is",
	} {
		kind(t, e.Result(t.Context(), lamp, "", id, []byte(payload)), holdfast.Invalid, says)
	}
	kind(t, e.Result(t.Context(), lamp, "", id, []byte(`{"status":"done","result":"`+strings.Repeat("x", MaxArgs)+`"}`)), holdfast.TooLarge, "at most")
	kind(t, e.Result(t.Context(), his, "", id, []byte(`{"status":"done"}`)), holdfast.NotFound, "for this device")
	kind(t, e.Result(t.Context(), lamp, "", "x", []byte(`{"status":"done"}`)), holdfast.NotFound, "for this device")
	kind(t, e.Result(t.Context(), lamp, "", his.Device.String(), []byte(`{"status":"done"}`)), holdfast.NotFound, "for this device")
	if got := e.state(by, sent[0].ID); got != Queued {
		t.Errorf("it is %s", got)
	}
	if _, err := e.Cancel(t.Context(), by, sent[0].ID); err != nil {
		t.Fatal(err)
	}
	_, err = e.Cancel(t.Context(), by, sent[0].ID)
	kind(t, err, holdfast.Conflict, "is cancelled")
	kind(t, e.Result(t.Context(), lamp, "", id, []byte(`{"status":"done"}`)), holdfast.Conflict, "is cancelled")
	e.mustSend(by, lamp, "on", "null") // there is room again
	got, err := e.Poll(t.Context(), lamp, "", holdfast.CommandID{}, 0)
	if err != nil || len(got) != 3 || slices.ContainsFunc(got, func(c Command) bool { return c.ID == sent[0].ID }) {
		t.Errorf("given %+v, %v", got, err)
	}
}

// An expired command is handed to nobody, whenever that is written down.
func TestExpiry(t *testing.T) {
	e := newEstate(t, Options{Waiting: 2})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	short, err := e.Send(t.Context(), by, Spec{Device: lamp.Device, Name: "now", Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	long := e.mustSend(by, lamp, "soon", "1")
	e.later(time.Minute)
	if got := e.state(by, short.ID); got != Expired {
		t.Errorf("it is %s", got)
	}
	u := e.subscribe(lamp, "cmd/#", "")
	if m := next(t, u); string(m.Correlation) != long.ID.String() {
		t.Errorf("given %s", m.Payload)
	}
	silent(t, u)
	if got, err := e.Poll(t.Context(), lamp, "", holdfast.CommandID{}, 0); err != nil || len(got) != 1 || got[0].ID != long.ID {
		t.Errorf("polled %+v, %v", got, err)
	}
	kind(t, e.Result(t.Context(), lamp, "", short.ID.String(), []byte(`{"status":"done"}`)), holdfast.Conflict, "is expired")
	e.mustSend(by, lamp, "more", "1") // what has expired takes no room
	if d := cmp.Diff([]string{"command sent", "command sent", "command expired", "command sent"}, e.record(anna)); d != "" {
		t.Error(d)
	}
	e.later(time.Hour)
	if err := e.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := e.Command(t.Context(), by, long.ID); err != nil || c.State != Expired || !c.Ended.Equal(c.Expires) {
		t.Errorf("%+v, %v", c, err)
	}
	e.later(Kept + time.Hour)
	if err := e.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := e.rows(lamp); n != 0 {
		t.Errorf("%d are kept for ever", n)
	}
}

// A device that changes hands gets nothing more, and the next owner's nothing of it;
// while it is lent, what waits goes on waiting.
func TestOtherHands(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	c := e.mustSend(by, lamp, "on", "1")
	e.becomes(lamp, func(st *Standing) { st.Elsewhere = true })
	u, asked := e.subscribe(lamp, "cmd/#", ""), e.asked
	silent(t, u)
	silent(t, u)
	if n := e.asked - asked; n > 4 {
		t.Errorf("looked at %d times within a moment", n)
	}
	if got, err := e.Poll(t.Context(), lamp, "", holdfast.CommandID{}, 0); err != nil || len(got) != 0 {
		t.Errorf("given to a guest: %+v, %v", got, err)
	}
	kind(t, e.Result(t.Context(), lamp, "", c.ID.String(), []byte(`{"status":"done"}`)), holdfast.Denied, "somebody else's")
	_, err := e.Report(t.Context(), lamp, "", Change{State: []byte(`{"a":1}`)})
	kind(t, err, holdfast.Denied, "somebody else's")
	_, err = e.DesiredFor(t.Context(), lamp, "", 0, 0)
	kind(t, err, holdfast.Unavailable, "somebody else's")
	e.becomes(lamp, func(st *Standing) { st.Elsewhere = false })
	back := e.subscribe(lamp, "cmd/#", "")
	if m := next(t, back); string(m.Correlation) != c.ID.String() {
		t.Errorf("given %s", m.Payload)
	}

	e.becomes(lamp, func(st *Standing) { st.Refused = holdfast.Errorf(holdfast.Denied, "device is closed") })
	e.changed(Standing{Device: lamp.Device})
	_, err = back.Next(t.Context())
	kind(t, err, holdfast.Denied, "closed")
	_, err = e.Poll(t.Context(), lamp, "", holdfast.CommandID{}, time.Minute)
	kind(t, err, holdfast.Denied, "closed")
	_, err = e.Subscribe(t.Context(), lamp, "desired", "")
	kind(t, err, holdfast.Denied, "closed")
	_, err = e.Send(t.Context(), by, Spec{Device: lamp.Device, Name: "on"})
	kind(t, err, holdfast.Denied, "closed")
	if err := e.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.state(by, c.ID); got != Cancelled { // its old owner sees what became of it
		t.Errorf("it is %s", got)
	}
	stranger := Peer{lamp.Device, holdfast.NewID[holdfast.AssignmentID]()}
	e.becomes(lamp, func(st *Standing) { st.Refused = nil })
	_, err = e.Poll(t.Context(), stranger, "", holdfast.CommandID{}, 0)
	kind(t, err, holdfast.Denied, "enrol again")
}

// A gateway gets what is for its children, under their names, and nobody else's.
func TestChildren(t *testing.T) {
	e := newEstate(t, Options{})
	anna, ben := e.party(), e.party()
	gateway := e.device(anna, holdfast.DeviceID{}, "")
	pump, valve := e.device(anna, gateway.Device, "pump"), e.device(ben, gateway.Device, "valve")
	other := e.device(ben, holdfast.DeviceID{}, "")
	own, all := e.subscribe(gateway, "cmd/#", ""), e.subscribe(gateway, "child/+/cmd/#", "")
	one, wanted := e.subscribe(gateway, "child/pump/cmd/#", ""), e.subscribe(gateway, "child/+/desired", "")
	run := e.mustSend(owner(anna), pump, "run", "1")
	shut := e.mustSend(owner(ben), valve, "shut", "1")
	// Each child's commands come in order; one child's don't wait for another's.
	pumps, valves := "child/pump/cmd/"+run.ID.String(), "child/valve/cmd/"+shut.ID.String()
	a, b := next(t, all), next(t, all)
	if got := []string{a.Topic, b.Topic}; !slices.Contains(got, pumps) || !slices.Contains(got, valves) {
		t.Errorf("the gateway gets %q, want %s and %s", got, pumps, valves)
	}
	c := next(t, one)
	if c.Topic != pumps {
		t.Errorf("who subscribed to the pump's gets %s", c.Topic)
	}
	for _, m := range []Message{a, b, c} {
		if m.ResponseTopic != m.Topic+"/result" {
			t.Errorf("%+v", m)
		}
	}
	silent(t, one)
	silent(t, own)
	late := e.device(ben, gateway.Device, "late") // declared after the subscription
	e.mustSend(owner(ben), late, "go", "1")
	if m := next(t, all); !strings.HasPrefix(m.Topic, "child/late/cmd/") {
		t.Errorf("%+v", m)
	}
	if _, err := e.SetDesired(t.Context(), owner(ben), valve.Device, -1, Change{State: []byte(`{"open":false}`)}); err != nil {
		t.Fatal(err)
	}
	if m := next(t, wanted); m.Topic != "child/valve/desired" || string(m.Payload) != `{"version":1,"state":{"open":false}}` {
		t.Errorf("%s %s", m.Topic, m.Payload)
	}
	if err := e.Result(t.Context(), gateway, "pump", run.ID.String(), []byte(`{"status":"done"}`)); err != nil {
		t.Error(err)
	}
	kind(t, e.Result(t.Context(), gateway, "pump", shut.ID.String(), []byte(`{"status":"done"}`)), holdfast.NotFound, "for this device")
	kind(t, e.Result(t.Context(), other, "valve", shut.ID.String(), []byte(`{"status":"done"}`)), holdfast.NotFound, "no child")
	_, err := e.Subscribe(t.Context(), other, "child/valve/cmd/#", "")
	kind(t, err, holdfast.NotFound, "no child")
	for _, f := range []string{"#", "+", "cmd", "cmd/x", "cmd/x/result", "child/+/data", "child//cmd/#", "child/pump", "desired/#", "feed/#", "reported", "child/+/child/+/cmd/#"} {
		_, err := e.Subscribe(t.Context(), gateway, f, "")
		kind(t, err, holdfast.Invalid, "")
	}
	becomes := func(st *Standing) { st.Refused = holdfast.Errorf(holdfast.Denied, "device is closed") }
	e.becomes(pump, becomes) // one child's end is not the others'
	e.mustSend(owner(ben), valve, "open", "1")
	e.changed(Standing{Device: pump.Device, Gateway: gateway.Device})
	if m := next(t, all); !strings.HasPrefix(m.Topic, "child/valve/cmd/") {
		t.Errorf("%+v", m)
	}
}

// A poll waits for a command, is told of it at once, and says what the device has.
func TestPoll(t *testing.T) {
	e := newEstate(t, Options{Watches: 2})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	type got struct {
		all []Command
		err error
	}
	came := make(chan got, 3)
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 { // one more than may wait
		go func() {
			all, err := e.Poll(ctx, lamp, "", holdfast.CommandID{}, time.Minute)
			came <- got{all, err}
		}()
	}
	kind(t, (<-came).err, holdfast.Unavailable, "wait for this device already")
	first := e.mustSend(by, lamp, "on", "1")
	for range 2 {
		if g := <-came; g.err != nil || len(g.all) != 1 || g.all[0].ID != first.ID || string(g.all[0].Args) != "1" {
			t.Errorf("%+v", g)
		}
	}
	cancel()
	if got := e.state(by, first.ID); got != Queued { // the answer may be lost: it is given again
		t.Errorf("it is %s", got)
	}
	second := e.mustSend(by, lamp, "off", "2")
	all, err := e.Poll(t.Context(), lamp, "", first.ID, time.Minute)
	if err != nil || len(all) != 1 || all[0].ID != second.ID {
		t.Errorf("%+v, %v", all, err)
	}
	if got := e.state(by, first.ID); got != Delivered {
		t.Errorf("it is %s", got)
	}
	if all, err = e.Poll(t.Context(), lamp, "", second.ID, time.Millisecond); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = e.Poll(t.Context(), lamp, "", holdfast.NewID[holdfast.CommandID](), 0)
	kind(t, err, holdfast.NotFound, "leave out after")
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := e.Poll(ctx, lamp, "", second.ID, time.Hour); err == nil {
		t.Error("a poll outlives its request")
	}
	e.Store.devices.mu.Lock()
	defer e.Store.devices.mu.Unlock()
	if len(e.Store.devices.of) != 0 {
		t.Error("a watch is left")
	}
}

// A sender who waits is told when the device has answered, and when nothing comes.
func TestWait(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	c := e.mustSend(by, lamp, "on", "1")
	came := make(chan Command)
	go func() {
		got, err := e.Wait(t.Context(), by, c.ID, time.Minute)
		if err != nil {
			t.Error(err)
		}
		came <- got
	}()
	for _, says := range []string{"accepted", "done"} {
		if err := e.Result(t.Context(), lamp, "", c.ID.String(), []byte(`{"status":"`+says+`","result":"`+says+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-came; got.State != Done || string(got.Result) != `"done"` {
		t.Errorf("%+v", got)
	}
	short, err := e.Send(t.Context(), by, Spec{Device: lamp.Device, Name: "on", Life: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Wait(t.Context(), by, short.ID, time.Millisecond); err != nil || got.State != Queued {
		t.Errorf("%+v, %v", got, err)
	}
	e.later(time.Second)
	if got, err := e.Wait(t.Context(), by, short.ID, time.Minute); err != nil || got.State != Expired {
		t.Errorf("%+v, %v", got, err)
	}
}

// What ended makes room, so that a busy device's list does not grow for ever.
func TestEndedOnesMakeRoom(t *testing.T) {
	e := newEstate(t, Options{Kept: 4})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	for range 7 {
		c := e.mustSend(by, lamp, "on", "1")
		if err := e.Result(t.Context(), lamp, "", c.ID.String(), []byte(`{"status":"done"}`)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := e.Commands(t.Context(), by, lamp.Device)
	if err != nil || len(all) != 4 || all[0].N != 7 || all[3].N != 4 {
		t.Errorf("%+v, %v", all, err)
	}
}

// With an assignment all of it goes, and nothing comes after it; with a stream or a
// span of time nothing does.
func TestErase(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, other, by := e.device(anna, holdfast.DeviceID{}, ""), e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	for _, p := range []Peer{lamp, other} {
		e.mustSend(by, p, "on", "1")
		if _, err := e.SetDesired(t.Context(), by, p.Device, -1, Change{State: []byte(`{"a":1}`)}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Report(t.Context(), p, "", Change{State: []byte(`{"a":1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	whole := holdfast.Scope{Party: anna, Assignments: []holdfast.AssignmentID{lamp.Assignment}, Span: holdfast.Always}
	stream, span := whole, whole
	stream.Streams, span.Span = []holdfast.StreamID{{1}}, holdfast.Span{From: 1, To: 2}
	for _, s := range []holdfast.Scope{stream, span} {
		if err := e.Erase(t.Context(), s); err != nil || e.rows(lamp) != 2 {
			t.Errorf("a part: %d rows, %v", e.rows(lamp), err)
		}
	}
	e.becomes(lamp, func(st *Standing) { st.Refused = holdfast.Errorf(holdfast.Denied, "device is erased") })
	if _, err := e.keys.Destroy(t.Context(), vault.Destruction{Owners: []vault.Owner{vault.OfAssignment(lamp.Assignment)}}); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Commands(t.Context(), by, lamp.Device); err != nil || len(got) != 0 { // refused or not, it does not open
		t.Errorf("%+v, %v", got, err)
	}
	if err := e.Sweep(t.Context()); err != nil {
		t.Errorf("a sweep meets a dead key: %v", err)
	}
	for range 2 {
		if err := e.Erase(t.Context(), whole); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.rows(lamp); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if n := e.rows(other); n != 2 {
		t.Errorf("the other device has %d rows", n)
	}
}

// Nothing of a command or a document stands in the catalog in clear.
func TestSealed(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	c, err := e.Send(t.Context(), by, Spec{Device: lamp.Device, Name: "pattern-name", Args: json.RawMessage(`"pattern-args"`), Reason: "pattern-reason", Key: "pattern-key"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Result(t.Context(), lamp, "", c.ID.String(), []byte(`{"status":"done","result":"pattern-result"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.SetDesired(t.Context(), by, lamp.Device, -1, Change{State: []byte(`{"pattern-desired":1}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Report(t.Context(), lamp, "", Change{State: []byte(`{"pattern-reported":1}`)}); err != nil {
		t.Fatal(err)
	}
	dump := ""
	for _, q := range []string{`SELECT quote(info_sealed) || quote(args_sealed) || quote(result_sealed) || quote(key_hash) || state FROM command`,
		`SELECT quote(desired_sealed) || quote(reported_sealed) FROM twin`, `SELECT quote(payload_sealed) FROM ledger_entry`} {
		err := e.db.Read(t.Context(), func(tx *sql.Tx) error {
			rows, err := tx.Query(q)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil {
					return err
				}
				dump += s
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if pattern := fmt.Sprintf("%X", "pattern"); strings.Contains(dump, pattern) || len(dump) < 1000 {
		t.Errorf("in clear: %s", dump)
	}
}

// A hub that stops holds nobody: who waits is answered with what there is.
func TestRelease(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	c := e.mustSend(by, lamp, "on", "1")
	ended := make(chan error, 4)
	go func() {
		all, err := e.Poll(t.Context(), lamp, "", c.ID, time.Hour)
		if len(all) > 0 {
			t.Errorf("polled %+v", all)
		}
		ended <- err
	}()
	go func() {
		got, err := e.Wait(t.Context(), by, c.ID, time.Hour)
		if got.HasEnded() {
			t.Errorf("it is %s", got.State)
		}
		ended <- err
	}()
	go func() {
		_, err := e.DesiredFor(t.Context(), lamp, "", 0, time.Hour)
		ended <- err
	}()
	u := e.subscribe(lamp, "desired", "")
	go func() {
		if _, err := u.Next(t.Context()); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("a subscription ends with %v", err)
		}
		ended <- nil
	}()
	e.Release()
	for range 4 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
