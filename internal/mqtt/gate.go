package mqtt

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Peer is the device, person or program at the other end, as its certificate names it.
type Peer struct {
	Device      holdfast.DeviceID // zero: a person or a program
	Assignment  holdfast.AssignmentID
	Credential  holdfast.CredentialID // of a person or a program
	Party       holdfast.PartyID      // whose credential it is
	Fingerprint [32]byte              // SHA-256 of the certificate
	NotAfter    time.Time             // the connection ends then; zero: never
	TLS12       bool                  // it came over TLS 1.2
}

// peerID tells peers apart: a device's id, or a credential's.
type peerID [holdfast.IDSize]byte

func (p Peer) id() peerID {
	if p.Device.IsZero() {
		return peerID(p.Credential)
	}
	return peerID(p.Device)
}

// Delivery is what a durable record must know of the publish it came in.
type Delivery struct {
	PacketID uint16
	QoS2     bool // PacketID belongs to the session until Release
}

// Gate takes readings in.
type Gate interface {
	// Batch begins a batch of one connection. session is the name that
	// SessionStore.Open gave.
	Batch(p Peer, session string) Batch
}

// Batch is the publishes of one read. It is used by one goroutine and is of no
// use after Commit. A batch to which nothing was added is dropped without Commit.
type Batch interface {
	// Add takes one publish whole or not at all. child is the name of a declared
	// child, "" for the device itself. It keeps no reference to samples.
	//
	// An error of kind Unavailable or Internal ends the connection and leaves the
	// publish unacknowledged; any other says that sending it again won't help.
	// After an error the batch holds what it held before.
	Add(child string, samples []holdfast.Sample, d Delivery) error
	// Release ends the life of a QoS 2 packet id; it is durable with the Commit.
	Release(packetID uint16)
	// Commit makes the batch durable. done is called exactly once, from any
	// goroutine, also before Commit returns: with nil when all of it is durable,
	// else with the reason why none of it counts. Commit may block while the way
	// in is full; done never blocks.
	Commit(done func(error))
}

// Session is what outlives a connection.
type Session struct {
	// Name tells the sessions of one device apart in durable records.
	Name string
	// Received lists the QoS 2 packet ids that are durable and not released.
	Received []uint16
	// Subscriptions is what Keep or Note said last of each, by topic filter.
	Subscriptions map[string][]byte
}

// SessionStore keeps that a session exists, and until when.
type SessionStore interface {
	// Open finds or makes the session of a device and client id; present says that
	// it existed and goes on. clean ends an older one first. From now the session
	// lives until expiry after Close; an expiry of 0 ends it with the connection.
	// Open is not called for a session that is open: the older connection has been
	// cut, its commits have ended and Close was called.
	Open(ctx context.Context, p Peer, clientID string, clean bool, expiry time.Duration) (s Session, present bool, err error)
	// Close says that the connection has ended. expiry may differ from that of Open;
	// 0 ends the session at once.
	Close(ctx context.Context, p Peer, clientID string, expiry time.Duration) error

	// What follows keeps the subscriptions of a session that outlives its connection,
	// each with a few hundred bytes that only this package reads. They end with it.

	// Siblings returns what is kept for one filter in all sessions of the same peer.
	Siblings(ctx context.Context, session, filter string) ([][]byte, error)
	// Keep makes a subscription durable, or replaces what is kept of it.
	Keep(ctx context.Context, session, filter string, about []byte) error
	// Note replaces what is kept of a subscription; it is durable a while later.
	Note(session, filter string, about []byte)
	// Drop ends a subscription.
	Drop(ctx context.Context, session, filter string) error
}
