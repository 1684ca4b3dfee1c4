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
	subject holdfast.PartyID // of the assignment, if another than the owner
	policy.Decision
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
		Source:  Source{Device: d.ID, DeviceName: d.Label, Owner: d.Owner, Assignment: d.Assignment},
		subject: d.Subject,
	}
}

func (c candidate) with(s *custody.Stream) candidate {
	c.Stream, c.StreamID, c.Type, c.Unit = s.Name, s.ID, s.Type, s.Unit
	return c
}

func (s Selection) check() error {
	switch {
	case s.Party.IsZero() == s.Device.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "ask for a party or for a device")
	case s.Stream != "" && s.Device.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "a stream is asked for with its device")
	case s.Stream != "":
		return holdfast.CheckName("stream", s.Stream)
	}
	return nil
}

// resolve returns the streams of a selection, by device and name. Where there is
// nothing it returns one candidate without a stream, so that the reader's right
// to know even that can be decided. exists is false where the party or the
// device is not there.
func (q *Query) resolve(ctx context.Context, s Selection) (all []candidate, exists bool, err error) {
	switch {
	case s.Device.IsZero():
		all, exists, err = q.ofParty(ctx, s.Party)
	default:
		all, exists, err = q.ofDevice(ctx, s.Device, s.Stream)
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

func (q *Query) ofDevice(ctx context.Context, id holdfast.DeviceID, stream string) ([]candidate, bool, error) {
	d, err := q.custody.Device(ctx, id)
	if err != nil || d.State == custody.Erased {
		return nil, false, err
	}
	c := candidateOf(d)
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
	streams, err := q.custody.StreamsOf(ctx, d.Assignment)
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
// subject.
func (q *Query) ofParty(ctx context.Context, id holdfast.PartyID) ([]candidate, bool, error) {
	p, err := q.custody.Party(ctx, id)
	if err != nil || p.State == custody.Erased {
		return nil, false, err
	}
	devices, err := q.custody.Devices(ctx, id)
	if err != nil {
		return nil, true, err
	}
	assignments, err := q.custody.Assignments(ctx, id)
	if err != nil {
		return nil, true, err
	}
	for _, a := range assignments { // those of others in which the party is the subject
		if a.Subject != id || a.Owner == id || a.State == custody.Erased {
			continue
		}
		d, err := q.custody.Device(ctx, a.Device)
		if err != nil {
			return nil, true, err
		}
		devices = append(devices, d)
	}
	slices.SortStableFunc(devices, func(a, b custody.Device) int {
		return cmp.Or(cmp.Compare(a.Label, b.Label), slices.Compare(a.ID[:], b.ID[:]))
	})
	var all []candidate
	for _, d := range devices {
		streams, err := q.custody.StreamsOf(ctx, d.Assignment)
		if err != nil {
			return nil, true, err
		}
		for _, s := range streams {
			all = append(all, candidateOf(d).with(s))
		}
	}
	return all, true, nil
}
