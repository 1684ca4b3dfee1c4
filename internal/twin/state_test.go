package twin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// The examples of RFC 7396, appendix A, whose target and patch are objects.
func TestMergePatchOfTheRFC(t *testing.T) {
	for _, x := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`}, {`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`}, {`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`}, {`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`}, {`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`}, {`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`}, {`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["example","sample"],"content":"This will be unchanged"}`,
			`{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},"tags":["example"]}`,
			`{"author":{"givenName":"John"},"content":"This will be unchanged","phoneNumber":"+01-123-456-7890","tags":["example"],"title":"Hello!"}`},
	} {
		got, err := Change{true, []byte(x[1])}.apply("it", json.RawMessage(x[0]))
		if err != nil || string(got) != x[2] {
			t.Errorf("%s patched with %s: %s, %v; want %s", x[0], x[1], got, err, x[2])
		}
	}
}

func TestDelta(t *testing.T) {
	for _, x := range [][3]string{
		{`{}`, `{"a":1}`, `{}`}, {`{"a":1}`, `{}`, `{"a":1}`}, {`{"a":1}`, `{"a":1.0,"b":2}`, `{}`}, {`{"a":1}`, `{"a":2}`, `{"a":1}`},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":3}}`, `{"a":{"c":2}}`}, {`{"a":{"b":1}}`, `{"a":7}`, `{"a":{"b":1}}`}, {`{"a":[1,2]}`, `{"a":[1,2.0]}`, `{}`},
		{`{"a":[1,{"b":1}]}`, `{"a":[1,{"b":2}]}`, `{"a":[1,{"b":1}]}`}, {`{"a":9007199254740993}`, `{"a":9007199254740992}`, `{"a":9007199254740993}`},
		{`{"a":true}`, `{"a":true}`, `{}`}, {`{"a":"x"}`, `{"a":null}`, `{"a":"x"}`}, {`{"a":{}}`, `{}`, `{"a":{}}`},
	} {
		got, err := Twin{Desired: json.RawMessage(x[0]), Reported: json.RawMessage(x[1])}.Delta()
		if err != nil || string(got) != x[2] {
			t.Errorf("%s of %s: %s, %v; want %s", x[0], x[1], got, err, x[2])
		}
	}
}

// A device that merges each delta into its state ends at what is desired, whatever
// the two are.
func TestDeltasLeadToWhatIsDesired(t *testing.T) {
	seed := testseed.Of(t)
	r := rand.New(rand.NewPCG(seed, 1))
	var draw func(deep int) any
	draw = func(deep int) any {
		switch n := r.IntN(6); {
		case n < 2 && deep > 0:
			m := map[string]any{}
			for range r.IntN(4) {
				m[string(rune('a'+r.IntN(4)))] = draw(deep - 1)
			}
			return m
		case n == 2:
			return []any{json.Number("1"), "x"}
		case n == 3:
			return r.IntN(2) == 0
		}
		return json.Number(fmt.Sprint(r.IntN(3)))
	}
	object := func() map[string]any {
		return map[string]any{"p": draw(3), "q": draw(3)}
	}
	for range 2_000 {
		want, have := object(), object()
		after := merge(have, delta(want, have))
		if left := delta(want, after); len(left) > 0 {
			t.Fatalf("desired %v, reported %v: after the delta %v differs", want, have, left)
		}
		if again := delta(want, want); len(again) > 0 {
			t.Fatalf("%v differs from itself by %v", want, again)
		}
	}
}

// Versions only grow, a stale one is refused, and the device is told the newest alone.
func TestDesired(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	u := e.subscribe(lamp, "desired", "")
	silent(t, u)
	set := func(version int64, c Change) (Twin, error) {
		return e.SetDesired(t.Context(), by, lamp.Device, version, c)
	}
	for i, x := range []struct {
		version int64
		c       Change
		want    string
		now     int64
	}{
		{0, Change{false, []byte(` {"colour": "red", "level": 3}`)}, `{"colour":"red","level":3}`, 1},
		{1, Change{true, []byte(`{"level":null,"on":true}`)}, `{"colour":"red","on":true}`, 2},
		{-1, Change{true, []byte(`{"on":true}`)}, `{"colour":"red","on":true}`, 2}, // nothing is new
		{-1, Change{false, []byte(`{"on":12345678901234567890}`)}, `{"on":12345678901234567890}`, 3},
	} {
		got, err := set(x.version, x.c)
		if err != nil || string(got.Desired) != x.want || got.DesiredVersion != x.now {
			t.Errorf("change %d: %s version %d, %v", i, got.Desired, got.DesiredVersion, err)
		}
	}
	m := next(t, u)
	if string(m.Payload) != `{"version":3,"state":{"on":12345678901234567890}}` || m.Topic != "desired" || m.Expiry != 0 {
		t.Errorf("%s %s", m.Topic, m.Payload)
	}
	silent(t, u)
	silent(t, e.subscribe(lamp, "desired", m.Mark))
	if again := next(t, e.subscribe(lamp, "desired", "")); string(again.Payload) != string(m.Payload) {
		t.Errorf("%s", again.Payload)
	}
	_, err := set(2, Change{false, []byte(`{}`)})
	kind(t, err, holdfast.Conflict, "is of version 3")
	deep := strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1)
	for says, text := range map[string]string{"must be a JSON object": `[1]`, "must be JSON": `{"a"`, "16 levels": deep, "JSON object": `null`} {
		_, err := set(-1, Change{false, []byte(text)})
		kind(t, err, holdfast.Invalid, says)
		_, err = e.Report(t.Context(), lamp, "", Change{false, []byte(text)})
		kind(t, err, holdfast.Invalid, says)
	}
	_, err = set(-1, Change{false, []byte(`{"a":"` + strings.Repeat("x", MaxDocument) + `"}`)})
	kind(t, err, holdfast.TooLarge, "at most 32768 bytes")
	half := `"` + strings.Repeat("x", MaxDocument/2) + `"`
	if _, err := set(-1, Change{true, []byte(`{"a":` + half + `}`)}); err != nil {
		t.Fatal(err)
	}
	_, err = set(-1, Change{true, []byte(`{"b":` + half + `}`)}) // small, and too much in all
	kind(t, err, holdfast.TooLarge, "at most 32768 bytes")
	if got, err := e.Twin(t.Context(), by, lamp.Device); err != nil || got.DesiredVersion != 4 {
		t.Errorf("%d, %v", got.DesiredVersion, err)
	}
	if d := cmp.Diff([]string{"desired changed", "desired changed", "desired changed", "desired changed"}, e.record(anna)); d != "" {
		t.Error(d)
	}
	if err := e.Store.Erase(t.Context(), holdfast.Scope{}); err != nil {
		t.Error(err)
	}
}

// A device reports all or what has changed; not when its owner has stopped that, and
// not all the time.
func TestReported(t *testing.T) {
	e := newEstate(t, Options{})
	anna := e.party()
	lamp, by := e.device(anna, holdfast.DeviceID{}, ""), owner(anna)
	for i, x := range []struct {
		payload, want string
		version       int64
	}{
		{`{"state":{"on":false,"level":1}}`, `{"level":1,"on":false}`, 1}, {`{"patch":{"on":true}}`, `{"level":1,"on":true}`, 2},
		{`{"patch":{"on":true}}`, `{"level":1,"on":true}`, 2}, {`{"state":{}}`, `{}`, 3},
	} {
		c, err := ParseReport([]byte(x.payload))
		if err != nil {
			t.Fatal(err)
		}
		v, err := e.Report(t.Context(), lamp, "", c)
		got, seen := e.Twin(t.Context(), by, lamp.Device)
		if err != nil || seen != nil || v != x.version || string(got.Reported) != x.want || got.ReportedVersion != v {
			t.Errorf("report %d: %s version %d, %v %v", i, got.Reported, v, err, seen)
		}
	}
	for _, bad := range []string{``, `{}`, `{"on":true}`, `{"state":{},"patch":{}}`, `[]`, `7`, `{"state":{}} {}`} {
		_, err := ParseReport([]byte(bad))
		kind(t, err, holdfast.Invalid, "")
	}
	e.stopped = true
	_, err := e.Report(t.Context(), lamp, "", Change{State: []byte(`{"a":1}`)})
	kind(t, err, holdfast.Denied, "collection was stopped")
	e.stopped = false
	for i := range reportsAtOnce {
		if _, err = e.Report(t.Context(), lamp, "", Change{State: []byte(fmt.Sprintf(`{"a":%d}`, i))}); err != nil {
			break
		}
	}
	kind(t, err, holdfast.Unavailable, "too often")
	if n := len(e.record(anna)); n != 0 {
		t.Errorf("%d events of a device's own state", n)
	}
}

// A watch ends on time, on a change, and with its request; and what it waited for is
// not missed if it came in between.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watching{of: map[holdfast.DeviceID]map[*watch]struct{}{}, most: 1}
		d, g := holdfast.DeviceID{1}, holdfast.DeviceID{2}
		x, err := w.enter(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.enter(g); holdfast.KindOf(err) != holdfast.Unavailable {
			t.Error(err)
		}
		begun := time.Now()
		if err := x.wait(t.Context(), time.Minute); err != nil || time.Since(begun) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		w.changed(Standing{Device: d, Gateway: g})
		w.changed(Standing{Device: d, Gateway: g})
		if err := x.wait(t.Context(), 0); err != nil || time.Since(begun) != time.Minute {
			t.Error("a change before the wait was missed")
		}
		if got, ok := x.next(); !ok || got != d {
			t.Errorf("%v %v", got, ok)
		}
		if _, ok := x.next(); ok {
			t.Error("told twice")
		}
		go func() {
			time.Sleep(time.Hour)
			w.changed(Standing{Device: g})
		}()
		if err := x.wait(t.Context(), 0); err != nil || time.Since(begun) != time.Hour+time.Minute {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		x.leave()
		w.changed(Standing{Device: g})
		if len(w.of) != 0 {
			t.Error("a watch is left")
		}
	})
}

func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{"b":[1,2.5e3,"\"}"]}}`, `{"a":null}`, `{"\u0000":1}`, `[[[[`, `{"a":1}x`} {
		f.Add([]byte(s), []byte(`{"a":{"b":2}}`))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, err := object("it", a)
		if err != nil {
			return
		}
		kept, err := stored("it", x)
		if err != nil && holdfast.KindOf(err) != holdfast.TooLarge {
			t.Fatalf("%q is taken and can't be kept: %v", a, err)
		}
		if err == nil {
			if again, err := object("it", kept); err != nil || !equal(x, again) {
				t.Fatalf("%q is kept as %q: %v", a, kept, err)
			}
		}
		if y, err := object("it", b); err == nil {
			if left := delta(x, merge(y, delta(x, y))); len(left) > 0 && !strings.Contains(string(a), "null") {
				t.Fatalf("%q of %q leaves %v", a, b, left)
			}
		}
	})
}
