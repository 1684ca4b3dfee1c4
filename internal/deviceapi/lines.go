package deviceapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/lineproto"
)

// lines takes InfluxDB line protocol, as Telegraf sends it: measurement_field is
// the stream, the tag device names a declared child. The parameters db, rp,
// bucket, org and consistency mean nothing here: whose a reading is stands in the
// certificate.
func (a *API) lines(w http.ResponseWriter, r *http.Request, p identity.Peer) error {
	precision, err := lineproto.ParsePrecision(r.URL.Query().Get("precision"))
	if err != nil {
		return err
	}
	body, release, err := a.body(w, r)
	if err != nil {
		return err
	}
	defer release()
	g := gatherers.Get().(*gatherer)
	g.api, g.peer = a, p
	defer g.release()
	for point, err := range lineproto.Decode(body, precision) {
		if err != nil {
			return err
		}
		if err := g.add(r.Context(), point); err != nil {
			return err
		}
	}
	if g.readings == 0 {
		return holdfast.Errorf(holdfast.Invalid, "the body holds no line")
	}
	return a.take(w, r, p, len(body), g.messages())
}

// gatherer sorts the points of a request by the device they are for. Its buffers
// serve one request after another.
type gatherer struct {
	api      *API
	peer     identity.Peer
	of       map[string]int // place in all by the child's name, "" for the peer
	all      []gathered
	readings int
	name     []byte // of a stream
	out      []message
}

// gathered are the samples for one device, in the order of the lines.
type gathered struct {
	route   *custody.Route
	last    *custody.Stream // of the last sample, if it exists already
	samples []holdfast.Sample
}

var gatherers = sync.Pool{New: func() any { return &gatherer{of: make(map[string]int)} }}

// mostKept is how many devices' buffers a gatherer keeps.
const mostKept = 4096

// release clears what the request brought and gives the buffers back.
func (g *gatherer) release() {
	if len(g.all) > mostKept {
		return
	}
	for i := range g.all {
		d := &g.all[i]
		clear(d.samples)
		d.route, d.last, d.samples = nil, nil, d.samples[:0]
	}
	clear(g.of)
	clear(g.out)
	g.api, g.peer, g.all, g.out, g.readings = nil, identity.Peer{}, g.all[:0], g.out[:0], 0
	gatherers.Put(g)
}

func (g *gatherer) messages() []message {
	for i := range g.all {
		g.out = append(g.out, message{g.all[i].route, g.all[i].samples})
	}
	return g.out
}

// device returns the place of a child's samples.
func (g *gatherer) device(ctx context.Context, child []byte) (*gathered, error) {
	if at, ok := g.of[string(child)]; ok {
		return &g.all[at], nil
	}
	name := string(child)
	route, err := g.route(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(g.all) < cap(g.all) {
		g.all = g.all[:len(g.all)+1] // with the buffers of an earlier request
	} else {
		g.all = append(g.all, gathered{})
	}
	g.of[name] = len(g.all) - 1
	d := &g.all[len(g.all)-1]
	d.route = route
	return d, nil
}

func (g *gatherer) add(ctx context.Context, p *lineproto.Point) error {
	child, _ := p.Tag("device")
	d, err := g.device(ctx, child)
	if err != nil {
		return holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", p.Line, err)
	}
	if g.readings += len(p.Fields); g.readings > g.api.o.MaxReadings {
		return holdfast.Errorf(holdfast.TooLarge, "a request carries at most %d readings: send several", g.api.o.MaxReadings)
	}
	if err := g.tags(p, d.route); err != nil {
		return err
	}
	prefix := len(g.name)
	for i := range p.Fields {
		f := &p.Fields[i]
		g.name = p.AppendStream(g.name[:prefix], f)
		stream, err := d.stream(g.name)
		if err != nil {
			return holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", p.Line, err)
		}
		d.samples = append(d.samples, holdfast.Sample{Stream: stream, Time: p.Time, Timed: p.Timed, Value: f.Value})
	}
	return nil
}

// stream returns a name as text: that of the stream which has it, if there is one.
func (d *gathered) stream(name []byte) (string, error) {
	if d.last != nil && d.last.Name == string(name) {
		return d.last.Name, nil
	}
	if s, ok := d.route.StreamBytes(name); ok {
		d.last = s
		return s.Name, nil
	}
	return string(name), holdfast.CheckName("stream", string(name))
}

// route asks whose the readings will be. A failure that is ours keeps its text
// for the log.
func (g *gatherer) route(ctx context.Context, child string) (*custody.Route, error) {
	device := g.peer.Device
	if child != "" {
		var err error
		if device, err = g.api.d.Custody.Child(ctx, device, child); err != nil {
			return nil, err
		}
	}
	return g.api.d.Custody.Route(ctx, device)
}

// tags does what the device's profile says about a point's tags and leaves what
// goes before its streams' names in g.name: the values of such tags in the order
// of their keys, each with a slash.
func (g *gatherer) tags(p *lineproto.Point, route *custody.Route) error {
	g.name = g.name[:0]
	var before []lineproto.Tag
	for i, t := range p.Tags {
		if string(t.Key) == "device" {
			continue
		}
		switch rule, ok := route.Tag(string(t.Key)); {
		case !ok:
			return holdfast.Errorf(holdfast.Invalid, "line %d, tag %d: only the tag device, which names a declared child, and tags that the device's "+
				"profile maps are taken: leave this one out (in Telegraf: omit_hostname = true, tagexclude)", p.Line, i+1)
		case rule == custody.TagPrefix:
			before = append(before, t)
		}
	}
	if len(before) == 0 {
		return nil
	}
	slices.SortFunc(before, func(x, y lineproto.Tag) int { return strings.Compare(string(x.Key), string(y.Key)) })
	for _, t := range before {
		g.name = append(append(g.name, t.Value...), '/')
	}
	return nil
}
