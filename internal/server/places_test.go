package server

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// canary is what an owner has in one place: how to put it there, if nothing else has,
// and how to count it.
type canary struct {
	plant func()
	count func() int
}

// Every place that can hold an owner's data is filled before an erasure and empty
// after it. A field of erasure.Places without a canary fails, and so does a place
// that could not be filled: there this test would see nothing.
func TestNoPlaceIsForgotten(t *testing.T) {
	h := mailing(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	watch, ring, bens := h.enrolled(anna.Party, "watch"), h.enrolled(anna.Party, "ring"), h.enrolled(ben.Party, "bens")
	at, end := h.serve()
	x := h.belong(at, anna, watch, "anna")
	party, assignment, device := anna.Party[:], watch.Assignment[:], watch.Device[:]
	h.mustSend(bens.Peer, number("pulse", time.Now(), 60))
	rows := func(from string, args ...any) func() int {
		return func() (n int) {
			t.Helper()
			if err := h.stores.catalog.Read(t.Context(), func(tx *sql.Tx) error { return tx.QueryRow(`SELECT count(*) FROM `+from, args...).Scan(&n) }); err != nil {
				t.Fatalf("%s: %v", from, err)
			}
			return n
		}
	}
	var sealed, box []byte // a deleted row and a dead chunk, as the files have them
	inFiles := func(b *[]byte) func() int {
		return func() int { return len(h.find(map[string][]byte{"ciphertext": *b})) }
	}
	canaries := map[string]canary{
		"Connections": {count: rows(`device_certificate WHERE device = $1`, device)},
		"Credentials": {count: rows(`access_credential WHERE party = $1`, party)},
		"Grants": {func() {
			if _, err := h.grants.AddGroup(t.Context(), x.who.Credential, anna.Party, grant.GroupSpec{Name: "hers", Devices: []holdfast.DeviceID{watch.Device}, Every: "1h"}); err != nil {
				t.Fatal(err)
			}
		}, rows(`device_group WHERE party = $1`, party)},
		"Sessions": {count: rows(`mqtt_session WHERE assignment = $1 OR assignment = $2`, party, assignment)},
		"Wills":    {func() { h.leaveWill(t, ring, at) }, func() int { return h.gauge("holdfast_mqtt_wills_waiting") }},
		"Memory": {func() {
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := h.read(anna, watch.Peer, "durable-of-anna"); err != nil {
					t.Fatal(err)
				}
			}
		}, func() int { return h.gauge("holdfast_series_cache_bytes") }},
		"Twins":    {func() { h.wish(anna, watch.Device, "wish") }, rows(`command WHERE assignment = $1`, assignment)},
		"Readings": {count: rows(`chunk WHERE assignment = $1`, assignment)},
		"Messages": {count: rows(`outbox_job WHERE party = $1`, party)},
		"Alarms":   {count: rows(`alarm_rule WHERE party = $1`, party)},
		"Ledger":   {count: rows(`ledger_entry WHERE owner = $1 AND length(payload_sealed) > 0`, party)},
		"Custody":  {count: rows(`assignment WHERE id = $1 AND info_sealed IS NOT NULL`, assignment)},
		"Journal": {func() {
			h.mustSend(watch.Peer, number("durable-of-anna", time.Now(), 98))
			box = h.newestRecord(t)
		}, inFiles(&box)},
		"Catalog": {func() {
			err := h.stores.catalog.Read(t.Context(), func(tx *sql.Tx) error {
				return tx.QueryRow(`SELECT args_sealed FROM command WHERE assignment = $1`, assignment).Scan(&sealed)
			})
			if err != nil {
				t.Fatal(err)
			}
		}, inFiles(&sealed)},
	}
	places := reflect.TypeFor[erasure.Places]()
	for f := range places.Fields() {
		if c, ok := canaries[f.Name]; !ok {
			t.Errorf("the place %s has no canary: nobody sees whether an erasure empties it", f.Name)
		} else if c.plant != nil {
			c.plant()
		}
	}
	for name, c := range canaries {
		if _, ok := places.FieldByName(name); !ok {
			t.Errorf("there is no place %s any more", name)
		}
		if n := c.count(); n <= 0 {
			t.Errorf("the place %s could not be filled: %d", name, n)
		}
	}
	scope, err := h.custody.ScopeOfParty(t.Context(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	h.erase(h.admin(), scope)
	for name, c := range canaries {
		if n := c.count(); n != 0 {
			t.Errorf("the place %s still has %d", name, n)
		}
	}
	if got, err := h.read(ben, bens.Peer, "pulse"); err != nil || len(got) != 1 {
		t.Errorf("the other owner has %d readings: %v", len(got), err)
	}
	end()
}

// gauge is the value of a metric without labels.
func (h *house) gauge(name string) int {
	h.t.Helper()
	all, err := h.Server.metrics.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	h.t.Fatalf("there is no metric %s", name)
	return 0
}

// leaveWill has a device leave without a word and with a will that waits.
func (h *house) leaveWill(t *testing.T, d *thing, at Addresses) {
	t.Helper()
	nc, err := d.dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	hour := uint32(3600)
	c := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(nc), PacketTimeout: 30 * time.Second})
	if _, err := c.Connect(context.Background(), &paho.Connect{ClientID: "mortal", KeepAlive: 60, CleanStart: true, Properties: &paho.ConnectProperties{SessionExpiryInterval: &hour},
		WillMessage: &paho.WillMessage{Topic: "data/last", QoS: 1, Payload: []byte("1")}, WillProperties: &paho.WillProperties{WillDelayInterval: &hour}}); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	for end := time.Now().Add(30 * time.Second); h.gauge("holdfast_mqtt_wills_waiting") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no will waits")
		}
	}
}

// newestRecord returns bytes of the journal's end, as its files have them.
func (h *house) newestRecord(t *testing.T) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "journal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var last []byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		end := len(b)
		for end > 0 && b[end-1] == 0 {
			end--
		}
		if end > 64 { // beyond a header alone
			last = b[end-40 : end]
		}
	}
	if last == nil {
		t.Fatal("the journal is empty")
	}
	return last
}
