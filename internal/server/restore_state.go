package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// restoredState is restore.json: there from the beginning of a restore until it has
// ended, or, if more may have been taken back than is known, until it is confirmed.
type restoredState struct {
	Format    string    `json:"holdfast-restore"`
	Hub       string    `json:"hub"`
	Snapshot  string    `json:"snapshot"`
	At        time.Time `json:"at"`
	Whole     bool      `json:"whole"`     // false: the restore has not ended
	Suspended bool      `json:"suspended"` // nobody is let in but Admins
	Why       string    `json:"why,omitempty"`
	Until     time.Time `json:"complete_until,omitzero"` // nothing is missing that was taken back before

	Admins  []holdfast.CredentialID `json:"administrators,omitempty"` // made by the restore
	RootKey string                  `json:"root_key,omitempty"`       // file that is made, with recovery shares
}

const restoreFormat = "1"

// errSuspended is what a restored hub says to everybody else.
var errSuspended = holdfast.Errorf(holdfast.Unavailable, "this hub was restored from a backup, and it is not confirmed yet that nothing was revoked or withdrawn since: try again later")

// readRestored reads restore.json; the zero state if there is none.
func readRestored(on Folder) (r restoredState, err error) {
	b, err := on.ReadFile(restoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && r.Format != restoreFormat {
		err = errors.New("its format is not known")
	}
	if err != nil { // in doubt nobody comes in
		return r, holdfast.Errorf(holdfast.Conflict, "%s can't be read: %w. Nothing was changed", restoreFile, err)
	}
	return r, nil
}

// checkRestored refuses a folder whose restore has not ended.
func checkRestored(on Folder, c Config) (r restoredState, err error) {
	r, err = readRestored(on)
	if err == nil && r.Format != "" && !r.Whole && !c.restored {
		err = unfinished(c.Data)
	}
	return r, err
}

func unfinished(dir string) error {
	return holdfast.Errorf(holdfast.Conflict, "the restore of %s has not ended: run it again, it goes on where it was", dir)
}

// refuses says why somebody is not let in.
func (r restoredState) refuses(by access.Principal) error {
	if !r.Suspended || by.Role == access.Administrator && slices.Contains(r.Admins, by.Credential) {
		return nil
	}
	return errSuspended
}

// Suspended says why a restored hub waits for somebody to confirm that nothing was
// revoked or withdrawn since; empty: it does not.
func (s *Server) Suspended() string { return s.stores.restored.suspended() }

func (r restoredState) suspended() string {
	if !r.Suspended {
		return ""
	}
	return cmp.Or(r.Why, "the restore left no reason")
}

// suspendedRetry is when to ask a suspended hub again.
const suspendedRetry = 5 * time.Minute

// suspendedHandler is the devices' port of a hub that is suspended.
type suspendedHandler struct{}

func (suspendedHandler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", strconv.Itoa(int(suspendedRetry.Seconds())))
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusServiceUnavailable)
	json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(http.StatusServiceUnavailable), "status": http.StatusServiceUnavailable, "detail": errSuspended.Error()})
}

// idle stands for a long runner that is not to run.
func idle(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// openOnly is a holder that is asked to open, and destroys and makes nothing.
type openOnly struct{ vault.Holder }

func (openOnly) Prepare(context.Context, uint64) error {
	return holdfast.Errorf(holdfast.Internal, "a drill makes no root key")
}

// Destroy does nothing: what is left over is the running hub's.
func (openOnly) Destroy(context.Context, uint64) ([]byte, error) { return nil, nil }

// Confirmed is what ConfirmRestore did.
type Confirmed struct {
	Snapshot string  `json:"snapshot"`
	Waiting  []Waits `json:"waiting"` // erasures that can be undone yet
}

// Waits is an erasure that begins when its window is over.
type Waits struct {
	Erasure holdfast.ErasureID `json:"erasure"`
	Until   time.Time          `json:"until"`
}

// waitAgain gives the erasures that wait their windows again, and the administrator that
// the restore made those that an administrator had asked for.
func (s *Server) waitAgain(ctx context.Context, heir holdfast.CredentialID) ([]Waits, error) {
	all, err := s.erasure.Again(ctx, heir)
	out := []Waits{}
	for _, e := range all {
		out = append(out, Waits{e.ID, e.Until})
	}
	return out, err
}

// ConfirmRestore lets everybody into a restored hub again, which is stopped.
func ConfirmRestore(ctx context.Context, c Config) (out Confirmed, err error) {
	c = c.withDefaults()
	data := c.Ground.Folder(c.Data)
	s, err := openKept(ctx, c)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, s.grants.Close(context.Background()), s.stores.close()) }()
	r := s.stores.restored
	if !r.Suspended {
		return out, holdfast.Errorf(holdfast.Conflict, "the hub of %s is not suspended: there is nothing to confirm", filepath.Clean(c.Data))
	}
	out.Snapshot = r.Snapshot
	var heir holdfast.CredentialID
	if len(r.Admins) > 0 {
		heir = r.Admins[len(r.Admins)-1]
	}
	if out.Waiting, err = s.waitAgain(ctx, heir); err != nil {
		return out, err
	}
	if err := s.onRecord(ctx, "restore confirmed", map[string]any{"backup": r.Snapshot, "restored": r.At}); err != nil {
		return out, err
	}
	return out, data.Remove(restoreFile)
}
