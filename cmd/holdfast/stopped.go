package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kong"
)

// endable is a verb that may take long and may be killed at any time: a signal ends it
// soon, and it says what is there then.
type endable interface {
	// Left says what was done and is left when a signal has ended the verb, and how to go
	// on.
	Left() string
}

// endGrace is how long an endable verb may clear up behind itself after a signal, if it
// has no Grace that says otherwise.
const endGrace = 1500 * time.Millisecond

func verbOf(k *kong.Context) (v endable, ok bool) {
	if node := k.Selected(); node != nil && node.Target.CanAddr() {
		v, ok = node.Target.Addr().Interface().(endable)
	}
	return v, ok
}

// endsSoon has a signal end the verb even where it waits for a disk, a pipe or another
// program. The function that it returns is to be called when the verb has ended.
func (a *app) endsSoon(k *kong.Context) (settled func()) {
	v, ok := verbOf(k)
	if !ok || a.leave == nil {
		return func() {}
	}
	grace := endGrace
	if slow, ok := v.(interface{ Grace() time.Duration }); ok {
		grace = slow.Grace()
	}
	over := make(chan struct{})
	stop := context.AfterFunc(a.ctx, func() {
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-over:
		case <-late.C:
			a.tellStopped(k, context.Canceled)
			a.leave(exitFailed)
		}
	})
	return func() {
		stop()
		close(over)
	}
}

// tellStopped says that a signal ended the verb, and what is left.
func (a *app) tellStopped(k *kong.Context, err error) {
	if !errors.Is(err, context.Canceled) { // it may have failed before
		fmt.Fprintln(a.stderr, "holdfast:", err)
	}
	left := ""
	if v, ok := verbOf(k); ok {
		left = ". " + v.Left()
	}
	fmt.Fprintf(a.stderr, "holdfast: stopped by a signal%s\n", left)
}
