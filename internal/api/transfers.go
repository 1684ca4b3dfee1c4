package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// Transfer is the way of a unit from its owner to the next.
type Transfer struct {
	ID       string     `json:"id"`
	Device   string     `json:"device,omitempty" doc:"The seller's, shown to him."`
	Next     string     `json:"next,omitempty" doc:"The buyer's, shown to him once he took it."`
	Seller   *PartyRef  `json:"seller"`
	Buyer    *PartyRef  `json:"buyer,omitempty" doc:"Left out: whoever shows the code."`
	State    string     `json:"state" enum:"offered,taken,withdrawn,declined,expired"`
	Readings string     `json:"readings,omitempty" enum:"keep,export,erase" doc:"What becomes of the seller's readings, shown to him."`
	Children bool       `json:"children,omitempty" doc:"The gateway's children that are the seller's go along."`
	Profile  string     `json:"profile,omitempty"`
	Offered  *time.Time `json:"offered"`
	Until    *time.Time `json:"until"`
	Ended    *time.Time `json:"ended,omitempty"`
}

// OfferedTransfer is a new offer, whose code is shown this once.
type OfferedTransfer struct {
	Transfer Transfer `json:"transfer"`
	Code     string   `json:"code,omitempty" doc:"For whoever shall own the device; left out if the buyer is named."`
}

// TakenTransfer is a unit in its next owner's hands.
type TakenTransfer struct {
	Transfer       Transfer   `json:"transfer"`
	Device         Device     `json:"device"`
	Children       []Device   `json:"children,omitempty"`
	EnrolmentCode  string     `json:"enrolment_code" doc:"Gets the unit its new certificate. Shown to the new owner alone."`
	EnrolmentUntil *time.Time `json:"enrolment_until"`
}

type offerTransfer struct {
	Body struct {
		Device   string `json:"device" minLength:"1" doc:"An own one, by label or id."`
		To       string `json:"to,omitempty" doc:"The id of a party, or the name of an organisation or service; left out: whoever shows the code."`
		Readings string `json:"readings,omitempty" enum:"keep,export,erase" default:"keep" doc:"What becomes of the readings so far: they stay; they stay 30 days to be exported, then they are erased; they are erased when it is taken."`
		Children bool   `json:"children,omitempty" doc:"The gateway's children that are one's own go along."`
		Days     int    `json:"days,omitempty" minimum:"1" maximum:"60" doc:"How long the offer stands, default 7."`
	}
}

type takeTransfer struct {
	Body struct {
		Transfer string `json:"transfer,omitempty" doc:"The id of an offer to oneself."`
		Code     string `json:"code,omitempty" maxLength:"64" doc:"Or the code of one."`
		Label    string `json:"label,omitempty" doc:"What to call it; default: its serial or its profile."`
		Days     int    `json:"days,omitempty" minimum:"1" maximum:"400" doc:"How long the enrolment code lives, default 7."`
	}
}

func (a *API) transfers() {
	handle(a, route{method: "POST", path: "/v1/transfers", summary: "Offer an own device to the next owner.", status: http.StatusCreated,
		rule: settling(access.Owner)}, a.offerTransfer)
	handle(a, route{method: "GET", path: "/v1/transfers", summary: "List the transfers in which one is the seller or the buyer.", rule: reads(access.Owner)},
		func(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Transfer]], error) {
			all, err := a.Custody.Transfers(ctx, by.Party)
			if err != nil {
				return nil, err
			}
			n, err := a.transferNames(ctx, by, all...)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(t custody.Transfer) string { return t.ID.String() }, in.Paging)
			return &reply[Page[Transfer]]{mapped(page, func(t custody.Transfer) Transfer { return transferDoc(t, by, n) })}, err
		})
	handle(a, route{method: "POST", path: "/v1/transfers/taking", summary: "Take an offered device: from then on it is one's own.", status: http.StatusCreated,
		rule: writes(access.Owner)}, a.takeTransfer)
	handle(a, route{method: "DELETE", path: "/v1/transfers/{id}", summary: "Withdraw an offer, or decline it.", rule: writes(access.Owner)},
		func(ctx context.Context, by access.Principal, in *byID) (*reply[Transfer], error) {
			id, err := holdfast.ParseID[holdfast.TransferID](in.ID)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.NotFound, "there is no such transfer")
			}
			t, err := a.Custody.EndTransfer(ctx, by.Credential, by.Party, id)
			if err != nil {
				return nil, err
			}
			n, err := a.transferNames(ctx, by, t)
			return &reply[Transfer]{transferDoc(t, by, n)}, err
		})
}

func (a *API) offerTransfer(ctx context.Context, by access.Principal, in *offerTransfer) (*reply[OfferedTransfer], error) {
	b := &in.Body
	d, err := a.device(ctx, by, b.Device)
	if err != nil {
		return nil, err
	}
	if d.Owner != by.Party {
		return nil, holdfast.Errorf(holdfast.Denied, "the device is another's: its owner offers it, with his own credential")
	}
	s := custody.TransferSpec{Device: d.ID, Fate: custody.Fate(b.Readings), Children: b.Children, Days: b.Days}
	if b.To != "" {
		p, err := a.recipient(ctx, b.To)
		if err != nil {
			return nil, err
		}
		s.Buyer = p.ID
	}
	t, code, err := a.Desk.Offer(ctx, by, s)
	if err != nil {
		return nil, err
	}
	n, err := a.transferNames(ctx, by, t)
	return &reply[OfferedTransfer]{OfferedTransfer{Transfer: transferDoc(t, by, n), Code: code}}, err
}

func (a *API) takeTransfer(ctx context.Context, by access.Principal, in *takeTransfer) (*reply[TakenTransfer], error) {
	b := &in.Body
	if (b.Transfer == "") == (b.Code == "") {
		return nil, holdfast.Errorf(holdfast.Invalid, "give the id of a transfer offered to you, or the code of one")
	}
	var id holdfast.TransferID
	if b.Transfer != "" {
		var err error
		if id, err = holdfast.ParseID[holdfast.TransferID](b.Transfer); err != nil {
			return nil, holdfast.Errorf(holdfast.NotFound, "there is no such transfer")
		}
	}
	_, devices := a.Addresses()
	taken, err := a.Desk.Take(ctx, by, id, b.Code, b.Label, identity.CodeOptions{Address: devices, Life: time.Duration(b.Days) * 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	n, err := a.transferNames(ctx, by, taken.Transfer)
	if err != nil {
		return nil, err
	}
	out := TakenTransfer{Transfer: transferDoc(taken.Transfer, by, n), Device: deviceDoc(taken.Device, n), EnrolmentCode: taken.Code, EnrolmentUntil: moment(taken.Until)}
	for _, c := range taken.Children {
		out.Children = append(out.Children, deviceDoc(c, n))
	}
	return &reply[TakenTransfer]{out}, nil
}

func (a *API) transferNames(ctx context.Context, by access.Principal, all ...custody.Transfer) (names, error) {
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if err := a.withNames(ctx, n, t.Seller, t.Buyer); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// transferDoc shows each side what is its own.
func transferDoc(t custody.Transfer, by access.Principal, n names) Transfer {
	out := Transfer{ID: t.ID.String(), Seller: n.ref(t.Seller), Buyer: n.ref(t.Buyer), State: t.State, Children: t.Children, Profile: t.Profile,
		Offered: moment(t.Offered), Until: moment(t.Until), Ended: moment(t.Ended)}
	if t.State == custody.Settled {
		out.State = custody.Taken
	}
	if by.Party == t.Seller {
		out.Device, out.Readings = t.Device.String(), string(t.Fate)
	}
	if by.Party == t.Buyer && !t.Next.IsZero() {
		out.Next = t.Next.String()
	}
	return out
}
