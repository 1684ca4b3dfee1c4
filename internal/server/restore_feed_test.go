package server

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast/internal/access"
)

// subscribers makes certificates, which MQTT needs, for some of those who ask. Who is
// named twice has a second one, whose credential somebody may revoke.
func (e *estate) subscribers(names ...string) (all []*subscribing) {
	e.t.Helper()
	for _, name := range names {
		for _, r := range e.readers {
			if !strings.HasPrefix(r.name, name) {
				continue
			}
			copied := *r
			x := &subscribing{e: e, live: map[string]bool{}, reader: &copied}
			if r.spec.Role == access.Program {
				x.purpose = "study"
			}
			x.cert, x.credential = e.certified(r.as, access.Spec{Role: r.spec.Role, Purposes: r.spec.Purposes})
			all = append(all, x)
			break
		}
	}
	if len(all) != len(names) {
		e.t.Fatalf("%d of %v ask", len(all), names)
	}
	return all
}

// letsIn reports whether the hub's port for MQTT accepts a certificate.
func (e *estate) letsIn(cert *thing) bool {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	nc, err := (&tls.Dialer{Config: cert.tls()}).DialContext(ctx, "tcp", strings.TrimPrefix(e.at.MQTT, "mqtts://"))
	if err != nil {
		return false
	}
	defer nc.Close()
	ack, err := paho.NewClient(paho.ClientConfig{ClientID: "comes in", Conn: packets.NewThreadSafeConn(nc), PacketTimeout: time.Minute}).Connect(ctx, &paho.Connect{ClientID: "comes in", KeepAlive: 60, CleanStart: true})
	return err == nil && ack.ReasonCode == 0
}

// feedsRefuse tries the feeds of a hub that was restored from the oldest backup, over
// MQTT and HTTPS: who was erased or revoked does not come in; who has a grant no more
// subscribes to nothing and follows nothing, of a device that is there as of one that is
// not; and an owner whom nobody took anything from gets what comes, and nothing else.
func (e *estate) feedsRefuse(owner *subscribing, without []*subscribing, out map[string]*thing) {
	e.t.Helper()
	if !e.letsIn(owner.cert) {
		e.t.Errorf("over MQTT %s is not let in", owner.name)
	}
	for name, cert := range out {
		if e.letsIn(cert) {
			e.t.Errorf("over MQTT %s is let in", name)
		}
	}
	for _, x := range without {
		e.subscribesToAll(x)
		if len(x.live) > 0 {
			e.t.Errorf("after the restore %s subscribes to %v", x.name, x.live)
		}
		for _, slug := range []string{"anna", "ben"} {
			for _, w := range feedWays() {
				path, _, _ := w.about(e.targets[slug])
				if !strings.Contains(w.path, "{device}") {
					continue
				}
				if got := x.ask(e.at.API+path, http.MethodGet, ""); got.status/100 != 4 {
					e.t.Errorf("%s asks %s: %d %.200s", x.name, path, got.status, got.body)
				}
			}
		}
	}
	e.subscribesToAll(owner)
	names := e.targets["ben"].names
	filters := []string{"feed/" + names["device"] + "/" + pulseOf("ben"), "feed/" + names["label"] + "/#", "feed/#"}
	samples, _ := streamsOf("ben", 1)
	samples = samples[:6]
	for i := range samples {
		samples[i].Time = time.Now().UnixNano()
	}
	e.mustSend(e.targets["ben"].device.Peer, samples...)
	for _, f := range filters {
		for end := time.Now().Add(time.Minute); owner.count(f, pulseOf("ben")) == 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				e.t.Fatalf("%s has subscribed to %s, and nothing comes after the restore", owner.name, f)
			}
		}
	}
	for _, x := range append(without, owner) {
		e.judgeDelivered(x)
	}
}
