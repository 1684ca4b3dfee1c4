package sparkplug

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

// payloads are what Eclipse Tahu's library for JavaScript encodes.
func payloads(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/payloads.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]string
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for name, h := range all {
		if out[name], err = hex.DecodeString(h); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestPayloadsAreWhatTheOtherLibraryEncodes(t *testing.T) {
	folder := os.Getenv("HOLDFAST_SPARKPLUG")
	if folder == "" {
		t.Skip("SKIPPED: HOLDFAST_SPARKPLUG does not name a folder with sparkplug-payload (./test installs one): its payloads are those of testdata")
	}
	got, err := exec.CommandContext(t.Context(), "node", "testdata/payloads.js", folder).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/payloads.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("testdata/payloads.json (-file +now):\n%s", diff)
	}
}

// plain is a value as a test writes it.
func plain(v holdfast.Value) any {
	switch v.Type() {
	case holdfast.Number:
		return v.Number()
	case holdfast.Integer:
		return v.Integer()
	case holdfast.Boolean:
		return v.Boolean()
	case holdfast.Text:
		return v.Text()
	}
	return v.Bytes()
}

func take(t *testing.T, tables *Tables, topic string, payload []byte) Taken {
	t.Helper()
	at, err := ParseTopic(topic)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := tables.Take(at, p)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func named(taken Taken) map[string]any {
	out := map[string]any{}
	for _, v := range taken.Values {
		out[v.Metric] = plain(v.Value)
	}
	return out
}

const birthday = 1772366400250

func TestEveryTypeComesAsItIs(t *testing.T) {
	var tables Tables
	got := take(t, &tables, "spBv1.0/plant/DBIRTH/gw/oven", payloads(t)["types"])
	want := map[string]any{"i8": int64(-8), "i16": int64(-300), "i32": int64(-70000), "i64": int64(-5000000000), "u8": int64(200), "u16": int64(60000), "u32": int64(4000000000),
		"u64": int64(5000000000), "float": 0.5, "double": 0.1, "true": true, "string": "ünï", "text": "", "uuid": "d9f5c0de-0000-4000-8000-000000000000",
		"when": int64(birthday), "bytes": []byte{0, 255}, "old": 1.0}
	if diff := cmp.Diff(want, named(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.Null != 1 || got.Left != 1 || got.Unknown != 0 || !got.Online || !got.Changed {
		t.Errorf("%+v", got)
	}
	for _, v := range got.Values {
		want := uint64(birthday)
		if v.Metric == "old" {
			want -= 86_400_000
		}
		if !v.Time.Known || v.Time.At != want {
			t.Errorf("%s is of %d, want %d", v.Metric, v.Time.At, want)
		}
	}
}

// Data name their metrics by the aliases of the birth, also when the tables were
// written down in between.
func TestAliasesOfABirth(t *testing.T) {
	all := payloads(t)
	var tables Tables
	early := take(t, &tables, "spBv1.0/plant/NDATA/gw", all["ndata"])
	if early.Unknown != 4 || len(early.Values) != 0 {
		t.Errorf("before the birth: %+v", early)
	}
	birth := take(t, &tables, "spBv1.0/plant/NBIRTH/gw", all["nbirth"])
	if diff := cmp.Diff(map[string]any{"Line/Temperature": 21.5, "Line/Count": int64(-5), "Line/Running": true, "Recipe": "dough"}, named(birth)); diff != "" {
		t.Errorf("birth (-want +got):\n%s", diff)
	}
	if v := birth.Values[0]; v.Unit != "Cel" || v.Time.At != birthday-1 {
		t.Errorf("%+v", v)
	}
	text, err := json.Marshal(&tables)
	if err != nil {
		t.Fatal(err)
	}
	var again Tables
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	for name, tables := range map[string]*Tables{"in mind": &tables, "from a file": &again} {
		data := take(t, tables, "spBv1.0/plant/NDATA/gw", all["ndata"])
		if diff := cmp.Diff(map[string]any{"Line/Temperature": 22.25, "Line/Count": int64(-6), "Line/Running": false}, named(data)); diff != "" {
			t.Errorf("%s: data (-want +got):\n%s", name, diff)
		}
		if data.Unknown != 1 || data.Values[0].Unit != "Cel" || data.Gap {
			t.Errorf("%s: %+v", name, data)
		}
	}
	// Another device's aliases are its own.
	if other := take(t, &tables, "spBv1.0/plant/DDATA/gw/oven", all["ndata"]); other.Unknown != 4 {
		t.Errorf("%+v", other)
	}
}

func TestSequenceNumbersShowGaps(t *testing.T) {
	var tables Tables
	at := Topic{Group: "g", Type: "NDATA", Node: "n"}
	for i, step := range []struct {
		seq uint8
		gap bool
	}{{254, false}, {255, false}, {0, false}, {0, false}, {1, false}, {3, true}, {4, false}} {
		taken, err := tables.Take(at, Payload{Seq: step.seq, HasSeq: true})
		if err != nil || taken.Gap != step.gap {
			t.Errorf("step %d: gap %v %v", i, taken.Gap, err)
		}
	}
	at.Type = "NBIRTH"
	if taken, err := tables.Take(at, Payload{HasSeq: true}); err != nil || taken.Gap {
		t.Errorf("a birth begins anew: %+v %v", taken, err)
	}
	at.Type = "NDEATH"
	if taken, err := tables.Take(at, Payload{}); err != nil || !taken.Offline || taken.Gap {
		t.Errorf("%+v %v", taken, err)
	}
	at.Type = "NCMD"
	if _, err := tables.Take(at, Payload{}); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("a command: %v", err)
	}
}

func TestTopics(t *testing.T) {
	for topic, want := range map[string]Topic{
		"spBv1.0/g/NBIRTH/n": {"g", "NBIRTH", "n", ""}, "spBv1.0/g/DDATA/n/d": {"g", "DDATA", "n", "d"}, "spBv1.0/STATE/host": {"", "STATE", "host", ""},
	} {
		if got, err := ParseTopic(topic); err != nil || got != want {
			t.Errorf("%s: %+v %v", topic, got, err)
		}
	}
	for _, topic := range []string{"", "spBv1.0", "spAv1.0/g/NDATA/n", "spBv1.0/g/NDATA", "spBv1.0/g/NDATA/n/d", "spBv1.0/g/DDATA/n", "spBv1.0//NDATA/n", "spBv1.0/g/NOTHING/n"} {
		if _, err := ParseTopic(topic); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q: %v", topic, err)
		}
	}
}

func TestStreamNames(t *testing.T) {
	for metric, want := range map[string]string{"a/b": "a/b", " /x+y#z\x00 ": "x_y_z_", "Line 1/Temp": "Line 1/Temp"} {
		if got, ok := Stream(metric); !ok || got != want {
			t.Errorf("%q: %q %v", metric, got, ok)
		}
	}
	for _, metric := range []string{"", "/", strings.Repeat("x", 200)} {
		if got, ok := Stream(metric); ok {
			t.Errorf("%q: %q", metric, got)
		}
	}
}

func TestARebirthIsAskedForInSparkplug(t *testing.T) {
	p, err := Decode(Rebirth(Millis{birthday, true}))
	if err != nil || len(p.Metrics) != 1 || p.Metrics[0].Name != "Node Control/Rebirth" || p.Timestamp.At != birthday {
		t.Fatalf("%+v %v", p, err)
	}
	if v, ok := p.Metrics[0].value(Boolean); !ok || !v.Boolean() {
		t.Error(v, ok)
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range payloads(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			if k := holdfast.KindOf(err); k != holdfast.Invalid && k != holdfast.TooLarge {
				t.Fatalf("%v is of kind %v", err, k)
			}
			return
		}
		var tables Tables
		for _, topic := range []Topic{{"g", "NDATA", "n", ""}, {"g", "NBIRTH", "n", ""}, {"g", "NDATA", "n", ""}, {"g", "DBIRTH", "n", "d"}, {"g", "NDEATH", "n", ""}} {
			taken, err := tables.Take(topic, p)
			if err != nil {
				t.Fatal(err)
			}
			if len(taken.Values)+taken.Null+taken.Left+taken.Unknown > len(p.Metrics) {
				t.Fatalf("%d metrics became %+v", len(p.Metrics), taken)
			}
			for _, v := range taken.Values {
				if !v.Value.Type().Valid() || v.Value.Size() > len(data)+8 {
					t.Fatalf("%+v", v)
				}
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data := payloads(b)["ndata"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
