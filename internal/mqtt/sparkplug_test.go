package mqtt

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
)

// sparkplugPayloads are what Eclipse Tahu's library for JavaScript encodes.
func sparkplugPayloads(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../sparkplug/testdata/payloads.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]string
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for name, h := range all {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}

// A device that speaks Sparkplug B: its births give names to aliases for as long as the
// connection lasts, its devices are children, its death is a will.
func TestSparkplug(t *testing.T) {
	payloads := sparkplugPayloads(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		p := newPipes(t, h, Options{})
		c := p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "node", will: &testWill{topic: "spBv1.0/plant/NDEATH/gw", payload: "\x08\x01"}})
		tell := func(id uint16, topic, payload string) {
			c.send(c.publish(pub{qos: 1, id: id, topic: topic, payload: payload}))
		}
		tell(1, "spBv1.0/plant/NDATA/gw", payloads["ndata"])
		if why := c.expectCode(typePuback, 1, payloadInvalid); !strings.Contains(why, "publish NBIRTH") {
			t.Errorf("data before a birth: %q", why)
		}
		tell(2, "spBv1.0/plant/NBIRTH/gw", payloads["nbirth"])
		c.expectCode(typePuback, 2, success)
		known := strings.Replace(payloads["ndata"], "\x10\x63", "\x10\x01", 1) // the alias that no birth names
		tell(3, "spBv1.0/plant/NDATA/gw", known)
		c.expectCode(typePuback, 3, success)
		tell(4, "spBv1.0/plant/DBIRTH/gw/oven", payloads["types"])
		c.expectCode(typePuback, 4, success)
		for id, bad := range []string{"spBv1.0/plant/NCMD/gw", "spBv1.0/STATE/host", "spBv1.0/plant/NDATA", "spBv1.0/" + strings.Repeat("x", 300) + "/NDATA/gw"} {
			tell(uint16(10+id), bad, known)
			c.expectCode(typePuback, uint16(10+id), topicInvalid)
		}
		tell(20, "spBv1.0/plant/NDATA/gw", "{}")
		c.expectCode(typePuback, 20, payloadInvalid)
		c.nc.Close()
		synctest.Wait()
		// Another connection knows nothing of that birth.
		c = p.dial(holdfast.DeviceID{1})
		c.connect(hello{version: v5, id: "node"})
		tell(1, "spBv1.0/plant/NDATA/gw", known)
		c.expectCode(typePuback, 1, payloadInvalid)

		got := map[string][]any{}
		for _, a := range h.arrivals() {
			name := a.Child + ":" + a.Stream
			switch {
			case a.Stream == "online":
				got[name] = append(got[name], a.Value.Boolean())
			case a.Value.Type() == holdfast.Number:
				got[name] = append(got[name], a.Value.Number())
				if !a.Timed {
					t.Errorf("%s has no time", name)
				}
			}
		}
		want := map[string][]any{":online": {true, false}, ":Line/Temperature": {21.5, 22.25, 1.0}, "oven:online": {true}, "oven:float": {0.5}, "oven:double": {0.1}, "oven:old": {1.0}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
