// Package recovery keeps who has a share of the way back to the root key, and what
// became of the shares.
//
// One deal (package escrow) is in force at a time: the vault wraps each root key to
// its public half. A deal that another has replaced still opens old copies of the
// keyring's head, so an erasure is complete only when enough of the shareholders of
// every deal before it have said that their shares are gone: Pending tells whose word
// is missing. That they say so is recorded, not proven.
//
// It promises that a deal is in force in the keyring before Put returns, and that a
// crash in between is mended by Open. It never sees a share.
package recovery

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// State says what a deal is for.
type State string

// The states of a deal.
const (
	InForce  State = "in force" // root keys are wrapped to it
	Replaced State = "replaced" // they were, until another came
	Ended    State = "ended"    // they were, and are wrapped to nobody since
)

// Deal is a deal as the hub knows it.
type Deal struct {
	escrow.Public
	State     State
	Since     time.Time // when root keys were first wrapped to it
	Rehearsed time.Time // when its shares were last seen to come together; zero: never
	Gone      []Gone
}

// Gone is a shareholder's word that the share was destroyed, or somebody else's.
type Gone struct {
	Name    string    `json:"name"`
	At      time.Time `json:"at"`
	Vouched string    `json:"vouched,omitempty"` // who answers for it, where the shareholder gave no code
}

// Known reports whether the hub knows the shareholders: not of a deal that stood in
// the keyring of a catalog that was put back from before it.
func (d Deal) Known() bool { return len(d.Shareholders) > 0 }

// Missing is how many more shareholders must destroy theirs before the rest are too
// few; of a deal that the hub does not know, one at least.
func (d Deal) Missing() int {
	if !d.Known() {
		return 1
	}
	return max(0, d.Enough()-len(d.Gone))
}

// Confirmed reports whether a shareholder has said that the share was destroyed.
func (d Deal) Confirmed(name string) bool {
	return slices.ContainsFunc(d.Gone, func(g Gone) bool { return g.Name == name })
}

// info is the sealed column.
type info struct {
	Public    escrow.Public `json:"deal"`
	Since     time.Time     `json:"since"`
	Rehearsed time.Time     `json:"rehearsed,omitzero"`
	Gone      []Gone        `json:"gone,omitempty"`
}

// Store keeps the deals.
type Store struct {
	db     *catalog.DB
	vault  *vault.Vault
	ledger *ledger.Ledger
	now    func() time.Time

	mu        sync.Mutex // one change at a time
	challenge challenge
}

// challenge is what a rehearsal under way has to open.
type challenge struct {
	deal   escrow.ID
	answer [sha256.Size]byte // its hash
	until  time.Time
}

// rehearsalTime is how long a challenge can be answered.
const rehearsalTime = time.Hour

// New returns the keeper of the deals in a catalog that was put back to an earlier
// state: what was taken back since comes first, then Open.
func New(db *catalog.DB, v *vault.Vault, l *ledger.Ledger, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{db: db, vault: v, ledger: l, now: now}
}

// Open reads the deals and puts into the keyring what a crash kept out of it.
func Open(ctx context.Context, db *catalog.DB, v *vault.Vault, l *ledger.Ledger, now func() time.Time) (*Store, error) {
	s := New(db, v, l, now)
	if err := s.mend(ctx); err != nil {
		return nil, fmt.Errorf("open recovery deals: %w", err)
	}
	return s, nil
}

func (s *Store) mend(ctx context.Context) error {
	all, err := s.Deals(ctx)
	if err != nil {
		return err
	}
	there, any := s.vault.Escrow()
	known := slices.IndexFunc(all, func(d Deal) bool { return d.ID == there })
	if any && known < 0 { // the catalog was put back from before the deal
		to, _ := s.vault.EscrowKey()
		return s.put(ctx, nil, Deal{Public: to, State: InForce, Since: s.now().UTC()}, all)
	}
	i := slices.IndexFunc(all, func(d Deal) bool { return d.State == InForce })
	switch {
	case i < 0 && any:
		return s.vault.SetEscrow(ctx, nil)
	case i >= 0 && (!any || all[i].ID != there):
		return s.vault.SetEscrow(ctx, &all[i].Public)
	}
	return nil
}

// Deals returns all deals, the newest first.
func (s *Store) Deals(ctx context.Context) (out []Deal, err error) {
	var boxes [][]byte
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, state, info_sealed FROM recovery_deal ORDER BY number DESC`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d Deal
			var id, box []byte
			if err := rows.Scan(&id, &d.State, &box); err != nil {
				return err
			}
			copy(d.ID[:], id)
			out, boxes = append(out, d), append(boxes, box)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read recovery deals: %w", err)
	}
	for i := range out {
		d := &out[i]
		var is info
		if err := vault.OpenJSON(ctx, s.vault, vault.Hub, "recovery_deal", d.ID[:], "info", boxes[i], &is); err != nil {
			return nil, fmt.Errorf("decode recovery deal %s: %w", d.ID, err)
		}
		d.Public, d.Since, d.Rehearsed, d.Gone = is.Public, is.Since, is.Rehearsed, is.Gone
	}
	return out, nil
}

// Current returns the deal in force.
func (s *Store) Current(ctx context.Context) (Deal, error) {
	all, err := s.Deals(ctx)
	if err != nil {
		return Deal{}, err
	}
	if i := slices.IndexFunc(all, func(d Deal) bool { return d.State == InForce }); i >= 0 {
		return all[i], nil
	}
	return Deal{}, holdfast.Errorf(holdfast.NotFound, "no recovery shares are dealt: `holdfast recovery deal`")
}

// Pending returns the deals whose shares may still open what was destroyed at a
// time: those in force by then of which too few shareholders have destroyed theirs.
func (s *Store) Pending(ctx context.Context, destroyed time.Time) ([]Deal, error) {
	all, err := s.Deals(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(d Deal) bool { return d.Since.After(destroyed) || d.Missing() == 0 }), nil
}

func may(by access.Principal) error {
	if by.Role != access.Administrator || !by.Can(access.ScopeWrite) {
		return holdfast.Errorf(holdfast.Denied, "only an administrator deals with recovery shares")
	}
	return by.MustBeSettled()
}

// Put takes a deal into force, in the place of the one before. It may be called again
// with the same.
func (s *Store) Put(ctx context.Context, by access.Principal, p escrow.Public) (Deal, error) {
	if err := may(by); err != nil {
		return Deal{}, err
	}
	if err := p.Check(); err != nil {
		return Deal{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !named(s.ledger.Origin(), p.Hub) {
		return Deal{}, holdfast.Errorf(holdfast.Invalid, "the deal is for the hub %s, this one is %s: deal again for this one", p.Hub, s.ledger.Origin())
	}
	all, err := s.Deals(ctx)
	if err != nil {
		return Deal{}, err
	}
	d := Deal{Public: p, State: InForce, Since: s.now().UTC()}
	if i := slices.IndexFunc(all, func(o Deal) bool { return o.ID == p.ID }); i >= 0 {
		if all[i].State != InForce {
			return Deal{}, holdfast.Errorf(holdfast.Conflict, "this deal was in force before: its shares are to be destroyed, deal anew")
		}
		d = all[i]
	} else if err := s.put(ctx, &by, d, all); err != nil {
		return Deal{}, fmt.Errorf("take recovery deal: %w", err)
	}
	return d, s.vault.SetEscrow(ctx, &p)
}

// named reports whether a hub of this first name has a ledger of this origin; one
// that was renewed has a number behind it.
func named(origin, hub string) bool { return origin == hub || strings.HasPrefix(origin, hub+"/") }

// End has root keys wrapped to nobody from now on.
func (s *Store) End(ctx context.Context, by access.Principal) error {
	if err := may(by); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.Current(ctx)
	if err != nil {
		return err
	}
	d.State = Ended
	if err := s.save(ctx, d, dealEnded, event{Deal: d.ID, By: by.Credential}); err != nil {
		return fmt.Errorf("end recovery deal: %w", err)
	}
	return s.vault.SetEscrow(ctx, nil)
}

// Challenge returns something for the shareholders to open: see Answer.
func (s *Store) Challenge(ctx context.Context, by access.Principal) (Deal, []byte, error) {
	if err := may(by); err != nil {
		return Deal{}, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.Current(ctx)
	if err != nil {
		return Deal{}, nil, err
	}
	var answer [32]byte
	rand.Read(answer[:])
	box, err := d.Wrap(escrow.Rehearsal(), answer[:])
	if err != nil {
		return Deal{}, nil, err
	}
	s.challenge = challenge{d.ID, sha256.Sum256(answer[:]), s.now().Add(rehearsalTime)}
	return d, box, nil
}

// Answer records a rehearsal if the answer is what the last challenge had in it.
func (s *Store) Answer(ctx context.Context, by access.Principal, answer []byte) (Deal, error) {
	if err := may(by); err != nil {
		return Deal{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(answer)
	if s.challenge.until.Before(s.now()) || subtle.ConstantTimeCompare(sum[:], s.challenge.answer[:]) != 1 {
		return Deal{}, holdfast.Errorf(holdfast.Invalid, "that is not what the challenge has in it, or it is more than an hour old: rehearse again")
	}
	d, err := s.Current(ctx)
	if err != nil {
		return Deal{}, err
	}
	if d.ID != s.challenge.deal {
		return Deal{}, holdfast.Errorf(holdfast.Conflict, "another deal came into force meanwhile: rehearse again")
	}
	s.challenge = challenge{}
	d.Rehearsed = s.now().UTC()
	return d, s.save(ctx, d, "recovery rehearsed", event{Deal: d.ID, By: by.Credential})
}

// Destroyed records a shareholder's word, given by the code on the share. It returns
// who it was.
func (s *Store) Destroyed(ctx context.Context, by access.Principal, code escrow.Code) (Deal, string, error) {
	if err := may(by); err != nil {
		return Deal{}, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.Deals(ctx)
	if err != nil {
		return Deal{}, "", err
	}
	for _, d := range all {
		who, ok := d.Public.Destroyed(code)
		if !ok {
			continue
		}
		if d.Confirmed(who.Name) {
			return d, who.Name, nil
		}
		if d.State == InForce && len(d.Shareholders)-len(d.Gone) <= d.Threshold {
			return Deal{}, "", holdfast.Errorf(holdfast.Conflict, "this deal is in force, and without this share too few are left to open it: deal anew first, then destroy the old shares")
		}
		d.Gone = append(d.Gone, Gone{Name: who.Name, At: s.now().UTC()})
		return d, who.Name, s.save(ctx, d, "recovery share destroyed", event{Deal: d.ID, By: by.Credential, Shares: len(d.Gone)})
	}
	return Deal{}, "", holdfast.Errorf(holdfast.NotFound, "no share has this code")
}

// Vouched records somebody's word that the share of a shareholder who can give no code
// any more is destroyed. Nobody can give it of the deal in force, whose shares are
// the way back: there the code at least shows who had the share.
func (s *Store) Vouched(ctx context.Context, by access.Principal, deal escrow.ID, name, who string) (Deal, error) {
	if err := may(by); err != nil {
		return Deal{}, err
	}
	if strings.TrimSpace(who) != who || who == "" || len(who) > maxVouch || strings.ContainsFunc(who, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return Deal{}, holdfast.Errorf(holdfast.Invalid, "who vouches is named in certificates: printable text of %d bytes at most, without spaces around it", maxVouch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.Deals(ctx)
	if err != nil {
		return Deal{}, err
	}
	i := slices.IndexFunc(all, func(d Deal) bool { return d.ID == deal })
	if i < 0 {
		return Deal{}, holdfast.Errorf(holdfast.NotFound, "there is no deal %s: `holdfast recovery show`", deal)
	}
	d := all[i]
	switch {
	case d.State == InForce:
		return Deal{}, holdfast.Errorf(holdfast.Conflict, "deal %s is in force: deal anew first, then somebody can answer for its shares", deal)
	case !slices.ContainsFunc(d.Shareholders, func(h escrow.Shareholder) bool { return h.Name == name }):
		return Deal{}, holdfast.Errorf(holdfast.NotFound, "deal %s has no shareholder of this name: `holdfast recovery show`", deal)
	case d.Confirmed(name):
		return d, nil
	}
	d.Gone = append(d.Gone, Gone{name, s.now().UTC(), who})
	return d, s.save(ctx, d, "recovery share destroyed", event{Deal: d.ID, By: by.Credential, Shares: len(d.Gone), Vouched: true})
}

const maxVouch = 100

// event is what the ledger says of a deal, on the hub's record.
type event struct {
	Deal   escrow.ID             `json:"deal"`
	By     holdfast.CredentialID `json:"by"`
	Of     int                   `json:"shares,omitempty"`
	Needed int                   `json:"threshold,omitempty"`
	Shares int                   `json:"destroyed,omitempty"`
	// Vouched says that it was not the shareholder's own word.
	Vouched bool `json:"vouched,omitempty"`
}

const dealEnded = "recovery ended"

// put writes down a new deal in force, and that those before are not any more.
func (s *Store) put(ctx context.Context, by *access.Principal, d Deal, all []Deal) error {
	box, err := s.sealInfo(ctx, d)
	if err != nil {
		return err
	}
	e := event{Deal: d.ID, Of: len(d.Shareholders), Needed: d.Threshold}
	if by != nil {
		e.By = by.Credential
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE recovery_deal SET state = $1 WHERE state = $2`, Replaced, InForce); err != nil {
			return err
		}
		for _, o := range all {
			if o.State != InForce {
				continue
			}
			o.State = Replaced
			if err := takeBack(ctx, tx, o); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO recovery_deal (id, number, state, info_sealed) VALUES ($1, $2, $3, $4)`, d.ID[:], len(all)+1, d.State, box); err != nil {
			return err
		}
		_, err := s.ledger.Append(ctx, tx, vault.Hub, "recovery dealt", e)
		return err
	})
}

func (s *Store) save(ctx context.Context, d Deal, kind string, e event) error {
	box, err := s.sealInfo(ctx, d)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE recovery_deal SET state = $1, info_sealed = $2 WHERE id = $3`, d.State, box, d.ID[:]); err != nil {
			return err
		}
		if d.State == Ended && kind == dealEnded {
			if err := takeBack(ctx, tx, d); err != nil {
				return err
			}
		}
		_, err := s.ledger.Append(ctx, tx, vault.Hub, kind, e)
		return err
	})
}

func (s *Store) sealInfo(ctx context.Context, d Deal) ([]byte, error) {
	return vault.SealJSON(ctx, s.vault, vault.Hub, "recovery_deal", d.ID[:], "info", info{d.Public, d.Since, d.Rehearsed, d.Gone})
}
