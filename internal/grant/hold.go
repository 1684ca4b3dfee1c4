package grant

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// HoldKind says what a hold does.
type HoldKind string

// The kinds of hold.
const (
	// Restriction (GDPR Art. 18): nobody reads but the owner himself, nothing is
	// deleted by age, and an administrator can't erase it. Collection goes on, sealed.
	Restriction HoldKind = "restriction"
	// Objection (Art. 21): nothing is read for one purpose.
	Objection HoldKind = "objection"
	// CollectionStop: new readings are not taken.
	CollectionStop HoldKind = "collection"
	// Claim and Law are legal holds, for a claim at law (Art. 17(3)(e)) and for a duty
	// that the law lays on the hub: nothing is deleted or erased, by anybody.
	Claim HoldKind = "claim"
	Law   HoldKind = "law"
)

// HoldKinds returns the kinds of hold.
func HoldKinds() []HoldKind {
	return []HoldKind{Restriction, Objection, CollectionStop, Claim, Law}
}

func (k HoldKind) legal() bool { return k == Claim || k == Law }

// HoldSpec says what a hold is on.
type HoldSpec struct {
	Kind        HoldKind
	Whose       holdfast.PartyID        // whose data: the data subject of an assignment if it has one, else its owner
	Purpose     holdfast.Purpose        // of an objection
	Assignments []holdfast.AssignmentID // none: all of his, now and later
	Streams     []string                // names; none: all, now and later
	Reason      string                  // required of a legal hold
	Secret      bool                    // the law forbids telling the owner; of kind Law alone
}

// Hold is one hold.
type Hold struct {
	ID holdfast.HoldID
	HoldSpec
	OwnWord bool // set with the owner's own credential, not by the hub
	Set     time.Time
	// Lifts is when a hold that the hub has set ends, once its owner was told; zero
	// until then.
	Lifts time.Time
	Ended time.Time // zero while it stands
}

type holdInfo struct {
	Kind        HoldKind                `json:"kind"`
	Purpose     holdfast.Purpose        `json:"purpose,omitempty"`
	Assignments []holdfast.AssignmentID `json:"assignments,omitempty"`
	Streams     []string                `json:"streams,omitempty"`
	Reason      string                  `json:"reason,omitempty"`
	Secret      bool                    `json:"secret,omitempty"`
	OwnWord     bool                    `json:"own_word,omitempty"`
	Set         int64                   `json:"set"`
	Lifts       int64                   `json:"lifts,omitempty"`
	Ended       int64                   `json:"ended,omitempty"`
	By          holdfast.CredentialID   `json:"by"` // who did the last of these
}

// Limits of holds.
const (
	maxHolds  = 1000 // on one owner's data, that stand: of his own word, and beside them of the hub's
	maxReason = 4096
	// liftNotice is how long an owner knows that a restriction or objection which the
	// hub has set for him is about to end (Art. 18(3)).
	liftNotice = 24 * time.Hour
)

// HoldBy is who sets or ends a hold: an owner by his own credential for his own
// data, or an administrator.
type HoldBy struct {
	Caller
	Administrator bool
}

func (by HoldBy) owns(whose holdfast.PartyID) bool {
	return by.Owner && !by.Party.IsZero() && by.Party == whose
}

func (r *Register) checkHold(ctx context.Context, by HoldBy, s HoldSpec) error {
	switch {
	case !slices.Contains(HoldKinds(), s.Kind):
		return holdfast.Errorf(holdfast.Invalid, "a hold is one of %q", HoldKinds())
	case s.Whose.IsZero():
		return holdfast.Errorf(holdfast.Invalid, "a hold is on the data of a party")
	case s.Kind.legal() && !by.Administrator:
		return holdfast.Errorf(holdfast.Denied, "a hold for a claim or by law is set by an administrator")
	case !by.Administrator && !by.owns(s.Whose):
		return holdfast.Errorf(holdfast.Denied, "a hold is set with the owner's own credential, or by an administrator")
	case s.Kind.legal() && s.Reason == "":
		return holdfast.Errorf(holdfast.Invalid, "a hold for a claim or by law says its reason")
	case len(s.Reason) > maxReason:
		return holdfast.Errorf(holdfast.TooLarge, "a reason has at most %d bytes", maxReason)
	case s.Secret && s.Kind != Law:
		return holdfast.Errorf(holdfast.Invalid, "only a hold by law can be kept from the owner")
	case (s.Kind == Objection) != (s.Purpose != ""):
		return holdfast.Errorf(holdfast.Invalid, "an objection names the purpose that it is against, and no other hold names one")
	case s.Purpose == holdfast.OwnAccess:
		return holdfast.Errorf(holdfast.Invalid, "own-access is the owner's own: there is nothing to object to")
	case len(s.Assignments) > maxSelected || len(s.Streams) > maxSelected:
		return holdfast.Errorf(holdfast.TooLarge, "a hold names at most %d assignments and %d streams", maxSelected, maxSelected)
	}
	if s.Purpose != "" && !r.Live(ctx, s.Purpose) {
		return holdfast.Errorf(holdfast.Invalid, "the purpose does not exist or has ended: `holdfast me purposes` shows yours")
	}
	for _, name := range s.Streams {
		if err := holdfast.CheckName("stream", name); err != nil {
			return err
		}
	}
	return nil
}

// AddHold sets a hold; it is in force when AddHold returns. That the assignments
// are the party's is for the caller to check: another's are not touched by it.
func (r *Register) AddHold(ctx context.Context, by HoldBy, s HoldSpec) (Hold, error) {
	if err := r.checkHold(ctx, by, s); err != nil {
		return Hold{}, err
	}
	h := Hold{ID: holdfast.NewID[holdfast.HoldID](), HoldSpec: s, OwnWord: by.owns(s.Whose), Set: r.now().UTC()}
	h.Assignments, h.Streams = slices.Clone(s.Assignments), slices.Clone(s.Streams)
	box, err := r.sealHold(ctx, h, by)
	if err != nil {
		return Hold{}, err
	}
	r.holding.Lock()
	defer r.holding.Unlock()
	// Counted apart: an owner can't keep the law out with holds of his own, nor find
	// out that there is one which he is not told of.
	have := 0
	for _, o := range (*r.holds.Load())[h.Whose] {
		if o.OwnWord == h.OwnWord {
			have++
		}
	}
	if have >= maxHolds {
		return Hold{}, holdfast.Errorf(holdfast.TooLarge, "an owner's data are under at most %d holds: end some", maxHolds)
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO hold (id, party, state, info_sealed) VALUES ($1, $2, 'active', $3)`, h.ID, h.Whose, box); err != nil {
			return err
		}
		if err := takeHold(ctx, tx, h, "active", box); err != nil {
			return err
		}
		return r.recordHold(ctx, tx, h, by, "hold set")
	})
	if err != nil {
		return Hold{}, err
	}
	r.keepHold(h)
	return h, nil
}

// EndHold ends a hold. What the owner has set ends by his own word alone, and a
// legal hold by an administrator's. A restriction or objection that the hub has
// set for the owner ends at once by his word; by an administrator's it goes on
// for a day, in which the owner sees that it is about to end.
func (r *Register) EndHold(ctx context.Context, by HoldBy, id holdfast.HoldID) (Hold, error) {
	r.holding.Lock()
	defer r.holding.Unlock()
	h, err := r.Hold(ctx, id)
	if err != nil {
		return Hold{}, err
	}
	own := by.owns(h.Whose)
	switch {
	case !own && !by.Administrator, own && h.Secret && !by.Administrator:
		return Hold{}, noHold()
	case !h.Ended.IsZero():
		return Hold{}, holdfast.Errorf(holdfast.Conflict, "the hold has ended already")
	case h.Kind.legal() && !by.Administrator:
		return Hold{}, holdfast.Errorf(holdfast.Denied, "a hold for a claim or by law is ended by an administrator")
	case h.OwnWord && !own:
		return Hold{}, holdfast.Errorf(holdfast.Denied, "the owner has set this hold: only his own credential ends it")
	case !own && (h.Kind == Restriction || h.Kind == Objection):
		if !h.Lifts.IsZero() {
			return Hold{}, holdfast.Errorf(holdfast.Conflict, "the owner was told: the hold ends by itself on %s", h.Lifts.Format(time.RFC3339))
		}
		h.Lifts = r.now().Add(liftNotice).UTC()
		return h, r.changeHold(ctx, h, by, "hold to be lifted")
	}
	h.Ended = r.now().UTC()
	return h, r.changeHold(ctx, h, by, "hold ended")
}

func noHold() error { return holdfast.Errorf(holdfast.NotFound, "there is no such hold") }

// changeHold writes down what has become of a hold. The caller has r.holding.
func (r *Register) changeHold(ctx context.Context, h Hold, by HoldBy, kind string) error {
	box, err := r.sealHold(ctx, h, by)
	if err != nil {
		return err
	}
	state := "active"
	if !h.Ended.IsZero() {
		state = "ended"
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE hold SET state = $1, info_sealed = $2 WHERE id = $3 AND state = 'active'`, state, box, h.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, holdfast.Errorf(holdfast.Conflict, "the hold has ended already"))
		}
		if err := takeHold(ctx, tx, h, state, box); err != nil {
			return err
		}
		return r.recordHold(ctx, tx, h, by, kind)
	})
	if err == nil {
		r.keepHold(h)
	}
	return err
}

// lift ends the holds whose notice is over.
func (r *Register) lift(ctx context.Context) error {
	now := r.now()
	for _, all := range *r.holds.Load() {
		for _, h := range all {
			if h.Lifts.IsZero() || h.Lifts.After(now) {
				continue
			}
			if err := r.liftOne(ctx, h.ID); err != nil && holdfast.KindOf(err) != holdfast.NotFound {
				return err
			}
		}
	}
	return nil
}

func (r *Register) liftOne(ctx context.Context, id holdfast.HoldID) error {
	r.holding.Lock()
	defer r.holding.Unlock()
	h, err := r.Hold(ctx, id) // with its reason, which memory does not have
	if err != nil || !h.Ended.IsZero() {
		return err
	}
	h.Ended = r.now().UTC()
	return r.changeHold(ctx, h, HoldBy{}, "hold ended")
}

func (r *Register) sealHold(ctx context.Context, h Hold, by HoldBy) ([]byte, error) {
	return r.seal(ctx, vault.OfParty(h.Whose), "hold", h.ID[:], h.info(by))
}

func (h Hold) info(by HoldBy) holdInfo {
	return holdInfo{Kind: h.Kind, Purpose: h.Purpose, Assignments: h.Assignments, Streams: h.Streams, Reason: h.Reason, Secret: h.Secret,
		OwnWord: h.OwnWord, Set: holdfast.Nanoseconds(h.Set), Lifts: holdfast.Nanoseconds(h.Lifts), Ended: holdfast.Nanoseconds(h.Ended), By: by.Credential}
}

// recordHold puts an event on the owner's record; what the law keeps from him
// stands on the hub's.
func (r *Register) recordHold(ctx context.Context, tx *sql.Tx, h Hold, by HoldBy, kind string) error {
	on := vault.OfParty(h.Whose)
	if h.Secret {
		on = vault.Hub
	}
	_, err := r.ledger.Append(ctx, tx, on, kind, struct {
		Hold  holdfast.HoldID  `json:"hold"`
		Whose holdfast.PartyID `json:"whose"`
		holdInfo
	}{h.ID, h.Whose, h.info(by)})
	return err
}

type holdRow struct {
	id    holdfast.HoldID
	party holdfast.PartyID
	box   []byte
}

func (r *Register) readHolds(ctx context.Context, where string, args ...any) ([]Hold, error) {
	rows, err := catalog.Rows(ctx, r.db, func(q *sql.Rows) (w holdRow, err error) {
		return w, q.Scan(&w.id, &w.party, &w.box)
	}, `SELECT id, party, info_sealed FROM hold WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Hold, 0, len(rows))
	for _, w := range rows {
		var i holdInfo
		switch err := r.open(ctx, vault.OfParty(w.party), "hold", w.id[:], w.box, &i); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, Hold{
			ID: w.id, OwnWord: i.OwnWord, Set: holdfast.Instant(i.Set), Lifts: holdfast.Instant(i.Lifts), Ended: holdfast.Instant(i.Ended),
			HoldSpec: HoldSpec{Kind: i.Kind, Whose: w.party, Purpose: i.Purpose, Assignments: i.Assignments, Streams: i.Streams, Reason: i.Reason, Secret: i.Secret},
		})
	}
	slices.SortFunc(all, func(a, b Hold) int {
		return cmp.Or(b.Set.Compare(a.Set), slices.Compare(a.ID[:], b.ID[:]))
	})
	return all, nil
}

// Hold returns a hold by its id. Whom it concerns is for the caller to check.
func (r *Register) Hold(ctx context.Context, id holdfast.HoldID) (Hold, error) {
	all, err := r.readHolds(ctx, `id = $1`, id)
	if err != nil {
		return Hold{}, err
	}
	if len(all) == 0 {
		return Hold{}, noHold()
	}
	return all[0], nil
}

// HoldsOn returns the holds on a party's data, the newest first, ended ones
// included; those that the law keeps from the owner only with secret.
func (r *Register) HoldsOn(ctx context.Context, whose holdfast.PartyID, secret bool) ([]Hold, error) {
	all, err := r.readHolds(ctx, `party = $1`, whose)
	if secret {
		return all, err
	}
	return slices.DeleteFunc(all, func(h Hold) bool { return h.Secret }), err
}

// Holds returns all holds of the hub, the newest first, ended ones included.
func (r *Register) Holds(ctx context.Context) ([]Hold, error) { return r.readHolds(ctx, `1 = 1`) }
