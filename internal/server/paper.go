package server

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/recovery"
)

// paperwork is what certificates of erasure say of others.
func (s *Server) paperwork() erasure.Paperwork {
	return erasure.Paperwork{Escrow: s.escrowOf, Backups: s.backups.Expiry, Told: s.toldOf}
}

// escrowOf says how the recovery shares stand that were dealt when a root key was
// destroyed: whoever has old shares and an old copy of the keyring opens it.
func (s *Server) escrowOf(ctx context.Context, destroyed time.Time) (erasure.Escrow, error) {
	all, err := s.recovery.Deals(ctx)
	if err != nil {
		return erasure.Escrow{}, err
	}
	return escrowOf(all, destroyed), nil
}

func escrowOf(all []recovery.Deal, destroyed time.Time) erasure.Escrow {
	out := erasure.Escrow{State: erasure.EscrowNone}
	for _, d := range all { // the newest first
		if d.Since.After(destroyed) {
			continue
		}
		if out.State == erasure.EscrowNone {
			out.State, out.N, out.K = erasure.EscrowDestroyed, len(d.Shareholders), d.Threshold
		}
		for _, g := range d.Gone {
			if g.Vouched != "" {
				out.Vouched = append(out.Vouched, g.Name+" (deal "+d.ID.String()+"): "+g.Vouched)
			}
		}
		if d.Missing() == 0 {
			continue
		}
		if out.State != erasure.EscrowPending {
			out.State, out.N, out.K = erasure.EscrowPending, len(d.Shareholders), d.Threshold
		}
		if !d.Known() {
			out.Names = append(out.Names, "whoever has shares of deal "+d.ID.String())
		}
		for _, h := range d.Shareholders {
			if !d.Confirmed(h.Name) {
				out.Names = append(out.Names, h.Name+" (deal "+d.ID.String()+")")
			}
		}
	}
	return out
}
