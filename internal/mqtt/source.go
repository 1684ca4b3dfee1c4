package mqtt

import (
	"context"
	"time"
)

// Source opens what a topic filter asks for. It knows what there is and who may have
// it; this package knows neither.
type Source interface {
	// Open begins a subscription, or refuses it with a kind of error: Denied is told as
	// 0x87, Invalid and NotFound as 0x8F, TooLarge as 0x97, Conflict as 0x83, any other
	// as 0x80. resume is the Mark of the last message that the session's client has for
	// certain, and of all before it; "" in a subscription that is new. ctx lives as long
	// as the call; what the subscription does later it does under the contexts given to
	// it.
	Open(ctx context.Context, who Subscriber, filter, resume string) (Subscription, error)
}

// Subscriber is who subscribes.
type Subscriber struct {
	Peer     Peer
	ClientID string
	Purpose  string // as the client named it, "" if it named none
}

// IsDevice tells a device from a person or a program.
func (s Subscriber) IsDevice() bool { return !s.Peer.Device.IsZero() }

// Subscription gives messages one after the other. Next is called by one goroutine;
// Done and Close by any, also while Next waits, and Done also after Close, for what
// was given before.
type Subscription interface {
	// Next waits for the next message until ctx ends. A message without a Topic is not
	// sent: it moves the Mark. An error ends the subscription and the connection:
	// Denied is told as 0x87 and ends the session, too; TooLarge, that the subscriber
	// does not keep up, as 0x97; any other as 0x89, come again.
	Next(ctx context.Context) (Message, error)
	// Done says that the client has m: it has acknowledged it at QoS 1, or it has been
	// written at QoS 0. An error ends the connection, so that m is given again.
	Done(ctx context.Context, m Message) error
	// Mark is where the subscription stands before its first message.
	Mark() string
	// Close ends the subscription. Next returns.
	Close() error
}

// Message is what goes to a client.
type Message struct {
	Topic         string
	Payload       []byte        // not changed after Next has given it
	QoS           byte          // at most; the subscription's may be lower. 2 counts as 1
	Expiry        time.Duration // from now; 0: never
	Correlation   []byte
	ResponseTopic string
	ContentType   string
	Mark          string // a subscription that is opened with it goes on behind this message
}

// Twin takes what devices say of commands and of their state. An answer of nil means
// that it is durable; errors are told like those of a Batch. What is said again,
// because the answer was lost, changes nothing.
type Twin interface {
	// Result is the outcome of command id, published on cmd/ID/result. child is the name
	// of a declared child, "" for the device itself.
	Result(ctx context.Context, p Peer, child, id string, payload []byte) error
	// Report is the device's state, published on reported.
	Report(ctx context.Context, p Peer, child string, payload []byte) error
}
