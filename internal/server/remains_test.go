package server

import (
	"database/sql"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// belongings are what a person and his device have on a hub besides readings: an
// alarm that has fired, a webhook and a mail address that wait to be told, and MQTT
// sessions with durable subscriptions, one of them shared.
type belongings struct {
	h        *house
	slug     string
	who      access.Principal // by certificate
	device   *thing
	person   *thing
	patterns map[string][]byte
	sessions []*client5
}

// mailing is a house that can send mail, to a server that does not answer.
func mailing(t *testing.T) *house {
	h := newHouse(t)
	h.halt()
	h.mail = &outbox.Mail{Host: "127.0.0.1", Port: 1, From: "hub@example.org"}
	h.start()
	return h
}

// belong plants all of that, each with a word that occurs nowhere else.
func (h *house) belong(at Addresses, who access.Principal, d *thing, slug string) *belongings {
	h.t.Helper()
	ctx, t := h.t.Context(), h.t.(*testing.T)
	x := &belongings{h: h, slug: slug, who: who, device: d, patterns: map[string][]byte{}}
	word := func(name string) string {
		w := strings.ReplaceAll(name, " ", "-") + "-of-" + slug
		x.patterns[name] = []byte(w)
		return w
	}
	x.person, x.who.Credential = h.certified(who, access.Spec{Role: access.Owner})
	h.retracted(who, "neighbour of "+slug, "glances-of-"+slug) // no hook is told of it yet
	hook, secret, err := h.outbox.Add(ctx, who.Party, x.who.Credential, word("hook"), "https://"+word("target")+".invalid/")
	if err != nil {
		t.Fatal(err)
	}
	x.patterns["secret (text)"] = []byte(secret)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(raw) < 16 {
		t.Fatalf("secret of %d bytes: %v", len(raw), err)
	}
	x.patterns["secret"] = raw

	topics := make(chan string, 4096)
	c := h.paho5(x.person, at, word("client"), topics)
	for _, filter := range []string{"feed/" + d.label + "/" + word("durable"), "$share/" + word("group") + "/feed/" + d.label + "/" + word("shared")} {
		h.mustSend(d.Peer, number(filter[strings.LastIndexByte(filter, '/')+1:], time.Now(), 1))
		if code := c.ask(filter, ""); code != 1 {
			t.Fatalf("SUBSCRIBE %s: 0x%02X", filter, code)
		}
	}
	own := h.paho5(d, at, word("device client"), topics)
	if code := own.ask("cmd/#", ""); code != 1 {
		t.Fatalf("SUBSCRIBE cmd/#: 0x%02X", code)
	}
	x.sessions = []*client5{c, own}
	for _, stream := range []string{"durable-of-", "shared-of-"} {
		h.mustSend(d.Peer, number(stream+slug, time.Now(), 99))
		wantLine(t, topics, "feed/"+d.label+"/"+stream+slug)
	}
	if err := h.sessions.Save(ctx); err != nil { // with how far they have got
		t.Fatal(err)
	}

	name := word("alarm")
	if _, err := h.alarms.Add(ctx, x.who, "", alarm.Spec{Name: name, Message: word("template") + ": {value}", Device: d.Device, Stream: "durable-of-" + slug,
		Every: time.Second, Webhooks: []holdfast.WebhookID{hook.ID}, Mail: []string{word("mail") + "@example.org"},
		Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 50}}); err != nil {
		t.Fatal(err)
	}
	x.until("the alarm to fire", func() bool {
		s, err := h.alarms.Show(x.who, name)
		return err == nil && s.State == "firing"
	})
	if _, err := h.alarms.Acknowledge(ctx, x.who, name, "", word("note")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.alarms.Mute(ctx, x.who, name, "", word("quiet"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if events, err := h.alarms.History(ctx, x.who, name); err != nil || len(events) < 3 {
		t.Fatalf("history of %d events: %v", len(events), err)
	}
	if all, err := h.outbox.Deliveries(ctx, who.Party); err != nil || len(all) != 2 || all[0].State != "waiting" || all[1].State != "waiting" {
		t.Fatalf("deliveries that wait: %+v, %v", all, err)
	}
	return x
}

// retracted lets somebody read under a grant what its owner then erases, and returns
// who told him of it.
func (h *house) retracted(who access.Principal, neighbour, purpose string) owner {
	h.t.Helper()
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	o := h.owner(neighbour)
	h.mustSend(o.device, number("pulse", time.Now().Add(-time.Minute), 60))
	_, err := h.grants.AddPurpose(h.t.Context(), h.admin().Credential, grant.Purpose{Name: holdfast.Purpose(purpose), IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."})
	must(err)
	_, err = h.grants.Make(h.t.Context(), grant.Caller{Credential: o.Credential, Party: o.Party, Owner: true}, grant.Spec{
		Recipient: who.Party, Purpose: holdfast.Purpose(purpose), AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: time.Now().Add(time.Hour)})
	must(err)
	reader := who
	reader.Role, reader.Purposes = access.Program, []holdfast.Purpose{holdfast.Purpose(purpose)}
	res, err := h.query.Read(h.t.Context(), query.Request{Who: reader, Purpose: holdfast.Purpose(purpose), Selection: query.Selection{Device: o.device.Device, Stream: "pulse"}, Span: holdfast.Always})
	must(err)
	for _, err := range res.Rows {
		must(err)
	}
	res.Close()
	must(h.grants.Flush(h.t.Context()))
	scope, err := h.custody.ScopeOfStream(h.t.Context(), o.device.Device, "pulse")
	must(err)
	h.erase(o.Principal, scope)
	return o
}

func (x *belongings) until(what string, is func() bool) {
	x.h.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			x.h.t.Fatalf("waiting for %s", what)
		}
	}
}

// ofParty and ofDevice say where in the catalog something is of a person's, and of
// what his device has measured and been told.
var (
	ofParty = map[string]string{
		"alarms":             `alarm_rule WHERE party = $1`,
		"alarms' history":    `alarm_event WHERE rule IN (SELECT id FROM alarm_rule WHERE party = $1)`,
		"webhooks":           `outbox_webhook WHERE party = $1`,
		"waiting deliveries": `outbox_job WHERE party = $1 AND webhook IS NOT NULL AND state = 'waiting'`,
		"waiting mail":       `outbox_job WHERE party = $1 AND webhook IS NULL AND state = 'waiting'`,
		"sessions":           `mqtt_session WHERE assignment = $1`,
		"subscriptions":      `mqtt_subscription WHERE session IN (SELECT name FROM mqtt_session WHERE assignment = $1)`,
		"retractions":        `retraction WHERE recipient = $1 /* party */ AND info_sealed IS NOT NULL`,
	}
	ofReadings = map[string]string{
		"alarms' instances": `alarm_instance WHERE assignment = $1`,
		"alarms' events":    `alarm_event WHERE assignment = $1`,
		"messages":          `outbox_about WHERE assignment = $1`,
	}
	ofDevice = map[string]string{
		"device's sessions":      `mqtt_session WHERE assignment = $1`,
		"device's subscriptions": `mqtt_subscription WHERE session IN (SELECT name FROM mqtt_session WHERE assignment = $1)`,
		"commands":               `command WHERE assignment = $1`,
		"states":                 `twin WHERE assignment = $1`,
		"arrivals of readings":   `chunk WHERE assignment = $1 AND arrivals > 0`,
	}
	// ofNobody are rows that hang on to nothing.
	ofNobody = map[string]string{
		"alarms' history":  `alarm_event WHERE rule NOT IN (SELECT id FROM alarm_rule)`,
		"alarms' instance": `alarm_instance WHERE rule NOT IN (SELECT id FROM alarm_rule)`,
		"deliveries":       `outbox_job WHERE webhook NOT IN (SELECT id FROM outbox_webhook)`,
		"messages":         `outbox_about WHERE job NOT IN (SELECT id FROM outbox_job)`,
		"subscriptions":    `mqtt_subscription WHERE session NOT IN (SELECT name FROM mqtt_session)`,
	}
)

// holds fails unless each of these places has something, or unless none has.
func (x *belongings) holds(places map[string]string, want bool) {
	x.h.t.Helper()
	for name, from := range places {
		var args []any
		switch id := [16]byte(x.who.Party); {
		case !strings.Contains(from, "$1"):
		case strings.Contains(from, "party") || name == "sessions" || name == "subscriptions":
			args = []any{id[:]}
		default:
			args = []any{x.device.Assignment}
		}
		var n int
		err := x.h.stores.catalog.Read(x.h.t.Context(), func(tx *sql.Tx) error {
			return tx.QueryRow(`SELECT COUNT(*) FROM `+from, args...).Scan(&n)
		})
		if err != nil {
			x.h.t.Fatalf("%s: %v", name, err)
		}
		if n > 0 != want {
			x.h.t.Errorf("%s of %s: %d", name, x.slug, n)
		}
	}
}

// filled fails on a place that has nothing to erase: there the test would see nothing.
func (x *belongings) filled() {
	x.h.t.Helper()
	x.holds(ofParty, true)
	x.holds(ofReadings, true)
	x.holds(ofDevice, true)
	x.holds(ofNobody, false)
}

// erased fails on what is left of a person, in the catalog or in memory.
func (x *belongings) erased() {
	x.h.t.Helper()
	ctx := x.h.t.Context()
	x.holds(ofParty, false)
	x.holds(ofReadings, false)
	x.holds(ofDevice, false)
	x.holds(ofNobody, false)
	if all := x.h.alarms.List(x.who); len(all) > 0 {
		x.h.t.Errorf("%d alarms of %s are listed", len(all), x.slug)
	}
	if all, err := x.h.outbox.Webhooks(ctx, x.who.Party); len(all) > 0 {
		x.h.t.Errorf("%d webhooks of %s are listed: %v", len(all), x.slug, err)
	}
	if all, err := x.h.outbox.Deliveries(ctx, x.who.Party); len(all) > 0 {
		x.h.t.Errorf("%d deliveries of %s are listed: %v", len(all), x.slug, err)
	}
}

// cut fails unless both connections were ended.
func (x *belongings) cut() {
	x.h.t.Helper()
	for _, c := range x.sessions {
		select {
		case <-c.Done():
		case <-time.After(30 * time.Second):
			x.h.t.Error("a connection goes on that has nothing to give any more")
		}
	}
}

// With a device goes what it was told and has said of itself, its sessions, and what
// alarms and messages know of its readings; its owner's rules and addresses stay, and
// a session that had subscribed to it ends, as anybody's who may read no more. With a
// stream go the readings, and what alarms and messages know of them.
func TestErasedDeviceLeavesItsOwner(t *testing.T) {
	h := mailing(t)
	anna := h.person("Anna")
	watch, ring := h.enrolled(anna.Party, "watch"), h.enrolled(anna.Party, "ring")
	at, end := h.serve()
	x := h.belong(at, anna, watch, "the-watch")
	h.wish(anna, watch.Device, "wish")
	h.wish(anna, ring.Device, "wish")
	h.mustSend(ring.Peer, number("durable-of-the-watch", time.Now(), 1))
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.filled()
	scope, err := h.custody.ScopeOfStream(t.Context(), watch.Device, "durable-of-the-watch")
	if err != nil {
		t.Fatal(err)
	}
	h.erase(anna, scope)
	x.holds(ofReadings, false)
	x.holds(ofDevice, true)
	x.holds(ofNobody, false)

	// It fires again, of what is measured from now on.
	h.mustSend(watch.Peer, number("durable-of-the-watch", time.Now(), 99))
	if _, err := h.alarms.Mute(t.Context(), x.who, "alarm-of-the-watch", "", "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	x.until("the alarm to fire", func() bool {
		s, err := h.alarms.Show(x.who, "alarm-of-the-watch")
		all, _ := h.outbox.Deliveries(t.Context(), anna.Party)
		return err == nil && s.State == "firing" && len(all) == 2
	})
	x.holds(ofReadings, true)
	x.holds(ofDevice, true)
	if scope, err = h.custody.ScopeOfDevice(t.Context(), watch.Device); err != nil {
		t.Fatal(err)
	}
	h.erase(anna, scope)
	x.cut()
	for range 2 {
		x.holds(ofReadings, false)
		x.holds(ofDevice, false)
		x.holds(ofNobody, false)
		for _, name := range []string{"alarms", "webhooks"} {
			x.holds(map[string]string{name: ofParty[name]}, true)
		}
		(&belongings{h: h, slug: "the ring", who: anna, device: ring}).holds(map[string]string{"commands": ofDevice["commands"], "states": ofDevice["states"]}, true)
		end()
	}
}
