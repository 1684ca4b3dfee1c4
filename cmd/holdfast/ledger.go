package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type ledgerCmd struct {
	Show    ledgerShowCmd    `cmd:"" help:"Show the ledger's signed head and the entries of a record."`
	Verify  ledgerVerifyCmd  `cmd:"" help:"Recompute the ledger and find what was changed."`
	Prove   ledgerProveCmd   `cmd:"" help:"Make a proof that an entry is in the ledger, or that it only grew."`
	Renew   ledgerRenewCmd   `cmd:"" help:"Give the ledger of a stopped hub a new name after its catalog was put back."`
	Witness ledgerWitnessCmd `cmd:"" help:"Be a witness: cosign other hubs' ledgers as long as they only grow."`
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
	Proofs string `help:"Write all entries with proofs into this new file, to check offline." placeholder:"FILE" type:"path" env:"-"`
	Since  string `help:"With --proofs: also prove that the ledger has only grown since this older file of yours (of --proofs, ledger prove or a checkpoint)." placeholder:"FILE" type:"path" env:"-"`
	recordFlags
	hubFlags
	outputFlags
}

func (*ledgerShowCmd) Help() string {
	return `Shows the published head, with the hub's public key for certificates and exports, and the entries about you. With --proofs FILE all of them go into a
file with their proofs: holdfast verify FILE checks it without a hub. Keep the file somewhere else: with --since it shows later whether anything of it was
changed or taken away.

Example:
  holdfast ledger show --data DATA
  holdfast ledger show --proofs 2026-11.slice --token my.token --hub https://HOST:8443
  holdfast ledger show --proofs 2026-12.slice --since 2026-11.slice --token my.token --hub https://HOST:8443`
}

func (c *ledgerShowCmd) Run(a *app) error {
	if c.Since != "" && c.Proofs == "" {
		return usagef("--since goes with --proofs FILE")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.Proofs != "" {
		return c.proofs(a, hub)
	}
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

// proofs writes the slice into a file, which is there whole or not at all.
func (c *ledgerShowCmd) proofs(a *app, hub *client.Client) (err error) {
	q := c.query()
	if c.Since != "" {
		kept, err := os.ReadFile(c.Since)
		if err != nil {
			return fileError("older file", err)
		}
		size, err := ledger.SizeOf(kept)
		if err != nil {
			return err
		}
		q.Set("since", strconv.FormatUint(size, 10))
	}
	file, err := os.OpenFile(c.Proofs, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fileError("slice", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			os.Remove(c.Proofs)
		}
	}()
	body, _, err := hub.Stream(a.ctx, http.MethodGet, "/v1/me/ledger", q, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(file, body); err != nil {
		return fmt.Errorf("the slice broke off: %w", err)
	}
	since := ""
	if c.Since != "" {
		since = " --since " + c.Since
	}
	_, err = fmt.Fprintf(a.stdout, "Written. To check it, without a hub:\n\n  holdfast verify %s%s\n", c.Proofs, since)
	return err
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
		fmt.Fprintf(a.stdout, "%d entries, %d of them erased%s, %d leaves of padding, %d signed heads. Root %s.\n", r.Entries, r.Erased, under, r.Padding, r.Checkpoints, r.Root)
	}
	if len(r.Faults) > 0 {
		return errors.Join(err, holdfast.Errorf(holdfast.Invalid, "the ledger does not verify"))
	}
	return err
}

type ledgerProveCmd struct {
	Index *uint64 `arg:"" optional:"" help:"The entry's index, from ledger show."`
	From  *uint64 `help:"In place of an entry: prove growth from a tree of this many leaves." placeholder:"SIZE" env:"-"`
	To    uint64  `help:"With --from: to the published tree of this many; the newest if left out." placeholder:"SIZE" env:"-"`
	recordFlags
	hubFlags
}

func (*ledgerProveCmd) Help() string {
	return `Prints a proof that an entry about you is in the ledger, with what it says (C2SP tlog-proof); or, with --from, that the ledger begins with the leaves it
had when there were so many. holdfast verify checks both without a hub.

Example:
  holdfast ledger prove 12 --data DATA > entry-12.tlog-proof
  holdfast verify entry-12.tlog-proof
  holdfast ledger prove --from 4096 --data DATA > growth
  holdfast verify growth --since kept.checkpoint --key KEY`
}

func (c *ledgerProveCmd) Run(a *app) error {
	if (c.Index == nil) == (c.From == nil) {
		return usagef("give an ENTRY, or --from SIZE")
	}
	if c.From == nil && c.To != 0 {
		return usagef("--to goes with --from SIZE")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	path, q := "/v1/ledger/consistency", url.Values{}
	if c.From != nil {
		q.Set("from", strconv.FormatUint(*c.From, 10))
		if c.To != 0 {
			q.Set("to", strconv.FormatUint(c.To, 10))
		}
	} else {
		path, q = fmt.Sprintf("/v1/ledger/entries/%d/proof", *c.Index), c.recordFlags.query()
	}
	body, _, err := hub.Stream(a.ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxCertificate))
	if err != nil {
		return fmt.Errorf("the proof broke off: %w", err)
	}
	_, err = a.stdout.Write(text)
	return err
}

type ledgerRenewCmd struct {
	Data       string   `required:"" help:"The data folder of the stopped hub." placeholder:"DIR" type:"path"`
	RootKey    string   `help:"Where the root key is (default: where init put it)." placeholder:"PATH" type:"path"`
	Passphrase string   `name:"passphrase-file" help:"A file whose first line is the root key's passphrase." placeholder:"FILE"`
	Last       []string `help:"A later checkpoint of the old name, kept by a witness or an owner; repeated." placeholder:"FILE" type:"path" sep:"none" env:"-"`
	Force      bool     `help:"Also where the catalog goes on from its last head." env:"-"`
}

func (*ledgerRenewCmd) Help() string {
	return `Opens a new name (origin) and key for the ledger. It is for a catalog that was put back to an earlier state, as from a backup: to sign on under the old name
would make two ledgers of one name. Its first entry commits to the last head of the old name; what was signed under that stays as verifiable as it was.
Everybody who keeps the hub's public key needs the new one, which is printed, as do witnesses.

Example:
  holdfast ledger renew --data DATA`
}

func (c *ledgerRenewCmd) Run(a *app) error {
	pass, err := readPassphrase(a.ctx, c.Passphrase)
	if err != nil {
		return err
	}
	var last []string
	for _, path := range c.Last {
		text, err := os.ReadFile(path)
		if err != nil {
			return fileError("checkpoint", err)
		}
		last = append(last, string(text))
	}
	r, err := server.RenewLedger(a.ctx, server.Config{Data: c.Data, RootKey: c.RootKey, Passphrase: pass}, last, c.Force)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "The ledger is now %s. It begins with the %d leaves that were kept. Its public key, for the place where you keep the old one:\n\n  %s\n", r.Origin, r.KeptSize, r.Verifier)
	return err
}
