package custody

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/vault"
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

// ScopeOfDevice returns the scope that is a device: those of its assignments whose
// data are its owner's, or its data subject's. Periods that are another's are not in it.
func (c *Custody) ScopeOfDevice(ctx context.Context, id holdfast.DeviceID) (holdfast.Scope, error) {
	d, err := c.Device(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	if d.State == Erased {
		return holdfast.Scope{}, holdfast.Errorf(holdfast.NotFound, "there is no such device")
	}
	whose := Assignment{Owner: d.Owner, Subject: d.Subject}.Whose()
	s, err := c.ScopeOfSlice(ctx, id, whose)
	if err == nil && whose.IsZero() {
		s.Assignments = []holdfast.AssignmentID{d.Assignment}
	}
	s.Party = d.Owner
	return s, err
}

// ScopeOfSlice returns the scope that is what a party has of a device: the
// assignments whose data are his. There may be none.
func (c *Custody) ScopeOfSlice(ctx context.Context, id holdfast.DeviceID, party holdfast.PartyID) (holdfast.Scope, error) {
	all, err := c.Holders(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	s := holdfast.Scope{Party: party, Span: holdfast.Always, Before: c.now().UnixNano()}
	for _, a := range all {
		if !party.IsZero() && a.Whose() == party {
			s.Assignments = append(s.Assignments, a.ID)
		}
	}
	return s, nil
}

// ScopeOfAssignment returns the scope that is one assignment.
func (c *Custody) ScopeOfAssignment(a Assignment) holdfast.Scope {
	return holdfast.Scope{Party: a.Whose(), Assignments: []holdfast.AssignmentID{a.ID}, Span: holdfast.Always, Before: c.now().UnixNano()}
}

// ScopeOfStream is ScopeOfDevice for the streams of one name. Narrow its Span to
// erase a part.
func (c *Custody) ScopeOfStream(ctx context.Context, id holdfast.DeviceID, name string) (holdfast.Scope, error) {
	s, err := c.ScopeOfDevice(ctx, id)
	if err != nil {
		return holdfast.Scope{}, err
	}
	return c.OfStream(ctx, s, name)
}

// OfStream narrows a scope to the streams of one name. It is NotFound if there are
// none.
func (c *Custody) OfStream(ctx context.Context, s holdfast.Scope, name string) (holdfast.Scope, error) {
	var in []holdfast.AssignmentID
	for _, a := range s.Assignments {
		stream, err := c.StreamNamed(ctx, a, name)
		if vault.Gone(err) {
			continue
		}
		if err != nil {
			return s, err
		}
		in = append(in, a)
		s.Streams = append(s.Streams, stream.ID)
	}
	if s.Assignments = in; len(in) == 0 {
		return s, holdfast.Errorf(holdfast.NotFound, "there is no such stream")
	}
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

// Stay takes Leave back, in the transaction that takes the erasure back.
func (c *Custody) Stay(ctx context.Context, tx *sql.Tx, party holdfast.PartyID) error {
	_, err := tx.ExecContext(ctx, `UPDATE party SET state = $1 WHERE id = $2 AND state = $3`, Active, party, Leaving)
	return err
}

// About narrows a scope to the assignments whose data are a party's. It is NotFound if
// there are none.
func (c *Custody) About(ctx context.Context, s holdfast.Scope, whose holdfast.PartyID) (holdfast.Scope, error) {
	all, err := c.Holdings(ctx, whose)
	if err != nil {
		return s, err
	}
	var mine []holdfast.AssignmentID
	for _, a := range all {
		if a.Whose() == whose {
			mine = append(mine, a.ID)
		}
	}
	in := assignmentSet(mine)
	s.Assignments = slices.DeleteFunc(slices.Clone(s.Assignments), func(id holdfast.AssignmentID) bool { return !in[id] })
	if s.Whole = false; len(s.Assignments) == 0 {
		return s, holdfast.Errorf(holdfast.NotFound, "no readings are about this party")
	}
	return s, nil
}

// OfCategory narrows a scope to the streams of a category, or of a narrower one, in
// those of its assignments whose data are whose; a zero whose means any. It is
// NotFound if there are none.
func (c *Custody) OfCategory(ctx context.Context, s holdfast.Scope, whose holdfast.PartyID, category string) (holdfast.Scope, error) {
	iri, err := categoryIRI(category)
	if err != nil {
		return s, err
	}
	wanted, _ := dpv.Lookup(iri)
	var in []holdfast.AssignmentID
	for _, id := range s.Assignments {
		a, err := c.Assignment(ctx, id)
		if err != nil {
			return s, err
		}
		if a.State == Erased || !whose.IsZero() && a.Whose() != whose {
			continue
		}
		all, err := c.StreamsOfAssignment(ctx, a)
		if err != nil {
			return s, err
		}
		before := len(s.Streams)
		for _, x := range all {
			if of, ok := dpv.Lookup(x.Category); x.Category == iri || ok && of.Within(wanted) {
				s.Streams = append(s.Streams, x.ID)
			}
		}
		if len(s.Streams) > before {
			in = append(in, id)
		}
	}
	s.Whole = false
	if s.Assignments = in; len(in) == 0 {
		return s, holdfast.Errorf(holdfast.NotFound, "no stream of the category %s is in this scope", dpv.Short(iri))
	}
	return s, nil
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
//
// Of an erased period there remains, under the device's own assignment, the time for
// which it held: readings of it that come late are nobody's, and don't become those of
// the device's owner. With a device's own assignment its periods end; they stay whose
// they are.
func (c *Custody) Erase(ctx context.Context, s holdfast.Scope) error {
	operating, err := c.Operating(ctx)
	if err != nil && !vault.Gone(err) {
		return err
	}
	if s.Whole && s.Party == operating {
		return holdfast.Errorf(holdfast.Denied, "the operating organisation can't be erased")
	}
	if s.Partial() || s.Month != 0 {
		return nil
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	for batch := range slices.Chunk(s.Assignments, 500) { // others write in between
		var periods func(*sql.Tx) error
		if len(s.Streams) == 0 {
			if periods, err = c.erasePeriods(ctx, s, batch); err != nil {
				return err
			}
		}
		err := c.write(ctx, func(tx *sql.Tx) error {
			if periods != nil {
				if err := periods(tx); err != nil {
					return err
				}
			}
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
			return erased[r.Assignment] || !r.Gateway.IsZero() || slices.ContainsFunc(r.holders, func(a Assignment) bool { return erased[a.ID] })
		})
	}
	if !s.Whole {
		return nil
	}
	defer c.forgetActing()
	return c.write(ctx, func(tx *sql.Tx) error {
		for _, query := range []string{
			`DELETE FROM membership WHERE of = $1 OR member = $1 OR ward = $1`,
			`DELETE FROM joint_word WHERE adult = $1 OR joint IN (SELECT id FROM joint_erasure WHERE party = $1)`,
			`DELETE FROM joint_erasure WHERE party = $1`,
			`DELETE FROM transfer WHERE seller = $1`,
			`UPDATE transfer SET state = 'declined', buyer = NULL WHERE buyer = $1 AND state = 'offered'`,
			`UPDATE transfer SET buyer = NULL WHERE buyer = $1`,
			`DELETE FROM release_notice WHERE owner = $1`,
			`UPDATE party SET state = 'erased', name_hash = NULL, info_sealed = NULL WHERE id = $1`,
		} {
			if _, err := tx.ExecContext(ctx, query, s.Party); err != nil {
				return err
			}
		}
		return nil
	})
}

func eraseAssignment(ctx context.Context, tx *sql.Tx, a holdfast.AssignmentID) error {
	for _, query := range []string{
		`DELETE FROM claim_code WHERE device IN (SELECT id FROM device WHERE assignment = $1)`,
		`UPDATE device SET gateway = NULL, child_hash = NULL WHERE gateway IN (SELECT id FROM device WHERE assignment = $1)`,
		`DELETE FROM period WHERE device IN (SELECT id FROM device WHERE assignment = $1)`,
		`DELETE FROM assignment_version WHERE assignment = $1`,
		`DELETE FROM stream WHERE assignment = $1`,
		`UPDATE transfer SET state = 'withdrawn' WHERE state = 'offered' AND device IN (SELECT id FROM device WHERE assignment = $1)`,
		`UPDATE release_notice SET state = 'withdrawn' WHERE state = 'open' AND device IN (SELECT id FROM device WHERE assignment = $1)`,
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

// erasePeriods seals what erasing assignments does to periods, and returns what
// writes it: an erased one leaves the time that it held for, those of an erased
// device end. It needs the keys of neither if they are destroyed.
func (c *Custody) erasePeriods(ctx context.Context, s holdfast.Scope, batch []holdfast.AssignmentID) (func(*sql.Tx) error, error) {
	touched, err := c.withPeriods(ctx, batch)
	if err != nil {
		return nil, err
	}
	var writes []func(*sql.Tx) error
	for a, d := range touched {
		var write func(*sql.Tx) error
		if d.Assignment == a {
			write, err = c.orphanPeriods(ctx, s, d)
		} else {
			write, err = c.vacatePeriod(ctx, s, a, d)
		}
		if err != nil {
			return nil, err
		}
		writes = append(writes, write)
	}
	return func(tx *sql.Tx) error {
		for _, write := range writes {
			if err := write(tx); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// withPeriods picks the assignments that are periods, or of a device that has some,
// with their devices. It opens nothing.
func (c *Custody) withPeriods(ctx context.Context, all []holdfast.AssignmentID) (map[holdfast.AssignmentID]Device, error) {
	touched := make(map[holdfast.AssignmentID]Device)
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.PrepareContext(ctx, `SELECT d.id, d.assignment, d.state FROM period p JOIN device d ON d.id = p.device
			WHERE p.assignment = $1 OR p.device IN (SELECT id FROM device WHERE assignment = $1) LIMIT 1`)
		if err != nil {
			return err
		}
		defer q.Close()
		for _, a := range all {
			var d Device
			switch err := q.QueryRowContext(ctx, a).Scan(&d.ID, &d.Assignment, &d.State); {
			case errors.Is(err, sql.ErrNoRows):
			case err != nil:
				return err
			default:
				touched[a] = d
			}
		}
		return nil
	})
	return touched, err
}

// orphanPeriods ends the periods of a device that is erased.
func (c *Custody) orphanPeriods(ctx context.Context, s holdfast.Scope, d Device) (func(*sql.Tx) error, error) {
	gone := assignmentSet(s.Assignments)
	all, err := c.AssignmentsOf(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	d.State = Erased // its key is not to be used
	all = slices.DeleteFunc(all, func(a Assignment) bool { return gone[a.ID] })
	return c.endPeriods(ctx, holdfast.CredentialID{}, d, all, holdfast.Instant(s.Before))
}

// vacatePeriod leaves of a period the time that it held for, up to now.
func (c *Custody) vacatePeriod(ctx context.Context, s holdfast.Scope, a holdfast.AssignmentID, d Device) (func(*sql.Tx) error, error) {
	drop := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM period WHERE assignment = $1`, a)
		return err
	}
	marks, err := c.marks(ctx, d)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(marks, func(m mark) bool { return m.assignment == a })
	if at < 0 { // the device goes too
		return drop, nil
	}
	m := marks[at]
	if m.to = min(m.to, s.Before); m.to <= m.from {
		return drop, nil
	}
	box, err := c.sealPeriod(ctx, d.Assignment, m.row, Assignment{From: holdfast.Instant(m.from), To: holdfast.Instant(m.to), Schedule: m.schedule})
	if vault.Gone(err) {
		return drop, nil
	}
	if err != nil {
		return nil, err
	}
	return func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE period SET assignment = NULL, info_sealed = $1 WHERE id = $2`, box, m.row[:])
		return err
	}, nil
}
