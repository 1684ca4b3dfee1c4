package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// PostgreSQL keeps a reading as a row of a table with an index over series and
// time. A COPY is durable when it returns.
type PostgreSQL struct {
	*Server
	free chan *pgx.Conn // nobody uses these now
}

// postgresConnections is how many statements run at once.
const postgresConnections = 2

const postgresBin = "/usr/lib/postgresql/15/bin"

// StartPostgreSQL makes a cluster and runs it. Changed from the default: more
// shared memory, and room in its log so that no checkpoint is forced in between.
func StartPostgreSQL(ctx context.Context) (*PostgreSQL, error) {
	program, err := find(filepath.Join(postgresBin, "postgres"))
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &PostgreSQL{free: make(chan *pgx.Conn, postgresConnections)}
	s.Server, err = start(ctx, spec{
		release: release("PostgreSQL", "postgresql-15"),
		program: program,
		user:    "postgres",
		args: func(_, data string) []string {
			return []string{"-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
				"-c", "shared_buffers=512MB", "-c", "max_wal_size=8GB", "-c", "checkpoint_timeout=30min", "-c", "maintenance_work_mem=256MB"}
		},
		prepare: func(s *Server, as *syscall.SysProcAttr) error {
			init := exec.CommandContext(ctx, filepath.Join(postgresBin, "initdb"), "-D", s.data, "-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8")
			init.SysProcAttr, init.Dir = as, s.data
			if out, err := init.CombinedOutput(); err != nil {
				return fmt.Errorf("make a PostgreSQL cluster: %w: %.300s", err, out)
			}
			return nil
		},
		ready: func(ctx context.Context) error {
			for len(s.free) < cap(s.free) {
				c, err := pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=bench dbname=postgres sslmode=disable", port))
				if err != nil {
					return err
				}
				s.free <- c
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Stop closes the connections and stops the peer.
func (s *PostgreSQL) Stop() error {
	for range len(s.free) {
		(<-s.free).Close(context.Background())
	}
	return s.Server.Stop()
}

// with lends a connection.
func (s *PostgreSQL) with(ctx context.Context, use func(*pgx.Conn) error) error {
	select {
	case c := <-s.free:
		defer func() { s.free <- c }()
		return use(c)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Exec runs statements that yield nothing.
func (s *PostgreSQL) Exec(ctx context.Context, statement string, args ...any) error {
	return s.with(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, statement, args...)
		return err
	})
}

// CreateReadings makes the table reading(series, ts, value) and its index.
func (s *PostgreSQL) CreateReadings(ctx context.Context) error {
	if err := s.Exec(ctx, `CREATE TABLE reading (series int4 NOT NULL, ts int8 NOT NULL, value float8 NOT NULL)`); err != nil {
		return err
	}
	return s.Exec(ctx, `CREATE INDEX ON reading (series, ts)`)
}

// Copy writes rows in the binary format of COPY.
func (s *PostgreSQL) Copy(ctx context.Context, rows []corpus.Point) error {
	return s.with(ctx, func(c *pgx.Conn) error {
		n, err := c.CopyFrom(ctx, pgx.Identifier{"reading"}, []string{"series", "ts", "value"}, newCopyRows(rows))
		if err == nil && n != int64(len(rows)) {
			err = holdfast.Errorf(holdfast.Internal, "PostgreSQL copied %d of %d rows", n, len(rows))
		}
		return err
	})
}

// Numbers is the one row of floats that a query yields.
func (s *PostgreSQL) Numbers(ctx context.Context, query string, args ...any) (values []float64, err error) {
	err = s.with(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		values, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) ([]float64, error) {
			out := make([]float64, len(row.FieldDescriptions()))
			into := make([]any, len(out))
			for i := range out {
				into[i] = &out[i]
			}
			return out, row.Scan(into...)
		})
		return err
	})
	return values, err
}

// TableBytes is the size of the readings with their index, and nothing of the
// log or of the cluster's own.
func (s *PostgreSQL) TableBytes(ctx context.Context) (int64, error) {
	n, err := s.Numbers(ctx, `SELECT pg_total_relation_size('reading')::float8`)
	if err != nil {
		return 0, err
	}
	return int64(n[0]), nil
}

// Settle does what autovacuum would in time, and a checkpoint.
func (s *PostgreSQL) Settle(ctx context.Context) error {
	if err := s.Exec(ctx, `VACUUM ANALYZE reading`); err != nil {
		return err
	}
	return s.Exec(ctx, `CHECKPOINT`)
}
