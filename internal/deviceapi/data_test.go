package deviceapi

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

// nasty is a value of each type and the corners of each, by stream.
func nasty() []holdfast.Sample {
	at := time.Date(2026, 3, 1, 12, 0, 0, 250, time.UTC).UnixNano()
	var out []holdfast.Sample
	add := func(stream string, values ...holdfast.Value) {
		for i, v := range values {
			out = append(out, holdfast.Sample{Stream: stream, Time: at + int64(i), Timed: true, Seq: uint64(i), Value: v})
		}
	}
	n, i := holdfast.NumberValue, holdfast.IntegerValue
	add("number", n(21.5), n(0), n(math.Copysign(0, -1)), n(math.MaxFloat64), n(math.SmallestNonzeroFloat64), n(1<<53), n(-(1<<53)-2), n(1e-7), n(0.1),
		n(math.NaN()), n(math.Float64frombits(0xfff8000000000abc)), n(math.Inf(1)), n(math.Inf(-1)))
	add("integer", i(0), i(-1), i(math.MaxInt64), i(math.MinInt64), i(1<<53+1))
	add("boolean", holdfast.BooleanValue(true), holdfast.BooleanValue(false))
	add("text", holdfast.TextValue(""), holdfast.TextValue("<a> \"b\" \\ \u2028 \x00\x1f\x7f ünï\U0001F600"), holdfast.TextValue(strings.Repeat("\x01", holdfast.MaxValueBytes)))
	add("bytes", holdfast.BytesValue(nil), holdfast.BytesValue([]byte{0, 1, 0xff, 0xfe}))
	add("place", holdfast.LocationValue(holdfast.Position{Latitude: 52.5200066, Longitude: -179.9999999, Altitude: math.NaN()}),
		holdfast.LocationValue(holdfast.Position{Latitude: -90, Longitude: 180, Altitude: -12.5}))
	for k, t := range []int64{0, -1, 1, math.MinInt64, math.MaxInt64, 1<<28*1e9 - 1, 1 << 28 * 1e9, at - 1} {
		out = append(out, holdfast.Sample{Stream: "time", Time: t, Timed: true, Seq: math.MaxUint64, Value: n(float64(k))})
	}
	return out
}

func byStream(samples []holdfast.Sample) map[string]map[int64]holdfast.Value {
	out := make(map[string]map[int64]holdfast.Value)
	for _, s := range samples {
		if out[s.Stream] == nil {
			out[s.Stream] = make(map[int64]holdfast.Value)
		}
		out[s.Stream][s.Time] = s.Value
	}
	return out
}

func (h *house) holds(device holdfast.DeviceID, samples []holdfast.Sample) {
	h.t.Helper()
	for stream, want := range byStream(samples) {
		got := make(map[int64]holdfast.Value)
		for _, r := range h.readings(device, stream) {
			if r.Mark&holdfast.Stamped != 0 {
				h.t.Errorf("stream %s: a reading lost its time", stream)
			}
			got[r.Time] = r.Value
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(holdfast.Value.Same)); diff != "" {
			h.t.Errorf("stream %s (-sent +held):\n%s", stream, diff)
		}
	}
}

// What the client sends is what the hub holds, bit for bit; so is what the hub's
// own SenML writer makes, in JSON and in CBOR.
func TestValuesArriveBitForBit(t *testing.T) {
	h := build(t, Options{})
	want := nasty()
	t.Run("client", func(t *testing.T) {
		x := h.enrolled(custody.DeviceSpec{Label: "a"})
		if n, err := x.client().Send(t.Context(), want...); err != nil || n != len(want) {
			t.Fatalf("sent %d of %d: %v", n, len(want), err)
		}
		h.holds(x.id, want)
		for _, r := range h.readings(x.id, "time") {
			if r.Seq != math.MaxUint64 {
				t.Errorf("sequence %d", r.Seq)
			}
		}
	})
	json, cbor := []byte{'['}, senml.AppendCBORPack(nil, len(want))
	for i, s := range want {
		if i > 0 {
			json = append(json, ',')
		}
		r := holdfast.Reading{Time: s.Time, Seq: s.Seq, Value: s.Value}
		json = senml.AppendJSON(json, s.Stream, "", r)
		cbor = senml.AppendCBOR(cbor, s.Stream, "", r)
	}
	json = append(json, ']')
	for name, body := range map[string][]byte{"application/senml+json": json, "application/json; charset=utf-8": json, "": json,
		"application/senml+cbor": cbor, "application/cbor": cbor} {
		t.Run(name, func(t *testing.T) {
			x := h.enrolled(custody.DeviceSpec{Label: "b" + strings.Map(letters, name)})
			if r := x.post("/v1/data", name, bytes.NewReader(body)); r.status != 204 || r.text != "" {
				t.Fatalf("%d %s", r.status, r.text)
			}
			h.holds(x.id, want)
			x2 := h.enrolled(custody.DeviceSpec{Label: "c" + strings.Map(letters, name)})
			if r := x2.post("/v1/data", name, squeezed(body), "Content-Encoding", "gzip"); r.status != 204 {
				t.Fatalf("gzip: %d %s", r.status, r.text)
			}
			h.holds(x2.id, want)
		})
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return '-'
}

func squeezed(b []byte) *bytes.Buffer {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return &out
}

func TestAReadingWithoutATimeIsStamped(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	before := time.Now().UnixNano()
	if _, err := x.client().Send(t.Context(), holdfast.Sample{Stream: "s", Value: holdfast.NumberValue(1), Literal: true}); err != nil {
		t.Fatal(err)
	}
	got := h.readings(x.id, "s")
	if len(got) != 1 || got[0].Mark != holdfast.Stamped || got[0].Time < before || got[0].Time > time.Now().UnixNano() {
		t.Errorf("%+v", got)
	}
}

func TestManySamplesGoInSeveralRequests(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	samples := make([]holdfast.Sample, 12_001)
	for i := range samples {
		samples[i] = holdfast.Sample{Stream: "s", Time: int64(i), Timed: true, Value: holdfast.IntegerValue(int64(i))}
	}
	if n, err := x.client().Send(t.Context(), samples...); err != nil || n != len(samples) {
		t.Fatal(n, err)
	}
	h.holds(x.id, samples)
	// Those that come first are kept when a later request fails.
	samples[7000].Value = holdfast.TextValue("not an integer")
	n, err := x.client().Send(t.Context(), samples...)
	if err == nil || n != 5000 || holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("sent %d: %v", n, err)
	}
	if got := h.readings(x.id, "s"); len(got) != len(samples) { // the 5,000 were repeats
		t.Errorf("%d readings, want %d", len(got), len(samples))
	}
}

// Telegraf's way: measurement_field is the stream, every precision, gzip, v1 and
// v2, parameters that mean nothing here.
func TestLineProtocol(t *testing.T) {
	h := build(t, Options{})
	at := int64(1_772_366_400)
	for _, path := range []string{"/write?db=x&rp=y&consistency=all", "/api/v2/write?org=a&bucket=b"} {
		x := h.enrolled(custody.DeviceSpec{Label: "t" + strings.Map(letters, path)})
		for precision, unit := range map[string]int64{"": 1, "ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9} {
			body := fmt.Sprintf("# a comment\nweather,  bad\nweather in=21.5,rain=t,n=-7i,sky=\"gr\\\"ey, 100%%\" %d\n", at*1e9/unit)
			if r := x.post(path+"&precision="+precision, "text/plain", strings.NewReader(body)); r.status != 400 || !strings.Contains(r.doc.Detail, "line 2") {
				t.Errorf("a line that can't be read: %d %s", r.status, r.text)
			}
			body = strings.Replace(body, "weather,  bad\n", "", 1)
			if r := x.post(path+"&precision="+precision, "text/plain; charset=utf-8", squeezed([]byte(body)), "Content-Encoding", "gzip"); r.status != 204 {
				t.Errorf("%s precision %q: %d %s", path, precision, r.status, r.text)
			}
		}
		h.holds(x.id, []holdfast.Sample{
			{Stream: "weather_in", Time: at * 1e9, Value: holdfast.NumberValue(21.5)},
			{Stream: "weather_rain", Time: at * 1e9, Value: holdfast.BooleanValue(true)},
			{Stream: "weather_n", Time: at * 1e9, Value: holdfast.IntegerValue(-7)},
			{Stream: "weather_sky", Time: at * 1e9, Value: holdfast.TextValue(`gr"ey, 100%`)},
		})
		r := x.post(path, "", strings.NewReader("w,host=secretname f=1"))
		if r.status != 400 || strings.Contains(r.text, "secretname") || !strings.Contains(r.doc.Detail, "line 1, tag 1") {
			t.Errorf("a tag that nobody maps: %d %s", r.status, r.text)
		}
		if told := r.doc.Error + r.doc.Message; told != r.doc.Detail { // where InfluxDB's clients look
			t.Errorf("a client of InfluxDB reads %q", told)
		}
	}
}

// What clients of InfluxDB ask before they send is answered; nothing else is.
func TestClientsOfInfluxDBAskFirst(t *testing.T) {
	h := build(t, Options{})
	x := h.enrolled(custody.DeviceSpec{Label: "i"})
	form := "application/x-www-form-urlencoded"
	if r := x.post("/query", form, strings.NewReader("q=create+database+%22telegraf%22")); r.status != 200 || strings.TrimSpace(r.text) != `{"results":[{"statement_id":0}]}` {
		t.Errorf("%d %s", r.status, r.text)
	}
	for _, q := range []string{"q=SELECT+*+FROM+planted", "q=CREATE+DATABASE+a;DROP+DATABASE+b", "q=%zz", ""} {
		if r := x.post("/query", form, strings.NewReader(q)); r.status != 400 || strings.Contains(r.text, "planted") {
			t.Errorf("%s: %d %s", q, r.status, r.text)
		}
	}
	if got := h.readings(x.id, "planted"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestTagsThatAProfileMaps(t *testing.T) {
	h := build(t, Options{})
	must(h.custody.AddProfile(t.Context(), h.admin, []byte(`{"name":"box","version":1,
		"streams":[{"name":"a/b/w_f","type":"number","purposes":["operation"]},{"name":"w_f","type":"number","purposes":["operation"]}],
		"tags":{"host":"ignore","zone":"prefix","area":"prefix"}}`)))(t)
	x := h.enrolled(custody.DeviceSpec{Label: "box 1", Profile: "box"})
	if r := x.post("/write", "", strings.NewReader("w,host=h,zone=b,area=a f=1 1\nw,host=i f=2 2\n")); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	h.holds(x.id, []holdfast.Sample{{Stream: "a/b/w_f", Time: 1, Value: holdfast.NumberValue(1)}, {Stream: "w_f", Time: 2, Value: holdfast.NumberValue(2)}})
	if r := x.post("/write", "", strings.NewReader("w,host=i f=3 3\nw,zone=other f=3 3\n")); r.status != 404 {
		t.Errorf("a stream that the profile lacks: %d %s", r.status, r.text)
	}
	if got := h.readings(x.id, "w_f"); len(got) != 1 {
		t.Errorf("half of a refused request was taken: %d readings", len(got))
	}
}

// A gateway sends for its children; each keeps its own owner, and one that is not
// declared spoils the whole request.
func TestAGatewaySendsForItsChildren(t *testing.T) {
	h := build(t, Options{})
	x := h.enrolled(custody.DeviceSpec{Label: "gateway"})
	party := must(h.custody.AddParty(t.Context(), h.admin, "Ada", custody.PartyKind("person")))(t)
	child := must(h.custody.AddDevice(t.Context(), h.admin, custody.DeviceSpec{Label: "watch", Owner: party.ID, Gateway: x.id}))(t).Device
	if r := x.post("/write", "", strings.NewReader("w f=1 1\nw,device=watch f=2 2\nw f=3 3\n")); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	h.holds(x.id, []holdfast.Sample{{Stream: "w_f", Time: 1, Value: holdfast.NumberValue(1)}, {Stream: "w_f", Time: 3, Value: holdfast.NumberValue(3)}})
	h.holds(child.ID, []holdfast.Sample{{Stream: "w_f", Time: 2, Value: holdfast.NumberValue(2)}})
	r := x.post("/write", "", strings.NewReader("w f=4 4\nw,device=nobody f=5 5\n"))
	if r.status != 404 || strings.Contains(r.text, "nobody") {
		t.Errorf("an undeclared child: %d %s", r.status, r.text)
	}
	if got := h.readings(x.id, "w_f"); len(got) != 2 {
		t.Errorf("half of a refused request was taken: %d readings", len(got))
	}
}

func TestAnUnclaimedDeviceIsTold(t *testing.T) {
	h := build(t, Options{})
	x := h.enrolled(custody.DeviceSpec{Label: "new", Unclaimed: true})
	r := x.post("/v1/data", "", strings.NewReader(`[{"n":"s","v":1}]`))
	if r.status != 403 || !strings.Contains(r.doc.Detail, "no owner") {
		t.Errorf("%d %s", r.status, r.text)
	}
}

// curl is a device: what docs/device-guide.md shows works as it stands.
func TestCurlIsADevice(t *testing.T) {
	need(t, "bash", "curl", "gzip")
	h := build(t, Options{})
	x := h.device()
	env := []string{"HUB=" + h.url}
	flags := "--cacert ca.pem --cert cert.pem --key key.pem"
	shell(t, x.dir, `curl -fsS `+flags+` -d '[{"n":"temperature","u":"Cel","v":21.5,"t":1772366400.5}]' $HUB/v1/data`, env...)
	shell(t, x.dir, `printf 'm f=42i 1772366400\n' | gzip | curl -fsS `+flags+` -H 'Content-Encoding: gzip' --data-binary @- "$HUB/write?db=x&precision=s"`, env...)
	h.holds(x.id, []holdfast.Sample{{Stream: "temperature", Time: 1772366400_500000000, Value: holdfast.NumberValue(21.5)},
		{Stream: "m_f", Time: 1772366400_000000000, Value: holdfast.IntegerValue(42)}})
	if got := shell(t, x.dir, `curl -sS --cacert ca.pem -o answer -w '%{http_code} %{content_type}' -d '[]' $HUB/v1/data && cat answer`, env...); !strings.HasPrefix(got, "401 application/problem+json") {
		t.Errorf("without a certificate: %s", got)
	}
	if got := shell(t, x.dir, `curl -sS `+flags+` -w ' %{http_code}' -d '{' $HUB/v1/data`, env...); !strings.HasSuffix(got, "400") {
		t.Errorf("not SenML: %s", got)
	}
	// A body of 3 MiB waits for 100 Continue, as curl does.
	var big bytes.Buffer
	big.WriteString(`[{"n":"temperature","v":1,"t":1}`)
	for i := range 9000 {
		fmt.Fprintf(&big, `,{"n":"temperature","v":%d,"t":%d,"note":"%s"}`, i, 1772366400+i, strings.Repeat("x", 300))
	}
	big.WriteString("]")
	if err := os.WriteFile(filepath.Join(x.dir, "big"), big.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, x.dir, `curl -fsS `+flags+` -H 'Content-Type: application/senml+json' --data-binary @big $HUB/v1/data`, env...)
	if got := len(h.readings(x.id, "temperature")); got != 9002 {
		t.Errorf("%d readings", got)
	}
	if strings.Contains(h.log.String(), "temperature") {
		t.Error("the name of a stream is in the log")
	}
}

// What is hostile gets a problem document or is cut, says nothing of its content
// back, leaves nothing behind, and does not end the listener.
func TestHostileBodies(t *testing.T) {
	h := build(t, Options{MaxBody: 1 << 20})
	x := h.device()
	bomb := squeezed(make([]byte, 16<<20)).Bytes()
	many := strings.Repeat("planted f=1\n", 10_001)
	for name, c := range map[string]struct {
		path, kind string
		body       io.Reader
		header     []string
		status     int
	}{
		"over the limit, announced":      {"/v1/data", "", strings.NewReader("[" + strings.Repeat(" ", 1<<20)), nil, 413},
		"over the limit, in chunks":      {"/v1/data", "", io.MultiReader(strings.NewReader("["), strings.NewReader(strings.Repeat(" ", 1<<20))), nil, 413},
		"a bomb":                         {"/v1/data", "", bytes.NewReader(bomb), []string{"Content-Encoding", "gzip"}, 413},
		"a bomb of lines":                {"/write", "", bytes.NewReader(bomb), []string{"Content-Encoding", "gzip"}, 413},
		"not gzip":                       {"/v1/data", "", strings.NewReader("planted"), []string{"Content-Encoding", "gzip"}, 400},
		"half a gzip":                    {"/write", "", bytes.NewReader(squeezed([]byte("planted f=1")).Bytes()[:20]), []string{"Content-Encoding", "gzip"}, 400},
		"an encoding nobody knows":       {"/v1/data", "", strings.NewReader("planted"), []string{"Content-Encoding", "br"}, 400},
		"a type nobody knows":            {"/v1/data", "text/planted", strings.NewReader("planted"), nil, 400},
		"a type that is none":            {"/v1/data", "planted; planted", strings.NewReader("planted"), nil, 400},
		"empty":                          {"/v1/data", "", strings.NewReader(""), nil, 400},
		"an empty pack":                  {"/v1/data", "", strings.NewReader("[]"), nil, 400},
		"no lines":                       {"/write", "", strings.NewReader("\n# planted\n"), nil, 400},
		"deep":                           {"/v1/data", "", strings.NewReader(`[{"n":"planted","v":1,"x":` + strings.Repeat("[", 100_000)), nil, 413},
		"deep CBOR":                      {"/v1/data", "application/cbor", bytes.NewReader(bytes.Repeat([]byte{0x81}, 100_000)), nil, 413},
		"a CBOR array of 2^60":           {"/v1/data", "application/cbor", bytes.NewReader([]byte{0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0}), nil, 413},
		"not UTF-8":                      {"/v1/data", "", strings.NewReader("[{\"n\":\"planted\xff\",\"v\":1}]"), nil, 400},
		"lines not UTF-8":                {"/write", "", strings.NewReader("planted\xff f=1"), nil, 400},
		"a number beyond":                {"/v1/data", "", strings.NewReader(`[{"n":"planted","v":1e999}]`), nil, 400},
		"a name that is none":            {"/v1/data", "", strings.NewReader(`[{"n":"planted/#","v":1}]`), nil, 400},
		"lines with a name that is none": {"/write", "", strings.NewReader("planted+ f=1"), nil, 400},
		"too many readings":              {"/write", "", strings.NewReader(many), nil, 413},
		"a precision nobody knows":       {"/write?precision=planted", "", strings.NewReader("planted f=1"), nil, 400},
		"a text beyond the limit":        {"/v1/data", "", strings.NewReader(`[{"n":"planted","vs":"` + strings.Repeat("x", holdfast.MaxValueBytes+1) + `"}]`), nil, 413},
		"nowhere":                        {"/planted", "", strings.NewReader("planted"), nil, 404},
	} {
		t.Run(name, func(t *testing.T) {
			r := x.post(c.path, c.kind, c.body, c.header...)
			if r.status != c.status || r.doc.Detail == "" {
				t.Errorf("%d %q, want %d", r.status, r.text, c.status)
			}
			if strings.Contains(r.text, "planted") {
				t.Errorf("the answer repeats what was sent: %s", r.text)
			}
			if got := h.readings(x.id, "planted"); len(got) > 0 {
				t.Errorf("%d readings were taken", len(got))
			}
		})
	}
	if r := x.post("/v1/data", "", strings.NewReader(`[{"n":"s","v":1}]`)); r.status != 204 {
		t.Errorf("afterwards: %d %s", r.status, r.text)
	}
	if log := h.log.String(); strings.Contains(log, "planted") {
		t.Errorf("the log repeats what was sent:\n%s", log)
	}
	if held := h.api.bytes.TryAcquire(int64(h.api.o.MaxInflightBytes)); !held {
		t.Error("bytes of requests that have ended are still counted")
	}
}

// A full disk is answered with 503 and the end of the connection, nothing counts
// as taken, and what is sent again afterwards is.
func TestAFullDisk(t *testing.T) {
	h := build(t, Options{})
	x := h.device()
	send := func() reply { return x.post("/v1/data", "", strings.NewReader(`[{"n":"s","v":1,"t":1772366400}]`)) }
	h.disk.full.Store(true)
	for range 3 {
		r := send()
		if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || r.doc.Title != "unavailable" {
			t.Fatalf("%d %v %s", r.status, r.header, r.text)
		}
	}
	if n, err := x.client().Send(t.Context(), holdfast.Sample{Stream: "s", Value: holdfast.NumberValue(2), Literal: true}); n != 0 || holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("the client: %d, %v", n, err)
	}
	if got := h.readings(x.id, "s"); len(got) != 0 {
		t.Errorf("%d readings on a full disk", len(got))
	}
	h.disk.full.Store(false)
	if r := send(); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	if got := h.readings(x.id, "s"); len(got) != 1 {
		t.Errorf("%d readings, want 1", len(got))
	}
}

// The guide's lines for curl and openssl work as they stand there.
func TestTheDeviceGuide(t *testing.T) {
	need(t, "bash", "curl", "openssl")
	guide := string(must(os.ReadFile("../../docs/device-guide.md"))(t))
	block := func(name string) string {
		t.Helper()
		_, rest, ok := strings.Cut(guide, "```sh "+name+"\n")
		script, _, end := strings.Cut(rest, "```")
		if !ok || !end {
			t.Fatalf("the guide has no block %q", name)
		}
		return script
	}
	h := build(t, Options{})
	d, code := h.code(custody.DeviceSpec{Label: "pump 1"})
	parts := strings.Split(code.Text(), "/")
	env := []string{"HUB=" + h.url, "DEVICE=" + parts[1], "SECRET=" + parts[2], "PIN=" + parts[3]}
	dir := t.TempDir()
	for i, name := range []string{"enrol", "send", "renew", "send"} {
		shell(t, dir, block(name), env...)
		if got := len(h.readings(d.ID, "temperature")); got != i/2+i%2 {
			t.Errorf("after %s there are %d readings", name, got)
		}
	}
	// A pin that is not the authority's leaves nothing to trust.
	env[3] = "PIN=" + strings.Repeat("0", 64)
	other := t.TempDir()
	script := strings.Join(strings.Split(block("enrol"), "\n")[:2], "\n")
	if got := shell(t, other, script+"\nls", env...); got != "" {
		t.Errorf("with another's pin there is %s", got)
	}
}
