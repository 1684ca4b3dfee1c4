package grant

import (
	"cmp"
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Caller is who makes or ends a grant.
type Caller struct {
	Credential holdfast.CredentialID
	Party      holdfast.PartyID
	Owner      bool // the credential is an owner's own, not an administrator's or a program's
}

// Spec says what a grant allows.
type Spec struct {
	Recipient   holdfast.PartyID
	Purpose     holdfast.Purpose
	AllDevices  bool                    // now and later; else Devices
	Devices     []holdfast.DeviceID     // that are or were the grantor's
	Assignments []holdfast.AssignmentID // whose data are the grantor's; none: all, now and later
	AllStreams  bool                    // now and later; else Streams
	Streams     []string                // names
	Categories  []string                // of DPV, by IRI or short form: streams of these and of narrower ones only; none: any
	Data        holdfast.Span           // times of the readings; holdfast.Always: all
	Until       time.Time               // required, at most two years ahead
	Supersedes  holdfast.GrantID        // one to the same recipient that ends when this one is made
	policy.Obligations
}

// Grant is an owner's word that a recipient may use streams for a purpose.
type Grant struct {
	ID      holdfast.GrantID
	Grantor holdfast.PartyID
	Spec
	Made  time.Time
	Ended time.Time // zero until it is taken back
}

// Live reports whether g allows anything at the time now.
func (g Grant) Live(now time.Time) bool { return g.policy().Live(now.UnixNano()) }

type grantInfo struct {
	Recipient   holdfast.PartyID        `json:"recipient"` // binds the clear column
	Purpose     holdfast.Purpose        `json:"purpose"`
	AllDevices  bool                    `json:"all_devices,omitempty"`
	Devices     []holdfast.DeviceID     `json:"devices,omitempty"`
	Assignments []holdfast.AssignmentID `json:"assignments,omitempty"`
	AllStreams  bool                    `json:"all_streams,omitempty"`
	Streams     []string                `json:"streams,omitempty"`
	Categories  []string                `json:"categories,omitempty"`
	From        int64                   `json:"from"`
	To          int64                   `json:"to"`
	Until       int64                   `json:"until"`
	Made        int64                   `json:"made"`
	Ended       int64                   `json:"ended,omitempty"`
	By          holdfast.CredentialID   `json:"by"`
	Supersedes  holdfast.GrantID        `json:"supersedes,omitzero"`

	Obligations *policy.Obligations `json:"obligations,omitempty"`
}

// Limits of a grant.
const (
	maxSelected = 1000
	maxGrants   = 1000 // of one owner, that he did not take back
	maxYears    = 2
)

// ownCredential refuses everyone but an owner in person.
func (c Caller) ownCredential() error {
	if !c.Owner || c.Party.IsZero() {
		return holdfast.Errorf(holdfast.Denied, "a grant is made with the owner's own credential")
	}
	return nil
}

// checkSpec refuses what is wrong with a spec, and writes its categories out.
func (r *Register) checkSpec(ctx context.Context, grantor holdfast.PartyID, s *Spec) (err error) {
	now := r.now()
	switch {
	case s.Recipient.IsZero() || s.Recipient == grantor:
		return holdfast.Errorf(holdfast.Invalid, "a grant has a recipient other than its owner")
	case s.Purpose == holdfast.OwnAccess:
		return holdfast.Errorf(holdfast.Invalid, "own-access needs no grant and can't be given away")
	case !r.Live(ctx, s.Purpose):
		return holdfast.Errorf(holdfast.Invalid, "the grant's purpose does not exist or has ended: `holdfast purpose list` shows those that live; an administrator adds one with `holdfast purpose add`")
	case s.AllDevices == (len(s.Devices) > 0):
		return holdfast.Errorf(holdfast.Invalid, "a grant names devices or says all of them")
	case s.AllStreams == (len(s.Streams) > 0):
		return holdfast.Errorf(holdfast.Invalid, "a grant names streams or says all of them")
	case max(len(s.Devices), len(s.Assignments), len(s.Streams)) > maxSelected:
		return holdfast.Errorf(holdfast.TooLarge, "a grant names at most %d devices, assignments and streams each", maxSelected)
	case s.Data.From > s.Data.To:
		return holdfast.Errorf(holdfast.Invalid, "the times that a grant covers end before they begin")
	case s.Until.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "a grant has a last day")
	case !s.Until.After(now):
		return holdfast.Errorf(holdfast.Invalid, "the grant would have ended already")
	case s.Until.After(now.AddDate(maxYears, 0, 0)):
		return holdfast.Errorf(holdfast.Invalid, "a grant lasts at most %d years", maxYears)
	}
	for _, name := range s.Streams {
		if err := holdfast.CheckName("stream", name); err != nil {
			return err
		}
	}
	if s.Categories, err = CategoryIRIs(s.Categories); err != nil {
		return err
	}
	if err := s.Obligations.Check(); err != nil {
		return err
	}
	return r.checkReach(ctx, grantor, s)
}

// Make makes a grant of the caller's own data. It is Denied to everyone but an
// owner in person: an administrator can't make one for him.
func (r *Register) Make(ctx context.Context, by Caller, s Spec) (Grant, error) {
	if err := by.ownCredential(); err != nil {
		return Grant{}, err
	}
	if err := r.checkSpec(ctx, by.Party, &s); err != nil {
		return Grant{}, err
	}
	// Decisions know milliseconds: a grant stands from when it is made.
	g := Grant{ID: holdfast.NewID[holdfast.GrantID](), Grantor: by.Party, Spec: s, Made: r.now().UTC().Truncate(time.Millisecond)}
	g.Until = g.Until.UTC()
	if _, err := policy.Compile(by.Party, []policy.Grant{g.policy()}, nil); err != nil {
		return Grant{}, holdfast.Errorf(holdfast.Invalid, "the grant can't be made a policy: %w", err)
	}
	box, err := r.sealGrant(ctx, g, by)
	if err != nil {
		return Grant{}, err
	}
	end, err := r.superseded(ctx, by, s)
	if err != nil {
		return Grant{}, err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if err := end(tx); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM data_grant WHERE grantor = $1 AND state = 'active'`, g.Grantor).Scan(&have); err != nil {
			return err
		}
		if have >= maxGrants { // a recipient's list would grow without end, too
			return holdfast.Errorf(holdfast.TooLarge, "an owner has at most %d grants: take some back, expired ones too", maxGrants)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO data_grant (id, n, grantor, recipient, state, info_sealed)
			VALUES ($1, (SELECT coalesce(max(n), 0) + 1 FROM data_grant), $2, $3, 'active', $4)`, g.ID, g.Grantor, g.Recipient, box); err != nil {
			return err
		}
		return r.recordGrant(ctx, tx, g, by, "grant made")
	})
	if err != nil {
		return Grant{}, err
	}
	r.changed(g.Grantor)
	return g, nil
}

// superseded returns what ends the grant that a new one takes the place of, in the
// transaction that makes the new one.
func (r *Register) superseded(ctx context.Context, by Caller, s Spec) (func(*sql.Tx) error, error) {
	if s.Supersedes.IsZero() {
		return func(*sql.Tx) error { return nil }, nil
	}
	old, err := r.Grant(ctx, s.Supersedes)
	switch {
	case err != nil && holdfast.KindOf(err) != holdfast.NotFound:
		return nil, err
	case err != nil || old.Grantor != by.Party || old.Recipient != s.Recipient:
		return nil, holdfast.Errorf(holdfast.Invalid, "the grant to supersede is not one of yours to this recipient")
	}
	return r.ending(ctx, by, old)
}

// End takes a grant back: from the next read on it allows nothing.
func (r *Register) End(ctx context.Context, by Caller, id holdfast.GrantID) error {
	if err := by.ownCredential(); err != nil {
		return err
	}
	g, err := r.Grant(ctx, id)
	if err != nil {
		return err
	}
	if g.Grantor != by.Party {
		return holdfast.Errorf(holdfast.NotFound, "there is no such grant") // as to anyone whom it does not concern
	}
	end, err := r.ending(ctx, by, g)
	if err != nil {
		return err
	}
	defer r.changed(g.Grantor)
	return r.db.Write(ctx, end)
}

// ending returns what ends a grant, in a transaction.
func (r *Register) ending(ctx context.Context, by Caller, g Grant) (func(*sql.Tx) error, error) {
	ended := holdfast.Errorf(holdfast.Conflict, "the grant has ended already")
	if !g.Ended.IsZero() {
		return nil, ended
	}
	g.Ended = r.now().UTC()
	box, err := r.sealGrant(ctx, g, by)
	if err != nil {
		return nil, err
	}
	return func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE data_grant SET state = 'ended', info_sealed = $1 WHERE id = $2 AND state = 'active'`, box, g.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, ended)
		}
		if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.GrantEnded, ID: ledger.TakenID(g.ID), Box: box}); err != nil {
			return err
		}
		return r.recordGrant(ctx, tx, g, by, "grant ended")
	}, nil
}

func (r *Register) sealGrant(ctx context.Context, g Grant, by Caller) ([]byte, error) {
	return r.seal(ctx, vault.OfParty(g.Grantor), "data_grant", g.ID[:], g.info(by))
}

func (g Grant) info(by Caller) grantInfo {
	var asks *policy.Obligations
	if !g.Obligations.IsZero() {
		asks = &g.Obligations
	}
	return grantInfo{
		Recipient: g.Recipient, Obligations: asks,
		Purpose: g.Purpose, AllDevices: g.AllDevices, Devices: g.Devices, Assignments: g.Assignments, AllStreams: g.AllStreams, Streams: g.Streams,
		Categories: g.Categories, Supersedes: g.Supersedes,
		From: g.Data.From, To: g.Data.To, Until: g.Until.UnixNano(), Made: g.Made.UnixNano(), Ended: holdfast.Nanoseconds(g.Ended), By: by.Credential,
	}
}

func (r *Register) recordGrant(ctx context.Context, tx *sql.Tx, g Grant, by Caller, kind string) error {
	_, err := r.ledger.Append(ctx, tx, vault.OfParty(g.Grantor), kind, struct {
		Grant     holdfast.GrantID `json:"grant"`
		Recipient holdfast.PartyID `json:"recipient"`
		grantInfo
	}{g.ID, g.Recipient, g.info(by)})
	return err
}
