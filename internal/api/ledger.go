package api

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Checkpoint is the ledger's signed head.
type Checkpoint struct {
	Origin     string `json:"origin"`
	Size       uint64 `json:"size"`
	Root       string `json:"root"`
	Checkpoint string `json:"checkpoint" doc:"A signed note (C2SP tlog-checkpoint). Kept elsewhere, it shows whether the ledger was rolled back."`
	Verifier   string `json:"verifier" doc:"The public key of checkpoints and certificates."`
}

// Entry is what the ledger says about the caller.
type Entry struct {
	Index uint64          `json:"index"`
	Kind  string          `json:"kind"`
	Time  *time.Time      `json:"time"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// WhichRecord says whose record is asked for.
type WhichRecord struct {
	Record string `query:"record" enum:"own,hub" doc:"own: the caller's party's; hub: the hub's, to its staff. Default: hub to staff, else own."`
	Device string `query:"device" doc:"A device's record in place of the party's."`
}

// record registers the ledger.
func (a *API) record() {
	handle(a, route{method: "GET", path: "/v1/ledger", summary: "The ledger's signed head.", rule: reads()},
		func(ctx context.Context, _ access.Principal, _ *struct{}) (*reply[Checkpoint], error) {
			c, err := a.Ledger.Checkpoint(ctx)
			return &reply[Checkpoint]{Checkpoint{Origin: a.Ledger.Origin(), Size: c.Size, Root: c.Root.String(), Checkpoint: string(c.Note),
				Verifier: a.Ledger.VerifierKey()}}, err
		})
	verify := reads(access.Administrator, access.Auditor)
	verify.slow = true
	handle(a, route{method: "POST", path: "/v1/ledger/verify", summary: "Recompute the ledger from its entries.", rule: verify},
		func(ctx context.Context, by access.Principal, _ *struct{}) (*reply[ledger.Report], error) {
			leave, err := a.begin(by) // it reads all there is
			if err != nil {
				return nil, err
			}
			defer leave()
			r, err := a.Ledger.Verify(ctx)
			return &reply[ledger.Report]{r}, err
		})
	handle(a, route{method: "GET", path: "/v1/ledger/entries", summary: "The entries of a record, oldest first.", rule: reads(access.Administrator, access.Owner, access.Auditor)}, a.entries)
	handle(a, route{method: "GET", path: "/v1/ledger/entries/{index}/proof", summary: "A proof that an entry is in the ledger, to check offline.",
		rule: reads(access.Administrator, access.Owner, access.Auditor)},
		func(ctx context.Context, by access.Principal, in *struct {
			Index string `path:"index" maxLength:"20"`
			WhichRecord
		}) (*reply[ledger.Proof], error) {
			index, err := strconv.ParseUint(in.Index, 10, 63)
			if err != nil {
				return nil, holdfast.Errorf(holdfast.Invalid, "an entry is named by its index, a whole number from 0")
			}
			o, err := a.recordOf(ctx, by, in.WhichRecord)
			if err != nil {
				return nil, err
			}
			p, err := a.Ledger.Prove(ctx, o, index)
			return &reply[ledger.Proof]{p}, err
		})
}

func (a *API) entries(ctx context.Context, by access.Principal, in *struct {
	WhichRecord
	From  uint64 `query:"from" maximum:"9223372036854775807" doc:"The first index."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}) (*reply[Page[Entry]], error) {
	o, err := a.recordOf(ctx, by, in.WhichRecord)
	if err != nil {
		return nil, err
	}
	all, err := a.Ledger.Events(ctx, o, in.From, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := Page[Entry]{Items: []Entry{}}
	for i, e := range all {
		if i == in.Limit {
			out.Next = strconv.FormatUint(e.Index, 10)
			break
		}
		out.Items = append(out.Items, Entry{Index: e.Index, Kind: e.Kind, Time: moment(e.Time), Data: e.Data})
	}
	return &reply[Page[Entry]]{out}, nil
}

func (a *API) recordOf(ctx context.Context, by access.Principal, in WhichRecord) (vault.Owner, error) {
	if in.Device != "" {
		d, err := a.device(ctx, by, in.Device)
		if err != nil {
			return vault.Owner{}, err
		}
		if ok, err := a.seesData(ctx, by, d); err != nil || !ok {
			return vault.Owner{}, orElse(err, holdfast.Errorf(holdfast.Denied, "a device's record is shown to the one whose data it is"))
		}
		return vault.OfAssignment(d.Assignment), nil
	}
	switch {
	case oversees(by) && in.Record != "own":
		return vault.Hub, nil
	case in.Record == "hub":
		return vault.Owner{}, holdfast.Errorf(holdfast.Denied, "the hub's record is shown to its staff")
	}
	return vault.OfParty(by.Party), nil
}
