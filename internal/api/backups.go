package api

import (
	"context"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/backup"
)

type backupInput struct {
	Body struct {
		Keep int64 `json:"keep,omitempty" doc:"For how many seconds the backup is kept; default 35 days."`
	}
}

type pieceInput struct {
	ID string `path:"id"`
	N  int    `path:"n" minimum:"0" doc:"Which of the plan's parts, from 0."`

	Count int `query:"count" minimum:"1" default:"1" doc:"So many, one behind the other."`
}

type finishInput struct {
	ID   string `path:"id"`
	Body backup.Done
}

// FinishedBackup is the hub's word on a backup that has ended.
type FinishedBackup struct {
	Statement string `json:"statement" doc:"What the backup is, signed by the ledger's key."`
}

type drilledInput struct {
	Body struct {
		At time.Time `json:"at" doc:"When the restore was tried."`
	}
}

// backups registers how a hub is copied. What goes out is ciphertext and the
// catalog, whose columns about owners are sealed; no key goes out with it. It is an
// administrator's all the same, and his credential must be settled: who has it and
// the root key has everything.
func (a *API) backups() {
	begin := settling(access.Administrator)
	begin.slow = true
	handle(a, route{method: "POST", path: "/v1/backups", summary: "Begin a backup: what it consists of.", status: http.StatusCreated, rule: begin},
		func(ctx context.Context, by access.Principal, in *backupInput) (*reply[backup.Plan], error) {
			if err := by.MustBeSettled(); err != nil {
				return nil, err
			}
			p, err := a.Backups.Begin(ctx, by.Credential.String(), time.Duration(min(in.Body.Keep, 1<<32))*time.Second)
			return &reply[backup.Plan]{p}, err
		})
	handle(a, route{method: "GET", path: "/v1/backups", summary: "The backups that have not expired.", rule: reads(access.Administrator, access.Auditor)},
		func(ctx context.Context, _ access.Principal, _ *struct{}) (*reply[[]backup.Run], error) {
			runs, err := a.Backups.Runs(ctx)
			return &reply[[]backup.Run]{runs}, err
		})
	piece := rule{needs: access.ScopeWrite, roles: []access.Role{access.Administrator}, slow: true}
	stream(a, route{method: "GET", path: "/v1/backups/{id}/pieces/{n}", summary: "Pieces of a backup under way.", rule: piece}, []string{"application/octet-stream"},
		func(w http.ResponseWriter, r *http.Request, by access.Principal, in *pieceInput) error {
			if err := a.Backups.Mine(in.ID, by.Credential.String()); err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			out := newSink(w, r, a.Limits.StreamStall)
			defer out.watch(r.Context(), func(context.Context) error { return a.Access.Live(by) })()
			if err := a.Backups.Parts(r.Context(), in.ID, in.N, in.Count, watched{out, a, by}); err != nil {
				return err
			}
			return out.end()
		})
	finish := writes(access.Administrator)
	handle(a, route{method: "POST", path: "/v1/backups/{id}/finish", summary: "End a backup whose pieces are all stored.", rule: finish},
		func(ctx context.Context, by access.Principal, in *finishInput) (*reply[FinishedBackup], error) {
			if err := a.Backups.Mine(in.ID, by.Credential.String()); err != nil {
				return nil, err
			}
			signed, err := a.Backups.Finish(ctx, in.ID, in.Body)
			return &reply[FinishedBackup]{FinishedBackup{string(signed)}}, err
		})
	handle(a, route{method: "POST", path: "/v1/backups/drills", summary: "Note that a restore was tried and ended well.", rule: writes(access.Administrator)},
		func(ctx context.Context, _ access.Principal, in *drilledInput) (*nothing, error) {
			return nil, a.Backups.Drilled(ctx, in.Body.At)
		})
}
