package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type erasureCmd struct {
	List    erasureListCmd    `cmd:"" help:"List erasures and how far they have come."`
	Show    erasureShowCmd    `cmd:"" help:"Show one, with why it does not get on; or write its certificate."`
	Undo    erasureUndoCmd    `cmd:"" help:"Take back one that waits: all is as before."`
	Approve erasureApproveCmd `cmd:"" help:"Approve one in bulk that another administrator asked for."`
	Refuse  erasureRefuseCmd  `cmd:"" help:"Refuse one."`
}

func (*erasureCmd) Help() string {
	return `What was asked for with holdfast erase. One that waits for its window to end is refused on every path, and nothing of it is destroyed yet; one that waits
for a second administrator has done nothing.

Example:
  holdfast erasure list --token my.token --hub https://HOST:8443
  holdfast erasure undo gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443
  holdfast erasure approve gq3tembtgm2tkmrzgq3tembtgm --data DATA`
}

func erasureHeader() []string {
	return []string{"ID", "STATE", "WHAT", "BY", "ASKED", "UNTIL", "KEYS GONE", "TOLD", "PENDING"}
}

func erasureRow(e api.Erasure) []string {
	state, told := e.State, ""
	if e.Outcome != "" {
		state = e.Outcome
	}
	if e.Told != nil && *e.Told > 0 {
		told = fmt.Sprintf("%d of %d confirmed", *e.Acked, *e.Told)
	}
	return []string{e.ID, state, erasureWhat(e), e.By, whenever(e.Asked), whenever(e.Until), whenever(e.KeysDestroyed), told, e.Pending}
}

// erasureWhat says in a few words what an erasure covers.
func erasureWhat(e api.Erasure) string {
	var words []string
	if e.Whole {
		words = append(words, "whole party")
	}
	if len(e.Assignments) > 0 {
		words = append(words, many(len(e.Assignments), "assignment"))
	}
	if len(e.Streams) > 0 {
		words = append(words, many(len(e.Streams), "stream"))
	}
	if e.Month != "" {
		words = append(words, "arrived in "+e.Month)
	}
	if e.From != nil && e.From.UnixNano() != math.MinInt64 || e.To != nil && e.To.UnixNano() != math.MaxInt64 {
		words = append(words, "a span of time")
	}
	return strings.Join(words, ", ")
}

type erasureListCmd struct {
	hubFlags
	outputFlags
}

func (*erasureListCmd) Help() string {
	return `Lists erasures, the oldest first: an owner's credential those of his data, an administrator's all.

Example:
  holdfast erasure list --data DATA`
}

func (c *erasureListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	erasures, err := all[api.Erasure](a, hub, "/v1/erasures")
	if err != nil {
		return err
	}
	rows := make([][]string, len(erasures))
	for i, e := range erasures {
		rows[i] = erasureRow(e)
	}
	return c.print(a, erasures, erasureHeader(), rows)
}

type erasureShowCmd struct {
	ID          string `arg:"" help:"The erasure's id."`
	Certificate string `help:"Write the certificate to this new file, waiting for it." placeholder:"FILE" type:"path" env:"-"`
	hubFlags
	outputFlags
}

func (*erasureShowCmd) Help() string {
	return `Shows an erasure.

Example:
  holdfast erasure show gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443
  holdfast erasure show gq3tembtgm2tkmrzgq3tembtgm --certificate watch.cert --token my.token --hub https://HOST:8443`
}

func (c *erasureShowCmd) Run(a *app) error {
	hub, err := c.connectAnyone(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var e api.Erasure
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/erasures", c.ID), nil, &e); err != nil {
		return err
	}
	if c.Certificate == "" {
		c.inFull(a, hub, &e)
		return c.print(a, e, erasureHeader(), [][]string{erasureRow(e)})
	}
	if e.State != "asked" && e.State != "destroyed" && e.State != "done" {
		return holdfast.Errorf(holdfast.Conflict, "erasure %s is %s: there is no certificate of it", e.ID, e.State)
	}
	file, err := newCertificate(c.Certificate)
	if err != nil {
		return err
	}
	if err := c.awaitErasure(a, hub, &e); err != nil {
		return errors.Join(err, file.Close(), os.Remove(c.Certificate))
	}
	return writeCertificate(a, file, c.Certificate, e)
}

// newCertificate makes the file for a certificate before it is too late for a mistake in
// its name.
func newCertificate(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, usagef("%s is there already: name a new file", name)
	}
	if err != nil {
		return nil, fmt.Errorf("make file for the certificate: %w", err)
	}
	return file, nil
}

func writeCertificate(a *app, file *os.File, name string, e api.Erasure) error {
	_, err := file.WriteString(e.Certificate)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	if len(e.Kept) > 0 {
		fmt.Fprintf(a.stdout, "Holds keep some of it: %s. The certificate names them.\n", many(len(e.Kept), "part"))
	}
	fmt.Fprintf(a.stdout, "Erased. The certificate is in %s. To check it anywhere, without a hub:\n\n  holdfast verify %s --key '%s'\n", name, name, e.Verifier)
	return nil
}

type erasureUndoCmd struct {
	ID string `arg:"" help:"The erasure's id."`
	hubFlags
	outputFlags
}

func (*erasureUndoCmd) Help() string {
	return `Takes back an erasure that waits: who asked for it, or the owner. Everything is there as before. When it has begun, it can't be undone by anybody.

Example:
  holdfast erasure undo gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *erasureUndoCmd) Run(a *app) error {
	return decideErasure(a, &c.hubFlags, c.outputFlags, http.MethodDelete, named("/v1/erasures", c.ID), "was undone: all is as before")
}

type erasureApproveCmd struct {
	ID string `arg:"" help:"The erasure's id."`
	hubFlags
	outputFlags
}

func (*erasureApproveCmd) Help() string {
	return `Approves an erasure of more assignments than one administrator may have erased alone within 24 hours (serve --erasure-bulk). Who asked for it can't approve it.

Example:
  holdfast erasure approve gq3tembtgm2tkmrzgq3tembtgm --token second.token --hub https://HOST:8443`
}

func (c *erasureApproveCmd) Run(a *app) error {
	return decideErasure(a, &c.hubFlags, c.outputFlags, http.MethodPost, named("/v1/erasures", c.ID)+"/approve", "is approved: it is refused on every path from now on")
}

type erasureRefuseCmd struct {
	ID string `arg:"" help:"The erasure's id."`
	hubFlags
	outputFlags
}

func (*erasureRefuseCmd) Help() string {
	return `Refuses an erasure that waits for approval. Nothing has happened.

Example:
  holdfast erasure refuse gq3tembtgm2tkmrzgq3tembtgm --token second.token --hub https://HOST:8443`
}

func (c *erasureRefuseCmd) Run(a *app) error {
	return decideErasure(a, &c.hubFlags, c.outputFlags, http.MethodPost, named("/v1/erasures", c.ID)+"/refuse", "is refused: nothing has happened")
}

func decideErasure(a *app, h *hubFlags, o outputFlags, method, path, done string) error {
	hub, err := h.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var e api.Erasure
	if err := hub.Do(a.ctx, method, path, nil, &e); err != nil {
		return err
	}
	return o.tell(a, e, fmt.Sprintf("Erasure %s %s.", e.ID, done))
}
