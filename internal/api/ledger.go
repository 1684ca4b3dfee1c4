package api

import (
	"context"
	"encoding/json"
	"net/http"
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
	Checkpoint string `json:"checkpoint" doc:"A signed note (C2SP tlog-checkpoint) with the cosignatures of witnesses. Kept elsewhere, it shows whether the ledger was rolled back."`
	Verifier   string `json:"verifier" doc:"The public key of checkpoints and certificates."`
}

// Entry is what the ledger says about the caller.
type Entry struct {
	Index uint64          `json:"index"`
	Seq   uint64          `json:"seq" doc:"On this record, from 0, without a gap."`
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
	handle(a, route{method: "GET", path: "/v1/ledger", summary: "The ledger's published head.", rule: reads()},
		func(ctx context.Context, _ access.Principal, _ *struct{}) (*reply[Checkpoint], error) {
			c, err := a.Ledger.Published(ctx)
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
	proofs := reads(access.Administrator, access.Owner, access.Auditor)
	stream(a, route{method: "GET", path: "/v1/ledger/entries/{index}/proof", summary: "A proof that an entry is in the ledger, to check offline (C2SP tlog-proof).", rule: proofs},
		[]string{plainText}, a.proof)
	stream(a, route{method: "GET", path: "/v1/ledger/consistency", summary: "A proof that the ledger's published tree begins with an older one, to check offline (as C2SP tlog-witness takes it).", rule: reads()},
		[]string{plainText}, func(w http.ResponseWriter, r *http.Request, _ access.Principal, in *struct {
			From uint64 `query:"from" required:"true" minimum:"1" maximum:"9223372036854775807" doc:"Leaves of the older tree."`
			To   uint64 `query:"to" maximum:"9223372036854775807" doc:"Of the newer one, which must have been published. Default: the newest."`
		}) error {
			c, err := a.Ledger.Consistency(r.Context(), in.From, in.To)
			if err != nil {
				return err
			}
			body, err := c.MarshalText()
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", plainText)
			_, err = w.Write(body)
			return err
		})
	all := proofs
	all.slow = true
	stream(a, route{method: "GET", path: "/v1/me/ledger", summary: "All entries of one's own record with proofs against one checkpoint, to check offline.", rule: all},
		[]string{"application/x-ndjson"}, a.recordSlice)
}

const plainText = "text/plain; charset=utf-8"

func (a *API) proof(w http.ResponseWriter, r *http.Request, by access.Principal, in *struct {
	Index string `path:"index" maxLength:"20"`
	WhichRecord
}) error {
	index, err := strconv.ParseUint(in.Index, 10, 63)
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "an entry is named by its index, a whole number from 0")
	}
	o, err := a.recordOf(r.Context(), by, in.WhichRecord)
	if err != nil {
		return err
	}
	p, err := a.Ledger.Prove(r.Context(), o, index)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", plainText)
	_, err = w.Write(p.Text())
	return err
}

func (a *API) recordSlice(w http.ResponseWriter, r *http.Request, by access.Principal, in *struct {
	WhichRecord
	Since uint64 `query:"since" maximum:"9223372036854775807" doc:"Leaves of an older tree, of which a checkpoint was kept: the proof that this one begins with it comes along."`
}) error {
	o, err := a.recordOf(r.Context(), by, in.WhichRecord)
	if err != nil {
		return err
	}
	leave, err := a.begin(by)
	if err != nil {
		return err
	}
	defer leave()
	out := newSink(w, r, a.Limits.StreamStall)
	lines := json.NewEncoder(out)
	err = a.Ledger.Slice(r.Context(), o, in.Since, func(line any) error {
		w.Header().Set("Content-Type", "application/x-ndjson")
		return lines.Encode(line)
	})
	if err != nil {
		return err // what was begun has no last line
	}
	return out.end()
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
		out.Items = append(out.Items, Entry{Index: e.Index, Seq: e.Seq, Kind: e.Kind, Time: moment(e.Time), Data: e.Data})
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
