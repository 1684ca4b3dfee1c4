package mqtt

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/holdfast-iot/holdfast"
)

// pahoClient connects Eclipse's MQTT 5 client over mutual TLS.
func pahoClient(t *testing.T, addr string, config *tls.Config, cp *paho.Connect, cfg paho.ClientConfig) (*paho.Client, *paho.Connack) {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	cfg.Conn = packets.NewThreadSafeConn(nc)
	cfg.PacketTimeout = 20 * time.Second
	c := paho.NewClient(cfg)
	ack, err := c.Connect(t.Context(), cp)
	if err != nil {
		t.Fatal(err)
	}
	return c, ack
}

func TestPahoPublishes(t *testing.T) {
	a, h := newAuthority(t), newHub()
	_, addr := serving(t, a, h, Options{})
	config := a.client(holdfast.DeviceID{1})
	c, ack := pahoClient(t, addr, config, &paho.Connect{KeepAlive: 30, CleanStart: true}, paho.ClientConfig{})
	p := ack.Properties
	if p.AssignedClientID == "" || p.ReceiveMaximum == nil || *p.ReceiveMaximum != 64 || p.RetainAvailable || p.TopicAliasMaximum == nil || *p.TopicAliasMaximum != 32 {
		t.Errorf("CONNACK: %+v", p)
	}
	var wg sync.WaitGroup
	const workers, each = 8, 50 // more in flight than one at a time
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r, err := c.Publish(t.Context(), &paho.Publish{QoS: byte(1 + i%2), Topic: fmt.Sprintf("data/w%d", w), Payload: fmt.Append(nil, i)})
				if err != nil || r.ReasonCode != 0 {
					t.Errorf("publish: %v %+v", err, r)
					return
				}
			}
		})
	}
	wg.Wait()
	got := h.await(workers * each)
	for w := range workers {
		for i, v := range values(t, got, fmt.Sprintf("w%d", w)) {
			if v != float64(i) {
				t.Fatalf("worker %d: value %d is %v", w, i, v)
			}
		}
	}
	// By alias, with properties.
	one := uint16(1)
	for i, topic := range []string{"data/aliased", ""} {
		props := &paho.PublishProperties{TopicAlias: &one, ContentType: "text/plain"}
		props.User.Add("key", "planted")
		if _, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: topic, Payload: fmt.Append(nil, i), Properties: props}); err != nil {
			t.Fatal(err)
		}
	}
	if v := values(t, h.arrivals(), "aliased"); len(v) != 2 {
		t.Errorf("by alias: %v", v)
	}
	r, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/x", Payload: []byte("[1]")})
	if err == nil || r == nil || r.ReasonCode != byte(payloadInvalid) || r.Properties == nil || !strings.Contains(r.Properties.ReasonString, "array") {
		t.Errorf("a bad payload: %v %+v", err, r)
	}
	s, err := c.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "desired", QoS: 1}}})
	if err == nil || s == nil || len(s.Reasons) != 1 || s.Reasons[0] != byte(notAuthorized) {
		t.Errorf("subscribe: %v %+v", err, s)
	}
	if err := c.Disconnect(&paho.Disconnect{}); err != nil {
		t.Error(err)
	}
}

func TestPahoIsTakenOverAndLeavesItsWill(t *testing.T) {
	a, h := newAuthority(t), newHub()
	_, addr := serving(t, a, h, Options{})
	config := a.client(holdfast.DeviceID{1})
	gone := make(chan byte, 1)
	expiry := uint32(60)
	connect := &paho.Connect{
		ClientID: "one", KeepAlive: 30, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
		WillMessage: &paho.WillMessage{Topic: "event/offline", Payload: []byte("lost"), QoS: 1},
	}
	pahoClient(t, addr, config, connect, paho.ClientConfig{
		OnServerDisconnect: func(d *paho.Disconnect) { gone <- d.ReasonCode },
	})
	_, ack := pahoClient(t, addr, config, connect, paho.ClientConfig{})
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case code := <-gone:
		if code != byte(takenOver) {
			t.Errorf("DISCONNECT 0x%02X", code)
		}
	case <-ctx.Done():
		t.Fatal("the older client was not told")
	}
	if w := h.await(1)[0]; w.Stream != "event/offline" || w.Value.Text() != "lost" {
		t.Errorf("the will is %+v", w)
	}
}
