package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// disclosed returns the disclosure under which a stream's readings leave. It is opened,
// durably, before the first of them, with all streams that it would cover.
func (r *following) disclosed(c *candidate) (*disclosed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, holdfast.Errorf(holdfast.Conflict, "the feed is closed")
	}
	u := c.under()
	if o := r.openOf[u]; o != nil {
		if _, covered := o.streams[c.StreamID]; covered {
			return o, nil
		}
		if err := r.closeAll(); err != nil { // a stream has joined
			return nil, err
		}
	}
	d := grant.Disclosure{
		Owner: c.whose(), Reader: r.j.who.Credential, Role: r.j.who.Role.String(), Recipient: r.j.who.Person(), Purpose: r.j.purpose,
		Grant: c.Grant, Permission: c.Permission, Reason: c.Reason, Policies: c.Policies, Obligations: c.Obligations,
	}
	o := &disclosed{streams: map[holdfast.StreamID]struct{}{}}
	for _, x := range r.order {
		if x.under() == u {
			d.Streams = append(d.Streams, x.StreamID)
			o.streams[x.StreamID] = struct{}{}
		}
	}
	var err error
	if o.id, err = r.q.grants.OpenDisclosure(r.ctx, d); err != nil {
		return nil, fmt.Errorf("open disclosure: %w", err)
	}
	if len(r.open) == 0 {
		r.opened = time.Now()
	}
	r.open = append(r.open, o)
	r.openOf[u] = o
	return o, nil
}

// closeAll brings the amounts to the disclosures and closes them; the next reading
// joins them again, or opens others. r.mu is held.
func (r *following) closeAll() (failure error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), closeWithin)
	defer cancel()
	for _, o := range r.open {
		if err := r.q.grants.CloseDisclosure(ctx, o.id, o.amount.rows, o.amount.first, o.amount.last); err != nil && holdfast.KindOf(err) != holdfast.NotFound { // its owner was erased, and it with him
			failure = errors.Join(failure, fmt.Errorf("close disclosure: %w", err))
		}
	}
	r.open = nil
	clear(r.openOf)
	return failure
}
