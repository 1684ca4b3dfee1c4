package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const examples = "../../examples"

// Each example runs, or what it asks is asked, against one hub.
func TestExamples(t *testing.T) {
	p := newPlant(t)
	hub, err := readRunning(p.file("data"))
	if err != nil {
		t.Fatal(err)
	}
	api, device := local(t, hub.API), local(t, hub.Device)
	p.must("token", "add", "reader", "--purpose", "operation", "--out", p.file("reader.token"), "--data", p.file("data"))
	enrolled := func(t *testing.T, label string) string {
		in := *p
		in.t = t
		in.must("enrol", wordOf(t, in.must("device", "add", label, "--data", p.file("data")), "hf1:"), "--out", p.file(label))
		return p.file(label)
	}
	t.Run("python", func(t *testing.T) {
		foreign(t, "python3", "")
		out := runs(t, nil, "python3", examples+"/python/device.py", enrolled(t, "python"), device, "5")
		if !strings.Contains(out, "5 stored") {
			t.Error(out)
		}
		out = runs(t, nil, "python3", examples+"/python/read.py", p.file("reader.token"), p.file("data/admin/ca.pem"), api, "python", "room/temperature")
		if n := strings.Count(out, " Cel\n"); n != 5 {
			t.Errorf("read back %d readings: %s", n, out)
		}
	})
	t.Run("mqttjs", func(t *testing.T) {
		folder := foreign(t, "node", "HOLDFAST_MQTTJS")
		out := runs(t, []string{"NODE_PATH=" + folder + "/node_modules"}, "node", examples+"/mqttjs/device.js", enrolled(t, "js"), "mqtts://localhost:"+p.mqttPort, "5")
		if !strings.Contains(out, "5 stored") || len(p.in(t).readings("js/temperature")) != 5 {
			t.Error(out)
		}
	})
	t.Run("node-red", func(t *testing.T) {
		folder := foreign(t, "node", "HOLDFAST_NODERED")
		text, err := os.ReadFile(examples + "/node-red/flow.json")
		if err != nil {
			t.Fatal(err)
		}
		flow := p.file("flow.json") // Node-RED writes beside it
		p.write(flow, string(text))
		cmd := exec.CommandContext(t.Context(), "node", folder+"/node_modules/node-red/red.js", "-u", t.TempDir(), "-p", freePort(t), "-D", "uiHost=127.0.0.1", flow)
		cmd.Dir = enrolled(t, "red")
		cmd.Env = append(os.Environ(), "HOLDFAST_HOST=localhost", "HOLDFAST_PORT="+p.mqttPort)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				t.Log(out.String())
			}
		}()
		p.in(t).await("a reading of Node-RED's", func() bool {
			return len(p.readings("red/temperature")) > 0 && p.readings("red/event/boot")["started"] == 1
		})
	})
	t.Run("telegraf", func(t *testing.T) { p.in(t).telegraf(device, enrolled(t, "telegraf")) })
	t.Run("home-assistant", func(t *testing.T) { p.in(t).homeAssistant(api, enrolled(t, "home")) })
}

// in is the plant in a subtest.
func (p plant) in(t *testing.T) *plant {
	p.t = t
	return &p
}

// local is an address by the name that stands in the hub's certificate.
func local(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return "https://localhost:" + u.Port()
}

// foreign skips, loudly, what needs a program that is not here.
func foreign(t *testing.T, program, variable string) string {
	t.Helper()
	_, err := exec.LookPath(program)
	if variable != "" && os.Getenv(variable) == "" {
		t.Skipf("SKIPPED: %s does not name a folder (./test installs it): this example was not run", variable)
	}
	if err != nil {
		t.Skipf("SKIPPED: %s is not installed: this example was not run", program)
	}
	return os.Getenv(variable)
}

func runs(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// telegraf can't be installed from what the tests use, so its requests are asked as its
// outputs write them (plugins/outputs/influxdb_v2/http.go and influxdb/http.go): the
// body in chunks, gzip, these headers and parameters, by the values of the example.
func (p *plant) telegraf(hub, identity string) {
	t := p.t
	conf, err := os.ReadFile(examples + "/telegraf/telegraf.conf")
	if err != nil {
		t.Fatal(err)
	}
	value := func(key string) string {
		m := regexp.MustCompile(`(?m)^ *` + key + ` = (?:\[)?"?([^"\]\n]*)`).FindSubmatch(conf)
		if m == nil {
			t.Fatalf("telegraf.conf does not say %s", key)
		}
		return strings.TrimSpace(string(m[1]))
	}
	if value("urls") != "https://hub.example:8444" || value("tag") != "host" || value("dest") != "device" || value("tls_cert") != "/etc/telegraf/holdfast/cert.pem" {
		t.Error("telegraf.conf is not what is asked here")
	}
	child := value("hostname")
	p.must("device", "add", child, "--gateway", "telegraf", "--data", p.file("data"))
	config, err := (&gateway{dir: identity}).tls()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	defer client.CloseIdleConnections()
	ask := func(path, body string, headers ...string) (int, string) {
		t.Helper()
		var content io.Reader = strings.NewReader(body)
		if strings.Contains(strings.Join(headers, " "), "gzip") {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			io.WriteString(z, body)
			z.Close()
			content = io.NopCloser(&b) // no length is known: in chunks
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, hub+path, content)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	at := time.Now().UnixNano()
	lines := func(n int64) string {
		return fmt.Sprintf("cpu,device=%[1]s usage_idle=97.5,usage_user=1.25 %[2]d\nmem,device=%[1]s used=%[3]di,used_percent=12.5 %[2]d\nsystem,device=%[1]s uptime_format=\" 1:02\",n_cpus=2i %[2]d\n", child, at+n, n)
	}
	headers := []string{"Content-Encoding", value("content_encoding"), "Content-Type", "text/plain; charset=utf-8", "Authorization", "Token " + value("token"), "User-Agent", value("user_agent")}
	to := "/api/v2/write?bucket=" + value("bucket") + "&org=" + value("organization")
	for range 2 { // an answer that was lost: it sends again
		if status, body := ask(to, lines(1), headers...); status != 204 {
			t.Fatalf("outputs.influxdb_v2: %d %s", status, body)
		}
	}
	// The older output begins with a question.
	if status, body := ask("/query", url.Values{"q": {`CREATE DATABASE "telegraf"`}}.Encode(), "Content-Type", "application/x-www-form-urlencoded", "User-Agent", "Telegraf/1.36"); status != 200 || !json.Valid([]byte(body)) || strings.Contains(body, "error") {
		t.Errorf("outputs.influxdb makes its database: %d %s", status, body)
	}
	if status, body := ask("/write?db=telegraf", lines(2), headers[:4]...); status != 204 {
		t.Errorf("outputs.influxdb: %d %s", status, body)
	}
	if status, body := ask("/query", "q=SELECT+*+FROM+mem"); status != 400 || !strings.Contains(body, "8443") {
		t.Errorf("a question: %d %s", status, body)
	}
	// What the outputs do at an error follows from the status, and they look for the reason here.
	var said struct{ Message, Error string }
	if status, body := ask(to, "cpu,cpu=cpu0 x=1 1\n", headers...); status != 400 || json.Unmarshal([]byte(body), &said) != nil || !strings.Contains(said.Message, "tagexclude") {
		t.Errorf("a tag that nobody maps: %d %s", status, body)
	}
	if got := p.readings(child + "/mem_used"); len(got) != 2 || got["1"] != 1 || got["2"] != 1 {
		t.Errorf("mem_used: %v", got)
	}
}

// homeAssistant publishes as its mqtt_statestream does, and asks as its rest sensor does,
// by the values of the example.
func (p *plant) homeAssistant(api, identity string) {
	t := p.t
	folder := foreign(t, "node", "HOLDFAST_NODERED") // it brings a reader of YAML
	text := runs(t, nil, "node", "-e", `const yaml = require(process.argv[1] + '/node_modules/js-yaml'), fs = require('fs');
		const secret = new yaml.Type('!secret', { kind: 'scalar', construct: (s) => 'secret ' + s });
		console.log(JSON.stringify(yaml.load(fs.readFileSync(process.argv[2], 'utf8'), { schema: yaml.DEFAULT_SCHEMA.extend([secret]) })));`, folder, examples+"/home-assistant/configuration.yaml")
	var conf struct {
		Statestream struct {
			Base string `json:"base_topic"`
		} `json:"mqtt_statestream"`
		Rest []struct {
			Resource string
			Params   map[string]string
			Headers  map[string]string
			Sensor   []struct {
				Template string `json:"value_template"`
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &conf); err != nil || len(conf.Rest) != 1 || conf.Rest[0].Headers["Authorization"] != "secret holdfast_token" {
		t.Fatalf("%v %s", err, text)
	}
	rest := conf.Rest[0]
	c := p.run("connected to the broker", p.from("--identity", identity, "--hub", "mqtts://localhost:"+p.mqttPort, "--map", "homeassistant", "--every", "100ms")...)
	things := p.publisher()
	p.publish(things, conf.Statestream.Base+"/sensor/kitchen_temperature/state", "20.5")
	p.publish(things, conf.Statestream.Base+"/sensor/kitchen_temperature/state", "unavailable")
	p.publish(things, conf.Statestream.Base+"/sensor/kitchen_temperature/state", "21.5")
	p.ended(c, "3 messages")

	token, err := os.ReadFile(p.file("reader.token"))
	if err != nil {
		t.Fatal(err)
	}
	q := url.Values{}
	for k, v := range rest.Params {
		q.Set(k, v)
	}
	u, err := url.Parse(rest.Resource)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api+u.Path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	config, err := (&gateway{dir: identity}).tls()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: config.RootCAs}}}
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	var answered any
	if err := json.Unmarshal(body, &answered); err != nil {
		t.Fatalf("%d %s", answer.StatusCode, body)
	}
	if got := template(t, rest.Sensor[0].Template, answered); got != 21.0 {
		t.Errorf("the sensor shows %v of %s", got, body)
	}
}

// template follows a path of Home Assistant's templates: {{ value_json.a[-1].b }}.
func template(t *testing.T, text string, v any) any {
	t.Helper()
	path, ok := strings.CutPrefix(strings.Trim(text, "{} "), "value_json.")
	if !ok {
		t.Fatalf("%s is no path", text)
	}
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || len(x) == 0 {
				t.Fatalf("%s: %v", text, err)
			}
			v = x[(i+len(x))%len(x)]
		}
	}
	return v
}

// An example is read in one go, and its page tells how it is tried.
func TestExamplesAreShort(t *testing.T) {
	page, err := os.ReadFile(examples + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"telegraf", "node-red", "mqttjs", "python", "home-assistant", "holders/openssl", "holders/openbao"} {
		files, err := filepath.Glob(examples + "/" + name + "/*")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.Contains(string(page), "("+name+"/") {
			t.Errorf("examples/README.md does not tell of %s", name)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(text, []byte("\n")); n >= 60 {
				t.Errorf("%s has %d lines", f, n)
			}
		}
	}
}
