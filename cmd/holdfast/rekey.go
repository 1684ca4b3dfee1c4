package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type rekeyCmd struct {
	Whose  string `arg:"" optional:"" help:"A party, by name or id, or all; left out: list what was asked for." placeholder:"PARTY|all"`
	NoWait bool   `help:"Don't wait for the end." env:"-"`
	hubFlags
	outputFlags
}

func (*rekeyCmd) Help() string {
	return `Replaces keys that may have become known, on the running hub: owner keys, key lists, the keys of stored readings (which are sealed again), of
the journal, of every page of the keyring, and the root key. Nothing is lost or changed. It goes on by itself, also after a crash. What somebody
has copied already, he reads with the keys of then.

Example:
  holdfast rekey all --data DATA`
}

func (c *rekeyCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.Whose == "" {
		list, err := all[api.Rekey](a, hub, "/v1/rekeys")
		if err != nil {
			return err
		}
		return c.print(a, list, rekeyHeader, rekeyRows(list...))
	}
	body := map[string]any{"party": c.Whose}
	if c.Whose == "all" {
		body = map[string]any{"all": true}
	}
	var r api.Rekey
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/rekeys", body, &r); err != nil {
		return err
	}
	for said := r.Left; r.State != "done" && !c.NoWait; {
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		if err := hub.Do(a.ctx, http.MethodGet, named("/v1/rekeys", r.ID), nil, &r); err != nil {
			return err
		}
		if r.Left != said {
			said = r.Left
			fmt.Fprintf(a.stderr, "%d of %d owner keys replaced\n", r.Owners-r.Left, r.Owners)
		}
	}
	return c.print(a, r, rekeyHeader, rekeyRows(r))
}

func (c *rekeyCmd) Left() string {
	return "What the hub has been asked it goes on with by itself: holdfast rekey" + c.again() + " says how far it is"
}

var rekeyHeader = []string{"ID", "PARTY", "OWNERS", "LEFT", "STATE"}

func rekeyRows(list ...api.Rekey) [][]string {
	rows := make([][]string, len(list))
	for i, r := range list {
		rows[i] = []string{r.ID, orAll(r.Party), fmt.Sprint(r.Owners), fmt.Sprint(r.Left), r.State}
	}
	return rows
}
