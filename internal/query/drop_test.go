package query_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// TestDroppedDevice: who may not know which device it is knows it by no path.
func TestDroppedDevice(t *testing.T) {
	h := lend(t, policy.Obligations{Drop: []policy.Field{policy.FieldDevice}})
	other := h.Program(h.Party("Other Lab").Party, "research")
	labels := []string{"a-bedroom", "b-kitchen"}
	var ids []holdfast.DeviceID
	for i, label := range labels {
		d := h.device(label)
		ids = append(ids, d.ID)
		h.Send(d, h.at(0, "x", holdfast.NumberValue(float64(i))), h.at(1, "x", holdfast.NumberValue(5)), h.at(0, "y", holdfast.NumberValue(7)))
	}
	all := ask(h.lab, query.Selection{Party: h.anna.Party})
	rows, res := collect(t, h.Query, all)
	seen := map[string]bool{}
	for _, r := range rows {
		seen[r.DeviceName] = true
		if slices.Contains(ids, r.Device) || slices.Contains(labels, r.DeviceName) || r.DeviceName != r.Device.String() || !r.Assignment.IsZero() || r.Profile != "" {
			t.Errorf("%+v", r.Source)
		}
	}
	if len(rows) != 6 || len(seen) != 4 { // each stream is a stranger to the others
		t.Error(len(rows), "rows of", len(seen))
	}
	again, _ := collect(t, h.Query, all)
	if diff := cmp.Diff(values(rows), values(again)); diff != "" {
		t.Error("it is another name each time:", diff)
	}
	t.Run("pages and cursors", func(t *testing.T) {
		page, got := all, []query.Row(nil)
		for page.Limit = 1; ; {
			rows, res := collect(t, h.Query, page)
			got = append(got, rows...)
			if page.Cursor = res.Cursor(); page.Cursor == "" {
				break
			}
			raw, err := base64.RawURLEncoding.DecodeString(page.Cursor)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range ids {
				streams, err := h.Custody.StreamByName(t.Context(), d, "x")
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(raw), string(d[:])) || strings.Contains(string(raw), string(streams.ID[:])) {
					t.Error("the cursor carries an id that was dropped")
				}
			}
		}
		if diff := cmp.Diff(texts(rows), texts(got)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the device can't be named", func(t *testing.T) {
		there := refused(t, h.Query, holdfast.Denied, ask(h.lab, query.Selection{Device: ids[0]}))
		for _, s := range []query.Selection{{Device: holdfast.NewID[holdfast.DeviceID]()}, {Device: ids[0], Stream: "x"}, {Device: ids[0], Stream: "none"}} {
			if msg := refused(t, h.Query, holdfast.Denied, ask(h.lab, s)); msg != there {
				t.Errorf("%q, of one that is there %q", msg, there)
			}
		}
		refused(t, h.Query, holdfast.Denied, ask(h.lab, query.Selection{Device: res.Sources[0].Device})) // nor by its pseudonym
	})
	t.Run("in groups", func(t *testing.T) {
		g := all
		g.Every, g.Aggregates, g.By = time.Hour, []query.Aggregate{query.Count}, query.ByDevice|query.ByProfile
		rows, _ := collect(t, h.Query, g)
		for _, r := range rows {
			if !seen[r.DeviceName] || r.Streams != 1 {
				t.Errorf("%+v", r.Source)
			}
		}
		if len(rows) != 4 {
			t.Error(len(rows))
		}
	})
	t.Run("another grant has other names", func(t *testing.T) {
		h.lab = other
		h.lend(policy.Obligations{Drop: []policy.Field{policy.FieldDevice}}, holdfast.Always)
		rows, _ := collect(t, h.Query, ask(other, query.Selection{Party: h.anna.Party}))
		for _, r := range rows {
			if seen[r.DeviceName] {
				t.Error("two readers can join what they have")
			}
		}
	})
}

// TestDroppedFields: sequence, mark and altitude are gone from rows.
func TestDroppedFields(t *testing.T) {
	h := lend(t, policy.Obligations{Drop: []policy.Field{policy.FieldSequence, policy.FieldMark}})
	d := h.device("a")
	s := h.at(0, "x", holdfast.NumberValue(1))
	s.Seq = 77
	untimed := holdfast.Sample{Stream: "x", Value: holdfast.NumberValue(2)} // marked as stamped
	h.Send(d, s, untimed)
	rows, _ := collect(t, h.Query, ask(h.lab, query.Selection{Device: d.ID}))
	own, _ := collect(t, h.Query, ask(h.anna, query.Selection{Device: d.ID}))
	if len(rows) != 2 || rows[0].Seq != 0 || rows[1].Mark != 0 || own[0].Seq != 77 || own[1].Mark == 0 {
		t.Error(rows, own)
	}
}

// TestWhatIsRefusedUnderObligations: each refusal says what to ask.
func TestWhatIsRefusedUnderObligations(t *testing.T) {
	h := lend(t, policy.Obligations{Every: time.Hour})
	d := h.device("a")
	two := 2
	h.Send(d, h.at(0, "x", holdfast.NumberValue(1)), h.at(0, "note", holdfast.TextValue("hello")), h.at(0, "place", holdfast.LocationValue(holdfast.Position{Latitude: 52.23456, Longitude: 21.0, Altitude: 100})))
	r := ask(h.lab, query.Selection{Device: d.ID, Stream: "x"})
	r.Span = h.span(0, 24*time.Hour)
	hours := func(every time.Duration, all ...query.Aggregate) query.Request {
		w := r
		w.Every, w.Aggregates = every, all
		return w
	}
	exact := hours(time.Hour, query.Mean)
	exact.Exact = true
	note, places := hours(time.Hour, query.First), hours(time.Hour, query.Last)
	note.Stream, places.Stream, places.By = "note", "place", query.Together
	for _, c := range []struct {
		r    query.Request
		want string
	}{
		{r, "only as windows of 1h0m0s or a multiple of it"},
		{hours(90*time.Minute, query.Mean), "begin and end at multiples of 1h0m0s"},
		{hours(time.Minute, query.Mean), "begin and end at multiples of 1h0m0s"},
		{hours(time.Hour, query.Mean, query.Max), "not max, which is of single readings"},
		{hours(time.Hour, query.Quantile(500_000)), "not p50, which"},
		{hours(time.Hour, query.Rate), "not rate"},
		{note, "have count and last, not first"},
		{places, "a group of values of type location has count only"},
		{exact, "takes it as it is or not at all"},
	} {
		if msg := refused(t, h.Query, holdfast.Denied, c.r); !strings.Contains(msg, c.want) {
			t.Errorf("%q, want %q", msg, c.want)
		}
	}
	h.lab = h.Program(h.Party("Map Lab").Party, "research")
	h.lend(policy.Obligations{Every: time.Hour, Decimals: &two}, holdfast.Always)
	places.Who, places.By = h.lab, 0
	rows, _ := collect(t, h.Query, places)
	if v, _ := rows[0].Window.Value(query.Last); len(rows) != 1 || v.Position().Latitude != 52.23 || v.Position().Altitude != 100 {
		t.Error(len(rows), v.Position())
	}
	text := places
	text.Stream = "note"
	if msg := refused(t, h.Query, holdfast.Denied, text); !strings.Contains(msg, "a text can't be rounded") {
		t.Error(msg)
	}
	wide := places
	wide.Stream, wide.Aggregates = "", []query.Aggregate{query.Count}
	if rows, _ := collect(t, h.Query, wide); len(rows) != 2 { // the text is left out
		t.Error(len(rows))
	}
	h.lab = h.Program(h.Party("Landlord").Party, "research")
	h.lend(policy.Obligations{MinGroup: 3}, holdfast.Always)
	alone := ask(h.lab, query.Selection{Party: h.anna.Party})
	if msg := refused(t, h.Query, holdfast.Denied, alone); !strings.Contains(msg, "declared group of at least 3") {
		t.Error(msg)
	}
	alone.Party, alone.Device = holdfast.PartyID{}, d.ID // whose device it is, is not told
	there := refused(t, h.Query, holdfast.Denied, alone)
	alone.Device = holdfast.NewID[holdfast.DeviceID]()
	if msg := refused(t, h.Query, holdfast.Denied, alone); msg != there {
		t.Errorf("%q, of one that is there %q", msg, there)
	}
}

// TestZonesUnderEvery: calendar windows come where they begin on the grid.
func TestZonesUnderEvery(t *testing.T) {
	h := lend(t, policy.Obligations{Delay: time.Hour})
	h.Send(h.device("a"), h.at(0, "x", holdfast.NumberValue(1)))
	for _, c := range []struct {
		every time.Duration
		c     query.Calendar
		zone  string
		ok    bool
	}{
		{time.Hour, query.Calendar{Days: 1}, "Europe/Warsaw", true},
		{time.Hour, query.Calendar{Months: 1}, "Europe/Warsaw", true},
		{time.Hour, query.Calendar{Days: 1}, "Asia/Kolkata", false},
		{30 * time.Minute, query.Calendar{Days: 1}, "Asia/Kolkata", true},
		{24 * time.Hour, query.Calendar{Days: 1}, "UTC", true},
		{24 * time.Hour, query.Calendar{Weeks: 1}, "UTC", true},
		{24 * time.Hour, query.Calendar{Months: 1}, "UTC", true},
		{24 * time.Hour, query.Calendar{Days: 1}, "Europe/Warsaw", false},
		{48 * time.Hour, query.Calendar{Days: 2}, "UTC", true},
		{48 * time.Hour, query.Calendar{Days: 3}, "UTC", false},
		{7 * 24 * time.Hour, query.Calendar{Weeks: 1}, "UTC", false}, // its weeks begin on Thursdays
		{7 * 24 * time.Hour, query.Calendar{Months: 1}, "UTC", false},
		{2 * time.Hour, query.Calendar{Days: 1}, "Europe/Warsaw", false},
	} {
		g := h.lend(policy.Obligations{Every: c.every}, holdfast.Always)
		var err error
		if c.c.Zone, err = query.ParseZone(c.zone); err != nil {
			t.Fatal(err)
		}
		r := query.Request{Who: h.lab, Selection: query.Selection{Party: h.anna.Party}, Grant: g.ID, Calendar: c.c, Aggregates: []query.Aggregate{query.Mean}, Span: holdfast.Span{From: h.zero.AddDate(-1, 0, 0).UnixNano(), To: h.Now().UnixNano()}}
		res, err := h.Query.Read(t.Context(), r)
		if err == nil {
			res.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%v as %+v of %s: %v", c.every, c.c, c.zone, err)
		}
	}
}
