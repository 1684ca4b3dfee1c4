package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/recovery"
)

// Deal says who has shares of the way back to the root key. It has no share.
type Deal struct {
	ID           string        `json:"id"`
	Hub          string        `json:"hub"`
	State        string        `json:"state" enum:"in force,replaced,ended"`
	Threshold    int           `json:"threshold" doc:"How many shares are needed; 0: the hub does not know."`
	Shareholders []Shareholder `json:"shareholders"`
	Since        *time.Time    `json:"since" doc:"When root keys were first wrapped to it."`
	Rehearsed    *time.Time    `json:"rehearsed,omitempty" doc:"When its shares were last seen to come together."`
	Missing      int           `json:"missing" doc:"How many more shareholders must destroy their shares before the rest are too few; erasures before then are pending."`
}

// Shareholder has a share of a deal, or had.
type Shareholder struct {
	Name      string     `json:"name"`
	Share     string     `json:"share" doc:"The commitment to the share, SHA-256 in hexadecimal: by it a shareholder checks it alone."`
	Destroyed *time.Time `json:"destroyed,omitempty" doc:"When he said that it was destroyed."`
	Vouched   string     `json:"vouched,omitempty" doc:"Who said so in his place."`
}

// Challenge is for shareholders to open, in a rehearsal.
type Challenge struct {
	Deal Deal   `json:"deal"`
	Box  string `json:"box" doc:"Base64."`
}

func dealDoc(d recovery.Deal) Deal {
	out := Deal{ID: d.ID.String(), Hub: d.Hub, State: string(d.State), Threshold: d.Threshold, Shareholders: []Shareholder{}, Since: moment(d.Since), Rehearsed: moment(d.Rehearsed), Missing: d.Missing()}
	for _, s := range d.Shareholders {
		text, _ := s.Share.MarshalText()
		one := Shareholder{Name: s.Name, Share: string(text)}
		for _, g := range d.Gone {
			if g.Name == s.Name {
				one.Destroyed, one.Vouched = moment(g.At), g.Vouched
			}
		}
		out.Shareholders = append(out.Shareholders, one)
	}
	return out
}

func (a *API) recovery() {
	if a.Recovery == nil {
		return
	}
	admin := access.Administrator
	handle(a, route{method: "GET", path: "/v1/recovery", summary: "Who has shares of the way back to the root key, the newest deal first.", rule: reads(admin, access.Auditor)},
		func(ctx context.Context, _ access.Principal, in *struct{ Paging }) (*reply[Page[Deal]], error) {
			all, err := a.Recovery.Deals(ctx)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(d recovery.Deal) string { return d.ID.String() }, in.Paging)
			return &reply[Page[Deal]]{mapped(page, dealDoc)}, err
		})
	handle(a, route{method: "POST", path: "/v1/recovery", summary: "Take a deal into force: root keys are wrapped to its public key from now on. The body is what `holdfast recovery deal` makes; it has no share.", status: http.StatusCreated, rule: settling(admin)},
		func(ctx context.Context, by access.Principal, in *struct{ Body escrowDeal }) (*reply[Deal], error) {
			p, err := in.Body.public()
			if err != nil {
				return nil, err
			}
			d, err := a.Recovery.Put(ctx, by, p)
			return &reply[Deal]{dealDoc(d)}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/recovery", summary: "Wrap root keys to nobody from now on.", rule: settling(admin)},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*nothing, error) {
			return &nothing{}, a.Recovery.End(ctx, by)
		})
	handle(a, route{method: "POST", path: "/v1/recovery/challenge", summary: "Begin a rehearsal: something that the shareholders can open and the hub can't.", rule: writes(admin)},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*reply[Challenge], error) {
			d, box, err := a.Recovery.Challenge(ctx, by)
			return &reply[Challenge]{Challenge{dealDoc(d), base64.StdEncoding.EncodeToString(box)}}, err
		})
	handle(a, route{method: "POST", path: "/v1/recovery/answer", summary: "End a rehearsal with what was in the challenge, within the hour.", rule: writes(admin)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Answer string `json:"answer" maxLength:"64" doc:"Base64."`
			}
		}) (*reply[Deal], error) {
			answer, err := base64.StdEncoding.DecodeString(in.Body.Answer)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.Invalid, "the answer is not base64")
			}
			d, err := a.Recovery.Answer(ctx, by, answer)
			return &reply[Deal]{dealDoc(d)}, err
		})
	handle(a, route{method: "POST", path: "/v1/recovery/destroyed", summary: "Record that a share was destroyed, by the code that stood on it; or, of a deal that is not in force, that somebody answers for it by name.", rule: settling(admin)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Code  string `json:"code,omitempty" maxLength:"64"`
				Deal  string `json:"deal,omitempty" maxLength:"64" doc:"Without a code: the deal."`
				Name  string `json:"name,omitempty" maxLength:"64" doc:"Without a code: the shareholder."`
				Vouch string `json:"vouch,omitempty" maxLength:"100" doc:"Without a code: who answers for it. Certificates name this person."`
			}
		}) (*reply[Deal], error) {
			if in.Body.Code == "" && in.Body.Vouch != "" {
				var id escrow.ID
				if err := id.UnmarshalText([]byte(in.Body.Deal)); err != nil {
					return nil, err
				}
				d, err := a.Recovery.Vouched(ctx, by, id, in.Body.Name, in.Body.Vouch)
				return &reply[Deal]{dealDoc(d)}, err
			}
			code, err := escrow.ParseCode(in.Body.Code)
			if err != nil {
				return nil, err
			}
			d, _, err := a.Recovery.Destroyed(ctx, by, code)
			return &reply[Deal]{dealDoc(d)}, err
		})
}

// escrowDeal is escrow.Public as a request has it.
type escrowDeal struct {
	ID           string    `json:"id"`
	Hub          string    `json:"hub"`
	Threshold    int       `json:"threshold"`
	Key          []byte    `json:"public_key" doc:"Base64."`
	Made         time.Time `json:"made"`
	Shareholders []struct {
		Name  string `json:"name"`
		Share string `json:"share" doc:"Commitment to the share, SHA-256 in hexadecimal."`
		Code  string `json:"code" doc:"Commitment to its code, likewise."`
	} `json:"shareholders" maxItems:"16"`
}

func (e escrowDeal) public() (p escrow.Public, err error) {
	p = escrow.Public{Hub: e.Hub, Threshold: e.Threshold, Key: e.Key, Made: e.Made}
	if err := p.ID.UnmarshalText([]byte(e.ID)); err != nil {
		return p, err
	}
	for _, s := range e.Shareholders {
		one := escrow.Shareholder{Name: s.Name}
		if err := one.Share.UnmarshalText([]byte(s.Share)); err != nil {
			return p, err
		}
		if err := one.Code.UnmarshalText([]byte(s.Code)); err != nil {
			return p, err
		}
		p.Shareholders = append(p.Shareholders, one)
	}
	return p, nil
}
