package server

import (
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// finals prepares changes that a restore must never undo.
type finals struct {
	h  *house
	at time.Time // of readings
}

func (f *finals) must(err error) {
	f.h.t.Helper()
	if err != nil {
		f.h.t.Fatal(err)
	}
}

// readings returns how many of a stream somebody is shown.
func (h *house) readings(who access.Principal, o owner, stream string) int {
	rows, _ := h.read(who, o.device, stream)
	return len(rows)
}

func actor(who access.Principal) custody.Actor {
	return custody.Actor{Credential: who.Credential, Party: who.Party, Administrator: who.Role == access.Administrator}
}

// hands are devices that went to somebody else, or back.
func (f *finals) hands() []final {
	h, ctx := f.h, f.h.t.Context()
	unclaimed, err := h.custody.AddDevice(ctx, h.admin().Credential, custody.DeviceSpec{Label: "unclaimed", Unclaimed: true})
	f.must(err)
	claimer, other := h.person("claimer"), h.person("other")
	seller, buyer := h.owner("seller"), h.person("buyer")
	h.mustSend(seller.device, number("pulse", f.at, 60))
	sale, _, err := h.desk.Offer(ctx, seller.Principal, custody.TransferSpec{Device: seller.device.Device, Buyer: buyer.Party})
	f.must(err)
	keeper := h.owner("keeper")
	withdrawn, _, err := h.desk.Offer(ctx, keeper.Principal, custody.TransferSpec{Device: keeper.device.Device, Buyer: buyer.Party})
	f.must(err)
	absent := h.owner("absent")
	notice, err := h.custody.AskRelease(ctx, actor(h.admin()), absent.device.Device, "nobody answers", 0)
	f.must(err)
	gate := h.owner("gateway")
	child, err := h.custody.AddDevice(ctx, h.admin().Credential, custody.DeviceSpec{Label: "child", Owner: gate.Party, Gateway: gate.device.Device})
	f.must(err)
	var bought owner
	return []final{
		{"a claim code is used", func() error {
			_, err := h.custody.Claim(ctx, claimer.Credential, claimer.Party, unclaimed.ClaimCode)
			return err
		}, func(h *house) bool {
			_, used := h.custody.Claim(ctx, other.Credential, other.Party, unclaimed.ClaimCode)
			code, err := h.custody.NewClaimCode(ctx, h.admin().Credential, unclaimed.Device.ID)
			if err == nil { // and it is the claimer's again by a new one
				_, err = h.custody.Claim(ctx, claimer.Credential, claimer.Party, code)
			}
			return holdfast.KindOf(used) == holdfast.Denied && err == nil
		}},
		{"a device is sold", func() error {
			taken, err := h.desk.Take(ctx, buyer, sale.ID, "", "bought", f.codes())
			if err != nil {
				return err
			}
			bought = owner{buyer, h.peer(taken.Device)}
			h.mustSend(bought.device, number("pulse", time.Now(), 70))
			return nil
		}, func(h *house) bool {
			late := h.send(seller.device, number("pulse", time.Now(), 80))
			next := h.send(bought.device, number("pulse", time.Now(), 80)) // which is not known
			t, err := h.custody.TransferOf(ctx, seller.Party, sale.ID)
			a, e2 := h.custody.Assignment(ctx, seller.device.Assignment)
			return e2 == nil && a.State == custody.Closed && !a.To.IsZero() && late != nil && next != nil && err == nil && t.State != custody.OnOffer && h.readings(seller.Principal, seller, "pulse") == 1 && h.readings(buyer, seller, "pulse") == 0
		}},
		{"an offer is withdrawn", func() error {
			_, err := h.custody.EndTransfer(ctx, keeper.Credential, keeper.Party, withdrawn.ID)
			return err
		},
			func(h *house) bool {
				_, err := h.desk.Take(ctx, buyer, withdrawn.ID, "", "", f.codes())
				return err != nil
			}},
		{"an owner objects to a release", func() error { _, err := h.custody.EndNotice(ctx, actor(absent.Principal), notice.ID); return err },
			func(h *house) bool {
				all, err := h.custody.Notices(ctx, absent.Party)
				return err == nil && len(all) == 1 && all[0].State == custody.Objected
			}},
		{"a gateway goes, its child stays", func() error { _, err := h.desk.Release(ctx, gate.Principal, gate.device.Device); return err },
			func(h *house) bool {
				d, err := h.custody.Device(ctx, child.Device.ID)
				g, gone := h.custody.Device(ctx, gate.device.Device)
				return err == nil && gone == nil && d.Gateway.IsZero() && d.State == custody.Active && g.State == custody.Closed
			}},
	}
}

// households are who belongs to whom.
func (f *finals) households() []final {
	h, ctx := f.h, f.h.t.Context()
	home, err := h.custody.AddParty(ctx, h.admin().Credential, "home", custody.Household)
	f.must(err)
	join := func(who access.Principal) custody.Membership {
		m, err := h.custody.AddMember(ctx, actor(h.admin()), custody.MemberSpec{Of: home.ID, Member: who.Party, Kind: custody.Adult})
		f.must(err)
		if m.State == custody.Offered {
			m, err = h.custody.AcceptMembership(ctx, actor(who), m.ID)
			f.must(err)
		}
		return m
	}
	one, two, three := h.person("one"), h.person("two"), h.person("three")
	join(one)
	join(two)
	left := join(three)
	joint, err := h.custody.AskJoint(ctx, actor(one), custody.Joint{Party: home.ID, Span: holdfast.Always})
	f.must(err)
	return []final{
		{"a member leaves", func() error { _, err := h.custody.EndMembership(ctx, actor(three), left.ID); return err },
			func(h *house) bool {
				m, err := h.custody.Membership(ctx, left.ID)
				return err == nil && m.State == custody.Ended
			}},
		{"a joint erasure is withdrawn", func() error { return h.custody.WithdrawJoint(ctx, actor(two), joint.ID) },
			func(h *house) bool {
				_, err := h.custody.ConfirmJoint(ctx, actor(two), joint.ID)
				j, e2 := h.custody.Joint(ctx, joint.ID)
				return err != nil && e2 == nil && j.State == custody.Withdrawn
			}},
	}
}

// periods are a device's time in somebody else's hands: what it measures then is not its
// owner's, whether the catalog that was put back knows of it or not.
func (f *finals) periods() []final {
	h, ctx := f.h, f.h.t.Context()
	add := func(o owner, to access.Principal) (custody.Assignment, error) {
		return h.custody.AddPeriod(ctx, o.Credential, custody.PeriodSpec{Device: o.device.Device, Owner: to.Party, Terms: custody.Terms{Basis: custody.Loan}})
	}
	guest := h.person("guest")
	begun, newcomers, erased, closed, ended := h.owner("lender"), h.owner("lender to a newcomer"), h.owner("lender to who goes"), h.owner("lender of before"), h.owner("lender who takes back")
	over, err := add(closed, guest)
	f.must(err)
	back, err := add(ended, guest)
	f.must(err)
	meanwhile := time.Now()
	goes := h.person("who goes")
	// nobodys is a device that gives readings of now to nobody, and has shown none to its owner.
	nobodys := func(h *house, o owner) bool {
		return h.send(o.device, number("pulse", time.Now(), 61)) != nil && h.readings(o.Principal, o, "pulse") == 0
	}
	return []final{
		{"a period is given", func() error {
			if _, err := add(begun, guest); err != nil {
				return err
			}
			return h.send(begun.device, number("pulse", time.Now(), 60))
		}, func(h *house) bool {
			sent := h.send(begun.device, number("pulse", time.Now(), 61))
			return sent == nil && h.readings(begun.Principal, begun, "pulse") == 0 && h.readings(guest, begun, "pulse") == 1
		}},
		{"a period is given to a newcomer", func() error { _, err := add(newcomers, h.person("newcomer")); return err },
			func(h *house) bool { return nobodys(h, newcomers) }},
		{"a period is given to somebody who is erased", func() error {
			a, err := add(erased, goes)
			if err != nil {
				return err
			}
			h.mustSend(erased.device, number("pulse", time.Now(), 60))
			h.erase(goes, h.custody.ScopeOfAssignment(a))
			return nil
		}, func(h *house) bool { return nobodys(h, erased) }},
		{"a period is closed", func() error { return h.custody.CloseAssignment(ctx, closed.Credential, over.ID) },
			func(h *house) bool {
				a, err := h.custody.Assignment(ctx, over.ID)
				then := h.send(closed.device, number("pulse", meanwhile, 61))
				return err == nil && a.State == custody.Closed && then != nil && h.readings(closed.Principal, closed, "pulse") == 0
			}},
		{"a period ends", func() error { _, err := h.custody.EndPeriod(ctx, ended.Credential, back.ID, time.Time{}); return err },
			func(h *house) bool {
				then := h.send(ended.device, number("pulse", meanwhile, 61))
				now := h.send(ended.device, number("pulse", time.Now(), 62))
				return then == nil && now == nil && h.readings(ended.Principal, ended, "pulse") == 1 && h.readings(guest, ended, "pulse") == 1
			}},
	}
}

// erasures are what was asked for, undone, and told to others.
func (f *finals) erasures() []final {
	h, ctx := f.h, f.h.t.Context()
	erased, undone, waiting := h.owner("erased"), h.owner("undone"), h.owner("waiting")
	for _, o := range []owner{erased, undone, waiting} {
		h.mustSend(o.device, number("pulse", f.at, 60))
	}
	wait := func(o owner) (erasure.Erasure, error) {
		s, err := h.custody.ScopeOfParty(ctx, o.Party)
		f.must(err)
		return h.Server.erasure.Request(ctx, o.Principal, s, erasure.Wish{Undo: time.Hour, Guarded: true})
	}
	regrets := h.owner("regrets")
	h.mustSend(regrets.device, number("pulse", f.at, 60))
	waits, err := wait(regrets)
	f.must(err)
	reader, early := h.person("reader"), h.person("early reader")
	h.retracted(early, "the first to go", "before")
	had, err := h.Server.erasure.RetractionsTo(ctx, early.Party, 0, 10)
	f.must(err)
	var told []erasure.Retraction
	return []final{
		{"an owner is erased", func() error { h.waitErasedAll(h.ask(erased)); return nil },
			func(h *house) bool {
				return h.readings(erased.Principal, erased, "pulse") == 0 && h.send(erased.device, number("pulse", f.at, 61)) != nil
			}},
		{"an erasure is undone", func() error {
			e, err := wait(undone)
			if err == nil {
				_, err = h.Server.erasure.Undo(ctx, undone.Principal, e.ID)
			}
			return err
		}, func(h *house) bool { return h.readings(undone.Principal, undone, "pulse") == 1 }},
		{"an erasure that has waited is undone", func() error { _, err := h.Server.erasure.Undo(ctx, regrets.Principal, waits.ID); return err },
			func(h *house) bool {
				e, err := h.Server.erasure.Erasure(ctx, waits.ID)
				return err == nil && e.State == erasure.Undone && h.readings(regrets.Principal, regrets, "pulse") == 1
			}},
		{"an erasure waits", func() error { _, err := wait(waiting); return err },
			func(h *house) bool { return h.readings(waiting.Principal, waiting, "pulse") == 0 }},
		{"a recipient is told, and answers", func() (err error) {
			h.retracted(reader, "the second to go", "after")
			h.retracted(reader, "the third to go", "after that")
			if told, err = h.Server.erasure.RetractionsTo(ctx, reader.Party, 0, 10); err == nil {
				told[0], err = h.Server.erasure.Acknowledge(ctx, reader, told[0].ID)
			}
			return err
		}, func(h *house) bool {
			have, err := h.Server.erasure.RetractionsTo(ctx, reader.Party, 0, 10)
			same := func(a, b erasure.Retraction) bool {
				return a.ID == b.ID && a.Number == b.Number && a.State == b.State && a.Acked.Equal(b.Acked) && a.By == b.By && slices.Equal(a.Streams, b.Streams)
			}
			next, e2 := h.Server.erasure.RetractionsTo(ctx, early.Party, had[0].Number, 10)
			return err == nil && e2 == nil && len(told) == 2 && slices.EqualFunc(have, told, same) && len(next) == 0
		}},
		{"one who was told answers", func() error { _, err := h.Server.erasure.Acknowledge(ctx, early, had[0].ID); return err },
			func(h *house) bool {
				have, err := h.Server.erasure.RetractionsTo(ctx, early.Party, 0, 10)
				return err == nil && len(have) == 1 && have[0].State == erasure.RetractionAcked
			}},
	}
}
