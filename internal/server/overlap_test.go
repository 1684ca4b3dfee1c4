package server

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// A device that was erased can't be erased in part any more: what asks for it, on
// the strength of a scope from before, ends well and keeps no other from its end.
func TestErasureInPartOfWhatIsGone(t *testing.T) {
	for _, crash := range []bool{false, true} {
		h := newHouse(t)
		anna, ben := h.person("Anna"), h.person("Ben")
		hers, his := h.device(anna.Party, "watch"), h.device(ben.Party, "watch")
		h.mustSend(hers, number("pulse", time.Now(), 60))
		h.mustSend(his, number("pulse", time.Now(), 61))
		whole, err := h.custody.ScopeOfDevice(t.Context(), hers.Device)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")
		if err != nil {
			t.Fatal(err)
		}
		stream.Span = holdfast.Always
		span := stream
		span.Span = holdfast.Span{From: 0, To: time.Now().UnixNano()}
		other, err := h.custody.ScopeOfParty(t.Context(), ben.Party)
		if err != nil {
			t.Fatal(err)
		}
		var asked []holdfast.ErasureID
		for _, s := range []holdfast.Scope{whole, stream, span, other} {
			e, err := h.Server.erasure.Ask(t.Context(), h.admin(), s)
			if err != nil {
				t.Fatal(err)
			}
			asked = append(asked, e.ID)
		}
		if crash {
			h.halt()
			h.start()
		} else if err := h.Server.erasure.Once(t.Context()); err != nil {
			t.Error(err)
		}
		for i, id := range asked {
			if e, err := h.Server.erasure.Erasure(t.Context(), id); err != nil || e.State != erasure.Done {
				t.Errorf("erasure %d is %s: %v", i, e.State, err)
			}
		}
		h.halt()
	}
}

// A certificate names the owner key that died, also if an erasure in part came
// first and put another in the place of the one there was when it was asked.
func TestCertificateNamesTheKeyThatDied(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.mustSend(hers, number("pulse", time.Now(), 60))
	whole, err := h.custody.ScopeOfDevice(t.Context(), hers.Device)
	if err != nil {
		t.Fatal(err)
	}
	e, err := h.Server.erasure.Ask(t.Context(), anna, whole)
	if err != nil {
		t.Fatal(err)
	}
	part, err := h.stores.vault.Destroy(t.Context(), vault.Destruction{Reissue: []vault.Reissue{{Assignment: hers.Assignment}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := h.certificate(e.ID).Destroyed.OwnerKeys
	if len(keys) != 2 || keys[0] != part.OwnerKeys[vault.OfAssignment(hers.Assignment)] || keys[1] == keys[0] {
		t.Errorf("the certificate names %v, the part took %v", keys, part.OwnerKeys)
	}
}

// What is asked in part of a device that is to go as a whole goes with it, in one
// rotation, and its certificate names the same key.
func TestErasureInPartGoesWithTheWhole(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.mustSend(hers, number("pulse", time.Now(), 60))
	stream, err := h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := h.custody.ScopeOfDevice(t.Context(), hers.Device)
	if err != nil {
		t.Fatal(err)
	}
	var asked []holdfast.ErasureID
	for _, s := range []holdfast.Scope{stream, whole} {
		e, err := h.Server.erasure.Ask(t.Context(), anna, s)
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, e.ID)
	}
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	of, with := h.certificate(asked[0]).Destroyed, h.certificate(asked[1]).Destroyed
	if len(of.OwnerKeys) != 1 || len(with.OwnerKeys) != 1 || of.OwnerKeys[0] != with.OwnerKeys[0] || of.To != with.To {
		t.Errorf("the stream's certificate names %v, the device's %v", of, with)
	}
}

// certificate is the verified certificate of an erasure that is done.
func (h *house) certificate(id holdfast.ErasureID) erasure.Certificate {
	h.t.Helper()
	e, err := h.Server.erasure.Erasure(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := erasure.VerifyCertificate(e.Certificate, "")
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// A batch that was filled before an erasure and is committed after it does not
// bring back what the erasure took.
func TestBatchFromBeforeAnErasure(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.mustSend(hers, number("pulse", time.Now(), 60), number("steps", time.Now(), 1))
	b := h.ingest.Batch(t.Context(), hers, "")
	if err := b.Add("", []holdfast.Sample{number("pulse", time.Now(), 61)}, ingest.Delivery{}); err != nil {
		t.Fatal(err)
	}
	scope, err := h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	h.erase(anna, scope)
	done := make(chan error, 1)
	b.Commit(func(err error) { done <- err })
	if err := <-done; holdfast.KindOf(err) != holdfast.Unavailable {
		t.Errorf("commit: %v", err)
	}
	h.mustSend(hers, number("pulse", time.Now(), 62))
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 1 {
		t.Errorf("%d readings, %v", len(got), err)
	}
}
