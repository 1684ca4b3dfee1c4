package erasure_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

const day = 24 * time.Hour

// aging is a hub with Anna's band, whose heart is kept for 30 days of care, and whose
// steps for 7.
type aging struct {
	*querytest.House
	*erasure.Gate
	t     testing.TB
	anna  access.Principal
	band  custody.Device
	purge error // of the catalog
}

func newAging(t testing.TB) *aging {
	t.Helper()
	h := &aging{House: querytest.Build(t), t: t}
	h.purpose("care", 30)
	h.purpose("research", 0)
	_, err := h.House.Custody.AddProfile(t.Context(), h.Admin.Credential, []byte(`{"name":"band","version":1,"streams":[
		{"name":"heart","type":"number","purposes":["care"]},
		{"name":"steps","type":"number","purposes":["care"],"retention_days":7},
		{"name":"sleep","type":"number","purposes":["research"]}]}`))
	h.must(err)
	h.anna = h.Party("Anna")
	h.band = h.Device(custody.DeviceSpec{Label: "band", Owner: h.anna.Party, Profile: "band"})
	h.open()
	_, err = h.Expire(t.Context(), false)
	h.must(err)
	return h
}

func (h *aging) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *aging) purpose(name holdfast.Purpose, days int) {
	h.t.Helper()
	_, err := h.Register.AddPurpose(h.t.Context(), h.Admin.Credential, grant.Purpose{
		Name: name, IRI: "https://w3id.org/dpv#ServiceProvision", LegalBasis: "consent", Text: "x", RetentionDays: days})
	h.must(err)
}

// open is what a start does.
func (h *aging) open() {
	h.t.Helper()
	none := func(context.Context, holdfast.Scope) error { return nil }
	var err error
	h.Gate, err = erasure.Open(h.t.Context(), erasure.Deps{
		Catalog: h.House.Catalog, Vault: h.House.Vault, Ledger: h.House.Ledger, Series: h.House.Series, Grants: h.Register, Custody: h.House.Custody,
		Logger: slog.New(slog.DiscardHandler), Now: h.Now, Arrival: func() int64 { return time.Now().UnixNano() },
		Places: erasure.Places{Connections: none, Credentials: none, Grants: none, Sessions: none, Wills: none, Ledger: none, Memory: none, Twins: none, Readings: none, Messages: none, Alarms: none, Custody: none,
			Journal: func(context.Context) error { return nil }, Catalog: func(context.Context) error { return h.purge }},
	})
	h.must(err)
}

func (h *aging) send() {
	h.Send(h.band, holdfast.Sample{Stream: "heart", Value: holdfast.NumberValue(61)}, holdfast.Sample{Stream: "steps", Value: holdfast.NumberValue(7)},
		holdfast.Sample{Stream: "sleep", Value: holdfast.NumberValue(1)})
}

// cells counts what is stored of a stream, and whether its keys live.
func (h *aging) cells(stream string) (chunks int, live bool) {
	h.t.Helper()
	s, err := h.House.Custody.StreamByName(h.t.Context(), h.band.ID, stream)
	h.must(err)
	for c, err := range h.House.Series.AllCells(h.t.Context()) {
		h.must(err)
		if c.Stream == s.ID {
			chunks++
		}
	}
	for _, daily := range []bool{true, false} {
		_, err := h.House.Vault.StreamCipher(h.t.Context(), h.band.Assignment, bucketNow(daily), s.ID)
		live = live || err == nil
	}
	return chunks, live
}

func (h *aging) lives(when string, want map[string]bool) {
	h.t.Helper()
	for stream, want := range want {
		if chunks, live := h.cells(stream); live != want || (chunks > 0) != want {
			h.t.Errorf("%s: %s: %d cells stored, keys live: %v, want %v", when, stream, chunks, live, want)
		}
	}
}

// recorded counts the entries on Anna's record about what has expired.
func (h *aging) recorded() (n int) {
	h.t.Helper()
	events, err := h.House.Ledger.Events(h.t.Context(), vault.OfParty(h.anna.Party), 0, 1000)
	h.must(err)
	for _, e := range events {
		if e.Kind == "readings expired" {
			n++
		}
	}
	return n
}

func (h *aging) shows(stream string) int {
	h.t.Helper()
	res, err := h.Query.Read(h.t.Context(), query.Request{Who: h.anna, Selection: query.Selection{Device: h.band.ID, Stream: stream}, Span: holdfast.Always})
	h.must(err)
	n := 0
	for _, err := range res.Rows {
		h.must(err)
		n++
	}
	return n
}

func (h *aging) expire(clockIsRight bool) {
	h.t.Helper()
	_, err := h.Expire(h.t.Context(), clockIsRight)
	h.must(err)
}

// Keys die with their bucket when all in it has outlived its retention, once, and a
// clock that jumps destroys nothing by itself.
func TestKeysDieByAge(t *testing.T) {
	h := newAging(t)
	h.send()
	h.expire(false)
	h.lives("fresh", map[string]bool{"heart": true, "steps": true, "sleep": true})
	h.Later(9 * day)
	if _, err := h.Expire(t.Context(), false); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a clock 9 days ahead: %v", err)
	}
	if _, doubted, err := h.LastExpiry(t.Context()); err != nil || !doubted {
		t.Errorf("not doubted, %v", err)
	}
	h.lives("doubted", map[string]bool{"heart": true, "steps": true})
	h.expire(true)
	h.lives("after 9 days", map[string]bool{"heart": true, "steps": false, "sleep": true})
	h.expire(false)
	if n := h.recorded(); n != 1 {
		t.Errorf("%d entries on her record", n)
	}
	h.Later(-30 * day)
	h.expire(false)
	h.lives("clock set back", map[string]bool{"heart": true, "sleep": true})
	h.Later(60 * day)
	h.expire(true)
	h.lives("after 39 days", map[string]bool{"heart": false, "sleep": true})
	h.send()
	if h.shows("sleep") != 2 {
		t.Error("what is kept does not show")
	}
}

// Holds win; what was due goes when they are ended.
func TestHoldsKeepKeysAlive(t *testing.T) {
	h := newAging(t)
	h.send()
	h.must(h.House.Series.Roll(t.Context()))
	own := grant.HoldBy{Caller: h.Caller(h.anna)}
	hold, err := h.Register.AddHold(t.Context(), own, grant.HoldSpec{Kind: grant.Restriction, Whose: h.anna.Party, Streams: []string{"heart"}})
	h.must(err)
	h.Later(40 * day)
	x, err := h.Expiring(t.Context())
	if err != nil || len(x.Due) != 2 || x.Due[0].Held == x.Due[1].Held {
		t.Errorf("due: %+v, %v", x.Due, err)
	}
	h.expire(true)
	h.lives("restricted", map[string]bool{"heart": true, "steps": false})
	_, err = h.Register.EndHold(t.Context(), own, hold.ID)
	h.must(err)
	h.expire(false)
	h.lives("lifted", map[string]bool{"heart": false})
}

// What no purpose needs any more goes, after a day in which the end can be taken
// back, and the month's other streams go on.
func TestLastPurposeEnds(t *testing.T) {
	h := newAging(t)
	h.send()
	h.must(h.Register.EndPurpose(t.Context(), h.Admin.Credential, "research"))
	if h.shows("sleep") != 0 {
		t.Error("shown without a purpose")
	}
	h.Later(23 * time.Hour)
	h.expire(false)
	h.must(h.Register.RevivePurpose(t.Context(), h.Admin.Credential, "research"))
	if h.shows("sleep") != 1 {
		t.Error("gone within the day")
	}
	h.send()
	h.must(h.Register.EndPurpose(t.Context(), h.Admin.Credential, "research"))
	h.Later(25 * time.Hour)
	if err := h.Register.RevivePurpose(t.Context(), h.Admin.Credential, "research"); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("revived after the day: %v", err)
	}
	h.expire(false)
	h.lives("ended", map[string]bool{"sleep": false, "heart": true, "steps": true})
	if h.shows("heart") != 2 || h.shows("steps") != 2 {
		t.Error("others went along")
	}
	h.Send(h.band, holdfast.Sample{Stream: "heart", Value: holdfast.NumberValue(1)})
	h.must(h.House.Series.Roll(t.Context()))
	if h.shows("heart") != 3 {
		t.Error("the stream does not go on")
	}
}

// A run that broke off after the keys had died is finished by the next, and recorded
// once.
func TestExpiryGoesOnAfterAStart(t *testing.T) {
	h := newAging(t)
	h.send()
	h.must(h.House.Series.Roll(t.Context()))
	h.Later(9 * day)
	h.purge = errors.New("disk away")
	if _, err := h.Expire(t.Context(), true); !errors.Is(err, h.purge) {
		t.Fatal(err)
	}
	if _, live := h.cells("steps"); live {
		t.Error("the key lives")
	}
	h.purge = nil
	h.open()
	h.expire(false)
	h.lives("finished", map[string]bool{"heart": true, "steps": false})
	if n := h.recorded(); n != 1 {
		t.Errorf("%d entries on her record", n)
	}
}

func bucketNow(daily bool) seal.Bucket { return seal.BucketOf(time.Now().UnixNano(), daily) }
