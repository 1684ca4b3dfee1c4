// Package conform tries whether a holder of the root key keeps the contract of
// vault.Holder: the same steps for the tests of every holder and for `holdfast
// holder test` against any program.
//
// It works on a keyring of its own that nothing hangs on, and leaves it empty. What
// it can't show is that no copy of a key exists that the holder does not know of.
package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Subject is a holder that nothing hangs on.
type Subject struct {
	// Open opens it, each time anew, as after a restart of the hub or a power cut.
	Open func(ctx context.Context) (vault.Holder, error)
	// Other opens one of the same kind for another keyring, to see that the two are
	// apart; nil: there is none.
	Other func(ctx context.Context) (vault.Holder, error)
	// Away takes the store of what is open away, as when its disk is unplugged, and
	// returns how it comes back; nil: that can't be done from here.
	Away func() (back func() error, err error)
	// Limit bounds a call; 0: 30 seconds.
	Limit time.Duration
	// Always opens it anew before each call: nothing that it keeps in memory counts.
	Always bool
}

// Result is what came of a step.
type Result struct {
	Step    string        `json:"step"`
	OK      bool          `json:"ok"`
	Skipped bool          `json:"skipped,omitempty"`
	Why     string        `json:"why,omitempty"` // it was skipped
	Error   string        `json:"error,omitempty"`
	Mend    string        `json:"mend,omitempty"`
	Took    time.Duration `json:"-"`
}

// Run tries all steps in their order. The first that fails ends it: the others build
// on it. Whatever happened, the keyring is asked to be left empty.
func Run(ctx context.Context, s Subject, each func(Result)) bool {
	t := &try{ctx: ctx, s: s}
	if t.s.Limit <= 0 {
		t.s.Limit = 30 * time.Second
	}
	defer t.reopen()
	ok := true
	for _, step := range steps() {
		begun := time.Now()
		r := Result{Step: step.name}
		err := step.do(t)
		why, skip := errors.AsType[skipped](err)
		switch {
		case skip:
			r.OK, r.Skipped, r.Why = true, true, why.Error()
		case err == nil:
			r.OK = true
		default:
			r.Error, r.Mend, ok = err.Error(), step.mend, false
		}
		r.Took = time.Since(begun)
		each(r)
		if !ok {
			t.clean()
			return false
		}
	}
	return true
}

// skipped is why a step can't be tried.
type skipped string

func (s skipped) Error() string { return string(s) }

type step struct {
	name, mend string
	do         func(*try) error
}

// try is a run of the steps: what is open, and the boxes that were made.
type try struct {
	ctx   context.Context
	s     Subject
	h     vault.Holder
	boxes []sealed // the last holds the generation in force
	old   []sealed // destroyed
	high  uint64
	last  [4]time.Duration // that prepare, wrap, unwrap and destroy took
}

type sealed struct {
	n    uint64
	box  []byte
	root seal.Key
}

// call runs f with the holder, within the bound.
func (t *try) call(what string, f func(ctx context.Context, h vault.Holder) error) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.s.Limit)
	defer cancel()
	err := t.open(ctx)
	if err == nil {
		err = f(ctx, t.h)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && t.ctx.Err() == nil {
		return fmt.Errorf("%s: it hangs: no answer within %s", what, t.s.Limit)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (t *try) open(ctx context.Context) error {
	if t.h != nil && !t.s.Always {
		return nil
	}
	t.reopen()
	h, err := t.s.Open(ctx)
	if err != nil {
		return err
	}
	t.h = h
	return nil
}

// reopen forgets what is open.
func (t *try) reopen() {
	if c, ok := t.h.(io.Closer); ok {
		c.Close()
	}
	t.h = nil
}

func (t *try) prepare(n uint64) error {
	t.high = max(t.high, n)
	return t.call(fmt.Sprintf("prepare generation %d", n), func(ctx context.Context, h vault.Holder) error { return h.Prepare(ctx, n) })
}

// seal makes a root key and its box.
func (t *try) seal(n uint64) (sealed, error) {
	s := sealed{n: n, root: seal.NewKey()}
	err := t.call(fmt.Sprintf("wrap a key of generation %d", n), func(ctx context.Context, h vault.Holder) (err error) {
		s.box, err = h.Seal(ctx, n, s.root)
		return err
	})
	switch {
	case err != nil:
		return s, err
	case len(s.box) == 0 || len(s.box) > 1<<16-1:
		return s, fmt.Errorf("wrap a key of generation %d: the box has %d bytes: 1 to 65535 are possible", n, len(s.box))
	case bytes.Contains(s.box, s.root[:]):
		return s, fmt.Errorf("wrap a key of generation %d: the box has the key in clear", n)
	}
	return s, nil
}

// opens is an error unless the box gives its key back.
func (t *try) opens(s sealed) error {
	return t.call(fmt.Sprintf("unwrap the box of generation %d", s.n), func(ctx context.Context, h vault.Holder) error {
		k, err := h.Open(ctx, s.n, s.box)
		if err == nil && k != s.root {
			return errors.New("another key came back than was wrapped")
		}
		return err
	})
}

// dead is an error unless the box is refused, for the reason that it is gone or not
// the holder's own: a failure proves nothing.
func (t *try) dead(n uint64, box []byte, why string) error {
	err := t.call(fmt.Sprintf("unwrap %s", why), func(ctx context.Context, h vault.Holder) error {
		_, err := h.Open(ctx, n, box)
		return err
	})
	switch {
	case err == nil:
		return fmt.Errorf("it still opens %s", why)
	case holdfast.KindOf(err) != holdfast.NotFound && holdfast.KindOf(err) != holdfast.Denied:
		return fmt.Errorf("it is to refuse %s as gone or denied, and failed otherwise, which proves nothing: %w", why, err)
	}
	return nil
}

func (t *try) destroy(below uint64) error {
	return t.call(fmt.Sprintf("destroy what is before %d", below), func(ctx context.Context, h vault.Holder) error {
		_, err := h.Destroy(ctx, below)
		return err
	})
}

// holds compares what the holder says that it holds.
func (t *try) holds(want ...uint64) error {
	var got []uint64
	err := t.call("ask for generations", func(ctx context.Context, h vault.Holder) (err error) {
		got, err = h.Generations(ctx)
		return err
	})
	if err == nil && !slices.Equal(got, want) {
		return fmt.Errorf("it says that it holds generations %v, and holds %v", got, want)
	}
	return err
}

// in is the box of the generation in force.
func (t *try) in() sealed { return t.boxes[len(t.boxes)-1] }

// pass destroys what is before n, which is in force from then on, and looks for the
// dead and the living.
func (t *try) pass(s sealed) error {
	if err := t.destroy(s.n); err != nil {
		return err
	}
	t.old, t.boxes = append(t.old, t.boxes...), []sealed{s}
	return t.settled()
}

// settled looks at every box that ever was.
func (t *try) settled() error {
	for _, o := range t.old {
		if err := t.dead(o.n, o.box, fmt.Sprintf("a copy of the box of generation %d, which is destroyed", o.n)); err != nil {
			return err
		}
	}
	return t.opens(t.in())
}

// clean asks for everything to be destroyed.
func (t *try) clean() {
	t.reopen()
	t.destroy(t.high + 1)
	t.reopen()
}
