package server

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// subscribing is one of those who ask, by certificate over MQTT.
type subscribing struct {
	*reader
	e       *estate
	cert    *thing
	purpose string // that it names; "": none

	mu      sync.Mutex
	filters []string // by number
	live    map[string]bool
	got     []delivered
	conns   []*paho.Client
	values  map[string]uint64 // how many readings of whom have come
}

// delivered is a message and the subscription that it came for.
type delivered struct{ filter, topic, payload string }

// connect makes a connection, on which at most 60 filters are subscribed to.
func (x *subscribing) connect() *paho.Client {
	x.e.t.Helper()
	nc, err := tls.Dial("tcp", strings.TrimPrefix(x.e.at.MQTT, "mqtts://"), x.cert.tls())
	if err != nil {
		x.e.t.Fatal(err)
	}
	x.e.t.Cleanup(func() { nc.Close() })
	id := fmt.Sprint("asks ", len(x.conns))
	c := paho.NewClient(paho.ClientConfig{ClientID: id, Conn: packets.NewThreadSafeConn(nc), PacketTimeout: time.Minute, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			filter := "a subscription that nobody made"
			if n := p.Packet.Properties.SubscriptionIdentifier; n != nil && *n <= len(x.filters) {
				filter = x.filters[*n-1]
			}
			x.got = append(x.got, delivered{filter, p.Packet.Topic, string(p.Packet.Payload)})
			return true, nil
		}}})
	if _, err := c.Connect(x.e.t.Context(), &paho.Connect{ClientID: id, KeepAlive: 60, CleanStart: true}); err != nil {
		x.e.t.Fatalf("%s connects: %v", x.name, err)
	}
	x.conns = append(x.conns, c)
	return c
}

// subscribe returns what the hub says to a filter: the code, and words if there are any.
func (x *subscribing) subscribe(filter string) (code byte, words string) {
	x.e.t.Helper()
	x.mu.Lock()
	x.filters = append(x.filters, filter)
	n := len(x.filters)
	x.mu.Unlock()
	var c *paho.Client
	if len(x.conns) > 0 {
		c = x.conns[len(x.conns)-1]
	}
	if c == nil || hungUp(c) || len(x.live) >= 60*len(x.conns) {
		c = x.connect()
	}
	s := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}, Properties: &paho.SubscribeProperties{SubscriptionIdentifier: &n}}
	if x.purpose != "" {
		s.Properties.User.Add("purpose", x.purpose)
	}
	ack, err := c.Subscribe(x.e.t.Context(), s)
	if ack == nil || len(ack.Reasons) != 1 {
		x.e.t.Fatalf("%s subscribes to %s: %v", x.name, filter, err)
	}
	if ack.Properties != nil {
		words = ack.Properties.ReasonString
	}
	code = ack.Reasons[0]
	if code < 0x80 {
		x.mu.Lock()
		x.live[x.filters[n-1]] = true
		x.mu.Unlock()
	}
	return code, words
}

func hungUp(c *paho.Client) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// feedFilters are all forms in which somebody could ask for a target's.
var feedFilters = []string{
	"feed/{device}/{stream}", "feed/{device}/+", "feed/{device}/#", "feed/{label}/{stream}", "feed/{label}/+", "feed/{label}/#", "feed/+/{stream}",
	"feed/{party}/#", "feed/{name}/{stream}", "$share/g/feed/{device}/{stream}", "$share/g/feed/{device}/#", "$share/g/feed/{label}/#", "$share/h/feed/+/{stream}",
	"child/{label}/cmd/#", "child/{label}/desired", "child/{device}/cmd/#", "cmd/{device}/#", "{device}/#", "desired/{device}", "feed/{assignment}/#",
	"feed/#", "feed/+/+", "feed/+/#", "$share/g/feed/#", "$share/g/feed/+/+", "cmd/#", "desired", "child/+/cmd/#", "child/+/desired", "child/#", "$share/g/cmd/#",
	"#", "+", "+/+", "+/#", "data/#", "reported", "event/#", "object/#", "spBv1.0/#", "$SYS/#", "$share/g/#", "feed", "feed/+",
}

// Everybody subscribes to everything, in each form and by each name, programs for
// their purpose, another and none. What is somebody's comes to nobody who may not have it, on a topic
// or in a message; what comes stands on a disclosure to that very credential; what is
// refused is refused like what there is not; and a withdrawal ends it.
func TestNothingIsSubscribedToWithoutADecision(t *testing.T) {
	e := newEstate(t)
	e.scene()
	var all []*subscribing
	for _, r := range e.readers {
		if r.credential.IsZero() || r.spec.Scopes == access.ScopeMetrics {
			continue
		}
		purposes := []string{""}
		if r.spec.Role == access.Program {
			purposes = []string{"study", "", "own-access"}
		}
		for _, p := range purposes {
			copied := *r
			x := &subscribing{e: e, live: map[string]bool{}, purpose: p, reader: &copied}
			x.cert, x.credential = e.certified(r.as, access.Spec{Role: r.spec.Role, Purposes: r.spec.Purposes})
			all = append(all, x)
		}
	}
	for _, slug := range []string{"anna", "ben"} {
		may := func(p plant) bool { return p.whose == slug && p.sort == aWish }
		all = append(all, &subscribing{e: e, live: map[string]bool{}, cert: e.targets[slug].device, reader: &reader{name: "the device of " + slug, may: may}})
	}
	for _, x := range all {
		e.subscribesToAll(x)
	}
	for round := range 2 { // what came wrongly of the first has come when all of the second is there
		for n, slug := range []string{"anna", "ben", "worker", "acme"} {
			samples, _ := streamsOf(slug, n)
			samples = samples[:6]
			for i := range samples {
				samples[i].Time = time.Now().UnixNano()
			}
			e.mustSend(e.targets[slug].device.Peer, samples...)
		}
		e.arrives(all, round+1)
	}
	for _, x := range all {
		e.judgeDelivered(x)
	}

	institute := all[slices.IndexFunc(all, func(x *subscribing) bool { return strings.HasPrefix(x.name, "the institute") })]
	e.must("Anna", "DELETE", "/v1/grants/"+e.targets["anna"].names["grant"], "", nil)
	for _, c := range institute.conns {
		select {
		case <-c.Done():
		case <-time.After(30 * time.Second):
			t.Fatal("a connection outlives the withdrawal of what it gave")
		}
	}
	for _, x := range all {
		if !x.credential.IsZero() {
			e.counted(x)
		}
	}
	clear(institute.live)
	institute.got, institute.conns = nil, nil
	e.subscribesToAll(institute)
	if len(institute.live) > 0 {
		t.Errorf("after the withdrawal the institute subscribes to %v", institute.live)
	}
	e.nothingIsIn("the log", []byte(e.log.String()))
}

// subscribesToAll subscribes to each filter about each target. Of what is somebody
// else's nothing is told: a device or label that there is is answered as one that there
// is not.
func (e *estate) subscribesToAll(x *subscribing) {
	e.t.Helper()
	for _, f := range feedFilters {
		for i, slug := range slices.Sorted(maps.Keys(e.targets)) {
			filter, _, mentions := way{path: f}.about(e.targets[slug])
			filter = strings.ReplaceAll(filter, "%20", " ")
			if i > 0 && !mentions {
				continue
			}
			code, words := x.subscribe(filter)
			for _, hit := range found(e.plants, []byte(words)) {
				e.t.Errorf("%s subscribes to %s and is told %s: %q", x.name, filter, hit, words)
			}
			if code < 0x80 || !mentions || x.may(plant{whose: slug, sort: aLabel}) {
				continue
			}
			none := target{names: map[string]string{"label": "band-of-none", "name": "Nora of-none", "stream": e.targets[slug].names["stream"]}}
			for _, name := range []string{"device", "party", "assignment"} {
				none.names[name] = holdfast.NewID[holdfast.DeviceID]().String()
			}
			nobodys, _, _ := way{path: f}.about(&none)
			if c, w := x.subscribe(strings.ReplaceAll(nobodys, "%20", " ")); c != code || w != words {
				e.t.Errorf("%s subscribes to %s: 0x%02X %q, and to what there is not: 0x%02X %q", x.name, filter, code, words, c, w)
			}
		}
	}
}

// arrives waits for what must come, so that nothing else is mistaken for silence.
func (e *estate) arrives(all []*subscribing, times int) {
	e.t.Helper()
	for who, slug := range map[string]string{"Anna": "anna", "Ben": "ben", "the worker": "worker", "the institute": "anna", "an admin": "acme"} {
		x := all[slices.IndexFunc(all, func(x *subscribing) bool { return strings.HasPrefix(x.name, who) })]
		names := e.targets[slug].names
		filters := []string{"feed/" + names["device"] + "/" + pulseOf(slug), "feed/+/" + pulseOf(slug), "feed/#", "$share/g/feed/" + names["device"] + "/" + pulseOf(slug), "$share/g/feed/#"}
		if who != "the institute" && who != "the worker" { // to whom a label is somebody else's word
			filters = append(filters, "feed/"+names["label"]+"/"+pulseOf(slug), "feed/"+names["label"]+"/#")
		}
		for _, f := range filters {
			for end := time.Now().Add(30 * time.Second); x.count(f, pulseOf(slug)) < times; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					e.t.Errorf("%s has subscribed to %s and %d of %d come: the test sees nothing", x.name, f, x.count(f, pulseOf(slug)), times)
					return
				}
			}
		}
	}
}

func (x *subscribing) count(filter, stream string) (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, d := range x.got {
		if d.filter == filter && strings.HasSuffix(d.topic, "/"+stream) {
			n++
		}
	}
	return n
}

// judgeDelivered fails on what came and must not have, or stands on no disclosure.
func (e *estate) judgeDelivered(x *subscribing) {
	e.t.Helper()
	x.mu.Lock()
	got := slices.Clone(x.got)
	x.mu.Unlock()
	values := map[string]uint64{}
	for _, d := range got {
		for _, p := range found(e.plants, []byte(d.topic+" "+d.payload)) {
			if !x.may(p) && !strings.Contains(d.filter, p.text) || !x.may(p) && p.text == "" {
				e.t.Errorf("%s has subscribed to %s and is told %s: %s %s", x.name, d.filter, p, d.topic, d.payload)
			}
			if p.sort == aStream { // once in each topic of a reading
				values[p.whose]++
			}
		}
	}
	if x.credential.IsZero() {
		return // it has no credential that a disclosure could name, and is told only what is for it
	}
	for slug, target := range e.targets {
		all, err := e.grants.Disclosures(e.t.Context(), target.party)
		if err != nil {
			e.t.Fatal(err)
		}
		told := slices.ContainsFunc(all, func(d grant.Disclosure) bool { return d.Reader == x.credential })
		if told != (values[slug] > 0) {
			e.t.Errorf("%s is given %d readings of %s's, and that there is a disclosure is %v", x.name, values[slug], slug, told)
		}
	}
	e.t.Logf("%s: %d subscriptions of %d, %d messages of %v", x.name, len(x.live), len(x.filters), len(got), values)
	x.values = values
}

// counted ends the connections of a reader and fails if fewer readings are on record
// than he was given.
func (e *estate) counted(x *subscribing) {
	e.t.Helper()
	for _, c := range x.conns {
		if !hungUp(c) {
			c.Disconnect(&paho.Disconnect{})
		}
	}
	for slug, n := range x.values {
		for end := time.Now().Add(30 * time.Second); e.rowsGiven(x.reader)[slug] < n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				e.t.Errorf("%s is given %d readings of %s's, and %d are on record", x.name, n, slug, e.rowsGiven(x.reader)[slug])
				break
			}
		}
	}
}
