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
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// The adapters below let mqtt speak of its own Peer, Batch and Session, so that
// it knows neither identity nor ingest.

// authenticateMQTT says who connects: a person or a program by package access, any
// other by package identity, which knows devices.
func (s *Server) authenticateMQTT(ctx context.Context, cs tls.ConnectionState) (mqtt.Peer, error) {
	if s.stores.restored.Suspended {
		return mqtt.Peer{}, errSuspended
	}
	if _, _, err := s.identity.Credential(ctx, cs); err != nil {
		p, err := s.identity.Peer(ctx, cs)
		return mqtt.Peer{Device: p.Device, Assignment: p.Assignment, Fingerprint: p.Fingerprint, NotAfter: p.NotAfter, TLS12: p.TLS12}, err
	}
	p, err := s.access.AuthenticateTLS(ctx, cs)
	return mqtt.Peer{Credential: p.Credential, Party: p.Party, NotAfter: p.NotAfter, TLS12: cs.Version < tls.VersionTLS13}, err
}

func deviceOf(p mqtt.Peer) identity.Peer {
	return identity.Peer{Device: p.Device, Assignment: p.Assignment, Fingerprint: p.Fingerprint, NotAfter: p.NotAfter, TLS12: p.TLS12}
}

// trackMQTT ends a connection when its device or credential is revoked.
func (s *Server) trackMQTT(p mqtt.Peer, cut func(error)) func() {
	if p.Device.IsZero() {
		return s.access.Track(p.Credential, cut)
	}
	return s.identity.Track(deviceOf(p), cut)
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
	return batch{g.in.Batch(g.ctx, deviceOf(p), session)}
}

type batch struct{ *ingest.Batch }

func (b batch) Add(child string, samples []holdfast.Sample, d mqtt.Delivery) error {
	return b.Batch.Add(child, samples, ingest.Delivery(d))
}

// sessions is ingest.Sessions for mqtt.
type sessions struct{ *ingest.Sessions }

func clientOf(p mqtt.Peer) ingest.Client {
	if p.Device.IsZero() {
		return ingest.Client{ID: p.Credential, Owner: vault.OfParty(p.Party)}
	}
	return ingest.DeviceClient(deviceOf(p))
}

func (s sessions) Open(ctx context.Context, p mqtt.Peer, clientID string, clean bool, expiry time.Duration) (mqtt.Session, bool, error) {
	o, err := s.Sessions.Open(ctx, clientOf(p), clientID, clean, expiry)
	return mqtt.Session{Name: o.Name, Received: o.Received, Subscriptions: o.Subscriptions}, o.Present, err
}

func (s sessions) Close(ctx context.Context, p mqtt.Peer, clientID string, expiry time.Duration) error {
	return s.Sessions.Close(ctx, clientOf(p), clientID, expiry)
}
