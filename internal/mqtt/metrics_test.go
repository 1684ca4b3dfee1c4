package mqtt

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-iot/holdfast"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsAndLogsNameNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := newHub()
		p := newPipes(t, h, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(p.s.Collector())
		id := holdfast.DeviceID{1, 2, 3}
		for _, v := range versions {
			c := p.dial(id)
			c.connect(hello{version: v, id: "planted-client", clean: true, will: &testWill{topic: "data/planted-will", payload: "planted"}})
			c.send(slices.Concat(
				c.publish(pub{qos: 1, id: 1, topic: "data/planted-stream", payload: "planted-text"}),
				c.publish(pub{qos: 1, id: 2, topic: "planted/topic", payload: "planted"}),
				c.publish(pub{qos: 1, id: 3, topic: "data/planted-stream", payload: "[\"planted\"]"})))
			c.next()
			c.next()
			c.next()
			c.send(framed(0x30, unhex("0008 706c616e7465642b 00")))
			c.expectEnd(protocolError)
			p.dial(id).connectRefused(hello{version: v, id: strings.Repeat("planted", 50), clean: true}, map[byte]byte{v311: 2, v5: byte(badClientID)}[v])
			synctest.Wait()
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		shown := log.String()
		got := make(map[string]float64)
		for _, f := range families {
			shown += f.String()
			for _, m := range f.Metric {
				name := strings.TrimPrefix(f.GetName(), "holdfast_mqtt_")
				for _, l := range m.Label {
					name += " " + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		for name, want := range map[string]float64{
			"connections": 0, "connects_total": 2, "connects_refused_total 0x85": 2, "disconnects_total 0x82": 2,
			"publishes_refused_total 0x90": 2, "publishes_refused_total 0x99": 2, "wills_total": 2,
			"packets_received_total connect": 4, "packets_received_total publish": 8,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v, want %v", name, v, want)
			}
		}
		for _, r := range p.s.Refusals() {
			shown += r.Reason
		}
		if !strings.Contains(shown, "mqtt: connected") || !strings.Contains(shown, "holdfast_mqtt_bytes_total") {
			t.Errorf("nothing was shown:\n%s", shown)
		}
		if strings.Contains(shown, "planted") {
			t.Errorf("what a device said is shown:\n%s", shown)
		}
	})
}
