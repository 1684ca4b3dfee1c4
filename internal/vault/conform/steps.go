package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// steps are all, in their order: each finds what the ones before have left.
func steps() []step {
	return []step{
		{"empty", "A keyring that the holder has not seen has no generations: answer [] and make nothing.", (*try).empty},
		{"prepare", "Make a wrapping key for the generation, durable before you answer, and list the generation from then on.", (*try).first},
		{"wrap and unwrap", "Seal the key so that it comes back whole, and so that the box does not show it.", (*try).roundTrip},
		{"prepare again", "Preparing what is prepared is success, and keeps the wrapping key: an answer may have been lost.", (*try).prepareAgain},
		{"power cut", "What was prepared must be durable before you answer: sync the file and its folder.", (*try).powerCut},
		{"altered box", "Seal with authentication (AEAD, or RSA-OAEP), and answer denied for a box that was altered.", (*try).altered},
		{"another generation", "A box belongs to its generation: bind the two together, and answer gone for a generation that you don't hold.", (*try).otherGeneration},
		{"destroy", "Destroy the wrapping keys of every generation before below, for good, before you answer; then answer gone for them, and keep the others.", (*try).destroyed},
		{"destroy again", "Destroying again is success and destroys nothing more.", (*try).destroyAgain},
		{"generations left out", "Numbers are not consecutive, and a generation that nobody used is destroyed with those before below.", (*try).leftOut},
		{"two keyrings", "Keep the keys of each keyring apart: a box of one opens in no other, and destroying in one leaves the other alone.", (*try).twoKeyrings},
		{"two writers", "When two programs use the holder, what one has destroyed must not come back by what the other does.", (*try).twoWriters},
		{"store taken away", "When your keys' disk is unplugged, answer unavailable, never gone: what you can't see you have not destroyed. Look at the disk before each answer, and make nothing anew there.", (*try).takenAway},
		{"killed in the middle", "Whenever the program is killed, the next question must find the state of before or of after: write a new file beside and rename it.", (*try).killed},
		{"leave nothing", "Destroy everything before below, the last generation as well.", (*try).leaveNothing},
	}
}

// first is the first of what failed: the others follow from it.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *try) empty() error { return t.holds() }

func (t *try) first() error {
	if err := t.prepare(1); err != nil {
		return err
	}
	return t.holds(1)
}

func (t *try) roundTrip() error {
	a, err := t.seal(1)
	if err != nil {
		return err
	}
	b, err := t.seal(1)
	if err != nil {
		return err
	}
	if bytes.Equal(a.box, b.box) {
		return errors.New("the boxes of two keys are equal")
	}
	t.boxes = append(t.boxes, a)
	return first(t.opens(a), t.opens(b))
}

func (t *try) prepareAgain() error {
	if err := t.prepare(1); err != nil {
		return err
	}
	return first(t.opens(t.in()), t.holds(1))
}

func (t *try) powerCut() error {
	t.reopen()
	return first(t.holds(1), t.opens(t.in()))
}

// altered flips a bit here and there, and cuts the box short.
func (t *try) altered() error {
	s := t.in()
	for i := range 8 {
		at := i * (len(s.box) - 1) / 7
		bad := bytes.Clone(s.box)
		bad[at] ^= 1
		if err := t.dead(s.n, bad, fmt.Sprintf("a box with byte %d altered", at)); err != nil {
			return err
		}
	}
	return t.dead(s.n, s.box[:len(s.box)-1], "a box that lacks its last byte")
}

func (t *try) otherGeneration() error {
	if err := t.prepare(2); err != nil {
		return err
	}
	if err := t.holds(1, 2); err != nil {
		return err
	}
	if err := t.dead(2, t.in().box, "the box of generation 1 as one of 2"); err != nil {
		return err
	}
	return t.dead(9, t.in().box, "a box as one of generation 9, which was never prepared")
}

func (t *try) destroyed() error {
	s, err := t.seal(2)
	if err != nil {
		return err
	}
	if err := t.opens(t.in()); err != nil { // both, until one is destroyed
		return err
	}
	if err := t.pass(s); err != nil {
		return err
	}
	t.reopen()
	return first(t.settled(), t.holds(2))
}

func (t *try) destroyAgain() error {
	return first(t.destroy(2), t.settled(), t.destroy(1), t.settled(), t.holds(2))
}

// leftOut goes from 2 to 7 past 4 and 5, which were given up.
func (t *try) leftOut() error {
	for _, n := range []uint64{4, 5, 7} {
		if err := t.prepare(n); err != nil {
			return err
		}
	}
	given, err := t.seal(5)
	if err != nil {
		return err
	}
	s, err := t.seal(7)
	if err != nil {
		return err
	}
	if err := t.holds(2, 4, 5, 7); err != nil {
		return err
	}
	t.boxes = append(t.boxes, given)
	return first(t.pass(s), t.holds(7))
}

func (t *try) twoKeyrings() error {
	if t.s.Other == nil {
		return skipped("there is no second keyring")
	}
	other := &try{ctx: t.ctx, s: t.s}
	other.s.Open = t.s.Other
	if err := other.holds(); err != nil {
		return fmt.Errorf("in another keyring: %w", err)
	}
	defer other.clean()
	if err := other.prepare(7); err != nil {
		return fmt.Errorf("in another keyring: %w", err)
	}
	s, err := other.seal(7)
	if err != nil {
		return fmt.Errorf("in another keyring: %w", err)
	}
	other.boxes = []sealed{s}
	if err := t.dead(7, s.box, "a box of another keyring"); err != nil {
		return err
	}
	if err := other.dead(7, t.in().box, "a box of another keyring"); err != nil {
		return err
	}
	if err := other.destroy(8); err != nil {
		return err
	}
	other.high = 7
	return first(other.holds(), t.settled(), t.holds(7))
}

// twoWriters opens the holder twice. The second may be refused, or do as it is
// asked; what is dead stays so, and what is in force stays too.
func (t *try) twoWriters() error {
	var second vault.Holder
	err := t.call("open a second time", func(ctx context.Context, _ vault.Holder) (err error) {
		second, err = t.s.Open(ctx)
		return err
	})
	if err != nil {
		return nil // there is only one at a time
	}
	if c, ok := second.(io.Closer); ok {
		defer c.Close()
	}
	if err := t.prepare(8); err != nil {
		return err
	}
	s, err := t.seal(8)
	if err != nil {
		return err
	}
	if err := t.pass(s); err != nil {
		return err
	}
	t.high = 9
	t.call("the second writer", func(ctx context.Context, _ vault.Holder) error {
		second.Prepare(ctx, 9)
		second.Destroy(ctx, 8)
		return nil
	})
	t.reopen()
	return t.settled()
}

// takenAway asks without the store: no answer may say that anything is destroyed, or
// make another store in its place. When it is back all is as it was.
func (t *try) takenAway() error {
	if t.s.Away == nil {
		return skipped("its store can't be taken away from here")
	}
	if err := t.settled(); err != nil { // and it is open
		return err
	}
	back, err := t.s.Away()
	if err != nil {
		return err
	}
	err = t.silent()
	return first(err, back(), t.settled(), t.prepare(t.high+1))
}

func (t *try) silent() error {
	var out error
	for what, f := range map[string]func(ctx context.Context, h vault.Holder) error{
		"says which generations it holds": func(ctx context.Context, h vault.Holder) error { _, err := h.Generations(ctx); return err },
		"prepares a generation":           func(ctx context.Context, h vault.Holder) error { return h.Prepare(ctx, t.high+1) },
		"says that it has destroyed":      func(ctx context.Context, h vault.Holder) error { _, err := h.Destroy(ctx, t.high); return err },
		"says that a box is dead": func(ctx context.Context, h vault.Holder) error {
			_, err := h.Open(ctx, t.in().n, t.in().box)
			if kind := holdfast.KindOf(err); kind == holdfast.NotFound || kind == holdfast.Denied {
				return nil
			}
			return errors.New("it does not")
		},
	} {
		opened := false
		err := t.call(what, func(ctx context.Context, h vault.Holder) error {
			opened = true
			return f(ctx, h)
		})
		if opened && err == nil {
			out = errors.Join(out, fmt.Errorf("without its store it %s", what))
		}
	}
	return out
}

// killed ends calls somewhere in their middle, and asks again.
func (t *try) killed() error {
	n := t.high
	for cut := range 6 {
		n++
		t.high = n
		var s sealed
		ops := []func(ctx context.Context, h vault.Holder) error{
			func(ctx context.Context, h vault.Holder) error { return h.Prepare(ctx, n) },
			func(ctx context.Context, h vault.Holder) error { _, err := h.Seal(ctx, n, s.root); return err },
			func(ctx context.Context, h vault.Holder) error { _, err := h.Open(ctx, n, s.box); return err },
			func(ctx context.Context, h vault.Holder) error { _, err := h.Destroy(ctx, n); return err },
		}
		for i, op := range ops {
			// The first round measures, the others end the call at a part of that.
			after := t.s.Limit
			if cut > 0 {
				after = t.last[i] * time.Duration(cut) / 5
			}
			begun := time.Now()
			t.cutShort(after, op)
			if cut == 0 {
				t.last[i] = time.Since(begun)
			}
			t.reopen()
			if err := t.again(i, n, &s); err != nil {
				return fmt.Errorf("killed in the middle, then asked again: %w", err)
			}
		}
	}
	return t.holds(n)
}

// cutShort runs a call that ends after a while, done or not.
func (t *try) cutShort(after time.Duration, op func(context.Context, vault.Holder) error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.s.Limit)
	defer cancel()
	if t.open(ctx) == nil {
		in, stop := context.WithTimeout(ctx, after)
		defer stop()
		op(in, t.h)
	}
}

// again does what was cut short, to its end.
func (t *try) again(i int, n uint64, s *sealed) (err error) {
	switch i {
	case 0:
		if err := t.prepare(n); err != nil {
			return err
		}
		return t.settled()
	case 1:
		if *s, err = t.seal(n); err != nil {
			return err
		}
		return t.opens(*s)
	case 2:
		return first(t.opens(*s), t.opens(t.in()))
	}
	if err := t.opens(*s); err != nil { // whether or not the others are dead
		return err
	}
	return t.pass(*s)
}

func (t *try) leaveNothing() error {
	if err := t.destroy(t.high + 1); err != nil {
		return err
	}
	t.old, t.boxes = append(t.old, t.boxes...), nil
	t.reopen()
	for _, o := range t.old {
		if err := t.dead(o.n, o.box, fmt.Sprintf("a copy of the box of generation %d, which is destroyed", o.n)); err != nil {
			return err
		}
	}
	return t.holds()
}
