package deviceapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

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
	g := gatherer{api: a, peer: p, of: make(map[string]*gathered)}
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
	return a.take(w, r, p, g.messages())
}

// gatherer sorts the points of a request by the device they are for.
type gatherer struct {
	api      *API
	peer     identity.Peer
	of       map[string]*gathered // by the child's name, "" for the peer
	order    []string
	readings int
	prefix   []byte
}

type gathered struct {
	route   *custody.Route
	samples []holdfast.Sample
}

func (g *gatherer) messages() []message {
	out := make([]message, 0, len(g.order))
	for _, child := range g.order {
		out = append(out, message{child, g.of[child].samples})
	}
	return out
}

func (g *gatherer) add(ctx context.Context, p *lineproto.Point) error {
	child, _ := p.Tag("device")
	d := g.of[string(child)]
	if d == nil {
		route, err := g.route(ctx, string(child))
		if err != nil {
			return holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", p.Line, err)
		}
		d = &gathered{route: route}
		g.of[string(child)] = d
		g.order = append(g.order, string(child))
	}
	if g.readings += len(p.Fields); g.readings > g.api.o.MaxReadings {
		return holdfast.Errorf(holdfast.TooLarge, "a request carries at most %d readings: send several", g.api.o.MaxReadings)
	}
	if err := g.tags(p, d.route); err != nil {
		return err
	}
	for i := range p.Fields {
		f := &p.Fields[i]
		stream := string(p.AppendStream(g.prefix, f))
		if err := holdfast.CheckName("stream", stream); err != nil {
			return holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", p.Line, err)
		}
		d.samples = append(d.samples, holdfast.Sample{Stream: stream, Time: p.Time, Timed: p.Timed, Value: f.Value})
	}
	return nil
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
// goes before its streams' names in g.prefix: the values of such tags in the order
// of their keys, each with a slash.
func (g *gatherer) tags(p *lineproto.Point, route *custody.Route) error {
	g.prefix = g.prefix[:0]
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
	slices.SortFunc(before, func(x, y lineproto.Tag) int { return strings.Compare(string(x.Key), string(y.Key)) })
	for _, t := range before {
		g.prefix = append(append(g.prefix, t.Value...), '/')
	}
	return nil
}
