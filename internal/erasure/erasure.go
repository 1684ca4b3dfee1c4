// Package erasure is the way out for good: it destroys keys, then ciphertext,
// and signs a certificate of it.
//
// An erasure that was asked for is refused on every path at once, survives a
// crash at every step (Run takes it up again), and shares its rotation of the
// root key with all that wait beside it. It promises that when its certificate is
// signed, no key on this machine opens what the scope covers, and that every
// place has removed its part. docs/format/certificate.md has the certificate.
//
// It does not reach copies that others were given, nor a copy of the root key
// that somebody made outside a holder.
package erasure

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// States of an erasure.
const (
	Approval  = "approval"  // a second administrator is to approve it: nothing has happened
	Waiting   = "waiting"   // refused on every path, and can be undone
	Asked     = "asked"     // refused on every path
	Destroyed = "destroyed" // the keys are gone
	Done      = "done"      // the ciphertext too; there is a certificate

	Undone  = "undone"  // taken back while it waited
	Refused = "refused" // not approved
	Expired = "expired" // nobody approved it in time
)

// Custody closes a party in the transaction that accepts its erasure, and refuses
// a scope that has missed an assignment made meanwhile. It says whose an assignment
// is and what its streams are, for holds name parties and streams.
type Custody interface {
	Leave(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error
	// ReplayErased is Leave for a catalog that was put back to before the erasure.
	ReplayErased(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error
	Stay(ctx context.Context, tx *sql.Tx, party holdfast.PartyID) error
	// Sources are where the devices of assignments sent from. Once they are remembered,
	// what is declared there again takes nothing from before.
	Sources(ctx context.Context, assignments []holdfast.AssignmentID) ([]custody.Source, error)
	Remember(ctx context.Context, tx *sql.Tx, sources []custody.Source, until time.Time) error
	Operating(ctx context.Context) (holdfast.PartyID, error)
	Assignment(ctx context.Context, id holdfast.AssignmentID) (custody.Assignment, error)
	StreamsOfAssignment(ctx context.Context, a custody.Assignment) ([]*custody.Stream, error)
}

// People is package access: it leaves a party whose erasure waits nothing but to look
// at that and to undo it, and knows whether a second administrator approves.
type People interface {
	Suspend(ctx context.Context, party holdfast.PartyID) error
	Resume(party holdfast.PartyID)
	Another(ctx context.Context, by access.Principal, asker holdfast.CredentialID) error
	// Others are the administrators, by a credential of each, who would do as another.
	Others(ctx context.Context, asker holdfast.CredentialID) ([]holdfast.CredentialID, error)
	// Inviter is the administrator who may be behind an owner's holder; zero: nobody is.
	Inviter(ctx context.Context, holder holdfast.CredentialID) (holdfast.CredentialID, error)
}

// Deps is what a Gate is built on; all but Paperwork, Resealed, Now, Fault, People, Outbox and Policy are
// required.
type Deps struct {
	Catalog *catalog.DB
	Vault   *vault.Vault
	Ledger  *ledger.Ledger
	Series  *series.Series
	Grants  *grant.Register
	Custody Custody
	Places  Places
	People  People         // nil: nobody signs in, and nothing needs approval
	Outbox  *outbox.Outbox // nil: recipients are told by their retractions alone
	Policy  Policy
	// Suspended: the hub was restored, and what waits may have been undone since. None
	// of it begins.
	Suspended bool
	// Arrival is the time that a reading would arrive at now, ns since 1970: what
	// came before an erasure is told by it, for the system's clock may be set back.
	Arrival   func() int64
	Paperwork Paperwork
	// Resealed is told how many cells have fresh keys and their old ones are gone.
	Resealed func(ctx context.Context, cells int) error
	Logger   *slog.Logger
	Now      func() time.Time // the system's clock, by which readings age; default time.Now
	// Fault is asked at each of Steps, by tests that end a run there; nil: never.
	Fault func(step string) error
}

// Gate carries erasures out.
type Gate struct {
	Deps
	metrics metrics

	expiring sync.Mutex // one run of expiry at a time
	// reissuing is held from the barrier before a rotation that writes lists anew to
	// that rotation: of the journal keys of a list it keeps only the newest, and must
	// have made that itself. What is acknowledged since its last roll is under it.
	reissuing sync.Mutex
	doubted   atomic.Bool // the clock: see ErrClock

	whole, part, purge, paper *lane

	taking sync.Mutex // held while erasures are given to a lane
	taken  map[holdfast.ErasureID]bool

	holding atomic.Int32 // len(open), for those on the path of a reading
	mu      sync.RWMutex
	open    map[holdfast.ErasureID]*opened       // waiting or asked, keys not yet destroyed
	done    map[holdfast.ErasureID]chan struct{} // closed when the erasure ended
	why     map[holdfast.ErasureID]error         // why it does not get on
	undone  map[holdfast.ErasureID]time.Time     // when it began; not yet certified
	begun   begun

	holders seen // what holders have said since the start

	covering map[holdfast.AssignmentID][]*opened // open by what it covers

	deciding sync.Mutex    // held while an erasure is asked for, undone, approved
	claims   []*Claim      // what changes of periods have alone; under deciding
	ripe     chan struct{} // one waits that did not before
}

// Erasure is one erasure as callers see it. It names ids only.
type Erasure struct {
	ID    holdfast.ErasureID `json:"id"`
	Party holdfast.PartyID   `json:"party"`
	State string             `json:"state"`
	Plan
	Certificate []byte                `json:"-"` // its newest issue
	undoer      holdfast.CredentialID // the heir, who undid it
	alone       *alone                // what it adds to its asker's day when it is accepted; nil: nothing
}

// Plan is what is written down of an erasure while it goes on.
type Plan struct {
	Scope      Scope                  `json:"scope"`
	By         string                 `json:"by"` // the role that asked
	AskedAt    time.Time              `json:"asked"`
	RefusedAt  time.Time              `json:"refused"`
	OwnerKeys  []seal.KeyID           `json:"owner_keys"`
	RecordKeys []seal.KeyID           `json:"record_keys"`
	From       uint64                 `json:"rotation_from,omitempty"`
	To         uint64                 `json:"rotation_to,omitempty"`
	Holders    []vault.HolderEvidence `json:"holders,omitempty"`
	KeysDeadAt time.Time              `json:"keys_destroyed,omitzero"`
	PurgedAt   time.Time              `json:"purged,omitzero"`
	Kept       []Kept                 `json:"kept,omitempty"` // what holds keep of what was asked for

	BegunAt time.Time             `json:"begun,omitzero"` // when its window had ended, or it was approved; none: written before there were any
	Rest    bool                  `json:"rest,omitempty"`
	OwnWord bool                  `json:"own_word,omitempty"` // the owner asked
	Undo    time.Duration         `json:"undo,omitempty"`
	Wished  time.Duration         `json:"wished,omitempty"`  // of Undo what was asked for, where the rest is a safeguard
	Safe    bool                  `json:"safe,omitempty"`    // it waits so that another administrator can have a word, who need not
	For     holdfast.CredentialID `json:"for,omitzero"`      // the administrator for whose word it counts; with Safe or in Approval
	Until   time.Time             `json:"until,omitzero"`    // when the window ends, or the time for approval, by arrival time
	Asker   holdfast.CredentialID `json:"asker,omitzero"`    // holder
	Heir    holdfast.CredentialID `json:"heir,omitzero"`     // the administrator that a restore made: he may undo it too
	Decider holdfast.CredentialID `json:"decider,omitzero"`  // holder who approved or refused it
	EndedAt time.Time             `json:"ended,omitzero"`    // of one that was undone, refused or expired
	Clipped bool                  `json:"clipped,omitempty"` // the span ends where it was asked for

	// Of are the streams of each assignment, where there are several.
	Of [][]holdfast.StreamID `json:"of,omitempty"`
	Paper
}

// Began returns when the erasure began to be carried out.
func (p *Plan) Began() time.Time {
	if p.BegunAt.IsZero() {
		return p.AskedAt
	}
	return p.BegunAt
}

// Open reads the erasures that a crash or a shutdown left undone: they are
// refused again from here on, and Run goes on with them.
func Open(ctx context.Context, d Deps) (*Gate, error) {
	if err := d.Places.check(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	g := &Gate{Deps: d, metrics: newMetrics(), taken: map[holdfast.ErasureID]bool{}, ripe: make(chan struct{}, 1),
		open: map[holdfast.ErasureID]*opened{}, done: map[holdfast.ErasureID]chan struct{}{}, why: map[holdfast.ErasureID]error{},
		covering: map[holdfast.AssignmentID][]*opened{}, undone: map[holdfast.ErasureID]time.Time{}}
	g.makeLanes()
	undone, err := g.list(ctx, `state IN ($1, $2, $3, $4)`, Asked, Destroyed, Waiting, Approval)
	if err != nil {
		return nil, fmt.Errorf("open erasures: %w", err)
	}
	g.Series.Withhold(g.withholds)
	for _, e := range undone {
		switch e.State {
		case Asked, Destroyed: // until it has left every place, which would take what comes in with it
			g.hide(e.ID, e.scope(e.Party), false)
		case Waiting:
			if err := g.refuse(ctx, e, e.scope(e.Party)); err != nil {
				return nil, fmt.Errorf("open erasures: %w", err)
			}
		}
		if e.State == Asked || e.State == Destroyed {
			g.undone[e.ID] = e.Began()
		}
	}
	if owed, err := g.rekeying(ctx); err != nil {
		return nil, fmt.Errorf("open rekeying: %w", err)
	} else if owed {
		g.part.poke()
	}
	if len(undone) > 0 {
		g.whole.poke()
		g.part.poke()
		g.purge.poke()
	}
	return g, nil
}

// Wish says how an erasure is wanted. Its zero value is: all of the scope, at once.
type Wish struct {
	// Rest: what no hold keeps. Without it, a hold on any of the scope refuses all.
	Rest bool
	// Undo is how long it can be undone: refused on every path, nothing destroyed.
	Undo time.Duration
	// Guarded: somebody asks for it now. The hub's own window holds, a scope that
	// matches nothing is refused, and an administrator's in bulk needs a second one.
	Guarded bool
	// Words are the holders of the credentials with which all have asked for it whose
	// word it needs: adults of a household. If one administrator may be behind them
	// all, it is his in bulk.
	Words []holdfast.CredentialID

	claim *Claim // of a change that has it alone: holds were asked when it got it
}

// Policy is what the hub asks of erasures beyond the right to them.
type Policy struct {
	Undo   time.Duration // window of every guarded one; 0: none
	Bulk   int           // most assignments that one administrator has erased alone within a day; 0: any number
	Window time.Duration // how long a rotation waits for others to share it; 0: not at all
}

// Limits of erasures.
const (
	MaxUndo       = 30 * 24 * time.Hour
	MaxItems      = 10_000             // assignments and streams of one scope
	ApproveWithin = 7 * 24 * time.Hour // of an erasure in bulk
	SafeUndo      = 72 * time.Hour     // least window of one in bulk that needs nobody's approval
)

// Ask begins an erasure: it is on the owner's record, barred, and refused on
// every path when Ask returns; keys and ciphertext follow in Run. An owner may
// ask for what is his, an administrator for anything but the operating
// organisation itself, each with a settled credential.
//
// It is Denied where a hold keeps any of the scope; AskRest has the others erased.
func (g *Gate) Ask(ctx context.Context, by access.Principal, s holdfast.Scope) (Erasure, error) {
	return g.Request(ctx, by, s, Wish{})
}

// AskRest is Ask for what of the scope no hold keeps. The certificate says what was
// kept.
func (g *Gate) AskRest(ctx context.Context, by access.Principal, s holdfast.Scope) (Erasure, error) {
	return g.Request(ctx, by, s, Wish{Rest: true})
}

// Request is Ask for an erasure as it is wished. It may begin at once, wait for its
// window to end, or for a second administrator.
func (g *Gate) Request(ctx context.Context, by access.Principal, s holdfast.Scope, w Wish) (Erasure, error) {
	if err := mayAsk(by, s); err != nil {
		return Erasure{}, err
	}
	e, s, err := g.planned(ctx, by, s, w)
	if err != nil {
		return Erasure{}, err
	}
	g.deciding.Lock()
	defer g.deciding.Unlock()
	if err := g.unclaimed(s, w.claim); err != nil {
		return Erasure{}, err
	}
	approvals, err := g.guard(ctx, by, &e, s, w)
	switch {
	case err != nil:
		return Erasure{}, err
	case approvals:
		return g.propose(ctx, e)
	case e.Undo > 0:
		return g.wait(ctx, e, s)
	}
	return g.accept(ctx, e, s)
}

// mayAsk refuses who has no right to an erasure.
func mayAsk(by access.Principal, s holdfast.Scope) error {
	switch {
	case !by.Can(access.ScopeWrite):
		return holdfast.Errorf(holdfast.Denied, "this credential can't change anything")
	case by.Role == access.Owner && !s.Party.IsZero() && by.Party == s.Party:
	case by.Role == access.Administrator:
	default:
		return holdfast.Errorf(holdfast.Denied, "only the owner of data or an administrator can have it erased")
	}
	return by.MustBeSettled()
}

// planned checks a scope and takes out of it what holds keep.
func (g *Gate) planned(ctx context.Context, by access.Principal, s holdfast.Scope, w Wish) (Erasure, holdfast.Scope, error) {
	if err := g.check(ctx, s, w); err != nil {
		return Erasure{}, s, err
	}
	var kept []Kept
	var err error
	if w.claim == nil {
		s, kept, err = g.withoutHeld(ctx, s, by.Role == access.Owner)
	}
	switch {
	case err != nil:
		return Erasure{}, s, err
	case len(kept) > 0 && (!w.Rest || len(s.Assignments) == 0):
		return Erasure{}, s, refuseHeld(kept, s)
	}
	e := Erasure{ID: holdfast.NewID[holdfast.ErasureID](), Party: s.Party, State: Asked, Plan: Plan{
		By: by.Role.String(), AskedAt: time.Now().UTC(), Kept: kept, Rest: w.Rest, Undo: w.Undo, Asker: by.Holder, OwnWord: by.Role == access.Owner}}
	if e.Of, err = g.streamsByAssignment(ctx, s); err != nil {
		return Erasure{}, s, err
	}
	e.Scope = scopeText(s)
	return e, s, nil
}

// accept has an erasure carried out. e.State says what it was until now; a fresh one
// is Asked.
func (g *Gate) accept(ctx context.Context, e Erasure, s holdfast.Scope) (Erasure, error) {
	was := e.State
	s.Before = g.Arrival()
	e.State, e.Scope, e.BegunAt = Asked, scopeText(s), time.Now().UTC()
	if !s.InPart() {
		keys, records, err := g.Vault.Doomed(ctx, owners(s))
		if err != nil {
			return Erasure{}, fmt.Errorf("plan erasure: %w", err)
		}
		e.OwnerKeys, e.RecordKeys = slices.Collect(maps.Values(keys)), records
	}
	// No read shows it and nothing of it comes in from here on; if the writing down
	// fails, nothing has happened. Who has read of it is asked after that: nobody
	// reads it in between who is not told.
	g.hide(e.ID, s, false)
	if e.RefusedAt.IsZero() {
		e.RefusedAt = time.Now().UTC()
	}
	drafts, err := g.retract(ctx, e, s)
	if err == nil {
		err = g.writeDown(ctx, e, s, was, drafts)
	}
	if err != nil {
		if was == Waiting {
			g.hide(e.ID, s, true)
		} else {
			g.show(e.ID)
		}
		return Erasure{}, fmt.Errorf("ask for erasure: %w", err)
	}
	g.mu.Lock()
	g.undone[e.ID] = e.Began()
	g.mu.Unlock()
	g.tell(drafts)
	for _, place := range g.Places.refuse() {
		if err := place(ctx, s); err != nil {
			g.Logger.Error("erasure: refuse at once", "erasure", e.ID, "err", err)
		}
	}
	g.metrics.asked.Inc()
	if err := g.step("asked"); err != nil {
		return e, err
	}
	if s.InPart() {
		g.part.poke()
	} else {
		g.whole.poke()
	}
	return e, nil
}

// writeDown puts the erasure, its bars and its ledger entry into one transaction.
func (g *Gate) writeDown(ctx context.Context, e Erasure, s holdfast.Scope, was string, told []*retracting) error {
	bars, err := g.barsOf(ctx, e, s)
	if err != nil {
		return err
	}
	var sources []custody.Source
	if !s.InPart() {
		if sources, err = g.Custody.Sources(ctx, s.Assignments); err != nil {
			return err
		}
	}
	box, err := g.sealPlan(ctx, e)
	if err != nil {
		return err
	}
	err = g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		if err := put(ctx, tx, e, was, box); err != nil {
			return err
		}
		if err := g.Custody.Remember(ctx, tx, sources, rememberUntil(e.Began())); err != nil {
			return err
		}
		if err := e.alone.add(ctx, tx, e.ID, s.Before); err != nil {
			return err
		}
		if err := g.leave(ctx, tx, s); err != nil {
			return err
		}
		for _, bar := range bars {
			if err := g.Grants.SetBar(ctx, tx, bar); err != nil {
				return err
			}
		}
		if err := takeBack(ctx, tx, e, sources); err != nil {
			return err
		}
		if err := insertRetractions(ctx, tx, s, told); err != nil {
			return err
		}
		if len(e.RecordKeys) > 0 { // from when they die, the ledger has rows that do not open
			if _, err := g.Ledger.Append(ctx, tx, vault.Hub, ledger.KindErasureBegun, beginning{Erasure: e.ID, Covers: ledger.Covers{RecordKeys: e.RecordKeys}}); err != nil {
				return err
			}
		}
		return g.record(ctx, tx, "erasure asked", e)
	})
	if err != nil {
		// Whoever asked may have gone away: that must not leave bars of what did not happen.
		return errors.Join(err, g.Grants.ReloadBars(context.WithoutCancel(ctx)))
	}
	return nil
}

// rememberUntil is when the bars of an erasure end.
func rememberUntil(began time.Time) time.Time { return began.AddDate(0, 0, grant.BarDays) }

// leave closes a party. One that another erasure has ended, while this one waited, is
// closed already: this one comes to its end, and finds nothing.
func (g *Gate) leave(ctx context.Context, tx *sql.Tx, s holdfast.Scope) error {
	if s.Whole && !g.Vault.HasOwner(vault.OfParty(s.Party)) {
		return nil
	}
	return g.Custody.Leave(ctx, tx, s)
}

// put writes the row of an erasure that was in another state, or none, until now. It
// is a Conflict if it is in that no more.
func put(ctx context.Context, tx *sql.Tx, e Erasure, was string, box []byte) error {
	if was == Asked || was == e.State {
		_, err := tx.ExecContext(ctx, `INSERT INTO erasure (id, number, party, state, plan_sealed)
			VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM erasure), $2, $3, $4)`, e.ID, e.Party, e.State, box)
		return err
	}
	res, err := tx.ExecContext(ctx, `UPDATE erasure SET state = $1, plan_sealed = $2 WHERE id = $3 AND state = $4`, e.State, box, e.ID, was)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return cmp.Or(err, holdfast.Errorf(holdfast.Conflict, "erasure %s is not %s any more", e.ID, saying(was)))
	}
	return nil
}

// record appends what happened to an erasure to the record of whose data it covers.
func (g *Gate) record(ctx context.Context, tx *sql.Tx, kind string, e Erasure) error {
	on := vault.Hub
	if !e.Party.IsZero() && g.Vault.HasOwner(vault.OfParty(e.Party)) {
		on = vault.OfParty(e.Party)
	}
	_, err := g.Ledger.Append(ctx, tx, on, kind, struct {
		Erasure holdfast.ErasureID    `json:"erasure"`
		Scope   Scope                 `json:"scope"`
		By      string                `json:"by"`
		Kept    []Kept                `json:"kept,omitempty"`
		Until   time.Time             `json:"until,omitzero"`
		Heir    holdfast.CredentialID `json:"heir,omitzero"`
		Undoer  holdfast.CredentialID `json:"undoer,omitzero"`
	}{e.ID, e.Scope, e.By, e.Kept, e.Until, e.Heir, e.undoer})
	return err
}

// barsOf are the bars that an erasure leaves. Of a month, nobody knows which readings
// would arrive in it again: all that were taken in the time of those that did are
// barred.
func (g *Gate) barsOf(ctx context.Context, e Erasure, s holdfast.Scope) ([]grant.Bar, error) {
	all := bars(s, e.Of...)
	if !g.Vault.HasOwner(vault.OfParty(s.Party)) { // it has no record any more: the hub's gets it
		for i := range all {
			all[i].Party = holdfast.PartyID{}
		}
	}
	if s.Month == 0 {
		return all, nil
	}
	var out []grant.Bar
	for i := range all {
		b := all[i]
		narrow := s
		if narrow.Streams = nil; !b.Stream.IsZero() {
			narrow.Streams = []holdfast.StreamID{b.Stream}
		}
		of, err := g.streamsIn(ctx, b.Assignment, narrow)
		if err != nil {
			return nil, err
		}
		for _, x := range of {
			w, err := g.Series.Weigh(ctx, b.Assignment, x.ID, s.Span, s.Month)
			if err != nil {
				return nil, err
			}
			if w.Rows > 0 {
				b.Stream, b.Span = x.ID, holdfast.Span{From: w.First, To: w.Last}
				out = append(out, b)
			}
		}
	}
	return out, nil
}
