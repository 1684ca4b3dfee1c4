package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// final is a change that a restore must never undo, and whether it still stands.
type final struct {
	name   string
	change func() error
	stands func(h *house) bool
}

// finals prepares a change of each kind, none of which touches another's.
func finals(t *testing.T, h *house) []final {
	at := time.Now().Add(-time.Minute)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	invite := func(name string) string {
		code, _, err := h.access.Invite(t.Context(), h.admin(), h.person(name).Party)
		must(err)
		return code
	}
	redeem := func(h *house, code string) (access.Made, error) {
		return h.access.Redeem(t.Context(), access.Redemption{Code: code, From: "192.0.2.1"})
	}
	token, err := redeem(h, invite("token"))
	must(err)
	invitation := invite("invitation")
	revoked := h.enrolled(h.person("revoked").Party, "revoked")
	fresh := h.device(h.person("fresh").Party, "fresh")
	code, _, err := h.identity.MakeCode(t.Context(), fresh.Device, fresh.Assignment, identity.CodeOptions{})
	must(err)
	unclaimed, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: "unclaimed", Unclaimed: true})
	must(err)
	claimer, other := h.person("claimer"), h.person("other")
	erased, undone, waiting := h.owner("erased"), h.owner("undone"), h.owner("waiting")
	for _, o := range []owner{erased, undone, waiting} {
		h.mustSend(o.device, number("pulse", at, 60))
	}
	wait := func(o owner) (erasure.Erasure, error) {
		s, err := h.custody.ScopeOfParty(t.Context(), o.Party)
		must(err)
		return h.Server.erasure.Request(t.Context(), o.Principal, s, erasure.Wish{Undo: time.Hour, Guarded: true})
	}
	readings := func(h *house, o owner) int {
		rows, _ := h.read(o.Principal, o.device, "pulse")
		return len(rows)
	}
	return []final{
		{"a token is revoked", func() error { return h.access.Revoke(t.Context(), h.admin(), token.ID, "lost") },
			func(h *house) bool {
				_, err := h.access.Bearer(t.Context(), token.Token, "192.0.2.1")
				return err != nil
			}},
		{"an invitation is used", func() error { _, err := redeem(h, invitation); return err },
			func(h *house) bool { _, err := redeem(h, invitation); return err != nil }},
		{"a device is revoked", func() error { return h.identity.Revoke(t.Context(), revoked.Device, "lost") },
			func(h *house) bool {
				_, err := h.identity.Peer(t.Context(), tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{revoked.cert.Leaf}})
				return err != nil
			}},
		{"an enrolment code is replaced", func() error {
			_, _, err := h.identity.MakeCode(t.Context(), fresh.Device, fresh.Assignment, identity.CodeOptions{})
			return err
		}, func(h *house) bool {
			_, err := h.identity.Enrol(t.Context(), fresh.Device.String(), code.SecretText(), nil, "192.0.2.1")
			return holdfast.KindOf(err) == holdfast.Denied
		}},
		{"a claim code is used", func() error {
			_, err := h.custody.Claim(t.Context(), claimer.Credential, claimer.Party, unclaimed.ClaimCode)
			return err
		}, func(h *house) bool {
			_, err := h.custody.Claim(t.Context(), other.Credential, other.Party, unclaimed.ClaimCode)
			return err != nil
		}},
		{"an owner is erased", func() error { h.waitErasedAll(h.ask(erased)); return nil },
			func(h *house) bool {
				return readings(h, erased) == 0 && h.send(erased.device, number("pulse", at, 61)) != nil
			}},
		{"an erasure is undone", func() error {
			e, err := wait(undone)
			if err == nil {
				_, err = h.Server.erasure.Undo(t.Context(), undone.Principal, e.ID)
			}
			return err
		}, func(h *house) bool { return readings(h, undone) == 1 }},
		{"an erasure waits", func() error { _, err := wait(waiting); return err },
			func(h *house) bool { return readings(h, waiting) == 0 }},
	}
}

func (h *house) waitErasedAll(e erasure.Erasure) {
	h.t.Helper()
	if err := h.Server.erasure.Once(h.t.Context()); err != nil {
		h.t.Fatalf("erasure %s: %v", e.ID, err)
	}
}

// Whatever was final before or after a copy of the data folder was made is final
// after that copy is put back with the newest copy of the keyring.
func TestARestoreUndoesNothingThatIsFinal(t *testing.T) {
	seed := testseed.Of(t)
	r := rand.New(rand.NewPCG(seed, 1))
	h := newHouse(t)
	h.halt()
	kept, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	if err := AddCopy(t.Context(), Config{Data: h.dir}, "safe", "file:"+kept); err != nil {
		t.Fatal(err)
	}
	h.start()
	all := finals(t, h)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	cut := r.IntN(len(all)) // at least one comes after
	for i, f := range all {
		if i == cut { // as a backup: all is in segments, and no journal
			if err := h.series.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.halt()
			if err := os.CopyFS(old, os.DirFS(h.dir)); err != nil {
				t.Fatal(err)
			}
			j := filepath.Join(old, journalDir)
			if err := errors.Join(os.RemoveAll(j), os.Mkdir(j, 0o700)); err != nil {
				t.Fatal(err)
			}
			h.start()
		}
		if err := f.change(); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
	}
	if err := h.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.halt()
	files, err := takeBacksIn(kept)
	if err != nil {
		t.Fatal(err)
	}
	ring := filepath.Join(old, keyringDir)
	if err := os.RemoveAll(ring); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(ring, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(old, keysFile)); err != nil {
		t.Fatal(err)
	}
	c := Config{Data: old, RootKey: h.rootKey, restored: true}
	done, err := ReplayTakeBacks(t.Context(), c.withDefaults(), files)
	if err != nil || done.Short != "" {
		t.Fatalf("replay: %+v, %v", done, err)
	}
	if _, err := RenewLedger(t.Context(), c, nil, true); err != nil {
		t.Fatal(err)
	}
	back := &house{t: t, dir: old, rootKey: h.rootKey}
	back.start()
	t.Cleanup(back.halt)
	for i, f := range all {
		if !f.stands(back) {
			t.Errorf("%s (change %d, the copy was made before %d): undone by the restore", f.name, i, cut)
		}
	}
}
