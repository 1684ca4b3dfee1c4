package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// certified makes a credential by certificate, at the wish of by.
func (h *house) certified(by access.Principal, spec access.Spec) (*thing, holdfast.CredentialID) {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		h.t.Fatal(err)
	}
	spec.Party, spec.Label = by.Party, "certificate"
	made, err := h.access.Add(h.t.Context(), by, spec, csr)
	if err != nil {
		h.t.Fatal(err)
	}
	block, _ := pem.Decode(made.Certificate)
	return &thing{ca: h.identity.CAPEM(), cert: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}, made.ID
}

// listening runs mosquitto_sub and returns what it prints once it has subscribed.
func listening(t *testing.T, dir, port string, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	all := append([]string{"-h", "localhost", "-p", port, "--cafile", "ca.pem", "--cert", "cert.pem", "--key", "key.pem", "-d", "-W", "60", "-F", "MSG %t %q %r %p"}, args...)
	c := exec.CommandContext(ctx, "stdbuf", append([]string{"-oL", "mosquitto_sub"}, all...)...)
	c.Dir = dir
	out, err := c.StdoutPipe()
	if err == nil {
		c.Stderr = c.Stdout
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); c.Wait() })
	ready, lines := make(chan string, 1), make(chan string, 4096)
	go func() {
		defer close(lines)
		var last string
		for s := bufio.NewScanner(out); s.Scan(); {
			last = s.Text()
			if strings.HasPrefix(last, "Subscribed (mid") {
				ready <- last
			}
			if m, ok := strings.CutPrefix(last, "MSG "); ok {
				lines <- m
			}
		}
		select {
		case ready <- "it ended: " + last:
		default:
		}
	}()
	select {
	case s := <-ready:
		if !strings.HasPrefix(s, "Subscribed") || strings.Contains(s, "128") {
			t.Fatalf("mosquitto_sub %v: %s", args, s)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("mosquitto_sub does not subscribe")
	}
	return lines
}

func wantLine(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case got, ok := <-lines:
		if !ok || got != want {
			t.Fatalf("received %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%q does not come", want)
	}
}

// mosquitto_sub, in both versions, at both QoS, alone, with wildcards and shared; and a
// session that goes on after the hub was stopped and started.
func TestMosquittoSubscribes(t *testing.T) {
	need(t, "stdbuf", "mosquitto_sub")
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.device(anna.Party, "watch")
	h.mustSend(d, number("t", time.Unix(1_699_999_999, 0), 0))
	id, _ := h.certified(anna, access.Spec{Role: access.Owner})
	dir := id.files(t)
	at, end := h.serve()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(at.MQTT, "mqtts://"))
	subs := map[string]<-chan string{}
	for _, v := range []string{"311", "5"} {
		for _, q := range []string{"0", "1"} {
			for _, f := range []string{"feed/watch/t", "feed/+/t", "feed/watch/+", "feed/#"} {
				subs["watch "+q+" "+v+f] = listening(t, dir, port, "-V", "mqttv"+v, "-q", q, "-t", f, "-i", "c"+v+q+f[5:])
			}
			f := "feed/" + d.Device.String() + "/t"
			subs[d.Device.String()+" "+q+" "+v] = listening(t, dir, port, "-V", "mqttv"+v, "-q", q, "-t", f, "-i", "id"+v+q)
			if len(subs) > 12 {
				break // of one client's connections there are 16
			}
		}
	}
	h.mustSend(d, number("t", time.Unix(1_700_000_000, 1), 21.5))
	for name, lines := range subs {
		device, rest, _ := strings.Cut(name, " ")
		wantLine(t, lines, fmt.Sprintf(`feed/%s/t %s 0 {"t":"2023-11-14T22:13:20.000000001Z","v":21.5}`, device, rest[:1]))
	}
	other, _ := h.certified(anna, access.Spec{Role: access.Owner})
	dir = other.files(t)
	a := listening(t, dir, port, "-V", "mqttv5", "-q", "1", "-t", "$share/g/feed/watch/t", "-i", "a")
	b := listening(t, dir, port, "-V", "mqttv5", "-q", "1", "-t", "$share/g/feed/watch/t", "-i", "b")
	for i := range 20 {
		h.mustSend(d, number("t", time.Unix(1_700_000_100+int64(i), 0), float64(i)))
	}
	seen := map[string]int{}
	for n := 0; n < 20; n++ {
		select {
		case m := <-a:
			seen[m]++
		case m := <-b:
			seen[m]++
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of 20 came", n)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d different messages", len(seen))
	}
	lasting := listening(t, dir, port, "-V", "mqttv311", "-c", "-q", "1", "-t", "feed/watch/t", "-i", "lasting", "-C", "1")
	h.mustSend(d, number("t", time.Unix(1_700_000_200, 0), 1))
	wantLine(t, lasting, `feed/watch/t 1 0 {"t":"2023-11-14T22:16:40Z","v":1}`)
	for range lasting { // it has gone
	}
	h.mustSend(d, number("t", time.Unix(1_700_000_201, 0), 2))
	end()
	h.mustSend(d, number("t", time.Unix(1_700_000_202, 0), 3))
	at, _ = h.serve()
	_, port, _ = net.SplitHostPort(strings.TrimPrefix(at.MQTT, "mqtts://"))
	lasting = listening(t, dir, port, "-V", "mqttv311", "-c", "-q", "1", "-t", "feed/watch/t", "-i", "lasting")
	for i, at := range []string{"41", "42"} {
		wantLine(t, lasting, fmt.Sprintf(`feed/watch/t 1 0 {"t":"2023-11-14T22:16:%sZ","v":%d}`, at, i+2))
	}
}

// A recipient's program reads under a grant, by the device's id or by a wildcard, and
// nothing else; when the grant is withdrawn, or the credential revoked, it is told and
// cut within a second or two.
func TestProgramOverMQTT(t *testing.T) {
	h := newHouse(t)
	for _, name := range []holdfast.Purpose{"study", "care"} {
		if _, err := h.grants.AddPurpose(t.Context(), h.admin().Credential, grant.Purpose{Name: name, IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."}); err != nil {
			t.Fatal(err)
		}
	}
	anna, ben := h.person("Anna"), h.person("Ben")
	institute, err := h.custody.AddParty(t.Context(), h.admin().Credential, "Institute", custody.Organisation)
	if err != nil {
		t.Fatal(err)
	}
	maker := access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: institute.ID, Role: access.Owner,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}
	band := h.enrolled(anna.Party, "watch")
	watch, scale := band.Peer, h.device(ben.Party, "scale")
	h.mustSend(watch, number("pulse", time.Now(), 1))
	h.mustSend(scale, number("pulse", time.Now(), 1))
	program, id := h.certified(maker, access.Spec{Role: access.Program, Purposes: []holdfast.Purpose{"study", "care"}})
	at, _ := h.serve()
	var m struct{ ID string }
	e := &estate{house: h, at: at, targets: map[string]*target{"anna": {slug: "anna", party: anna.Party, device: band}}}
	e.reader("Anna", anna, access.Spec{Role: access.Owner}, nothing)
	e.must("Anna", "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+1d"}`, &m)

	for filter, code := range map[string]byte{
		"feed/" + scale.Device.String() + "/pulse": 0x87, "feed/" + holdfast.NewID[holdfast.DeviceID]().String() + "/pulse": 0x87, "feed/watch/pulse": 0x87,
		"cmd/#": 0x87, "desired": 0x87, "#": 0x87, "data/pulse": 0x87, "feed": 0x87, "feed/a": 0x8f, "feed/+/a/#": 0x8f, "feed/" + watch.Device.String() + "/pulse": 1, "feed/#": 1, "feed/+/pulse": 1,
	} {
		c := h.paho5(program, at, "x", nil)
		if got := c.ask(filter, "study"); got != code {
			t.Errorf("SUBSCRIBE %s: 0x%02X, want 0x%02X", filter, got, code)
		}
		if got := c.ask(filter, "care"); got < 0x80 {
			t.Errorf("SUBSCRIBE %s for another purpose: 0x%02X", filter, got)
		}
		if got := c.ask(filter, ""); got < 0x80 {
			t.Errorf("SUBSCRIBE %s for no purpose: 0x%02X", filter, got)
		}
		c.Disconnect(&paho.Disconnect{})
	}
	topics := make(chan string, 64)
	c := h.paho5(program, at, "y", topics)
	if code := c.ask("feed/#", "study"); code != 1 {
		t.Fatalf("SUBSCRIBE: 0x%02X", code)
	}
	h.mustSend(scale, number("pulse", time.Now(), 7))
	h.mustSend(watch, number("pulse", time.Now(), 7))
	wantLine(t, topics, "feed/"+watch.Device.String()+"/pulse")
	if _, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/x", Payload: []byte("1")}); err == nil {
		t.Errorf("a program's publish: %v", err)
	}
	began := time.Now()
	e.must("Anna", "DELETE", "/v1/grants/"+m.ID, "", nil)
	c.ended(0x87)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the withdrawal took %s", took)
	}
	if code := h.paho5(program, at, "y", topics).ask("feed/#", "study"); code != 0x87 {
		t.Errorf("SUBSCRIBE after the withdrawal: 0x%02X", code)
	}
	c = h.paho5(program, at, "z", topics)
	began = time.Now()
	if err := h.access.Revoke(t.Context(), maker, id, "lost"); err != nil {
		t.Fatal(err)
	}
	c.ended(0x98)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the revocation took %s", took)
	}
	if len(topics) > 0 {
		t.Errorf("received on %s, too", <-topics)
	}
}

// client5 is a connection of Paho for MQTT 5.
type client5 struct {
	t *testing.T
	*paho.Client
	codes chan byte
}

func (h *house) paho5(who *thing, at Addresses, id string, topics chan string) *client5 {
	h.t.Helper()
	t := h.t.(*testing.T)
	nc, err := tls.Dial("tcp", strings.TrimPrefix(at.MQTT, "mqtts://"), who.tls())
	if err != nil {
		t.Fatal(err)
	}
	c := &client5{t: t, codes: make(chan byte, 1)}
	// Paho pings from a goroutine of its own and writes a packet in pieces: hence the lock.
	c.Client = paho.NewClient(paho.ClientConfig{ClientID: id, Conn: packets.NewThreadSafeConn(nc), PacketTimeout: time.Minute,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			topics <- p.Packet.Topic
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { c.codes <- d.ReasonCode },
	})
	hour := uint32(3600)
	if _, err := c.Connect(t.Context(), &paho.Connect{ClientID: id, KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &hour}}); err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { nc.Close() })
	return c
}

// ask subscribes and returns the code.
func (c *client5) ask(filter, purpose string) byte {
	c.t.Helper()
	s := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}, Properties: &paho.SubscribeProperties{}}
	if purpose != "" {
		s.Properties.User.Add("purpose", purpose)
	}
	ack, err := c.Subscribe(c.t.Context(), s)
	if ack == nil || len(ack.Reasons) != 1 {
		code := byte(0)
		select {
		case code = <-c.codes:
		case <-time.After(time.Second):
		}
		c.t.Fatalf("subscribe %s: %v, DISCONNECT 0x%02X", filter, err, code)
	}
	return ack.Reasons[0]
}

func (c *client5) ended(code byte) {
	c.t.Helper()
	select {
	case got := <-c.codes:
		if got != code {
			c.t.Errorf("DISCONNECT 0x%02X, want 0x%02X", got, code)
		}
	case <-time.After(time.Minute):
		c.t.Fatalf("no DISCONNECT 0x%02X", code)
	}
}

// Paho for 3.1.1 loses nothing over connections that are cut, on both ports.
func TestPahoLosesNothing(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.device(anna.Party, "watch")
	h.mustSend(d, number("n", time.Unix(1, 0), -1))
	id, _ := h.certified(anna, access.Spec{Role: access.Owner})
	at, _ := h.serve()
	for name, to := range map[string]string{"MQTT": at.MQTT, "WebSocket": strings.Replace(at.Device, "https", "wss", 1) + "/mqtt"} {
		t.Run(name, func(t *testing.T) {
			u, _ := url.Parse(to)
			way := lay(t, u.Host)
			_, port, _ := net.SplitHostPort(way.ln.Addr().String())
			u.Host = "localhost:" + port
			if u.Scheme == "mqtts" {
				u.Scheme = "ssl"
			}
			var mu sync.Mutex
			got, order := map[string]int{}, []string{}
			subscribed := make(chan struct{}, 16)
			o := mqtt3.NewClientOptions().AddBroker(u.String()).SetClientID(name).SetCleanSession(false).SetTLSConfig(id.tls()).
				SetAutoReconnect(true).SetMaxReconnectInterval(200 * time.Millisecond).SetConnectRetryInterval(100 * time.Millisecond)
			o.SetOnConnectHandler(func(c mqtt3.Client) {
				c.Subscribe("feed/watch/n", 1, func(_ mqtt3.Client, m mqtt3.Message) {
					mu.Lock()
					defer mu.Unlock()
					if got[string(m.Payload())]++; got[string(m.Payload())] == 1 {
						order = append(order, string(m.Payload()))
					}
				}).Wait()
				subscribed <- struct{}{}
			})
			c := mqtt3.NewClient(o)
			if x := c.Connect(); x.WaitTimeout(20*time.Second) && x.Error() != nil {
				t.Fatal(x.Error())
			}
			defer c.Disconnect(100)
			<-subscribed
			const n = 400
			base := time.Now() // other times than the port before: what is equal is a repeat
			for i := range n {
				h.mustSend(d, number("n", base.Add(time.Duration(i)*time.Millisecond), float64(i)))
				if i%100 == 50 {
					way.cut()
				}
			}
			for until := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				mu.Lock()
				have := len(order)
				mu.Unlock()
				if have == n {
					break
				}
				if time.Now().After(until) {
					t.Fatalf("%d of %d came", have, n)
				}
			}
			for i, m := range order {
				if !strings.HasSuffix(m, fmt.Sprintf(`"v":%d}`, i)) {
					t.Fatalf("message %d is %s", i, m)
				}
			}
		})
	}
}
