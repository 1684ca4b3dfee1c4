package api

import (
	"fmt"
	"testing"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// TestOnePartysShare: more credentials don't get a party more of what all share.
func TestOnePartysShare(t *testing.T) {
	h := build(t, Limits{Streams: 8, OwnStreams: 1, Changes: 0.02})
	by := func() access.Principal {
		return access.Principal{Credential: holdfast.NewID[holdfast.CredentialID](), Party: h.annaID, Role: access.Owner}
	}
	for range 2 { // a quarter of all
		if _, err := h.begin(by()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.begin(by()); err == nil || problemOf(err).Status != 429 {
		t.Errorf("the stream after the last of a party: %v", err)
	}
	h.ask(h.ben, "GET", "/v1/readings?owner="+h.benID.String(), "").is(200)
	if n := h.streams.count(); n != 2 {
		t.Errorf("%v streams are counted, want 2", n)
	}

	add := func(token string, i int) got {
		return h.ask(token, "POST", "/v1/tokens", fmt.Sprintf(`{"label": "more %d", "role": "owner"}`, i))
	}
	var made NewCredential
	for i := range 4 { // 200 times 0.02
		add(h.anna, i).is(201).into(&made)
	}
	add(h.anna, 4).is(429).problem()
	add(made.Token, 5).is(429)
	h.ask(made.Token, "GET", "/v1/me", "").is(200)
	add(h.ben, 6).is(201)
	for i := range 10 {
		h.ask(h.admin, "POST", "/v1/tokens", fmt.Sprintf(`{"label": "more %d", "role": "administrator"}`, i)).is(201)
	}
}
