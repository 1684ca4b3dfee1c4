package server

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/recovery"
)

// finalAccess is what was revoked and used of credentials, invitations, permissions
// and second factors.
func (f *finals) access() []final {
	h, ctx := f.h, f.h.t.Context()
	invite := func(name string) string {
		code, _, err := h.access.Invite(ctx, h.admin(), h.person(name).Party)
		f.must(err)
		return code
	}
	redeem := func(h *house, code string) (access.Made, error) {
		return h.access.Redeem(ctx, access.Redemption{Code: code, From: "192.0.2.1"})
	}
	token, err := redeem(h, invite("token"))
	f.must(err)
	invitation := invite("invitation")
	watched, staff := f.holder("watched"), h.admin()
	staff.Holder = staff.Credential
	asked, err := h.access.AskPermission(ctx, staff, access.PermissionSpec{Whose: watched.Party, Purpose: holdfast.Operation, Reason: "her pump stands still"})
	f.must(err)
	_, err = h.access.DecidePermission(ctx, watched, asked.ID, true)
	f.must(err)
	// One has lost what makes the codes, one uses a code of those that are for that.
	factor := func(name string) (who access.Principal, recovery []string) {
		who = f.holder(name)
		made, err := h.access.AddFactor(ctx, who)
		f.must(err)
		code, err := totp.GenerateCode(made.Secret, time.Now())
		f.must(err)
		recovery, err = h.access.ConfirmFactor(ctx, who, code)
		f.must(err)
		return who, recovery
	}
	removed, _ := factor("second factor removed")
	used, codes := factor("recovery code used")
	return []final{
		{"a token is revoked", func() error { return h.access.Revoke(ctx, h.admin(), token.ID, "lost") },
			func(h *house) bool {
				_, err := h.access.Bearer(ctx, token.Token, "192.0.2.1")
				return err != nil
			}},
		{"an invitation is used", func() error { _, err := redeem(h, invitation); return err },
			func(h *house) bool { _, err := redeem(h, invitation); return err != nil }},
		{"a permission ends", func() error { return h.access.EndPermission(ctx, watched, asked.ID) },
			func(h *house) bool {
				all, err := h.access.Permissions(ctx, watched, watched.Party)
				return err == nil && len(all) == 1 && all[0].State == "ended"
			}},
		{"a second factor is removed", func() error { return h.access.RemoveFactor(ctx, removed) },
			func(h *house) bool { has, _, err := h.access.Factor(ctx, removed); return err == nil && !has }},
		{"a recovery code is used", func() error { _, err := h.access.Show(ctx, used, codes[0]); return err },
			func(h *house) bool {
				_, again := h.access.Show(ctx, used, codes[0])
				_, next := h.access.Show(ctx, used, codes[1])
				return holdfast.KindOf(again) == holdfast.Denied && next == nil
			}},
	}
}

// holder is a person whose credential is the first of its kind.
func (f *finals) holder(name string) access.Principal {
	who := f.h.person(name)
	who.Holder = who.Credential
	return who
}

func (f *finals) identity() []final {
	h, ctx := f.h, f.h.t.Context()
	revoked := h.enrolled(h.person("revoked").Party, "revoked")
	coded := func(name string) (identity.Peer, func(*house) bool) {
		p := h.device(h.person(name).Party, name)
		code, _, err := h.identity.MakeCode(ctx, p.Device, p.Assignment, identity.CodeOptions{})
		f.must(err)
		return p, func(h *house) bool {
			_, err := h.identity.Enrol(ctx, p.Device.String(), code.SecretText(), nil, "192.0.2.1")
			return holdfast.KindOf(err) == holdfast.Denied
		}
	}
	fresh, freshRefused := coded("fresh")
	renews := h.enrolled(h.person("renews").Party, "renews")
	spare, _, err := h.identity.MakeCode(ctx, renews.Device, renews.Assignment, identity.CodeOptions{})
	f.must(err)
	of := func(d *thing) tls.ConnectionState {
		leaf, err := x509.ParseCertificate(d.cert.Certificate[0])
		f.must(err)
		return tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{leaf}}
	}
	return []final{
		{"a device is revoked", func() error { return h.identity.Revoke(ctx, revoked.Device, "lost") },
			func(h *house) bool { _, err := h.identity.Peer(ctx, of(revoked)); return err != nil }},
		{"an enrolment code is replaced", func() error {
			_, _, err := h.identity.MakeCode(ctx, fresh.Device, fresh.Assignment, identity.CodeOptions{})
			return err
		}, freshRefused},
		{"an enrolment code ends with a renewal", func() error {
			_, err := h.identity.Renew(ctx, of(renews), f.request())
			return err
		}, func(h *house) bool {
			_, err := h.identity.Enrol(ctx, renews.Device.String(), spare.SecretText(), nil, "192.0.2.1")
			return holdfast.KindOf(err) == holdfast.Denied
		}},
	}
}

// grants are what was withdrawn, ended, held and limited.
func (f *finals) grants() []final {
	h, ctx := f.h, f.h.t.Context()
	giver, lab := h.owner("giver"), h.person("lab")
	own := grant.Caller{Credential: giver.Credential, Party: giver.Party, Owner: true}
	for _, name := range []holdfast.Purpose{"study", "ending", "kept", "limited"} {
		_, err := h.grants.AddPurpose(ctx, h.admin().Credential, grant.Purpose{Name: name, IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study.", RetentionDays: 100})
		f.must(err)
	}
	made, err := h.grants.Make(ctx, own, grant.Spec{Recipient: lab.Party, Purpose: "study", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: time.Now().Add(day)})
	f.must(err)
	lifted, err := h.grants.AddHold(ctx, grant.HoldBy{Caller: own}, grant.HoldSpec{Kind: grant.Restriction, Whose: giver.Party})
	f.must(err)
	f.must(h.grants.SetRule(ctx, h.admin().Credential, grant.Rule{Purpose: "kept", Days: 10}))
	live := func(h *house, id holdfast.HoldID) bool {
		all, err := h.grants.HoldsOn(ctx, giver.Party, true)
		return err == nil && slices.ContainsFunc(all, func(x grant.Hold) bool { return x.ID == id && x.Ended.IsZero() })
	}
	var set grant.Hold
	return []final{
		{"a grant is withdrawn", func() error { return h.grants.End(ctx, own, made.ID) }, func(h *house) bool {
			all, err := h.grants.GrantsBy(ctx, giver.Party)
			return err == nil && len(all) == 1 && !all[0].Live(time.Now())
		}},
		{"a purpose ends", func() error { return h.grants.EndPurpose(ctx, h.admin().Credential, "ending") },
			func(h *house) bool { return !h.grants.Live(ctx, "ending") }},
		{"a hold is set", func() (err error) {
			set, err = h.grants.AddHold(ctx, grant.HoldBy{Caller: own}, grant.HoldSpec{Kind: grant.Objection, Purpose: "kept", Whose: giver.Party})
			return err
		}, func(h *house) bool { return live(h, set.ID) }},
		{"a hold ends", func() error { _, err := h.grants.EndHold(ctx, grant.HoldBy{Caller: own}, lifted.ID); return err },
			func(h *house) bool { return !live(h, lifted.ID) }},
		{"a rule of retention is set", func() error {
			return h.grants.SetRule(ctx, h.admin().Credential, grant.Rule{Purpose: "limited", Days: 7})
		}, func(h *house) bool { return h.grants.KeptFor("limited", "") == 7 }},
		{"a rule of retention ends", func() error { return h.grants.DropRule(ctx, h.admin().Credential, "", "kept") },
			func(h *house) bool { return h.grants.KeptFor("kept", "") == 100 }},
	}
}

// told is who is told what: webhooks, alarms.
func (f *finals) told() []final {
	h, ctx := f.h, f.h.t.Context()
	o := h.owner("told")
	h.mustSend(o.device, number("pulse", time.Now().Add(-time.Minute), 60))
	hook := func(name string) {
		_, _, err := h.outbox.Add(ctx, o.Party, o.Credential, name, "https://"+name+".invalid/")
		f.must(err)
	}
	hook("ended")
	hook("leaked")
	spec := func(name string, hooks ...holdfast.WebhookID) alarm.Spec {
		return alarm.Spec{Name: name, Device: o.device.Device, Stream: "pulse", Webhooks: hooks, Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 90}}
	}
	leaked, err := h.outbox.Webhook(ctx, o.Party, "leaked")
	f.must(err)
	for _, name := range []string{"over", "quieter"} {
		_, err := h.alarms.Add(ctx, o.Principal, "", spec(name, leaked.ID))
		f.must(err)
	}
	return []final{
		{"a webhook ends", func() error { return h.outbox.End(ctx, o.Party, o.Credential, "ended") },
			func(h *house) bool { all, err := h.outbox.Webhooks(ctx, o.Party); return err == nil && len(all) == 1 }},
		{"a webhook's secret is replaced", func() error { _, _, err := h.outbox.Rotate(ctx, o.Party, o.Credential, "leaked"); return err },
			func(h *house) bool {
				w, err := h.outbox.Webhook(ctx, o.Party, "leaked")
				return err == nil && !w.Rotates.IsZero()
			}},
		{"an alarm ends", func() error { return h.alarms.End(ctx, o.Principal, "over") },
			func(h *house) bool {
				_, err := h.alarms.Show(o.Principal, "over")
				return holdfast.KindOf(err) == holdfast.NotFound
			}},
		{"an alarm tells somebody no more", func() error {
			_, err := h.alarms.Change(ctx, o.Principal, "quieter", "", spec("quieter"))
			return err
		}, func(h *house) bool {
			s, err := h.alarms.Show(o.Principal, "quieter")
			return err == nil && len(s.Spec.Webhooks) == 0
		}},
	}
}

// hub is what the hub itself knows.
func (f *finals) hub() []final {
	h, ctx := f.h, f.h.t.Context()
	deal, _, err := escrow.Deal(h.ledger.Origin(), 2, []string{"notary", "safe", "board"}, time.Now())
	f.must(err)
	_, err = h.recovery.Put(ctx, h.admin(), deal)
	f.must(err)
	var until time.Time
	return []final{
		{"a backup is made that is kept for longer", func() error {
			_, err := h.backups.Begin(ctx, "somebody", 100*day)
			until = time.Now().Add(99 * day)
			return err
		}, func(h *house) bool { at, err := h.backups.Expiry(ctx); return err == nil && at.After(until) }},
		{"recovery shares are of no use any more", func() error { return h.recovery.End(ctx, h.admin()) }, func(h *house) bool {
			_, err := h.recovery.Current(ctx)
			_, any := h.stores.vault.Escrow()
			all, _ := h.recovery.Deals(ctx)
			return holdfast.KindOf(err) == holdfast.NotFound && !any && len(all) == 1 && all[0].State == recovery.Ended
		}},
	}
}
