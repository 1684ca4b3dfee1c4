package custody

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// States of a joint erasure.
const (
	Waiting   = "waiting" // for the word of every adult
	Begun     = "begun"   // all have given it
	Withdrawn = "withdrawn"
	Expired   = "expired"
)

// JointDays is how long a joint erasure waits; so long counts, too, the word of an
// adult whom another has removed.
const JointDays = 30

const jointBegun = "joint erasure begun"

// maxJoint is how many joint erasures of a household wait at once.
const maxJoint = 16

// Joint is the wish to erase what is a household's. It is carried out when every
// adult has confirmed it with his own credential.
type Joint struct {
	ID      holdfast.JointID
	Party   holdfast.PartyID
	Device  holdfast.DeviceID // zero: the household itself, with all it has
	Stream  string            // "": the whole device
	Span    holdfast.Span
	State   string
	Asked   time.Time
	Until   time.Time
	By      holdfast.PartyID
	Words   []holdfast.PartyID      // of those who have confirmed
	Holders []holdfast.CredentialID // whose credentials they did it with, where that is known
	Missing []holdfast.PartyID      // whose word it waits for
	Erasure holdfast.ErasureID      // that it became
}

type jointInfo struct {
	Device holdfast.DeviceID `json:"device,omitzero"`
	Stream string            `json:"stream,omitempty"`
	From   int64             `json:"from"`
	To     int64             `json:"to"`
	Asked  int64             `json:"asked"`
	By     holdfast.PartyID  `json:"by"`
}

type jointEvent struct {
	Joint   holdfast.JointID      `json:"joint"`
	Party   holdfast.PartyID      `json:"party"`
	By      holdfast.CredentialID `json:"by,omitzero"`
	Erasure holdfast.ErasureID    `json:"erasure,omitzero"`
}

// Adults returns those whose word an erasure of a party's own data needs: the
// adults of a household, also those whom somebody else removed in the last 30 days,
// so that nobody is put out for the sake of it. None: the party decides alone.
func (c *Custody) Adults(ctx context.Context, party holdfast.PartyID) ([]holdfast.PartyID, error) {
	all, err := c.Members(ctx, party)
	if err != nil {
		return nil, err
	}
	now := c.now()
	var adults []holdfast.PartyID
	for _, m := range all {
		removed := m.State == Ended && m.endedBy != m.Member && !m.endedBy.IsZero() && now.Before(m.To.AddDate(0, 0, JointDays)) && m.accepted
		if m.Kind == Adult && (m.In(now) || removed) && !slices.Contains(adults, m.Member) {
			adults = append(adults, m.Member)
		}
	}
	return adults, nil
}

// OneWord refuses to have what is a party's erased on one person's word, where that
// takes the word of others, too.
func (c *Custody) OneWord(ctx context.Context, party, person holdfast.PartyID) error {
	adults, err := c.Adults(ctx, party)
	if err != nil || len(adults) == 0 || len(adults) == 1 && adults[0] == person {
		return err
	}
	return holdfast.Errorf(holdfast.Denied, "readings of a household are erased or given away at the word of every adult: keep them here, and ask for the erasure of the device, which waits for all")
}

// AskJoint writes down the wish to erase a household's data and, if an adult asks,
// his word for it.
func (c *Custody) AskJoint(ctx context.Context, by Actor, j Joint) (Joint, error) {
	open, err := c.joints(ctx, `party = $1 AND state = 'waiting'`, j.Party)
	if err != nil {
		return Joint{}, err
	}
	if len(open) >= maxJoint {
		return Joint{}, holdfast.Errorf(holdfast.Conflict, "%d erasures of this household wait for the word of its adults: confirm or withdraw one first", maxJoint)
	}
	for _, o := range open {
		if o.Device == j.Device && o.Stream == j.Stream && o.Span == j.Span {
			return Joint{}, holdfast.Errorf(holdfast.Conflict, "this erasure waits already for the word of every adult: confirm %s", o.ID)
		}
	}
	now := c.now().UTC()
	j.ID, j.State, j.Asked, j.Until, j.By = holdfast.NewID[holdfast.JointID](), Waiting, now, now.AddDate(0, 0, JointDays), by.Party
	box, err := c.seal(ctx, vault.OfParty(j.Party), "joint_erasure", j.ID[:],
		jointInfo{Device: j.Device, Stream: j.Stream, From: j.Span.From, To: j.Span.To, Asked: now.UnixNano(), By: by.Party})
	if err != nil {
		return Joint{}, err
	}
	adults, err := c.Adults(ctx, j.Party)
	if err != nil {
		return Joint{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := stillLiving(ctx, tx, j.Party); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO joint_erasure (id, party, state, info_sealed) VALUES ($1, $2, $3, $4)`, j.ID, j.Party, Waiting, box); err != nil {
			return err
		}
		if slices.Contains(adults, by.Party) {
			if _, err := tx.ExecContext(ctx, `INSERT INTO joint_word (joint, adult, holder) VALUES ($1, $2, $3)`, j.ID, by.Party, by.Holder); err != nil {
				return err
			}
		}
		return c.recordJoint(ctx, tx, "joint erasure asked", j, adults, by.Credential)
	})
	if err != nil {
		return Joint{}, err
	}
	return c.Joint(ctx, j.ID)
}

func (c *Custody) recordJoint(ctx context.Context, tx *sql.Tx, kind string, j Joint, adults []holdfast.PartyID, by holdfast.CredentialID) error {
	for _, id := range append([]holdfast.PartyID{j.Party}, adults...) {
		_, err := c.ledger.Append(ctx, tx, vault.OfParty(id), kind, jointEvent{Joint: j.ID, Party: j.Party, By: by, Erasure: j.Erasure})
		if err != nil && !(vault.Gone(err) && kind == jointBegun) { // who is being erased has no record any more
			return err
		}
	}
	return nil
}

// ConfirmJoint is an adult's own word for an erasure. When it returns one with none
// missing, the erasure is the caller's to carry out.
func (c *Custody) ConfirmJoint(ctx context.Context, by Actor, id holdfast.JointID) (Joint, error) {
	j, err := c.jointOf(ctx, by, id)
	if err != nil {
		return Joint{}, err
	}
	if !slices.Contains(j.Missing, by.Party) {
		if slices.Contains(j.Words, by.Party) {
			return j, nil // again, as after a lost answer
		}
		return Joint{}, holdfast.Errorf(holdfast.Denied, "only the adults of the household confirm its erasure, each with his own credential")
	}
	if !c.now().Before(j.Until) {
		return Joint{}, holdfast.Errorf(holdfast.Conflict, "joint erasure %s waited its %d days: ask for it again", id, JointDays)
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		waits, err := exists(ctx, tx, `SELECT count(*) FROM joint_erasure WHERE id = $1 AND state = 'waiting'`, id)
		if err != nil || !waits {
			return orElse(err, holdfast.Errorf(holdfast.Conflict, "joint erasure %s waits no more", id))
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO joint_word (joint, adult, holder) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, id, by.Party, by.Holder); err != nil {
			return err
		}
		return c.recordJoint(ctx, tx, "joint erasure confirmed", j, []holdfast.PartyID{by.Party}, by.Credential)
	})
	if err != nil {
		return Joint{}, err
	}
	return c.Joint(ctx, id)
}

// WithdrawJoint ends a joint erasure before it has begun; any of the adults may.
func (c *Custody) WithdrawJoint(ctx context.Context, by Actor, id holdfast.JointID) error {
	j, err := c.jointOf(ctx, by, id)
	if err != nil {
		return err
	}
	return c.endJoint(ctx, j, Withdrawn, "joint erasure withdrawn", by.Credential)
}

// jointOf returns a waiting erasure to those whom it concerns; to others there is
// none.
func (c *Custody) jointOf(ctx context.Context, by Actor, id holdfast.JointID) (Joint, error) {
	j, err := c.Joint(ctx, id)
	if err != nil {
		return Joint{}, err
	}
	adults, err := c.Adults(ctx, j.Party)
	if err != nil {
		return Joint{}, err
	}
	if by.Party != j.Party && !by.Administrator && !slices.Contains(j.Words, by.Party) && !slices.Contains(adults, by.Party) {
		return Joint{}, noJoint()
	}
	if j.State != Waiting {
		return Joint{}, holdfast.Errorf(holdfast.Conflict, "joint erasure %s is %s", id, j.State)
	}
	return j, nil
}

func (c *Custody) endJoint(ctx context.Context, j Joint, state, kind string, by holdfast.CredentialID) error {
	adults, err := c.Adults(ctx, j.Party)
	if err != nil {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		if err := one(ctx, tx, holdfast.Errorf(holdfast.Conflict, "joint erasure %s waits no more", j.ID),
			`UPDATE joint_erasure SET state = $1, erasure = $2 WHERE id = $3 AND state = 'waiting'`, state, j.Erasure, j.ID); err != nil {
			return err
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.JointChange, ID: ledger.TakenID(j.ID), State: state}); err != nil {
			return err
		}
		return c.recordJoint(ctx, tx, kind, j, adults, by)
	})
}

// BeginJoint notes that an erasure was asked for in every adult's name.
func (c *Custody) BeginJoint(ctx context.Context, id holdfast.JointID, e holdfast.ErasureID) error {
	j, err := c.Joint(ctx, id)
	if err != nil {
		return err
	}
	j.Erasure = e
	return c.endJoint(ctx, j, Begun, jointBegun, holdfast.CredentialID{})
}

func noJoint() error { return holdfast.Errorf(holdfast.NotFound, "there is no such joint erasure") }

// Joint returns one by its id.
func (c *Custody) Joint(ctx context.Context, id holdfast.JointID) (Joint, error) {
	all, err := c.joints(ctx, `id = $1`, id)
	if err != nil {
		return Joint{}, err
	}
	if len(all) == 0 {
		return Joint{}, noJoint()
	}
	return all[0], nil
}

// Joints returns the erasures of a household's data that wait or waited, latest first.
func (c *Custody) Joints(ctx context.Context, party holdfast.PartyID) ([]Joint, error) {
	return c.joints(ctx, `party = $1`, party)
}

// ReadyJoints returns those that wait for nobody's word any more, and ends those
// whose time is over.
func (c *Custody) ReadyJoints(ctx context.Context) ([]Joint, error) {
	all, err := c.joints(ctx, `state = 'waiting'`)
	if err != nil {
		return nil, err
	}
	var ready []Joint
	for _, j := range all {
		switch {
		case !c.now().Before(j.Until):
			if err := c.endJoint(ctx, j, Expired, "joint erasure expired", holdfast.CredentialID{}); err != nil && holdfast.KindOf(err) != holdfast.Conflict {
				return nil, err
			}
		case len(j.Missing) == 0 && len(j.Words) > 0:
			ready = append(ready, j)
		}
	}
	return ready, nil
}

func (c *Custody) joints(ctx context.Context, where string, args ...any) ([]Joint, error) {
	type row struct {
		Joint
		box []byte
	}
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.ID, &r.Party, &r.Erasure, &r.State, &r.box)
	}, `SELECT id, party, erasure, state, info_sealed FROM joint_erasure WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	out := make([]Joint, 0, len(rows))
	for _, r := range rows {
		j := r.Joint
		var info jointInfo
		switch err := c.open(ctx, vault.OfParty(j.Party), "joint_erasure", j.ID[:], r.box, &info); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		j.Device, j.Stream, j.Span, j.Asked, j.By = info.Device, info.Stream, holdfast.Span{From: info.From, To: info.To}, holdfast.Instant(info.Asked), info.By
		j.Until = j.Asked.AddDate(0, 0, JointDays)
		if err := c.words(ctx, &j); err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	slices.SortFunc(out, func(a, b Joint) int { return cmp.Or(b.Asked.Compare(a.Asked), bytes.Compare(a.ID[:], b.ID[:])) })
	return out, nil
}

// words fills in who has confirmed and who has not.
func (c *Custody) words(ctx context.Context, j *Joint) error {
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, `SELECT adult, coalesce(holder, zeroblob(16)) FROM joint_word WHERE joint = $1 ORDER BY adult`, j.ID)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var id holdfast.PartyID
			var holder holdfast.CredentialID
			if err := q.Scan(&id, &holder); err != nil {
				return err
			}
			if j.Words = append(j.Words, id); !holder.IsZero() {
				j.Holders = append(j.Holders, holder)
			}
		}
		return q.Err()
	})
	if err != nil || j.State != Waiting {
		return err
	}
	adults, err := c.Adults(ctx, j.Party)
	for _, a := range adults {
		if !slices.Contains(j.Words, a) {
			j.Missing = append(j.Missing, a)
		}
	}
	return err
}
