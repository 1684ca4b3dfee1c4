package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// secrets is what must be found nowhere, by what it is.
type secrets map[string][]byte

// key plants a key in the ways in which keys are written.
func (s secrets) key(name string, k []byte) {
	s[name] = k
	s[name+" in hex"] = []byte(hex.EncodeToString(k))
	s[name+" in base64"] = []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(k), "="))
}

func (s secrets) text(name, t string) string {
	s[name] = []byte(t)
	return t
}

func (s secrets) in(b []byte) (hits []string) {
	for name, x := range s {
		if bytes.Contains(bytes.ToLower(b), bytes.ToLower(x)) {
			hits = append(hits, name)
		}
	}
	slices.Sort(hits)
	return hits
}

// A busy day, with everything that goes wrong on it: no name, value, code, token or
// key is in the log at its most talkative, in the metrics, or in what others are
// told.
func TestNothingLeaks(t *testing.T) {
	log := new(text)
	h := newHouse(t)
	h.halt()
	h.logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.start()
	s := secrets{}
	anna, ben := h.person(s.text("party", "Annegret Planted")), h.person(s.text("other party", "Benedikt Planted"))
	hers := h.enrolled(anna.Party, s.text("device", "planted-pacemaker"))
	his := h.enrolled(ben.Party, s.text("other device", "planted-scales"))
	gateway := h.enrolled(anna.Party, s.text("gateway", "planted-gateway"))
	if _, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: s.text("child", "planted-child"), Owner: anna.Party, Gateway: gateway.Device, Serial: s.text("serial", "planted-serial-1")}); err != nil {
		t.Fatal(err)
	}
	crate, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: s.text("unclaimed device", "planted-crate"), Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	s.text("claim code", crate.ClaimCode)
	for name, d := range map[string]*thing{"her key": hers, "his key": his} {
		b, err := x509.MarshalPKCS8PrivateKey(d.cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		s.key(name, b[36:68]) // the private scalar
	}
	root, err := os.ReadFile(h.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range rootKeys(t, root) {
		s.key(name, k)
	}
	stream, value, word := s.text("stream", "planted-heart-rhythm"), s.text("value", "71.9376541237"), s.text("text value", "planted-diary-page")
	token, err := h.access.Add(t.Context(), h.admin(), access.Spec{Label: s.text("token label", "planted-token"), Party: h.admin().Party, Role: access.Administrator, Scopes: access.ScopeRead}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.text("token", token.Token)
	invitation, _, err := h.access.Invite(t.Context(), h.admin(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	s.text("invitation", invitation)

	told := new(text) // what others than the owner are told
	at, end := h.serve()
	day := busyDay{h: h, s: s, at: at, told: told, stream: stream, value: value, word: word, token: token.Token}
	day.publish(t, hers)
	day.publish(t, gateway)
	day.post(t, hers)
	day.strangers(t, his)
	day.enrolments(t, hers)
	if _, err := h.read(ben, hers.Peer, stream); err == nil {
		t.Error("another owner reads")
	} else {
		fmt.Fprintln(told, err)
	}
	if _, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: "planted-scales", Owner: ben.Party}); err == nil {
		t.Error("two devices of one name")
	} else {
		fmt.Fprintln(told, err)
	}
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	day.metrics(t)
	scope, err := h.custody.ScopeOfParty(t.Context(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	e, err := h.Server.erasure.Ask(t.Context(), anna, scope)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.Server.erasure.Wait(ctx, e.ID); err != nil {
		t.Fatal(err)
	}
	day.publish(t, his)
	day.metrics(t)
	end()
	for where, b := range map[string]string{"the log": log.String(), "what others are told": told.String()} {
		if hits := s.in([]byte(b)); len(hits) > 0 {
			t.Errorf("in %s: %v", where, hits)
			for line := range strings.Lines(b) {
				if len(s.in([]byte(line))) > 0 {
					t.Logf("%.400s", line)
				}
			}
		}
		if len(b) < 300 {
			t.Errorf("%s is all but empty: %s", where, b)
		}
	}
	// The search finds what is there.
	if hits := s.in([]byte("x Planted-Pacemaker y")); !slices.Equal(hits, []string{"device"}) {
		t.Errorf("the search finds %v", hits)
	}
}

type busyDay struct {
	h                          *house
	s                          secrets
	at                         Addresses
	told                       *text
	stream, value, word, token string
}

// publish sends what is good and what is not, in both cases with content.
func (b busyDay) publish(t *testing.T, d *thing) {
	t.Helper()
	hello := &paho.Connect{ClientID: b.s.text("client id", "planted-client"), KeepAlive: 60, CleanStart: true,
		Username: b.s.text("user name", "planted-user"), UsernameFlag: true, Password: []byte(b.s.text("password", "planted-password")), PasswordFlag: true,
		WillMessage: &paho.WillMessage{Topic: "data/" + b.stream, Payload: []byte(b.s.text("will", "planted-will"))}}
	gone := make(chan struct{}, 8)
	c, _, err := d.dialMQTT(t.Context(), b.at, hello, paho.ClientConfig{OnClientError: func(error) { gone <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	send := func(topic, payload string) {
		if r, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: topic, Payload: []byte(payload)}); err != nil && r != nil && r.Properties != nil {
			fmt.Fprintln(b.told, "PUBACK:", r.ReasonCode, r.Properties.ReasonString)
		}
	}
	send("data/"+b.stream, b.value)
	send("data/"+b.stream, `"`+b.word+`"`)
	send("data/"+b.stream, `{"t":1,"v":`+b.value)
	send("data/"+b.stream, `{"`+b.word+`":1}`)
	send("data/"+b.stream+strings.Repeat("x", 200), b.value)
	send(b.stream, b.value)
	send("data", `[{"n":"`+b.stream+`","u":"`+b.s.text("unit", "planted-unit")+`","v":`+b.value+`},{"n":"`+b.stream+`","vs":"`+b.word+`"}]`)
	send("data", `[{"n":"`+b.stream+`","x_":1,"vs":"`+b.word+`"}]`)
	send("child/planted-child/data/"+b.stream, b.value)
	send("child/planted-stranger/data/"+b.stream, b.value)
	send("event/"+b.stream, b.word)
	c.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "data/" + b.stream}}})
	c.Publish(t.Context(), &paho.Publish{QoS: 0, Topic: "data/+/" + b.stream, Payload: []byte(b.value)})
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("a topic with a wildcard does not end the connection")
	}
}

func (b busyDay) post(t *testing.T, d *thing) {
	t.Helper()
	web := d.http(t)
	for _, x := range [][3]string{
		{"/v1/data", "application/senml+json", `[{"n":"` + b.stream + `","v":` + b.value + `}]`},
		{"/v1/data", "application/senml+json", `[{"n":"` + b.stream + `","vs":"` + b.word + `"}]`},
		{"/v1/data", "application/senml+json", `[{"n":"` + b.stream + `","v":"` + b.value + `"`},
		{"/v1/data", "application/senml+cbor", b.word},
		{"/write", "text/plain", "planted-measurement,planted-tag=planted-tag-value " + b.stream + "=" + b.value},
		{"/write", "text/plain", "planted-measurement " + b.stream + "=" + b.word},
		{"/write?precision=planted-precision", "text/plain", "x y=1"},
		{"/api/v2/write", "text/plain", "m,device=planted-stranger v=" + b.value},
		{"/v1/" + b.stream, "text/plain", b.word},
		{"/v1/data?q=" + b.word, "text/" + b.stream, b.word},
	} {
		_, _, answer, err := post(web, b.at.Device+x[0], x[1], strings.NewReader(x[2]))
		fmt.Fprintln(b.told, answer, err)
	}
	b.s.text("tag value", "planted-tag-value")
	b.s.text("precision", "planted-precision")
	b.s.text("measurement", "planted-measurement")
}

// strangers ask without a right to an answer.
func (b busyDay) strangers(t *testing.T, his *thing) {
	t.Helper()
	his.label = "stranger"
	c := his.mqtt(t, b.at)
	r, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "child/planted-child/data/x", Payload: []byte("1")})
	if err == nil {
		t.Error("another's child is taken")
	}
	fmt.Fprintln(b.told, r, err)
	nobody := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: his.tls().RootCAs, ServerName: "localhost"}}}
	defer nobody.CloseIdleConnections()
	wrong := b.token[:len(b.token)-4] + "aaaa"
	for _, url := range []string{b.at.Device + "/v1/data", b.at.API + "/v1/parties?name=planted-name", b.at.API + "/v1/readings?stream=" + b.stream, b.at.API + "/metrics"} {
		for _, bearer := range []string{"", wrong, b.token} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			r.Header.Set("Cookie", "session="+b.s.text("cookie", "planted-cookie"))
			a, err := nobody.Do(r)
			if err != nil {
				fmt.Fprintln(b.told, err)
				continue
			}
			answer, _ := io.ReadAll(a.Body)
			a.Body.Close()
			if bearer != b.token {
				fmt.Fprintln(b.told, a.Status, string(answer))
			}
		}
	}
	// TLS goes wrong in words of the other side's making.
	bad := his.tls()
	bad.ServerName = "planted.example"
	if nc, err := tls.Dial("tcp", strings.TrimPrefix(b.at.MQTT, "mqtts://"), bad); err == nil {
		nc.Close()
	}
}

// enrolments go wrong and right.
func (b busyDay) enrolments(t *testing.T, d *thing) {
	t.Helper()
	code, _, err := b.h.identity.MakeCode(t.Context(), d.Device, d.Assignment, identity.CodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.s.text("enrolment secret", code.SecretText())
	b.s.text("enrolment code", code.Text())
	b.h.log.Info("a code", "code", code) // whoever logs one shows nothing
	web := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: d.tls().RootCAs, ServerName: "localhost"}}}
	defer web.CloseIdleConnections()
	for _, secret := range []string{b.s.text("wrong secret", "planted-wrong-secret"), code.SecretText()} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.at.Device+"/.well-known/est/simpleenroll", strings.NewReader("planted-request"))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(d.Device.String(), secret)
		a, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(a.Body)
		a.Body.Close()
		fmt.Fprintln(b.told, a.Status, string(answer))
	}
	if err := b.h.identity.Revoke(t.Context(), holdfast.NewID[holdfast.DeviceID](), b.s.text("reason", "planted-reason")); err == nil {
		t.Error("a device that is none was revoked")
	}
}

func (b busyDay) metrics(t *testing.T) {
	t.Helper()
	families, err := b.h.Server.metrics.Gather()
	if err != nil || len(families) < 20 {
		t.Fatalf("%d metrics: %v", len(families), err)
	}
	var all bytes.Buffer
	for _, f := range families {
		fmt.Fprintln(&all, f.String())
	}
	if hits := b.s.in(all.Bytes()); len(hits) > 0 {
		t.Errorf("in the metrics: %v", hits)
	}
	// Ids of owners and devices would tell who does what.
	if bytes.Contains(all.Bytes(), []byte("device:")) {
		t.Error("a metric is labelled with a device")
	}
}
