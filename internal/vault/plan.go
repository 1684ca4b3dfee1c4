package vault

import (
	"context"
	"database/sql"
	"iter"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// plan is a destruction worked out: who gets which owner key, and which lists.
type plan struct {
	gone       map[Owner]bool
	renewed    map[Owner]*seal.Cipher // the fresh owner keys
	lists      []listRow
	retired    []seal.KeyID        // journal keys
	kept       map[seal.KeyID]bool // journal keys that live on in lists issued anew
	dropped    map[seal.KeyID]bool // all keys of lists that die
	ownerKeys  map[Owner]seal.KeyID
	recordKeys []seal.KeyID
	allPages   bool
}

func (v *Vault) plan(ctx context.Context, d Destruction) (*plan, error) {
	p := &plan{gone: map[Owner]bool{}, renewed: map[Owner]*seal.Cipher{}, ownerKeys: map[Owner]seal.KeyID{}, allPages: d.AllPages, dropped: map[seal.KeyID]bool{}, kept: map[seal.KeyID]bool{}}
	if err := v.planOwners(ctx, p, d.Owners); err != nil {
		return nil, err
	}
	for _, r := range d.Reissue {
		if err := v.planReissue(ctx, p, r); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (v *Vault) planOwners(ctx context.Context, p *plan, owners []Owner) error {
	for _, o := range owners {
		if o == Hub {
			return holdfast.Errorf(holdfast.Invalid, "the hub's own key can't be destroyed")
		}
		if p.gone[o] {
			continue
		}
		lists, id, err := v.allLists(ctx, o)
		if holdfast.KindOf(err) == holdfast.NotFound {
			continue // gone already: destroying twice is success
		} else if err != nil {
			return err
		}
		p.gone[o] = true
		p.ownerKeys[o] = id
		for _, l := range lists {
			for _, k := range l.keys {
				p.dropped[k.cipher.ID()] = true
				switch k.kind {
				case entryJournal:
					p.retired = append(p.retired, k.cipher.ID())
				case entryRecords:
					p.recordKeys = append(p.recordKeys, k.cipher.ID())
				}
			}
			l.wipe()
		}
	}
	return nil
}

func (v *Vault) planReissue(ctx context.Context, p *plan, r Reissue) error {
	o := OfAssignment(r.Assignment)
	if _, twice := p.renewed[o]; twice || p.gone[o] {
		return holdfast.Errorf(holdfast.Invalid, "owner %s is named twice in one destruction", o)
	}
	lists, id, err := v.allLists(ctx, o)
	if holdfast.KindOf(err) == holdfast.NotFound {
		return nil // another destruction has ended the assignment: no part is left
	} else if err != nil {
		return err
	}
	p.ownerKeys[o] = id
	seal.Quiet(func() {
		p.renewed[o] = seal.NewCipher(seal.NewKey())
		drop := r.dropping()
		for _, l := range lists {
			var row listRow
			next := p.reissue(l, drop, r)
			if next.len() > 0 && err == nil {
				if row, err = wrapList(next, p.renewed[o]); err == nil {
					p.lists = append(p.lists, row)
				}
			}
			next.wipe()
			l.wipe()
		}
	})
	return err
}

// reissue returns the list that takes the place of l.
func (p *plan) reissue(l *keyList, drop dropping, r Reissue) *keyList {
	next := &keyList{owner: l.owner, bucket: l.bucket}
	lost := r.Fresh
	for _, k := range l.keys {
		if k.kind == entryJournal {
			continue
		}
		if drop.drops(k, l.bucket) || r.Fresh && k.kind == entryStream {
			lost = true
			p.dropped[k.cipher.ID()] = true
			if by, ok := r.Replace[StreamBucket{k.stream, l.bucket}]; ok {
				next.add(entryStream, k.stream, by)
			}
			continue
		}
		next.keys = append(next.keys, k)
	}
	// Of a list that lost a key the journal keys go, but for the newest: the
	// Barrier made it, and what is sealed under it since lives on.
	journal := slices.DeleteFunc(slices.Clone(l.keys), func(k listKey) bool { return k.kind != entryJournal })
	over := l.bucket != 0 && l.bucket.Ends() <= r.Over
	for i, k := range journal {
		if lost && (over || i < len(journal)-1) {
			p.retired = append(p.retired, k.cipher.ID())
			p.dropped[k.cipher.ID()] = true
		} else {
			p.kept[k.cipher.ID()] = true
			next.keys = append(next.keys, k)
		}
	}
	if r.Fresh && l.bucket == 0 {
		next.add(entryFields, holdfast.StreamID{}, seal.NewKey())
		next.add(entryRecords, holdfast.StreamID{}, seal.NewKey())
	}
	return next
}

// allLists opens every list of an owner.
func (v *Vault) allLists(ctx context.Context, o Owner) (out []*keyList, id seal.KeyID, err error) {
	owner, err := v.ownerKey(o)
	if err != nil {
		return nil, id, err
	}
	defer owner.Wipe()
	id = owner.ID()
	rows, err := v.listRows(ctx, o)
	if err != nil {
		return nil, id, err
	}
	for _, row := range rows {
		if row.ownerKey != id {
			continue
		}
		l := &keyList{owner: o, bucket: row.bucket}
		if err := l.open(row.box, owner); err != nil {
			return nil, id, err
		}
		out = append(out, l)
	}
	return out, id, nil
}

func (v *Vault) listRows(ctx context.Context, o Owner) (out []listRow, err error) {
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT bucket, owner_key, box_sealed FROM key_list WHERE owner = $1`, o[:])
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r := listRow{owner: o}
			var b int64
			if err := rows.Scan(&b, &r.ownerKey, &r.box); err != nil {
				return err
			}
			r.bucket = seal.Bucket(b)
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// write makes durable in the catalog what the rotation needs there: the lists that
// are issued anew, the journal keys that retire, whose lists a crash must settle
// (see settle), and how many entries the next generation has.
func (p *plan) write(ctx context.Context, tx *sql.Tx, next uint64, entries int) error {
	if err := putLists(ctx, tx, p.lists); err != nil {
		return err
	}
	now := time.Now().UnixNano()
	for _, id := range p.retired {
		if _, err := tx.ExecContext(ctx, `INSERT INTO retired_key (key_id, at) VALUES ($1, $2) ON CONFLICT (key_id) DO NOTHING`, id, now); err != nil {
			return err
		}
	}
	for o := range p.owners() {
		if _, err := tx.ExecContext(ctx, `INSERT INTO rekeyed_owner (owner) VALUES ($1) ON CONFLICT (owner) DO NOTHING`, o[:]); err != nil {
			return err
		}
	}
	return writeEntries(ctx, tx, next, entries)
}

// owners are those whose entries the rotation leaves out or replaces.
func (p *plan) owners() iter.Seq[Owner] {
	return func(yield func(Owner) bool) {
		for o := range p.gone {
			if !yield(o) {
				return
			}
		}
		for o := range p.renewed {
			if !yield(o) {
				return
			}
		}
	}
}

// Doomed returns the ids of the owner keys and of the records keys that die if
// the owners are left out: an erasure writes them down before it begins. Owners
// without a key are passed over. It waits for no rotation, which may hang in a holder:
// what one under way replaces, DoomedAfter tells.
func (v *Vault) Doomed(ctx context.Context, owners []Owner) (ownerKeys map[Owner]seal.KeyID, recordKeys []seal.KeyID, err error) {
	ownerKeys = map[Owner]seal.KeyID{}
	for _, o := range owners {
		if o == Hub {
			return nil, nil, holdfast.Errorf(holdfast.Invalid, "the hub's own key can't be destroyed")
		}
		id, records, err := v.doomed(ctx, o)
		if holdfast.KindOf(err) == holdfast.NotFound {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		ownerKeys[o] = id
		recordKeys = append(recordKeys, records...)
	}
	return ownerKeys, recordKeys, nil
}

// DoomedAfter is Doomed when the rotation that is under way has ended.
func (v *Vault) DoomedAfter(ctx context.Context, owners []Owner) (ownerKeys map[Owner]seal.KeyID, recordKeys []seal.KeyID, err error) {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	return v.Doomed(ctx, owners)
}

// doomed is Doomed for one. The list without time is that of the key: where a rotation
// comes in between, both are read again.
func (v *Vault) doomed(ctx context.Context, o Owner) (id seal.KeyID, records []seal.KeyID, err error) {
	for {
		k, err := v.ownerKey(o)
		if err != nil {
			return id, nil, err
		}
		id = k.ID()
		k.Wipe()
		l, err := v.list(ctx, o, 0, nil)
		if err != nil && holdfast.KindOf(err) != holdfast.NotFound {
			return id, nil, err
		}
		if l != nil {
			records = l.ids(entryRecords)
		}
		again, err := v.ownerKey(o)
		if err != nil {
			return id, nil, err
		}
		same := again.ID() == id
		if again.Wipe(); same {
			return id, records, nil
		}
	}
}
