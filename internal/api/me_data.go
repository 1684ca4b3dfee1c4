package api

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// Data is what there is of a party.
type Data struct {
	Party    Party        `json:"party"`
	Devices  []DataDevice `json:"devices"`
	Holds    []Hold       `json:"holds" doc:"That stand on it."`
	Readings uint64       `json:"readings"`
	Erasures []UnderWay   `json:"erasures,omitempty" doc:"Of one's own, under way: what they cover is refused already and not listed here."`
}

// DataDevice is what there is of a device.
type DataDevice struct {
	Device
	Assignments []Assignment `json:"assignments" doc:"In which one is the owner, or the one whom the readings are about."`
	Streams     []DataStream `json:"streams" doc:"Whose readings are one's own: about oneself, or of an own device about nobody else."`
	Readings    uint64       `json:"readings"`
}

// DataStream is what there is of a stream, and for how long.
type DataStream struct {
	Stream
	Assignment string     `json:"assignment"`
	KeptDays   *int       `json:"kept_days,omitempty" doc:"How long from arrival readings are kept, by their purposes, the rules and the stream's own limit; 0: no purpose lives; left out: as long as one lives."`
	KeptUntil  *time.Time `json:"kept_until,omitempty" doc:"When the latest that are there now are gone; left out: no day is set."`
	Held       bool       `json:"held,omitempty" doc:"A hold keeps them beyond that."`
	Stopped    bool       `json:"stopped,omitempty" doc:"No new readings are taken."`
}

func (a *API) data(ctx context.Context, by access.Principal) (Data, error) {
	p, err := a.Custody.Party(ctx, by.Party)
	if err != nil {
		return Data{}, err
	}
	out := Data{Party: partyDoc(p), Devices: []DataDevice{}, Holds: []Hold{}}
	n, err := a.names(ctx, by)
	if err != nil {
		return out, err
	}
	holds, docs, err := a.standing(ctx, by, n)
	if err != nil {
		return out, err
	}
	if out.Erasures, err = a.underWay(ctx, by); err != nil {
		return out, err
	}
	for _, h := range holds {
		out.Holds = append(out.Holds, docs[h.ID])
	}
	held, err := a.heldBy(ctx, by.Party)
	if err != nil {
		return out, err
	}
	devices, err := a.ofParty(ctx, by.Party)
	if err != nil {
		return out, err
	}
	for _, d := range devices {
		mine := held[d.ID]
		if len(mine) == 0 {
			continue
		}
		doc := DataDevice{Device: deviceDoc(asSeen(by, d, mine), n), Assignments: []Assignment{}}
		for _, x := range mine {
			if err := a.withNames(ctx, n, x.Owner, x.Subject); err != nil {
				return out, err
			}
			doc.Assignments = append(doc.Assignments, assignmentDoc(x, n))
		}
		doc.Owner, doc.Subject = n.named(doc.Owner), n.named(doc.Subject)
		if doc.Streams, err = a.dataStreams(ctx, by.Party, mine, holds); err != nil {
			return out, err
		}
		for _, s := range doc.Streams {
			doc.Readings += s.Readings
		}
		out.Readings += doc.Readings
		out.Devices = append(out.Devices, doc)
	}
	return out, nil
}

// heldBy returns the assignments in which a party is the owner or the data subject,
// by device: each device's own first, then periods by their beginning.
func (a *API) heldBy(ctx context.Context, party holdfast.PartyID) (map[holdfast.DeviceID][]custody.Assignment, error) {
	all, err := a.Custody.Assignments(ctx, party)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(x, y custody.Assignment) int {
		if x.Period != y.Period {
			if y.Period {
				return -1
			}
			return 1
		}
		return cmp.Or(x.From.Compare(y.From), slices.Compare(x.ID[:], y.ID[:]))
	})
	held := map[holdfast.DeviceID][]custody.Assignment{}
	for _, x := range all {
		if x.State != custody.Erased {
			held[x.Device] = append(held[x.Device], x)
		}
	}
	return held, nil
}

// dataStreams describes the streams of those assignments whose data are a party's.
func (a *API) dataStreams(ctx context.Context, party holdfast.PartyID, held []custody.Assignment, holds []grant.Hold) ([]DataStream, error) {
	out := []DataStream{}
	now := time.Now()
	for _, h := range held {
		if h.Whose() != party {
			continue
		}
		streams, err := a.streamsLeft(ctx, h)
		if err != nil {
			return nil, err
		}
		for _, s := range streams {
			collected := query.CollectedOf(s)
			x, err := a.Measure.Extent(ctx, s.Assignment, s.ID, a.Grants.Since(collected, now))
			if err != nil {
				return nil, err
			}
			doc := DataStream{Stream: streamDoc(s, x), Assignment: h.ID.String()}
			if days := a.Grants.Life(collected); days != grant.Forever {
				doc.KeptDays = &days
				if x.Rows > 0 {
					doc.KeptUntil = moment(arrivedBy(x.Arrived, now).AddDate(0, 0, days))
				}
			}
			for i := range holds {
				if !holds[i].Covers(h.ID, s.Name) {
					continue
				}
				switch holds[i].Kind {
				case grant.CollectionStop:
					doc.Stopped = true
				case grant.Restriction, grant.Claim, grant.Law:
					doc.Held = true
				}
			}
			out = append(out, doc)
		}
	}
	slices.SortStableFunc(out, func(x, y DataStream) int { return cmp.Compare(x.Name, y.Name) })
	return out, nil
}

// arrivedBy is a time from which on nothing arrived: what is not rolled yet may have
// arrived just now.
func arrivedBy(ns int64, now time.Time) time.Time {
	if ns == math.MaxInt64 {
		return now
	}
	return time.Unix(0, ns).UTC()
}
