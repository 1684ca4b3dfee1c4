package grant

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
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
	Recipient  holdfast.PartyID
	Purpose    holdfast.Purpose
	AllDevices bool                // now and later; else Devices
	Devices    []holdfast.DeviceID // of the grantor; another's would allow nothing
	AllStreams bool                // now and later; else Streams
	Streams    []string            // names
	Data       holdfast.Span       // times of the readings; holdfast.Always: all
	Until      time.Time           // required, at most two years ahead
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
	Recipient  holdfast.PartyID      `json:"recipient"` // binds the clear column
	Purpose    holdfast.Purpose      `json:"purpose"`
	AllDevices bool                  `json:"all_devices,omitempty"`
	Devices    []holdfast.DeviceID   `json:"devices,omitempty"`
	AllStreams bool                  `json:"all_streams,omitempty"`
	Streams    []string              `json:"streams,omitempty"`
	From       int64                 `json:"from"`
	To         int64                 `json:"to"`
	Until      int64                 `json:"until"`
	Made       int64                 `json:"made"`
	Ended      int64                 `json:"ended,omitempty"`
	By         holdfast.CredentialID `json:"by"`

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

func (r *Register) checkSpec(ctx context.Context, grantor holdfast.PartyID, s Spec) error {
	now := r.now()
	switch {
	case s.Recipient.IsZero() || s.Recipient == grantor:
		return holdfast.Errorf(holdfast.Invalid, "a grant has a recipient other than its owner")
	case s.Purpose == holdfast.OwnAccess:
		return holdfast.Errorf(holdfast.Invalid, "own-access needs no grant and can't be given away")
	case !r.Live(ctx, s.Purpose):
		return holdfast.Errorf(holdfast.Invalid, "the grant's purpose does not exist or has ended")
	case s.AllDevices == (len(s.Devices) > 0):
		return holdfast.Errorf(holdfast.Invalid, "a grant names devices or says all of them")
	case s.AllStreams == (len(s.Streams) > 0):
		return holdfast.Errorf(holdfast.Invalid, "a grant names streams or says all of them")
	case len(s.Devices) > maxSelected || len(s.Streams) > maxSelected:
		return holdfast.Errorf(holdfast.TooLarge, "a grant names at most %d devices and %d streams", maxSelected, maxSelected)
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
	return s.Obligations.Check()
}

// Make makes a grant of the caller's own data. It is Denied to everyone but an
// owner in person: an administrator can't make one for him.
func (r *Register) Make(ctx context.Context, by Caller, s Spec) (Grant, error) {
	if err := by.ownCredential(); err != nil {
		return Grant{}, err
	}
	if err := r.checkSpec(ctx, by.Party, s); err != nil {
		return Grant{}, err
	}
	g := Grant{ID: holdfast.NewID[holdfast.GrantID](), Grantor: by.Party, Spec: s, Made: r.now().UTC()}
	g.Until = g.Until.UTC()
	box, err := r.sealGrant(ctx, g, by)
	if err != nil {
		return Grant{}, err
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM data_grant WHERE grantor = $1 AND state = 'active'`, g.Grantor).Scan(&have); err != nil {
			return err
		}
		if have >= maxGrants { // a recipient's list would grow without end, too
			return holdfast.Errorf(holdfast.TooLarge, "an owner has at most %d grants: take some back, expired ones too", maxGrants)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO data_grant (id, grantor, recipient, state, info_sealed) VALUES ($1, $2, $3, 'active', $4)`,
			g.ID, g.Grantor, g.Recipient, box); err != nil {
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
	ended := holdfast.Errorf(holdfast.Conflict, "the grant has ended already")
	if !g.Ended.IsZero() {
		return ended
	}
	g.Ended = r.now().UTC()
	box, err := r.sealGrant(ctx, g, by)
	if err != nil {
		return err
	}
	defer r.changed(g.Grantor)
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE data_grant SET state = 'ended', info_sealed = $1 WHERE id = $2 AND state = 'active'`, box, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, ended)
		}
		return r.recordGrant(ctx, tx, g, by, "grant ended")
	})
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
		Purpose: g.Purpose, AllDevices: g.AllDevices, Devices: g.Devices, AllStreams: g.AllStreams, Streams: g.Streams,
		From: g.Data.From, To: g.Data.To, Until: g.Until.UnixNano(), Made: g.Made.UnixNano(), Ended: nanoseconds(g.Ended), By: by.Credential,
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

type grantRow struct {
	id                 holdfast.GrantID
	grantor, recipient holdfast.PartyID
	state              string
	box                []byte
}

func (r *Register) grants(ctx context.Context, where string, args ...any) ([]Grant, error) {
	var rows []grantRow
	err := r.db.Read(ctx, func(tx *sql.Tx) error {
		q, err := tx.QueryContext(ctx, `SELECT id, grantor, recipient, state, info_sealed FROM data_grant WHERE `+where, args...)
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
		return nil, err
	}
	all := make([]Grant, 0, len(rows))
	for _, w := range rows {
		var i grantInfo
		switch err := r.open(ctx, vault.OfParty(w.grantor), "data_grant", w.id[:], w.box, &i); {
		case gone(err):
			continue // the grantor's key is destroyed: nothing he granted stands
		case err != nil:
			return nil, err
		}
		if i.Recipient != w.recipient && !w.recipient.IsZero() { // zero: erased since
			return nil, holdfast.Errorf(holdfast.Internal, "the row of grant %s was altered: it names another recipient than its owner did", w.id)
		}
		g := Grant{
			ID: w.id, Grantor: w.grantor, Made: instant(i.Made), Ended: instant(i.Ended),
			Spec: Spec{
				Recipient: w.recipient, Purpose: i.Purpose, AllDevices: i.AllDevices, Devices: i.Devices, AllStreams: i.AllStreams, Streams: i.Streams,
				Data: holdfast.Span{From: i.From, To: i.To}, Until: instant(i.Until),
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
	slices.SortFunc(all, func(a, b Grant) int { return b.Made.Compare(a.Made) })
	return all, nil
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
		AllDevices: g.AllDevices, Devices: g.Devices, AllStreams: g.AllStreams, Streams: g.Streams,
		Data: g.Data, Made: g.Made.UnixNano(), Until: g.Until.UnixNano(), Ended: !g.Ended.IsZero(),
		Obligations: g.Obligations,
	}
}
