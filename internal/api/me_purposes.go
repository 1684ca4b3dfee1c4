package api

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// DataPurpose is a purpose that one's own data are collected, granted or were read for.
type DataPurpose struct {
	Purpose
	Label       string          `json:"label,omitempty" doc:"What the vocabulary calls the purpose."`
	BasisLabel  string          `json:"basis_label,omitempty" doc:"What it calls the legal basis."`
	Responsible *PartyRef       `json:"responsible" doc:"Who answers for it."`
	Streams     []PurposeStream `json:"streams" doc:"Collected for it."`
	Grants      []PurposeGrant  `json:"grants" doc:"Own grants for it, and those that live for a purpose that it is a part of."`
	Stops       []Hold          `json:"stops" doc:"Objections, restrictions and stops of collection that stand on it."`
	Reads       uint64          `json:"reads" doc:"How often was read for it."`
	Rows        uint64          `json:"rows" doc:"How many readings left for it."`
	AtLeast     bool            `json:"at_least,omitempty" doc:"rows is the least."`
	Last        *time.Time      `json:"last_read,omitempty"`
}

// PurposeStream is a stream that is collected for a purpose.
type PurposeStream struct {
	DataStreamID
	KeptDays int `json:"kept_days,omitempty" doc:"How long from arrival this purpose keeps its readings; left out: as long as it lives."`
}

// PurposeGrant is a grant under which data may be used.
type PurposeGrant struct {
	ID          string     `json:"id"`
	Recipient   *PartyRef  `json:"recipient"`
	Purpose     string     `json:"purpose" doc:"That it names."`
	State       string     `json:"state" enum:"live,expired,ended"`
	Until       *time.Time `json:"until"`
	Obligations *Asked     `json:"obligations,omitempty"`
	Receipt     string     `json:"receipt" doc:"Where its receipt is."`
}

// ownStream is a stream whose data are the caller's.
type ownStream struct {
	*custody.Stream
	name DataStreamID
}

// using is what the answer about purposes is made of.
type using struct {
	streams []ownStream // by label, device and name
	grants  []grant.Grant
	holds   []grant.Hold // that stand
	docs    map[holdfast.HoldID]Hold
	tallies []grant.Tally
	names   names
	keeper  holdfast.PartyID
}

func (a *API) using(ctx context.Context, by access.Principal) (u using, err error) {
	ids, streams, err := a.streamsOfMine(ctx, by)
	if err != nil {
		return u, err
	}
	for id, s := range streams {
		u.streams = append(u.streams, ownStream{s, ids[id]})
	}
	slices.SortFunc(u.streams, func(x, y ownStream) int {
		return cmp.Or(cmp.Compare(x.name.Label, y.name.Label), cmp.Compare(x.name.Device, y.name.Device), cmp.Compare(x.Name, y.Name), slices.Compare(x.ID[:], y.ID[:]))
	})
	if u.grants, err = a.Grants.GrantsBy(ctx, by.Party); err != nil {
		return u, err
	}
	if u.tallies, err = a.Grants.Tallies(ctx, by.Party); err != nil {
		return u, err
	}
	if u.names, err = a.names(ctx, by); err != nil {
		return u, err
	}
	if u.keeper, err = a.Custody.Operating(ctx); err != nil {
		return u, err
	}
	for _, g := range u.grants {
		if err := a.withNames(ctx, u.names, g.Recipient); err != nil {
			return u, err
		}
	}
	u.holds, u.docs, err = a.standing(ctx, by, u.names)
	return u, err
}

// standing returns the holds on the caller's data that stand and that he may know of.
func (a *API) standing(ctx context.Context, by access.Principal, n names) ([]grant.Hold, map[holdfast.HoldID]Hold, error) {
	all, err := a.Grants.HoldsOn(ctx, by.Party, false)
	if err != nil {
		return nil, nil, err
	}
	all = slices.DeleteFunc(all, func(h grant.Hold) bool { return !h.Ended.IsZero() })
	docs := make(map[holdfast.HoldID]Hold, len(all))
	for _, h := range all {
		if docs[h.ID], err = a.holdDoc(ctx, h, n); err != nil {
			return nil, nil, err
		}
	}
	return all, docs, nil
}

func (a *API) myPurposes(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[DataPurpose]], error) {
	all, err := a.purposesOf(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(p DataPurpose) string { return p.Name }, in.Paging)
	return &reply[Page[DataPurpose]]{page}, err
}

// purposesOf returns what the caller's data are used for, by name.
func (a *API) purposesOf(ctx context.Context, by access.Principal) ([]DataPurpose, error) {
	u, err := a.using(ctx, by)
	if err != nil {
		return nil, err
	}
	all, err := a.Grants.Purposes(ctx)
	if err != nil {
		return nil, err
	}
	var out []DataPurpose
	for _, p := range all {
		if err := a.withNames(ctx, u.names, u.responsible(p)); err != nil {
			return nil, err
		}
		if doc, used := a.dataPurpose(p, &u); used {
			out = append(out, doc)
		}
	}
	return out, nil
}

func (u *using) responsible(p grant.Purpose) holdfast.PartyID {
	if p.Controller.IsZero() {
		return u.keeper
	}
	return p.Controller
}

// dataPurpose says what a purpose has to do with the caller's data; false: nothing.
func (a *API) dataPurpose(p grant.Purpose, u *using) (DataPurpose, bool) {
	doc := DataPurpose{Purpose: a.purposeDoc(p), Responsible: u.names.ref(u.responsible(p)), Streams: []PurposeStream{}, Grants: []PurposeGrant{}, Stops: []Hold{}}
	if c, ok := dpv.Lookup(p.IRI); ok {
		doc.Label = c.Label
	}
	if c, ok := dpv.Lookup(p.BasisIRI); ok {
		doc.BasisLabel = c.Label
	}
	var collected []ownStream
	for _, s := range u.streams {
		if slices.Contains(s.Purposes, p.Name) {
			collected = append(collected, s)
			doc.Streams = append(doc.Streams, PurposeStream{s.name, a.Grants.KeptFor(p.Name, s.Category)})
		}
	}
	broader := a.Grants.Broader(p.Name)
	for _, g := range u.grants {
		if g.Purpose == p.Name || slices.Contains(broader, g.Purpose) && g.Live(time.Now()) {
			doc.Grants = append(doc.Grants, PurposeGrant{ID: g.ID.String(), Recipient: u.names.ref(g.Recipient), Purpose: string(g.Purpose), State: stateOf(g),
				Until: moment(g.Until), Obligations: askedDoc(g.Obligations), Receipt: "/v1/grants/" + g.ID.String() + "/receipt"})
		}
	}
	var last time.Time
	for _, t := range u.tallies {
		if t.Purpose == p.Name {
			doc.Reads, doc.Rows, doc.AtLeast = doc.Reads+t.Reads, doc.Rows+t.Rows, doc.AtLeast || t.Open > 0
			if t.Last.After(last) {
				last = t.Last
			}
		}
	}
	doc.Last = moment(last)
	objected := false
	used := len(doc.Streams) > 0 || len(doc.Grants) > 0 || doc.Reads > 0
	for i := range u.holds {
		h := &u.holds[i]
		against := h.Kind == grant.Objection && (h.Purpose == p.Name || slices.Contains(broader, h.Purpose))
		if against || used && stopsUse(h, p.Name, collected, len(doc.Grants) > 0) {
			doc.Stops = append(doc.Stops, u.docs[h.ID])
			objected = objected || against
		}
	}
	return doc, used || objected || p.Name == holdfast.OwnAccess
}

// stopsUse reports whether a restriction or a stop of collection has to do with a
// purpose: by a stream that is collected for it, or that may be read under a grant.
func stopsUse(h *grant.Hold, p holdfast.Purpose, collected []ownStream, granted bool) bool {
	touches := slices.ContainsFunc(collected, func(s ownStream) bool { return h.Covers(s.Assignment, s.Name) })
	switch h.Kind {
	case grant.Restriction:
		return p != holdfast.OwnAccess && (touches || granted || len(h.Assignments)+len(h.Streams) == 0)
	case grant.CollectionStop:
		return touches
	}
	return false
}

// decisionPath is where it is said what a recipient would be allowed now.
func decisionPath(recipient *PartyRef, purpose, grantID string) string {
	if recipient == nil {
		return ""
	}
	q := url.Values{"reader": {recipient.ID}, "purpose": {purpose}}
	if grantID != "" {
		q.Set("grant", grantID)
	}
	return "/v1/decisions?" + q.Encode()
}
