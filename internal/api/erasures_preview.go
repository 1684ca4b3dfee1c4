package api

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// ErasurePreview is what an erasure would do.
type ErasurePreview struct {
	Whole      bool             `json:"whole_party,omitempty"`
	Devices    int              `json:"devices"`
	Readings   *uint64          `json:"readings,omitempty" doc:"These, bytes and times: of what is the caller's own. What is another's, staff see no amounts of."`
	Bytes      *int64           `json:"bytes,omitempty" doc:"Sealed; what came in last is not in it yet."`
	About      bool             `json:"about,omitempty" doc:"Readings and bytes are estimated at the edges of the span."`
	First      *time.Time       `json:"first,omitempty" doc:"Time of the earliest reading."`
	Last       *time.Time       `json:"last,omitempty"`
	Streams    []PreviewStream  `json:"streams,omitempty" doc:"To the one whose data they are."`
	Recipients int              `json:"recipients" doc:"Who have received some of it, and are told to delete it."`
	Received   []PreviewReceipt `json:"received,omitempty" doc:"Who, and what of the same streams; to the one whose data they are."`
	Kept       []Kept           `json:"kept,omitempty"`
	Refused    string           `json:"refused,omitempty" doc:"Why it would be refused: holds, unless rest is asked for."`
	Also       *PreviewAlso     `json:"also,omitempty" doc:"Of a whole party: what goes with it."`
	Ends       int              `json:"periods_end,omitempty" doc:"Periods that are not over and end with it: what is measured later in their time belongs to the device's owner."`
	How        string           `json:"how" enum:"whole,part,month" doc:"whole, month: keys are dropped; part: what shares a key with it is sealed again."`
	Reseal     uint64           `json:"readings_sealed_again,omitempty" doc:"About as many."`
	Undo       string           `json:"undo,omitempty" doc:"How long it can be undone."`
	Approval   bool             `json:"approval,omitempty" doc:"A second administrator has to approve it."`
	Waits      string           `json:"waits,omitempty" doc:"Why it would need approval, or wait longer than was asked for: it is more than one administrator may have erased alone."`
	Deciders   []string         `json:"deciders,omitempty" doc:"The administrators who could approve or refuse it, by their credentials; to administrators."`
}

// PreviewStream is one stream of it.
type PreviewStream struct {
	Device     string     `json:"device"`
	Label      string     `json:"label,omitempty"`
	Assignment string     `json:"assignment"`
	Stream     string     `json:"stream"`
	Category   string     `json:"category,omitempty"`
	Readings   uint64     `json:"readings"`
	Bytes      int64      `json:"bytes"`
	First      *time.Time `json:"first,omitempty"`
	Last       *time.Time `json:"last,omitempty"`
}

// PreviewReceipt is what somebody has read of these streams.
type PreviewReceipt struct {
	Recipient *PartyRef  `json:"recipient"`
	Purpose   string     `json:"purpose"`
	Grant     string     `json:"grant,omitempty"`
	Rows      uint64     `json:"rows" doc:"Of all streams that went together, at least these."`
	Last      *time.Time `json:"last_read"`
}

// PreviewAlso is what goes with a party.
type PreviewAlso struct {
	Credentials int `json:"credentials"`
	Grants      int `json:"grants" doc:"That it made and that live."`
	Webhooks    int `json:"webhooks"`
	Alarms      int `json:"alarms"`
}

func (a *API) previewErasure(ctx context.Context, by access.Principal, in *struct{ Body wantedErasure }) (*reply[ErasurePreview], error) {
	j, err := a.target(ctx, by, &in.Body)
	if err != nil {
		return nil, err
	}
	w, err := in.Body.wish()
	if err != nil {
		return nil, err
	}
	if err := a.mayBeJoint(ctx, by, j, &in.Body); err != nil {
		return nil, err
	}
	if by, err = a.inPlaceOf(ctx, by, j.Party); err != nil {
		return nil, err
	}
	s, err := a.scope(ctx, by, &in.Body)
	if err != nil {
		return nil, err
	}
	p, err := a.Erasure.Preview(ctx, by, s, w)
	if err != nil {
		return nil, err
	}
	out, err := a.previewDoc(ctx, by, p)
	if err != nil {
		return nil, err
	}
	if out.Deciders, err = a.deciders(ctx, by, p.Deciders); err == nil && (p.Approval || p.Safe) {
		out.Waits = alone(by.Role == access.Owner, p.Approval, out.Deciders)
	}
	return &reply[ErasurePreview]{out}, err
}

func (a *API) previewDoc(ctx context.Context, by access.Principal, p erasure.Preview) (ErasurePreview, error) {
	out := ErasurePreview{Whole: p.Scope.Whole, Devices: p.Devices, Ends: p.Ends, How: "whole", Approval: p.Approval}
	if p.Held != nil {
		out.Refused = p.Held.Error()
	}
	if p.Undo > 0 {
		out.Undo = p.Undo.String()
	}
	switch {
	case p.Scope.Month != 0:
		out.How = "month"
	case p.InPart:
		out.How = "part"
	}
	for _, k := range p.Kept {
		out.Kept = append(out.Kept, keptDoc(k))
	}
	var told []holdfast.PartyID
	for _, r := range p.Received {
		if !slices.Contains(told, r.Recipient) {
			told = append(told, r.Recipient)
		}
	}
	out.Recipients = len(told)
	if p.Scope.Whole {
		also, err := a.previewAlso(ctx, by, p.Scope.Party)
		if err != nil {
			return out, err
		}
		out.Also = also
	}
	return out, a.previewDetails(ctx, by, p, &out)
}

// previewDetails adds what only the one may see whose data they are.
func (a *API) previewDetails(ctx context.Context, by access.Principal, p erasure.Preview, out *ErasurePreview) error {
	n, err := a.names(ctx, by)
	if err != nil {
		return err
	}
	labels := map[holdfast.DeviceID]string{}
	var seen series.Weight
	for _, s := range p.Streams {
		if s.Whose != by.Party {
			continue
		}
		if _, ok := labels[s.Device]; !ok {
			d, err := a.Custody.Device(ctx, s.Device)
			if err != nil {
				return err
			}
			if labels[s.Device] = ""; d.Owner == by.Party {
				labels[s.Device] = d.Label
			}
		}
		doc := PreviewStream{Device: s.Device.String(), Label: labels[s.Device], Assignment: s.Assignment.String(), Stream: s.Name, Category: s.Category, Readings: s.Rows, Bytes: s.Bytes}
		if s.Rows > 0 {
			doc.First, doc.Last = momentOf(s.First), momentOf(s.Last)
		}
		seen.Add(s.Weight)
		out.Streams = append(out.Streams, doc)
	}
	if len(p.Streams) == 0 || len(out.Streams) > 0 { // of what is another's, nothing is known, which is not 0
		out.Readings, out.Bytes, out.About = &seen.Rows, &seen.Bytes, seen.About
	}
	if p.Scope.Partial() {
		out.Reseal = seen.Around
	}
	if seen.Rows > 0 {
		out.First, out.Last = momentOf(seen.First), momentOf(seen.Last)
	}
	for _, r := range p.Received {
		if r.Whose != by.Party {
			continue
		}
		if err := a.withReader(ctx, n, r.Recipient); err != nil {
			return err
		}
		doc := PreviewReceipt{Recipient: n.ref(r.Recipient), Purpose: string(r.Purpose), Rows: r.Rows, Last: moment(r.Last)}
		if !r.Grant.IsZero() {
			doc.Grant = r.Grant.String()
		}
		out.Received = append(out.Received, doc)
	}
	return nil
}

// previewAlso counts what goes with a party.
func (a *API) previewAlso(ctx context.Context, by access.Principal, party holdfast.PartyID) (*PreviewAlso, error) {
	p, err := a.Custody.Party(ctx, party)
	if err != nil || p.State == custody.Erased {
		return nil, err
	}
	out := new(PreviewAlso)
	credentials, err := a.Access.Credentials(ctx, by, party)
	if err != nil {
		return nil, err
	}
	out.Credentials = len(credentials)
	grants, err := a.Grants.GrantsBy(ctx, party)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		if g.Live(time.Now()) {
			out.Grants++
		}
	}
	if a.Outbox != nil {
		hooks, err := a.Outbox.Webhooks(ctx, party)
		if err != nil {
			return nil, err
		}
		out.Webhooks = len(hooks)
	}
	if a.Alarms != nil {
		out.Alarms = a.Alarms.Count(party)
	}
	return out, nil
}

func keptDoc(k erasure.Kept) Kept {
	doc := Kept{Assignment: k.Assignment.String(), Why: string(k.Why)}
	for _, s := range k.Streams {
		doc.Streams = append(doc.Streams, s.String())
	}
	if !k.Hold.IsZero() {
		doc.Hold = k.Hold.String()
	}
	return doc
}
