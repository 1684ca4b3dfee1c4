package custody

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// PartyKind says what a party is.
type PartyKind string

// The kinds of party.
const (
	Person       PartyKind = "person"
	Household    PartyKind = "household"
	Organisation PartyKind = "organisation"
	Service      PartyKind = "service"
)

// ParsePartyKind reads the word for a kind.
func ParsePartyKind(s string) (PartyKind, error) {
	switch k := PartyKind(s); k {
	case Person, Household, Organisation, Service:
		return k, nil
	}
	return "", holdfast.Errorf(holdfast.Invalid, "a party is a person, household, organisation or service")
}

// States of parties, devices and assignments.
const (
	Operating = "operating" // the party that runs this hub
	Leaving   = "leaving"   // the party's erasure is under way: it gets nothing new
	Active    = "active"
	Unclaimed = "unclaimed" // no owner yet
	Closed    = "closed"    // takes no more readings; what it has stays
	Erased    = "erased"    // an id and this word are all that is left
)

// Party is a person, household, organisation or service.
type Party struct {
	ID    holdfast.PartyID
	Name  string
	Kind  PartyKind
	State string // Operating, Active, Leaving or Erased
	Added time.Time
}

type partyInfo struct {
	Name  string    `json:"name"`
	Kind  PartyKind `json:"kind"`
	Added int64     `json:"added"`
}

// AddOperating makes the operating organisation; a hub has one, made by init.
func (c *Custody) AddOperating(ctx context.Context, name string) (Party, error) {
	switch _, err := c.Operating(ctx); {
	case err == nil:
		return Party{}, holdfast.Errorf(holdfast.Conflict, "the hub has an operating organisation already")
	case holdfast.KindOf(err) != holdfast.NotFound:
		return Party{}, err
	}
	return c.addParty(ctx, holdfast.CredentialID{}, name, Organisation, Operating)
}

// AddParty adds a party. Its name is unique within the hub.
func (c *Custody) AddParty(ctx context.Context, by holdfast.CredentialID, name string, kind PartyKind) (Party, error) {
	return c.addParty(ctx, by, name, kind, Active)
}

func (c *Custody) addParty(ctx context.Context, by holdfast.CredentialID, name string, kind PartyKind, state string) (Party, error) {
	if err := checkName("party", name); err != nil {
		return Party{}, err
	}
	if _, err := ParsePartyKind(string(kind)); err != nil {
		return Party{}, err
	}
	hash, err := c.keys.Hash(ctx, "party name", name)
	if err != nil {
		return Party{}, err
	}
	taken := func(tx *sql.Tx) error {
		used, err := exists(ctx, tx, `SELECT count(*) FROM party WHERE name_hash = $1`, hash)
		if err == nil && used {
			err = holdfast.Errorf(holdfast.Conflict, "there is a party of this name already")
		}
		return err
	}
	if err := c.db.Read(ctx, taken); err != nil { // before a key is made for nothing
		return Party{}, err
	}
	p := Party{ID: holdfast.NewID[holdfast.PartyID](), Name: name, Kind: kind, State: state, Added: c.now().UTC()}
	owner := vault.OfParty(p.ID)
	if err := c.keys.AddOwner(ctx, owner); err != nil {
		return Party{}, err
	}
	box, err := c.seal(ctx, owner, "party", p.ID[:], partyInfo{name, kind, p.Added.UnixNano()})
	if err != nil {
		return Party{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := taken(tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO party (id, name_hash, state, info_sealed) VALUES ($1, $2, $3, $4)`,
			p.ID, hash, state, box); err != nil {
			return err
		}
		_, err := c.ledger.Append(ctx, tx, owner, "party added", struct {
			Party holdfast.PartyID      `json:"party"`
			Kind  PartyKind             `json:"kind"`
			By    holdfast.CredentialID `json:"by"`
		}{p.ID, kind, by})
		return err
	})
	if err != nil {
		return Party{}, err
	}
	return p, nil
}

// Operating returns the operating organisation's id.
func (c *Custody) Operating(ctx context.Context) (holdfast.PartyID, error) {
	c.mu.RLock()
	id := c.operating
	c.mu.RUnlock()
	if !id.IsZero() {
		return id, nil
	}
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT id FROM party WHERE state = $1`, Operating).Scan(&id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return id, holdfast.Errorf(holdfast.NotFound, "the hub has no operating organisation: init makes it")
	}
	if err != nil {
		return id, err
	}
	c.mu.Lock()
	c.operating = id
	c.mu.Unlock()
	return id, nil
}

type partyRow struct {
	id    holdfast.PartyID
	state string
	box   []byte
}

func (c *Custody) partyRows(ctx context.Context, where string, args ...any) ([]partyRow, error) {
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r partyRow, err error) {
		return r, q.Scan(&r.id, &r.state, &r.box)
	}, `SELECT id, state, info_sealed FROM party WHERE `+where, args...)
	return rows, err
}

// openParty opens a row. A party whose key is destroyed is Erased already.
func (c *Custody) openParty(ctx context.Context, r partyRow) (Party, error) {
	p := Party{ID: r.id, State: r.state}
	if r.state == Erased {
		return p, nil
	}
	var info partyInfo
	switch err := c.open(ctx, vault.OfParty(r.id), "party", r.id[:], r.box, &info); {
	case vault.Gone(err):
		p.State = Erased
		return p, nil
	case err != nil:
		return p, err
	}
	p.Name, p.Kind, p.Added = info.Name, info.Kind, time.Unix(0, info.Added).UTC()
	return p, nil
}

// Parties returns all parties that are not erased, by name.
func (c *Custody) Parties(ctx context.Context) ([]Party, error) {
	rows, err := c.partyRows(ctx, `state <> $1`, Erased)
	if err != nil {
		return nil, err
	}
	all := make([]Party, 0, len(rows))
	for _, r := range rows {
		p, err := c.openParty(ctx, r)
		if err != nil {
			return nil, err
		}
		if p.State != Erased {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Party) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Party returns a party, an erased one with its state alone.
func (c *Custody) Party(ctx context.Context, id holdfast.PartyID) (Party, error) {
	return c.oneParty(ctx, `id = $1`, id)
}

// PartyByName returns the party of that name.
func (c *Custody) PartyByName(ctx context.Context, name string) (Party, error) {
	hash, err := c.keys.Hash(ctx, "party name", name)
	if err != nil {
		return Party{}, err
	}
	return c.oneParty(ctx, `name_hash = $1`, hash)
}

func (c *Custody) oneParty(ctx context.Context, where string, arg any) (Party, error) {
	rows, err := c.partyRows(ctx, where, arg)
	if err != nil {
		return Party{}, err
	}
	if len(rows) == 0 {
		return Party{}, holdfast.Errorf(holdfast.NotFound, "there is no such party")
	}
	return c.openParty(ctx, rows[0])
}

// ResolveParty returns the party that a name or an id means; an erased one is
// NotFound.
func (c *Custody) ResolveParty(ctx context.Context, nameOrID string) (Party, error) {
	var p Party
	var err error
	if id, bad := holdfast.ParseID[holdfast.PartyID](nameOrID); bad == nil {
		p, err = c.Party(ctx, id)
	} else {
		p, err = c.PartyByName(ctx, nameOrID)
	}
	if err == nil && p.State == Erased {
		err = holdfast.Errorf(holdfast.NotFound, "there is no such party")
	}
	return p, err
}

// livingParty refuses a party that can't own or be given anything.
func (c *Custody) livingParty(ctx context.Context, id holdfast.PartyID) error {
	p, err := c.Party(ctx, id)
	if err != nil {
		return err
	}
	if p.State == Erased || p.State == Leaving {
		return holdfast.Errorf(holdfast.Conflict, "party %s is %s", id, p.State)
	}
	return nil
}

// stillLiving is livingParty within the transaction that gives a party something:
// its erasure may have been accepted since.
func stillLiving(ctx context.Context, tx *sql.Tx, ids ...holdfast.PartyID) error {
	for _, id := range ids {
		if id.IsZero() {
			continue
		}
		living, err := exists(ctx, tx, `SELECT count(*) FROM party WHERE id = $1 AND state IN ('active', 'operating')`, id)
		if err != nil {
			return err
		}
		if !living {
			return holdfast.Errorf(holdfast.Conflict, "party %s is being erased", id)
		}
	}
	return nil
}
