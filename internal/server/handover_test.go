package server

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// offered is a unit on its way from one to the other.
func (s *story) offered(from, to someone, label string) (id string) {
	s.t.Helper()
	var o struct{ Transfer struct{ ID string } }
	s.asks(from, http.StatusCreated, "POST", "/v1/transfers", fmt.Sprintf(`{"device":%q,"to":%q}`, label, to.Party), &o)
	return o.Transfer.ID
}

// taken takes it and enrols the unit anew.
func (s *story) taken(by someone, id, label string) *thing {
	s.t.Helper()
	var o struct{ Device struct{ ID string } }
	s.asks(by, http.StatusCreated, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"transfer":%q,"label":%q}`, id, label), &o)
	device, err := holdfast.ParseID[holdfast.DeviceID](o.Device.ID)
	s.must(err)
	d, err := s.custody.Device(s.t.Context(), device)
	s.must(err)
	return s.enrol(identity.Peer{Device: d.ID, Assignment: d.Assignment, NotAfter: time.Now().Add(time.Hour)}, label)
}

// A watch changes hands while it sends, over MQTT and HTTPS: its connection is cut,
// what was acknowledged is the seller's to the last reading, and nothing of it the
// buyer's; what the unit sends under its new certificate is the buyer's alone.
func TestTransferWhileTheDeviceSends(t *testing.T) {
	s := tell(t, 0)
	anna, ben := s.someone("Anna", custody.Person), s.someone("Ben", custody.Person)
	watch := s.enrolled(anna.Party, "watch")
	cut := make(chan struct{}, 8)
	c, _, err := watch.dialMQTT(t.Context(), s.at, &paho.Connect{ClientID: "watch", KeepAlive: 60, CleanStart: true}, paho.ClientConfig{
		PacketTimeout: 5 * time.Second, OnClientError: func(error) { cut <- struct{}{} }, OnServerDisconnect: func(*paho.Disconnect) { cut <- struct{}{} }})
	s.must(err)
	idle := watch.mqttIdle(t, s.at, cut)
	defer idle()
	web := watch.http(t)
	var acked, tried atomic.Uint64
	ctx, stop := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	senders.Go(func() {
		for ctx.Err() == nil {
			r, err := c.Publish(ctx, &paho.Publish{QoS: 1, Topic: "data/count", Payload: fmt.Appendf(nil, "%d", tried.Add(1))})
			if err != nil || r.ReasonCode >= 0x80 {
				return
			}
			acked.Add(1)
		}
	})
	senders.Go(func() {
		for ctx.Err() == nil {
			status, _, _, err := post(web, s.at.Device+"/v1/data", "application/senml+json", strings.NewReader(fmt.Sprintf(`[{"n":"count","v":%d}]`, tried.Add(1))))
			if err != nil || status >= 300 {
				return
			}
			acked.Add(1)
		}
	})
	id := s.offered(anna, ben, "watch")
	for deadline := time.Now().Add(time.Minute); acked.Load() < 50; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is acknowledged")
		}
	}
	next := s.taken(ben, id, "bens")
	for range 2 { // both connections, the busy one and the idle one
		select {
		case <-cut:
		case <-time.After(30 * time.Second):
			t.Fatal("a connection outlives the transfer")
		}
	}
	stop()
	senders.Wait()
	his := next.mqtt(t, s.at)
	s.publishes(his, "data", time.Now().Add(2*time.Second), "bens-own") // whole seconds: not before it was his
	got, err := s.read(anna.Principal, watch.Peer, "count")
	if n := uint64(len(got)); err != nil || n < acked.Load() || n > tried.Load() {
		t.Errorf("the seller has %d readings of %d acknowledged and %d tried, %v", n, acked.Load(), tried.Load(), err)
	}
	if got, err := s.read(ben.Principal, next.Peer, "count"); err == nil && len(got) > 0 {
		t.Errorf("the buyer has %d readings of the seller's", len(got))
	}
	if status, _, _, err := post(web, s.at.Device+"/v1/data", "application/senml+json", strings.NewReader(said(time.Now(), "too-late"))); err == nil && status < 300 {
		t.Error("the seller's certificate still sends")
	}
	s.has(ben, next.Device, words("bens-own"), words("count", "too-late"))
	s.has(anna, watch.Device, nil, words("bens-own", "too-late"))
}

// mqttIdle is a connection that sends nothing, and says when it is cut.
func (d *thing) mqttIdle(t *testing.T, at Addresses, cut chan<- struct{}) (end func()) {
	t.Helper()
	var once sync.Once
	say := func() { once.Do(func() { cut <- struct{}{} }) }
	c, _, err := d.dialMQTT(t.Context(), at, &paho.Connect{ClientID: d.label + "-idle", KeepAlive: 60, CleanStart: true},
		paho.ClientConfig{OnClientError: func(error) { say() }, OnServerDisconnect: func(*paho.Disconnect) { say() }})
	if err != nil {
		t.Fatal(err)
	}
	return func() { c.Disconnect(&paho.Disconnect{}) }
}

// A transfer that fails at its last step has not happened: the seller's device sends
// on, across a restart too, and the offer can be taken. One that was done, and whose
// hub died before it cut a connection or answered, has happened.
func TestTransferIsWholeOrNot(t *testing.T) {
	s := tell(t, 0)
	anna, ben := s.someone("Anna", custody.Person), s.someone("Ben", custody.Person)
	watch := s.enrolled(anna.Party, "watch")
	s.posts(watch, time.Now(), "annas-first")
	id := s.offered(anna, ben, "watch")
	write := func(statement string) {
		t.Helper()
		s.must(s.stores.catalog.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), statement)
			return err
		}))
	}
	write(`CREATE TRIGGER broken BEFORE INSERT ON enrolment_code BEGIN SELECT RAISE(ABORT, 'broken'); END`)
	if status, _ := s.do(ben.token, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"transfer":%q}`, id)); status < 400 {
		t.Fatalf("a transfer that can't be: %d", status)
	}
	write(`DROP TRIGGER broken`)
	unchanged := func() {
		t.Helper()
		if text := s.asks(ben, http.StatusOK, "GET", "/v1/devices", "", nil); strings.Contains(text, `"id"`) {
			t.Errorf("the buyer has a device: %s", text)
		}
		if text := s.asks(anna, http.StatusOK, "GET", "/v1/ledger/entries", "", nil); strings.Contains(text, "transfer taken") || strings.Contains(text, "certificate revoked") {
			t.Errorf("what did not happen is on the record: %s", text)
		}
	}
	unchanged()
	s.posts(watch, time.Now(), "annas-second")
	s.end()
	s.serves()
	unchanged()
	s.posts(watch, time.Now(), "annas-third")

	// Written down, and then the hub is gone.
	transfer, err := holdfast.ParseID[holdfast.TransferID](id)
	s.must(err)
	offer, err := s.custody.TransferOf(t.Context(), ben.Party, transfer)
	s.must(err)
	_, moved, err := s.custody.TakeTransfer(t.Context(), ben.Credential, ben.Party, offer, "bens", func(ctx context.Context, tx *sql.Tx, moved []custody.Moved) error {
		_, err := s.identity.RevokeWithin(ctx, tx, moved[0].Old.ID, "handed over")
		return err
	})
	s.must(err)
	refused := func(word string) {
		t.Helper()
		status, _, _, err := post(watch.http(t), s.at.Device+"/v1/data", "application/senml+json", strings.NewReader(said(time.Now(), word)))
		if err == nil && status < 300 {
			t.Errorf("%q is taken from the seller's device", word)
		}
	}
	refused("before-the-cut") // whose device it is decides, not whether it was cut
	s.end()
	s.serves()
	refused("after-the-restart")
	if text := s.asks(ben, http.StatusConflict, "POST", "/v1/transfers/taking", fmt.Sprintf(`{"transfer":%q}`, id), nil); !strings.Contains(text, "you took it already") || !strings.Contains(text, moved[0].New.ID.String()) {
		t.Error(text)
	}
	next := s.enrol(identity.Peer{Device: moved[0].New.ID, Assignment: moved[0].New.Assignment, NotAfter: time.Now().Add(time.Hour)}, "bens")
	s.posts(next, time.Now().Add(2*time.Second), "bens-own")
	annas := words("annas-first", "annas-second", "annas-third")
	never := words("before-the-cut", "after-the-restart")
	s.has(anna, watch.Device, annas, append(words("bens-own"), never...))
	s.has(ben, next.Device, words("bens-own"), append(never, annas...))
}

// A household's erasure, confirmed by both adults, takes what no hold keeps, and says
// what one does.
func TestJointErasureWithAHold(t *testing.T) {
	s := tell(t, 0)
	anna, ben := s.someone("Anna", custody.Person), s.someone("Ben", custody.Person)
	home, err := s.custody.AddParty(t.Context(), s.admin().Credential, "Home", custody.Household)
	s.must(err)
	admin := custody.Actor{Credential: s.admin().Credential, Party: s.admin().Party, Administrator: true}
	for _, who := range []someone{anna, ben} {
		m, err := s.custody.AddMember(t.Context(), admin, custody.MemberSpec{Of: home.ID, Member: who.Party, Kind: custody.Adult})
		s.must(err)
		s.asks(who, http.StatusOK, "POST", "/v1/members/"+m.ID.String()+"/acceptance", "", nil)
	}
	door, meter := s.enrolled(home.ID, "door"), s.enrolled(home.ID, "meter")
	s.posts(door, time.Now(), "door-opened")
	s.posts(meter, time.Now(), "meter-read")
	_, err = s.grants.AddHold(t.Context(), grant.HoldBy{Caller: grant.Caller{Credential: s.admin().Credential, Party: s.admin().Party}, Administrator: true},
		grant.HoldSpec{Kind: grant.Claim, Whose: home.ID, Assignments: []holdfast.AssignmentID{meter.Assignment}, Reason: "case 7"})
	s.must(err)
	var wish struct{ Joint struct{ ID string } }
	s.asks(anna, http.StatusAccepted, "POST", "/v1/erasures?wait=0", fmt.Sprintf(`{"party":%q}`, home.ID), &wish)
	var begun struct{ Erasure string }
	s.asks(ben, http.StatusOK, "POST", "/v1/joint-erasures/"+wish.Joint.ID+"/confirmation", "", &begun)
	text := s.asks(ben, http.StatusOK, "GET", "/v1/erasures/"+begun.Erasure+"?wait=30", "", nil)
	if !strings.Contains(text, `"why":"claim"`) || !strings.Contains(text, meter.Assignment.String()) {
		t.Errorf("what is kept is told as %s", text)
	}
	for device, words := range map[*thing][2]string{door: {"", "door-opened"}, meter: {"meter-read", ""}} {
		_, b := s.do(anna.token, "GET", "/v1/readings?from=2000-01-01&format=csv&device="+device.Device.String(), "")
		if !strings.Contains(string(b), words[0]) || words[1] != "" && strings.Contains(string(b), words[1]) {
			t.Errorf("after the erasure of all but what is held: %s", b)
		}
	}
}
