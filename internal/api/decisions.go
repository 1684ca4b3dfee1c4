package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// Decision is what would be decided about one stream for a reader, and why.
type Decision struct {
	Device     string     `json:"device"`
	DeviceName string     `json:"device_name,omitempty"`
	Stream     string     `json:"stream,omitempty" doc:"Left out where the device has none."`
	Allowed    bool       `json:"allowed"`
	Reason     string     `json:"reason" doc:"Which rule allowed, or what is missing."`
	Grant      string     `json:"grant,omitempty" doc:"The grant that a read would be under."`
	Permission string     `json:"permission,omitempty"`
	From       *time.Time `json:"from,omitempty" doc:"The earliest reading that may be read of what was asked for; left out: all before."`
	To         *time.Time `json:"to,omitempty"`
	// Obligations are those of the grant.
	Obligations *Asked   `json:"obligations,omitempty"`
	Policies    []Policy `json:"policies,omitempty" doc:"What allowed or forbade."`
	Failed      []string `json:"failed,omitempty" doc:"Policies that could not be evaluated, which denies."`
}

// Policy is one of Cedar.
type Policy struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

type decisionsInput struct {
	Reader  string `query:"reader" required:"true" minLength:"1" doc:"The party that would read: an id, or the name of an organisation or service. The operating organisation is asked about as its staff."`
	Purpose string `query:"purpose" required:"true" minLength:"1"`
	Device  string `query:"device" doc:"A label or an id; default all."`
	Stream  string `query:"stream" doc:"A name; default all."`
	Grant   string `query:"grant" doc:"The grant that the reader would name; default whichever fits."`
	From    string `query:"from" doc:"The earliest reading; default all."`
	To      string `query:"to" doc:"The latest; default all."`
	Paging
}

func (a *API) decisions() {
	handle(a, route{method: "GET", path: "/v1/decisions", summary: "Say what a reader would be allowed now, stream by stream, and why. Nothing is read.",
		rule: reads(access.Owner, access.Administrator)}, a.listDecisions)
}

func (a *API) listDecisions(ctx context.Context, by access.Principal, in *decisionsInput) (*reply[Page[Decision]], error) {
	q, about, err := a.hypothesis(ctx, by, in)
	if err != nil {
		return nil, err
	}
	all, err := a.Query.Explain(ctx, q, about)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(e query.Explained) string { return e.Assignment.String() + "/" + e.Stream }, in.Paging)
	return &reply[Page[Decision]]{mapped(page, decisionDoc)}, err
}

// hypothesis is the request that a reader would make. Whoever asks, asks about his own
// data alone, staff about the hub's: what streams another has, and what he said of
// them, is his to know.
func (a *API) hypothesis(ctx context.Context, by access.Principal, in *decisionsInput) (q query.Request, about holdfast.PartyID, err error) {
	reader, err := a.recipient(ctx, in.Reader)
	if err != nil {
		return q, about, err
	}
	operating, err := a.Custody.Operating(ctx)
	if err != nil {
		return q, about, err
	}
	q.Purpose = holdfast.Purpose(in.Purpose)
	q.Who = access.Principal{Role: access.Program, Party: reader.ID, Scopes: access.ScopeRead, Purposes: []holdfast.Purpose{q.Purpose}}
	switch {
	case q.Purpose == holdfast.OwnAccess:
		q.Who.Role, q.Who.Purposes = access.Owner, nil
	case reader.ID == operating:
		q.Who.Role, q.Who.Purposes = access.Administrator, nil
	}
	if in.Grant != "" {
		if q.Grant, err = holdfast.ParseID[holdfast.GrantID](in.Grant); err != nil {
			return q, about, holdfast.Errorf(holdfast.Invalid, "a grant is named by its id")
		}
	}
	if q.Span, err = span(in.From, in.To, time.Now(), holdfast.Always.From, holdfast.Always.To); err != nil {
		return q, about, err
	}
	if in.Device == "" {
		in.Device = "*"
	}
	q.Selection, err = a.selection(ctx, by, &readingsInput{Device: in.Device, Stream: in.Stream})
	return q, by.Party, err
}

func decisionDoc(e query.Explained) Decision {
	d := Decision{Device: e.Device.String(), DeviceName: e.DeviceName, Stream: e.Stream, Allowed: e.Allow, Reason: e.Reason,
		Obligations: askedDoc(e.Obligations), Failed: e.Failed}
	if !e.Grant.IsZero() {
		d.Grant = e.Grant.String()
	}
	if !e.Permission.IsZero() {
		d.Permission = e.Permission.String()
	}
	if e.Allow && e.Span.From != holdfast.Always.From {
		d.From = momentOf(e.Span.From)
	}
	if e.Allow && e.Span.To != holdfast.Always.To {
		d.To = momentOf(e.Span.To)
	}
	for _, id := range slices.Sorted(maps.Keys(e.Texts)) {
		d.Policies = append(d.Policies, Policy{id, e.Texts[id]})
	}
	return d
}
