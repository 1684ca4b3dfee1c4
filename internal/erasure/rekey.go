package erasure

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Rekeying is the answer to keys that may have become known: owners get a fresh
// owner key, fresh lists, and what is stored of their readings is sealed again under
// fresh stream keys. Nothing is dropped. It goes on in the lane of erasures in part,
// behind them, some owners to a rotation; those still to do are in the catalog.

// rekeyOwners and rekeyReadings bound what one rotation waits for.
const (
	rekeyOwners   = 64
	rekeyReadings = 1 << 20
)

// RekeyID names one.
type RekeyID [holdfast.IDSize]byte

func (id RekeyID) String() string { return holdfast.ErasureID(id).String() }

// ParseRekeyID reads what String wrote.
func ParseRekeyID(s string) (RekeyID, error) {
	id, err := holdfast.ParseID[holdfast.ErasureID](s)
	return RekeyID(id), err
}

// Rekey is a rekeying and how far it has come.
type Rekey struct {
	ID     RekeyID
	Party  holdfast.PartyID // zero: of all
	Owners int              // owner keys to replace
	Left   int              // of them not yet
}

// rekeyEntry is what the ledger says of a rekeying.
type rekeyEntry struct {
	Rekey  string `json:"rekey"`
	By     string `json:"by,omitempty"`
	Owners int    `json:"owners"`
	From   uint64 `json:"rotation_from,omitempty"`
	To     uint64 `json:"rotation_to,omitempty"`
}

// AskRekey has owners get fresh keys: a party with its assignments, or, with a zero
// party, all that the keyring has, the hub too. It is for administrators with a
// settled credential.
func (g *Gate) AskRekey(ctx context.Context, by access.Principal, party holdfast.PartyID, assignments []holdfast.AssignmentID) (Rekey, error) {
	if by.Role != access.Administrator || !by.Can(access.ScopeWrite) {
		return Rekey{}, holdfast.Errorf(holdfast.Denied, "only an administrator can have keys replaced")
	}
	if err := by.MustBeSettled(); err != nil {
		return Rekey{}, err
	}
	var all []vault.Owner
	on := vault.Hub
	if party.IsZero() {
		all = g.Vault.AllOwners()
	} else {
		on = vault.OfParty(party)
		for _, o := range append(owners(holdfast.Scope{Assignments: assignments}), on) {
			if g.Vault.HasOwner(o) {
				all = append(all, o)
			}
		}
	}
	if len(all) == 0 {
		return Rekey{}, holdfast.Errorf(holdfast.NotFound, "there is no key to replace")
	}
	r := Rekey{ID: holdfast.NewID[RekeyID](), Party: party, Owners: len(all), Left: len(all)}
	err := g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		var whose any
		if !party.IsZero() {
			whose = party[:]
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO rekey (id, number, party, owners)
			VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM rekey), $2, $3)`, r.ID[:], whose, r.Owners); err != nil {
			return err
		}
		for _, o := range all {
			if _, err := tx.ExecContext(ctx, `INSERT INTO rekey_owner (rekey, owner) VALUES ($1, $2) ON CONFLICT DO NOTHING`, r.ID[:], o[:]); err != nil {
				return err
			}
		}
		_, err := g.Ledger.Append(ctx, tx, on, "rekey begun", rekeyEntry{Rekey: r.ID.String(), By: by.Role.String(), Owners: r.Owners})
		return err
	})
	if err != nil {
		return Rekey{}, fmt.Errorf("ask for fresh keys: %w", err)
	}
	g.part.poke()
	return r, nil
}

// Rekeys returns all that were asked for, the oldest first.
func (g *Gate) Rekeys(ctx context.Context) (out []Rekey, err error) {
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT id, party, owners, (SELECT count(*) FROM rekey_owner WHERE rekey = rekey.id) FROM rekey ORDER BY number`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Rekey
			var id, party []byte
			if err := rows.Scan(&id, &party, &r.Owners, &r.Left); err != nil {
				return err
			}
			copy(r.ID[:], id)
			copy(r.Party[:], party)
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// rekeying reports whether any owner waits for fresh keys.
func (g *Gate) rekeying(ctx context.Context) (owed bool, err error) {
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM rekey_owner)`).Scan(&owed)
	})
	return owed, err
}

// rekeySome gives some of the owners that wait fresh keys, and reports whether there
// were any. The rotation is the commit point; a crash between it and the writing down
// gives the same owners fresh keys once more.
func (g *Gate) rekeySome(ctx context.Context) (bool, error) {
	r, batch, err := g.nextRekey(ctx)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	var living []holdfast.AssignmentID
	for _, o := range batch {
		if g.Vault.HasOwner(o) && !g.ending(o) {
			living = append(living, holdfast.AssignmentID(o))
		}
	}
	g.reissuing.Lock()
	defer g.reissuing.Unlock()
	if err := g.Vault.Barrier(ctx, living, true); err != nil {
		return false, err
	}
	rw, err := g.Series.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer rw.End(context.WithoutCancel(ctx))
	if err := rw.Roll(ctx); err != nil {
		return false, err
	}
	d := vault.Destruction{}
	defer wipeReplaced(&d)
	var kept uint64
	done := batch[:0:0]
	for _, o := range batch {
		if kept >= rekeyReadings {
			break
		}
		done = append(done, o)
		if !g.Vault.HasOwner(o) || g.ending(o) {
			continue
		}
		re, n, err := g.resealAll(ctx, rw, holdfast.AssignmentID(o))
		if err != nil {
			return false, err
		}
		kept += n
		d.Reissue = append(d.Reissue, re)
	}
	// A page key may have become known with the others: the last rotation replaces all.
	d.AllPages = len(done) == r.Left
	rot, err := g.Vault.Destroy(ctx, d)
	if rot.To == 0 {
		return false, err
	}
	if err != nil {
		g.Logger.Warn("rekey: after the rotation", "err", err)
	}
	g.tellResealed(ctx, d)
	if err := g.rekeyed(ctx, r, done, rot); err != nil {
		return false, err
	}
	return true, rw.End(ctx)
}

// ending reports whether an erasure that was asked for takes all of an owner: its key
// dies with what the erasure has listed, and is not replaced.
func (g *Gate) ending(o vault.Owner) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.open {
		if !s.waits && !s.Scope.InPart() && slices.Contains(owners(s.Scope), o) {
			return true
		}
	}
	return false
}

// nextRekey returns the oldest rekeying that is not done and some of its owners.
func (g *Gate) nextRekey(ctx context.Context) (r Rekey, batch []vault.Owner, err error) {
	all, err := g.Rekeys(ctx)
	if err != nil {
		return r, nil, err
	}
	for _, r = range all {
		if r.Left > 0 {
			break
		}
	}
	if r.Left == 0 {
		return r, nil, nil
	}
	err = g.Catalog.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT owner FROM rekey_owner WHERE rekey = $1 ORDER BY owner LIMIT $2`, r.ID[:], rekeyOwners)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var b []byte
			if err := rows.Scan(&b); err != nil {
				return err
			}
			batch = append(batch, vault.Owner(b))
		}
		return rows.Err()
	})
	return r, batch, err
}

// resealAll seals all readings of an assignment again, each cell under a fresh key.
func (g *Gate) resealAll(ctx context.Context, rw *series.Rewrite, a holdfast.AssignmentID) (vault.Reissue, uint64, error) {
	r := vault.Reissue{Assignment: a, Fresh: true, Replace: map[vault.StreamBucket]seal.Key{}}
	cells, err := g.Series.Cells(ctx, a, nil, holdfast.Always)
	if err != nil {
		return r, 0, err
	}
	var kept uint64
	for _, c := range cells {
		fresh := seal.NewKey()
		n, err := rw.Reseal(ctx, c, func(holdfast.Reading) bool { return true }, seal.NewCipher(fresh))
		if err != nil {
			return r, kept, err
		}
		if n > 0 {
			r.Replace[vault.StreamBucket{Stream: c.Stream, Bucket: c.Bucket}] = fresh
		}
		kept += n
	}
	return r, kept, nil
}

// wipeReplaced overwrites keys that are in their lists now.
func wipeReplaced(d *vault.Destruction) {
	for _, r := range d.Reissue {
		for at := range r.Replace {
			r.Replace[at] = seal.Key{}
		}
	}
}

// rekeyed writes down which owners have fresh keys.
func (g *Gate) rekeyed(ctx context.Context, r Rekey, done []vault.Owner, rot vault.Rotation) error {
	on := vault.Hub
	if !r.Party.IsZero() && g.Vault.HasOwner(vault.OfParty(r.Party)) {
		on = vault.OfParty(r.Party)
	}
	return g.Catalog.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range done {
			if _, err := tx.ExecContext(ctx, `DELETE FROM rekey_owner WHERE rekey = $1 AND owner = $2`, r.ID[:], o[:]); err != nil {
				return err
			}
		}
		if len(done) < r.Left {
			return nil
		}
		_, err := g.Ledger.Append(ctx, tx, on, "rekey done", rekeyEntry{Rekey: r.ID.String(), Owners: r.Owners, From: rot.From, To: rot.To})
		return err
	})
}
