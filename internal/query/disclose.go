package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// under is what streams of one disclosure have in common: one owner's data, under one
// grant or permission.
type under struct {
	owner      holdfast.PartyID
	grant      holdfast.GrantID
	permission holdfast.PermissionID
}

func (c *candidate) under() under { return under{c.whose(), c.Grant, c.Permission} }

// opened is a disclosure of this read.
type opened struct {
	id     holdfast.DisclosureID
	amount amount
}

// amount is what left. Of windows it is the readings they are made of.
type amount struct {
	rows        uint64
	first, last int64
}

func (a *amount) add(rows uint64, first, last int64) {
	if a.rows == 0 {
		a.first, a.last = first, last
	}
	a.rows += rows
	a.first, a.last = min(a.first, first), max(a.last, last)
}

// disclose opens a disclosure for each owner and grant or permission among the
// streams, all at once. When it returns nil they are durable.
func (r *run) disclose() error {
	var wanted []grant.Disclosure
	at := map[under]int{} // in wanted
	for i := range r.streams {
		c := &r.streams[i]
		n, ok := at[c.under()]
		if !ok {
			n, at[c.under()] = len(wanted), len(wanted)
			wanted = append(wanted, grant.Disclosure{
				Owner: c.whose(), Reader: r.j.who.Credential, Role: r.j.who.Role.String(), Recipient: r.j.who.Person(), Purpose: r.j.purpose,
				Grant: c.Grant, Permission: c.Permission, Reason: c.Reason, Policies: c.Policies, Obligations: c.Obligations,
			})
		}
		wanted[n].Streams = append(wanted[n].Streams, c.StreamID)
	}
	r.openOf = make(map[under]*opened, len(wanted))
	ids, err := r.q.grants.OpenDisclosures(r.ctx, wanted)
	for i, id := range ids {
		if d := wanted[i]; !id.IsZero() {
			o := &opened{id: id}
			r.open = append(r.open, o)
			r.openOf[under{d.Owner, d.Grant, d.Permission}] = o
			r.result.Disclosures = append(r.result.Disclosures, id)
		}
	}
	if err != nil {
		return fmt.Errorf("open disclosure: %w", err)
	}
	return nil
}

// of returns the disclosure that covers a stream.
func (r *run) of(c *candidate) *opened {
	if o := r.openOf[c.under()]; o != nil {
		return o
	}
	panic("query: a stream without a disclosure")
}

// closeWithin is how long closing may take when the reader has gone.
const closeWithin = 10 * time.Second

// finish closes the disclosures with the amounts, once.
func (r *run) finish() error {
	if r.closed {
		return r.failure
	}
	r.closed = true
	r.release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), closeWithin)
	defer cancel()
	for _, o := range r.open {
		if err := r.q.grants.CloseDisclosure(ctx, o.id, o.amount.rows, o.amount.first, o.amount.last); err != nil {
			r.failure = errors.Join(r.failure, fmt.Errorf("close disclosure: %w", err))
		}
	}
	return r.failure
}
