package ingest

import (
	"context"
	"iter"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// moveAtOnce is how many readings are sealed together.
const moveAtOnce = 1000

// Move takes readings of one stream over into another assignment of its device, as
// they are: with their time, sequence and marks, whenever they came. It returns how
// many are durable there when it ends, for whatever reason. They stay where they were.
// No bar keeps them out: what moves was not erased, and may move back.
func (g *Gate) Move(ctx context.Context, into *custody.Route, of *custody.Stream, readings iter.Seq2[holdfast.Reading, error]) (moved uint64, err error) {
	var b *Batch
	commit := func() error {
		if b == nil || b.Len() == 0 {
			return nil
		}
		n, done := b.Len(), make(chan error, 1)
		b.Commit(func(err error) { done <- err })
		b = nil
		if err := <-done; err != nil {
			return err
		}
		moved += uint64(n)
		return nil
	}
	for r, err := range readings {
		if err != nil {
			return moved, err
		}
		if b == nil {
			b = g.Batch(ctx, identity.Peer{}, "")
			b.moves = true
		}
		if err := b.move(into, of, r); err != nil {
			return moved, err
		}
		if b.Len() == moveAtOnce {
			if err := commit(); err != nil {
				return moved, err
			}
		}
	}
	return moved, commit()
}

// move puts one reading into its part.
func (b *Batch) move(into *custody.Route, of *custody.Stream, r holdfast.Reading) error {
	x := holdfast.Sample{Stream: of.Name, Unit: of.Unit, Time: r.Time, Timed: true, Seq: r.Seq, Value: r.Value}
	stream, value, err := b.gate.custody.Accept(b.ctx, into, &x)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(stream.Purposes, func(p holdfast.Purpose) bool { return b.gate.purposes.Live(b.ctx, p) }) {
		return holdfast.Errorf(holdfast.Denied, "the stream has no live purpose: it is not collected")
	}
	if err := b.gate.opt.Hold(into.Assignment, stream.ID); err != nil {
		return err
	}
	b.touched = b.touched[:0]
	p := b.parts[b.part(into, into.Assignment, seal.BucketOf(b.arrival, stream.Daily))]
	r.Value = value
	p.content.Rows = append(p.content.Rows, series.Row{Stream: stream.ID, Reading: r})
	b.readings++
	return nil
}
