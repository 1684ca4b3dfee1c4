package recovery

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/vaulttest"
)

type house struct {
	*Store
	t     *testing.T
	db    *catalog.DB
	vault *vault.Vault
	log   *ledger.Ledger
	now   time.Time
}

func build(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, now: time.Now()}
	h.db, h.vault = vaulttest.New(t)
	var err error
	if h.log, err = ledger.Create(t.Context(), h.db, h.vault, "holdfast/test"); err != nil {
		t.Fatal(err)
	}
	return h.open()
}

func (h *house) open() *house {
	h.t.Helper()
	s, err := Open(h.t.Context(), h.db, h.vault, h.log, func() time.Time { return h.now })
	if err != nil {
		h.t.Fatal(err)
	}
	h.Store = s
	return h
}

var admin = access.Principal{Role: access.Administrator, Scopes: access.ScopeRead | access.ScopeWrite, Settled: true}

func deal(t *testing.T, hub string) (escrow.Public, []escrow.Share) {
	t.Helper()
	p, shares, err := escrow.Deal(hub, 2, []string{"notary", "safe", "board"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return p, shares
}

func (h *house) put(p escrow.Public) {
	h.t.Helper()
	if _, err := h.Put(h.t.Context(), admin, p); err != nil {
		h.t.Fatal(err)
	}
	h.now = h.now.Add(time.Minute)
}

func (h *house) pending(at time.Time) (missing int) {
	h.t.Helper()
	all, err := h.Pending(h.t.Context(), at)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range all {
		missing += d.Missing()
	}
	return missing
}

// TestSharesOfOldDeals: an erasure waits for the shares of every deal from before it,
// and for no other's.
func TestSharesOfOldDeals(t *testing.T) {
	h := build(t)
	before := h.now.Add(-time.Second)
	first, a := deal(t, "holdfast/test")
	second, b := deal(t, "holdfast/test")
	h.put(first)
	erased := h.now
	h.now = h.now.Add(time.Minute)
	if n := h.pending(before); n != 0 {
		t.Errorf("an erasure from before the first deal waits for %d", n)
	}
	if n := h.pending(erased); n != 2 {
		t.Errorf("it waits for %d shares, want 2", n)
	}
	say := func(s escrow.Share) error {
		_, who, err := h.Destroyed(t.Context(), admin, s.Code)
		if err == nil && who != s.Name {
			t.Errorf("the code of %s is taken for that of %s", s.Name, who)
		}
		return err
	}
	if err := say(a[0]); err != nil { // two are left, and open it
		t.Fatal(err)
	}
	if err := say(a[1]); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("the deal in force is left with too few: %v", err)
	}
	h.put(second)
	for range 2 { // said again, it counts once
		if err := say(a[1]); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.pending(erased); n != 0 {
		t.Errorf("with two of three gone it waits for %d", n)
	}
	if n := h.pending(h.now); n != 2 {
		t.Errorf("an erasure after the second deal waits for %d, want 2", n)
	}
	if err := say(b[0]); err != nil {
		t.Fatal(err)
	}
	if err := h.End(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	if err := say(b[2]); err != nil {
		t.Fatal(err)
	}
	if n := h.open().pending(h.now); n != 0 {
		t.Errorf("all said and done it waits for %d", n)
	}
	if _, err := h.Current(t.Context()); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("an ended deal is in force: %v", err)
	}
	if _, err := h.Put(t.Context(), admin, first); holdfast.KindOf(err) != holdfast.Conflict {
		t.Errorf("a replaced deal comes back: %v", err)
	}
}

func TestRehearsal(t *testing.T) {
	h := build(t)
	if _, _, err := h.Challenge(t.Context(), admin); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("without a deal: %v", err)
	}
	p, shares := deal(t, "holdfast/test")
	h.put(p)
	private, err := escrow.Combine(shares[:2])
	if err != nil {
		t.Fatal(err)
	}
	answer := func() []byte {
		_, box, err := h.Challenge(t.Context(), admin)
		if err != nil {
			t.Fatal(err)
		}
		out, err := private.Open(escrow.Rehearsal(), box)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	late := answer()
	h.now = h.now.Add(2 * time.Hour)
	for what, a := range map[string][]byte{"late": late, "empty": nil, "wrong": make([]byte, 32)} {
		if _, err := h.Answer(t.Context(), admin, a); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	right := answer()
	d, err := h.Answer(t.Context(), admin, right)
	if err != nil || !d.Rehearsed.Equal(h.now) {
		t.Errorf("%v: %v", d.Rehearsed, err)
	}
	if _, err := h.Answer(t.Context(), admin, right); err == nil {
		t.Error("an answer counts twice")
	}
	if d, err = h.open().Current(t.Context()); err != nil || d.Rehearsed.IsZero() {
		t.Errorf("after a start it was not rehearsed: %v", err)
	}
}

// TestCrashBetweenCatalogAndKeyring: what is in force in one is in the other after a
// start; a deal that only the keyring knows stays, and is said to be unknown.
func TestCrashBetweenCatalogAndKeyring(t *testing.T) {
	h := build(t)
	p, _ := deal(t, "holdfast/test")
	h.put(p)
	if err := h.vault.SetEscrow(t.Context(), nil); err != nil { // as if it had not come to that
		t.Fatal(err)
	}
	h.open()
	if id, ok := h.vault.Escrow(); !ok || id != p.ID {
		t.Errorf("the keyring is wrapped to %v, %v", id, ok)
	}
	newer, _ := deal(t, "holdfast/test")
	if err := h.vault.SetEscrow(t.Context(), &newer); err != nil { // the catalog is of before it
		t.Fatal(err)
	}
	d, err := h.open().Current(t.Context())
	if err != nil || d.ID != newer.ID || d.Known() || d.Missing() == 0 {
		t.Errorf("%+v: %v", d, err)
	}
	if id, _ := h.vault.Escrow(); id != newer.ID {
		t.Error("the keyring's newer deal is overwritten")
	}
}

func TestWhoMayNot(t *testing.T) {
	h := build(t)
	p, shares := deal(t, "holdfast/test")
	other, _ := deal(t, "holdfast/other")
	if _, err := h.Put(t.Context(), admin, other); holdfast.KindOf(err) != holdfast.Invalid {
		t.Errorf("a deal for another hub: %v", err)
	}
	unsettled, owner, reader := admin, admin, admin
	unsettled.Settled, owner.Role, reader.Scopes = false, access.Owner, access.ScopeRead
	for what, by := range map[string]access.Principal{"unsettled": unsettled, "owner": owner, "reader": reader} {
		for step, f := range map[string]func(context.Context) error{
			"put":       func(ctx context.Context) error { _, err := h.Put(ctx, by, p); return err },
			"end":       func(ctx context.Context) error { return h.End(ctx, by) },
			"challenge": func(ctx context.Context) error { _, _, err := h.Challenge(ctx, by); return err },
			"answer":    func(ctx context.Context) error { _, err := h.Answer(ctx, by, nil); return err },
			"destroyed": func(ctx context.Context) error { _, _, err := h.Destroyed(ctx, by, shares[0].Code); return err },
		} {
			if err := f(t.Context()); holdfast.KindOf(err) != holdfast.Denied {
				t.Errorf("%s: %s: %v", what, step, err)
			}
		}
	}
	if _, ok := h.vault.Escrow(); ok {
		t.Error("a refusal changes the keyring")
	}
}
