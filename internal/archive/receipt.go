package archive

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/receipt"
)

// Receipt returns the signed receipt of a grant as it is now. Whom it concerns is
// for the caller to check.
func (a *Archive) Receipt(ctx context.Context, g grant.Grant) ([]byte, error) {
	of, err := a.streams(ctx, g.Grantor)
	if err != nil {
		return nil, err
	}
	return a.receipt(ctx, g, of)
}

func (a *Archive) receipt(ctx context.Context, g grant.Grant, of []granted) ([]byte, error) {
	r, err := a.written(ctx, g, of)
	if err != nil {
		return nil, err
	}
	return receipt.Sign(r.Document(time.Now()), a.ledger)
}

// Agreement returns a grant in ODRL.
func (a *Archive) Agreement(ctx context.Context, g grant.Grant) ([]byte, error) {
	of, err := a.streams(ctx, g.Grantor)
	if err != nil {
		return nil, err
	}
	r, err := a.written(ctx, g, of)
	if err != nil {
		return nil, err
	}
	return r.Agreement(time.Now())
}

// written is a grant with the names and the streams that a paper needs. Those whose
// party is erased have none.
func (a *Archive) written(ctx context.Context, g grant.Grant, of []granted) (receipt.Grant, error) {
	r := receipt.Grant{
		Hub: a.ledger.Origin(), ID: g.ID.String(), Owner: receipt.Party{ID: g.Grantor.String()},
		AllDevices: g.AllDevices, AllStreams: g.AllStreams, Made: g.Made, Until: g.Until, Ended: g.Ended, Duties: Duties(g.Obligations),
	}
	if g.Data.From != holdfast.Always.From {
		r.From = instant(g.Data.From)
	}
	if g.Data.To != holdfast.Always.To {
		r.To = instant(g.Data.To)
	}
	for _, d := range g.Devices {
		r.Devices = append(r.Devices, d.String())
	}
	for _, x := range g.Assignments {
		r.Assignments = append(r.Assignments, x.String())
	}
	p, err := a.grants.Purpose(ctx, g.Purpose)
	if err != nil {
		return r, err
	}
	r.Purpose = receipt.Purpose{Name: string(p.Name), IRI: p.IRI, Text: p.Text, LegalBasis: p.LegalBasis, RetentionDays: p.RetentionDays}
	controller := p.Controller
	if controller.IsZero() {
		if controller, err = a.custody.Operating(ctx); err != nil {
			return r, err
		}
	}
	if r.Controller, err = a.named(ctx, controller); err != nil {
		return r, err
	}
	if r.Recipient, err = a.named(ctx, g.Recipient); err != nil {
		return r, err
	}
	r.Streams = covered(g, of)
	return r, nil
}

// Duties are obligations as a paper says them.
func Duties(o policy.Obligations) receipt.Duties {
	d := receipt.Duties{Every: o.Every, Decimals: o.Decimals, Step: o.Step, Delay: o.Delay, MinGroup: o.MinGroup}
	for _, f := range o.Drop {
		d.Drop = append(d.Drop, string(f))
	}
	return d
}

// named returns a party by name if it is an organisation or a service: a person is
// named by his id, whoever reads the paper.
func (a *Archive) named(ctx context.Context, id holdfast.PartyID) (receipt.Party, error) {
	out := receipt.Party{ID: id.String()}
	p, err := a.custody.Party(ctx, id)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return out, nil
	}
	out.Kind = string(p.Kind)
	if p.Kind == custody.Organisation || p.Kind == custody.Service {
		out.Name = p.Name
	}
	return out, err
}

// granted is a stream that its owner can grant, with its device.
type granted struct {
	device holdfast.DeviceID
	*custody.Stream
}

// streams returns those whose data are a party's.
func (a *Archive) streams(ctx context.Context, party holdfast.PartyID) ([]granted, error) {
	held, err := a.custody.Assignments(ctx, party)
	if err != nil {
		return nil, err
	}
	var all []granted
	for _, h := range held {
		if h.State == custody.Erased || h.Whose() != party {
			continue
		}
		streams, err := a.custody.StreamsOfAssignment(ctx, h)
		if err != nil {
			return nil, err
		}
		for _, s := range streams {
			all = append(all, granted{h.Device, s})
		}
	}
	return all, nil
}

// covered returns those of an owner's streams that a grant covers now, each name once.
func covered(g grant.Grant, of []granted) (all []receipt.Stream) {
	type kind struct{ name, category string }
	known := map[kind]bool{}
	for _, s := range of {
		k := kind{s.Name, s.Category}
		if known[k] || !g.AllDevices && !slices.Contains(g.Devices, s.device) || !g.AllStreams && !slices.Contains(g.Streams, s.Name) {
			continue
		}
		known[k] = true
		all = append(all, receipt.Stream{Name: s.Name, Category: s.Category, Sensitivity: s.Sensitivity})
	}
	return all
}

// receipts writes one for each grant that the party made.
func (x *export) receipts() error {
	all, err := x.a.grants.GrantsBy(x.ctx, x.party)
	if err != nil {
		return err
	}
	of, err := x.a.streams(x.ctx, x.party)
	if err != nil {
		return err
	}
	for _, g := range all {
		paper, err := x.a.receipt(x.ctx, g, of)
		if err != nil {
			return err
		}
		if err := x.put(bundle.ReceiptName(g.ID.String()), paper); err != nil {
			return err
		}
	}
	return nil
}
