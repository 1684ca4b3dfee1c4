package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// rss is the memory of a process in KiB.
func (k *child) rss() (kib int) {
	k.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.cmd.Process.Pid))
	if err != nil {
		k.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib
		}
	}
	k.t.Fatal("no VmRSS")
	return 0
}

// neighbour is a well-behaved device that publishes all the time.
type neighbour struct {
	mu      sync.Mutex
	n       int
	slowest time.Duration
	all     []time.Duration
	err     error
}

func (d *thing) behaves(t *testing.T, at Addresses) (nb *neighbour, stop func()) {
	t.Helper()
	nb = &neighbour{}
	c := d.mqtt(t, at)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			began := time.Now()
			// It is let finish: what counts is when it is answered.
			_, err := c.Publish(context.WithoutCancel(ctx), &paho.Publish{QoS: 1, Topic: "data/n", Payload: fmt.Append(nil, nb.n)})
			took := time.Since(began)
			nb.mu.Lock()
			nb.n++
			nb.all = append(nb.all, took)
			nb.slowest = max(nb.slowest, took)
			nb.err = err
			nb.mu.Unlock()
			if err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return nb, func() { cancel(); <-ended }
}

// take returns the latencies since the last call.
func (nb *neighbour) take() (n int, median, slowest time.Duration, err error) {
	nb.mu.Lock()
	defer nb.mu.Unlock()
	slices.Sort(nb.all)
	if n = len(nb.all); n > 0 {
		median = nb.all[n/2]
	}
	slowest, err = nb.slowest, nb.err
	nb.all, nb.slowest = nil, 0
	return n, median, slowest, err
}

// silent opens n sockets from many addresses that say nothing, half a TLS record or
// half a request, and keeps them open.
func silent(t *testing.T, n int, at Addresses, d *thing) (opened int, closeAll func()) {
	t.Helper()
	targets := []string{strings.TrimPrefix(at.MQTT, "mqtts://"), strings.TrimPrefix(at.Device, "https://")}
	var mu sync.Mutex
	var all []net.Conn
	var openers sync.WaitGroup
	jobs := make(chan int)
	for range 32 {
		openers.Go(func() {
			for i := range jobs {
				from := &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i%40), byte(1+i%7))}
				nc, err := (&net.Dialer{LocalAddr: from, Timeout: 500 * time.Millisecond}).Dial("tcp4", targets[i%2])
				if err != nil {
					continue // not accepted: its place in the queue is full
				}
				switch i % 4 {
				case 2:
					nc.Write([]byte{22, 3, 1, 2, 0, 1, 0}) // the beginning of a ClientHello
				case 3:
					if i%40 == 3 { // TLS done, then a header in drips
						config := d.tls()
						config.ServerName = "localhost"
						tc := tls.Client(nc, config)
						tc.SetDeadline(time.Now().Add(3 * time.Second))
						if tc.Handshake() == nil {
							fmt.Fprint(tc, "POST /v1/data HTTP/1.1\r\nHost: loc")
						}
					}
				}
				mu.Lock()
				all = append(all, nc)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		jobs <- i
	}
	close(jobs)
	openers.Wait()
	return len(all), func() {
		for _, nc := range all {
			nc.Close()
		}
	}
}

// Ten thousand sockets that say nothing, to both listeners: a device beside them
// is answered as before, another can come in, memory stays bounded, the hub keeps
// its files.
func TestTenThousandSayNothing(t *testing.T) {
	for name, files := range map[string]uint64{"files as usual": 0, "2,048 files": 2048} {
		t.Run(name, func(t *testing.T) {
			n := 10_000
			if files > 0 {
				n = 2 * int(files)
			}
			var limit syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			if most := int(limit.Cur) - 500; n > most {
				t.Logf("the limit of open files is %d: %d sockets", limit.Cur, most)
				n = most
			}
			h := newHouse(t)
			anna := h.person("Anna")
			good, late := h.enrolled(anna.Party, "good"), h.enrolled(anna.Party, "late")
			h.halt()
			hub := h.spawn(childConfig{Files: files, RollEvery: time.Second})
			nb, stop := good.behaves(t, hub.at)
			time.Sleep(time.Second)
			calm, calmMedian, calmSlowest, _ := nb.take()
			before := hub.rss()
			opened, closeAll := silent(t, n, hub.at, late)
			defer closeAll()
			during := hub.rss()
			m, median, slowest, err := nb.take()
			t.Logf("%d sockets; RSS %d -> %d KiB; calm: %d publishes, median %s, slowest %s; storm: %d, %s, %s", opened, before, during,
				calm, calmMedian.Round(time.Microsecond), calmSlowest.Round(time.Microsecond), m, median.Round(time.Microsecond), slowest.Round(time.Microsecond))
			if err != nil {
				t.Errorf("the neighbour: %v", err)
			}
			if slowest > 3*time.Second {
				t.Errorf("the neighbour waited %s", slowest)
			}
			if during-before > 512<<10 {
				t.Errorf("memory grew by %d KiB", during-before)
			}
			// A newcomer gets in while they hold all places: the silent give way.
			began, in := time.Now(), false
			for !in && time.Since(began) < 25*time.Second {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				c, _, err := late.dialMQTT(ctx, hub.at, &paho.Connect{ClientID: "late", KeepAlive: 60, CleanStart: true}, paho.ClientConfig{})
				if err == nil {
					_, err = c.Publish(ctx, &paho.Publish{QoS: 1, Topic: "data/n", Payload: []byte("1")})
					in = err == nil
					c.Disconnect(&paho.Disconnect{})
				}
				cancel()
			}
			if !in {
				t.Error("another device does not get in")
			}
			t.Logf("a newcomer over MQTT is in after %s", time.Since(began).Round(time.Millisecond))
			if time.Since(began) > 5*time.Second {
				t.Error("that is too long")
			}
			began, in = time.Now(), false
			web := late.http(t)
			web.Timeout = 5 * time.Second
			for !in && time.Since(began) < 25*time.Second {
				status, _, _, err := post(web, hub.at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"n","v":1}]`))
				in = err == nil && status == 204
			}
			if !in {
				t.Error("another device does not get in over HTTPS")
			}
			t.Logf("a newcomer over HTTPS is in after %s", time.Since(began).Round(time.Millisecond))
			if time.Since(began) > 5*time.Second {
				t.Error("that is too long")
			}
			stop()
			if _, _, slowest, err := nb.take(); err != nil || slowest > 3*time.Second {
				t.Errorf("the neighbour: slowest %s, %v", slowest, err)
			}
			hub.end()
			if said := hub.stderr.String(); strings.Contains(said, "too many open files") && strings.Contains(said, "keep readings") {
				t.Errorf("the hub could not open its own files: %.2000s", said)
			}
			h.start()
			got, err := h.read(anna, good.Peer, "n")
			if err != nil || len(got) != nb.n {
				t.Errorf("%d of %d acknowledged readings: %v", len(got), nb.n, err)
			}
		})
	}
}

// A device that sends nonsense is told so or cut; its neighbour does not notice,
// memory does not grow with what it sends.
func TestNonsenseFromAValidDevice(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	good, bad := h.enrolled(anna.Party, "good"), h.enrolled(anna.Party, "bad")
	profiled := h.profiled(anna)
	h.halt()
	hub := h.spawn(childConfig{})
	nb, stop := good.behaves(t, hub.at)
	time.Sleep(300 * time.Millisecond)
	before := hub.rss()
	rounds := 1
	if long() {
		rounds = 50
	}
	for range rounds {
		rawNonsense(t, bad, hub.at)
		publishedNonsense(t, bad, hub.at)
		postedNonsense(t, bad, hub.at)
	}
	strangeStreams(t, profiled, hub.at)
	after := hub.rss()
	n, median, slowest, err := nb.take()
	t.Logf("RSS %d -> %d KiB; the neighbour: %d publishes, median %s, slowest %s", before, after, n, median.Round(time.Microsecond), slowest.Round(time.Microsecond))
	most := 20 * time.Second
	if long() {
		most /= 10
	}
	if err != nil || slowest > most {
		t.Errorf("the neighbour: slowest %s, %v", slowest, err)
	}
	if after-before > 400<<10 {
		t.Errorf("memory grew by %d KiB", after-before)
	}
	stop()
	hub.end()
	if said := hub.stderr.String(); strings.Contains(said, "panic") {
		t.Errorf("a panic: %.3000s", said)
	}
	h.start()
	streams, err := h.custody.Streams(t.Context(), bad.Device)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if s.Name != "ok" {
			t.Errorf("nonsense made a stream %q", s.Name)
		}
	}
	if got, err := h.read(anna, good.Peer, "n"); err != nil || len(got) != nb.n {
		t.Errorf("%d of %d acknowledged readings: %v", len(got), nb.n, err)
	}
}

func (h *house) profiled(who access.Principal) *thing {
	h.t.Helper()
	if _, err := h.custody.AddProfile(h.t.Context(), h.admin().Credential, []byte(`{"name":"meter","version":1,"streams":[
		{"name":"level","type":"number","purposes":["operation"]},{"name":"count","type":"integer","purposes":["operation"]}]}`)); err != nil {
		h.t.Fatal(err)
	}
	d, err := h.custody.AddDevice(h.t.Context(), h.admin().Credential, custody.DeviceSpec{Label: "meter", Owner: who.Party, Profile: "meter"})
	if err != nil {
		h.t.Fatal(err)
	}
	p := h.device(who.Party, "unused")
	p.Device, p.Assignment = d.Device.ID, d.Device.Assignment
	return h.enrol(p, "meter")
}

// rawNonsense breaks the protocol below the publishes: each is cut, MQTT 5 with a
// reason.
func rawNonsense(t *testing.T, d *thing, at Addresses) {
	t.Helper()
	hello := []byte("\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04raw1")
	for name, x := range map[string]struct {
		sent   []byte
		reason byte // of DISCONNECT, 0: just cut
	}{
		"not MQTT":                      {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 0},
		"no CONNECT":                    {[]byte("\x30\x05\x00\x01a1"), 0},
		"a packet of 256 MB":            {append(bytes.Clone(hello), 0x30, 0xff, 0xff, 0xff, 0x7f), 0x95},
		"a length of 5 bytes":           {append(bytes.Clone(hello), 0x30, 0xff, 0xff, 0xff, 0xff, 0x01), 0x81},
		"QoS 3":                         {append(bytes.Clone(hello), 0x36, 0x05, 0, 1, 'a', 0, 1), 0x81},
		"a topic that is not UTF-8":     {append(bytes.Clone(hello), 0x30, 0x06, 0, 2, 0xff, 0xfe, 0, '1'), 0x81},
		"a topic with a wildcard":       {append(bytes.Clone(hello), 0x30, 0x08, 0, 4, 'd', '/', '#', 'x', 0, '1'), 0x82},
		"an unset alias":                {append(bytes.Clone(hello), 0x30, 0x07, 0, 0, 3, 0x23, 0, 5, '1'), 0x82},
		"a packet id of 0":              {append(bytes.Clone(hello), 0x32, 0x08, 0, 3, 'd', '/', 'x', 0, 0, 0), 0x82},
		"a second CONNECT":              {append(bytes.Clone(hello), hello...), 0x82},
		"an answer to nothing":          {append(bytes.Clone(hello), 0x40, 2, 0, 1), 0x82},
		"a type that does not exist":    {append(bytes.Clone(hello), 0x00, 0), 0x81},
		"properties that do not end":    {append(bytes.Clone(hello), 0x30, 0x08, 0, 3, 'd', '/', 'x', 0xff, 0xff, 0xff), 0x81},
		"CONNECT with a broken version": {[]byte("\x10\x11\x00\x04MQTT\x09\x02\x00\x3c\x00\x00\x04raw1"), 0},
	} {
		nc, err := d.dial(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		nc.Write(x.sent)
		answer, err := io.ReadAll(nc)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s: not cut, said %x", name, answer)
		}
		if x.reason != 0 && !disconnectsWith(answer, x.reason) {
			t.Errorf("%s: answered %x, want DISCONNECT 0x%02X", name, answer, x.reason)
		}
		nc.Close()
	}
}

func disconnectsWith(answer []byte, reason byte) bool {
	for r := bytes.NewReader(answer); ; {
		p, err := packets.ReadPacket(r)
		if err != nil {
			return false
		}
		if d, ok := p.Content.(*packets.Disconnect); ok {
			return d.ReasonCode == reason
		}
	}
}

// nonsense is payloads that are no reading, with a stream to send them to.
func nonsense() map[string][]byte {
	return map[string][]byte{
		"nothing":         {},
		"an array":        []byte("[1,2]"),
		"deep JSON":       []byte(`{"v":` + strings.Repeat(`{"v":`, 10_000) + "1" + strings.Repeat("}", 10_001)),
		"deep arrays":     []byte(strings.Repeat("[", 200_000)),
		"a huge number":   []byte("1e999999"),
		"digits":          bytes.Repeat([]byte("9"), 400_000),
		"bad UTF-8":       []byte("\"a\xff\xfe\""),
		"binary":          {0, 1, 2, 0xff},
		"a lone half":     []byte(`{"t":1`),
		"a time beyond":   []byte(`{"t":1e300,"v":1}`),
		"a time of years": []byte(`{"t":"99999-01-01T00:00:00Z","v":1}`),
		"keys twice":      []byte(`{"v":1,"v":2}`),
		"NaN":             []byte(`{"v":NaN}`),
		"a place beyond":  []byte(`{"lat":91,"lon":0}`),
		"bad base64":      []byte(`{"b64":"!!!"}`),
		"sequence < 0":    []byte(`{"v":1,"seq":-1}`),
		"a large text":    append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 300<<10)...), '"'),
	}
}

// publishedNonsense is answered with a reason code, and the connection lives on.
func publishedNonsense(t *testing.T, d *thing, at Addresses) {
	t.Helper()
	c, _, err := d.dialMQTT(t.Context(), at, &paho.Connect{ClientID: "bad", KeepAlive: 60, CleanStart: true}, paho.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect(&paho.Disconnect{})
	refused := func(name, topic string, payload []byte, qos byte, reasons ...byte) {
		t.Helper()
		r, err := c.Publish(t.Context(), &paho.Publish{QoS: qos, Topic: topic, Payload: payload})
		if r == nil || !slices.Contains(reasons, r.ReasonCode) {
			t.Errorf("%s, QoS %d: %+v %v", name, qos, r, err)
		}
	}
	for name, payload := range nonsense() {
		for qos := byte(1); qos < 3; qos++ {
			refused(name, "data/bad", payload, qos, 0x99, 0x97)
			refused(name+" as a pack", "data", payload, qos, 0x99, 0x97)
		}
	}
	many := []byte("[" + strings.TrimSuffix(strings.Repeat(`{"n":"many","v":1},`, 20_000), ",") + "]")
	refused("20,000 readings", "data", many, 1, 0x97, 0x99)
	refused("a name too long", "data/"+strings.Repeat("x", 200), []byte("1"), 1, 0x90, 0x99)
	refused("a topic of nothing", "telemetry", []byte("1"), 1, 0x90)
	refused("a child that is none", "child/nobody/data/x", []byte("1"), 1, 0x90, 0x87)
	if _, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/ok", Payload: []byte("1")}); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// postedNonsense is answered with a problem document.
func postedNonsense(t *testing.T, d *thing, at Addresses) {
	t.Helper()
	web := d.http(t)
	zipped := func(b []byte) io.Reader {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		z.Write(b)
		z.Close()
		return &out
	}
	check := func(name, path, contentType, encoding string, body io.Reader, statuses ...int) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.Device+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		a, err := web.Do(r)
		if err != nil { // a body that was not read to its end may break the connection
			if !slices.Contains(statuses, 413) {
				t.Errorf("%s: %v", name, err)
			}
			return
		}
		defer a.Body.Close()
		var p struct {
			Type, Title string
			Status      int
		}
		err = json.NewDecoder(a.Body).Decode(&p)
		if !slices.Contains(statuses, a.StatusCode) || a.Header.Get("Content-Type") != "application/problem+json" || err != nil || p.Status != a.StatusCode || p.Title == "" {
			t.Errorf("%s: %s %+v %v", name, a.Status, p, err)
		}
	}
	for name, payload := range nonsense() {
		check(name, "/v1/data", "application/senml+json", "", bytes.NewReader(payload), 400, 413)
		check(name+" as CBOR", "/v1/data", "application/senml+cbor", "", bytes.NewReader(payload), 400, 413)
		check(name+" as lines", "/write", "text/plain", "", bytes.NewReader(payload), 400, 413)
	}
	check("a wrong type", "/v1/data", "image/png", "", strings.NewReader("x"), 400)
	check("a gzip bomb", "/v1/data", "application/senml+json", "gzip", zipped(bytes.Repeat([]byte(" "), 1<<30/8)), 413)
	check("what is not gzip", "/v1/data", "application/senml+json", "gzip", strings.NewReader("x"), 400)
	check("64 MB", "/v1/data", "application/senml+json", "", bytes.NewReader(make([]byte, 64<<20)), 413)
	check("nested CBOR", "/v1/data", "application/senml+cbor", "", bytes.NewReader(bytes.Repeat([]byte{0x81}, 1<<20)), 400, 413)
	check("CBOR that promises much", "/v1/data", "application/senml+cbor", "", bytes.NewReader([]byte{0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), 400, 413)
	check("no such place", "/v1/nothing", "text/plain", "", strings.NewReader("x"), 404)
	if status, _, text, err := post(web, at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"ok","v":1}]`)); err != nil || status != 204 {
		t.Errorf("after all that: %d %s %v", status, text, err)
	}
}

// strangeStreams are those that a profile does not have: refused with a reason.
func strangeStreams(t *testing.T, d *thing, at Addresses) {
	t.Helper()
	c := d.mqtt(t, at)
	for i := range 50 {
		r, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: fmt.Sprintf("data/strange%d", i), Payload: []byte("1")})
		if r == nil || r.ReasonCode != 0x90 {
			t.Fatalf("a strange stream: %+v %v", r, err)
		}
	}
	r, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/count", Payload: []byte("1.5")})
	if r == nil || r.ReasonCode != 0x99 {
		t.Errorf("half a count: %+v %v", r, err)
	}
	if _, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/level", Payload: []byte("1.5")}); err != nil {
		t.Errorf("its own stream: %v", err)
	}
	status, _, text, err := post(d.http(t), at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"strange","v":1}]`))
	if err != nil || status != 404 || !strings.Contains(text, `"detail"`) {
		t.Errorf("a strange stream over HTTPS: %d %s %v", status, text, err)
	}
}
