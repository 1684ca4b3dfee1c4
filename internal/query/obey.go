package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
)

// obey makes of what policy allowed what may be done with it: a stream that its
// obligations keep from this request is not allowed any more; of the others the
// span is cut to what may be seen of them, and what stands beside a value is made
// ready to be left out. docs/obligations.md says what comes of it.
//
// It fails where the reader has to ask otherwise and may know so. why says for a
// reader to whom nothing is left what would help; nil: what he hears of streams that
// there are not.
func (j *judge) obey(ctx context.Context, req *Request, all []candidate) (why, err error) {
	hidden := false
	for i := range all {
		c := &all[i]
		if !c.Allow || c.Obligations.IsZero() {
			continue
		}
		if req.Exact {
			return nil, holdfast.Errorf(holdfast.Denied, "a grant's obligations would change what is given out, and this takes it as it is or not at all")
		}
		if reason, ok := c.fits(req); !ok {
			c.Decision = policy.Decision{Reason: policy.NoGrant}
			why = cmp.Or(why, reason)
			continue
		}
		if err := c.checkEvery(req); err != nil {
			return nil, err
		}
		c.clip(req, j.q.now().UnixNano())
		c.coarse = coarseOf(c.Type, c.Obligations)
		if slices.Contains(c.Drop, policy.FieldDevice) && !c.StreamID.IsZero() {
			hidden = true
			if err := c.hide(ctx, j); err != nil {
				return nil, fmt.Errorf("hide device: %w", err)
			}
		}
	}
	if req.declared != nil {
		req.crowd, err = j.gatherCrowd(ctx, req, all)
		return why, err
	}
	if hidden { // their place among the others would tell what their device is called
		slices.SortStableFunc(all, func(a, b candidate) int {
			x, y := a.face(), b.face()
			return cmp.Or(cmp.Compare(x.DeviceName, y.DeviceName), slices.Compare(x.Device[:], y.Device[:]), cmp.Compare(x.Stream, y.Stream))
		})
	}
	return why, nil
}

// fits reports whether a stream's obligations let it into the answer to such a
// request at all. Its reason is nil where the reader may not know that the stream is
// there.
func (c *candidate) fits(req *Request) (reason error, ok bool) {
	o := &c.Obligations
	byDevice := !req.Device.IsZero() || req.declared != nil && o.MinGroup == 0
	switch {
	case o.Check() != nil: // whoever wrote it, nobody could carry it out
		return nil, false
	case byDevice && slices.Contains(o.Drop, policy.FieldDevice): // whoever names the device would know which it is
		return nil, false
	case o.MinGroup > 0 && req.declared == nil:
		if byDevice {
			return nil, false
		}
		return holdfast.Errorf(holdfast.Denied, "the grant gives readings out only in windows over a declared group of at least %d data subjects", o.MinGroup), false
	case c.StreamID.IsZero():
	case (o.Step > 0 || o.Decimals != nil) && (c.Type == holdfast.Text || c.Type == holdfast.Bytes):
		return holdfast.Errorf(holdfast.Denied, "the grant lets readings out rounded, and a %s can't be rounded: it may say anything", c.Type), false
	case o.Step > 0 && o.Decimals == nil && c.Type == holdfast.Location:
		return holdfast.Errorf(holdfast.Denied, "the grant rounds numbers and says nothing of locations: those are not given out"), false
	}
	return nil, true
}

// checkEvery refuses what a down-sampled stream does not answer.
func (c *candidate) checkEvery(req *Request) error {
	every := c.Every
	switch {
	case every == 0:
		return nil
	case !req.windows():
		return holdfast.Errorf(holdfast.Denied, "the grant lets readings out only as windows of %s or a multiple of it: ask for windows of that length", every)
	case !req.ruler().within(every, c.Span):
		return holdfast.Errorf(holdfast.Denied, "the grant lets readings out only as windows that begin and end at multiples of %s since 1970-01-01T00:00:00Z: ask for a multiple of it, or for days, weeks or months of a zone where they do", every)
	}
	for _, a := range req.Aggregates {
		if c.StreamID.IsZero() || !a.of(c.Type) || a == Count {
			continue
		}
		measured := Sum.of(c.Type)
		switch {
		case measured && a != Sum && a != Mean:
			return holdfast.Errorf(holdfast.Denied, "the grant lets numbers out only as windows of many: they have count, sum and mean, not %s, which is of single readings", a)
		case !measured && a != Last:
			return holdfast.Errorf(holdfast.Denied, "the grant lets out one reading of a window: values of type %s have count and last, not %s", c.Type, a)
		case !measured && req.By != 0:
			return holdfast.Errorf(holdfast.Denied, "the grant lets out one reading of a window and stream: a group of values of type %s has count only", c.Type)
		}
	}
	return nil
}

// clip cuts the span to what may be seen at the time now: what is old enough and,
// down-sampled, in windows that are whole and over.
func (c *candidate) clip(req *Request, now int64) {
	if c.Delay > 0 || c.Every > 0 {
		c.Span.To = min(c.Span.To, now-int64(c.Delay))
	}
	if c.Every > 0 && c.Span.From <= c.Span.To {
		c.Span = req.ruler().whole(c.Span)
	}
}

// hide puts a pseudonym in the place of what tells which device it is. It belongs to
// the grant and the stream: two streams of one device have two.
func (c *candidate) hide(ctx context.Context, j *judge) error {
	name, err := j.q.grants.Pseudonym(ctx, j.who.Party, c.Grant, c.StreamID)
	if err != nil {
		return err
	}
	shown := Source{Stream: c.Stream, Unit: c.Unit, Type: c.Type, Owner: c.Owner}
	copy(shown.Device[:], name[:holdfast.IDSize])
	copy(shown.StreamID[:], name[holdfast.IDSize:])
	shown.DeviceName = shown.Device.String()
	c.shown = &shown
	return nil
}

// face is the stream as its reader knows it.
func (c *candidate) face() *Source {
	if c.shown != nil {
		return c.shown
	}
	return &c.Source
}

// key is how a cursor names the stream.
func (c *candidate) key() holdfast.StreamID { return c.face().StreamID }

// sameObligations reports whether a decision made again asks what it asked before.
func sameObligations(a, b *policy.Obligations) bool {
	decimals := a.Decimals == b.Decimals || a.Decimals != nil && b.Decimals != nil && *a.Decimals == *b.Decimals
	return decimals && a.Every == b.Every && a.Step == b.Step && a.Delay == b.Delay && a.MinGroup == b.MinGroup && slices.Equal(a.Drop, b.Drop)
}
