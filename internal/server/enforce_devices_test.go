package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Nothing of others can be subscribed to by a device: whatever the filter, the answer
// is a refusal, and nothing that others send is delivered. Its own commands and desired
// state it may subscribe to, and then is given nothing that was meant for another
// device, of the same owner's neither. A topic that can be subscribed to one day has to
// say here which decision and disclosure stand before it.
func TestNothingIsDeliveredOverMQTT(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	band, gateway, other := h.enrolled(anna.Party, "band"), h.enrolled(anna.Party, "gateway"), h.enrolled(ben.Party, "scales")
	at, _ := h.serve()
	h.wish(anna, band.Device, "wish-of-anna")
	filters := []string{"#", "+", "+/+", "data", "data/#", "data/pulse", "feed/#", "feed/" + band.Device.String() + "/#", "cmd/#", "desired", "reported", "event/#",
		"child/#", "object/#", "$SYS/#", "$share/g/data/#", "spBv1.0/#"}
	begin := func(d *thing) func(kind byte, fill func(any)) *packets.ControlPacket {
		nc, err := d.dial(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		if err := nc.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		ask := func(kind byte, fill func(any)) *packets.ControlPacket {
			cp := packets.NewControlPacket(kind)
			fill(cp.Content)
			if _, err := cp.WriteTo(nc); err != nil {
				t.Fatal(err)
			}
			got, err := packets.ReadPacket(nc)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		ask(packets.CONNECT, func(c any) {
			x := c.(*packets.Connect)
			x.ClientID, x.KeepAlive, x.CleanStart = d.label, 60, true
		})
		return ask
	}
	for _, d := range []*thing{band, gateway, other} {
		ask := begin(d)
		for i, f := range filters {
			own := f == "cmd/#" || f == "desired"
			if own && d == band {
				continue // what it is given is its own: TestCommandsReachForeignClients
			}
			if d != band && !own && strings.ContainsAny(f, "#+") {
				continue // it ends the connection: once is enough
			}
			got := ask(packets.SUBSCRIBE, func(c any) {
				x := c.(*packets.Subscribe)
				x.PacketID, x.Subscriptions = uint16(i+1), []packets.SubOptions{{Topic: f, QoS: 1}}
			})
			ack, ok := got.Content.(*packets.Suback)
			if bye, ended := got.Content.(*packets.Disconnect); ended && bye.ReasonCode >= 0x80 { // a wildcard, which the hub has said it doesn't know
				ask = begin(d)
				continue
			}
			if own && ok && len(ack.Reasons) == 1 && ack.Reasons[0] == 1 {
				continue
			}
			if !ok || len(ack.Reasons) != 1 || ack.Reasons[0] < 0x80 {
				t.Errorf("topic %s can be subscribed to by %s (%v): say here how its decision and disclosure are seen", f, d.label, got)
			}
			if err := h.send(band.Peer, number("pulse", time.Now(), 71)); err != nil {
				t.Fatal(err)
			}
		}
		// What comes next is the answer to this, and nothing that was sent meanwhile.
		got := ask(packets.PUBLISH, func(c any) {
			x := c.(*packets.Publish)
			x.PacketID, x.QoS, x.Topic, x.Payload = 99, 1, "data/pulse", []byte("72")
		})
		if _, ok := got.Content.(*packets.Puback); !ok {
			t.Errorf("%s is given %v", d.label, got)
		}
	}
}

// The devices' port gives nothing out: every route of it is asked by devices of two
// owners, a gateway and nobody.
func TestNothingLeavesByTheDevicesPort(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	band := h.enrolled(anna.Party, "band-of-anna")
	samples, plants := streamsOf("anna", 0)
	h.mustSend(band.Peer, samples...)
	at, _ := h.serve()
	e := &estate{house: h, at: at, targets: map[string]*target{"anna": {device: band}}}
	e.stranger("nobody", nil)
	e.stranger("Anna's device", band.tls().Certificates)
	e.stranger("Ben's device", h.enrolled(ben.Party, "scales").tls().Certificates)
	wish := h.wish(anna, band.Device, "wish-of-anna")
	plants = append(plants, plant{whose: "anna", sort: aWish, text: "wish-of-anna"})
	senml := fmt.Sprintf(`[{"n":%q,"v":1}]`, pulseOf("ben"))
	ways := map[string][]way{
		"/":                  get("/", "/v1/data", "/v1/commands", "/v1/readings?device="+band.Device.String()),
		"/.well-known/est/":  get("/.well-known/est/cacerts", "/.well-known/est/csrattrs", "/.well-known/est/"+band.Device.String()),
		"POST /v1/data":      send("/v1/data", senml, "[{", "{}"),
		"POST /write":        send("/write", "m,device=band-of-anna v=1", "x"),
		"POST /api/v2/write": send("/api/v2/write", "m,device=band-of-anna v=1", "m v=1"),
		"GET /mqtt":          get("/mqtt"),
		"POST /query":        send("/query", "q=CREATE+DATABASE+x", "q=SELECT+*+FROM+pulse", "q=CREATE+DATABASE+x;SHOW+SERIES"),
		"GET /ping":          get("/ping"),

		"GET /v1/commands":              get("/v1/commands", "/v1/commands?child=band-of-anna", "/v1/commands?after="+wish.String()),
		"POST /v1/commands/{id}/result": send("/v1/commands/"+wish.String()+"/result", `{"status":"perhaps"}`, "{}"),
		"GET /v1/desired":               get("/v1/desired", "/v1/desired?child=band-of-anna"),
		"PUT /v1/reported":              send("/v1/reported", "[1]"),
		"PATCH /v1/reported":            send("/v1/reported", "[1]"),
	}
	told := map[string]bool{}
	for _, route := range h.devices.Routes() {
		if ways[route] == nil {
			t.Errorf("route %s of the devices' port is new: say here how to ask it", route)
		}
		method, _, ok := strings.Cut(route, " ")
		if !ok {
			method = http.MethodGet
		}
		for _, r := range e.readers {
			for _, w := range ways[route] {
				got := r.ask(at.Device+w.path, method, w.body)
				for _, p := range found(plants, got.all) {
					if p.sort == aWish && r.name == "Anna's device" { // whose it is
						told[route] = true
						continue
					}
					t.Errorf("%s asks %s %s and is told %s: %.300s", r.name, method, w.path, p, got.body)
				}
			}
		}
	}
	if !told["GET /v1/commands"] || !told["GET /v1/desired"] {
		t.Errorf("her own device is told by %v: the test asks for nothing", told)
	}
}

// wish tells a device what to do and how to be.
func (h *house) wish(who access.Principal, d holdfast.DeviceID, text string) holdfast.CommandID {
	h.t.Helper()
	by := twin.Caller{Credential: who.Credential, Party: who.Party, Owner: true}
	c, err := h.twin.Send(h.t.Context(), by, twin.Spec{Device: d, Name: text, Args: []byte(`"` + text + `"`)})
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.twin.SetDesired(h.t.Context(), by, d, -1, twin.Change{State: []byte(`{"as":"` + text + `"}`)}); err != nil {
		h.t.Fatal(err)
	}
	return c.ID
}
