package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/receipt"
)

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
		out.Devices = append(out.Devices, reportDevice(d))
	}
	labels := labelsOf(data.Devices)
	for _, h := range data.Holds {
		out.Holds = append(out.Holds, receipt.ReportHold{Does: does(h.Kind, h.Purpose), On: on(labels, h.Devices, h.Streams), By: setBy(h), Since: *h.Set, Lifts: h.Lifts, Reason: h.Reason})
	}
	if err := a.reportAsked(ctx, by, labels, &out); err != nil {
		return out, err
	}
	all, err := a.answer(ctx, by)
	if err != nil {
		return out, err
	}
	for _, u := range all.recipients {
		out.Recipients = append(out.Recipients, receipt.ReportUse{Who: who(u.Recipient, u.As), Purpose: u.Purpose, Streams: streamNames(u.Streams), Under: under(u),
			Reads: u.Reads, Rows: u.Rows, AtLeast: u.AtLeast, First: u.First, Last: u.Last, Duties: dutyWords(u.Obligations)})
	}
	purposes, err := a.purposesOf(ctx, by)
	if err != nil {
		return out, err
	}
	for _, p := range purposes {
		out.Purposes = append(out.Purposes, reportPurpose(p))
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

// reportAsked adds what waits for the caller's word, and what staff asked for.
func (a *API) reportAsked(ctx context.Context, by access.Principal, labels map[string]string, out *receipt.Report) error {
	if by.Role != access.Owner {
		return nil
	}
	waits, err := a.myNotices(ctx, by, nil)
	if err != nil {
		return err
	}
	out.Notices = noticeWords(waits.Body, labels)
	asked, err := a.Access.Permissions(ctx, by, by.Party)
	if err != nil {
		return err
	}
	for _, p := range asked {
		state := p.State
		if p.DecidedRole != "" {
			state += ", decided by " + roleWords(p.DecidedRole)
		}
		if p.EndedRole != "" {
			state += ", ended by " + roleWords(p.EndedRole)
		}
		var devices []string
		for _, d := range p.Devices {
			devices = append(devices, d.String())
		}
		out.Permissions = append(out.Permissions, receipt.ReportPermission{Asked: p.Asked.UTC(), Purpose: string(p.Purpose), Reason: p.Reason, On: on(labels, devices, nil),
			From: p.From.UTC(), Until: p.Until.UTC(), State: state})
		if p.State == "asked" {
			out.Notices = append(out.Notices, receipt.ReportNotice{Time: p.Asked.UTC(), Text: "The hub's own people ask to read your data: " + p.Reason})
		}
	}
	return nil
}

func roleWords(role string) string {
	if role == access.Owner.String() {
		return "you"
	}
	return "an " + role
}

// noticeWords says what waits for a person's word.
func noticeWords(n Notices, labels map[string]string) (all []receipt.ReportNotice) {
	at := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return t.UTC()
	}
	add := func(t *time.Time, format string, args ...any) {
		all = append(all, receipt.ReportNotice{Time: at(t), Text: fmt.Sprintf(format, args...)})
	}
	by := func(t *time.Time) string { return at(t).Format(time.DateOnly) }
	for _, t := range n.Transfers {
		add(t.Offered, "%s offers you a device: take or decline it by %s.", who(t.Seller, ""), by(t.Until))
	}
	for _, m := range n.Memberships {
		add(m.From, "%s asks you to be its %s: accept or decline.", who(m.Of, ""), m.Kind)
	}
	for _, r := range n.Releases {
		add(r.Asked, "Your device %s is to be released on %s unless you object: %s", called(labels, r.Device), by(r.Until), r.Reason)
	}
	for _, e := range n.Erasures {
		what := "all that it has"
		if e.Device != "" {
			what = strings.TrimSuffix(called(labels, e.Device)+"/"+e.Stream, "/")
		}
		add(e.Asked, "An erasure of %s, of %s, waits for the word of every adult until %s.", who(e.Party, ""), what, by(e.Until))
	}
	return all
}

func labelsOf(devices []DataDevice) map[string]string {
	labels := map[string]string{}
	for _, d := range devices {
		labels[d.ID] = d.Label
	}
	return labels
}

func called(labels map[string]string, device string) string {
	if l := labels[device]; l != "" {
		return l
	}
	return device
}

// on says what a hold or a permission is about.
func on(labels map[string]string, devices, streams []string) string {
	var names []string
	for _, d := range devices {
		names = append(names, called(labels, d))
	}
	where, what := "all devices", "all streams"
	if len(names) > 0 {
		where = strings.Join(names, ", ")
	}
	if len(streams) > 0 {
		what = strings.Join(streams, ", ")
	}
	return where + ": " + what
}

// does says what a hold does.
func does(kind, purpose string) string {
	switch grant.HoldKind(kind) {
	case grant.Restriction:
		return "Restricted: nobody reads but you, and nothing is deleted by age"
	case grant.Objection:
		return "Objection: nothing is read for " + purpose
	case grant.CollectionStop:
		return "Collection stopped: no new readings are taken"
	case grant.Claim:
		return "Kept for a claim: nothing is deleted or erased"
	}
	return "Kept by law: nothing is deleted or erased"
}

func setBy(h Hold) string {
	if h.OwnWord {
		return "you"
	}
	return "the hub"
}

func reportDevice(d DataDevice) receipt.ReportDevice {
	out := receipt.ReportDevice{Name: d.Label, State: d.State}
	if out.Name == "" {
		out.Name = d.ID
	}
	for _, x := range d.Assignments {
		if held := heldWords(x); held != "" {
			out.Held = append(out.Held, held)
		}
	}
	for _, s := range d.Streams {
		out.Streams = append(out.Streams, receipt.ReportStream{Name: s.Name, Category: labelled(s.Category), Unit: s.Unit, Readings: s.Readings, First: s.First, Last: s.Last,
			Kept: keptWords(s), Until: s.KeptUntil})
	}
	return out
}

// heldWords says on what ground a device is or was somebody's; "" if there is nothing
// to say but that it is his own.
func heldWords(x Assignment) string {
	if !x.Period && x.Subject == nil && x.To == nil {
		return ""
	}
	words := "Assigned to " + who(x.Owner, "")
	if x.Subject != nil {
		words += ", about " + who(x.Subject, "")
	}
	words += " (" + x.Basis + ")"
	if x.From != nil {
		words += ", from " + x.From.UTC().Format(time.DateOnly)
	}
	if x.To != nil {
		words += ", to " + x.To.UTC().Format(time.DateOnly)
	}
	if x.Hours != "" {
		words += ", " + x.Hours + " " + x.Zone
	}
	if x.Erases != nil {
		words += ". It erases itself on " + x.Erases.UTC().Format(time.DateOnly)
	}
	return words + "."
}

func reportPurpose(p DataPurpose) receipt.ReportPurpose {
	out := receipt.ReportPurpose{Name: p.Name, Text: p.Text, IRI: p.IRI, Basis: p.LegalBasis, Controller: who(p.Responsible, ""), Kept: kept(p.RetentionDays)}
	if !p.Live {
		out.Stopped = append(out.Stopped, "This purpose has ended: nothing is read or collected for it.")
	}
	for _, s := range p.Streams {
		name := streamNames([]DataStreamID{s.DataStreamID})[0]
		if s.KeptDays != p.RetentionDays {
			name += " (" + kept(s.KeptDays) + ")"
		}
		out.Streams = append(out.Streams, name)
	}
	for _, g := range p.Grants {
		if g.State == "live" {
			out.Grants = append(out.Grants, who(g.Recipient, "")+" until "+g.Until.UTC().Format(time.DateOnly)+", grant "+g.ID)
		}
	}
	for _, h := range p.Stops {
		out.Stopped = append(out.Stopped, does(h.Kind, h.Purpose)+".")
	}
	return out
}

// labelled is what the vocabulary calls a category.
func labelled(iri string) string {
	if c, ok := dpv.Lookup(iri); ok {
		return c.Label
	}
	return iri
}

func dutyWords(o *Asked) []string {
	asked, err := o.obligations()
	if err != nil {
		return nil // stored ones have been checked
	}
	return archive.Duties(asked).Words()
}

func keptWords(s DataStream) string {
	words := ""
	switch {
	case s.KeptDays == nil:
		words = kept(0)
	case *s.KeptDays == 0:
		words = "not shown any more: no purpose lives"
	default:
		words = kept(*s.KeptDays)
	}
	if s.Held {
		words += ", and longer while a hold stands"
	}
	return words
}

func kept(days int) string {
	switch days {
	case 0:
		return "as long as a purpose needs them"
	case 1:
		return "1 day"
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
		return strings.TrimSuffix("permission "+r.Permission+": "+r.Reason, ": ")
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
