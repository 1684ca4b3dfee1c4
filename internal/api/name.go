package api

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

// A name or an id is taken wherever one is asked for. What a caller may not know
// is answered like what does not exist.

func noParty() error  { return holdfast.Errorf(holdfast.NotFound, "there is no such party") }
func noDevice() error { return holdfast.Errorf(holdfast.NotFound, "there is no such device") }

// longestName is a name of MaxNameBytes or an id.
func tooLong(text string) bool { return len(text) > holdfast.MaxNameBytes }

// oversees reports whether a caller knows every party of the hub: its staff.
func oversees(by access.Principal) bool {
	return by.Role == access.Administrator || by.Role == access.Auditor
}

// party returns the party that a caller means: staff's is any, anyone
// else's is his own or one in whose place he acts. The empty text is the caller's own.
func (a *API) party(ctx context.Context, by access.Principal, text string) (custody.Party, error) {
	switch {
	case text == "" || text == by.Party.String():
		return a.Custody.Party(ctx, by.Party)
	case tooLong(text):
		return custody.Party{}, noParty()
	}
	p, err := a.Custody.ResolveParty(ctx, text)
	if err != nil || oversees(by) {
		return p, err
	}
	ok, err := a.stands(ctx, by, p.ID)
	if err != nil || !ok {
		return custody.Party{}, orElse(err, noParty())
	}
	return p, nil
}

// recipient returns the party that an owner wants to grant something. Persons and
// households he names by the id that they gave him: names are not for trying out.
func (a *API) recipient(ctx context.Context, text string) (custody.Party, error) {
	if tooLong(text) {
		return custody.Party{}, noParty()
	}
	p, err := a.Custody.ResolveParty(ctx, text)
	if err != nil {
		return p, err
	}
	if _, byName := holdfast.ParseID[holdfast.PartyID](text); byName != nil && p.Kind != custody.Organisation && p.Kind != custody.Service {
		return custody.Party{}, noParty()
	}
	return p, nil
}

// operates reports whether a caller works for the operating organisation.
func (a *API) operates(ctx context.Context, by access.Principal) (bool, error) {
	operating, err := a.Custody.Operating(ctx)
	if err != nil {
		return false, fmt.Errorf("find operating organisation: %w", err)
	}
	return by.Party == operating && by.Role != access.Owner, nil
}

// whose is the party whose data a device's readings are.
func whose(d custody.Device) holdfast.PartyID {
	if !d.Subject.IsZero() {
		return d.Subject
	}
	return d.Owner
}

// sees reports whether a caller may know of a device.
func (a *API) sees(ctx context.Context, by access.Principal, d custody.Device) (bool, error) {
	switch by.Role {
	case access.Administrator:
		return true, nil
	case access.Owner:
		held, err := a.Custody.Holders(ctx, d.ID)
		if err != nil {
			return false, err
		}
		return a.standsFor(ctx, by, append(held, custody.Assignment{Owner: d.Owner, Subject: d.Subject}))
	}
	return a.seesData(ctx, by, d)
}

// standsFor reports whether a caller is, or acts for, an owner or a data subject.
func (a *API) standsFor(ctx context.Context, by access.Principal, held []custody.Assignment) (bool, error) {
	for _, s := range held {
		for _, p := range []holdfast.PartyID{s.Owner, s.Subject} {
			if ok, err := a.stands(ctx, by, p); err != nil || ok {
				return ok, err
			}
		}
	}
	return false, nil
}

// slices returns those assignments of a device whose data are a party's.
func (a *API) slices(ctx context.Context, party holdfast.PartyID, d holdfast.DeviceID) ([]custody.Assignment, error) {
	held, err := a.Custody.Holders(ctx, d)
	return slices.DeleteFunc(held, func(s custody.Assignment) bool { return s.Whose() != party }), err
}

// asSeen is a device as a caller may know it. Whoever has only a period of it learns
// whose that is, not whose the device is.
func asSeen(by access.Principal, d custody.Device, held []custody.Assignment) custody.Device {
	if by.Role == access.Owner && d.Owner != by.Party && d.Subject != by.Party {
		d.Owner, d.Subject = holdfast.PartyID{}, holdfast.PartyID{}
		for _, s := range held {
			if s.Owner == by.Party || s.Subject == by.Party {
				d.Owner, d.Subject = s.Owner, s.Subject
			}
		}
	}
	return d
}

// deviceSeen is the document of a device for a caller.
func (a *API) deviceSeen(ctx context.Context, by access.Principal, d custody.Device, n names) (Device, error) {
	held, err := a.Custody.Holders(ctx, d.ID)
	return deviceDoc(asSeen(by, d, held), n), err
}

// seesData reports whether a caller may know what a device measures, and when it
// last did: the one whose data it is, and the operating organisation of its own.
func (a *API) seesData(ctx context.Context, by access.Principal, d custody.Device) (bool, error) {
	ok, err := a.stands(ctx, by, whose(d))
	if err != nil || !ok || by.Role == access.Owner {
		return ok, err
	}
	return a.operates(ctx, by)
}

// device returns the device that a caller means. A label is looked for among his
// own first.
func (a *API) device(ctx context.Context, by access.Principal, text string) (custody.Device, error) {
	if tooLong(text) || text == "" {
		return custody.Device{}, noDevice()
	}
	d, err := custody.Device{}, noDevice()
	if _, bad := holdfast.ParseID[holdfast.DeviceID](text); bad != nil {
		d, err = a.labelled(ctx, by, text)
	}
	if holdfast.KindOf(err) == holdfast.NotFound && (by.Role == access.Administrator || isID(text)) {
		d, err = a.Custody.ResolveDevice(ctx, text)
	}
	if err != nil {
		return d, err
	}
	if ok, err := a.sees(ctx, by, d); err != nil || !ok {
		return custody.Device{}, orElse(err, noDevice())
	}
	return d, nil
}

// labelled finds a device by its label: the caller's own first, then among those of
// whom he acts for.
func (a *API) labelled(ctx context.Context, by access.Principal, label string) (custody.Device, error) {
	parties, err := a.actsFor(ctx, by)
	if err != nil {
		return custody.Device{}, err
	}
	for _, p := range append([]holdfast.PartyID{by.Party}, parties...) {
		d, err := a.Custody.DeviceByLabel(ctx, p, label)
		if holdfast.KindOf(err) != holdfast.NotFound {
			return d, err
		}
	}
	return custody.Device{}, noDevice()
}

func isID(text string) bool {
	_, err := holdfast.ParseID[holdfast.DeviceID](text)
	return err == nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// names knows what parties are called, for one answer.
type names map[holdfast.PartyID]string

// names returns the names of all parties to staff, and to anyone else
// his own.
func (a *API) names(ctx context.Context, by access.Principal) (names, error) {
	n := names{}
	if !oversees(by) {
		p, err := a.Custody.Party(ctx, by.Party)
		if err == nil {
			n[p.ID] = p.Name
		}
		return n, err
	}
	all, err := a.Custody.Parties(ctx)
	for _, p := range all {
		n[p.ID] = p.Name
	}
	return n, err
}

// namesOf is names for an answer about one thing, which costs no more where a hub
// has many parties.
func (a *API) namesOf(ctx context.Context, by access.Principal, ids ...holdfast.PartyID) (names, error) {
	if !oversees(by) {
		return a.names(ctx, by)
	}
	n := names{}
	for _, id := range ids {
		if id.IsZero() {
			continue
		}
		p, err := a.Custody.Party(ctx, id)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return nil, err
		}
		n[id] = p.Name
	}
	return n, nil
}

// withNames adds those of organisations and services that a caller has dealt with.
// Of a person he has the id, whoever it is.
func (a *API) withNames(ctx context.Context, n names, ids ...holdfast.PartyID) error {
	for _, id := range ids {
		if _, ok := n[id]; ok || id.IsZero() {
			continue
		}
		p, err := a.Custody.Party(ctx, id)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return err
		}
		n[id] = "" // asked once in an answer
		if p.Kind == custody.Organisation || p.Kind == custody.Service {
			n[id] = p.Name
		}
	}
	return nil
}

// PartyRef names a party. Its name is left out where the caller may not know it.
type PartyRef struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

func (n names) ref(id holdfast.PartyID) *PartyRef {
	if id.IsZero() {
		return nil
	}
	return &PartyRef{ID: id.String(), Name: n[id]}
}

// named is a reference with the name that is known by now.
func (n names) named(p *PartyRef) *PartyRef {
	if p == nil {
		return nil
	}
	id, err := holdfast.ParseID[holdfast.PartyID](p.ID)
	if err != nil {
		return p
	}
	return n.ref(id)
}
