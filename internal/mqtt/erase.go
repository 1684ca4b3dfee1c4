package mqtt

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Erase forgets the wills that wait to be published of devices whose assignment goes
// as a whole, once the connections that left them have ended. It may run again.
func (s *Server) Erase(ctx context.Context, scope holdfast.Scope) error {
	if scope.InPart() {
		return nil
	}
	for range leaving {
		open := s.registry.forget(scope.Assignments)
		if len(open) == 0 {
			return nil
		}
		for _, c := range open { // who takes their identity has mostly ended them already
			c.quit(ending{code: notAuthorized, noWill: true})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leavingTick):
		}
	}
	return holdfast.Errorf(holdfast.Unavailable, "a connection of an erased device is still ending")
}

// How long Erase waits for connections that are to end.
const (
	leaving     = 500
	leavingTick = 20 * time.Millisecond
)
