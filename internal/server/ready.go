package server

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
)

// Bounds of readiness.
const (
	readyKept  = time.Second      // so long an answer is given again
	readyWait  = 2 * time.Second  // for the catalog
	leastDisk  = 64 << 20         // one file of the journal: without it none is begun
	stuckQueue = 10 * time.Second // records wait, and no sync comes about
	stuckTail  = 512 << 20        // bytes of journal that are not rolled
)

// readiness remembers the last answer and what it takes to tell slow from stuck.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last api.Readiness

	syncs  uint64    // of the journal, when they were last seen to move
	moving time.Time // then
}

// ready says whether the hub can acknowledge readings and give them out, check by
// check. Whoever asks often gets the last answer for up to a second.
func (s *Server) ready(ctx context.Context) api.Readiness {
	r := &s.readiness
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if age := now.Sub(r.at); age >= 0 && age < readyKept && r.last.Checks["running"] == s.running() {
		return r.last
	}
	faults := map[string]error{
		"running":   s.runs(),
		"listeners": s.listens(),
		"journal":   s.journalTakes(now),
		"catalog":   s.catalogTakes(ctx),
		"keys":      s.keysThere(),
		"roll":      s.rollsOn(),
		"disk":      s.diskHasRoom(),
		"confirmed": s.isConfirmed(),
	}
	answer := api.Readiness{Ready: true, Checks: make(map[string]bool, len(faults))}
	for name, err := range faults {
		answer.Checks[name] = err == nil
		if err == nil {
			continue
		}
		answer.Ready = false
		if was, known := r.last.Checks[name]; was || !known { // once, not each second
			s.log.Warn("server: not ready", "check", name, "err", err)
		}
	}
	if !answer.Ready {
		answer.Detail = notReady(answer.Checks)
	}
	if !answer.Checks["confirmed"] {
		answer.After = suspendedRetry
	}
	r.at, r.last = now, answer
	return answer
}

// notReady names the checks that don't hold, and nothing that a stranger may not know.
func notReady(checks map[string]bool) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if !checks[name] {
			names = append(names, name)
		}
	}
	detail := "not ready: " + strings.Join(names, ", ")
	if !checks["confirmed"] {
		detail += " (" + errSuspended.Error() + ")"
	}
	return detail
}

// isConfirmed fails on a hub that was restored and lets no device in until somebody has
// confirmed what was taken back since.
func (s *Server) isConfirmed() error {
	if why := s.Suspended(); why != "" {
		return holdfast.Errorf(holdfast.Unavailable, "the hub is suspended after a restore: %s", why)
	}
	return nil
}

func (s *Server) running() bool { return s.edges.Err() == nil && !s.leaving.Load() }

func (s *Server) runs() error {
	if !s.running() {
		return errors.New("the hub is shutting down")
	}
	return nil
}

func (s *Server) listens() error {
	select {
	case <-s.bound:
		return nil
	default:
		return errors.New("the ports are not served yet")
	}
}

// journalTakes is called with readiness.mu held.
func (s *Server) journalTakes(now time.Time) error {
	select {
	case <-s.stores.journal.Failed():
		return errors.New("the journal's disk failed")
	default:
	}
	st := s.stores.journal.Stats()
	return s.readiness.stuck(now, st.Syncs, st.QueuedBytes)
}

// stuck tells a disk that is slow from one that does not answer.
func (r *readiness) stuck(now time.Time, syncs uint64, queued int) error {
	if syncs != r.syncs || queued == 0 || r.moving.IsZero() {
		r.syncs, r.moving = syncs, now
	}
	if waited := now.Sub(r.moving); waited > stuckQueue {
		return holdfast.Errorf(holdfast.Unavailable, "records wait and the disk has synced none for %s", waited.Round(time.Second))
	}
	return nil
}

// catalogTakes begins a transaction that writes, and ends it with nothing written:
// whoever holds the catalog up holds this up.
func (s *Server) catalogTakes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	nothing := func(*sql.Tx) error { return nil }
	if err := s.stores.catalog.Read(ctx, nothing); err != nil {
		return err
	}
	return s.stores.catalog.Write(ctx, nothing)
}

func (s *Server) keysThere() error {
	if s.stores.vault.Owners() == 0 {
		return errors.New("the keyring is empty")
	}
	return nil
}

func (s *Server) rollsOn() error {
	b := s.series.Backlog()
	if b.Bytes > stuckTail {
		return holdfast.Errorf(holdfast.Unavailable, "%d MiB of the journal are not rolled", b.Bytes>>20)
	}
	return nil
}

func (s *Server) diskHasRoom() error {
	d, err := s.host.Disk(s.config.Data)
	if err != nil {
		return nil // what can't be known is no reason to take nothing
	}
	if d.Free < leastDisk {
		return holdfast.Errorf(holdfast.Unavailable, "%d MiB are free on the disk of the data folder", d.Free>>20)
	}
	if d.Nodes > 0 && d.FreeNodes == 0 {
		return holdfast.Errorf(holdfast.Unavailable, "the disk of the data folder can hold no more files")
	}
	return nil
}
