package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/holdfast-iot/holdfast/internal/bench"
)

// pgRecords keeps personal records as rows with their metadata beside them, each
// operation in one transaction with its row of the log.
type pgRecords struct {
	*PostgreSQL
	stop context.CancelFunc
	done chan error // of the job that deletes what has expired
}

// recordsOfPostgreSQL is the peer of figure GDPR.
func recordsOfPostgreSQL(ctx context.Context, _ *bench.Bench) (_ *bench.Side, err error) {
	s, err := StartPostgreSQL(ctx)
	if err != nil {
		return nil, err
	}
	p := &pgRecords{PostgreSQL: s}
	if err := p.create(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	expiring, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop, p.done = stop, make(chan error, 1)
	go func() { p.done <- p.expire(expiring) }()
	g := bench.NewGDPR(1, p)
	return s.side(func(ctx context.Context, _ int) (bench.Values, error) { return g.Round(ctx) }, func() error {
		p.stop()
		return errors.Join(<-p.done, s.Stop())
	}), nil
}

func (p *pgRecords) create(ctx context.Context) error {
	for _, statement := range []string{
		`CREATE TABLE record (key int8 PRIMARY KEY, person int8 NOT NULL, purpose int8 NOT NULL, expires timestamptz NOT NULL,
			source text NOT NULL, category text NOT NULL, data text NOT NULL)`,
		`CREATE TABLE person (id int8 PRIMARY KEY, restricted bool NOT NULL DEFAULT false, objections int8[] NOT NULL DEFAULT '{}', shares int8[] NOT NULL DEFAULT '{}')`,
		`CREATE INDEX ON record (person)`,
		`CREATE INDEX ON record (purpose)`,
		`CREATE INDEX ON record (expires)`,
		`CREATE INDEX ON person USING gin (shares)`,
		`CREATE TABLE log (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), who text NOT NULL, what text NOT NULL, key int8, person int8, purpose int8)`,
		`CREATE INDEX ON log (person, who, what)`,
		`CREATE INDEX ON log (key)`,
	} {
		if err := p.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// expire deletes what has expired, each second.
func (p *pgRecords) expire(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := p.Exec(ctx, `DELETE FROM record WHERE expires < now()`); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// entry is a row of the log; a nil is not known.
type entry struct {
	who, what            string
	key, person, purpose any
}

// logged runs use and writes its log in one transaction.
func (p *pgRecords) logged(ctx context.Context, e entry, use func(pgx.Tx) error) error {
	return p.with(ctx, func(c *pgx.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if err := use(tx); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO log (who, what, key, person, purpose) VALUES ($1, $2, $3, $4, $5)`, e.who, e.what, e.key, e.person, e.purpose)
			return err
		})
	})
}

// change is logged for a statement that yields nothing.
func (p *pgRecords) change(ctx context.Context, e entry, statement string, args ...any) error {
	return p.logged(ctx, e, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}

const insertRecord = `INSERT INTO record (key, person, purpose, expires, source, category, data) VALUES ($1, $2, $3, now() + interval '365 days', 'device', 'household', $4)`

func (p *pgRecords) Load(ctx context.Context, all []bench.Record, sharing []int) error {
	for _, r := range all {
		if err := errors.Join(p.Exec(ctx, `INSERT INTO person (id) VALUES ($1)`, r.Person), p.Insert(ctx, r)); err != nil {
			return err
		}
	}
	for _, person := range sharing {
		if err := p.Share(ctx, person, bench.PurposeOf(person), true); err != nil {
			return err
		}
	}
	return nil
}

// Meet does nothing: PostgreSQL knows no persons.
func (p *pgRecords) Meet(context.Context, int) error { return nil }

func (p *pgRecords) Insert(ctx context.Context, r bench.Record) error {
	return p.change(ctx, entry{"controller", "insert", r.Key, r.Person, r.Purpose}, insertRecord, r.Key, r.Person, r.Purpose, r.Data)
}

func (p *pgRecords) Delete(ctx context.Context, r bench.Record, byPerson bool) error {
	who := "controller"
	if byPerson {
		who = "person"
	}
	return p.change(ctx, entry{who, "delete", r.Key, r.Person, r.Purpose}, `DELETE FROM record WHERE key = $1`, r.Key)
}

func (p *pgRecords) Retain(ctx context.Context, purpose, days int) error {
	return p.change(ctx, entry{"controller", "retain", nil, nil, purpose}, `UPDATE record SET expires = now() + make_interval(days => $2::int4) WHERE purpose = $1`, purpose, days)
}

func (p *pgRecords) Restrict(ctx context.Context, person int, on bool) error {
	return p.change(ctx, entry{"controller", "restrict", nil, person, nil}, `UPDATE person SET restricted = $2 WHERE id = $1`, person, on)
}

func (p *pgRecords) Rectify(ctx context.Context, r bench.Record) error {
	return p.change(ctx, entry{"person", "rectify", r.Key, r.Person, r.Purpose}, `UPDATE record SET data = $2 WHERE key = $1`, r.Key, r.Data)
}

func (p *pgRecords) Object(ctx context.Context, person, purpose int, on bool) error {
	statement := `UPDATE person SET objections = array_remove(objections, $2::int8) WHERE id = $1`
	if on {
		statement = `UPDATE person SET objections = array_append(objections, $2::int8) WHERE id = $1`
	}
	return p.change(ctx, entry{"person", "object", nil, person, purpose}, statement, person, purpose)
}

func (p *pgRecords) Share(ctx context.Context, person, purpose int, on bool) error {
	statement := `UPDATE person SET shares = array_remove(shares, $2::int8) WHERE id = $1`
	if on {
		statement = `UPDATE person SET shares = array_append(shares, $2::int8) WHERE id = $1`
	}
	return p.change(ctx, entry{"person", "share", nil, person, purpose}, statement, person, purpose)
}

// read is a question that yields one text or none; only what is given is logged as
// read.
func (p *pgRecords) read(ctx context.Context, e entry, statement string, args ...any) (data string, given bool, err error) {
	err = p.with(ctx, func(c *pgx.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			err := tx.QueryRow(ctx, statement, args...).Scan(&data)
			if given = err == nil; !given {
				e.what = "refused"
				if !errors.Is(err, pgx.ErrNoRows) {
					return err
				}
			}
			_, err = tx.Exec(ctx, `INSERT INTO log (who, what, key, person, purpose) VALUES ($1, $2, $3, $4, $5)`, e.who, e.what, e.key, e.person, e.purpose)
			return err
		})
	})
	return data, given, err
}

func (p *pgRecords) ReadOwn(ctx context.Context, r bench.Record) (string, bool, error) {
	return p.read(ctx, entry{"person", "read", r.Key, r.Person, nil}, `SELECT data FROM record WHERE key = $1 AND person = $2 AND expires > now()`, r.Key, r.Person)
}

func (p *pgRecords) Process(ctx context.Context, r bench.Record) (string, bool, error) {
	return p.read(ctx, entry{"processor", "read", r.Key, r.Person, r.Purpose}, `SELECT data FROM record JOIN person ON person.id = record.person
		WHERE key = $1 AND purpose = $2 AND $2 = ANY(shares) AND NOT restricted AND NOT ($2 = ANY(objections)) AND expires > now()`, r.Key, r.Purpose)
}

// count is a logged question for a number.
func (p *pgRecords) count(ctx context.Context, e entry, statement string, args ...any) (n int, err error) {
	err = p.logged(ctx, e, func(tx pgx.Tx) error { return tx.QueryRow(ctx, statement, args...).Scan(&n) })
	return n, err
}

func (p *pgRecords) UsedFor(ctx context.Context, person, purpose int) (bool, error) {
	n, err := p.count(ctx, entry{"person", "metadata", nil, person, purpose}, `SELECT count(*) FROM record WHERE person = $1 AND purpose = $2`, person, purpose)
	return n > 0, err
}

func (p *pgRecords) Held(ctx context.Context, person int) (int, error) {
	return p.count(ctx, entry{"person", "metadata", nil, person, nil}, `SELECT count(*) FROM record WHERE person = $1`, person)
}

func (p *pgRecords) Sharers(ctx context.Context, purpose int) (people []int, err error) {
	err = p.logged(ctx, entry{"processor", "metadata", nil, nil, purpose}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id FROM person WHERE shares @> ARRAY[$1::int8]`, purpose)
		if err != nil {
			return err
		}
		people, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	})
	return people, err
}

func (p *pgRecords) Shares(ctx context.Context, person int) (bool, error) {
	n, err := p.count(ctx, entry{"processor", "metadata", nil, person, nil}, `SELECT count(*) FROM person WHERE id = $1 AND shares <> '{}'`, person)
	return n > 0, err
}

func (p *pgRecords) Readers(ctx context.Context, person int) (int, error) {
	return p.count(ctx, entry{"regulator", "metadata", nil, person, nil}, `SELECT count(*) FROM log WHERE person = $1 AND who = 'processor' AND what = 'read'`, person)
}

func (p *pgRecords) Log(ctx context.Context) (int, error) {
	return p.count(ctx, entry{"regulator", "log", nil, nil, nil}, `SELECT count(*) FROM (SELECT * FROM log ORDER BY id DESC LIMIT 100) AS last`)
}

func (p *pgRecords) Deleted(ctx context.Context, r bench.Record) (bool, error) {
	n, err := p.count(ctx, entry{"regulator", "verify", r.Key, nil, nil},
		`SELECT count(*) FROM log WHERE key = $1 AND what = 'delete' AND NOT EXISTS (SELECT 1 FROM record WHERE record.key = $1)`, r.Key)
	return n > 0, err
}

func (p *pgRecords) Settle(ctx context.Context) error {
	if err := p.Exec(ctx, `VACUUM record`); err != nil {
		return err
	}
	return p.Exec(ctx, `CHECKPOINT`)
}

func (p *pgRecords) Recovered(_ context.Context, keys map[int]bool) (int, error) {
	return bench.MarksIn(p.data, keys)
}
