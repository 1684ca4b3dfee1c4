package grant

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Flush writes the amounts that the catalog does not have, and closes the
// disclosures that no read can join any more.
func (r *Register) Flush(ctx context.Context) error { return r.flush(ctx, false) }

// Close is Flush at the end of the process: it closes every disclosure that no
// read is using. Those in use stay open, their amount unknown.
func (r *Register) Close(ctx context.Context) error { return r.flush(ctx, true) }

func (r *Register) flush(ctx context.Context, all bool) error {
	r.mu.Lock()
	var due []holdfast.DisclosureID
	for id, o := range r.byID {
		if o.readers == 0 && (all || r.now().Sub(o.Opened) >= extendFor) {
			o.sealed = true
		}
		if o.sealed || o.dirty {
			due = append(due, id)
		}
	}
	r.mu.Unlock()

	var errs []error
	for batch := range slices.Chunk(due, 200) {
		if r.settle(ctx, batch) == nil {
			continue
		}
		for i := range batch { // one by one, so that one doesn't hold up the others
			errs = append(errs, r.settle(ctx, batch[i:i+1]))
		}
	}
	return errors.Join(errs...)
}

// settled is a disclosure as it is being written.
type settled struct {
	disclosing
	box []byte
}

// settle writes a batch of disclosures as they are, and what they add to their
// tallies.
func (r *Register) settle(ctx context.Context, ids []holdfast.DisclosureID) error {
	r.disclosing.Lock()
	defer r.disclosing.Unlock()
	var batch []settled
	changes := r.newChanges()
	for _, was := range r.asTheyAre(ids) {
		box, err := r.seal(ctx, vault.OfParty(was.Owner), "disclosure", was.ID[:], was.info())
		if err == nil {
			err = changes.settled(ctx, &was)
		}
		switch {
		case vault.Gone(err):
			r.forget(was.Owner) // erased meanwhile: there is no record left to write to
		case err != nil:
			return err
		default:
			batch = append(batch, settled{was, box})
		}
	}
	if len(batch) == 0 {
		return nil
	}
	if err := changes.seal(ctx); err != nil {
		if vault.Gone(err) && len(batch) == 1 {
			r.forget(batch[0].Owner)
			return nil
		}
		return err
	}
	r.written.Add(1)
	defer r.written.Add(1)
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		for _, o := range batch {
			if err := r.update(ctx, tx, o); err != nil {
				return err
			}
		}
		return changes.write(ctx, tx)
	})
	if err != nil {
		return err
	}
	changes.keep()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, was := range batch {
		o := r.byID[was.ID]
		switch {
		case o == nil:
		case was.sealed:
			r.drop(o)
		default: // a read that ended since keeps it dirty
			o.reads, o.rows = was.Reads, was.Rows
			o.dirty = o.Reads != was.Reads || o.Rows != was.Rows || o.readers != was.readers
		}
	}
	return nil
}

// asTheyAre returns those of the disclosures that are still in memory.
func (r *Register) asTheyAre(ids []holdfast.DisclosureID) []disclosing {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]disclosing, 0, len(ids))
	for _, id := range ids {
		if o := r.byID[id]; o != nil {
			all = append(all, *o)
		}
	}
	return all
}

func (r *Register) update(ctx context.Context, tx *sql.Tx, o settled) error {
	state := stateOpen
	if o.sealed {
		state = stateClosed
	}
	res, err := tx.ExecContext(ctx, `UPDATE disclosure SET state = $1, info_sealed = $2 WHERE owner = $3 AND n = $4 AND id = $5`, state, o.box, o.Owner, o.n, o.ID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 || !o.sealed {
		return err // no row: erased meanwhile
	}
	_, err = r.ledger.Append(ctx, tx, vault.OfParty(o.Owner), "disclosure closed", struct {
		Disclosure holdfast.DisclosureID `json:"disclosure"`
		disclosureInfo
	}{o.ID, o.info()})
	return err
}

// drop takes o out of memory; r.mu is held.
func (r *Register) drop(o *disclosing) {
	delete(r.byID, o.ID)
	if k := o.key(); r.byKey[k] == o {
		delete(r.byKey, k)
	}
}

// forget drops what is in memory of an owner. A read under way then finds its
// disclosure not open, and stops.
func (r *Register) forget(owner holdfast.PartyID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.byID {
		if o.Owner == owner {
			r.drop(o)
		}
	}
}
