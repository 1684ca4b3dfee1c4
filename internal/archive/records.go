package archive

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// records writes what makes the readings understandable and what became of them.
func (x *export) records() error {
	for _, kind := range []struct {
		name  string
		write func(*lines) error
	}{
		{bundle.DevicesName, x.devices},
		{bundle.StreamsName, x.streams},
		{bundle.AssignmentsName, x.assignments},
		{bundle.PurposesName, x.purposes},
		{bundle.GrantsName, x.grants},
		{bundle.DisclosuresName, x.disclosures},
		{bundle.LedgerName, x.ledger},
		{bundle.EventsName, x.events},
		{bundle.BalanceName, x.balance},
	} {
		l := &lines{x: x, name: kind.name}
		if err := kind.write(l); err != nil {
			return err
		}
		if err := l.end(); err != nil {
			return err
		}
	}
	return x.receipts()
}

// held returns the living assignments whose data are the party's.
func (x *export) held() ([]custody.Assignment, error) {
	all, err := x.a.custody.Assignments(x.ctx, x.party)
	if err != nil {
		return nil, err
	}
	var held []custody.Assignment
	for _, a := range all {
		if a.State != custody.Erased && (a.Subject == x.party || a.Subject.IsZero()) {
			held = append(held, a)
		}
	}
	slices.SortStableFunc(held, func(a, b custody.Assignment) int { return cmp.Compare(flag(a.Period), flag(b.Period)) }) // devices' own first
	return held, nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (x *export) devices(l *lines) error {
	held, err := x.held()
	if err != nil {
		return err
	}
	done := map[holdfast.DeviceID]bool{}
	for _, a := range held {
		if done[a.Device] {
			continue
		}
		done[a.Device] = true
		d, err := x.a.custody.Device(x.ctx, a.Device)
		if err != nil {
			return err
		}
		x.report.Devices++
		// One of the party's: the device's own may be another's.
		err = l.add(bundle.Device{
			ID: d.ID, Name: d.Label, Assignment: a.ID, Profile: d.Profile, ProfileVersion: d.ProfileVersion,
			Gateway: d.Gateway, Child: d.Child, State: d.State, Added: d.Added,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *export) assignments(l *lines) error {
	held, err := x.held()
	if err != nil {
		return err
	}
	for _, a := range held {
		out := bundle.Assignment{
			ID: a.ID, Device: a.Device, Owner: a.Owner, Subject: a.Subject, Basis: string(a.Basis), Period: a.Period, State: a.State,
			From: a.From, To: a.To, EraseAfterDays: a.EraseAfter,
		}
		if a.Schedule != nil {
			out.Hours, out.Zone = a.Schedule.String(), a.Schedule.Zone
		}
		if err := l.add(out); err != nil {
			return err
		}
	}
	return nil
}

// streams writes those whose readings were read.
func (x *export) streams(l *lines) error {
	for _, source := range x.res.Sources {
		s, err := x.a.custody.Stream(x.ctx, source.StreamID)
		if err != nil {
			return err
		}
		err = l.add(bundle.Stream{
			ID: s.ID, Device: source.Device, Assignment: s.Assignment, Name: s.Name, Type: s.Type.String(), Unit: s.Unit, Category: s.Category,
			Sensitivity: s.Sensitivity, Purposes: s.Purposes, RetentionDays: s.RetentionDays,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *export) purposes(l *lines) error {
	all, err := x.a.grants.Purposes(x.ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		err := l.add(bundle.Purpose{
			Name: p.Name, IRI: p.IRI, LegalBasis: p.LegalBasis, RetentionDays: p.RetentionDays, Text: p.Text, Ended: p.Ended,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// nameOf returns a recipient's name, "" if it was erased.
func (x *export) nameOf(p holdfast.PartyID) (string, error) {
	party, err := x.a.custody.Party(x.ctx, p)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return "", nil
	}
	return party.Name, err
}

func (x *export) grants(l *lines) error {
	all, err := x.a.grants.GrantsBy(x.ctx, x.party)
	if err != nil {
		return err
	}
	for _, g := range all {
		name, err := x.nameOf(g.Recipient)
		if err != nil {
			return err
		}
		out := bundle.Grant{
			ID: g.ID, Recipient: g.Recipient, RecipientName: name, Purpose: g.Purpose, AllDevices: g.AllDevices, Devices: g.Devices, Assignments: g.Assignments,
			AllStreams: g.AllStreams, Streams: g.Streams, Made: g.Made, Until: g.Until, Ended: g.Ended,
		}
		if g.Data.From != math.MinInt64 {
			out.DataFrom = instant(g.Data.From)
		}
		if g.Data.To != math.MaxInt64 {
			out.DataTo = instant(g.Data.To)
		}
		if err := l.add(out); err != nil {
			return err
		}
	}
	return nil
}

func instant(ns int64) time.Time { return time.Unix(0, ns).UTC() }

func (x *export) disclosures(l *lines) error {
	for d, err := range x.a.grants.AllDisclosures(x.ctx, x.party) {
		if err != nil {
			return err
		}
		name, err := x.nameOf(d.Recipient)
		if err != nil {
			return err
		}
		out := bundle.Disclosure{
			ID: d.ID, Recipient: d.Recipient, RecipientName: name, Reader: d.Reader, Purpose: d.Purpose, Grant: d.Grant, Permission: d.Permission,
			Role: d.Role, Reason: d.Reason, Policies: d.Policies, Streams: d.Streams,
			Opened: d.Opened, Last: d.Last, Reads: d.Reads, Rows: d.Rows, Complete: d.Complete,
		}
		if d.Rows > 0 {
			out.First, out.Final = instant(d.First), instant(d.Final)
		}
		if err := l.add(out); err != nil {
			return err
		}
	}
	return nil
}

// ledger writes the owner's record with its proofs.
func (x *export) ledger(l *lines) error {
	return x.a.ledger.Slice(x.ctx, vault.OfParty(x.party), 0, func(line any) error {
		if _, entry := line.(ledger.SliceEntry); entry {
			x.entries++
		}
		return l.add(line)
	})
}

// eventsAtOnce is how many entries of the ledger are in memory.
const eventsAtOnce = 1000

// events writes what those entries say, for people. What came after is not in it.
func (x *export) events(l *lines) error {
	for from := uint64(0); ; {
		all, err := x.a.ledger.Events(x.ctx, vault.OfParty(x.party), from, eventsAtOnce)
		if err != nil {
			return err
		}
		for _, e := range all {
			if e.Seq >= x.entries {
				return nil
			}
			if err := l.add(bundle.Event(e)); err != nil {
				return err
			}
		}
		if len(all) < eventsAtOnce {
			return nil
		}
		from = all[len(all)-1].Index + 1
	}
}

// balance writes a sheet for every stream, those without readings too.
func (x *export) balance(l *lines) error {
	for _, s := range x.res.Sources {
		t := x.tallies[s.StreamID]
		if t == nil {
			t = new(bundle.Tally)
		}
		if err := l.add(t.Balance(s.StreamID)); err != nil {
			return err
		}
	}
	return nil
}
