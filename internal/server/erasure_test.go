package server

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/twin"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// The forensic story: known patterns go in; before the erasure no file shows one
// in clear; after it no file holds a pattern, an owner key or the old root key.
func TestErasedOwnerIsInNoFile(t *testing.T) {
	h := mailing(t)
	anna, ben := h.person("Anna Forensica"), h.person("Ben Overlebende")
	watches := []*thing{h.enrolled(anna.Party, "annas-secret-watch"), h.enrolled(ben.Party, "bens-watch")}
	hers, his := watches[0].Peer, watches[1].Peer
	start := time.Now().Add(-time.Hour)
	for i := range 200 {
		at := start.Add(time.Duration(i) * time.Second)
		h.mustSend(hers,
			number("pulse-of-anna", at, 71.25+float64(i)),
			holdfast.Sample{Stream: "diary-of-anna", Time: at.UnixNano(), Timed: true, Value: holdfast.TextValue("dear-diary-pattern-0xA11A")})
		h.mustSend(his, number("pulse", at, 64.5))
		if i == 100 {
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	at, end := h.serve()
	annas, bens := h.belong(at, anna, watches[0], "anna"), h.belong(at, ben, watches[1], "ben")
	wish := h.wish(anna, hers.Device, "wish-of-anna")
	h.wish(ben, his.Device, "wish-of-ben")
	if err := h.twin.Result(t.Context(), twin.Peer{Device: hers.Device, Assignment: hers.Assignment}, "", wish.String(), []byte(`{"status":"done","result":"answer-to-anna"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.twin.Report(t.Context(), twin.Peer{Device: hers.Device, Assignment: hers.Assignment}, "", twin.Change{State: []byte(`{"is":"state-of-anna"}`)}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(h.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	patterns := map[string][]byte{
		"party name":  []byte("Anna Forensica"),
		"device name": []byte("annas-secret-watch"),
		"stream name": []byte("pulse-of-anna"),
		"text stream": []byte("diary-of-anna"),
		"text value":  []byte("dear-diary-pattern-0xA11A"),
		"command":     []byte("wish-of-anna"),
		"result":      []byte("answer-to-anna"),
		"state":       []byte("state-of-anna"),
	}
	maps.Copy(patterns, annas.patterns)
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	annas.filled()
	bens.filled()
	if hits := h.find(patterns); len(hits) > 0 {
		t.Errorf("plaintext before the erasure: %v", hits)
	}
	if got, err := h.read(anna, hers, "pulse-of-anna"); err != nil || len(got) != 200 {
		t.Fatalf("%d readings before: %v", len(got), err)
	}

	scope, err := h.custody.ScopeOfParty(t.Context(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	certificate := h.erase(h.admin(), scope)
	annas.cut()
	annas.erased()
	end()

	for name, k := range rootKeys(t, before) {
		patterns[name] = k
		patterns[name+" (base64)"] = []byte(base64.StdEncoding.EncodeToString(k))
		patterns[name+" (hex)"] = []byte(hex.EncodeToString(k))
	}
	for round := range 2 {
		if hits := h.find(patterns); len(hits) > 0 {
			t.Errorf("after the erasure, round %d: %v", round, hits)
		}
		if _, err := h.read(anna, hers, "pulse-of-anna"); err == nil {
			t.Error("the erased owner's readings are read")
		}
		annas.erased()
		bens.filled()
		if err := h.send(hers, number("pulse-of-anna", start, 71.25)); err == nil {
			t.Error("an erased device sends")
		}
		if got, err := h.read(ben, his, "pulse"); err != nil || len(got) != 200 {
			t.Errorf("the other owner has %d readings: %v", len(got), err)
		}
		r, err := h.ledger.Verify(t.Context())
		if err != nil || len(r.Faults) > 0 || r.Erased == 0 {
			t.Errorf("ledger: %+v, %v", r, err)
		}
		h.halt()
		h.start()
	}

	c, err := erasure.VerifyCertificate(certificate, h.ledger.VerifierKey())
	if err != nil {
		t.Fatalf("verify certificate: %v", err)
	}
	if c.Opened == nil || c.Opened.Party != anna.Party || c.Destroyed.From+1 != c.Destroyed.To || len(c.Destroyed.OwnerKeys) != 2 || c.Destroyed.Grade != vault.Clear {
		t.Errorf("certificate %+v", c)
	}
	for _, at := range []int{40, len(certificate) / 2, len(certificate) - 20} {
		bad := []byte(string(certificate))
		bad[at] ^= 1
		if _, err := erasure.VerifyCertificate(bad, h.ledger.VerifierKey()); err == nil {
			t.Errorf("a certificate with byte %d altered verifies", at)
		}
	}
	if strings.Contains(string(certificate), "Anna") {
		t.Error("the certificate names a person")
	}
}

func rootKeys(t *testing.T, file []byte) map[string][]byte {
	t.Helper()
	var doc struct{ Keys map[string]string }
	if err := json.Unmarshal(file, &doc); err != nil || len(doc.Keys) == 0 {
		t.Fatalf("root key file: %v", err)
	}
	out := map[string][]byte{}
	for n, text := range doc.Keys {
		k, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		out["root key "+n] = k
	}
	return out
}

// A stream goes, the device stays; what is taken after the erasure comes in, what
// was taken before does not.
func TestErasedStreamLeavesTheOthers(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	start := time.Now().Add(-time.Hour)
	for i := range 50 {
		at := start.Add(time.Duration(i) * time.Second)
		h.mustSend(hers, number("pulse", at, float64(i)), number("steps", at, float64(i)))
		if i == 20 {
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	scope, err := h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	h.erase(anna, scope)
	for range 2 {
		if got, err := h.read(anna, hers, "pulse"); err == nil && len(got) > 0 {
			t.Errorf("%d erased readings are read", len(got))
		}
		if got, err := h.read(anna, hers, "steps"); err != nil || len(got) != 50 {
			t.Errorf("the other stream has %d readings: %v", len(got), err)
		}
		if err := h.send(hers, number("pulse", start, 0)); holdfast.KindOf(err) != holdfast.Denied {
			t.Errorf("an erased reading sent again: %v", err)
		}
		h.halt()
		h.start()
	}
	h.mustSend(hers, number("pulse", time.Now(), 77))
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 1 || got[0].Value.Number() != 77 {
		t.Errorf("after the erasure: %v, %v", got, err)
	}
}

// A span goes; the rest of the stream survives under a fresh key.
func TestErasedSpanLeavesTheRest(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range 60 {
		h.mustSend(hers, number("pulse", start.Add(time.Duration(i)*time.Second), float64(i)))
		if i%25 == 20 {
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	scope, err := h.custody.ScopeOfStream(t.Context(), hers.Device, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	scope.Span = holdfast.Span{From: start.Add(10 * time.Second).UnixNano(), To: start.Add(39 * time.Second).UnixNano()}
	if _, err := h.Server.erasure.Ask(t.Context(), anna, scope); err != nil {
		t.Fatal(err)
	}
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 30 {
		t.Errorf("asked for, not yet erased: %d readings, %v", len(got), err)
	}
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := h.read(anna, hers, "pulse")
		if err != nil || len(got) != 30 {
			t.Fatalf("%d readings are left: %v", len(got), err)
		}
		for i, r := range got {
			want := float64(i)
			if i >= 10 {
				want = float64(i + 30)
			}
			if r.Value.Number() != want {
				t.Errorf("reading %d is %v", i, r.Value.Number())
			}
		}
		h.halt()
		h.start()
	}
}

// An erasure that a crash cut short is finished before anything is served, and
// nothing of it is readable in between.
func TestErasureGoesOnAfterACrash(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.mustSend(hers, number("pulse", time.Now(), 60))
	scope, err := h.custody.ScopeOfParty(t.Context(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	e, err := h.Server.erasure.Ask(t.Context(), h.admin(), scope)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.read(anna, hers, "pulse"); err == nil {
		t.Error("read after the erasure was asked for")
	}
	if err := h.send(hers, number("pulse", time.Now(), 61)); err == nil {
		t.Error("sent after the erasure was asked for")
	}
	h.halt()
	h.start()
	e, err = h.Server.erasure.Erasure(t.Context(), e.ID)
	if err != nil || e.State != erasure.Done {
		t.Fatalf("state %s, %v", e.State, err)
	}
	if _, err := erasure.VerifyCertificate(e.Certificate, ""); err != nil {
		t.Error(err)
	}
	if h.stores.vault.HasOwner(vault.OfParty(anna.Party)) {
		t.Error("the party's key is there")
	}
}

func TestWhoMayErase(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	h.device(anna.Party, "watch")
	scope, err := h.custody.ScopeOfParty(t.Context(), anna.Party)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Server.erasure.Ask(t.Context(), ben, scope); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("another owner: %v", err)
	}
	op, _ := h.custody.Operating(t.Context())
	if _, err := h.custody.ScopeOfParty(t.Context(), op); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the operating organisation: %v", err)
	}
	if _, err := h.Server.erasure.Ask(t.Context(), h.admin(), holdfast.Scope{Span: holdfast.Always}); !errors.Is(err, err) || err == nil {
		t.Error("nothing was erased without an error")
	}
}

// Erasures asked for while others are carried out each get their own keys
// destroyed before their certificate: none slips through with the others' purge.
func TestManyErasuresTogether(t *testing.T) {
	h := newHouse(t)
	var asked []holdfast.ErasureID
	ask := func(n int) {
		for range n {
			p := h.person("P" + holdfast.NewID[holdfast.PartyID]().String()[:8])
			d := h.device(p.Party, "watch")
			h.mustSend(d, number("pulse", time.Now(), 60))
			s, err := h.custody.ScopeOfParty(t.Context(), p.Party)
			if err != nil {
				t.Fatal(err)
			}
			e, err := h.Server.erasure.Ask(t.Context(), p, s)
			if err != nil {
				t.Fatal(err)
			}
			asked = append(asked, e.ID)
		}
	}
	ask(20)
	before := h.stores.vault.Generation()
	done := make(chan error)
	go func() { done <- h.Server.erasure.Once(t.Context()) }()
	ask(5)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := h.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := h.stores.vault.Generation() - before; n > 6 {
		t.Errorf("%d rotations for 25 erasures", n)
	}
	for _, id := range asked {
		e, err := h.Server.erasure.Erasure(t.Context(), id)
		if err != nil || e.State != erasure.Done {
			t.Fatalf("%s, %v", e.State, err)
		}
		c, err := erasure.VerifyCertificate(e.Certificate, "")
		if err != nil || c.Destroyed.To == 0 || c.Destroyed.At.Before(c.Asked) {
			t.Errorf("certificate: %v, keys destroyed %s, asked %s", err, c.Destroyed.At, c.Asked)
		}
		for _, a := range c.Opened.Scope.Assignments {
			if h.stores.vault.HasOwner(vault.OfAssignment(a)) {
				t.Error("a certified key is there")
			}
		}
	}
}
