package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-iot/holdfast/internal/ingest"
)

// What follows is for measuring: what a hub does by its clocks, done at once, and
// what its clocks would undo.

// Settle rolls what the journal holds and merges the chunks.
func (s *Server) Settle(ctx context.Context) error {
	if err := s.series.Roll(ctx); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	if err := s.series.Merge(ctx); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return nil
}

// Roll is the first half of Settle, and what happens each few minutes.
func (s *Server) Roll(ctx context.Context) error { return s.series.Roll(ctx) }

// Gate is the way in without an edge. What comes through it while the Server does
// not Run stays in the journal.
func (s *Server) Gate() *ingest.Gate { return s.ingest }

// JournalBytes is how much journal there is.
func (s *Server) JournalBytes() int64 {
	return int64(s.stores.journal.End() - s.stores.journal.Start())
}

// Close closes a Server that does not Run, and rolls nothing.
func (s *Server) Close() error {
	s.stop()
	return errors.Join(s.grants.Close(context.Background()), s.stores.close())
}
