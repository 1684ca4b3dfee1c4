package promapi

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// entry is one series, and the streams that it is of: those of one name that a device
// has in several assignments are one series.
type entry struct {
	labels  labels.Labels
	unit    string
	streams []query.Readable
}

// catalogue returns the series that a reader may read of a span, by their labels.
func (e *Engine) catalogue(ctx context.Context, by asker, span holdfast.Span) ([]*entry, error) {
	streams, err := e.query.Streams(ctx, by.who, by.purpose, span)
	if err != nil {
		return nil, err
	}
	owners := map[holdfast.PartyID]string{}
	of := map[uint64][]*entry{}
	var all []*entry
	for _, s := range streams {
		if s.Type != holdfast.Number && s.Type != holdfast.Integer && s.Type != holdfast.Boolean {
			continue
		}
		if _, ok := owners[s.Owner]; !ok {
			if owners[s.Owner], err = e.ownerName(ctx, by.who, s.Owner); err != nil {
				return nil, err
			}
		}
		name := s.DeviceName
		if name == "" {
			name = s.Device.String()
		}
		ls := seriesLabels(s, name, owners[s.Owner])
		same := slices.IndexFunc(of[ls.Hash()], func(o *entry) bool { return labels.Equal(o.labels, ls) })
		switch {
		case same < 0:
		case of[ls.Hash()][same].streams[0].Device == s.Device:
			o := of[ls.Hash()][same]
			o.streams = append(o.streams, s)
			continue
		default: // another device that is called the same: it goes by its id
			ls = seriesLabels(s, s.Device.String(), owners[s.Owner])
		}
		n := &entry{labels: ls, unit: unitOf(s.Unit), streams: []query.Readable{s}}
		of[ls.Hash()] = append(of[ls.Hash()], n)
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *entry) int { return labels.Compare(a.labels, b.labels) })
	return all, nil
}

func seriesLabels(s query.Readable, device, owner string) labels.Labels {
	return labels.FromStrings(labels.MetricName, metricName(s.Source), labelDevice, device, labelOwner, owner, labelStream, s.Stream)
}

// ownerName is what a reader may call a party: staff know all names, others their own.
func (e *Engine) ownerName(ctx context.Context, who access.Principal, id holdfast.PartyID) (string, error) {
	if who.Role != access.Administrator && who.Role != access.Auditor && id != who.Party {
		return id.String(), nil
	}
	p, err := e.parties.Party(ctx, id)
	if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
		return "", err
	}
	if p.Name == "" {
		return id.String(), nil
	}
	return p.Name, nil
}

// matches reports whether a series is asked for.
func (n *entry) matches(all []*labels.Matcher) bool {
	for _, m := range all {
		if !m.Matches(n.labels.Get(m.Name)) {
			return false
		}
	}
	return true
}

// matchesAny is matches for one of several selectors; none ask for everything.
func (n *entry) matchesAny(selectors [][]*labels.Matcher) bool {
	return len(selectors) == 0 || slices.ContainsFunc(selectors, n.matches)
}

// spanOf is a span of milliseconds, both included, as one of readings.
func spanOf(from, to int64) holdfast.Span {
	const milli, most = int64(time.Millisecond), int64(1<<63-1) / int64(time.Millisecond)
	s := holdfast.Span{From: -1 << 63, To: 1<<63 - 1}
	if from >= -most {
		s.From = min(from, most) * milli
	}
	if to < most {
		s.To = max(to, -most)*milli + milli - 1
	}
	return s
}

// milliOf is the millisecond that an instant lies in.
func milliOf(ns int64) int64 {
	ms := ns / int64(time.Millisecond)
	if ns%int64(time.Millisecond) < 0 {
		ms--
	}
	return ms
}
