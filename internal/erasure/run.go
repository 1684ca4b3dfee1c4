package erasure

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// retryAfter is how long Run leaves a failed erasure alone.
const retryAfter = 10 * time.Second

// rest is how far apart rotations are, in times of what one takes: what is asked
// for meanwhile shares the next. It is owed, not kept, for the first few, so that
// a single erasure does not wait; many together leave the keyring to others for
// most of the time.
const (
	rest    = 4
	minRest = 100 * time.Millisecond
	maxRest = time.Second
	owed    = 3
)

// lane is one of the four works of an erasure. Each goes on beside the others, so
// that the keys of a whole party die in the time that a rotation takes, whatever
// another erasure has to seal again or to purge.
type lane struct {
	wake chan struct{}
	busy sync.Mutex // one pass at a time
	pass func(context.Context) error
	rest bool
}

func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (g *Gate) makeLanes() {
	g.whole = &lane{wake: make(chan struct{}, 1), pass: g.destroyWhole, rest: true}
	g.part = &lane{wake: make(chan struct{}, 1), pass: g.destroyParts}
	g.purge = &lane{wake: make(chan struct{}, 1), pass: g.purgeDestroyed}
	g.paper = &lane{wake: make(chan struct{}, 1), pass: g.complete}
}

// Run carries out what is asked, as it is asked, until ctx ends. What waits
// together shares one rotation. What fails is tried again: an erasure is never
// given up.
func (g *Gate) Run(ctx context.Context) error {
	var lanes errgroup.Group
	for _, l := range []*lane{g.whole, g.part, g.purge, g.paper} {
		lanes.Go(func() error { g.run(ctx, l); return nil })
	}
	lanes.Go(func() error { g.tick(ctx); return nil })
	g.paper.poke() // a holder may have come back while the hub was down
	lanes.Go(func() error { g.ripen(ctx); return nil })
	return lanes.Wait()
}

func (g *Gate) run(ctx context.Context, l *lane) {
	var rested time.Time // when all rest will have been kept
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		if l.rest && g.Policy.Window > 0 && !g.linger(ctx) {
			return
		}
		began := time.Now()
		err := l.once(ctx)
		pause := time.Duration(0)
		if l.rest {
			each := min(max(minRest, rest*time.Since(began)), maxRest)
			if rested.Before(began) {
				rested = began
			}
			rested = rested.Add(each)
			pause = time.Until(rested) - owed*each
		}
		if err != nil && ctx.Err() == nil {
			g.Logger.Error("erasure: not finished, will be tried again", "err", err)
			pause = retryAfter
			l.poke()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// linger gives others the time to be asked for, so that they share the rotation. It is
// false when ctx has ended.
func (g *Gate) linger(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(g.Policy.Window):
		return true
	}
}

func (l *lane) once(ctx context.Context) error {
	l.busy.Lock()
	defer l.busy.Unlock()
	return l.pass(ctx)
}

// Once carries out everything that is asked for now.
func (g *Gate) Once(ctx context.Context) error {
	if _, err := g.ripenNow(ctx); err != nil { // what can't begin keeps nothing else
		g.Logger.Error("erasure: not begun, will be tried again", "err", err)
	}
	for _, l := range []*lane{g.whole, g.part, g.purge} {
		if err := l.once(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take gives a lane the erasures that pick chooses of those that are not done;
// no other lane gets them before give.
func (g *Gate) take(ctx context.Context, pick func([]Erasure) []Erasure) ([]Erasure, error) {
	g.taking.Lock()
	defer g.taking.Unlock()
	undone, err := g.Undone(ctx)
	if err != nil {
		return nil, err
	}
	taken := pick(slices.DeleteFunc(undone, func(e Erasure) bool { return g.taken[e.ID] }))
	for _, e := range taken {
		g.taken[e.ID] = true
	}
	return taken, nil
}

// give lets other lanes have what was taken, and tells the one that is next: it
// may have been woken before and found nothing.
func (g *Gate) give(taken []Erasure, next *lane) {
	g.taking.Lock()
	for _, e := range taken {
		delete(g.taken, e.ID)
	}
	g.taking.Unlock()
	if next != nil {
		next.poke()
	}
}

// destroyWhole destroys the owner keys of all that is to go as a whole, in one
// rotation. It does not depend on how much is stored under them. What is asked in
// part of an assignment that goes anyway goes with it.
func (g *Gate) destroyWhole(ctx context.Context) error {
	batch, err := g.take(ctx, func(undone []Erasure) []Erasure {
		doomed := map[holdfast.AssignmentID]bool{}
		for _, e := range undone {
			if e.State == Asked && !e.inPart() {
				for _, a := range e.Scope.Assignments {
					doomed[a] = true
				}
			}
		}
		return slices.DeleteFunc(undone, func(e Erasure) bool {
			lives := slices.ContainsFunc(e.Scope.Assignments, func(a holdfast.AssignmentID) bool { return !doomed[a] })
			return e.State != Asked || e.inPart() && lives
		})
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	defer g.give(batch, g.purge)
	var d vault.Destruction
	var assignments []holdfast.AssignmentID
	for _, e := range batch {
		if !e.inPart() {
			assignments = append(assignments, e.Scope.Assignments...)
			d.Owners = append(d.Owners, owners(e.scope(e.Party))...)
		}
	}
	if err := g.Vault.Barrier(ctx, assignments, false); err != nil {
		return fmt.Errorf("destroy keys: %w", err)
	}
	if err := g.step("barred"); err != nil {
		return err
	}
	if err = g.doomedSince(ctx, batch); err == nil {
		err = g.rotate(ctx, d, batch)
	}
	g.blame(batch, err)
	if err != nil {
		return fmt.Errorf("destroy keys: %w", err)
	}
	return nil
}

// doomedSince has the ledger know the records keys that a rotation, under way when an
// erasure was asked for, has given its owners since: rows under them open no more
// either.
func (g *Gate) doomedSince(ctx context.Context, batch []Erasure) error {
	for i := range batch {
		e := &batch[i]
		if e.inPart() {
			continue
		}
		_, records, err := g.Vault.DoomedAfter(ctx, owners(e.scope(e.Party)))
		if err != nil {
			return err
		}
		records = slices.DeleteFunc(records, func(id seal.KeyID) bool { return slices.Contains(e.RecordKeys, id) })
		if len(records) == 0 {
			continue
		}
		e.RecordKeys = append(e.RecordKeys, records...)
		err = g.save(ctx, *e, func(tx *sql.Tx) error {
			_, err := g.Ledger.Append(ctx, tx, vault.Hub, ledger.KindErasureBegun, beginning{Erasure: e.ID, Covers: ledger.Covers{RecordKeys: records}})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// destroyParts seals again what survives of each erasure in part, then destroys
// what was sealed before.
func (g *Gate) destroyParts(ctx context.Context) error {
	for {
		batch, err := g.take(ctx, together)
		if err != nil {
			return err
		}
		if len(batch) == 0 { // what goes comes before what only gets other keys
			more, err := g.rekeySome(ctx)
			if err != nil {
				return fmt.Errorf("seal again under fresh keys: %w", err)
			}
			if !more {
				return nil
			}
			continue
		}
		err = g.destroyPart(ctx, batch)
		g.blame(batch, err)
		g.give(batch, g.purge)
		if err != nil {
			return fmt.Errorf("destroy keys in part: %w", err)
		}
	}
}

// together picks the erasures in part that can share a rotation: no two of an
// assignment.
func together(undone []Erasure) (batch []Erasure) {
	taken := map[holdfast.AssignmentID]bool{}
	for _, e := range undone {
		clash := slices.ContainsFunc(e.Scope.Assignments, func(a holdfast.AssignmentID) bool { return taken[a] })
		if clash || e.State != Asked || !e.inPart() {
			continue
		}
		for _, a := range e.Scope.Assignments {
			taken[a] = true
		}
		batch = append(batch, e)
	}
	return batch
}

// destroyPart makes the keys of a batch unrecoverable. What survives is sealed
// again first (see series.Rewrite for the order); the rotation of the root key is
// the commit point of it all.
func (g *Gate) destroyPart(ctx context.Context, batch []Erasure) error {
	var part []holdfast.AssignmentID
	for _, e := range batch {
		part = append(part, g.living(e.Scope.Assignments)...)
	}
	g.reissuing.Lock()
	defer g.reissuing.Unlock()
	if err := g.Vault.Barrier(ctx, part, true); err != nil {
		return err
	}
	if err := g.step("barred"); err != nil {
		return err
	}
	rw, err := g.Series.Begin(ctx)
	if err != nil {
		return err
	}
	defer rw.End(context.WithoutCancel(ctx))
	if err := rw.Roll(ctx); err != nil {
		return err
	}
	var d vault.Destruction
	for _, e := range batch {
		for _, s := range e.parts() {
			if d.Reissue, err = g.reseal(ctx, rw, s, d.Reissue); err != nil {
				return err
			}
		}
	}
	if err := g.step("resealed"); err != nil {
		return err
	}
	if err := g.rotate(ctx, d, batch); err != nil {
		return err
	}
	return rw.End(ctx)
}

// purgeDestroyed takes what is under destroyed keys out of every place and
// certifies it. What fails for one erasure does not keep the others.
func (g *Gate) purgeDestroyed(ctx context.Context) error {
	gone, err := g.take(ctx, func(undone []Erasure) []Erasure {
		return slices.DeleteFunc(undone, func(e Erasure) bool { return e.State != Destroyed })
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	defer g.give(gone, nil)
	var errs []error
	var purged []Erasure
	for _, e := range gone {
		if err := g.purgePlaces(ctx, e); err != nil {
			g.blame([]Erasure{e}, err)
			errs = append(errs, fmt.Errorf("purge erasure %s: %w", e.ID, err))
			continue
		}
		purged = append(purged, e)
	}
	if len(purged) == 0 {
		return errors.Join(errs...)
	}
	if err := g.step("purged"); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, place := range g.Places.shared() {
		if err := place.of(ctx); err != nil {
			g.blame(purged, err)
			return errors.Join(append(errs, fmt.Errorf("purge %s: %w", place.name, err))...)
		}
		if err := g.step(place.name); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	for _, e := range purged {
		if err := g.finish(ctx, e); err != nil {
			g.blame([]Erasure{e}, err)
			errs = append(errs, fmt.Errorf("finish erasure %s: %w", e.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (g *Gate) purgePlaces(ctx context.Context, e Erasure) error {
	for _, place := range g.Places.purge() {
		for _, s := range e.parts() {
			if err := place.of(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", place.name, err)
			}
		}
		if err := g.step(place.name); err != nil {
			return err
		}
	}
	return nil
}

// living picks the assignments that have a key. Of one that another erasure has
// ended meanwhile, there is no part left to erase.
func (g *Gate) living(all []holdfast.AssignmentID) []holdfast.AssignmentID {
	return slices.DeleteFunc(slices.Clone(all), func(a holdfast.AssignmentID) bool { return !g.Vault.HasOwner(vault.OfAssignment(a)) })
}

// reseal keeps what survives a scope that goes in part, under fresh stream keys,
// and returns what must be issued anew.
func (g *Gate) reseal(ctx context.Context, rw *series.Rewrite, s holdfast.Scope, out []vault.Reissue) ([]vault.Reissue, error) {
	for _, a := range g.living(s.Assignments) {
		r := vault.Reissue{Assignment: a, Replace: map[vault.StreamBucket]seal.Key{}}
		if s.Month != 0 {
			cells, err := g.Series.Cells(ctx, a, s.Streams, holdfast.Always)
			if err != nil {
				return nil, err
			}
			for _, c := range cells {
				if c.Bucket.Month() == s.Month {
					r.Drop = append(r.Drop, vault.StreamBucket{Stream: c.Stream, Bucket: c.Bucket})
					rw.Drop(c)
				}
			}
			out = append(out, r)
			continue
		}
		if !s.Partial() {
			for _, stream := range s.Streams {
				r.Drop = append(r.Drop, vault.StreamBucket{Stream: stream})
			}
			out = append(out, r)
			continue
		}
		cells, err := g.Series.Cells(ctx, a, s.Streams, s.Span)
		if err != nil {
			return nil, err
		}
		for _, c := range cells {
			fresh := seal.NewKey()
			kept, err := rw.Reseal(ctx, c, func(r holdfast.Reading) bool { return !s.Span.Contains(r.Time) }, seal.NewCipher(fresh))
			if err != nil {
				return nil, err
			}
			at := vault.StreamBucket{Stream: c.Stream, Bucket: c.Bucket}
			r.Drop = append(r.Drop, at)
			if kept > 0 {
				r.Replace[at] = fresh
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// tellResealed says how much has fresh keys. It is for who looks after backups and
// keeps no erasure waiting.
func (g *Gate) tellResealed(ctx context.Context, d vault.Destruction) {
	if g.Resealed == nil {
		return
	}
	cells := 0
	for _, r := range d.Reissue {
		cells += len(r.Replace)
	}
	if err := g.Resealed(ctx, cells); err != nil {
		g.Logger.Warn("erasure: after the rotation", "err", err)
	}
}

// rotate destroys the keys and writes down that it did. A crash between the two
// rotates once more, which destroys nothing that lives.
func (g *Gate) rotate(ctx context.Context, d vault.Destruction, batch []Erasure) error {
	rot, err := g.Vault.Destroy(ctx, d)
	if rot.To == 0 {
		return err
	}
	if err != nil { // past the commit point: what is left is litter
		g.Logger.Warn("erasure: after the rotation", "err", err)
	}
	g.holders.note(rot)
	g.tellResealed(ctx, d)
	if err := g.step("rotated"); err != nil {
		return err
	}
	late := g.lateCopies()
	for _, e := range batch {
		e.Late = late
		e.State, e.From, e.To, e.Holders, e.KeysDeadAt = Destroyed, rot.From, rot.To, rot.Holders, rot.At
		// In part, the keys that were replaced; of what is gone, those that an erasure
		// in part has put in the place of the ones that were doomed when it was asked.
		for _, o := range owners(e.scope(e.Party)) {
			if id, ok := rot.OwnerKeys[o]; ok && !slices.Contains(e.OwnerKeys, id) {
				e.OwnerKeys = append(e.OwnerKeys, id)
			}
		}
		if err := g.save(ctx, e, nil); err != nil {
			return err
		}
		g.metrics.seconds.Observe(rot.At.Sub(e.Began()).Seconds())
	}
	return g.step("destroyed")
}

// finish puts an erasure that has left every place on the ledger and signs its
// certificate. After a crash in between it is done again: the ledger may then have
// the entry twice, and the certificate is of the second.
func (g *Gate) finish(ctx context.Context, e Erasure) error {
	if e.PurgedAt.IsZero() {
		e.PurgedAt = time.Now().UTC()
	}
	if err := g.fill(ctx, &e); err != nil {
		return err
	}
	said, err := e.entry()
	if err != nil {
		return err
	}
	var index uint64
	err = g.save(ctx, e, func(tx *sql.Tx) (err error) {
		index, err = g.Ledger.Append(ctx, tx, vault.Hub, ledger.KindErasure, said)
		return err
	})
	if err != nil {
		return err
	}
	if err := g.step("recorded"); err != nil {
		return err
	}
	if err := g.issue(ctx, e, index); err != nil {
		return err
	}
	g.show(e.ID)
	g.metrics.finished.Inc()
	return g.step("certified")
}

// beginning is what the ledger says, on the hub's record, of an erasure that is asked
// for.
type beginning struct {
	Erasure holdfast.ErasureID `json:"erasure"`
	ledger.Covers
}
