package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/checkpoint"
	"github.com/holdfast-iot/holdfast/internal/witness"
)

// withCosignatures returns a checkpoint's note with the lines of witnesses.
func withCosignatures(ctx context.Context, tx *sql.Tx, c checkpoint.Checkpoint) ([]byte, error) {
	out := append([]byte(nil), c.Note...)
	rows, err := tx.QueryContext(ctx, `SELECT line FROM ledger_cosignature WHERE size = $1 ORDER BY witness`, int64(c.Size))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		out = append(out, line...)
	}
	return out, rows.Err()
}

// circle is the witnesses of the log, and how each of them stands.
type circle struct {
	need int
	wake chan struct{}

	mu  sync.Mutex
	all []*standing

	asked *prometheus.CounterVec
}

// standing is a witness and what it said last.
type standing struct {
	*witness.Client
	size uint64 // of the last checkpoint that it cosigned, as far as is known
	at   time.Time
	err  error
}

// askAgain is how long after a failure a witness is asked again, until the next
// tick.
const askAgain = 30 * time.Second

// Witnesses has every published checkpoint cosigned by these, of which need are
// enough. It is called once, before Run.
func (l *Ledger) Witnesses(ctx context.Context, need int, all []*witness.Client) error {
	if need < 0 || need > len(all) {
		return holdfast.Errorf(holdfast.Invalid, "%d witnesses are to be enough, of %d", need, len(all))
	}
	if len(all) == 0 {
		return nil
	}
	c := &circle{need: need, wake: make(chan struct{}, 1), asked: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_ledger_witness_requests_total", Help: "Checkpoints shown to witnesses, by what came of it.",
	}, []string{"result"})}
	for _, w := range all {
		s := &standing{Client: w}
		var size sql.NullInt64
		err := l.db.Read(ctx, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT max(s.size) FROM ledger_cosignature s JOIN ledger_checkpoint c ON c.size = s.size WHERE s.witness = $1 AND c.origin = $2`,
				w.Key.Name(), l.origin).Scan(&size)
		})
		if err != nil {
			return fmt.Errorf("read cosignatures: %w", err)
		}
		s.size = uint64(size.Int64)
		c.all = append(c.all, s)
	}
	l.witnesses = c
	return nil
}

// askWitnesses shows the published checkpoint to all witnesses, each time that it
// is woken, until ctx ends.
func (l *Ledger) askWitnesses(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.witnesses.wake:
		case <-again:
		}
		again = nil
		if !l.askAll(ctx) {
			again = time.After(askAgain)
		}
	}
}

// askAll asks those that have not cosigned the published checkpoint, and reports
// whether all have now.
func (l *Ledger) askAll(ctx context.Context) bool {
	head := l.head()
	var asking sync.WaitGroup
	whole := true
	for _, s := range l.witnesses.all {
		l.witnesses.mu.Lock()
		done := s.size == head.Size && s.err == nil
		l.witnesses.mu.Unlock()
		if done || head.Size == 0 {
			continue
		}
		asking.Go(func() {
			err := l.ask(ctx, s, head)
			result := "cosigned"
			if err != nil {
				result = holdfast.KindOf(err).String()
			}
			l.witnesses.asked.WithLabelValues(result).Inc()
			l.witnesses.mu.Lock()
			defer l.witnesses.mu.Unlock()
			s.err = err
			if err != nil {
				whole = false
			} else {
				s.size, s.at = head.Size, time.Now()
			}
		})
	}
	asking.Wait()
	return whole
}

// ask has one witness cosign. It may know the log at another size than is thought:
// then it says so, and is asked once more.
func (l *Ledger) ask(ctx context.Context, s *standing, head checkpoint.Checkpoint) error {
	l.witnesses.mu.Lock()
	from := s.size
	l.witnesses.mu.Unlock()
	for try := range 2 {
		proof := checkpoint.Consistency{Old: from, Note: head.Note}
		err := l.db.Read(ctx, func(tx *sql.Tx) (err error) {
			proof.Hashes, err = l.grownSince(ctx, tx, from, head.Size)
			return err
		})
		if err != nil {
			return err
		}
		line, err := s.Ask(ctx, proof)
		if size, behind := witness.AsBehind(err); behind && try == 0 {
			if size > head.Size {
				return holdfast.Errorf(holdfast.Conflict, "the witness has cosigned %d leaves of this log, %d are published: the hub was put back to an earlier state", size, head.Size)
			}
			if size == from {
				return holdfast.Errorf(holdfast.Conflict, "the witness has another tree of %d leaves under this log's name", size)
			}
			from = size
			continue
		}
		if err != nil {
			return err
		}
		return l.db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO ledger_cosignature (size, witness, line) VALUES ($1, $2, $3)
				ON CONFLICT (size, witness) DO UPDATE SET line = excluded.line`, int64(head.Size), s.Key.Name(), line.Line)
			return err
		})
	}
	return errors.New("the witness says that it is at another size each time")
}

// Metrics returns the collectors of this package.
func (l *Ledger) Metrics() []prometheus.Collector {
	published := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_ledger_published_leaves", Help: "Leaves of the published tree, padding included."},
		func() float64 { return float64(l.head().Size) })
	if l.witnesses == nil {
		return []prometheus.Collector{published}
	}
	return []prometheus.Collector{published, l.witnesses.asked, prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "holdfast_ledger_witnesses", Help: "Witnesses that have cosigned the published checkpoint."},
		func() float64 { have, _ := l.Cosigners(); return float64(have) })}
}

// Missing is a witness that has not cosigned the published checkpoint.
type Missing struct {
	Name string
	Last time.Time // when it cosigned last since the start; zero: not yet
	Err  error     // nil: it was not asked yet
}

// Cosigners returns how many witnesses have cosigned the published checkpoint, and
// the others.
func (l *Ledger) Cosigners() (have int, missing []Missing) {
	if l.witnesses == nil {
		return 0, nil
	}
	head := l.head().Size
	l.witnesses.mu.Lock()
	defer l.witnesses.mu.Unlock()
	for _, s := range l.witnesses.all {
		if s.size == head && s.err == nil {
			have++
		} else {
			missing = append(missing, Missing{Name: s.Key.Name(), Last: s.at, Err: s.err})
		}
	}
	return have, missing
}

// Quorum is how many witnesses are enough; 0: none is asked.
func (l *Ledger) Quorum() int {
	if l.witnesses == nil {
		return 0
	}
	return l.witnesses.need
}
