package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/server"
)

type initCmd struct {
	Dir          string   `arg:"" help:"The data folder to make: new, or empty."`
	Organisation string   `help:"The organisation that runs this hub (default: the first host)." placeholder:"NAME"`
	Host         []string `help:"A name or address by which devices and people reach this hub; may be repeated (default: host name, localhost, own addresses)." placeholder:"NAME"`
	RootKey      string   `help:"Where the root key goes: outside the data folder (default: in your configuration folder)." placeholder:"PATH"`
	Passphrase   string   `name:"passphrase-file" help:"A file whose first line protects the root key." placeholder:"FILE"`
}

func (initCmd) Help() string {
	return `Makes a data folder, a root key outside it, a certificate authority, a ledger
and a first administrator, whose identity lies in DIR/admin.

Whoever loses the root key loses all data: give it to a second holder in
another place, with holdfast holder add.

Example:
  holdfast init ./data --organisation "Acme Plants" --host hub.acme.example`
}

func (c *initCmd) Run(a *app) error {
	pass, err := readPassphrase(a.ctx, c.Passphrase)
	if err != nil {
		return err
	}
	made, err := server.Init(a.ctx, c.Dir, server.InitOptions{
		Organisation: c.Organisation, Hosts: c.Host, RootKey: c.RootKey, Passphrase: pass, Version: version(),
	})
	if err != nil {
		return err
	}
	serve := "holdfast serve --data " + quoted(made.Dir)
	if c.Passphrase != "" {
		serve += " --passphrase-file " + quoted(c.Passphrase)
	}
	fmt.Fprintf(a.stdout, `Made the hub of %s.

  data folder    %s
  root key       %s
  administrator  %s
  hosts          %s
  ledger key     %s

The root key is the only way to the data: whoever has it and the data folder can
read everything, and who loses it loses everything. Give it to a second holder
on another disk, in a TPM or on another machine (docs/holders.md), before
anything hangs on it. A copy of the file is no second holder: an erasure makes
it worthless. Keep the ledger key elsewhere too: certificates, proofs and
exports are verified with it.

Next:
  holdfast holder add file:/OTHER-DISK/root.key --name second --data %s
  %s
  holdfast device add my-device --data %s
`, made.Organisation, made.Dir, made.RootKey, made.Admin, strings.Join(made.Hosts, ", "), made.Verifier, quoted(made.Dir), serve, quoted(made.Dir))
	return nil
}

// readPassphrase returns the first line of a file, nil without a file.
func readPassphrase(ctx context.Context, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return firstLine(ctx, "passphrase", path)
}
