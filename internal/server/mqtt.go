package server

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
)

// The adapters below let mqtt speak of its own Peer, Batch and Session, so that
// it knows neither identity nor ingest.

func authenticate(id *identity.Identity) mqtt.Authenticate {
	return func(ctx context.Context, cs tls.ConnectionState) (mqtt.Peer, error) {
		p, err := id.Peer(ctx, cs)
		return mqtt.Peer(p), err
	}
}

func track(id *identity.Identity) func(mqtt.Peer, func(error)) func() {
	return func(p mqtt.Peer, cut func(error)) func() { return id.Track(identity.Peer(p), cut) }
}

// quotaOfPeer is the allowance of a device or a declared child of it. Who has no
// route has none: its publishes are refused anyway.
func (s *Server) quotaOfPeer(ctx context.Context, p mqtt.Peer, child string) *budget.Allowance {
	id := p.Device
	if child != "" {
		var err error
		if id, err = s.custody.Child(ctx, id, child); err != nil {
			return nil
		}
	}
	route, err := s.custody.Route(ctx, id)
	if err != nil {
		return nil
	}
	return s.quota(route)
}

// gate is ingest for mqtt. A batch outlives the read that it came from, so it
// runs under the server's context, not a connection's.
type gate struct {
	ctx context.Context
	in  *ingest.Gate
}

func (g gate) Batch(p mqtt.Peer, session string) mqtt.Batch {
	return batch{g.in.Batch(g.ctx, identity.Peer(p), session)}
}

type batch struct{ *ingest.Batch }

func (b batch) Add(child string, samples []holdfast.Sample, d mqtt.Delivery) error {
	return b.Batch.Add(child, samples, ingest.Delivery(d))
}

// sessions is ingest.Sessions for mqtt.
type sessions struct{ in *ingest.Sessions }

func (s sessions) Open(ctx context.Context, p mqtt.Peer, clientID string, clean bool, expiry time.Duration) (mqtt.Session, bool, error) {
	o, err := s.in.Open(ctx, identity.Peer(p), clientID, clean, expiry)
	return mqtt.Session{Name: o.Name, Received: o.Received}, o.Present, err
}

func (s sessions) Close(ctx context.Context, p mqtt.Peer, clientID string, expiry time.Duration) error {
	return s.in.Close(ctx, identity.Peer(p), clientID, expiry)
}
