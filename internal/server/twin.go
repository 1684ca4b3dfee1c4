package server

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// twinHouse says to package twin whose devices are.
type twinHouse struct {
	custody *custody.Custody
	grants  *grant.Register
	now     func() time.Time // nil: the system's clock
	ending  func(holdfast.AssignmentID) error
}

// Standing is of the device's own assignment. A period in force is somebody else's,
// unless its readings are the same one's.
func (h twinHouse) Standing(ctx context.Context, id holdfast.DeviceID) (twin.Standing, error) {
	d, err := h.custody.Device(ctx, id)
	if err != nil {
		return twin.Standing{}, err
	}
	if d.State == custody.Erased {
		return twin.Standing{}, holdfast.Errorf(holdfast.NotFound, "there is no such device")
	}
	st := twin.Standing{Device: d.ID, Assignment: d.Assignment, Gateway: d.Gateway, Child: d.Child,
		Whose: custody.Assignment{Owner: d.Owner, Subject: d.Subject}.Whose(), Ending: h.ending(d.Assignment)}
	r, err := h.custody.Route(ctx, id)
	if err != nil {
		if k := holdfast.KindOf(err); k != holdfast.Denied && k != holdfast.NotFound {
			return st, err
		}
		st.Refused = err
		return st, nil
	}
	now := time.Now()
	if h.now != nil {
		now = h.now()
	}
	to, _ := r.At(now.UnixNano(), now.UnixNano())
	st.Elsewhere = to.Denied() != nil || to.Whose() != st.Whose
	return st, nil
}

func (h twinHouse) Child(ctx context.Context, gateway holdfast.DeviceID, name string) (holdfast.DeviceID, error) {
	return h.custody.Child(ctx, gateway, name)
}

func (h twinHouse) Children(ctx context.Context, gateway holdfast.DeviceID) ([]holdfast.DeviceID, error) {
	all, err := h.custody.Children(ctx, gateway)
	out := make([]holdfast.DeviceID, len(all))
	for i, d := range all {
		out[i] = d.ID
	}
	return out, err
}

func (h twinHouse) Operating(ctx context.Context) (holdfast.PartyID, error) {
	return h.custody.Operating(ctx)
}

func (h twinHouse) Live(ctx context.Context, p holdfast.Purpose) bool { return h.grants.Live(ctx, p) }

func (h twinHouse) Stopped(whose holdfast.PartyID, a holdfast.AssignmentID, stream string) bool {
	return h.grants.Stopped(whose, a, stream)
}

// twinPort is the devices' part of the store for deviceapi.
type twinPort struct{ *twin.Store }

func portPeer(p identity.Peer) twin.Peer {
	return twin.Peer{Device: p.Device, Assignment: p.Assignment}
}

func (t twinPort) Poll(ctx context.Context, p identity.Peer, child string, after holdfast.CommandID, most time.Duration) ([]twin.Command, error) {
	return t.Store.Poll(ctx, portPeer(p), child, after, most)
}

func (t twinPort) Result(ctx context.Context, p identity.Peer, child, id string, payload []byte) error {
	return t.Store.Result(ctx, portPeer(p), child, id, payload)
}

func (t twinPort) DesiredFor(ctx context.Context, p identity.Peer, child string, have int64, most time.Duration) (twin.Desired, error) {
	return t.Store.DesiredFor(ctx, portPeer(p), child, have, most)
}

func (t twinPort) Report(ctx context.Context, p identity.Peer, child string, c twin.Change) (int64, error) {
	return t.Store.Report(ctx, portPeer(p), child, c)
}

func twinPeer(p mqtt.Peer) twin.Peer { return twin.Peer{Device: p.Device, Assignment: p.Assignment} }

// twinSource gives devices their commands and desired states over MQTT.
type twinSource struct{ twin *twin.Store }

func (s twinSource) Open(ctx context.Context, who mqtt.Subscriber, filter, resume string) (mqtt.Subscription, error) {
	if !who.IsDevice() {
		return nil, holdfast.Errorf(holdfast.Denied, "commands and desired states are for devices")
	}
	u, err := s.twin.Subscribe(ctx, twinPeer(who.Peer), filter, resume)
	if err != nil {
		return nil, err
	}
	return twinSubscription{u, resume}, nil
}

type twinSubscription struct {
	*twin.Subscription
	resumed string
}

func (s twinSubscription) Mark() string { return s.resumed }

func (s twinSubscription) Next(ctx context.Context) (mqtt.Message, error) {
	m, err := s.Subscription.Next(ctx)
	return mqtt.Message{Topic: m.Topic, Payload: m.Payload, QoS: 1, Expiry: m.Expiry, Correlation: m.Correlation, ResponseTopic: m.ResponseTopic,
		ContentType: "application/json", Mark: m.Mark}, err
}

func (s twinSubscription) Done(ctx context.Context, m mqtt.Message) error {
	return s.Subscription.Done(ctx, m.Correlation)
}

// twinAnswers takes what devices say of commands and of themselves over MQTT.
type twinAnswers struct{ twin *twin.Store }

func (a twinAnswers) Result(ctx context.Context, p mqtt.Peer, child, id string, payload []byte) error {
	return a.twin.Result(ctx, twinPeer(p), child, id, payload)
}

func (a twinAnswers) Report(ctx context.Context, p mqtt.Peer, child string, payload []byte) error {
	c, err := twin.ParseReport(payload)
	if err != nil {
		return err
	}
	_, err = a.twin.Report(ctx, twinPeer(p), child, c)
	return err
}
