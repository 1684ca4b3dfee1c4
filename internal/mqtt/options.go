package mqtt

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/holdfast-iot/holdfast/internal/budget"
)

// Options bound what clients may take. The zero value of each field means the
// default that stands beside it.
type Options struct {
	// Track tells who can revoke p that a connection of it is open. cut ends it at
	// once, and is called at once if p has been revoked since Authenticate; forget
	// is called when it has ended. nil: nothing is revoked.
	Track  func(p Peer, cut func(reason error)) (forget func())
	Logger *slog.Logger // slog.Default

	Source Source // of subscriptions; nil: all are refused
	Twin   Twin   // takes results of commands and reported state; nil: they are refused

	MaxConnections int // 20,000, un-CONNECTed ones included
	MaxPerDevice   int // 16 connections of one device (with different client ids), and as many that have not sent CONNECT

	ConnectTimeout time.Duration // 10 s for CONNECT, and for TLS if the listener has not done it
	PacketTimeout  time.Duration // 30 s from a packet's first byte to its last
	WriteTimeout   time.Duration // 10 s for a client to take what is sent
	CommitGrace    time.Duration // 2 s that an ending connection waits for its acknowledgements
	ShutdownGrace  time.Duration // 10 s that Run waits for connections to end

	MaxPacket         int    // 512 KiB, announced as Maximum Packet Size
	MaxInflightBytes  int    // 1 MiB of publishes of one connection not yet durable; then reading pauses. As much may be unacknowledged of what it is sent
	MaxLargeBytes     int    // 64 MiB of packets over 8 KiB being read at once, of all connections
	ReceiveMaximum    uint16 // 64, announced
	TopicAliasMaximum uint16 // 32, announced

	MaxSubscriptions int           // 64 of one connection
	SendMaximum      uint16        // 64 messages that a client may leave unacknowledged, if its Receive Maximum is not less
	SlowTimeout      time.Duration // 30 s that a client may acknowledge nothing while more waits

	MaxKeepAlive     time.Duration // 1 h; MQTT 5 clients are told, 3.1.1 clients are held to it if they keep alive at all
	MaxSessionExpiry time.Duration // 7 days; 3.1.1 sessions that are not clean live as long
	MaxWillDelay     time.Duration // 1 h

	// Quota says what a device may send, or a declared child of it; the answer for ""
	// is asked for once a connection. nil: nothing is bounded.
	Quota    func(ctx context.Context, p Peer, child string) *budget.Allowance
	MaxPause time.Duration // 5 s that reading pauses at once for a device over its quota; who owes more is refused
}

func (o Options) withDefaults() Options {
	o.Logger = cmp.Or(o.Logger, slog.Default())
	o.MaxConnections = cmp.Or(o.MaxConnections, 20_000)
	o.MaxPerDevice = cmp.Or(o.MaxPerDevice, 16)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 10*time.Second)
	o.PacketTimeout = cmp.Or(o.PacketTimeout, 30*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 10*time.Second)
	o.CommitGrace = cmp.Or(o.CommitGrace, 2*time.Second)
	o.ShutdownGrace = cmp.Or(o.ShutdownGrace, 10*time.Second)
	o.MaxPacket = cmp.Or(o.MaxPacket, 512<<10)
	o.MaxInflightBytes = cmp.Or(o.MaxInflightBytes, 1<<20)
	o.MaxLargeBytes = max(cmp.Or(o.MaxLargeBytes, 64<<20), o.MaxPacket+maxHeader)
	o.ReceiveMaximum = cmp.Or(o.ReceiveMaximum, 64)
	o.TopicAliasMaximum = cmp.Or(o.TopicAliasMaximum, 32)
	o.MaxSubscriptions = cmp.Or(o.MaxSubscriptions, 64)
	o.SendMaximum = cmp.Or(o.SendMaximum, 64)
	o.SlowTimeout = cmp.Or(o.SlowTimeout, 30*time.Second)
	o.MaxKeepAlive = min(cmp.Or(o.MaxKeepAlive, time.Hour), math.MaxUint16*time.Second)
	o.MaxSessionExpiry = cmp.Or(o.MaxSessionExpiry, 7*24*time.Hour)
	o.MaxWillDelay = cmp.Or(o.MaxWillDelay, time.Hour)
	if o.Quota == nil {
		o.Quota = func(context.Context, Peer, string) *budget.Allowance { return nil }
	}
	o.MaxPause = cmp.Or(o.MaxPause, 5*time.Second)
	return o
}
