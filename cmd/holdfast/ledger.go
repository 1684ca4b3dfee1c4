package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

type ledgerCmd struct {
	Show   ledgerShowCmd   `cmd:"" help:"Show the ledger's signed head and the entries of a record."`
	Verify ledgerVerifyCmd `cmd:"" help:"Recompute the ledger and find what was changed."`
	Prove  ledgerProveCmd  `cmd:"" help:"Make a proof that an entry is in the ledger."`
}

func (*ledgerCmd) Help() string {
	return `The ledger is the append-only record of everything that changed or left.

Example:
  holdfast ledger show --data DATA
  holdfast ledger verify --data DATA`
}

// recordFlags say whose record is meant.
type recordFlags struct {
	Record string `enum:"own,hub," default:"" help:"own or hub; an administrator's is the hub's if left out." placeholder:"RECORD" env:"-"`
	Device string `help:"The record of this device of yours." placeholder:"DEVICE" env:"-"`
}

func (r recordFlags) query() url.Values {
	q := url.Values{}
	if r.Record != "" {
		q.Set("record", r.Record)
	}
	if r.Device != "" {
		q.Set("device", r.Device)
	}
	return q
}

type ledgerShowCmd struct {
	recordFlags
	hubFlags
	outputFlags
}

func (*ledgerShowCmd) Help() string {
	return `Shows the signed head, with the hub's public key for certificates and exports, and the entries about you. Keep a head somewhere else: it shows
later whether the ledger was rolled back.

Example:
  holdfast ledger show --data DATA
  holdfast ledger show --token my.token --hub https://HOST:8443 -o json`
}

func (c *ledgerShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var head api.Checkpoint
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/ledger", nil, &head); err != nil {
		return err
	}
	entries, err := c.entries(a, hub)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, struct {
			api.Checkpoint
			Entries []api.Entry `json:"entries"`
		}{head, entries})
	}
	if err := printTable(a.stdout, nil, [][]string{
		{"ledger", head.Origin}, {"size", strconv.FormatUint(head.Size, 10)}, {"root", head.Root}, {"key", head.Verifier},
	}); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	rows := make([][]string, len(entries))
	for i, e := range entries {
		rows[i] = []string{strconv.FormatUint(e.Index, 10), whenever(e.Time), e.Kind, string(e.Data)}
	}
	return printTable(a.stdout, []string{"INDEX", "TIME", "KIND", "DATA"}, rows)
}

func (c *ledgerShowCmd) entries(a *app, hub *client.Client) ([]api.Entry, error) {
	entries := []api.Entry{}
	for from := "0"; ; {
		q := c.query()
		q.Set("from", from)
		q.Set("limit", "1000")
		var page api.Page[api.Entry]
		if err := hub.Do(a.ctx, http.MethodGet, "/v1/ledger/entries?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		entries = append(entries, page.Items...)
		if page.Next == "" {
			return entries, nil
		}
		from = page.Next
	}
}

type ledgerVerifyCmd struct {
	hubFlags
	outputFlags
}

func (*ledgerVerifyCmd) Help() string {
	return `Recomputes the tree from every entry and holds it against every head that was ever signed. Exits 1 if a row was edited, dropped or reordered.

Example:
  holdfast ledger verify --data DATA`
}

func (c *ledgerVerifyCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var r ledger.Report
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/ledger/verify", nil, &r); err != nil {
		return err
	}
	if c.json() {
		err = printJSON(a.stdout, r)
	} else {
		for _, f := range r.Faults {
			fmt.Fprintln(a.stdout, cell(f))
		}
		under := ""
		if r.BeingErased > 0 {
			under = fmt.Sprintf(" and %d being erased", r.BeingErased)
		}
		fmt.Fprintf(a.stdout, "%d entries, %d of them erased%s, %d signed heads. Root %s.\n", r.Entries, r.Erased, under, r.Checkpoints, r.Root)
	}
	if len(r.Faults) > 0 {
		return errors.Join(err, holdfast.Errorf(holdfast.Invalid, "the ledger does not verify"))
	}
	return err
}

type ledgerProveCmd struct {
	Index uint64 `arg:"" help:"The entry's index, from ledger show."`
	recordFlags
	hubFlags
}

func (*ledgerProveCmd) Help() string {
	return `Prints a proof that an entry about you is in the ledger, with what it says. holdfast verify checks it without a hub.

Example:
  holdfast ledger prove 12 --data DATA > entry-12.json
  holdfast verify entry-12.json`
}

func (c *ledgerProveCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p ledger.Proof
	if err := hub.Do(a.ctx, http.MethodGet, fmt.Sprintf("/v1/ledger/entries/%d/proof?%s", c.Index, c.query().Encode()), nil, &p); err != nil {
		return err
	}
	return printJSON(a.stdout, p)
}
