package bench

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Pour hands n pieces of a load to so many senders, each of which sends one after
// the other, and returns how long that took. send answers when its piece is
// acknowledged.
func Pour(ctx context.Context, senders, n int, send func(ctx context.Context, i int) error) (time.Duration, error) {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	began := time.Now()
	for range senders {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return ctx.Err()
				}
				if err := send(ctx, i); err != nil {
					return err
				}
			}
		})
	}
	err := group.Wait()
	return time.Since(began), err
}

// Latencies asks one question after the other, n times, and returns how long each
// answer took, sorted. The first few questions are not counted.
func Latencies(ctx context.Context, n int, ask func(ctx context.Context, i int) error) ([]time.Duration, error) {
	const warm = 3
	times := make([]time.Duration, 0, n)
	for i := range n + warm {
		began := time.Now()
		if err := ask(ctx, i); err != nil {
			return nil, err
		}
		if i >= warm {
			times = append(times, time.Since(began))
		}
	}
	slices.Sort(times)
	return times, nil
}
