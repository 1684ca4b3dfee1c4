package api

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// Me is who asks.
type Me struct {
	Credential string     `json:"credential"`
	Party      Party      `json:"party"`
	Role       string     `json:"role" enum:"administrator,owner,program,auditor"`
	Purposes   []string   `json:"purposes,omitempty"`
	Issuer     string     `json:"issuer,omitempty" doc:"Whose word it is; left out: the hub's own."`
	Settled    bool       `json:"settled" doc:"May do what can't be undone."`
	Scopes     string     `json:"scopes"`
	Until      *time.Time `json:"until"`
}

// Disclosure is the record that readings left: to whom, why, which and when.
type Disclosure struct {
	ID         string    `json:"id"`
	Recipient  *PartyRef `json:"recipient"`
	Reader     string    `json:"reader" doc:"The credential that read."`
	Purpose    string    `json:"purpose"`
	Grant      string    `json:"grant,omitempty" doc:"Left out where none was needed."`
	Permission string    `json:"permission,omitempty" doc:"Of staff."`
	Role       string    `json:"role,omitempty" doc:"Of the reader's credential: administrator, owner or program."`
	Reason     string    `json:"reason,omitempty" doc:"Why it was allowed."`
	Policies   []string  `json:"policies,omitempty" doc:"Ids of the policies that allowed it."`
	// Obligations are those that the answer was given under.
	Obligations *Asked `json:"obligations,omitempty"`
	Decisions   string `json:"decisions,omitempty" doc:"Where it is said what the recipient would be allowed now, and by which policies. Left out for a permission: see /v1/me/permissions."`

	Streams  []DataStreamID `json:"streams"`
	Opened   *time.Time     `json:"opened"`
	Last     *time.Time     `json:"last" doc:"When readings were last read."`
	Reads    uint64         `json:"reads"`
	Rows     uint64         `json:"rows"`
	First    *time.Time     `json:"first,omitempty" doc:"The time of the earliest reading that left."`
	Final    *time.Time     `json:"final,omitempty" doc:"Of the latest."`
	Complete bool           `json:"complete" doc:"false: a read is under way, or its amount is not known after a crash; rows is then the least."`
}

// DataStreamID names a stream of one's own.
type DataStreamID struct {
	Device string `json:"device"`
	Label  string `json:"label,omitempty"`
	Stream string `json:"stream,omitempty" doc:"Left out if the stream was erased since."`
}

func (a *API) me() {
	a.receipts()
	handle(a, route{method: "GET", path: "/v1/me", summary: "Who am I?", rule: rule{}},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*reply[Me], error) {
			p, err := a.Custody.Party(ctx, by.Party)
			return &reply[Me]{Me{Credential: by.Credential.String(), Party: partyDoc(p), Role: by.Role.String(), Purposes: words(by.Purposes),
				Issuer: by.Issuer, Settled: by.Settled, Scopes: by.Scopes.String(), Until: moment(by.NotAfter)}}, err
		})
	handle(a, route{method: "GET", path: "/v1/me/recipients", summary: "Who read my data, why, and how much.",
		rule: reads(access.Administrator, access.Owner)}, a.recipients)
	handle(a, route{method: "GET", path: "/v1/me/disclosures", summary: "Each time that my readings left, the newest first.",
		rule: reads(access.Administrator, access.Owner)}, a.disclosures)
	stream(a, route{method: "GET", path: "/v1/me/report", summary: "All of these answers for people: a signed page of HTML that needs nothing else.",
		rule: reads(access.Administrator, access.Owner)}, []string{"text/html"}, a.myReport)
	handle(a, route{method: "GET", path: "/v1/me/purposes", summary: "What my data are used for.", rule: reads(access.Administrator, access.Owner)}, a.myPurposes)
	handle(a, route{method: "GET", path: "/v1/me/data", summary: "What there is of mine.", rule: reads(access.Administrator, access.Owner)},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*reply[Data], error) {
			d, err := a.data(ctx, by)
			return &reply[Data]{d}, err
		})
	erase := writes(access.Owner)
	erase.slow, erase.settles = true, true
	handle(a, route{method: "DELETE", path: "/v1/me/data", summary: "Erase all of mine, and myself.", rule: erase},
		func(ctx context.Context, by access.Principal, in *struct {
			Wait seconds `query:"wait"`
			Rest bool    `query:"rest" doc:"Erase what no hold keeps; then the party stays."`
		}) (*erasureReply, error) {
			if out, ok, err := a.jointly(ctx, by, in.Wait.or(waitForErasure), custody.Joint{Party: by.Party, Span: holdfast.Always}); ok || err != nil {
				return out, err
			}
			return a.erase(ctx, by, in.Wait.or(waitForErasure), erasure.Wish{Rest: in.Rest, Guarded: true}, func() (holdfast.Scope, error) { return a.Custody.ScopeOfParty(ctx, by.Party) })
		})
}

// deviceOfMine is a device with those of its assignments whose data are the caller's.
type deviceOfMine struct {
	custody.Device
	slices []custody.Assignment
}

// mine returns the devices of whose data some are the caller's party's.
func (a *API) mine(ctx context.Context, by access.Principal) ([]deviceOfMine, error) {
	all, err := a.ofParty(ctx, by.Party)
	if err != nil {
		return nil, err
	}
	var mine []deviceOfMine
	for _, d := range all {
		slices, err := a.slices(ctx, by.Party, d.ID)
		if err != nil {
			return nil, err
		}
		if len(slices) > 0 {
			mine = append(mine, deviceOfMine{d, slices})
		}
	}
	return mine, nil
}

// streamsOfMine names every stream of the caller's.
func (a *API) streamsOfMine(ctx context.Context, by access.Principal) (map[holdfast.StreamID]DataStreamID, map[holdfast.StreamID]*custody.Stream, error) {
	devices, err := a.mine(ctx, by)
	if err != nil {
		return nil, nil, err
	}
	ids, streams := map[holdfast.StreamID]DataStreamID{}, map[holdfast.StreamID]*custody.Stream{}
	for _, d := range devices {
		for _, slice := range d.slices {
			all, err := a.Custody.StreamsOfAssignment(ctx, slice)
			if err != nil {
				return nil, nil, err
			}
			for _, s := range all {
				ids[s.ID], streams[s.ID] = DataStreamID{Device: d.ID.String(), Label: d.Label, Stream: s.Name}, s
			}
		}
	}
	return ids, streams, nil
}

func disclosureDoc(d grant.Disclosure, n names, ids map[holdfast.StreamID]DataStreamID) Disclosure {
	out := Disclosure{ID: d.ID.String(), Recipient: n.ref(d.Recipient), Reader: d.Reader.String(), Purpose: string(d.Purpose), Streams: []DataStreamID{},
		Opened: moment(d.Opened), Last: moment(d.Last), Reads: d.Reads, Rows: d.Rows, Complete: d.Complete}
	if !d.Grant.IsZero() {
		out.Grant = d.Grant.String()
	}
	out.Role, out.Reason, out.Policies, out.Obligations = d.Role, d.Reason, d.Policies, askedDoc(d.Obligations)
	out.Decisions = decisionPath(out.Recipient, out.Purpose, out.Grant)
	if !d.Permission.IsZero() {
		out.Permission, out.Decisions = d.Permission.String(), ""
	}
	if d.Rows > 0 {
		out.First, out.Final = momentOf(d.First), momentOf(d.Final)
	}
	for _, s := range d.Streams {
		out.Streams = append(out.Streams, ids[s])
	}
	return out
}
