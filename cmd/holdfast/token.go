package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type tokenCmd struct {
	Add    tokenAddCmd    `cmd:"" help:"Make a token for a program, an administrator or oneself."`
	List   tokenListCmd   `cmd:"" help:"List credentials: tokens and certificates."`
	Revoke tokenRevokeCmd `cmd:"" help:"End a credential at once."`
}

func (*tokenCmd) Help() string {
	return `A token is a credential of a person or program. The hub keeps its hash only: it is shown once.

Example:
  holdfast token add dashboard --purpose operation --days 30 --out dashboard.token --data DATA
  holdfast query temperature --token dashboard.token --hub https://HOST:8443`
}

type tokenAddCmd struct {
	Label       string   `arg:"" help:"What it is for."`
	Party       string   `help:"Whose it is: a name or an id; your own if left out." placeholder:"PARTY" env:"-"`
	Role        string   `enum:"program,administrator,auditor,owner" default:"program" help:"program, administrator, auditor or owner." placeholder:"ROLE" env:"-"`
	Purpose     []string `help:"What a program reads for. May be given again." placeholder:"PURPOSE" env:"-"`
	Grant       []string `help:"Bind it to this grant, by its id: it reads under no other, and ends with it. May be given again." placeholder:"ID" env:"-"`
	Scope       []string `help:"read, write or metrics; what its role allows if left out. May be given again." placeholder:"SCOPE" env:"-"`
	Days        int      `help:"How long it lives, at most 400; 90 for programs, 365 for people if left out." placeholder:"N" env:"-"`
	Certificate bool     `help:"Make a key and a certificate, in the new folder --out, in place of a token: what MQTT needs." env:"-"`
	CSR         string   `name:"csr" help:"Make a certificate for the key of this request (PKCS #10, PEM) in place of a token." placeholder:"FILE" type:"path" env:"-"`
	Out         string   `help:"Write it to this new file, which only you can read, and print nothing secret; with --certificate, to this new folder." placeholder:"FILE" type:"path" env:"-"`
	hubFlags
	outputFlags
}

func (*tokenAddCmd) Help() string {
	return `Makes a token. An administrator makes them for programs of the operating organisation, for administrators and for auditors, who see records and no readings; every other party for itself and its programs. Nobody but an
owner, once invited, makes an owner's.

Example:
  holdfast token add dashboard --purpose operation --out dashboard.token --data DATA
  holdfast token add pipeline --purpose care --grant GRANT-ID --out pipeline.token --token study.token
  holdfast token add prometheus --scope metrics --out metrics.token --data DATA
  holdfast token add pipeline --purpose operation --certificate --out pipeline --data DATA`
}

func (c *tokenAddCmd) Run(a *app) error {
	if c.Days < 0 || c.Days > 400 {
		return usagef("--days is 1 to 400")
	}
	if c.Role == "program" && len(c.Purpose) == 0 && (len(c.Scope) == 0 || slices.Contains(c.Scope, "read")) {
		return usagef("say what the program reads for: --purpose, of those that holdfast purpose list shows; or --scope metrics")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var made *certificate
	var file *secretFile
	if c.Certificate || c.CSR != "" {
		made, err = c.newCertificate()
	} else {
		file, err = newSecretFile(c.Out)
	}
	if err != nil {
		return err
	}
	body := map[string]any{"label": c.Label, "party": c.Party, "role": c.Role}
	if len(c.Purpose) > 0 {
		body["purposes"] = c.Purpose
	}
	if len(c.Scope) > 0 {
		body["scopes"] = c.Scope
	}
	if len(c.Grant) > 0 {
		body["grants"] = c.Grant
	}
	if c.Days > 0 {
		body["days"] = c.Days
	}
	if made != nil {
		body["csr"] = string(made.csr)
	}
	var n api.NewCredential
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/tokens", body, &n); err != nil {
		if made != nil {
			return errors.Join(err, made.drop())
		}
		return errors.Join(err, file.drop())
	}
	if made != nil {
		return made.handOut(a, c.outputFlags, hub, n)
	}
	return handOut(a, c.outputFlags, n, file)
}

// secretFile is where a token goes; nil is standard output.
type secretFile struct{ *os.File }

// newSecretFile makes the file before the token, which can't be shown again.
func newSecretFile(path string) (*secretFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, usagef("%s is there already: name a new file", path)
	}
	if err != nil {
		return nil, fmt.Errorf("make file for the token: %w", err)
	}
	return &secretFile{f}, nil
}

func (f *secretFile) drop() error {
	if f == nil {
		return nil
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (f *secretFile) write(text string) error {
	_, err := f.WriteString(text + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// handOut gives a new credential to who asked for it.
func handOut(a *app, o outputFlags, n api.NewCredential, file *secretFile) error {
	if file != nil {
		if err := file.write(n.Token); err != nil {
			return err
		}
		n.Token = ""
	}
	if o.json() {
		return printJSON(a.stdout, n)
	}
	if file != nil {
		fmt.Fprintf(a.stdout, "Credential %s is in %s, until %s.\n", n.ID, file.Name(), whenever(n.Until))
	} else {
		fmt.Fprintln(a.stdout, n.Token)
		fmt.Fprintf(a.stderr, "Credential %s, until %s. The token is shown this once.\n", n.ID, whenever(n.Until))
	}
	if n.Others > 0 {
		fmt.Fprintf(a.stderr, "The party has %s of this role: holdfast token list shows them.\n", many(n.Others, "other live credential"))
	}
	return nil
}

type tokenListCmd struct {
	Party string `help:"Those of this party: a name or an id." placeholder:"PARTY" env:"-"`
	hubFlags
	outputFlags
}

func (*tokenListCmd) Help() string {
	return `Lists credentials: an owner's own, to an administrator all.

Example:
  holdfast token list --party "Ada Lovelace" --data DATA`
}

func (c *tokenListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	credentials, err := all[api.Credential](a, hub, "/v1/tokens?party="+url.QueryEscape(c.Party))
	if err != nil {
		return err
	}
	rows := make([][]string, len(credentials))
	for i, t := range credentials {
		state := "live"
		switch {
		case t.Revoked != nil:
			state = "revoked"
		case t.Until != nil && t.Until.Before(time.Now()):
			state = "expired"
		}
		rows[i] = []string{t.ID, t.Kind, partyName(t.Party), t.Role, t.Label, strings.Join(t.Purposes, ","), t.Scopes, state, whenever(t.Until), t.LastUsed}
	}
	return c.print(a, credentials, []string{"ID", "KIND", "PARTY", "ROLE", "LABEL", "PURPOSES", "SCOPES", "STATE", "UNTIL", "LAST USED"}, rows)
}

type tokenRevokeCmd struct {
	ID string `arg:"" help:"The credential's id, from token list."`
	hubFlags
}

func (*tokenRevokeCmd) Help() string {
	return `Ends a token or a certificate of a person or program. It is refused from the next request on, and what it was reading breaks off.

Example:
  holdfast token revoke gq3tembtgm2tkmrzgq3tembtgm --data DATA`
}

func (c *tokenRevokeCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/tokens", c.ID), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Credential %s is revoked.\n", c.ID)
	return nil
}
