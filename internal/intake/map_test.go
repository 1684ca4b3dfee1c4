package intake

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/sparkplug"
)

func preset(t testing.TB, name string) *Map {
	t.Helper()
	text, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// shown is what was taken, as lines: DEVICE/STREAM=TYPE:VALUE UNIT @TIME.
func shown(taken Taken) []string {
	var out []string
	for _, s := range taken.Samples {
		var v any
		switch s.Value.Type() {
		case holdfast.Number:
			v = s.Value.Number()
		case holdfast.Integer:
			v = s.Value.Integer()
		case holdfast.Boolean:
			v = s.Value.Boolean()
		default:
			v = s.Value.Text()
		}
		line := fmt.Sprintf("%s/%s=%s:%v", taken.Device, s.Stream, s.Value.Type(), v)
		if s.Unit != "" {
			line += " " + s.Unit
		}
		if s.Timed {
			line += " @" + time.Unix(0, s.Time).UTC().Format(time.RFC3339Nano)
		}
		out = append(out, line)
	}
	return out
}

// Messages as the firmware's documents show them, and what the maps make of them.
func TestMapsThatComeWithTheProgram(t *testing.T) {
	for _, c := range []struct {
		preset, topic, payload string
		want                   []string
		why                    string
	}{
		{preset: "tasmota", topic: "tele/plug-1/SENSOR", payload: `{"Time":"2026-03-01T12:00:00+01:00","ENERGY":{"TotalStartTime":"2020-01-01T00:00:00","Total":1.5,"Power":42,"Voltage":230},"DS18B20":{"Id":"0123","Temperature":21.5},"TempUnit":"C"}`,
			want: []string{"plug-1/DS18B20/Temperature=number:21.5 Cel @2026-03-01T11:00:00Z", "plug-1/ENERGY/Power=number:42 W @2026-03-01T11:00:00Z",
				"plug-1/ENERGY/Total=number:1.5 kWh @2026-03-01T11:00:00Z", "plug-1/ENERGY/Voltage=number:230 V @2026-03-01T11:00:00Z"}},
		{preset: "tasmota", topic: "tele/plug-1/STATE", payload: `{"Time":"1970-01-01T00:00:07Z","UptimeSec":7,"POWER":"ON","Wifi":{"SSId":"home","RSSI":80}}`,
			want: []string{"plug-1/state/POWER=boolean:true", "plug-1/state/UptimeSec=number:7 s", "plug-1/state/Wifi/RSSI=number:80"}},
		{preset: "tasmota", topic: "stat/plug-1/RESULT", payload: `{"POWER2":"OFF"}`, want: []string{"plug-1/state/POWER2=boolean:false"}},
		{preset: "tasmota", topic: "tele/plug-1/LWT", payload: "Offline", want: []string{"plug-1/online=boolean:false"}},
		{preset: "tasmota", topic: "cmnd/plug-1/POWER", payload: "ON", why: "no rule of the map is for this topic"},
		{preset: "zigbee2mqtt", topic: "zigbee2mqtt/kitchen", payload: `{"battery":97,"linkquality":120,"occupancy":false,"temperature":19.75,"state":"ON","state_left":"OFF","update":{"state":"idle"},"last_seen":1772366400250,"color":null}`,
			want: []string{"kitchen/battery=number:97 %EL @2026-03-01T12:00:00.25Z", "kitchen/linkquality=number:120 @2026-03-01T12:00:00.25Z", "kitchen/occupancy=boolean:false @2026-03-01T12:00:00.25Z",
				"kitchen/state=boolean:true @2026-03-01T12:00:00.25Z", "kitchen/state_left=boolean:false @2026-03-01T12:00:00.25Z", "kitchen/temperature=number:19.75 Cel @2026-03-01T12:00:00.25Z"}},
		{preset: "zigbee2mqtt", topic: "zigbee2mqtt/kitchen/availability", payload: `{"state":"online"}`, want: []string{"kitchen/online=boolean:true"}},
		{preset: "zigbee2mqtt", topic: "zigbee2mqtt/bridge/state", payload: `{"state":"online"}`},
		{preset: "zigbee2mqtt", topic: "zigbee2mqtt/kitchen/set", payload: `{"state":"ON"}`},
		{preset: "homie", topic: "homie/boiler/sensor/temperature", payload: "61.5", want: []string{"boiler/sensor/temperature=number:61.5"}},
		{preset: "homie", topic: "homie/boiler/sensor/$name", payload: "Sensor"},
		{preset: "homie", topic: "homie/boiler/$state", payload: "ready", want: []string{"boiler/state=text:ready"}},
		{preset: "homeassistant", topic: "homeassistant/sensor/kitchen/state", payload: "21.5", want: []string{"/sensor/kitchen=number:21.5"}},
		{preset: "homeassistant", topic: "homeassistant/sensor/kitchen/state", payload: "unavailable"},
		{preset: "plain", topic: "sensors/pump/a/b", payload: `"9007199254740993"`, want: []string{"pump/a/b=text:9007199254740993"}},
		{preset: "plain", topic: "sensors/pump/count", payload: `9007199254740993`, want: []string{"pump/count=integer:9007199254740993"}},
		{preset: "plain", topic: "sensors/pump/x", payload: `{"a":1}`, why: `it is JSON, not a scalar: use "payload": "json"`},
		{preset: "plain", topic: "sensors/pump/x", payload: " "},
		{preset: "plain", topic: "sensors//x", payload: "1", why: "the device's name can't be one: child has no name"},
	} {
		got := preset(t, c.preset).Take(&Message{Topic: c.topic, Payload: []byte(c.payload)}, &sparkplug.Tables{})
		if diff := cmp.Diff(c.want, shown(got)); diff != "" || got.Why != c.why || (len(c.want) == 0 && c.why == "") != got.Ignored {
			t.Errorf("%s %s: %q ignored %v (-want +got):\n%s", c.topic, c.payload, got.Why, got.Ignored, diff)
		}
	}
}

func TestAMapOfOnesOwn(t *testing.T) {
	m, err := Parse([]byte(`{"rules": [
		{"topic": "site/{site}/{device}/json", "payload": "json", "device": "{site}-{device}", "stream": "m", "time": {"at": "/meta/ts", "zone": "Europe/Berlin"}, "only": true,
		 "fields": [{"at": "/t", "stream": "temperature", "unit": "Cel", "scale": 0.1, "offset": -5}, {"at": "/n", "type": "integer"}, {"at": "/door", "words": {"open": true, "shut": false, "?": null}},
		            {"at": "/list/*/x", "type": "text"}]},
		{"topic": "site/{site}/{device}/{stream}", "device": "{site}-{device}", "stream": "{stream}", "type": "boolean"},
		{"topic": "site/+/+/secret", "ignore": true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for topic, c := range map[string]struct {
		payload string
		want    []string
	}{
		"site/a/b/json": {`{"meta":{"ts":"2026-07-01 12:00:00.5"},"t":215,"n":3.0,"door":"open","other":1,"list":[{"x":1.50},{"x":true}]}`,
			[]string{"a-b/m/door=boolean:true @2026-07-01T10:00:00.5Z", "a-b/m/list/0/x=text:1.50 @2026-07-01T10:00:00.5Z", "a-b/m/list/1/x=text:true @2026-07-01T10:00:00.5Z",
				"a-b/m/n=integer:3 @2026-07-01T10:00:00.5Z", "a-b/temperature=number:16.5 Cel @2026-07-01T10:00:00.5Z"}},
		"site/a/b/on": {"Yes", []string{"a-b/on=boolean:true"}},
	} {
		got := m.Take(&Message{Topic: topic, Payload: []byte(c.payload)}, nil)
		if diff := cmp.Diff(c.want, shown(got)); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", topic, got.Why, diff)
		}
	}
	if got := m.Take(&Message{Topic: "site/a/b/json", Payload: []byte(`{"n":1.5,"door":"?"}`)}, nil); got.Left != 1 || len(got.Samples) != 0 {
		t.Errorf("%+v", got)
	}
	if got := m.Take(&Message{Topic: "site/a/b/on", Payload: []byte("1"), Retained: true}, nil); !got.Ignored {
		t.Errorf("a retained message: %+v", got)
	}
	filters, err := m.Filters()
	if diff := cmp.Diff([]string{"site/+/+/+"}, filters); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestFiltersDoNotOverlap(t *testing.T) {
	for rules, want := range map[string]string{
		"a/{x}/c a/#":             "a/#",
		"{x}/b a/b":               "+/b",
		"spBv1.0/{g} spBv1.0/a/b": "spBv1.0/+ spBv1.0/a/b",
		"a/+ +/b":                 "error",
		"a/# +/b":                 "error",
	} {
		var out Map
		for _, topic := range strings.Fields(rules) {
			out.Rules = append(out.Rules, Rule{Topic: topic, Stream: "s"})
		}
		text, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(text)
		got := "error"
		if err == nil {
			filters, _ := m.Filters()
			got = strings.Join(filters, " ")
		}
		if got != want {
			t.Errorf("%s: %s, want %s: %v", rules, got, want, err)
		}
	}
	if m, err := Join(preset(t, "tasmota"), preset(t, "zigbee2mqtt")); err != nil || len(m.Subscribe) != 6 {
		t.Errorf("%v %v", m.Subscribe, err)
	}
}

func TestMapsThatAreMistaken(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                             "unexpected EOF",
		`{"rules":[]}`:                  "1 to 500 rules",
		"{\"rules\":[\n{\"topic\":1}]}": "line 2",
		`{"rules":[{"topic":"a/b","strem":"x"}]}`:                                       `unknown field "strem"`,
		`{"rules":[{"topic":"a/{b"}]}`:                                                  "rule 1: a placeholder is a whole level",
		`{"rules":[{"topic":"a/#/b"}]}`:                                                 "# is the last level",
		`{"rules":[{"topic":"a/{b}"}]}`:                                                 `which stream`,
		`{"rules":[{"topic":"a/{b}","stream":"{c}"}]}`:                                  "{c} is no placeholder",
		`{"rules":[{"topic":"a","payload":"xml"}]}`:                                     "scalar, json or sparkplug",
		`{"rules":[{"topic":"a","payload":"json","fields":[{"at":"x"}]}]}`:              "field 1: \"at\" is a JSON pointer",
		`{"rules":[{"topic":"a","payload":"json","time":{"at":"/t","zone":"Berlin"}}]}`: "Europe/Berlin",
		`{"rules":[{"topic":"a","stream":"s","type":"float"}]}`:                         "number, integer, boolean or text",
		`{"rules":[{"topic":"a","ignore":true}]}`:                                       "ignore",
		`{"rules":[{"topic":"a","stream":"s"}]} {}`:                                     "last brace",
		`{"subscribe":["a/{x}"],"rules":[{"topic":"a","stream":"s"}]}`:                  "topic filters",
		`{"rules":[{"topic":"a/{x}/{x}","stream":"s"}]}`:                                "twice",
		`{"rules":[{"topic":"a","payload":"sparkplug","time":{"at":"/t"}}]}`:            "leave out",
		`{"rules":[{"topic":"a","stream":"s","words":{"x":[1]}}]}`:                      "words",
	} {
		if _, err := Parse([]byte(text)); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// A message that comes again has the time it had, also in another process; an
// equal one that is new has its own.
func TestTimesOutliveTheProcess(t *testing.T) {
	dir, key := t.TempDir(), []byte("key")
	now := int64(1_772_366_400_000_000_000)
	clock := func() int64 { now += 1000; return now }
	open := func() *times {
		x, err := openTimes(dir, key, clock)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	a := Message{Topic: "t", Payload: []byte("1"), QoS: 1, ID: 7}
	x := open()
	first, fresh := x.of(&a)
	if !fresh {
		t.Fatal("not fresh")
	}
	if err := x.keep([]uint16{7}); err != nil {
		t.Fatal(err)
	}
	x.close()
	// A line that a crash cut short is ignored.
	f, err := os.OpenFile(dir+"/times.log", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("8 0011223344556677 17723664000000")
	f.Close()
	x = open()
	defer x.close()
	again := a
	again.Dup = true
	if at, fresh := x.of(&again); at != first || fresh {
		t.Errorf("again: %d %v, was %d", at, fresh, first)
	}
	other := again
	other.Payload = []byte("2")
	if at, fresh := x.of(&other); at == first || !fresh {
		t.Error("another payload under the same id has the same time")
	}
	if at, fresh := x.of(&a); at == first || !fresh {
		t.Error("a new message under the same id has the same time")
	}
	if _, ok := x.known[8]; ok {
		t.Error("half a line is believed")
	}
	text, err := os.ReadFile(dir + "/times.log")
	if err != nil || strings.Contains(string(text), "\"1\"") {
		t.Errorf("%s %v", text, err)
	}
	if x.now = func() int64 { return 5 }; x.next() <= first {
		t.Error("time runs back")
	}
}

func FuzzTake(f *testing.F) {
	maps := []*Map{preset(f, "tasmota"), preset(f, "zigbee2mqtt"), preset(f, "sparkplug"), preset(f, "homie"), preset(f, "plain")}
	f.Add("tele/x/SENSOR", []byte(`{"Time":"2026-03-01T12:00:00","a":{"b":[1,"x",null,true]}}`))
	f.Add("zigbee2mqtt/x", []byte(`{"last_seen":1.5e9}`))
	f.Add("spBv1.0/g/NDATA/n", []byte("\x08\x01\x12\x02\x0a\x00"))
	f.Add("sensors/a/b", []byte("-1e400"))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		for _, m := range maps {
			got := m.Take(&Message{Topic: topic, Payload: payload}, &sparkplug.Tables{})
			if len(got.Samples) > maxLeaves+1 && m.Rules[max(got.Rule, 0)].Payload != "sparkplug" {
				t.Fatalf("%d samples", len(got.Samples))
			}
			for _, s := range got.Samples {
				if holdfast.CheckName("stream", s.Stream) != nil || !s.Value.Type().Valid() || got.Device != "" && holdfast.CheckName("child", got.Device) != nil {
					t.Fatalf("%+v", got)
				}
			}
		}
	})
}

func BenchmarkTake(b *testing.B) {
	m := preset(b, "zigbee2mqtt")
	msg := &Message{Topic: "zigbee2mqtt/kitchen", Payload: []byte(`{"battery":97,"linkquality":120,"occupancy":false,"temperature":19.75,"last_seen":1772366400250}`)}
	b.ReportAllocs()
	for b.Loop() {
		if got := m.Take(msg, nil); len(got.Samples) != 4 {
			b.Fatal(got)
		}
	}
}

// A payload that is deep and broad at once costs no more than its bytes: a broker's
// clients may send what they like.
func TestDeepPayloads(t *testing.T) {
	m, err := Parse([]byte(`{"rules": [{"topic": "{device}", "payload": "json", "device": "{device}"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("[", 9_000) + strings.Repeat("1,", 200_000) + "1" + strings.Repeat("]", 9_000)
	began := time.Now()
	got := m.Take(&Message{Topic: "d", Payload: []byte(`{"deep":` + deep + `,"t":1}`)}, nil)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(got.Samples) != 1 || got.Samples[0].Stream != "t" || got.Left != 1 {
		t.Errorf("%d samples, %d left, %s", len(got.Samples), got.Left, got.Why)
	}
}
