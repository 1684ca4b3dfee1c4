package twin

import (
	"context"
	"database/sql"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// sweeping is how often what is over is written down.
const sweeping = 30 * time.Second

// Run writes down what is over until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	t := time.NewTicker(sweeping)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.ErrorContext(ctx, "twin: write down what is over", "err", err)
		}
	}
}

// Sweep ends commands that have expired, cancels those of devices that have changed
// hands, and drops those that ended long ago. Nothing depends on when it runs: an
// expired command is handed to nobody before, either.
func (s *Store) Sweep(ctx context.Context) error {
	now := s.now()
	old := hour(now.Add(-Kept))
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM command WHERE due < $1 AND state NOT IN ('queued', 'delivered', 'accepted')`, old)
		return err
	})
	if err != nil {
		return err
	}
	open, err := s.commands(ctx, `state IN ('queued', 'delivered', 'accepted')`)
	if err != nil {
		return err
	}
	standings := map[holdfast.DeviceID]Standing{}
	for _, c := range open {
		st, known := standings[c.Device]
		if !known {
			if st, err = s.house.Standing(ctx, c.Device); err != nil && holdfast.KindOf(err) != holdfast.NotFound {
				return err
			}
			standings[c.Device] = st
		}
		moved := st.Refused != nil || st.Whose != c.whose || st.Assignment != c.assignment
		if !moved && !s.over(c) {
			continue
		}
		if err := s.sweep(ctx, c, moved); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweep(ctx context.Context, c Command, moved bool) error {
	defer s.change(c.Device)()
	all, err := s.commands(ctx, `id = $1 AND state = $2`, c.ID, c.State)
	if err != nil || len(all) == 0 {
		return err
	}
	if moved {
		_, err = s.end(ctx, all[0], Cancelled, holdfast.CredentialID{}, nil)
	} else if s.over(all[0]) {
		err = s.expire(ctx, all[0])
	}
	if err == nil {
		s.people.changed(Standing{Device: c.Device})
	}
	if holdfast.KindOf(err) == holdfast.NotFound { // its owner is being erased, and it with him
		return nil
	}
	return err
}
