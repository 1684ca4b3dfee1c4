package query_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// noon is when the readings of these tests begin.
var noon = time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)

func number(stream string, after time.Duration, f float64) holdfast.Sample {
	return querytest.At(stream, noon.Add(after), holdfast.NumberValue(f))
}

// collect returns the rows of a request, which must be allowed.
func collect(t testing.TB, q *query.Query, r query.Request) ([]query.Row, *query.Result) {
	t.Helper()
	res, err := q.Read(t.Context(), r)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	var rows []query.Row
	for row, err := range res.Rows {
		if err != nil {
			t.Fatalf("row %d: %v", len(rows), err)
		}
		if row.Window != nil {
			w := *row.Window
			row.Window = &w
		}
		rows = append(rows, row)
	}
	return rows, res
}

// values returns stream=value of number rows.
func values(rows []query.Row) map[string][]float64 {
	m := map[string][]float64{}
	for _, r := range rows {
		m[r.DeviceName+"/"+r.Stream] = append(m[r.DeviceName+"/"+r.Stream], r.Value.Number())
	}
	return m
}

// refused returns the text of a refusal of that kind.
func refused(t testing.TB, q *query.Query, kind holdfast.Kind, r query.Request) string {
	t.Helper()
	res, err := q.Read(t.Context(), r)
	if err == nil {
		res.Close()
		t.Fatalf("it was allowed, want %v", kind)
	}
	if holdfast.KindOf(err) != kind {
		t.Fatalf("%v: %v, want %v", holdfast.KindOf(err), err, kind)
	}
	return err.Error()
}

func ask(who access.Principal, s query.Selection) query.Request {
	return query.Request{Who: who, Selection: s, Span: holdfast.Always}
}

func with(r query.Request, p holdfast.Purpose) query.Request {
	r.Purpose = p
	return r
}

// TestAnna tells of one owner, one recipient and an operator who may not.
func TestAnna(t *testing.T) {
	h := querytest.Build(t)
	h.Purpose("research")
	h.Purpose("marketing")
	anna, lab := h.Party("Anna Kowalska"), h.Party("Sleep Lab")
	program := h.Program(lab.Party, "research", "marketing")
	press := h.Device(custody.DeviceSpec{Label: "press-7"})
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	h.Send(press, number("load", 0, 1), number("load", time.Second, 2))
	h.Send(watch, number("heart", 0, 61), number("heart", time.Minute, 62), number("heart", time.Hour, 63), number("steps", 0, 7))

	device := func(d custody.Device) query.Selection { return query.Selection{Device: d.ID} }
	stream := func(d custody.Device, s string) query.Selection {
		return query.Selection{Device: d.ID, Stream: s}
	}
	t.Run("the operator reads its own device", func(t *testing.T) {
		rows, res := collect(t, h.Query, ask(h.Admin, device(press)))
		if diff := cmp.Diff(map[string][]float64{"press-7/load": {1, 2}}, values(rows)); diff != "" || res.Purpose != holdfast.Operation {
			t.Error(res.Purpose, diff)
		}
	})
	t.Run("but not Anna's", func(t *testing.T) {
		for _, s := range []query.Selection{device(watch), stream(watch, "heart"), stream(watch, "no such"), {Party: anna.Party}} {
			if msg := refused(t, h.Query, holdfast.Denied, ask(h.Admin, s)); !strings.Contains(msg, "can make one for the purpose \"operation\"") {
				t.Error(msg)
			}
		}
		refused(t, h.Query, holdfast.Denied, with(ask(h.Admin, device(watch)), holdfast.OwnAccess))
	})
	t.Run("Anna reads her own", func(t *testing.T) {
		rows, res := collect(t, h.Query, ask(anna, query.Selection{Party: anna.Party}))
		want := map[string][]float64{"watch/heart": {61, 62, 63}, "watch/steps": {7}}
		if diff := cmp.Diff(want, values(rows)); diff != "" || res.Purpose != holdfast.OwnAccess || res.Withheld != 0 {
			t.Error(res.Purpose, res.Withheld, diff)
		}
		if msg := refused(t, h.Query, holdfast.NotFound, ask(anna, stream(watch, "no such"))); strings.Contains(msg, "no such stream of") {
			t.Error(msg)
		}
		refused(t, h.Query, holdfast.Denied, ask(anna, device(press)))
	})
	t.Run("nobody else can tell that it exists", func(t *testing.T) {
		r := func(s query.Selection) query.Request { return with(ask(program, s), "research") }
		there := refused(t, h.Query, holdfast.Denied, r(stream(watch, "heart")))
		for _, s := range []query.Selection{
			device(watch), device(press), {Device: holdfast.NewID[holdfast.DeviceID]()}, stream(watch, "no such"),
			{Party: anna.Party}, {Party: h.Acme}, {Party: holdfast.NewID[holdfast.PartyID]()},
		} {
			if msg := refused(t, h.Query, holdfast.Denied, r(s)); msg != there {
				t.Errorf("%v: %q differs from %q", s, msg, there)
			}
		}
		if msg := refused(t, h.Query, holdfast.NotFound, ask(h.Admin, query.Selection{Device: holdfast.NewID[holdfast.DeviceID]()})); !strings.Contains(msg, "no such") {
			t.Error(msg)
		}
	})

	g := h.Grant(anna, grant.Spec{
		Recipient: lab.Party, Purpose: "research", Devices: []holdfast.DeviceID{watch.ID}, Streams: []string{"heart"},
		Data:  holdfast.Span{From: noon.UnixNano(), To: noon.Add(30 * time.Minute).UnixNano()},
		Until: h.Now().Add(time.Hour),
	})
	t.Run("Anna asks what the lab may read, and why", func(t *testing.T) {
		all, err := h.Query.Explain(t.Context(), with(ask(program, query.Selection{Party: anna.Party}), "research"), anna.Party)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			granted := e.Device == watch.ID && e.Stream == "heart"
			if e.Allow != granted || granted && (e.Grant != g.ID || !strings.Contains(e.Texts[policy.GrantPolicy(g.ID)], `resource.name == "heart"`)) {
				t.Errorf("%s/%s: %+v", e.DeviceName, e.Stream, e.Decision)
			}
		}
		if len(all) < 2 {
			t.Errorf("%d streams", len(all))
		}
		if all, err := h.Query.Explain(t.Context(), with(ask(program, query.Selection{Party: anna.Party}), "research"), lab.Party); holdfast.KindOf(err) != holdfast.NotFound {
			t.Errorf("another learns of Anna's: %+v, %v", all, err)
		}
	})
	t.Run("the lab reads what Anna granted", func(t *testing.T) {
		rows, res := collect(t, h.Query, with(ask(program, query.Selection{Party: anna.Party}), "research"))
		if diff := cmp.Diff(map[string][]float64{"/heart": {61, 62}}, values(rows)); diff != "" || res.Withheld != 0 { // what else Anna has is not the lab's to know
			t.Error(res.Withheld, diff)
		}
		refused(t, h.Query, holdfast.Denied, with(ask(program, stream(watch, "steps")), "research"))
		refused(t, h.Query, holdfast.Denied, with(ask(program, stream(watch, "heart")), "marketing"))
		if msg := refused(t, h.Query, holdfast.Denied, with(ask(program, stream(watch, "heart")), "advice")); !strings.Contains(msg, "it holds research, marketing") {
			t.Error(msg)
		}
		refused(t, h.Query, holdfast.Invalid, ask(program, stream(watch, "heart"))) // which of two?
		other := with(ask(program, stream(watch, "heart")), "research")
		other.Span.From = noon.Add(time.Hour).UnixNano()
		refused(t, h.Query, holdfast.Denied, other)
		unread := program
		unread.Scopes = access.ScopeMetrics
		refused(t, h.Query, holdfast.Denied, with(ask(unread, stream(watch, "heart")), "research"))
	})
	t.Run("it is all on Anna's record", func(t *testing.T) {
		got, err := h.Register.Disclosures(t.Context(), anna.Party)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b grant.Disclosure) int { return strings.Compare(string(a.Purpose), string(b.Purpose)) })
		want := []grant.Disclosure{
			{Owner: anna.Party, Reader: anna.Credential, Role: "owner", Recipient: anna.Party, Purpose: holdfast.OwnAccess, Reason: policy.ByOwner, Policies: []string{"own-access"}, Reads: 1, Rows: 4,
				First: noon.UnixNano(), Final: noon.Add(time.Hour).UnixNano(), Complete: true},
			{Owner: anna.Party, Reader: program.Credential, Role: "program", Recipient: lab.Party, Purpose: "research", Grant: g.ID,
				Reason: policy.ByGrant, Policies: []string{"grant-" + g.ID.String()}, Reads: 1, Rows: 2,
				First: noon.UnixNano(), Final: noon.Add(time.Minute).UnixNano(), Complete: true},
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(grant.Disclosure{}, "ID", "Opened", "Last", "Streams")); diff != "" {
			t.Error(diff)
		}
		if len(got) == 2 && (len(got[0].Streams) != 2 || len(got[1].Streams) != 1) {
			t.Error("streams of the disclosures", got[0].Streams, got[1].Streams)
		}
	})
	t.Run("what ends is refused", func(t *testing.T) {
		r := with(ask(program, stream(watch, "heart")), "research")
		res, err := h.Query.Read(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Close()
		h.Later(2 * time.Hour)
		refused(t, h.Query, holdfast.Denied, r)
		spec := g.Spec
		spec.Until = h.Now().Add(time.Hour)
		again := h.Grant(anna, spec)
		if rows, _ := collect(t, h.Query, r); len(rows) != 2 {
			t.Error(len(rows), "rows under the new grant")
		}
		if err := h.Register.End(t.Context(), h.Caller(anna), again.ID); err != nil {
			t.Fatal(err)
		}
		refused(t, h.Query, holdfast.Denied, r)
	})
}

// An owner whose devices are all about others asks for all of his own and gets
// nothing, which is no refusal: there is an export of the rest of what is his.
func TestOwnerOfOthersDataAlone(t *testing.T) {
	h := querytest.Build(t)
	anna, bob := h.Party("Anna"), h.Party("Bob")
	van := h.Device(custody.DeviceSpec{Label: "van", Owner: anna.Party, Subject: bob.Party})
	h.Send(van, number("speed", 0, 50))
	if rows, res := collect(t, h.Query, ask(anna, query.Selection{Party: anna.Party})); len(rows) != 0 || res.Withheld != 1 {
		t.Errorf("%v, %d withheld", rows, res.Withheld)
	}
	refused(t, h.Query, holdfast.Denied, ask(anna, query.Selection{Device: van.ID}))
	refused(t, h.Query, holdfast.Denied, ask(anna, query.Selection{Party: bob.Party}))
}

// TestSubject: whose data it is, is the guest's, not the owner's.
func TestSubject(t *testing.T) {
	h := querytest.Build(t)
	bob := h.Party("Bob")
	van := h.Device(custody.DeviceSpec{Label: "van", Subject: bob.Party})
	h.Device(custody.DeviceSpec{Label: "empty"})
	h.Send(van, number("speed", 0, 50))
	r := ask(h.Admin, query.Selection{Party: h.Acme})
	refused(t, h.Query, holdfast.Denied, r)
	rows, _ := collect(t, h.Query, ask(bob, query.Selection{Party: bob.Party}))
	if diff := cmp.Diff(map[string][]float64{"van/speed": {50}}, values(rows)); diff != "" {
		t.Error(diff)
	}
	press := h.Device(custody.DeviceSpec{Label: "press"})
	h.Send(press, number("load", 0, 1))
	rows, res := collect(t, h.Query, r)
	if diff := cmp.Diff(map[string][]float64{"press/load": {1}}, values(rows)); diff != "" || res.Withheld != 1 {
		t.Error(res.Withheld, diff)
	}
	// A device without streams is known to its owner, and empty.
	fresh := h.Device(custody.DeviceSpec{Label: "fresh", Owner: bob.Party})
	if rows, res := collect(t, h.Query, ask(bob, query.Selection{Device: fresh.ID})); len(rows)+len(res.Disclosures) != 0 {
		t.Error(rows, res.Disclosures)
	}
	stranger := h.Party("Carol")
	refused(t, h.Query, holdfast.Denied, ask(stranger, query.Selection{Device: fresh.ID}))
}

// TestAcknowledgedIsVisible: at once, after the roll, and once.
func TestAcknowledgedIsVisible(t *testing.T) {
	h := querytest.Build(t)
	press := h.Device(custody.DeviceSpec{Label: "press"})
	r := ask(h.Admin, query.Selection{Device: press.ID, Stream: "load"})
	for i := range 4 {
		h.Send(press, number("load", time.Duration(i)*time.Second, float64(i)))
		h.Send(press, number("load", time.Duration(i)*time.Second, float64(i))) // again
		if i == 1 {
			h.Roll()
		}
		rows, _ := collect(t, h.Query, r)
		var want []float64
		for j := range i + 1 {
			want = append(want, float64(j))
		}
		if diff := cmp.Diff(map[string][]float64{"press/load": want}, values(rows)); diff != "" {
			t.Fatal(i, diff)
		}
	}
}

// TestEveryEndIsRecorded: a read that its reader leaves has the amount that left.
func TestEveryEndIsRecorded(t *testing.T) {
	h := querytest.Build(t)
	anna := h.Party("Anna")
	watch := h.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	var batch []holdfast.Sample
	for i := range 3000 {
		batch = append(batch, number("heart", time.Duration(1+i)*time.Second, float64(i)))
	}
	h.Send(watch, batch...)
	amount := func() (uint64, bool) {
		t.Helper()
		h.Later(time.Hour) // the next read has a disclosure of its own
		all, err := h.Register.Disclosures(t.Context(), anna.Party)
		if err != nil || len(all) == 0 {
			t.Fatal(all, err)
		}
		slices.SortFunc(all, func(a, b grant.Disclosure) int { return a.Opened.Compare(b.Opened) })
		return all[len(all)-1].Rows, all[len(all)-1].Complete
	}
	r := ask(anna, query.Selection{Party: anna.Party})

	res, err := h.Query.Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if rows, complete := amount(); rows != 0 || complete {
		t.Error("before the first row:", rows, complete)
	}
	if err := res.Close(); err != nil {
		t.Fatal(err)
	}
	if rows, complete := amount(); rows != 0 || !complete {
		t.Error("closed without a row:", rows, complete)
	}
	for _, err := range res.Rows {
		if err == nil {
			t.Fatal("a closed result gave a row")
		}
	}

	if res, err = h.Query.Read(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range res.Rows {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 10 {
			break
		}
	}
	if rows, complete := amount(); rows != 10 || !complete {
		t.Error("left after 10:", rows, complete)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if res, err = h.Query.Read(ctx, r); err != nil {
		t.Fatal(err)
	}
	n = 0
	var last error
	for _, err := range res.Rows {
		if last = err; err != nil {
			break
		}
		if n++; n == 5 {
			cancel()
		}
	}
	if rows, complete := amount(); last == nil || rows != uint64(n) || !complete || n < 5 {
		t.Error("cancelled:", last, rows, n, complete)
	}

	// A right that ends, ends the read.
	lab := h.Party("Lab")
	h.Purpose("research")
	g := h.Grant(anna, grant.Spec{
		Recipient: lab.Party, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour),
	})
	if res, err = h.Query.Read(t.Context(), ask(h.Program(lab.Party, "research"), query.Selection{Party: anna.Party})); err != nil {
		t.Fatal(err)
	}
	n = 0
	for _, err := range res.Rows {
		if last = err; err != nil {
			break
		}
		if n++; n == 10 {
			if err := h.Register.End(t.Context(), h.Caller(anna), g.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if rows, _ := amount(); holdfast.KindOf(last) != holdfast.Denied || rows != uint64(n) || n > 64 {
		t.Error("after the grant's end:", last, rows, n)
	}
}
