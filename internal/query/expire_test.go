package query_test

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// Readings live as long as the longest of their live purposes says, bounded by the
// stream's own limit, and show nowhere after it: not to their owner, not in windows.
func TestExpiredReadingsShowNowhere(t *testing.T) {
	h := querytest.Build(t)
	ctx := t.Context()
	purpose := func(name holdfast.Purpose, days int) {
		t.Helper()
		if _, err := h.Register.AddPurpose(ctx, h.Admin.Credential, grant.Purpose{
			Name: name, IRI: "https://w3id.org/dpv#ServiceProvision", LegalBasis: "consent", Text: "x", RetentionDays: days}); err != nil {
			t.Fatal(err)
		}
	}
	purpose("care", 30)
	purpose("research", 90)
	const heart = "https://w3id.org/dpv/pd#Health"
	if _, err := h.Custody.AddProfile(ctx, h.Admin.Credential, []byte(`{"name":"band","version":1,"streams":[
		{"name":"heart","type":"number","category":"`+heart+`","purposes":["care","research"]},
		{"name":"steps","type":"number","purposes":["research"],"retention_days":7}]}`)); err != nil {
		t.Fatal(err)
	}
	anna := h.Party("Anna")
	band := h.Device(custody.DeviceSpec{Label: "band", Owner: anna.Party, Profile: "band"})
	for i := range 100 {
		h.Send(band, holdfast.Sample{Stream: "heart", Value: holdfast.NumberValue(float64(i))}, holdfast.Sample{Stream: "steps", Value: holdfast.NumberValue(1)})
	}
	h.Roll()
	h.Send(band, holdfast.Sample{Stream: "heart", Value: holdfast.NumberValue(100)})
	shown := func(stream string) int {
		t.Helper()
		request := ask(anna, query.Selection{Device: band.ID, Stream: stream})
		rows, _ := collect(t, h.Query, request)
		request.Every, request.Aggregates, request.Span = time.Hour, []query.Aggregate{query.Count}, holdfast.Span{From: h.Now().AddDate(0, 0, -400).UnixNano(), To: h.Now().Add(time.Hour).UnixNano()}
		windows, _ := collect(t, h.Query, request)
		counted := 0
		for _, w := range windows {
			counted += int(w.Window.Count)
		}
		if counted != len(rows) {
			t.Errorf("%s: %d readings, in windows %d", stream, len(rows), counted)
		}
		return len(rows)
	}
	want := func(when string, heart, steps int) {
		t.Helper()
		if a, b := shown("heart"), shown("steps"); a != heart || b != steps {
			t.Errorf("%s: heart %d, steps %d; want %d and %d", when, a, b, heart, steps)
		}
	}
	day := 24 * time.Hour
	want("fresh", 101, 100)
	h.Later(8 * day)
	want("after 8 days", 101, 0)
	h.Later(23 * day)
	want("after 31 days", 101, 0)
	if err := h.Register.SetRule(ctx, h.Admin.Credential, grant.Rule{Category: heart, Purpose: "research", Days: 20}); err != nil {
		t.Fatal(err)
	}
	want("by a shorter rule", 0, 0)
	if err := h.Register.DropRule(ctx, h.Admin.Credential, heart, "research"); err != nil {
		t.Fatal(err)
	}
	want("by the purpose again", 101, 0)
	if err := h.Register.EndPurpose(ctx, h.Admin.Credential, "research"); err != nil {
		t.Fatal(err)
	}
	want("by care alone", 0, 0)
	h.Later(23 * time.Hour)
	if err := h.Register.RevivePurpose(ctx, h.Admin.Credential, "research"); err != nil {
		t.Fatal(err)
	}
	want("revived", 101, 0)
	h.Later(60 * day)
	want("after all", 0, 0)
}

// A rule that shortens the life of what is being given out ends the read.
func TestShortenedWhileRead(t *testing.T) {
	h := querytest.Build(t)
	press := h.Device(custody.DeviceSpec{Label: "press"})
	for i := range 200 {
		h.Send(press, holdfast.Sample{Stream: "load", Value: holdfast.NumberValue(float64(i))})
	}
	h.Later(48 * time.Hour)
	res, err := h.Query.Read(t.Context(), ask(h.Admin, query.Selection{Device: press.ID}))
	if err != nil {
		t.Fatal(err)
	}
	given := 0
	var failed error
	for _, err := range res.Rows {
		if failed = err; err != nil {
			break
		}
		if given++; given == 10 {
			if err := h.Register.SetRule(t.Context(), h.Admin.Credential, grant.Rule{Purpose: holdfast.Operation, Days: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if holdfast.KindOf(failed) != holdfast.Unavailable || given > 50 {
		t.Errorf("%d rows of 200, then %v", given, failed)
	}
}
