package custody

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestFirstReadingMakesTheStream(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	s := h.send(d.ID, holdfast.Sample{Stream: "temp", Value: holdfast.NumberValue(20), Unit: "Cel", Literal: true})
	want := &Stream{ID: s.ID, Assignment: d.Assignment, Name: "temp", Type: holdfast.Number, Unit: "Cel", Open: true, Purposes: []holdfast.Purpose{holdfast.Operation}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if again := h.send(d.ID, number("temp", 21)); again != s {
		t.Error("a second reading made another stream")
	}
	h.restart()
	if diff := cmp.Diff(want, h.send(d.ID, number("temp", 22))); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	if got, err := h.Stream(t.Context(), s.ID); err != nil || !cmp.Equal(got, want) {
		t.Errorf("by id: %+v, %v", got, err)
	}
	if all, err := h.Streams(t.Context(), d.ID); err != nil || !cmp.Equal(all, []*Stream{want}) {
		t.Errorf("of the device: %+v, %v", all, err)
	}
}

func TestOpenStreamTakesTheTypeOfItsFirstReading(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	for name, c := range map[string]struct {
		first holdfast.Sample
		want  holdfast.ValueType
	}{
		"plain number of JSON": {holdfast.Sample{Value: holdfast.NumberValue(1), Literal: true}, holdfast.Number},
		"integer literal":      {holdfast.Sample{Value: holdfast.IntegerValue(7), Literal: true}, holdfast.Number},
		"declared integer":     {holdfast.Sample{Value: holdfast.IntegerValue(7)}, holdfast.Integer},
		"boolean":              {holdfast.Sample{Value: holdfast.BooleanValue(true)}, holdfast.Boolean},
		"text":                 {holdfast.Sample{Value: holdfast.TextValue("NaN")}, holdfast.Text},
		"bytes":                {holdfast.Sample{Value: holdfast.BytesValue([]byte{0})}, holdfast.Bytes},
		"location":             {holdfast.Sample{Value: holdfast.LocationValue(holdfast.Position{Latitude: 1})}, holdfast.Location},
	} {
		c.first.Stream = name
		if s := h.send(d.ID, c.first); s.Type != c.want {
			t.Errorf("%s made a %s stream", name, s.Type)
		}
	}
	_, err := h.OpenStream(t.Context(), h.route(d.ID), holdfast.Sample{Stream: "huge", Literal: true, Value: holdfast.IntegerValue(1<<53 + 1)})
	wants(t, err, holdfast.Invalid, "holds it exactly")
	if _, err := h.StreamByName(t.Context(), d.ID, "huge"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("a reading that was refused made a stream: %v", err)
	}
	_, err = h.OpenStream(t.Context(), h.route(d.ID), number("a+b", 1))
	wants(t, err, holdfast.Invalid, "must not contain")
}

func TestOpenStreamLearnsItsUnitOnce(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	bare := h.send(d.ID, number("temp", 20))
	celsius := number("temp", 21)
	celsius.Unit = "Cel"
	s := h.send(d.ID, celsius)
	if s.ID != bare.ID || s.Unit != "Cel" {
		t.Fatalf("learnt %+v", s)
	}
	h.send(d.ID, number("temp", 22))
	kelvin := number("temp", 290)
	kelvin.Unit = "K"
	_, _, err := h.Accept(t.Context(), h.route(d.ID), &kelvin)
	wants(t, err, holdfast.Invalid, "unit is not the stream's")
	h.restart()
	if s := h.send(d.ID, celsius); s.Unit != "Cel" {
		t.Errorf("after a restart the unit is %q", s.Unit)
	}
}

func TestProfileSaysWhichStreamsThereAre(t *testing.T) {
	h := newHub(t)
	h.profile(`{"name":"band","version":1,"tags":{"host":"ignore","cpu":"prefix"},"streams":[
		{"name":"pulse","type":"integer","unit":"beat/min","category":"PhysicalHealth","purposes":["care"],"retention_days":30,"sensitivity":"special","minimum_tier":2},
		{"name":"steps","type":"integer","purposes":["operation"],"retention_days":63}]}`)
	d := h.device(DeviceSpec{Label: "band", Profile: "band"})
	// A higher version is for later devices.
	h.profile(`{"name":"band","version":2,"streams":[{"name":"pulse","type":"number","purposes":["operation"]}]}`)
	later := h.device(DeviceSpec{Label: "later", Profile: "band"})

	s := h.send(d.ID, number("pulse", 61))
	want := &Stream{ID: s.ID, Assignment: d.Assignment, Name: "pulse", Type: holdfast.Integer, Unit: "beat/min", Category: "https://w3id.org/dpv/pd#PhysicalHealth",
		Purposes: []holdfast.Purpose{"care"}, RetentionDays: 30, Sensitivity: SensitivitySpecial, MinimumTier: 2, Daily: true}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if s := h.send(d.ID, number("steps", 4)); s.Daily {
		t.Error("63 days of retention take a key per day")
	}
	if s := h.send(later.ID, number("pulse", 61.5)); s.Type != holdfast.Number {
		t.Errorf("the later device has the old profile: %+v", s)
	}
	_, err := h.OpenStream(t.Context(), h.route(d.ID), number("temp", 1))
	wants(t, err, holdfast.NotFound, "profile has no stream of this name")
	unit := number("steps", 1)
	unit.Unit = "m"
	_, _, err = h.Accept(t.Context(), h.route(d.ID), &unit)
	wants(t, err, holdfast.Invalid, "unit is not the stream's") // a profile without a unit means none
	r := h.route(d.ID)
	if rule, ok := r.Tag("cpu"); !ok || rule != TagPrefix {
		t.Errorf("tag cpu: %q, %v", rule, ok)
	}
	if _, ok := r.Tag("rack"); ok {
		t.Error("a tag nobody mapped is mapped")
	}
	if _, ok := h.route(later.ID).Tag("cpu"); ok {
		t.Error("the later version has the tags of the first")
	}
}

func TestDeviceHasAtMostAThousandStreams(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "chatty"})
	r := h.route(d.ID)
	full := make(map[string]*Stream, MaxStreams) // as if it had sent them: a thousand writes tell no more
	for i := range MaxStreams {
		full[fmt.Sprint("s", i)] = &Stream{Type: holdfast.Number, Assignment: d.Assignment}
	}
	r.streams.Store(&full)
	_, err := h.OpenStream(t.Context(), r, number("one more", 1))
	wants(t, err, holdfast.TooLarge, "at most 1000 streams")
	h.send(d.ID, number("s0", 1))
}

func TestClosedDeviceMakesNoStream(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	old := h.route(d.ID) // as ingest holds it while another closes the device
	if err := h.CloseAssignment(t.Context(), h.admin, d.Assignment); err != nil {
		t.Fatal(err)
	}
	_, err := h.OpenStream(t.Context(), old, number("temp", 1))
	wants(t, err, holdfast.Denied, "is closed")
}

func TestManyConnectionsOpenOneStream(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	var ids [8]holdfast.StreamID
	var wait sync.WaitGroup
	for i := range ids {
		wait.Go(func() {
			for n := range 5 {
				r, err := h.Route(t.Context(), d.ID)
				if err != nil {
					t.Error(err)
					return
				}
				s, _, err := h.Accept(t.Context(), r, new(number(fmt.Sprint("temp", n), 1)))
				if err != nil {
					t.Error(err)
					return
				}
				if n == 0 {
					ids[i] = s.ID
				}
				h.Forget(d.Assignment) // another's write empties the cache in between
			}
		})
	}
	wait.Wait()
	for _, id := range ids[1:] {
		if id != ids[0] {
			t.Error("one name has two ids")
		}
	}
	if all, err := h.Streams(t.Context(), d.ID); err != nil || len(all) != 5 {
		t.Errorf("%d streams, %v", len(all), err)
	}
}

// A route kept too long must not write over a stream that another made since.
func TestOldRouteDoesNotRedefineAStream(t *testing.T) {
	h := newHub(t)
	d := h.device(DeviceSpec{Label: "pump"})
	old := h.route(d.ID)
	h.Forget(d.Assignment)
	s := h.send(d.ID, number("temp", 20))
	_, _, err := h.Accept(t.Context(), old, &holdfast.Sample{Stream: "temp", Value: holdfast.TextValue("warm")})
	wants(t, err, holdfast.Invalid, "a number stream takes no text")
	if got, ok := old.Stream("temp"); !ok || got.ID != s.ID {
		t.Errorf("the old route has %+v", got)
	}
}

func TestRoutesAreBounded(t *testing.T) {
	h := newHub(t)
	h.max = 2
	for i := range 5 {
		h.route(h.device(DeviceSpec{Label: fmt.Sprint("d", i)}).ID)
	}
	if len(h.routes) != 2 {
		t.Errorf("%d routes are kept", len(h.routes))
	}
}

func TestAccept(t *testing.T) {
	num, inte, boo, text, byt, loc := holdfast.NumberValue, holdfast.IntegerValue, holdfast.BooleanValue, holdfast.TextValue, holdfast.BytesValue, holdfast.LocationValue
	for _, c := range []struct {
		stream holdfast.ValueType
		in     holdfast.Value
		want   holdfast.Value
		reason string
	}{
		{holdfast.Number, num(1.5), num(1.5), ""},
		{holdfast.Number, num(math.Copysign(0, -1)), num(math.Copysign(0, -1)), ""},
		{holdfast.Number, inte(1 << 53), num(1 << 53), ""},
		{holdfast.Number, inte(1<<53 + 1), num(0), "holds it exactly"},
		{holdfast.Number, inte(math.MaxInt64), num(0), "holds it exactly"},
		{holdfast.Number, inte(math.MinInt64), num(math.MinInt64), ""},
		{holdfast.Number, text("NaN"), num(math.NaN()), ""},
		{holdfast.Number, text("Infinity"), num(math.Inf(1)), ""},
		{holdfast.Number, text("+Infinity"), num(math.Inf(1)), ""},
		{holdfast.Number, text("-Infinity"), num(math.Inf(-1)), ""},
		{holdfast.Number, text("nan"), num(0), "takes no text but"},
		{holdfast.Number, text("12"), num(0), "takes no text but"},
		{holdfast.Number, boo(true), num(0), "stream is number, the reading is boolean"},
		{holdfast.Integer, inte(math.MaxInt64), inte(math.MaxInt64), ""},
		{holdfast.Integer, num(-3), inte(-3), ""},
		{holdfast.Integer, num(1 << 53), inte(1 << 53), ""},
		{holdfast.Integer, num(-(1 << 53)), inte(-(1 << 53)), ""},
		{holdfast.Integer, num(1<<53 + 2), inte(0), "whole and at most 2^53"},
		{holdfast.Integer, num(0.5), inte(0), "whole and at most 2^53"},
		{holdfast.Integer, num(math.NaN()), inte(0), "whole and at most 2^53"},
		{holdfast.Integer, num(math.Inf(1)), inte(0), "whole and at most 2^53"},
		{holdfast.Integer, text("7"), inte(0), "stream is integer, the reading is text"},
		{holdfast.Boolean, boo(false), boo(false), ""},
		{holdfast.Boolean, num(1), boo(true), "stream is boolean, the reading is number"},
		{holdfast.Text, text(""), text(""), ""},
		{holdfast.Text, num(1), text(""), "stream is text, the reading is number"},
		{holdfast.Bytes, byt([]byte{1, 2}), byt([]byte{1, 2}), ""},
		{holdfast.Bytes, text("AQI="), byt([]byte{1, 2}), ""},
		{holdfast.Bytes, text("AQI"), byt(nil), "standard base64"},
		{holdfast.Bytes, text("AQJ="), byt(nil), "standard base64"},
		{holdfast.Location, loc(holdfast.Position{Latitude: 1, Longitude: 2}), loc(holdfast.Position{Latitude: 1, Longitude: 2}), ""},
		{holdfast.Location, text("1,2"), loc(holdfast.Position{}), "stream is location, the reading is text"},
		{holdfast.Text, holdfast.Value{}, holdfast.Value{}, "the reading is unknown"},
	} {
		s := &Stream{Type: c.stream}
		got, err := s.Accept(&holdfast.Sample{Value: c.in})
		switch {
		case c.reason == "" && (err != nil || !got.Same(c.want)):
			t.Errorf("%s stream, %s: %v, %v", c.stream, c.in.Type(), got, err)
		case c.reason != "":
			wants(t, err, holdfast.Invalid, c.reason)
		}
	}
	_, err := (&Stream{Type: holdfast.Bytes, Open: true}).Accept(&holdfast.Sample{Value: text("AQI=")})
	wants(t, err, holdfast.Invalid, "stream is bytes, the reading is text") // nobody declared that text means bytes here
	_, err = (&Stream{Type: holdfast.Number, Unit: "Cel"}).Accept(&holdfast.Sample{Value: text("secret"), Unit: "K"})
	wants(t, err, holdfast.Invalid, "unit")
	if strings.Contains(fmt.Sprint(err), "secret") || strings.Contains(fmt.Sprint(err), "Cel") {
		t.Errorf("the reason tells a value: %v", err)
	}
}

// Every category of the vocabulary can be a stream's, by each of its names, and no
// concept of another kind can.
func TestProfileTakesEveryCategory(t *testing.T) {
	for _, k := range []dpv.Kind{dpv.Purpose, dpv.Category, dpv.Basis, dpv.Consent, dpv.Right} {
		for _, c := range dpv.All(k) {
			for _, text := range []string{c.IRI, c.Short(), strings.TrimPrefix(c.Short(), "pd:")} {
				switch iri, err := categoryIRI(text); {
				case k == dpv.Category && (err != nil || iri != c.IRI):
					t.Errorf("%s: %s, %v", text, iri, err)
				case k != dpv.Category && (iri != "" || holdfast.KindOf(err) != holdfast.Invalid):
					t.Errorf("%s, a %s: %s, %v", text, k, iri, err)
				}
			}
		}
	}
}

func TestProfileIsReadStrictly(t *testing.T) {
	for file, reason := range map[string]string{
		`{`:                                                   "can't be read",
		`{"name":"a","version":1}`:                            "at least one stream",
		`{"name":"a","version":1} {}`:                         "more behind",
		`{"name":"a","versio":1}`:                             "unknown field",
		`{"name":"a/b","version":1}`:                          "must not contain /",
		`{"name":"a","streams":[{}]}`:                         "from 1",
		`{"name":"a","version":1.5}`:                          "can't be read",
		profileOf(``):                                         "no purpose",
		profileOf(`"purposes":[]`):                            "no purpose",
		profileOf(`"purposes":["a+"]`):                        "must not contain",
		profileOf(`"type":"float"`):                           "a value type is",
		profileOf(okP + `,"retention_days":-1`):               "retention_days",
		profileOf(okP + `,"retention_days":40000`):            "retention_days",
		profileOf(okP + `,"minimum_tier":4`):                  "minimum_tier",
		profileOf(okP + `,"sensitivity":"very"`):              "sensitivity is",
		profileOf(okP + `,"category":"a b"`):                  "a category is one of DPV",
		profileOf(okP + `,"category":"ftp://x/y"`):            "a category is one of DPV",
		profileOf(okP + `,"category":"Locaton"`):              "take a category of personal data, as pd:Location",
		profileOf(okP + `,"category":"dpv:Marketing"`):        "dpv:Marketing is a purpose; take a category",
		profileOf(okP + `},{"name":"s","type":"text",` + okP): "another of this name",
		profileOf(`"purposes":["a","a"]`):                     "twice",
		`{"name":"a","version":1,"streams":[{"name":"s","type":"text",` + okP + `}],"tags":{"host":"drop"}}`:     "a tag's rule",
		`{"name":"a","version":1,"streams":[{"name":"s","type":"text",` + okP + `}],"tags":{"device":"ignore"}}`: "declared child",
		strings.Repeat(" ", MaxProfileBytes+1): "at most",
	} {
		_, err := ParseProfile([]byte(file))
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.90s: %v, want %q", file, err, reason)
		}
		if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
			t.Errorf("%.90s: kind %v", file, k)
		}
	}
}

const okP = `"purposes":["operation"]`

func profileOf(more string) string {
	if !strings.Contains(more, `"type"`) || strings.Contains(more, `},{`) {
		more = strings.TrimSuffix(`"type":"text",`+more, ",")
	}
	return `{"name":"a","version":1,"streams":[{"name":"s",` + more + `}]}`
}

func TestTheProfileInTheDocumentIsOne(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(page), "```json\n")
	example, _, closed := strings.Cut(example, "```")
	if !found || !closed {
		t.Fatal("the page has no example")
	}
	if p, err := ParseProfile([]byte(example)); err != nil || len(p.Streams) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestProfileVersionsOnlyGrow(t *testing.T) {
	h := newHub(t)
	one := `{"name":"band","version":1,"streams":[{"name":"pulse","type":"integer","purposes":["operation"]}]}`
	h.profile(one)
	h.profile(one) // again is nothing
	_, err := h.AddProfile(t.Context(), h.admin, []byte(strings.Replace(one, "integer", "number", 1)))
	wants(t, err, holdfast.Conflict, "version 1 of this profile")
	h.profile(strings.Replace(one, `"version":1`, `"version":3`, 1))
	_, err = h.AddProfile(t.Context(), h.admin, []byte(strings.Replace(one, `"version":1`, `"version":2`, 1)))
	wants(t, err, holdfast.Conflict, "version 3 of this profile")
	all, err := h.Profiles(t.Context())
	if err != nil || len(all) != 2 || all[0].Version != 3 || all[1].Version != 1 {
		t.Errorf("profiles %+v, %v", all, err)
	}
	_, err = h.AddDevice(t.Context(), h.admin, DeviceSpec{Label: "x", Profile: "bracelet"})
	wants(t, err, holdfast.NotFound, "no such profile")
	if n := slices.Index(h.diary.kinds(vault.Hub), "profile added"); n < 0 {
		t.Error("profile is not recorded")
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte(profileOf(okP)))
	f.Add([]byte(`{"name":"band","version":1,"tags":{"host":"ignore"},"streams":[{"name":"p","type":"location","category":"https://w3id.org/dpv/pd#Location","purposes":["a"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProfile(b)
		if err != nil {
			return
		}
		for _, s := range p.Streams { // what was read can be opened
			if _, err := s.info().stream(holdfast.StreamID{}, holdfast.AssignmentID{}); err != nil {
				t.Error(err)
			}
		}
		if err := p.check(); err != nil {
			t.Errorf("checked again: %v", err)
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	h := newHub(b)
	d := h.device(DeviceSpec{Label: "pump"})
	h.send(d.ID, number("temp", 1))
	ctx := b.Context()
	b.Run("route", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.Route(ctx, d.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("route and stream", func(b *testing.B) {
		b.ReportAllocs()
		x := number("temp", 1)
		for b.Loop() {
			r, err := h.Route(ctx, d.ID)
			if err != nil {
				b.Fatal(err)
			}
			if _, _, err := h.Accept(ctx, r, &x); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := h.Route(ctx, d.ID); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
