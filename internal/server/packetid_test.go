package server

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// The end of a gateway's packet id does not go with a child that is erased: the
// next message of that id would pass for a repeat and be lost.
func TestPacketIDEndsThoughAChildIsErased(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	gateway := h.device(anna.Party, "gateway")
	child, err := h.custody.AddDevice(t.Context(), h.admin().Credential,
		custody.DeviceSpec{Label: "child", Owner: ben.Party, Gateway: gateway.Device})
	if err != nil {
		t.Fatal(err)
	}
	session, err := h.sessions.Open(t.Context(), ingest.DeviceClient(gateway), "client", false, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(b *ingest.Batch) {
		t.Helper()
		done := make(chan error, 1)
		b.Commit(func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	b := h.ingest.Batch(t.Context(), gateway, session.Name)
	if err := b.Add("", []holdfast.Sample{number("pulse", time.Now(), 60)}, ingest.Delivery{PacketID: 7, QoS2: true}); err != nil {
		t.Fatal(err)
	}
	commit(b)
	b = h.ingest.Batch(t.Context(), gateway, session.Name)
	if err := b.Add("child", []holdfast.Sample{number("pulse", time.Now(), 61)}, ingest.Delivery{}); err != nil {
		t.Fatal(err)
	}
	b.Release(7)
	commit(b)
	if _, err := h.stores.vault.Destroy(t.Context(), vault.Destruction{Owners: []vault.Owner{vault.OfAssignment(child.Device.Assignment)}}); err != nil {
		t.Fatal(err)
	}
	h.halt()
	h.start()
	session, err = h.sessions.Open(t.Context(), ingest.DeviceClient(gateway), "client", false, time.Hour)
	if err != nil || !session.Present || len(session.Received) > 0 {
		t.Errorf("packet ids %v, present %v, %v", session.Received, session.Present, err)
	}
}
