package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type recoveryCmd struct {
	Deal      recoveryDealCmd      `cmd:"" help:"Split the way back to the root key among shareholders."`
	Show      recoveryShowCmd      `cmd:"" help:"Who has shares, and whether they were tried."`
	Check     recoveryCheckCmd     `cmd:"" help:"Check one share, alone."`
	Rehearse  recoveryRehearseCmd  `cmd:"" help:"Try whether the shares come together, without a loss."`
	Destroyed recoveryDestroyedCmd `cmd:"" help:"Say that an old share was destroyed."`
	End       recoveryEndCmd       `cmd:"" help:"Wrap root keys to nobody from now on."`
	Open      recoveryOpenCmd      `cmd:"" help:"Every holder is lost: bring the root key back with the shares."`
}

func (*recoveryCmd) Help() string {
	return `Whoever loses every holder of the root key loses all data. Shares are a way back for that day: enough of the shareholders together open what the hub
wraps to them at each change of the root key; fewer can't, and neither can the hub. Nothing of it is needed while a holder works.

Old shares open old copies of the keyring, so certificates of erasure say "pending escrow" until enough shareholders have destroyed the shares of that
time. Deal anew now and then, and have the old ones destroyed. docs/recovery.md tells more.

Example:
  holdfast recovery deal --threshold 2 --share notary=age1... --share safe=age1... --share board=age1... --out shares --data DATA`
}

// shareFlags name shares and what opens them.
type shareFlags struct {
	Share          []string `help:"A share: its age file, or its text. Given as often as there are shares." placeholder:"FILE" type:"path" env:"-"`
	AgeIdentity    []string `name:"age-identity" help:"A file of age identities that open shares." placeholder:"FILE" type:"path" env:"-"`
	PassphraseFile []string `name:"share-passphrase-file" help:"A file whose first line is the passphrase of a share." placeholder:"FILE" type:"path" env:"-"`
}

func (f shareFlags) identities(ctx context.Context) (out []age.Identity, err error) {
	if out, err = readIdentities(ctx, f.AgeIdentity); err != nil {
		return nil, err
	}
	for _, path := range f.PassphraseFile {
		pass, err := readPassphrase(ctx, path)
		if err != nil {
			return nil, err
		}
		id, err := age.NewScryptIdentity(string(pass))
		if err != nil {
			return nil, usagef("the passphrase in %s can't be used", path)
		}
		out = append(out, &anyScrypt{id})
	}
	return out, nil
}

// anyScrypt tries a passphrase beside other identities.
type anyScrypt struct{ *age.ScryptIdentity }

func (s *anyScrypt) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return nil, age.ErrIncorrectIdentity
	}
	key, err := s.ScryptIdentity.Unwrap(stanzas)
	if err != nil {
		return nil, age.ErrIncorrectIdentity
	}
	return key, nil
}

func (f shareFlags) read(ctx context.Context) ([]escrow.Share, error) {
	if len(f.Share) == 0 {
		return nil, usagef("give the shares: --share FILE, once for each")
	}
	with, err := f.identities(ctx)
	if err != nil {
		return nil, err
	}
	var out []escrow.Share
	for _, path := range f.Share {
		s, err := readShare(ctx, path, with)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// combine reads the shares and puts them together.
func (f shareFlags) combine(ctx context.Context) (*escrow.Private, error) {
	shares, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(shares)
	return escrow.Combine(shares)
}

func readShare(ctx context.Context, path string, with []age.Identity) (escrow.Share, error) {
	file, err := readFile(ctx, "share", path)
	if err != nil {
		return escrow.Share{}, err
	}
	defer clear(file)
	s, err := escrow.Decrypt(bytes.NewReader(file), with...)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

type recoveryDealCmd struct {
	Threshold int      `required:"" help:"How many shares are needed to open." placeholder:"K" env:"-"`
	Share     []string `required:"" help:"A shareholder, as NAME=age1... for the holder of that age key, or NAME=passphrase:FILE. Given once for each." placeholder:"NAME=RECIPIENT" sep:"none" env:"-"`
	Out       string   `required:"" help:"A new folder for the shares." placeholder:"DIR" type:"path" env:"-"`
	hubFlags
	outputFlags
}

func (*recoveryDealCmd) Help() string {
	return `Draws a key pair, splits its private half among the shareholders and writes each share into a file that only its shareholder opens. The hub gets the
public half, wraps the root key to it, and never sees a share: run this on another machine than the hub's. The deal before, if there is one, is replaced.

Give each shareholder the file, have each check it (recovery check), then rehearse (recovery rehearse): a share that was never tried is none.

Example:
  age-keygen -o notary.key
  holdfast recovery deal --threshold 2 --share notary=age1... --share safe=age1... --share board=passphrase:board.txt --out shares --data DATA`
}

func (c *recoveryDealCmd) Run(a *app) (err error) {
	names, to, err := c.shareholders(a.ctx)
	if err != nil {
		return err
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var head api.Checkpoint
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/ledger", nil, &head); err != nil {
		return err
	}
	deal, shares, err := escrow.Deal(head.Origin, c.Threshold, names, time.Now())
	if err != nil {
		return err
	}
	defer clear(shares)
	if err := os.Mkdir(c.Out, 0o700); errors.Is(err, fs.ErrExist) {
		return usagef("%s is there already: name a new folder", c.Out)
	} else if err != nil {
		return fmt.Errorf("make folder for shares: %w", err)
	}
	defer func() {
		if err != nil { // shares of what is not in force only confuse
			err = errors.Join(err, os.RemoveAll(c.Out))
		}
	}()
	rows := make([][]string, len(shares))
	for i, s := range shares {
		path := filepath.Join(c.Out, fmt.Sprintf("share-%d-of-%d.age", s.Number, s.Of))
		if err := writeShare(path, s, to[i]); err != nil {
			return err
		}
		rows[i] = []string{s.Name, path}
	}
	var made api.Deal
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/recovery", deal, &made); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, made)
	}
	if err := printTable(a.stdout, []string{"SHAREHOLDER", "SHARE"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nDeal %s is in force: %d of %d open. Hand the files out, delete the folder, then:\n\n  holdfast recovery rehearse --share FILE --share FILE ... --age-identity FILE ...\n", made.ID, c.Threshold, len(shares))
	return nil
}

func (c *recoveryDealCmd) Left() string {
	return "holdfast recovery show" + c.again() + " names the deal in force. If that is still the one of before, remove what " + quoted(c.Out) + " has, and deal again"
}

func (c *recoveryDealCmd) shareholders(ctx context.Context) (names []string, to []age.Recipient, err error) {
	for _, text := range c.Share {
		name, recipient, ok := strings.Cut(text, "=")
		if !ok {
			return nil, nil, usagef("--share NAME=age1... or NAME=passphrase:FILE")
		}
		var r age.Recipient
		if path, pass := strings.CutPrefix(recipient, "passphrase:"); pass {
			phrase, err := readPassphrase(ctx, path)
			if err != nil {
				return nil, nil, err
			}
			if len(phrase) < 16 {
				return nil, nil, usagef("the passphrase in %s is short: 16 characters at least, or five words", path)
			}
			if r, err = age.NewScryptRecipient(string(phrase)); err != nil {
				return nil, nil, usagef("the passphrase in %s can't be used", path)
			}
		} else if all, err := age.ParseRecipients(strings.NewReader(recipient)); err != nil || len(all) != 1 {
			return nil, nil, usagef("what stands for %q is no age recipient: age1..., from age-keygen", name)
		} else {
			r = all[0]
		}
		names, to = append(names, name), append(to, r)
	}
	return names, to, nil
}

func writeShare(path string, s escrow.Share, to age.Recipient) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write share: %w", err)
	}
	if err := errors.Join(s.Encrypt(file, to), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write share: %w", err)
	}
	return nil
}

type recoveryShowCmd struct {
	hubFlags
	outputFlags
}

func (*recoveryShowCmd) Help() string {
	return `Shows the deals, the newest first: who has shares, when they were tried last, and who has said that an old one was destroyed.

Example:
  holdfast recovery show --data DATA`
}

func (c *recoveryShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	deals, err := all[api.Deal](a, hub, "/v1/recovery")
	if err != nil {
		return err
	}
	var rows [][]string
	for _, d := range deals {
		who := make([]string, len(d.Shareholders))
		for i, s := range d.Shareholders {
			if who[i] = cell(s.Name); s.Destroyed != nil {
				who[i] += " (destroyed)"
			}
		}
		rows = append(rows, []string{d.ID, d.State, fmt.Sprintf("%d of %d", d.Threshold, len(d.Shareholders)), strings.Join(who, ", "), whenever(d.Since), whenever(d.Rehearsed), fmt.Sprint(d.Missing)})
	}
	return c.print(a, deals, []string{"DEAL", "STATE", "OPENS", "SHAREHOLDERS", "SINCE", "REHEARSED", "TO DESTROY"}, rows)
}

type recoveryCheckCmd struct {
	File           string   `arg:"" help:"The share: its age file, or its text." type:"path"`
	AgeIdentity    []string `help:"A file of age identities that open it." placeholder:"FILE" type:"path" env:"-"`
	PassphraseFile []string `name:"share-passphrase-file" help:"A file whose first line is its passphrase." placeholder:"FILE" type:"path" env:"-"`
	Print          bool     `help:"Print the share, as one writes it on paper. Whoever reads it has it." env:"-"`
	Commitment     string   `help:"The commitment that recovery show -o json has for this share: the share is compared with it." placeholder:"HEX" env:"-"`
}

func (*recoveryCheckCmd) Help() string {
	return `Opens one share and says what it is. It asks nobody: a shareholder can do it alone, once a year, where the share lies.

Example:
  holdfast recovery check share-1-of-3.age --age-identity notary.key`
}

func (c *recoveryCheckCmd) Run(a *app) error {
	with, err := shareFlags{AgeIdentity: c.AgeIdentity, PassphraseFile: c.PassphraseFile}.identities(a.ctx)
	if err != nil {
		return err
	}
	s, err := readShare(a.ctx, c.File, with)
	if err != nil {
		return err
	}
	if c.Commitment != "" {
		var want escrow.Digest
		if err := want.UnmarshalText([]byte(c.Commitment)); err != nil {
			return err
		}
		if s.Commitment() != want {
			return holdfast.Errorf(holdfast.Invalid, "this is not the share that the hub knows of: it was altered, or is of another deal")
		}
	}
	if c.Print {
		_, err = fmt.Fprint(a.stdout, s.Text())
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Share %d of %d for %s, deal %s of %s, hub %s. It is whole; %d are needed to open. When it is destroyed, say so with its code %s\n", s.Number, s.Of, cell(s.Name), s.Deal, s.Made.Format(time.DateOnly), s.Hub, s.Threshold, s.Code)
	return err
}

func (c *recoveryCheckCmd) Left() string {
	return "Nothing was changed"
}

type recoveryRehearseCmd struct {
	shareFlags
	hubFlags
	outputFlags
}

func (*recoveryRehearseCmd) Help() string {
	return `Puts shares together and opens with them what the hub has just made up for this: afterwards it is known that the shares are whole and their
passphrases are not forgotten. Whoever sees the shares together could open copies of the keyring: use a machine that you trust, and nobody else's.

Example:
  holdfast recovery rehearse --share share-1-of-3.age --share share-3-of-3.age --age-identity notary.key --share-passphrase-file board.txt --data DATA`
}

func (c *recoveryRehearseCmd) Run(a *app) error {
	private, err := c.combine(a.ctx)
	if err != nil {
		return err
	}
	defer private.Wipe()
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	d, err := rehearse(a, hub, private)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, d)
	}
	_, err = fmt.Fprintf(a.stdout, "The shares open deal %s. The hub has recorded it.\n", d.ID)
	return err
}

func (c *recoveryRehearseCmd) Left() string {
	return "Nothing was changed: run it again"
}

func rehearse(a *app, hub *client.Client, private *escrow.Private) (d api.Deal, err error) {
	var ask api.Challenge
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/recovery/challenge", nil, &ask); err != nil {
		return d, err
	}
	if ask.Deal.ID != private.ID().String() {
		return d, holdfast.Errorf(holdfast.Invalid, "these are shares of deal %s; in force is %s: bring those", private.ID(), ask.Deal.ID)
	}
	box, err := base64.StdEncoding.DecodeString(ask.Box)
	if err != nil {
		return d, fmt.Errorf("read challenge: %w", err)
	}
	answer, err := private.Open(escrow.Rehearsal(), box)
	if err != nil {
		return d, err
	}
	err = hub.Do(a.ctx, http.MethodPost, "/v1/recovery/answer", map[string]string{"answer": base64.StdEncoding.EncodeToString(answer)}, &d)
	return d, err
}

type recoveryDestroyedCmd struct {
	Code string `arg:"" help:"The line after \"code\" on the share that was destroyed."`
	hubFlags
	outputFlags
}

func (*recoveryDestroyedCmd) Help() string {
	return `Records a shareholder's word that a share was destroyed: the code on it says that he had it. When so many are gone that the rest are too few, the
erasures from before the next deal are complete. Deal anew first: a share of the deal in force is needed.

Example:
  holdfast recovery destroyed 5kb52cvasbyszu3ettmrj3cziu --data DATA`
}

func (c *recoveryDestroyedCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var d api.Deal
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/recovery/destroyed", map[string]string{"code": c.Code}, &d); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, d)
	}
	if d.Missing > 0 {
		_, err = fmt.Fprintf(a.stdout, "Recorded. %s more, and what is left of deal %s opens nothing.\n", many(d.Missing, "share"), d.ID)
	} else {
		_, err = fmt.Fprintf(a.stdout, "Recorded. What is left of deal %s opens nothing.\n", d.ID)
	}
	return err
}

type recoveryEndCmd struct {
	Yes bool `help:"Don't ask." env:"-"`
	hubFlags
}

func (*recoveryEndCmd) Help() string {
	return `Wraps root keys to nobody from now on: who then loses every holder loses all data.

Example:
  holdfast recovery end --yes --data DATA`
}

func (c *recoveryEndCmd) Run(a *app) error {
	if !c.Yes {
		return usagef("this leaves no way back when every holder is lost: say --yes")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, "/v1/recovery", nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, "No shares open root keys from now on. Old shares open old copies of the keyring: have them destroyed.")
	return err
}

type recoveryOpenCmd struct {
	shareFlags
	Data       string `required:"" help:"The data folder of the stopped hub." placeholder:"DIR" type:"path"`
	RootKey    string `help:"Where the new root key goes (default: where the lost one was)." placeholder:"PATH" type:"path" env:"-"`
	Passphrase string `name:"passphrase-file" help:"A file whose first line protects the new root key." placeholder:"FILE" type:"path"`
	outputFlags
}

func (*recoveryOpenCmd) Help() string {
	return `Opens the keyring with the shares and gives the root key to a new file, for a hub whose every holder is lost. The lost holders are no part of the
keyring any more. Start the hub, deal anew, and have the shares destroyed: they were together.

Example:
  holdfast recovery open --data DATA --share share-1-of-3.age --share share-3-of-3.age --age-identity notary.key --age-identity board.key`
}

func (c *recoveryOpenCmd) Run(a *app) error {
	pass, err := readPassphrase(a.ctx, c.Passphrase)
	if err != nil {
		return err
	}
	private, err := c.combine(a.ctx)
	if err != nil {
		return err
	}
	defer private.Wipe()
	r, err := server.RecoverRootKey(a.ctx, server.Config{Data: c.Data, RootKey: c.RootKey, Passphrase: pass, Version: version()}, private)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	serve := "holdfast serve --data " + quoted(c.Data)
	if c.Passphrase != "" {
		serve += " --passphrase-file " + quoted(c.Passphrase)
	}
	fmt.Fprintf(a.stdout, "Root key %d is in %s again, and the hub knows that it is there. Start it, %s; an erasure then replaces the key.\n", r.Generation, r.RootKey, serve)
	if len(r.Lost) > 0 {
		fmt.Fprintf(a.stdout, "No part of the keyring any more: %s. If one turns up, have it destroy what it holds: holdfast holder return NAME --data %s\n", strings.Join(r.Lost, ", "), quoted(c.Data))
	}
	fmt.Fprintf(a.stdout, "The shares were together on one machine: deal anew, and have the old ones destroyed: holdfast recovery deal --help\n")
	return nil
}

func (c *recoveryOpenCmd) Left() string {
	return "Run it again with the same arguments: it goes on where it was, or says that there is nothing left to do"
}
