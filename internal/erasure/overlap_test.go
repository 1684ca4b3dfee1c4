package erasure_test

import (
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/seal"
)

// Expiry and an erasure in part of the same assignment each renew the journal key.
// What is acknowledged between an erasure's last roll and its rotation is under the
// key that it made, and lives, whatever expiry makes meanwhile.
func TestExpiryBesideAnErasureLosesNothing(t *testing.T) {
	h := newAging(t)
	h.send()
	h.must(h.Register.EndPurpose(t.Context(), h.Admin.Credential, "research"))
	h.Later(25 * time.Hour) // the keys of sleep are due, in a bucket that takes readings
	steps, err := h.House.Custody.StreamByName(t.Context(), h.band.ID, "steps")
	h.must(err)
	_, err = h.Ask(t.Context(), h.anna, holdfast.Scope{Party: h.anna.Party, Assignments: []holdfast.AssignmentID{h.band.Assignment},
		Streams: []holdfast.StreamID{steps.ID}, Span: holdfast.Always})
	h.must(err)

	due, resealed := make(chan struct{}), make(chan struct{})
	h.Gate.Arrival = func() int64 { // expiry asks when it has decided what is due
		close(due)
		<-resealed
		return time.Now().UnixNano()
	}
	h.Gate.Fault = func(step string) error {
		if step != "resealed" {
			return nil
		}
		h.Send(h.band, holdfast.Sample{Stream: "heart", Value: holdfast.NumberValue(62)})
		was := h.journalKey()
		close(resealed)
		for end := time.Now().Add(200 * time.Millisecond); h.journalKey() == was && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // expiry renews the key now, or waits its turn
		}
		return nil
	}
	expired := make(chan error, 1)
	go func() {
		_, err := h.Expire(t.Context(), false)
		expired <- err
	}()
	<-due
	h.must(h.Gate.Once(t.Context()))
	h.must(<-expired)
	if n := h.shows("heart"); n != 2 {
		t.Errorf("%d readings of heart, of 2 that were acknowledged", n)
	}
	h.Restart()
	h.open()
	if n := h.shows("heart"); n != 2 {
		t.Errorf("%d readings of heart after a start, of 2 that were acknowledged", n)
	}
	h.lives("after both", map[string]bool{"heart": true, "sleep": false})
	if _, live := h.cells("steps"); live {
		t.Error("the erased stream has a key")
	}
}

// journalKey is the key that a reading of the band would be sealed under now.
func (h *aging) journalKey() seal.KeyID {
	h.t.Helper()
	lease, err := h.House.Vault.JournalKey(h.t.Context(), h.band.Assignment, bucketNow(false))
	h.must(err)
	defer lease.Done()
	return lease.Cipher.ID()
}
