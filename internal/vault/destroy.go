package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// StreamBucket names one stream key. Bucket 0 means every bucket.
type StreamBucket struct {
	Stream holdfast.StreamID
	Bucket seal.Bucket
}

// Reissue is an erasure in part: the lists of one assignment are written anew
// under a fresh owner key, without the dropped stream keys; a replaced one keeps
// its place with the key that the surviving rows were sealed again under.
// A list that lost a key also loses its journal keys, but for the one that the
// Barrier before made fresh.
type Reissue struct {
	Assignment holdfast.AssignmentID
	Drop       []StreamBucket
	Replace    map[StreamBucket]seal.Key
}

func (r Reissue) drops(k listKey, b seal.Bucket) bool {
	return k.kind == entryStream &&
		(slices.Contains(r.Drop, StreamBucket{k.stream, 0}) || slices.Contains(r.Drop, StreamBucket{k.stream, b}))
}

// Destruction is what one rotation of the root key destroys.
type Destruction struct {
	Owners  []Owner // left out of the keyring
	Reissue []Reissue
}

// Rotation is what a destruction did, for the certificate.
type Rotation struct {
	From, To  uint64 // generations of the root key
	OwnerKeys map[Owner]seal.KeyID
	// RecordKeys are the `records` keys that died with their owners: a ledger row
	// under one of them is lawfully unreadable.
	RecordKeys []seal.KeyID
	Holders    []HolderEvidence
	At         time.Time
}

// HolderEvidence is what one holder says of the destruction.
type HolderEvidence struct {
	Holder   string `json:"holder"`
	Grade    Grade  `json:"grade"`
	Evidence []byte `json:"evidence,omitempty"`
}

// Barrier takes the journal keys of the assignments out of use and waits until
// no lease of them is out, at most the life of a lease. With fresh, each list
// gets a new journal key for what comes next; without, the assignments are
// expected to accept nothing more.
func (v *Vault) Barrier(ctx context.Context, assignments []holdfast.AssignmentID, fresh bool) error {
	in := map[holdfast.AssignmentID]bool{}
	for _, a := range assignments {
		in[a] = true
	}
	old := v.leases.remove(in)
	if fresh {
		v.rotating.RLock()
		for _, a := range assignments {
			if err := v.freshJournalKeys(ctx, a); err != nil {
				v.rotating.RUnlock()
				return err
			}
		}
		v.rotating.RUnlock()
		// A key that came into use before its list had the fresh one goes as well;
		// whoever read the list before then has put it into use now.
		v.rotating.Lock()
		old = append(old, v.leases.remove(in)...)
		v.rotating.Unlock()
	}
	timeout := time.After(leaseTime)
	for _, k := range old {
		select {
		case <-k.idle:
		case <-timeout:
			k.revoked.Store(true)
			timeout = time.After(0)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (v *Vault) freshJournalKeys(ctx context.Context, a holdfast.AssignmentID) error {
	rows, err := v.listRows(ctx, OfAssignment(a))
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.bucket == 0 {
			continue
		}
		_, err := v.list(ctx, row.owner, row.bucket, func(l *keyList) bool {
			if l.cipher(entryJournal, holdfast.StreamID{}) == nil {
				return false
			}
			l.add(entryJournal, holdfast.StreamID{}, seal.NewKey())
			return true
		})
		if err != nil {
			return fmt.Errorf("renew journal key: %w", err)
		}
	}
	return nil
}

// Destroy makes the named keys unrecoverable by rotating the root key. What is
// to survive an erasure in part must have been sealed again, and the journal
// rolled past a Barrier with fresh keys, before.
//
// The order is the argument: reissued lists and retired key ids are durable in
// the catalog; new pages and the new head are durable in the place; then each
// holder destroys the old root key. Up to the first of those, a crash leaves the
// old generation in force and the next Open discards the new one; after it, the
// next Open goes on with the new one.
func (v *Vault) Destroy(ctx context.Context, d Destruction) (Rotation, error) {
	v.rotating.Lock()
	defer v.rotating.Unlock()

	if err := v.destroyLeft(ctx); err != nil {
		return Rotation{}, err
	}
	plan, err := v.plan(ctx, d)
	if err != nil {
		return Rotation{}, fmt.Errorf("plan destruction of keys: %w", err)
	}
	if err := v.db.Write(ctx, func(tx *sql.Tx) error { return plan.write(ctx, tx) }); err != nil {
		return Rotation{}, fmt.Errorf("write reissued key lists: %w", err)
	}
	next, err := v.stage(ctx, plan)
	if err != nil {
		return Rotation{}, v.discard(ctx, err)
	}
	rot := Rotation{From: v.ring.generation, To: next.generation, OwnerKeys: plan.ownerKeys, RecordKeys: plan.recordKeys}
	var failed []error
	for i, h := range v.holders {
		evidence, err := h.Destroy(ctx, v.ring.generation)
		if err != nil {
			gens, gerr := h.Generations(ctx)
			held := slices.Contains(gens, v.ring.generation)
			if i == 0 && gerr == nil && held {
				return Rotation{}, v.discard(ctx, fmt.Errorf("destroy root key %d in holder %s: %w", rot.From, h.Name(), err))
			}
			if gerr != nil || held {
				failed = append(failed, fmt.Errorf("root key %d is destroyed in part: holder %s: %w", rot.From, h.Name(), err))
				continue
			}
		}
		rot.Holders = append(rot.Holders, HolderEvidence{h.Name(), h.Grade(), evidence})
	}
	// Past the commit point there is no way back, even if a holder still has the old
	// key: what went on under the old generation would be lost at the next start.
	rot.At = time.Now().UTC()
	v.enter(next, plan)
	// What is left now is litter under keys that no longer exist. The old head goes
	// last: that it is there tells the next Open why lists have no key.
	err = v.dropDeadLists(ctx)
	if err == nil {
		err = next.sweep(v.place)
	}
	if failed != nil { // nothing may be certified yet: the next rotation begins with it
		return Rotation{}, errors.Join(append(failed, err)...)
	}
	return rot, err
}

// destroyLeft destroys what an earlier rotation left in a holder.
func (v *Vault) destroyLeft(ctx context.Context) error {
	for _, h := range v.holders {
		gens, err := h.Generations(ctx)
		if err != nil {
			return fmt.Errorf("ask holder %s: %w", h.Name(), err)
		}
		for _, n := range gens {
			if n == v.ring.generation {
				continue
			}
			if _, err := h.Destroy(ctx, n); err != nil {
				return fmt.Errorf("destroy root key %d in holder %s: %w", n, h.Name(), err)
			}
		}
	}
	return nil
}

// plan is a destruction worked out: who gets which owner key, and which lists.
type plan struct {
	gone       map[Owner]bool
	renewed    map[Owner]seal.Key
	lists      []listRow
	retired    []seal.KeyID // journal keys
	ownerKeys  map[Owner]seal.KeyID
	recordKeys []seal.KeyID
}

func (v *Vault) plan(ctx context.Context, d Destruction) (*plan, error) {
	p := &plan{gone: map[Owner]bool{}, renewed: map[Owner]seal.Key{}, ownerKeys: map[Owner]seal.KeyID{}}
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
		return holdfast.Errorf(holdfast.Invalid, "assignment %s is named twice in one destruction", r.Assignment)
	}
	lists, id, err := v.allLists(ctx, o)
	if err != nil {
		return err
	}
	fresh := seal.NewKey()
	p.renewed[o] = fresh
	p.ownerKeys[o] = id
	for _, l := range lists {
		next := &keyList{owner: o, bucket: l.bucket}
		lost := false
		for _, k := range l.keys {
			if k.kind == entryJournal {
				continue
			}
			if r.drops(k, l.bucket) {
				lost = true
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
		for i, k := range journal {
			if lost && i < len(journal)-1 {
				p.retired = append(p.retired, k.cipher.ID())
			} else {
				next.keys = append(next.keys, k)
			}
		}
		p.lists = append(p.lists, wrapList(next, fresh, fresh.ID()))
	}
	return nil
}

// allLists opens every list of an owner.
func (v *Vault) allLists(ctx context.Context, o Owner) ([]*keyList, seal.KeyID, error) {
	owner, id, err := v.ownerKey(o)
	if err != nil {
		return nil, id, err
	}
	defer owner.Wipe()
	rows, err := v.listRows(ctx, o)
	if err != nil {
		return nil, id, err
	}
	var out []*keyList
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

func (p *plan) write(ctx context.Context, tx *sql.Tx) error {
	for _, row := range p.lists {
		if err := row.put(ctx, tx); err != nil {
			return err
		}
	}
	for _, id := range p.retired {
		if _, err := tx.ExecContext(ctx, `INSERT INTO retired_key (key_id, at) VALUES ($1, $2) ON CONFLICT (key_id) DO NOTHING`,
			id, time.Now().UnixNano()); err != nil {
			return err
		}
	}
	return nil
}

// stage writes the next generation: a fresh page for each that loses or changes
// an entry, the others as they are, and the head that has them all.
func (v *Vault) stage(ctx context.Context, p *plan) (*keyring, error) {
	old := v.ring
	next := &keyring{id: old.id, generation: old.generation + 1, owners: maps.Clone(old.owners)}
	if err := next.seal(ctx, v.holders); err != nil {
		return nil, err
	}
	for _, pg := range old.pages {
		touched := slices.ContainsFunc(pg.owners, func(o Owner) bool {
			_, renewed := p.renewed[o]
			return p.gone[o] || renewed
		})
		if !touched {
			next.pages = append(next.pages, pg)
			continue
		}
		fresh := newPage()
		for _, o := range pg.owners {
			if p.gone[o] {
				delete(next.owners, o)
				continue
			}
			k, ok := p.renewed[o]
			if !ok {
				var err error
				if k, _, err = old.key(o); err != nil {
					return nil, err
				}
			}
			fresh.owners = append(fresh.owners, o)
			next.owners[o] = fresh.wrap(o, k)
			k.Wipe()
		}
		if len(fresh.owners) == 0 {
			continue
		}
		if err := v.place.Write(fresh.name(), next.pageFile(fresh)); err != nil {
			return nil, err
		}
		next.pages = append(next.pages, fresh)
	}
	return next, next.writeHead(v.place)
}

// discard undoes a stage that did not reach the commit point.
func (v *Vault) discard(ctx context.Context, cause error) error {
	errs := []error{cause}
	for _, h := range v.holders {
		if _, err := h.Destroy(ctx, v.ring.generation+1); err != nil {
			errs = append(errs, fmt.Errorf("discard root key %d in holder %s: %w", v.ring.generation+1, h.Name(), err))
		}
	}
	errs = append(errs, v.ring.sweep(v.place))
	return errors.Join(append(errs, v.dropDeadLists(ctx))...)
}

// enter puts the next generation in force in memory.
func (v *Vault) enter(next *keyring, p *plan) {
	v.ringMu.Lock()
	old := v.ring
	v.ring = next
	v.ringMu.Unlock()
	old.root.Wipe()
	for _, pg := range old.pages {
		if !slices.Contains(next.pages, pg) {
			pg.key.Wipe()
		}
	}
	renewed := map[Owner]bool{}
	in := map[holdfast.AssignmentID]bool{}
	for o := range p.renewed {
		renewed[o], in[holdfast.AssignmentID(o)] = true, true
	}
	for o := range p.gone {
		in[holdfast.AssignmentID(o)] = true
	}
	clear(p.renewed)
	v.lists.forget(p.gone, renewed)
	for _, k := range v.leases.remove(in) {
		k.revoked.Store(true)
	}
}

// listRef names the row of a key list.
type listRef struct {
	owner  Owner
	bucket int64
	key    seal.KeyID
}

// deadLists returns the lists that no owner key of the keyring opens, and how many
// of them are the only ones of their owner and bucket.
func (v *Vault) deadLists(ctx context.Context) (dead []listRef, alone int, err error) {
	type place struct {
		owner  Owner
		bucket int64
	}
	alive := map[place]bool{}
	err = v.db.Read(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT owner, bucket, owner_key FROM key_list`)
		if err != nil {
			return err
		}
		defer rows.Close()
		v.ringMu.Lock()
		defer v.ringMu.Unlock()
		for rows.Next() {
			var n listRef
			var o []byte
			if err := rows.Scan(&o, &n.bucket, &n.key); err != nil {
				return err
			}
			copy(n.owner[:], o)
			if e, ok := v.ring.owners[n.owner]; ok && e.id == n.key {
				alive[place{n.owner, n.bucket}] = true
			} else {
				dead = append(dead, n)
			}
		}
		return rows.Err()
	})
	for _, n := range dead {
		if !alive[place{n.owner, n.bucket}] {
			alone++
		}
	}
	return dead, alone, err
}

// checkLists refuses a keyring that lacks keys without a rotation to account for
// it: it was cut, damaged in its last entry, or is an older copy. A rotation that
// stopped before its commit point leaves lists beside those in force, never alone.
func (v *Vault) checkLists(ctx context.Context) error {
	_, alone, err := v.deadLists(ctx)
	if err != nil || alone == 0 {
		return err
	}
	for _, p := range v.ring.pages {
		if p.torn > 0 {
			return holdfast.Errorf(holdfast.Invalid, "open keyring: %s is damaged at offset %d: %d key lists are of an owner whose key stood there. Nothing was changed. Put back an undamaged copy of this file",
				where(v.place, p.name()), p.torn, alone)
		}
	}
	return holdfast.Errorf(holdfast.Invalid, "open keyring: %s lacks the owner keys of %d key lists: it was cut short, or is an older copy. Nothing was changed. Put back the newest copy of the keyring",
		where(v.place, headName(v.ring.generation)), alone)
}

// dropDeadLists deletes the lists that no owner key of the keyring opens.
func (v *Vault) dropDeadLists(ctx context.Context) error {
	dead, _, err := v.deadLists(ctx)
	if err != nil || len(dead) == 0 {
		return err
	}
	return v.db.Write(ctx, func(tx *sql.Tx) error {
		for _, n := range dead {
			if _, err := tx.ExecContext(ctx, `DELETE FROM key_list WHERE owner = $1 AND bucket = $2 AND owner_key = $3`,
				n.owner[:], n.bucket, n.key); err != nil {
				return err
			}
		}
		return nil
	})
}

// Doomed returns the ids of the owner keys and of the records keys that die if
// the owners are left out: an erasure writes them down before it begins. Owners
// without a key are passed over.
func (v *Vault) Doomed(ctx context.Context, owners []Owner) (ownerKeys map[Owner]seal.KeyID, recordKeys []seal.KeyID, err error) {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	p := &plan{gone: map[Owner]bool{}, ownerKeys: map[Owner]seal.KeyID{}}
	if err := v.planOwners(ctx, p, owners); err != nil {
		return nil, nil, err
	}
	return p.ownerKeys, p.recordKeys, nil
}
