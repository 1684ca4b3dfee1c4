package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/receipt"
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
	for _, t := range tallies {
		if err := a.withReader(ctx, out.names, t.Recipient); err != nil {
			return out, err
		}
		doc := recipientDoc(t, out, by.Party, operating)
		if g, ok := byID[t.Grant]; ok {
			doc.State, doc.Until = stateOf(g), moment(g.Until)
			delete(byID, t.Grant)
		}
		out.recipients = append(out.recipients, doc)
	}
	for _, g := range grants { // allowed, never read
		if _, ok := byID[g.ID]; !ok || slices.ContainsFunc(tallies, func(t grant.Tally) bool { return t.Grant == g.ID }) {
			continue
		}
		if err := a.withNames(ctx, out.names, g.Recipient); err != nil {
			return out, err
		}
		out.recipients = append(out.recipients, Recipient{ID: "grant-" + g.ID.String(), Recipient: out.names.ref(g.Recipient), As: "recipient", Purpose: string(g.Purpose),
			Grant: g.ID.String(), State: stateOf(g), Until: moment(g.Until), Streams: []DataStreamID{}})
	}
	return out, nil
}

// withReader adds the name of who read, a person's too: whoever has had somebody's
// data is named to him.
func (a *API) withReader(ctx context.Context, n names, id holdfast.PartyID) error {
	if _, ok := n[id]; ok {
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

// reported is how many single disclosures a report lists.
const reported = 200

func (a *API) myReport(w http.ResponseWriter, r *http.Request, by access.Principal, _ *struct{}) error {
	ctx := r.Context()
	doc, err := a.reportOf(ctx, by)
	if err != nil {
		return err
	}
	page, err := receipt.WriteReport(doc, a.Ledger)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", receipt.StylePolicy()+"; frame-ancestors 'none'")
	w.Header().Set("Content-Disposition", `attachment; filename="holdfast-report.html"`)
	_, err = w.Write(page)
	return err
}

func (a *API) reportOf(ctx context.Context, by access.Principal) (receipt.Report, error) {
	out := receipt.Report{Hub: a.Ledger.Origin(), Made: time.Now().UTC()}
	data, err := a.data(ctx, by)
	if err != nil {
		return out, err
	}
	out.Person, out.PersonID = data.Party.Name, data.Party.ID
	operating, err := a.Custody.Operating(ctx)
	if err != nil {
		return out, err
	}
	keeper, err := a.Custody.Party(ctx, operating)
	if err != nil {
		return out, err
	}
	out.Keeper = keeper.Name
	for _, d := range data.Devices {
		dev := receipt.ReportDevice{Name: d.Label, State: d.State}
		if dev.Name == "" {
			dev.Name = d.ID
		}
		for _, s := range d.Streams {
			dev.Streams = append(dev.Streams, receipt.ReportStream{Name: s.Name, Category: s.Category, Readings: s.Readings, First: s.First, Last: s.Last, Kept: kept(s.RetentionDays)})
		}
		out.Devices = append(out.Devices, dev)
	}
	all, err := a.answer(ctx, by)
	if err != nil {
		return out, err
	}
	for _, u := range all.recipients {
		out.Recipients = append(out.Recipients, receipt.ReportUse{Who: who(u.Recipient, u.As), Purpose: u.Purpose, Streams: streamNames(u.Streams), Under: under(u),
			Reads: u.Reads, Rows: u.Rows, AtLeast: u.AtLeast, First: u.First, Last: u.Last})
	}
	purposes, err := a.myPurposes(ctx, by, nil)
	if err != nil {
		return out, err
	}
	for _, p := range purposes.Body.Items {
		out.Purposes = append(out.Purposes, receipt.ReportPurpose{Name: p.Name, Text: p.Text, IRI: p.IRI, Basis: p.LegalBasis, Controller: keeper.Name,
			Kept: kept(p.RetentionDays), Streams: streamNames(p.Streams)})
	}
	left, err := a.disclosures(ctx, by, &disclosuresInput{Paging: Paging{Limit: reported}})
	if err != nil {
		return out, err
	}
	out.More = left.Body.Next != ""
	for _, d := range left.Body.Items {
		as := ""
		if d.Recipient != nil && d.Recipient.ID == operating.String() {
			as = "staff"
		}
		out.Disclosures = append(out.Disclosures, receipt.ReportDisclosure{Opened: *d.Opened, Who: who(d.Recipient, as), Purpose: d.Purpose, Streams: streamNames(d.Streams),
			Reads: d.Reads, Rows: d.Rows, Complete: d.Complete, Why: d.Reason})
	}
	return out, nil
}

func kept(days int) string {
	if days == 0 {
		return "as long as a purpose needs them"
	}
	return strconv.Itoa(days) + " days"
}

func who(p *PartyRef, as string) string {
	switch {
	case as == "self":
		return "you"
	case p == nil:
		return "somebody who is erased"
	case p.Name == "":
		return p.ID
	case as == "staff":
		return p.Name + " (its staff)"
	}
	return p.Name
}

func under(r Recipient) string {
	switch {
	case r.Permission != "":
		return "permission " + r.Permission
	case r.Grant != "":
		return "grant " + r.Grant + " (" + r.State + ")"
	}
	return "no grant was needed"
}

func streamNames(all []DataStreamID) (names []string) {
	for _, s := range all {
		switch {
		case s.Stream == "":
			names = append(names, "one that is erased")
		case s.Label != "":
			names = append(names, s.Label+"/"+s.Stream)
		default:
			names = append(names, s.Stream)
		}
	}
	return names
}
