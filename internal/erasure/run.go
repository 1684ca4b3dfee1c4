package erasure

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// retryAfter is how long Run leaves a failed erasure alone.
const retryAfter = 10 * time.Second

// Run carries out what is asked, as it is asked, until ctx ends. All that wait
// share one rotation. What fails is tried again: an erasure is never given up.
func (g *Gate) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		}
		for {
			err := g.Once(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			g.Logger.Error("erasure: not finished, will be tried again", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryAfter):
			}
		}
	}
}

// Once carries out everything that is asked for now.
func (g *Gate) Once(ctx context.Context) error {
	undone, err := g.Undone(ctx)
	if err != nil {
		return err
	}
	var asked []Erasure
	for _, e := range undone {
		if e.State == Asked {
			asked = append(asked, e)
		}
	}
	for len(asked) > 0 {
		var batch []Erasure
		batch, asked = together(asked)
		if err := g.destroy(ctx, batch); err != nil {
			return fmt.Errorf("destroy keys: %w", err)
		}
	}
	if undone, err = g.Undone(ctx); err != nil {
		return err
	}
	// What was asked for meanwhile still has its keys: it comes in the next round.
	gone := slices.DeleteFunc(undone, func(e Erasure) bool { return e.State != Destroyed })
	if len(gone) == 0 {
		return nil
	}
	for _, e := range gone {
		for _, place := range g.Places.purge() {
			if err := place(ctx, e.scope(e.Party)); err != nil {
				return fmt.Errorf("purge erasure %s: %w", e.ID, err)
			}
		}
	}
	for _, place := range g.Places.shared() {
		if err := place(ctx); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
	}
	for _, e := range gone {
		if err := g.finish(ctx, e); err != nil {
			return fmt.Errorf("finish erasure %s: %w", e.ID, err)
		}
	}
	return nil
}

// together picks the erasures that can share a rotation: all, but for a second
// one that touches an assignment in part.
func together(asked []Erasure) (batch, rest []Erasure) {
	taken := map[holdfast.AssignmentID]bool{}
	for _, e := range asked {
		clash := slices.ContainsFunc(e.Scope.Assignments, func(a holdfast.AssignmentID) bool { return taken[a] })
		if clash {
			rest = append(rest, e)
			continue
		}
		for _, a := range e.Scope.Assignments {
			taken[a] = true
		}
		batch = append(batch, e)
	}
	return batch, rest
}

// destroy makes the keys of a batch unrecoverable. What is erased in part is
// sealed again first (see series.Rewrite for the order); the rotation of the
// root key is the commit point of it all.
func (g *Gate) destroy(ctx context.Context, batch []Erasure) error {
	var d vault.Destruction
	var whole, part []holdfast.AssignmentID
	for _, e := range batch {
		if s := e.scope(e.Party); inPart(s) {
			part = append(part, g.living(s.Assignments)...)
		} else {
			whole = append(whole, s.Assignments...)
			d.Owners = append(d.Owners, owners(s)...)
		}
	}
	if err := g.Vault.Barrier(ctx, whole, false); err != nil {
		return err
	}
	if len(part) > 0 {
		if err := g.Vault.Barrier(ctx, part, true); err != nil {
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
		for _, e := range batch {
			if s := e.scope(e.Party); inPart(s) {
				if d.Reissue, err = g.reseal(ctx, rw, s, d.Reissue); err != nil {
					return err
				}
			}
		}
		if err := g.rotate(ctx, d, batch); err != nil {
			return err
		}
		return rw.End(ctx)
	}
	return g.rotate(ctx, d, batch)
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
	for _, e := range batch {
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
		g.metrics.seconds.Observe(rot.At.Sub(e.AskedAt).Seconds())
	}
	return nil
}

// finish puts an erasure that has left every place on the ledger and signs its
// certificate.
func (g *Gate) finish(ctx context.Context, e Erasure) error {
	e.PurgedAt = time.Now().UTC()
	var index uint64
	err := g.save(ctx, e, func(tx *sql.Tx) (err error) {
		index, err = g.Ledger.Append(ctx, tx, vault.Hub, ledger.KindErasure, entry{Erasure: e.ID, Covers: ledger.Covers{RecordKeys: e.RecordKeys}, OwnerKeys: e.OwnerKeys, Scope: e.Scope})
		return err
	})
	if err != nil {
		return err
	}
	proof, err := g.Ledger.Prove(ctx, vault.Hub, index)
	if err != nil {
		return err
	}
	if e.Certificate, err = g.certify(e, proof); err != nil {
		return err
	}
	e.State = Done
	if err := g.save(ctx, e, nil); err != nil {
		return err
	}
	g.mu.Lock()
	if _, ok := g.open[e.ID]; ok {
		delete(g.open, e.ID)
		g.holding.Add(-1)
	}
	if ended := g.done[e.ID]; ended != nil {
		close(ended)
		delete(g.done, e.ID)
	}
	g.mu.Unlock()
	g.metrics.finished.Inc()
	return nil
}

// entry is what the ledger says of an erasure, on the hub's record.
type entry struct {
	Erasure holdfast.ErasureID `json:"erasure"`
	ledger.Covers
	OwnerKeys []seal.KeyID `json:"owner_keys"`
	Scope     Scope        `json:"scope"`
}
