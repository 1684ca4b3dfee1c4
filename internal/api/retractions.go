package api

import (
	"context"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// Retraction is word that readings which somebody was given are erased. It names ids
// only.
type Retraction struct {
	ID        string                    `json:"id"`
	Recipient *PartyRef                 `json:"recipient,omitempty" doc:"To the one whose data it was."`
	State     string                    `json:"state" enum:"open,acked,gone" doc:"acked: the recipient says that it is deleted; gone: the recipient was erased himself."`
	Grants    []string                  `json:"grants,omitempty" doc:"Under which it was read."`
	Streams   []erasure.RetractedStream `json:"streams"`
	From      *time.Time                `json:"from,omitempty" doc:"Of the readings' own times; left out: all."`
	To        *time.Time                `json:"to,omitempty"`
	Month     string                    `json:"month,omitempty" doc:"Only what arrived at the hub in it."`
	Made      *time.Time                `json:"made,omitempty"`
	Acked     *time.Time                `json:"acked,omitempty"`
}

func (a *API) retractions() {
	all := reads(access.Program, access.Owner, access.Administrator)
	handle(a, route{method: "GET", path: "/v1/retractions", summary: "What one's own party was given and is erased: delete it, then acknowledge. after is the next of the page before; keep it for the next time.", rule: all}, a.listRetractions)
	ack := all
	ack.asks = false
	handle(a, route{method: "POST", path: "/v1/retractions/{id}/ack", summary: "Say that what was retracted is deleted.", rule: ack},
		func(ctx context.Context, by access.Principal, in *byID) (*reply[Retraction], error) {
			id, err := holdfast.ParseID[holdfast.RetractionID](in.ID)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.NotFound, "there is no such retraction")
			}
			r, err := a.Erasure.Acknowledge(ctx, by, id)
			if err != nil {
				return nil, err
			}
			return &reply[Retraction]{retractionDoc(r)}, nil
		})
	handle(a, route{method: "GET", path: "/v1/erasures/{id}/retractions", summary: "Who had what of mine was erased, and who says that it is deleted there.", rule: reads(access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct {
			ID string `path:"id"`
			Paging
		}) (*reply[Page[Retraction]], error) {
			id, err := erasureID(in.ID)
			if err != nil {
				return nil, err
			}
			told, err := a.Erasure.RetractionsOf(ctx, by, id)
			if err != nil {
				return nil, err
			}
			n, err := a.names(ctx, by)
			if err != nil {
				return nil, err
			}
			for _, r := range told {
				if err := a.withReader(ctx, n, r.Recipient); err != nil {
					return nil, err
				}
			}
			page, err := paged(told, func(r erasure.Retraction) string { return r.ID.String() }, in.Paging)
			return &reply[Page[Retraction]]{mapped(page, func(r erasure.Retraction) Retraction {
				doc := retractionDoc(r)
				doc.Recipient = n.ref(r.Recipient)
				return doc
			})}, err
		})
}

func (a *API) listRetractions(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Retraction]], error) {
	after := int64(0)
	if in.After != "" {
		var err error
		if after, err = strconv.ParseInt(in.After, 10, 64); err != nil || after < 0 {
			return nil, holdfast.Errorf(holdfast.Invalid, "after is the next of the page before")
		}
	}
	all, err := a.Erasure.RetractionsTo(ctx, by.Party, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := Page[Retraction]{Items: make([]Retraction, 0, len(all))}
	for _, r := range all {
		out.Items = append(out.Items, retractionDoc(r))
	}
	if len(all) == in.Limit {
		out.Next = strconv.FormatInt(all[len(all)-1].Number, 10)
	}
	return &reply[Page[Retraction]]{out}, nil
}

func retractionDoc(r erasure.Retraction) Retraction {
	out := Retraction{ID: r.ID.String(), State: r.State, Streams: r.Streams, From: r.From, To: r.To, Month: r.Month, Made: moment(r.Made), Acked: moment(r.Acked)}
	if out.Streams == nil {
		out.Streams = []erasure.RetractedStream{}
	}
	for _, g := range r.Grants {
		out.Grants = append(out.Grants, g.String())
	}
	return out
}
