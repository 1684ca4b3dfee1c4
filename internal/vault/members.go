package vault

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Statement is what a holder that had been fenced said when it could be asked
// again, or what a person said for it: everything before generation Below is
// destroyed. It completes what certificates name as pending.
type Statement struct {
	HolderEvidence
	Below uint64 `json:"below"`
}

// Pending returns the holders that are not asked: each rotation names them as
// pending.
func (v *Vault) Pending() []Fenced {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	return slices.Clone(v.opts.Fenced)
}

// Completed returns what a holder that was pending at the rotation to generation to
// has said since; false if it has said nothing yet.
func (v *Vault) Completed(holder string, to uint64) (HolderEvidence, bool) {
	v.rotating.RLock()
	defer v.rotating.RUnlock()
	for _, s := range v.opts.Statements {
		if s.Holder == holder && s.Below >= to {
			return s.HolderEvidence, true
		}
	}
	return HolderEvidence{}, false
}

// Join gives a holder a part in the keyring: it destroys what it held before the
// generation in force and wraps the root key, and a head that names it takes the
// place of the head, whole or not at all. It is registered by then; as fenced, so
// that a crash on the way leaves nobody out of account.
//
// fresh says that it never had a part: then it must hold nothing, lest another
// hub's keys are destroyed.
func (v *Vault) Join(ctx context.Context, h Holder, fresh bool) (Statement, error) {
	v.rotating.Lock()
	defer v.rotating.Unlock()
	h = bound([]Holder{h}, v.opts)[0]
	if slices.ContainsFunc(v.holders, func(o Holder) bool { return o.Name() == h.Name() }) {
		return Statement{}, holdfast.Errorf(holdfast.Conflict, "holder %s has a part in the keyring already", h.Name())
	}
	if len(v.holders) == maxHolders {
		return Statement{}, holdfast.Errorf(holdfast.Conflict, "a keyring has %d holders at most", maxHolders)
	}
	gens, err := h.Generations(ctx)
	if err != nil {
		return Statement{}, err
	}
	if fresh && len(gens) > 0 {
		return Statement{}, holdfast.Errorf(holdfast.Conflict, "holder %s holds root keys already (generations %s): it may be another hub's. Nothing was changed. Give a new place", h.Name(), numbers(gens))
	}
	now := v.ring.generation
	said, err := destroyIn(ctx, h, now, roots{}, roots{})
	if err != nil {
		return Statement{}, err
	}
	var b holderBox
	seal.Quiet(func() { b, err = wrap(ctx, h, now, v.ring.root) })
	if err != nil {
		return Statement{}, err
	}
	if gens, err = h.Generations(ctx); err != nil {
		return Statement{}, err
	}
	if len(gens) == 0 || gens[0] != now {
		return Statement{}, holdfast.Errorf(holdfast.Internal, "holder %s lies: it was to hold generation %d and nothing before, and says that it holds %s", h.Name(), now, numbers(gens))
	}
	for _, n := range gens {
		v.highest = max(v.highest, n)
	}
	boxes := slices.DeleteFunc(slices.Clone(v.ring.boxes), func(o holderBox) bool { return o.name == h.Name() })
	if err := v.rewriteHead(ctx, append(boxes, b)); err != nil {
		return Statement{}, err
	}
	v.holders = append(slices.Clip(v.holders), h)
	v.opts.Fenced = slices.DeleteFunc(slices.Clone(v.opts.Fenced), func(f Fenced) bool { return f.Name == h.Name() })
	s := Statement{said, now}
	if !fresh {
		v.opts.Statements = append(slices.Clip(v.opts.Statements), s)
	}
	return s, nil
}

// Knows is nil if a holder opens what the head in force has for its name: then it is the
// one of that name.
func (v *Vault) Knows(ctx context.Context, h Holder) error {
	v.rotating.Lock()
	defer v.rotating.Unlock()
	i := slices.IndexFunc(v.ring.boxes, func(b holderBox) bool { return b.name == h.Name() })
	if i < 0 {
		return holdfast.Errorf(holdfast.Conflict, "whether this is holder %s can't be seen any more: the root key was replaced since. Nothing was changed. Have somebody answer for what it held: holdfast holder remove %[1]s --vouch WHO; then add it under another name", h.Name())
	}
	var err error
	same := false
	seal.Quiet(func() {
		var root seal.Key
		if root, err = h.Open(ctx, v.ring.generation, v.ring.boxes[i].box); err == nil {
			same = root == v.ring.root
		}
		root.Wipe()
	})
	if err != nil || !same {
		return holdfast.Errorf(holdfast.Denied, "what is there is not holder %s: it does not open what the keyring has for that name. Nothing was changed", h.Name())
	}
	return nil
}

// maxHolders is what a head has room for, beside a box for shareholders.
const maxHolders = 1<<8 - 2

// Leave ends a holder's part in the keyring: it destroys all that it holds, and the
// head no longer names it. It is registered as fenced by then. h need not have a
// part any more. One holder must stay.
func (v *Vault) Leave(ctx context.Context, h Holder) (Statement, error) {
	v.rotating.Lock()
	defer v.rotating.Unlock()
	h = bound([]Holder{h}, v.opts)[0]
	rest := slices.DeleteFunc(slices.Clone(v.holders), func(o Holder) bool { return o.Name() == h.Name() })
	if len(rest) == 0 {
		return Statement{}, holdfast.Errorf(holdfast.Conflict, "holder %s is the only one: without it the data can't be opened. Add another first", h.Name())
	}
	gens, err := h.Generations(ctx)
	if err != nil {
		return Statement{}, err
	}
	for _, n := range gens {
		v.highest = max(v.highest, n)
	}
	said, err := destroyIn(ctx, h, v.highest+1, v.ring.roots(), roots{})
	if err != nil {
		return Statement{}, err
	}
	s := Statement{said, v.highest + 1}
	return s, v.forget(ctx, h.Name(), s)
}

// LeaveFor ends the part of a fenced holder that can't be asked: somebody answers
// for it that what it held is destroyed.
func (v *Vault) LeaveFor(ctx context.Context, name, vouched string) (Statement, error) {
	v.rotating.Lock()
	defer v.rotating.Unlock()
	i := slices.IndexFunc(v.opts.Fenced, func(f Fenced) bool { return f.Name == name })
	if i < 0 {
		return Statement{}, holdfast.Errorf(holdfast.Conflict, "holder %s is not fenced", name)
	}
	f := v.opts.Fenced[i]
	s := Statement{HolderEvidence{Holder: name, Kind: f.Kind, Grade: f.Grade, Vouched: vouched, State: HolderDestroyed, At: time.Now().UTC()}, v.highest + 1}
	return s, v.forget(ctx, name, s)
}

// forget writes a head without a holder.
func (v *Vault) forget(ctx context.Context, name string, s Statement) error {
	boxes := slices.DeleteFunc(slices.Clone(v.ring.boxes), func(b holderBox) bool { return b.name == name })
	if len(boxes) < len(v.ring.boxes) {
		if err := v.rewriteHead(ctx, boxes); err != nil {
			return err
		}
	}
	v.holders = slices.DeleteFunc(slices.Clone(v.holders), func(o Holder) bool { return o.Name() == name })
	v.opts.Fenced = slices.DeleteFunc(slices.Clone(v.opts.Fenced), func(f Fenced) bool { return f.Name == name })
	v.opts.Statements = append(slices.Clip(v.opts.Statements), s)
	return nil
}

// rewriteHead puts a head of the generation in force, with other boxes, in the place
// of the head, here and in the copies; if no copy can take it, here neither.
func (v *Vault) rewriteHead(ctx context.Context, boxes []holderBox) error {
	next := *v.ring
	defer next.root.Wipe()
	next.boxes = boxes
	rec := &recording{Place: v.place}
	if err := next.writeHead(rec); err != nil {
		return err
	}
	if err := v.changeCopies(ctx, rec.again); err != nil {
		v.copies.dirty() // one may have it, and not have said so
		return errors.Join(err, v.ring.writeHead(v.place))
	}
	v.ringMu.Lock()
	v.ring.boxes = boxes
	v.ringMu.Unlock()
	return nil
}
