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

// holderTimeout bounds a call of a holder.
const holderTimeout = 30 * time.Second

// bounded is a holder of whom each call has a time bound, and whose errors name
// him.
type bounded struct {
	Holder
	limit time.Duration
}

func bound(holders []Holder, opts Options) []Holder {
	limit := opts.HolderTimeout
	if limit <= 0 {
		limit = holderTimeout
	}
	out := make([]Holder, len(holders))
	for i, h := range holders {
		out[i] = bounded{h, limit}
	}
	return out
}

func (b bounded) vouchedBy() string {
	if r, ok := b.Holder.(registered); ok {
		return r.vouched
	}
	return ""
}

func (b bounded) call(ctx context.Context, what string, do func(ctx context.Context) error) error {
	in, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	err := do(in)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.Is(in.Err(), context.DeadlineExceeded):
		return holdfast.Errorf(holdfast.Unavailable, "%s: holder %s hangs: it did not answer within %s", what, b.Name(), b.limit)
	}
	return fmt.Errorf("%s: holder %s: %w", what, b.Name(), err)
}

func (b bounded) Generations(ctx context.Context) (out []uint64, err error) {
	err = b.call(ctx, "ask for generations", func(ctx context.Context) error {
		out, err = b.Holder.Generations(ctx)
		return err
	})
	return out, err
}

func (b bounded) Prepare(ctx context.Context, n uint64) error {
	return b.call(ctx, fmt.Sprintf("prepare root key %d", n), func(ctx context.Context) error { return b.Holder.Prepare(ctx, n) })
}

func (b bounded) Seal(ctx context.Context, n uint64, root seal.Key) (box []byte, err error) {
	k := new(seal.Key) // what a closure has in hand is copied: here it can be wiped
	*k = root
	defer k.Wipe()
	err = b.call(ctx, fmt.Sprintf("seal root key %d", n), func(ctx context.Context) error {
		box, err = b.Holder.Seal(ctx, n, *k)
		return err
	})
	return box, err
}

func (b bounded) Open(ctx context.Context, n uint64, box []byte) (seal.Key, error) {
	k := new(seal.Key)
	defer k.Wipe()
	err := b.call(ctx, fmt.Sprintf("open root key %d", n), func(ctx context.Context) (err error) {
		*k, err = b.Holder.Open(ctx, n, box)
		return err
	})
	return *k, err
}

func (b bounded) Destroy(ctx context.Context, below uint64) (said []byte, err error) {
	err = b.call(ctx, fmt.Sprintf("destroy the root keys before %d", below), func(ctx context.Context) error {
		said, err = b.Holder.Destroy(ctx, below)
		return err
	})
	return said, err
}

// maxBox is what a head has room for.
const maxBox = 1<<16 - 1

// wrap has a holder wrap the root key of generation n and give it back.
func wrap(ctx context.Context, h Holder, n uint64, root seal.Key) (holderBox, error) {
	if err := h.Prepare(ctx, n); err != nil {
		return holderBox{}, err
	}
	box, err := h.Seal(ctx, n, root)
	if err != nil {
		return holderBox{}, err
	}
	if len(box) == 0 || len(box) > maxBox {
		return holderBox{}, holdfast.Errorf(holdfast.Internal, "holder %s made a box of %d bytes of root key %d: 1 to %d are possible", h.Name(), len(box), n, maxBox)
	}
	back, err := h.Open(ctx, n, box)
	if err != nil {
		return holderBox{}, fmt.Errorf("what was just sealed does not open: %w", err)
	}
	defer back.Wipe()
	if back != root {
		return holderBox{}, holdfast.Errorf(holdfast.Internal, "holder %s lies: it does not give back root key %d", h.Name(), n)
	}
	return holderBox{h.Name(), box}, nil
}

// roots is a root key as the holders have it: its generation, and a box of each.
type roots struct {
	generation uint64
	boxes      []holderBox
}

// destroyIn has a holder destroy what is before below, and does not believe it: the box
// that the keyring had, of old, must not open, and that of living must. One whose store
// was taken away opens neither, and has destroyed nothing.
func destroyIn(ctx context.Context, h Holder, below uint64, old, living roots) (HolderEvidence, error) {
	said, err := h.Destroy(ctx, below)
	if err != nil {
		return HolderEvidence{}, err
	}
	tried, err := old.open(ctx, h)
	switch {
	case !tried:
	case err == nil:
		return HolderEvidence{}, holdfast.Errorf(holdfast.Internal, "holder %s lies: it says that it has destroyed root key %d and still opens it", h.Name(), old.generation)
	case !shut(err):
		return HolderEvidence{}, fmt.Errorf("see that root key %d is gone: %w", old.generation, err)
	}
	tried, err = living.open(ctx, h)
	switch {
	case tried && shut(err):
		return HolderEvidence{}, holdfast.Errorf(holdfast.Unavailable, "holder %s has lost root key %d with those before it: were its keys taken away? What it says to have destroyed may lie there: %w", h.Name(), living.generation, err)
	case tried && err != nil:
		return HolderEvidence{}, fmt.Errorf("see that root key %d is still there: %w", living.generation, err)
	}
	return evidence(h, HolderDestroyed, said), nil
}

// shut reports whether a holder said of a box that it opens it never more.
func shut(err error) bool {
	return holdfast.KindOf(err) == holdfast.NotFound || holdfast.KindOf(err) == holdfast.Denied
}

// open tries the holder's box, if there is one.
func (r roots) open(ctx context.Context, h Holder) (tried bool, err error) {
	i := slices.IndexFunc(r.boxes, func(b holderBox) bool { return b.name == h.Name() })
	if i < 0 {
		return false, nil
	}
	seal.Quiet(func() {
		var root seal.Key
		root, err = h.Open(ctx, r.generation, r.boxes[i].box)
		root.Wipe()
	})
	return true, err
}
