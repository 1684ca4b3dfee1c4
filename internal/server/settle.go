package server

import (
	"context"
	"fmt"
)

// Settle does at once what a running hub does by its clocks: it rolls what the
// journal holds and merges the chunks. It is for measuring what readings come to
// on the disk.
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
