package deviceapi

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// A device over its quota is told when to come again, and not before it owes
// something: its first request may be of any size. Others don't notice.
func TestQuota(t *testing.T) {
	q := budget.NewQuotas()
	rate := budget.Rate{Readings: 10, Burst: time.Second}
	h := build(t, Options{Quota: func(r *custody.Route) *budget.Allowance { return q.Of(r.Device, rate, 0) }})
	x, other := h.device(), h.enrolled(custody.DeviceSpec{Label: "pump 2"})
	pack := "[" + strings.TrimSuffix(strings.Repeat(`{"n":"n","v":1},`, 40), ",") + "]"
	if r := x.post("/v1/data", "", strings.NewReader(pack)); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	r := x.post("/v1/data", "", strings.NewReader(oneReading))
	after, err := strconv.Atoi(r.header.Get("Retry-After"))
	if r.status != 429 || err != nil || after < 2 || after > 3 || !strings.Contains(r.text, "quota") { // it owes 30 readings of 10 a second
		t.Errorf("%d %v %s", r.status, r.header, r.text)
	}
	if r := other.post("/v1/data", "", strings.NewReader(oneReading)); r.status != 204 {
		t.Errorf("another device: %d %s", r.status, r.text)
	}
	if got := q.Slowed(1); len(got) != 1 || got[0] != x.id {
		t.Errorf("slowed are %v", got)
	}
}

// The readings of a declared child are charged to the child; a request is taken
// whole or not at all.
func TestQuotaOfAChild(t *testing.T) {
	q := budget.NewQuotas()
	rate := budget.Rate{Readings: 10, Bytes: 1 << 20, Burst: time.Second}
	h := build(t, Options{Quota: func(r *custody.Route) *budget.Allowance { return q.Of(r.Device, rate, 0) }})
	gateway := h.device()
	party := must(h.custody.AddParty(t.Context(), h.admin, "Ada", custody.PartyKind("person")))(t)
	var children []holdfast.DeviceID
	for i := range 2 {
		d := must(h.custody.AddDevice(t.Context(), h.admin, custody.DeviceSpec{Label: fmt.Sprintf("child-%d", i), Owner: party.ID, Gateway: gateway.id}))(t)
		children = append(children, d.Device.ID)
	}
	lines := func(child, n int) string { return strings.Repeat(fmt.Sprintf("m,device=child-%d v=1\n", child), n) }
	for _, x := range []struct {
		body   string
		status int
	}{{lines(0, 30), 204}, {lines(0, 1), 429}, {lines(1, 1) + lines(0, 1), 429}, {lines(1, 1), 204}, {"m v=1\n", 204}} {
		if r := gateway.post("/write", "", strings.NewReader(x.body)); r.status != x.status {
			t.Errorf("%.40q...: %d %s, want %d", x.body, r.status, r.text, x.status)
		}
	}
	if got := q.Slowed(1); len(got) != 1 || got[0] != children[0] {
		t.Errorf("slowed are %v, want %s", got, children[0])
	}
}
