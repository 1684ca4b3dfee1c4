package vault

import (
	"context"
	"errors"
	"fmt"
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
	// Over says that lists of buckets which ended before then, ns since 1970, need no
	// Barrier: nothing is sealed under their journal keys any more, and all that was is
	// rolled. Of such a list that lost a key every journal key goes.
	Over int64
	// Fresh is for when the owner key may have become known. Every stream key that
	// Replace does not replace is dropped, of the journal keys all but the one that the
	// Barrier before made, and the list without time gets new fields and records keys
	// for what comes next; its old ones stay in it, and open what they sealed. The
	// assignment may also be the id of a party, or the hub's.
	Fresh bool
}

// dropping is what a reissue drops, to be asked for each key of each list.
type dropping map[StreamBucket]bool

func (r *Reissue) dropping() dropping {
	all := make(dropping, len(r.Drop))
	for _, d := range r.Drop {
		all[d] = true
	}
	return all
}

func (d dropping) drops(k listKey, b seal.Bucket) bool {
	return k.kind == entryStream && (d[StreamBucket{k.stream, 0}] || d[StreamBucket{k.stream, b}])
}

// Destruction is what one rotation of the root key destroys.
type Destruction struct {
	Owners  []Owner // left out of the keyring
	Reissue []Reissue
	// AllPages gives every page of the keyring a fresh key, where else only those
	// that lose an entry get one: for when a page key may have become known.
	AllPages bool
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

// Barrier takes the journal keys of the assignments out of use and waits until
// no lease of them is out, at most the life of a lease. With fresh, each list
// gets a new journal key for what comes next; without, the assignments are
// expected to accept nothing more. Between a Barrier with fresh keys and the Destroy
// that it is for, no other may come for the same assignment: its fresh key would be
// the newest, and what is sealed under the first since the journal was rolled would
// die with that.
func (v *Vault) Barrier(ctx context.Context, assignments []holdfast.AssignmentID, fresh bool) error {
	in := map[holdfast.AssignmentID]bool{}
	for _, a := range assignments {
		in[a] = true
	}
	old := v.leases.remove(in, nil)
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
		old = v.leases.remove(in, nil)
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
	v.leases.left(old)
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
		if holdfast.KindOf(err) == holdfast.NotFound {
			return nil // its keys have been destroyed meanwhile
		} else if err != nil {
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
// the catalog; new pages and the new head are durable in the place, then, with the
// reissued lists and what is taken back, in a copy at least; then each holder
// destroys the old root key. Up to the first of those, a crash leaves the
// old generation in force and the next Open discards the new one; after it, the
// next Open goes on with the new one.
func (v *Vault) Destroy(ctx context.Context, d Destruction) (Rotation, error) {
	v.rotating.Lock()
	defer v.rotating.Unlock()
	begun := time.Now()

	if err := v.destroyLeft(ctx); err != nil {
		return Rotation{}, err
	}
	plan, err := v.plan(ctx, d)
	if err != nil {
		return Rotation{}, fmt.Errorf("plan destruction of keys: %w", err)
	}
	next, err := v.stage(ctx, plan)
	if err != nil {
		return Rotation{}, v.discard(ctx, err)
	}
	if err := v.copyStaged(ctx, next, plan); err != nil {
		v.copies.dirty()
		return Rotation{}, v.discard(ctx, err)
	}
	old := v.ring
	rot := Rotation{From: old.generation, To: next.generation, OwnerKeys: plan.ownerKeys, RecordKeys: plan.recordKeys}
	// Whoever asked may go away, and the hub may be told to end: what is begun here is
	// done to its end, each call within its bound.
	ctx = context.WithoutCancel(ctx)
	var failed []error
	for i, h := range v.holders {
		e, err := destroyIn(ctx, h, next.generation, old.roots(), next.roots())
		if err == nil {
			rot.Holders = append(rot.Holders, e)
			continue
		}
		gens, gerr := h.Generations(ctx)
		if i == 0 && gerr == nil && slices.Contains(gens, old.generation) {
			v.copies.dirty()
			return Rotation{}, v.discard(ctx, err)
		}
		was := old.roots()
		failed, v.unsure = append(failed, fmt.Errorf("%w%s", err, waitFor(v.holders, h))), &was
	}
	for _, f := range v.opts.Fenced {
		rot.Holders = append(rot.Holders, HolderEvidence{Holder: f.Name, Kind: f.Kind, Grade: f.Grade, Vouched: f.Vouched, State: HolderPending, At: f.Since.UTC()})
	}
	// Past the commit point there is no way back, even if a holder still has the old
	// key, or can't say that it is rid of it for good: what went on under the old
	// generation would be lost at the next start.
	rot.At = time.Now().UTC()
	litter := v.enter(next, plan)
	v.metrics.rotation(rot.At.Sub(begun))
	// What is left now is litter under keys that no longer exist.
	err = v.settle(ctx)
	if err == nil {
		err = v.place.Remove(litter...)
	}
	v.dropFromCopies(ctx, litter)
	if failed != nil { // nothing may be certified yet: the next rotation begins with it
		return Rotation{}, errors.Join(append(failed, err)...)
	}
	return rot, err
}

// destroyLeft destroys what an earlier rotation left in a holder. If that one was
// not sure, even a holder that names nothing older is asked: it may be gone, but
// not yet for good. A holder that does not answer stops the rotation here.
func (v *Vault) destroyLeft(ctx context.Context) error {
	for _, h := range v.holders {
		gens, err := h.Generations(ctx)
		if err == nil && !slices.Contains(gens, v.ring.generation) {
			err = holdfast.Errorf(holdfast.Unavailable, "holder %s no longer holds root key %d, which is in force: were its keys taken away, a disk that is not mounted?", h.Name(), v.ring.generation)
		}
		if err != nil {
			return fmt.Errorf("%w%s", err, wayOut(v.holders, h))
		}
		for _, n := range gens {
			v.highest = max(v.highest, n)
		}
		left := roots{}
		switch {
		case v.unsure != nil:
			left = *v.unsure
		case slices.Min(gens) >= v.ring.generation:
			continue
		}
		if _, err := destroyIn(ctx, h, v.ring.generation, left, v.ring.roots()); err != nil {
			return fmt.Errorf("%w%s", err, waitFor(v.holders, h))
		}
	}
	v.unsure = nil
	return nil
}

// discard undoes a stage that did not reach the commit point. What the holders have
// of it goes with the next destruction: nothing is sealed under it, and its number
// is not used again.
func (v *Vault) discard(ctx context.Context, cause error) error {
	return errors.Join(cause, v.ring.sweep(v.place), v.settle(ctx))
}
