package backup

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// Run is a backup that was begun.
type Run struct {
	ID      string     `json:"id"`
	Began   time.Time  `json:"began"`
	Ended   *time.Time `json:"ended,omitempty"` // nil: it did not come to its end, or not yet
	Expires time.Time  `json:"expires"`
	Bytes   int64      `json:"bytes"`
	Written int64      `json:"written"` // of them, what was not there yet
	Keyring string     `json:"keyring"` // where the owner keys are that it needs
}

// standing is what the hub knows of its backups, for metrics and the doctor.
type standing struct {
	last  *Run      // the newest that ended
	drill time.Time // of the last drill; zero: there was none
}

// Runs returns the backups that have not expired, the newest first.
func (k *Keeper) Runs(ctx context.Context) ([]Run, error) {
	runs, err := catalog.Rows(ctx, k.Catalog, scanRun, `SELECT id, began, expires, ended, bytes, written, keyring FROM backup WHERE expires > $1 ORDER BY began DESC`, k.Now().UnixNano())
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	return runs, nil
}

func scanRun(row *sql.Rows) (r Run, err error) {
	var id []byte
	var began, expires, ended int64
	if err := row.Scan(&id, &began, &expires, &ended, &r.Bytes, &r.Written, &r.Keyring); err != nil {
		return r, err
	}
	r.ID, r.Began, r.Expires = text32.EncodeToString(id), time.Unix(0, began).UTC(), time.Unix(0, expires).UTC()
	if ended != 0 {
		at := time.Unix(0, ended).UTC()
		r.Ended = &at
	}
	return r, nil
}

// Expiry returns when the last backup expires that may hold ciphertext of now: one
// that was begun, whether it came to its end or not. Zero: there is none.
func (k *Keeper) Expiry(ctx context.Context) (at time.Time, err error) {
	var last sql.NullInt64
	err = k.Catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT max(expires) FROM backup WHERE expires > $1`, k.Now().UnixNano()).Scan(&last)
	})
	if err != nil {
		return at, fmt.Errorf("when backups expire: %w", err)
	}
	if !last.Valid {
		return at, nil
	}
	return time.Unix(0, last.Int64).UTC(), nil
}

// Drilled notes that a restore was tried and ended well.
func (k *Keeper) Drilled(ctx context.Context, at time.Time) error {
	err := k.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO backup_drill (at) VALUES ($1) ON CONFLICT (at) DO NOTHING`, at.UnixNano())
		return err
	})
	if err != nil {
		return fmt.Errorf("record drill: %w", err)
	}
	return k.load(ctx)
}

// Resealed notes that what is stored of some cells was sealed again and their old keys
// were destroyed: backups that have begun hold what nobody can open of them.
func (k *Keeper) Resealed(ctx context.Context, cells int) error {
	if cells == 0 {
		return nil
	}
	err := k.Catalog.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO backup_resealed (at, cells) VALUES ($1, $2) ON CONFLICT (at) DO UPDATE SET cells = cells + $2`, k.Now().UnixNano(), cells)
		return err
	})
	if err != nil {
		return fmt.Errorf("note what was sealed again: %w", err)
	}
	return nil
}

// ResealedSince counts the cells that were sealed again since.
func (k *Keeper) ResealedSince(ctx context.Context, at time.Time) (cells int, err error) {
	err = k.Catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(sum(cells), 0) FROM backup_resealed WHERE at > $1`, at.UnixNano()).Scan(&cells)
	})
	if err != nil {
		return 0, fmt.Errorf("count what was sealed again: %w", err)
	}
	return cells, nil
}

func (k *Keeper) load(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reload(ctx)
}

// reload reads what is remembered; the caller holds mu.
func (k *Keeper) reload(ctx context.Context) error {
	var now standing
	ended, err := catalog.Rows(ctx, k.Catalog, scanRun, `SELECT id, began, expires, ended, bytes, written, keyring FROM backup WHERE ended > 0 ORDER BY began DESC LIMIT 1`)
	if err != nil {
		return fmt.Errorf("read backups: %w", err)
	}
	if len(ended) > 0 {
		now.last = &ended[0]
	}
	var drill sql.NullInt64
	err = k.Catalog.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT max(at) FROM backup_drill`).Scan(&drill)
	})
	if err != nil {
		return fmt.Errorf("read backups: %w", err)
	}
	if drill.Valid {
		now.drill = time.Unix(0, drill.Int64).UTC()
	}
	k.last = now
	return nil
}

// Last returns the newest backup that ended, nil if there is none, and when a
// restore was last tried, zero if never.
func (k *Keeper) Last() (*Run, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last.last, k.last.drill
}

// Metrics returns the collectors of this package.
func (k *Keeper) Metrics() []prometheus.Collector {
	gauge := func(name, help string, f func(*Run) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if last, _ := k.Last(); last != nil {
				return f(last)
			}
			return 0
		})
	}
	return []prometheus.Collector{
		gauge("holdfast_backup_last_timestamp_seconds", "When the newest backup that ended had begun; 0: there is none.", func(r *Run) float64 { return float64(r.Began.Unix()) }),
		gauge("holdfast_backup_last_bytes", "Bytes of the newest backup's pieces.", func(r *Run) float64 { return float64(r.Bytes) }),
		gauge("holdfast_backup_last_written_bytes", "Of them, what was not there from earlier ones.", func(r *Run) float64 { return float64(r.Written) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_backup_running", Help: "Backups under way."}, func() float64 { return float64(len(k.sessionIDs())) }),
	}
}
