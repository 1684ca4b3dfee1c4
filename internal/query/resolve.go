package query

import (
	"cmp"
	"context"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// candidate is a stream of a selection, before and after it is decided whether
// it may be read. One without a StreamID is a name that no stream has.
type candidate struct {
	Source
	subject  holdfast.PartyID // of the assignment, if another than the owner
	category string           // IRI, "" if none
	policy.Decision
	coarse *coarse // what becomes of its readings; nil: nothing
	shown  *Source // in place of Source, where the reader may not know all of it
}

// whose returns the one whose data the stream's readings are.
func (c *candidate) whose() holdfast.PartyID {
	if !c.subject.IsZero() {
		return c.subject
	}
	return c.Owner
}

func candidateOf(d custody.Device) candidate {
	return candidate{
		Source:  Source{Device: d.ID, DeviceName: d.Label, Owner: d.Owner, Assignment: d.Assignment, Profile: d.Profile},
		subject: d.Subject,
	}
}

func (c candidate) with(s *custody.Stream) candidate {
	c.Stream, c.StreamID, c.Type, c.Unit, c.category = s.Name, s.ID, s.Type, s.Unit, s.Category
	return c
}

func (s Selection) check() error {
	switch {
	case s.Party.IsZero() == s.Device.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "ask for a party or for a device")
	case s.Stream != "":
		return holdfast.CheckName("stream", s.Stream)
	}
	return nil
}

// resolve returns the streams of a selection, by device and name. Where there is
// nothing it returns one candidate without a stream, so that the reader's right
// to know even that can be decided. exists is false where the party or the
// device is not there.
func (q *Query) resolve(ctx context.Context, j *judge, s Selection) (all []candidate, exists bool, err error) {
	switch {
	case s.Device.IsZero():
		all, exists, err = q.ofParty(ctx, j, s.Party, s.Stream)
	default:
		all, exists, err = q.ofDevice(ctx, j, s.Device, s.Stream)
	}
	if holdfast.KindOf(err) == holdfast.NotFound {
		err = nil
	}
	if len(all) == 0 {
		all = []candidate{{Source: Source{Owner: holdfast.NewID[holdfast.PartyID](), Device: s.Device, Stream: s.Stream}}}
		if exists {
			all[0].Owner = s.Party
		}
	}
	return all, exists, err
}

func (q *Query) ofDevice(ctx context.Context, j *judge, id holdfast.DeviceID, stream string) ([]candidate, bool, error) {
	d, err := q.custody.Device(ctx, id)
	if err != nil || d.State == custody.Erased {
		return nil, false, err
	}
	c := candidateOf(d)
	if ok, err := j.opens(ctx, &c); err != nil || !ok {
		c.Stream = stream
		return []candidate{c}, true, err
	}
	if stream != "" {
		s, err := q.custody.StreamByName(ctx, id, stream)
		switch {
		case holdfast.KindOf(err) == holdfast.NotFound:
			c.Stream = stream
			return []candidate{c}, true, nil
		case err != nil:
			return nil, true, err
		}
		return []candidate{c.with(s)}, true, nil
	}
	streams, err := q.custody.StreamsOf(ctx, d)
	if err != nil {
		return nil, true, err
	}
	if len(streams) == 0 {
		return []candidate{c}, true, nil
	}
	var all []candidate
	for _, s := range streams {
		all = append(all, c.with(s))
	}
	return all, true, nil
}

// ofParty returns the streams of which the party is the owner or the data
// subject; with a name, those of that name.
func (q *Query) ofParty(ctx context.Context, j *judge, id holdfast.PartyID, stream string) ([]candidate, bool, error) {
	whole, err := j.concerns(ctx, id)
	if err != nil {
		return nil, false, err
	}
	var devices []custody.Device
	if whole {
		p, err := q.custody.Party(ctx, id)
		if err != nil || p.State == custody.Erased {
			return nil, false, err
		}
		if devices, err = q.custody.Devices(ctx, id); err != nil {
			return nil, true, err
		}
		about, err := q.aboutAnother(ctx, id, func(a custody.Assignment) bool { return a.Owner != id })
		if err != nil {
			return nil, true, err
		}
		devices = append(devices, about...)
	} else if devices, err = q.ofSubjects(ctx, j, id); err != nil {
		return nil, false, err
	}
	slices.SortStableFunc(devices, func(a, b custody.Device) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), slices.Compare(a.ID[:], b.ID[:]))
	})
	var all []candidate
	for _, d := range devices {
		c := candidateOf(d)
		if ok, err := j.opens(ctx, &c); err != nil {
			return nil, true, err
		} else if !ok {
			c.Stream = stream
			all = append(all, c)
			continue
		}
		streams, err := q.custody.StreamsOf(ctx, d)
		if err != nil {
			return nil, true, err
		}
		for _, s := range streams {
			if stream == "" || s.Name == stream {
				all = append(all, c.with(s))
			}
		}
	}
	return all, whole || len(all) > 0, nil
}

// opens reports whether a device's streams are to be looked up for the reader.
func (j *judge) opens(ctx context.Context, c *candidate) (bool, error) {
	if c.Owner == j.who.Party {
		return true, nil
	}
	return j.concerns(ctx, c.whose())
}

// ofSubjects returns those devices of a party that are about somebody whose data
// may be the reader's to read, by looking at him and not at the party.
func (q *Query) ofSubjects(ctx context.Context, j *judge, owner holdfast.PartyID) ([]custody.Device, error) {
	subjects := []holdfast.PartyID{j.who.Party}
	if j.purpose != holdfast.OwnAccess {
		grants, err := q.grants.GrantsTo(ctx, j.who.Party)
		if err != nil {
			return nil, err
		}
		for _, g := range grants {
			if (g.Purpose == j.purpose || slices.Contains(j.broader, g.Purpose)) && g.Live(q.now()) && !slices.Contains(subjects, g.Grantor) {
				subjects = append(subjects, g.Grantor)
			}
		}
	}
	var devices []custody.Device
	for _, s := range subjects {
		about, err := q.aboutAnother(ctx, s, func(a custody.Assignment) bool { return a.Owner == owner })
		if err != nil {
			return nil, err
		}
		devices = append(devices, about...)
	}
	return devices, nil
}

// aboutAnother returns the devices of which a party is the data subject, of the
// owners that which says.
func (q *Query) aboutAnother(ctx context.Context, subject holdfast.PartyID, which func(custody.Assignment) bool) ([]custody.Device, error) {
	assignments, err := q.custody.AssignmentsAbout(ctx, subject)
	if err != nil {
		return nil, err
	}
	var devices []custody.Device
	for _, a := range assignments {
		if a.State == custody.Erased || !which(a) {
			continue
		}
		d, err := q.custody.Device(ctx, a.Device)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	return devices, nil
}
