package api

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Recipient is what somebody read for a purpose under one grant or permission, or
// may read and never did.
type Recipient struct {
	ID          string         `json:"id"`
	Recipient   *PartyRef      `json:"recipient"`
	As          string         `json:"as" enum:"self,staff,recipient" doc:"staff: people of the organisation that runs the hub, named by role."`
	Role        string         `json:"role,omitempty" doc:"Of the credentials that read: administrator, owner or program."`
	Readers     []string       `json:"readers,omitempty" doc:"The latest credentials that read, at most 20."`
	Purpose     string         `json:"purpose"`
	Grant       string         `json:"grant,omitempty"`
	Permission  string         `json:"permission,omitempty"`
	State       string         `json:"state" enum:"live,expired,ended,none" doc:"Of the grant; none: there is no grant."`
	Until       *time.Time     `json:"until,omitempty" doc:"When the grant ends by itself."`
	Streams     []DataStreamID `json:"streams" doc:"That were read."`
	Disclosures uint64         `json:"disclosures"`
	Reads       uint64         `json:"reads"`
	Rows        uint64         `json:"rows"`
	AtLeast     bool           `json:"at_least,omitempty" doc:"A read is under way, or its amount is not known after a crash: rows is the least."`
	First       *time.Time     `json:"first_read,omitempty"`
	Last        *time.Time     `json:"last_read,omitempty"`
	// Obligations are those of the grant.
	Obligations *Asked `json:"obligations,omitempty"`
	Reason      string `json:"reason,omitempty" doc:"Of a permission: why staff asked for it, in their words."`
	Decisions   string `json:"decisions,omitempty" doc:"Where it is said what the recipient would be allowed now, and by which policies. Left out for a permission: see /v1/me/permissions."`
}

// answered is what the answers about recipients are made of.
type answered struct {
	recipients []Recipient
	names      names
	ids        map[holdfast.StreamID]DataStreamID
}

// answer reads who read the caller's data, and who may.
func (a *API) answer(ctx context.Context, by access.Principal) (answered, error) {
	var out answered
	tallies, err := a.Grants.Tallies(ctx, by.Party)
	if err != nil {
		return out, err
	}
	grants, err := a.Grants.GrantsBy(ctx, by.Party)
	if err != nil {
		return out, err
	}
	operating, err := a.Custody.Operating(ctx)
	if err != nil {
		return out, err
	}
	if out.ids, _, err = a.streamsOfMine(ctx, by); err != nil {
		return out, err
	}
	if out.names, err = a.names(ctx, by); err != nil {
		return out, err
	}
	byID := make(map[holdfast.GrantID]grant.Grant, len(grants))
	for _, g := range grants {
		byID[g.ID] = g
	}
	unread := maps.Clone(byID) // those that nobody read under
	reasons, err := a.reasons(ctx, by, tallies)
	if err != nil {
		return out, err
	}
	for _, t := range tallies {
		if err := a.withReader(ctx, out.names, t.Recipient); err != nil {
			return out, err
		}
		doc := recipientDoc(t, out, by.Party, operating)
		doc.Reason = reasons[t.Permission]
		if g, ok := byID[t.Grant]; ok {
			doc.State, doc.Until, doc.Obligations = stateOf(g), moment(g.Until), askedDoc(g.Obligations)
			delete(unread, t.Grant)
		}
		out.recipients = append(out.recipients, doc)
	}
	for _, g := range grants { // allowed, never read
		if _, ok := unread[g.ID]; !ok {
			continue
		}
		if err := a.withNames(ctx, out.names, g.Recipient); err != nil {
			return out, err
		}
		out.recipients = append(out.recipients, Recipient{ID: "grant-" + g.ID.String(), Recipient: out.names.ref(g.Recipient), As: "recipient", Purpose: string(g.Purpose),
			Grant: g.ID.String(), State: stateOf(g), Until: moment(g.Until), Streams: []DataStreamID{}, Obligations: askedDoc(g.Obligations),
			Decisions: decisionPath(out.names.ref(g.Recipient), string(g.Purpose), g.ID.String())})
	}
	return out, nil
}

// reasons are those that staff gave for the permissions under which they read.
func (a *API) reasons(ctx context.Context, by access.Principal, tallies []grant.Tally) (map[holdfast.PermissionID]string, error) {
	if !slices.ContainsFunc(tallies, func(t grant.Tally) bool { return !t.Permission.IsZero() }) {
		return nil, nil
	}
	all, err := a.Access.Permissions(ctx, by, by.Party)
	if err != nil {
		return nil, err
	}
	of := make(map[holdfast.PermissionID]string, len(all))
	for _, p := range all {
		of[p.ID] = p.Reason
	}
	return of, nil
}

// withReader adds the name of who read, a person's too: whoever has had somebody's
// data is named to him.
func (a *API) withReader(ctx context.Context, n names, id holdfast.PartyID) error {
	if n[id] != "" {
		return nil
	}
	p, err := a.Custody.Party(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return nil
	}
	if err == nil && p.State != custody.Erased {
		n[id] = p.Name
	}
	return err
}

func stateOf(g grant.Grant) string {
	switch {
	case !g.Ended.IsZero():
		return "ended"
	case g.Live(time.Now()):
		return "live"
	}
	return "expired"
}

func recipientDoc(t grant.Tally, from answered, me, operating holdfast.PartyID) Recipient {
	doc := Recipient{Recipient: from.names.ref(t.Recipient), As: "recipient", Role: t.Role, Purpose: string(t.Purpose), State: "none", Streams: []DataStreamID{},
		Disclosures: t.Disclosures, Reads: t.Reads, Rows: t.Rows, AtLeast: t.Open > 0, First: moment(t.Opened), Last: moment(t.Last)}
	switch {
	case t.Recipient == me:
		doc.As = "self"
	case t.Recipient == operating:
		doc.As = "staff"
	}
	doc.ID = t.Recipient.String() + "-" + t.Role + "-" + string(t.Purpose)
	if !t.Grant.IsZero() {
		doc.Grant = t.Grant.String()
		doc.ID += "-" + doc.Grant
	}
	if !t.Permission.IsZero() {
		doc.Permission = t.Permission.String()
		doc.ID += "-" + doc.Permission
	}
	if t.Permission.IsZero() {
		doc.Decisions = decisionPath(doc.Recipient, doc.Purpose, doc.Grant)
	}
	for _, c := range t.Readers {
		doc.Readers = append(doc.Readers, c.String())
	}
	for _, s := range t.Streams {
		doc.Streams = append(doc.Streams, from.ids[s])
	}
	return doc
}

func (a *API) recipients(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Recipient]], error) {
	all, err := a.answer(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all.recipients, func(r Recipient) string { return r.ID }, in.Paging)
	return &reply[Page[Recipient]]{page}, err
}

type disclosuresInput struct {
	Paging
	Recipient string `query:"recipient" maxLength:"64" doc:"Only to this party, by id."`
	Purpose   string `query:"purpose" maxLength:"128" doc:"Only for this purpose."`
	Grant     string `query:"grant" maxLength:"64" doc:"Only under this grant."`
	From      string `query:"from" maxLength:"64" doc:"Opened from then on: RFC 3339, a date, or -2h."`
	Before    string `query:"before" maxLength:"64" doc:"Opened before then."`
}

func (in disclosuresInput) wanted(now time.Time) (w grant.Wanted, after uint64, err error) {
	w.Purpose = holdfast.Purpose(in.Purpose)
	if in.Recipient != "" {
		if w.Recipient, err = holdfast.ParseID[holdfast.PartyID](in.Recipient); err != nil {
			return w, 0, err
		}
	}
	if in.Grant != "" {
		if w.Grant, err = holdfast.ParseID[holdfast.GrantID](in.Grant); err != nil {
			return w, 0, err
		}
	}
	for text, at := range map[string]*time.Time{in.From: &w.From, in.Before: &w.Before} {
		if text == "" {
			continue
		}
		ns, err := ParseTime(text, now, false)
		if err != nil {
			return w, 0, err
		}
		*at = time.Unix(0, ns)
	}
	if in.After != "" {
		if after, err = strconv.ParseUint(in.After, 10, 63); err != nil || after == 0 {
			return w, 0, holdfast.Errorf(holdfast.Invalid, "after is the next of the page before")
		}
	}
	return w, after, nil
}

func (a *API) disclosures(ctx context.Context, by access.Principal, in *disclosuresInput) (*reply[Page[Disclosure]], error) {
	w, after, err := in.wanted(time.Now())
	if err != nil {
		return nil, err
	}
	found, next, err := a.Grants.DisclosurePage(ctx, by.Party, w, after, in.Limit)
	if err != nil {
		return nil, err
	}
	ids, _, err := a.streamsOfMine(ctx, by)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	out := Page[Disclosure]{Items: make([]Disclosure, 0, len(found))}
	for _, d := range found {
		if err := a.withReader(ctx, n, d.Recipient); err != nil {
			return nil, err
		}
		out.Items = append(out.Items, disclosureDoc(d, n, ids))
	}
	if next > 0 {
		out.Next = strconv.FormatUint(next, 10)
	}
	return &reply[Page[Disclosure]]{out}, nil
}
