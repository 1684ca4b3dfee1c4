package query

import (
	"cmp"
	"context"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// candidate is a stream of a selection, before and after it is decided whether
// it may be read. One without a StreamID is a name that no stream has.
type candidate struct {
	Source
	subject  holdfast.PartyID // of the assignment, if another than the owner
	category string           // IRI, "" if none
	policy.Decision
	collected grant.Collected
	since     int64   // what arrived before has expired
	coarse    *coarse // what becomes of its readings; nil: nothing
	shown     *Source // in place of Source, where the reader may not know all of it
}

// whose returns the one whose data the stream's readings are.
func (c *candidate) whose() holdfast.PartyID {
	if !c.subject.IsZero() {
		return c.subject
	}
	return c.Owner
}

// candidateOf is a device's readings in one of its assignments.
func candidateOf(d custody.Device, a custody.Assignment) candidate {
	return candidate{
		Source:  Source{Device: d.ID, DeviceName: d.Label, Owner: a.Owner, Assignment: a.ID, Profile: d.Profile},
		subject: a.Subject,
	}
}

func (c candidate) with(s *custody.Stream) candidate {
	c.Stream, c.StreamID, c.Type, c.Unit, c.category = s.Name, s.ID, s.Type, s.Unit, s.Category
	c.collected = *CollectedOf(s)
	return c
}

func (s Selection) check() error {
	asked := 0
	for _, is := range [...]bool{!s.Party.IsZero(), !s.Device.IsZero(), !s.Group.IsZero(), s.All} {
		if is {
			asked++
		}
	}
	switch {
	case asked != 1:
		return holdfast.Errorf(holdfast.Invalid, "ask for a party, for a device or for a group")
	case s.All && s.Stream != "":
		return holdfast.Errorf(holdfast.Invalid, "all that may be read is asked for without the name of a stream")
	case !s.Group.IsZero() && s.Stream == "":
		return holdfast.Errorf(holdfast.Invalid, "name the streams that are asked for of the group")
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
	case s.declared != nil:
		all, err = q.ofDeclared(ctx, j, s.declared, s.Stream)
		exists = len(all) > 0
	case s.Device.IsZero():
		all, exists, err = q.ofParty(ctx, j, s.Party, s.Stream)
	default:
		all, exists, err = q.ofDevice(ctx, j, s.Device, s.Stream)
	}
	if holdfast.KindOf(err) == holdfast.NotFound {
		err = nil
	}
	if j.reader() == policy.Recipient && !j.all {
		j.unname(all)
	}
	if len(all) == 0 {
		all = []candidate{{Source: Source{Owner: holdfast.NewID[holdfast.PartyID](), Device: s.Device, Stream: s.Stream}}}
		if exists {
			all[0].Owner = s.Party
		}
	}
	return all, exists, err
}

// ofDevice returns the streams of a device: of its own assignment, and of those of its
// periods that may be the reader's to read. Of the others he does not learn that they
// are there.
func (q *Query) ofDevice(ctx context.Context, j *judge, id holdfast.DeviceID, stream string) ([]candidate, bool, error) {
	d, err := q.custody.Device(ctx, id)
	if err != nil {
		return nil, false, err
	}
	held, err := q.custody.Holders(ctx, id)
	if err != nil {
		return nil, false, err
	}
	near, err := j.near(ctx)
	if err != nil {
		return nil, false, err
	}
	var all []candidate
	for _, a := range held {
		if a.ID != d.Assignment && !near(a) {
			continue
		}
		c := candidateOf(d, a)
		ok, err := j.opens(ctx, &c)
		switch own := a.ID == d.Assignment; {
		case err != nil:
			return nil, true, err
		case ok:
			if all, err = q.withStreams(ctx, all, c, a, stream); err != nil {
				return nil, true, err
			}
		case own:
			c.Stream = stream
			all = append(all, c)
		}
	}
	inOrder(all)
	return all, d.State != custody.Erased || len(all) > 0, nil
}

// withStreams appends an assignment's streams, those of one name if there is one; where
// there are none, the assignment without a stream.
func (q *Query) withStreams(ctx context.Context, all []candidate, c candidate, a custody.Assignment, stream string) ([]candidate, error) {
	if stream != "" {
		s, err := q.custody.StreamNamed(ctx, a.ID, stream)
		switch {
		case holdfast.KindOf(err) == holdfast.NotFound:
			c.Stream = stream
			return append(all, c), nil
		case err != nil:
			return nil, err
		}
		return append(all, c.with(s)), nil
	}
	streams, err := q.custody.StreamsOfAssignment(ctx, a)
	if err != nil {
		return nil, err
	}
	if len(streams) == 0 {
		return append(all, c), nil
	}
	for _, s := range streams {
		all = append(all, c.with(s))
	}
	return all, nil
}

// unname takes from devices what their owner calls them: who reads under a grant
// knows another's devices by their ids.
func (j *judge) unname(all []candidate) {
	for i := range all {
		if c := &all[i]; c.Owner != j.who.Party && c.whose() != j.who.Party {
			c.DeviceName = ""
		}
	}
	inOrder(all) // the order would tell of the names, too
}

// inOrder sorts streams by device and name; those of one name that a device has in
// several assignments by these, so that pages agree.
func inOrder(all []candidate) {
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.DeviceName, b.DeviceName), slices.Compare(a.Device[:], b.Device[:]), cmp.Compare(a.Stream, b.Stream),
			slices.Compare(a.Assignment[:], b.Assignment[:]))
	})
}

// ofParty returns the streams of which the party is the owner or the data
// subject; with a name, those of that name.
func (q *Query) ofParty(ctx context.Context, j *judge, id holdfast.PartyID, stream string) ([]candidate, bool, error) {
	whole, err := j.concerns(ctx, id)
	if err != nil {
		return nil, false, err
	}
	var held []custody.Assignment
	if whole {
		p, err := q.custody.Party(ctx, id)
		if err != nil || p.State == custody.Erased {
			return nil, false, err
		}
		if held, err = q.custody.Holdings(ctx, id); err != nil {
			return nil, true, err
		}
	} else if held, err = q.ofSubjects(ctx, j, id); err != nil {
		return nil, false, err
	}
	var all []candidate
	for _, a := range held {
		d, err := q.custody.Device(ctx, a.Device)
		if err != nil {
			return nil, true, err
		}
		c := candidateOf(d, a)
		if ok, err := j.opens(ctx, &c); err != nil {
			return nil, true, err
		} else if !ok {
			c.Stream = stream
			all = append(all, c)
			continue
		}
		streams, err := q.custody.StreamsOfAssignment(ctx, a)
		if err != nil {
			return nil, true, err
		}
		for _, s := range streams {
			if stream == "" || s.Name == stream {
				all = append(all, c.with(s))
			}
		}
	}
	inOrder(all)
	return all, whole || len(all) > 0, nil
}

// opens reports whether a device's streams are to be looked up for the reader.
func (j *judge) opens(ctx context.Context, c *candidate) (bool, error) {
	if c.Owner == j.who.Party {
		return true, nil
	}
	return j.concerns(ctx, c.whose())
}

// near returns what says whether an assignment may be the reader's to read. It asks
// for all of them at once, whatever there is of a device: the time that it takes must
// not tell how many others have had it.
func (j *judge) near(ctx context.Context) (func(custody.Assignment) bool, error) {
	if j.who.Role == access.Administrator || j.all {
		return func(custody.Assignment) bool { return true }, nil
	}
	if j.nearby != nil { // of the many devices of a group it is found out once
		return j.nearby, nil
	}
	parties := append([]holdfast.PartyID{j.who.Party}, j.acts...)
	if j.purpose != holdfast.OwnAccess {
		grantors, err := j.q.grants.Grantors(ctx, j.who.Party)
		if err != nil {
			return nil, err
		}
		parties = append(parties, grantors...)
	}
	is := make(map[holdfast.PartyID]bool, len(parties))
	for _, p := range parties {
		is[p] = true
	}
	j.nearby = func(a custody.Assignment) bool { return a.Owner == j.who.Party || is[a.Whose()] }
	return j.nearby, nil
}

// ofSubjects returns those assignments of a party that are about somebody whose data
// may be the reader's to read, by looking at him and not at the party.
func (q *Query) ofSubjects(ctx context.Context, j *judge, owner holdfast.PartyID) ([]custody.Assignment, error) {
	subjects := append([]holdfast.PartyID{j.who.Party}, j.acts...)
	if j.purpose != holdfast.OwnAccess {
		grantors, err := q.grants.Grantors(ctx, j.who.Party)
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, grantors...)
	}
	var about []custody.Assignment
	for _, s := range subjects {
		held, err := q.custody.Holdings(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, a := range held {
			if a.Subject != s || a.Owner != owner || slices.ContainsFunc(about, func(b custody.Assignment) bool { return a.ID == b.ID }) {
				continue
			}
			// What a grant says is only looked at where there is something to read.
			switch ok, err := j.concerns(ctx, s); {
			case err != nil:
				return nil, err
			case ok:
				about = append(about, a)
			}
		}
	}
	return about, nil
}
