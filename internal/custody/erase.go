package custody

import (
	"context"
	"database/sql"
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// ScopeOfParty returns the scope that is all of a party: every assignment in
// which it is the owner or the data subject. The operating organisation has none.
func (c *Custody) ScopeOfParty(ctx context.Context, id holdfast.PartyID) (holdfast.Scope, error) {
	p, err := c.Party(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	switch p.State {
	case Operating:
		return holdfast.Scope{}, holdfast.Errorf(holdfast.Denied, "the operating organisation can't be erased: erase its devices")
	case Erased:
		return holdfast.Scope{}, holdfast.Errorf(holdfast.NotFound, "there is no such party")
	}
	all, err := c.Assignments(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	s := holdfast.Scope{Party: id, Span: holdfast.Always, Whole: true, Before: c.now().UnixNano()}
	for _, a := range all {
		if a.State != Erased {
			s.Assignments = append(s.Assignments, a.ID)
		}
	}
	return s, nil
}

// ScopeOfDevice returns the scope that is a device: all its assignments.
func (c *Custody) ScopeOfDevice(ctx context.Context, id holdfast.DeviceID) (holdfast.Scope, error) {
	d, err := c.Device(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	if d.State == Erased {
		return holdfast.Scope{}, holdfast.Errorf(holdfast.NotFound, "there is no such device")
	}
	return holdfast.Scope{
		Party: d.Owner, Assignments: []holdfast.AssignmentID{d.Assignment}, Span: holdfast.Always, Before: c.now().UnixNano(),
	}, nil
}

// ScopeOfStream returns the scope that is one stream of a device. Narrow its Span
// to erase a part.
func (c *Custody) ScopeOfStream(ctx context.Context, id holdfast.DeviceID, name string) (holdfast.Scope, error) {
	s, err := c.ScopeOfDevice(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	stream, err := c.StreamByName(ctx, id, name)
	if err != nil {
		return holdfast.Scope{}, err
	}
	s.Streams = []holdfast.StreamID{stream.ID}
	return s, nil
}

// Leave closes a party whose erasure is accepted, in the transaction that accepts
// it: from then on it gets no device. It is a Conflict if the party got one since s
// was made, which s would miss; make the scope again then. For a scope that is not
// a whole party it does nothing.
func (c *Custody) Leave(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error {
	if !s.Whole {
		return nil
	}
	if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "party %s can't be erased: it runs this hub, or is erased already", s.Party),
		`UPDATE party SET state = $1 WHERE id = $2 AND state IN ('active', 'leaving')`, Leaving, s.Party); err != nil {
		return err
	}
	q, err := tx.QueryContext(ctx, `SELECT id FROM assignment WHERE (owner = $1 OR subject = $1) AND state <> 'erased'`, s.Party)
	if err != nil {
		return err
	}
	defer q.Close()
	covered := assignmentSet(s.Assignments)
	for q.Next() {
		var id holdfast.AssignmentID
		if err := q.Scan(&id); err != nil {
			return err
		}
		if !covered[id] {
			return holdfast.Errorf(holdfast.Conflict, "party %s got assignment %s since this erasure was asked for: ask again", s.Party, id)
		}
	}
	return q.Err()
}

func assignmentSet(ids []holdfast.AssignmentID) map[holdfast.AssignmentID]bool {
	set := make(map[holdfast.AssignmentID]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// Erase takes what s covers out of the catalog; it may run again. Of an erased
// assignment, its device and its party there remain their ids and the word
// erased. Of an erased stream of a living assignment there remain its id and the
// hash of its name, so that readings sent again meet the bar that names the id. A
// span of a stream leaves custody as it is. A gateway's children that are
// another's stay the other's, without a gateway.
func (c *Custody) Erase(ctx context.Context, s holdfast.Scope) error {
	operating, err := c.Operating(ctx)
	if err != nil && !gone(err) {
		return err
	}
	if s.Whole && s.Party == operating {
		return holdfast.Errorf(holdfast.Denied, "the operating organisation can't be erased")
	}
	if s.Partial() {
		return nil
	}
	for batch := range slices.Chunk(s.Assignments, 500) { // others write in between
		err := c.db.Write(ctx, func(tx *sql.Tx) error {
			for _, a := range batch {
				erase := eraseAssignment
				if len(s.Streams) > 0 {
					erase = streamEraser(s.Streams)
				}
				if err := erase(ctx, tx, a); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		erased := assignmentSet(batch)
		c.forget(func(r *Route) bool { // children too: their gateway may be among the erased
			return erased[r.Assignment] || !r.Gateway.IsZero()
		})
	}
	if !s.Whole {
		return nil
	}
	return c.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE party SET state = $1, name_hash = NULL, info_sealed = NULL WHERE id = $2`, Erased, s.Party)
		return err
	})
}

func eraseAssignment(ctx context.Context, tx *sql.Tx, a holdfast.AssignmentID) error {
	for _, query := range []string{
		`DELETE FROM claim_code WHERE device IN (SELECT id FROM device WHERE assignment = $1)`,
		`UPDATE device SET gateway = NULL, child_hash = NULL WHERE gateway IN (SELECT id FROM device WHERE assignment = $1)`,
		`DELETE FROM stream WHERE assignment = $1`,
		`UPDATE device SET state = 'erased', owner = NULL, unit = NULL, gateway = NULL, label_hash = NULL, child_hash = NULL, info_sealed = NULL WHERE assignment = $1`,
		`UPDATE assignment SET state = 'erased', device = NULL, owner = NULL, subject = NULL, info_sealed = NULL WHERE id = $1`,
	} {
		if _, err := tx.ExecContext(ctx, query, a); err != nil {
			return err
		}
	}
	return nil
}

func streamEraser(streams []holdfast.StreamID) func(context.Context, *sql.Tx, holdfast.AssignmentID) error {
	return func(ctx context.Context, tx *sql.Tx, a holdfast.AssignmentID) error {
		for _, id := range streams {
			if _, err := tx.ExecContext(ctx, `UPDATE stream SET state = 'erased', info_sealed = NULL WHERE id = $1 AND assignment = $2`, id, a); err != nil {
				return err
			}
		}
		return nil
	}
}
