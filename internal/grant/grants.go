package grant

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

type grantRow struct {
	id                 holdfast.GrantID
	grantor, recipient holdfast.PartyID
	state              string
	box                []byte
}

const grantColumns = `SELECT id, grantor, recipient, state, info_sealed FROM data_grant WHERE `

// grants returns those that a condition holds for, the newest first.
func (r *Register) grants(ctx context.Context, where string, args ...any) ([]Grant, error) {
	all, _, err := r.readGrants(ctx, grantColumns+where+` ORDER BY n DESC`, args...)
	return all, err
}

// readGrants also returns how many rows there were: of one whose grantor is being
// erased nothing can be read.
func (r *Register) readGrants(ctx context.Context, query string, args ...any) ([]Grant, int, error) {
	var rows []grantRow
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var w grantRow
			if err := q.Scan(&w.id, &w.grantor, &w.recipient, &w.state, &w.box); err != nil {
				return err
			}
			rows = append(rows, w)
		}
		return q.Err()
	})
	if err != nil {
		return nil, 0, err
	}
	all := make([]Grant, 0, len(rows))
	for _, w := range rows {
		var i grantInfo
		switch err := r.open(ctx, vault.OfParty(w.grantor), "data_grant", w.id[:], w.box, &i); {
		case vault.Gone(err):
			continue // the grantor's key is destroyed: nothing he granted stands
		case err != nil:
			return nil, 0, err
		}
		if i.Recipient != w.recipient && !w.recipient.IsZero() { // zero: erased since
			return nil, 0, holdfast.Errorf(holdfast.Internal, "the row of grant %s was altered: it names another recipient than its owner did", w.id)
		}
		g := Grant{
			ID: w.id, Grantor: w.grantor, Made: holdfast.Instant(i.Made), Ended: holdfast.Instant(i.Ended),
			Spec: Spec{
				Recipient: w.recipient, Purpose: i.Purpose, AllDevices: i.AllDevices, Devices: i.Devices, Assignments: i.Assignments, AllStreams: i.AllStreams, Streams: i.Streams,
				Categories: i.Categories, Supersedes: i.Supersedes,
				Data: holdfast.Span{From: i.From, To: i.To}, Until: holdfast.Instant(i.Until),
			},
		}
		if i.Obligations != nil {
			g.Obligations = *i.Obligations
		}
		if w.state != "active" && g.Ended.IsZero() {
			g.Ended = g.Made // its recipient was erased; when is not kept
		}
		all = append(all, g)
	}
	return all, len(rows), nil
}

// Grant returns a grant by its id. Whom it concerns is for the caller to check.
func (r *Register) Grant(ctx context.Context, id holdfast.GrantID) (Grant, error) {
	all, err := r.grants(ctx, `id = $1`, id)
	if err != nil {
		return Grant{}, err
	}
	if len(all) == 0 {
		return Grant{}, holdfast.Errorf(holdfast.NotFound, "there is no such grant")
	}
	return all[0], nil
}

// PageOfGrants returns up to limit of the grants that a recipient was given, and with
// made of those that the same party made, the newest first and ended and expired ones
// included; after is the last of the page before. more says that there are others.
func (r *Register) PageOfGrants(ctx context.Context, party holdfast.PartyID, made bool, after holdfast.GrantID, limit int) (page []Grant, more bool, err error) {
	before := int64(math.MaxInt64)
	if !after.IsZero() {
		err := r.db.Read(ctx, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT n FROM data_grant WHERE id = $1 AND (recipient = $2 OR grantor = $2)`, after, party).Scan(&before)
		})
		if errors.Is(err, sql.ErrNoRows) {
			return nil, false, holdfast.Errorf(holdfast.Conflict, "the item where the page begins is gone: ask again from the start")
		}
		if err != nil {
			return nil, false, err
		}
	}
	part := func(column string) string {
		return `SELECT * FROM (SELECT id, grantor, recipient, state, info_sealed, n FROM data_grant WHERE ` + column + ` = $1 AND n < $2 ORDER BY n DESC LIMIT $3)`
	}
	query := part(`recipient`)
	if made {
		query += ` UNION ALL ` + part(`grantor`)
	}
	page, rows, err := r.readGrants(ctx, `SELECT id, grantor, recipient, state, info_sealed FROM (`+query+`) ORDER BY n DESC LIMIT $3`, party, before, limit+1)
	if err != nil {
		return nil, false, err
	}
	return page[:min(limit, len(page))], rows > limit, nil
}

// GrantsBy returns the grants an owner made, the newest first, ended and expired
// ones included.
func (r *Register) GrantsBy(ctx context.Context, owner holdfast.PartyID) ([]Grant, error) {
	return r.grants(ctx, `grantor = $1`, owner)
}

// GrantsTo returns the grants made to a recipient, the newest first, ended and
// expired ones included.
func (r *Register) GrantsTo(ctx context.Context, recipient holdfast.PartyID) ([]Grant, error) {
	return r.grants(ctx, `recipient = $1`, recipient)
}

// For returns what policy.Decide is to weigh when recipient asks for owner's
// data: the grants between the two that have not been ended. With a data subject
// in the assignment, the owner is the subject.
func (r *Register) For(ctx context.Context, recipient, owner holdfast.PartyID) ([]policy.Grant, error) {
	all, err := r.grants(ctx, `grantor = $1 AND recipient = $2 AND state = 'active'`, owner, recipient)
	if err != nil {
		return nil, err
	}
	out := make([]policy.Grant, len(all))
	for i, g := range all {
		out[i] = g.policy()
	}
	return out, nil
}

func (g Grant) policy() policy.Grant {
	return policy.Grant{
		ID: g.ID, Grantor: g.Grantor, Recipient: g.Recipient, Purpose: g.Purpose,
		AllDevices: g.AllDevices, Devices: g.Devices, Assignments: g.Assignments, AllStreams: g.AllStreams, Streams: g.Streams,
		Categories: g.Categories,
		Data:       g.Data, Made: g.Made.UnixNano(), Until: g.Until.UnixNano(), Ended: !g.Ended.IsZero(),
		Obligations: g.Obligations,
	}
}
