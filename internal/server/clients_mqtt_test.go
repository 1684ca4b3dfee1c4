package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/autopaho/queue/memory"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// lead is a way to the hub that can be cut.
type lead struct {
	ln net.Listener
	to string

	mu   sync.Mutex
	ends []net.Conn
	wg   sync.WaitGroup
}

// lay leads a way to an address, HOST:PORT, until the test ends.
func lay(t *testing.T, to string) *lead {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &lead{ln: ln, to: to}
	w.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			w.mu.Lock()
			w.ends = append(w.ends, c, d)
			w.mu.Unlock()
			for _, x := range [][2]net.Conn{{c, d}, {d, c}} {
				w.wg.Go(func() { io.Copy(x[0], x[1]); x[0].Close(); x[1].Close() })
			}
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.cut()
		w.wg.Wait()
	})
	return w
}

// cut ends all connections, in the middle of whatever they carry.
func (w *lead) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.ends {
		c.Close()
	}
	w.ends = nil
}

// ways are how MQTT comes to the hub: by its own port and under HTTPS.
func ways(t *testing.T, at Addresses) map[string]*lead {
	return map[string]*lead{
		"mqtts": lay(t, strings.TrimPrefix(at.MQTT, "mqtts://")),
		"wss":   lay(t, strings.TrimPrefix(at.Device, "https://")),
	}
}

// url of a way, in the scheme that a client calls TLS.
func (w *lead) url(way, tls string) string {
	_, port, _ := net.SplitHostPort(w.ln.Addr().String())
	if way == "wss" {
		return "wss://localhost:" + port + "/mqtt"
	}
	return tls + "://localhost:" + port
}

// in is the house in a subtest.
func (h house) in(t *testing.T) *house {
	h.t = t
	return &h
}

// arrived wants the numbers from 0 to n-1: at QoS 2 once each; at QoS 1 each, and
// more than once only after a connection was lost.
func (h *house) arrived(t *testing.T, who access.Principal, p identity.Peer, stream string, n, qos int) {
	t.Helper()
	times := map[float64]int{}
	for more := 0; len(times) < n && more <= n; more++ { // what came twice makes up for nothing
		got := h.in(t).eventually(who, p, stream, n+more)
		clear(times)
		for _, r := range got {
			times[r.Value.Number()]++
		}
		more = len(got) - n
	}
	for i := range n {
		if k := times[float64(i)]; k == 0 || k > 1 && qos != 1 {
			t.Fatalf("%s: number %d has arrived %d times", stream, i, k)
		}
	}
	if len(times) != n {
		t.Errorf("%s: %d numbers, want %d", stream, len(times), n)
	}
}

// gone waits for the one will of a stream.
func (h *house) gone(t *testing.T, who access.Principal, p identity.Peer, stream string) {
	t.Helper()
	if got := h.in(t).eventually(who, p, "event/"+stream, 1); len(got) != 1 || got[0].Value != holdfast.TextValue("gone") {
		t.Errorf("%s: the will is %v", stream, got)
	}
}

const (
	numbers = 300 // that a client sends
	cuts    = 4   // of its connection meanwhile
)

// Eclipse's client of MQTT 3.1.1, which sends again by itself what it finds
// unacknowledged after a lost connection: at times also a QoS 2 publish whose PUBREL
// it has sent already, so that only the time in a reading makes it one.
func TestPahoOfMQTT3IsADevice(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.enrolled(anna.Party, "watch")
	at, _ := h.serve()
	for way, w := range ways(t, at) {
		for qos := range 3 {
			stream := fmt.Sprintf("three-%s-%d", way, qos)
			t.Run(stream, func(t *testing.T) {
				up := make(chan bool, 100)
				o := mqtt3.NewClientOptions().AddBroker(w.url(way, "tls")).SetTLSConfig(d.tls()).SetClientID(stream).SetProtocolVersion(4).
					SetCleanSession(false).SetMaxReconnectInterval(100*time.Millisecond).SetKeepAlive(30*time.Second).SetOrderMatters(true).
					SetBinaryWill("event/"+stream, []byte("gone"), 1, false).SetWriteTimeout(10 * time.Second).
					SetOnConnectHandler(func(mqtt3.Client) { up <- true })
				c := mqtt3.NewClient(o)
				if token := c.Connect(); !token.WaitTimeout(30*time.Second) || token.Error() != nil {
					t.Fatalf("connect: %v", token.Error())
				}
				defer c.Disconnect(0)
				<-up
				var tokens []mqtt3.Token
				for i := range numbers {
					tokens = append(tokens, c.Publish("data/"+stream, byte(qos), false, fmt.Sprintf(`{"t":%d,"v":%d}`, 1700000000+i, i)))
					if qos > 0 && i%(numbers/cuts) == 10 {
						w.cut()
						<-up
					}
				}
				for i, token := range tokens {
					// An error says that the connection was lost while it was written: the client
					// keeps it and sends it again.
					if !token.WaitTimeout(30*time.Second) || token.Error() != nil && qos == 0 {
						t.Fatalf("publish %d: %v", i, token.Error())
					}
				}
				h.arrived(t, anna, d.Peer, stream, numbers, 2)
				if qos > 0 {
					return // each lost connection has left a will
				}
				token := c.Subscribe("cmd", 1, nil).(*mqtt3.SubscribeToken)
				if !token.WaitTimeout(30*time.Second) || token.Result()["cmd"] != 0x80 {
					t.Errorf("subscribe: %v %v", token.Result(), token.Error())
				}
				w.cut()
				<-up
				h.gone(t, anna, d.Peer, stream)
			})
		}
	}
}

// Eclipse's client of MQTT 5, with its queue and its reconnects.
// Its session is read and written at once when a connection is lost (paho.golang
// 0.23.0), so the race detector sees it without cuts; ./test runs it with them besides.
func TestPahoOfMQTT5IsADevice(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.enrolled(anna.Party, "watch")
	at, _ := h.serve()
	for way, w := range ways(t, at) {
		for qos := range 3 {
			stream := fmt.Sprintf("five-%s-%d", way, qos)
			t.Run(stream, func(t *testing.T) {
				address, err := url.Parse(w.url(way, "tls"))
				if err != nil {
					t.Fatal(err)
				}
				up := make(chan bool, 100)
				c, err := autopaho.NewConnection(t.Context(), autopaho.ClientConfig{
					ServerUrls: []*url.URL{address}, TlsCfg: d.tls(), KeepAlive: 30, SessionExpiryInterval: 300, Queue: memory.New(),
					ReconnectBackoff: func(int) time.Duration { return 50 * time.Millisecond },
					OnConnectionUp:   func(_ *autopaho.ConnectionManager, ack *paho.Connack) { up <- ack.SessionPresent },
					WillMessage:      &paho.WillMessage{Topic: "event/" + stream, Payload: []byte("gone"), QoS: 1},
					ClientConfig:     paho.ClientConfig{ClientID: stream},
				})
				if err != nil {
					t.Fatal(err)
				}
				if <-up {
					t.Error("a new session was there before")
				}
				alias := uint16(qos + 1)
				for i := range numbers {
					p := &paho.Publish{QoS: byte(qos), Topic: "data/" + stream, Payload: fmt.Append(nil, i), Properties: &paho.PublishProperties{TopicAlias: &alias}}
					if err := c.PublishViaQueue(t.Context(), &autopaho.QueuePublish{Publish: p}); err != nil {
						t.Fatal(err)
					}
					if qos > 0 && i%(numbers/cuts) == 10 && !raceDetector {
						w.cut()
						if !<-up {
							t.Error("the session is gone")
						}
					}
				}
				h.arrived(t, anna, d.Peer, stream, numbers, qos)
				if qos == 0 && !raceDetector {
					w.cut()
					h.gone(t, anna, d.Peer, stream)
					if !<-up {
						t.Error("the session is gone")
					}
					if s, err := c.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "feed/watch/pulse", QoS: 1}}}); err == nil || len(s.Reasons) != 1 || s.Reasons[0] != 0x87 {
						t.Errorf("subscribe: %+v %v", s, err)
					}
				}
				if err := c.Disconnect(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// mosquitto_pub with what MQTT 5 has, and mosquitto_sub, which asks for what a device
// does not get.
func TestMosquittoKnowsMQTT5(t *testing.T) {
	need(t, "bash", "mosquitto_pub", "mosquitto_sub")
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.enrolled(anna.Party, "watch")
	at, _ := h.serve()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(at.MQTT, "mqtts://"))
	dir := d.files(t)
	how := ` -h localhost -p ` + port + ` --cafile ca.pem --cert cert.pem --key key.pem -d `
	for _, script := range []string{
		`mosquitto_pub -V 5 -q 1 -t data/aliased -m 1 -D publish topic-alias 32 -D publish user-property a b -D publish content-type text/plain` + how,
		// The same session twice, and what a client leaves that does not say goodbye.
		`for q in 1 2; do mosquitto_pub -V 5 -c -i kept -q $q -t data/kept -m $q` + how + `; done`,
		`for q in 1 2; do mosquitto_pub -V 311 -c -i kept-3 -q $q -t data/kept -m $q` + how + `; done`,
	} {
		if out, err := shell(t, dir, script); err != nil {
			t.Fatalf("%s: %v %s", script, err, out)
		}
	}
	if got := h.eventually(anna, d.Peer, "aliased", 1); len(got) != 1 {
		t.Errorf("by alias: %v", got)
	}
	if got := h.eventually(anna, d.Peer, "kept", 4); len(got) != 4 {
		t.Errorf("in a session: %v", got)
	}
	if out, err := shell(t, dir, `mosquitto_pub -V 5 -q 1 -t data/x -m 1 -D publish topic-alias 33`+how); err == nil {
		t.Errorf("alias 33: %s", out)
	}
	for _, args := range []string{"-V 311 -t '#'", "-V 5 -t cmd", "-V 5 -t '#'", "-V 5 -t '$share/a/b'"} {
		if out, _ := shell(t, dir, "mosquitto_sub -W 5 "+args+how+" 2>&1 || true"); !strings.Contains(out, "All subscription requests were denied") {
			t.Errorf("mosquitto_sub %s: %s", args, out)
		}
	}
	for _, version := range []string{"311", "5"} { // killed, it says no goodbye
		stream := "lost-" + version
		cmd := exec.Command("mosquitto_pub", strings.Fields("-V "+version+" -l -q 1 -t data/"+stream+" --will-topic event/"+stream+" --will-payload gone --will-qos 2"+how)...)
		cmd.Dir = dir
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in, 1)
		h.eventually(anna, d.Peer, stream, 1)
		cmd.Process.Kill()
		cmd.Wait()
		h.gone(t, anna, d.Peer, stream)
	}
}

// MQTT.js, in both versions, by both ways: what browsers and Node speak.
func TestMQTTjsIsADevice(t *testing.T) {
	folder := os.Getenv("HOLDFAST_MQTTJS")
	if folder == "" {
		t.Skip("SKIPPED: HOLDFAST_MQTTJS does not name a folder with mqtt (./test installs one): MQTT.js was not asked")
	}
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.enrolled(anna.Party, "watch")
	at, _ := h.serve()
	dir := d.files(t)
	for way, w := range ways(t, at) {
		for _, version := range []int{4, 5} {
			for qos := range 3 {
				stream := fmt.Sprintf("js-%s-%d-%d", way, version, qos)
				t.Run(stream, func(t *testing.T) {
					t.Parallel()
					options, err := json.Marshal(map[string]any{"url": w.url(way, "mqtts"), "dir": dir, "version": version, "qos": qos, "count": numbers, "stream": stream})
					if err != nil {
						t.Fatal(err)
					}
					cmd := exec.CommandContext(t.Context(), "node", "testdata/mqttjs.js", folder, string(options))
					var stderr strings.Builder
					cmd.Stderr = &stderr
					out, err := cmd.Output()
					if err != nil {
						t.Fatalf("%v: %s", err, stderr.String())
					}
					var seen struct {
						Connects, Present, AliasMaximum, Refused int
						Retain                                   bool
						Subscribed                               []int
					}
					if err := json.Unmarshal(out, &seen); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					h.arrived(t, anna, d.Peer, stream, numbers, qos)
					if qos > 0 && (seen.Connects != 4 || seen.Present != seen.Connects-1) {
						t.Errorf("%d connects, of which %d found the session", seen.Connects, seen.Present)
					}
					if version == 5 && (seen.AliasMaximum != 32 || seen.Retain) || version == 5 && qos > 0 && seen.Refused != 0x90 {
						t.Errorf("seen: %+v", seen)
					}
					if len(seen.Subscribed) != 1 || seen.Subscribed[0] < 0x80 {
						t.Errorf("a subscription was answered with %v", seen.Subscribed)
					}
					if qos == 0 {
						h.gone(t, anna, d.Peer, stream)
					}
				})
			}
		}
	}
}
