package server

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/timeline"
)

// A loan is a change of owner that reaches over readings which are there already.
type loan struct {
	h        *house
	from, to access.Principal
	device   identity.Peer
	spec     custody.PeriodSpec
}

// lends makes a device of Anna's with two readings of each of two streams, which Ben is
// to have had in his hands.
func (h *house) lends(anna, ben access.Principal, label string) *loan {
	h.t.Helper()
	l := &loan{h: h, from: anna, to: ben, device: h.device(anna.Party, label)}
	begins := time.Now()
	for i := range 2 {
		h.mustSend(l.device, number("pulse", time.Now(), float64(i)), number("steps", time.Now(), float64(i)))
	}
	ends := time.Now()
	for !time.Now().After(ends) { // the clock may be coarse
	}
	l.spec = custody.PeriodSpec{Device: l.device.Device, Owner: ben.Party, Terms: custody.Terms{Basis: custody.Loan, From: begins, To: ends}}
	return l
}

func (l *loan) add(by access.Principal, already timeline.Already) (timeline.Result, error) {
	return l.h.timeline.Add(l.h.t.Context(), by, l.spec, already)
}

// refused fails unless the change is, for a reason of that kind, with nothing changed in
// the catalog.
func (l *loan) refused(what string, by access.Principal, already timeline.Already, want holdfast.Kind, words ...string) {
	l.h.t.Helper()
	before := l.h.rows()
	_, err := l.add(by, already)
	if holdfast.KindOf(err) != want {
		l.h.t.Errorf("%s, %s: %v", what, already, err)
	}
	for _, w := range words {
		if !strings.Contains(fmt.Sprint(err), w) {
			l.h.t.Errorf("%s, %s: %v does not say %q", what, already, err, w)
		}
	}
	after := l.h.rows()
	for _, row := range after {
		if !slices.Contains(before, row) {
			l.h.t.Errorf("%s, %s: the refusal left %.200s", what, already, row)
		}
	}
	if len(before) != len(after) {
		l.h.t.Errorf("%s, %s: %d rows before, %d after", what, already, len(before), len(after))
	}
}

// are fails unless each stream has so many readings for the two.
func (l *loan) are(anna, ben int) {
	l.h.t.Helper()
	for _, stream := range []string{"pulse", "steps"} {
		l.h.has(l.from, l.device, stream, anna)
		l.h.has(l.to, l.device, stream, ben)
	}
}

// rows is all that the catalog holds, a line for each row.
func (h *house) rows() (out []string) {
	h.t.Helper()
	err := h.stores.catalog.Read(h.t.Context(), func(tx *sql.Tx) error {
		out = out[:0]
		var tables []string
		q, err := tx.Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`)
		if err != nil {
			return err
		}
		for q.Next() {
			var name string
			if err := q.Scan(&name); err != nil {
				return err
			}
			tables = append(tables, name)
		}
		if err := q.Close(); err != nil {
			return err
		}
		for _, table := range tables {
			q, err := tx.Query(`SELECT * FROM "` + table + `"`)
			if err != nil {
				return err
			}
			columns, err := q.Columns()
			if err != nil {
				return err
			}
			values, at := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				at[i] = &values[i]
			}
			for q.Next() {
				if err := q.Scan(at...); err != nil {
					return err
				}
				out = append(out, fmt.Sprintf("%s %x", table, values))
			}
			if err := q.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// While an erasure covers any of what a change of owner would move or erase, and can
// still be undone, the change is refused as a whole, and an undo brings all back.
func TestNoReadingMovesOutOfAWindow(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	for _, k := range []struct {
		name  string
		scope func(*loan) (holdfast.Scope, error)
	}{
		{"stream", func(l *loan) (holdfast.Scope, error) {
			return h.custody.ScopeOfStream(t.Context(), l.device.Device, "pulse")
		}},
		{"device", func(l *loan) (holdfast.Scope, error) { return h.custody.ScopeOfDevice(t.Context(), l.device.Device) }},
		{"span", func(l *loan) (holdfast.Scope, error) {
			s, err := h.custody.ScopeOfDevice(t.Context(), l.device.Device)
			s.Span = holdfast.Span{From: l.spec.From.UnixNano(), To: l.spec.To.UnixNano()}
			return s, err
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			l := h.lends(anna, ben, k.name)
			e := h.wants(anna, h.scope(k.scope(l)), erasure.Wish{Undo: time.Hour})
			for _, already := range []timeline.Already{timeline.Move, timeline.Erase} {
				l.refused("a window", anna, already, holdfast.Conflict, e.ID.String(), "undo it, or let it end", e.Until.Format(time.RFC3339))
			}
			if err := h.Server.erasure.Once(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
				t.Fatal(err)
			}
			l.are(2, 0)
			if r, err := l.add(anna, timeline.Move); err != nil || r.Moved != 4 || r.Pending != nil {
				t.Errorf("moved after the undo: %+v, %v", r, err)
			}
			if err := h.Server.erasure.Once(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.are(0, 2)
		})
	}
	t.Run("keep", func(t *testing.T) {
		l := h.lends(anna, ben, "keep")
		e := h.wants(anna, h.scope(h.custody.ScopeOfStream(t.Context(), l.device.Device, "pulse")), erasure.Wish{Undo: time.Hour})
		if _, err := l.add(anna, timeline.Keep); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
			t.Fatal(err)
		}
		l.are(2, 0)
	})
	t.Run("into", func(t *testing.T) { // the other way: back into what waits
		l := h.lends(anna, ben, "into")
		r, err := l.add(anna, timeline.Move)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Server.erasure.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.mustSend(l.device, number("pulse", time.Now(), 7))
		e := h.wants(anna, h.scope(h.custody.ScopeOfDevice(t.Context(), l.device.Device)), erasure.Wish{Undo: time.Hour})
		before := h.rows()
		if _, err := h.timeline.End(t.Context(), ben, r.ID, l.spec.From, timeline.Move); holdfast.KindOf(err) != holdfast.Conflict || strings.Contains(fmt.Sprint(err), e.ID.String()) {
			t.Errorf("moved back into what waits: %v", err)
		}
		if after := h.rows(); !slices.Equal(before, after) {
			t.Error("the refusal changed the catalog")
		}
		if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
			t.Fatal(err)
		}
		h.has(anna, l.device, "pulse", 1)
		h.has(ben, l.device, "pulse", 2)
	})
}

// Whatever refuses to move or to erase readings refuses the whole change, before
// anything of it is done.
func TestAChangeOfOwnerIsRefusedAsAWhole(t *testing.T) {
	h := newHouse(t)
	anna, ben, admin := h.person("Anna"), h.person("Ben"), h.admin()
	both := []timeline.Already{timeline.Move, timeline.Erase}
	by := grant.HoldBy{Caller: grant.Caller{Credential: admin.Credential, Party: admin.Party}, Administrator: true}
	for _, k := range []struct {
		name string
		spec grant.HoldSpec
	}{
		{"claim", grant.HoldSpec{Kind: grant.Claim, Reason: "case 12"}},
		{"law", grant.HoldSpec{Kind: grant.Law, Reason: "order 7"}},
		{"secret", grant.HoldSpec{Kind: grant.Law, Reason: "order 7", Secret: true}},
		{"one stream", grant.HoldSpec{Kind: grant.Claim, Reason: "case 13", Streams: []string{"steps"}}},
	} {
		l := h.lends(anna, ben, k.name)
		k.spec.Whose, k.spec.Assignments = anna.Party, []holdfast.AssignmentID{l.device.Assignment}
		hold, err := h.grants.AddHold(t.Context(), by, k.spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, already := range both {
			l.refused(k.name, anna, already, holdfast.Denied, "nothing was changed")
			if _, err := l.add(anna, already); k.spec.Secret && strings.Contains(fmt.Sprint(err), hold.ID.String()) {
				t.Errorf("a secret hold is named: %v", err)
			}
		}
		l.are(2, 0)
		if _, err := l.add(anna, timeline.Keep); err != nil { // what is held stays where it is
			t.Errorf("%s, keep: %v", k.name, err)
		}
		l.are(2, 0)
	}

	l := h.lends(anna, ben, "asked") // and not carried out yet: a holder may be away
	e, err := h.Server.erasure.Ask(t.Context(), anna, h.scope(h.custody.ScopeOfStream(t.Context(), l.device.Device, "pulse")))
	if err != nil {
		t.Fatal(err)
	}
	for _, already := range both {
		l.refused("an erasure under way", anna, already, holdfast.Conflict, e.ID.String(), "wait until it is done")
	}
	h.passes(e.ID, erasure.Done)
	if r, err := l.add(anna, timeline.Move); err != nil || r.Moved != 2 {
		t.Errorf("moved after the erasure was done: %+v, %v", r, err)
	}

	l = h.lends(anna, ben, "credential")
	fresh, writes := anna, anna
	fresh.Settled, writes.Scopes = false, access.ScopeWrite
	for _, already := range both {
		l.refused("a credential that is not settled", fresh, already, holdfast.Denied)
	}
	l.refused("a credential that may not read", writes, timeline.Move, holdfast.Denied)

	for _, already := range both {
		first, second := h.lends(anna, ben, "first of "+string(already)), h.lends(anna, ben, "second of "+string(already))
		if r, err := first.add(anna, already); err != nil || r.Pending != nil {
			t.Errorf("%s: %+v, %v", already, r, err)
		}
		second.are(2, 0)
	}
}

// What waits for a second administrator may yet be approved: nothing of it moves away.
func TestNoReadingMovesWhileAnErasureWaitsForApproval(t *testing.T) {
	h := newHouse(t)
	h.Server.erasure.Policy.Bulk = 1
	first, second := h.administrator(), h.administrator()
	anna, ben := h.person("Anna"), h.person("Ben")
	l := h.lends(anna, ben, "watch")
	s := h.scope(h.custody.ScopeOfDevice(t.Context(), l.device.Device))
	s.Assignments = append(s.Assignments, h.device(anna.Party, "scale").Assignment)
	e := h.wants(first, s, erasure.Wish{})
	if e.State != erasure.Approval {
		t.Fatalf("it is %s", e.State)
	}
	for _, already := range []timeline.Already{timeline.Move, timeline.Erase} {
		l.refused("approval", anna, already, holdfast.Conflict, e.ID.String(), "waits for approval")
	}
	if _, err := h.Server.erasure.Refuse(t.Context(), second, e.ID); err != nil {
		t.Fatal(err)
	}
	if r, err := l.add(anna, timeline.Move); err != nil || r.Moved != 4 {
		t.Errorf("moved when it was refused: %+v, %v", r, err)
	}
}

// While readings are on their way, no erasure of them is accepted, with a window or
// without; nor another change that moves them.
func TestNothingIsErasedOnItsWay(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	l := h.lends(anna, ben, "watch")
	stream := h.scope(h.custody.ScopeOfStream(t.Context(), l.device.Device, "pulse"))
	stream.Span = holdfast.Span{From: l.spec.From.UnixNano(), To: l.spec.To.UnixNano()}
	device := h.scope(h.custody.ScopeOfDevice(t.Context(), l.device.Device))
	c, err := h.Server.erasure.Claim(t.Context(), anna, []holdfast.Scope{stream}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []erasure.Wish{{}, {Undo: time.Hour}} {
		h.refused("on its way", holdfast.Conflict, anna, stream, w)
		h.refused("on its way", holdfast.Conflict, anna, device, w)
	}
	l.refused("on its way", anna, timeline.Move, holdfast.Conflict, "being moved or erased")
	c.Release()
	e := h.wants(anna, device, erasure.Wish{Undo: time.Hour})
	if _, err := h.Server.erasure.Undo(t.Context(), anna, e.ID); err != nil {
		t.Fatal(err)
	}
	l.are(2, 0)
}
