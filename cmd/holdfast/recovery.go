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
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/recovery"
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
	Share          []string `help:"A share: its age file, or its text. Repeated, once for each." placeholder:"FILE" type:"path" env:"-"`
	AgeIdentity    []string `name:"age-identity" help:"A file of age identities that open shares; repeated." placeholder:"FILE" type:"path" env:"-"`
	PassphraseFile []string `name:"share-passphrase-file" help:"A file whose first line is the passphrase of a share; repeated, each is tried on each share." placeholder:"FILE" type:"path" env:"-"`
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

// read returns the shares that open, and why the others don't.
func (f shareFlags) read(ctx context.Context) (out []escrow.Share, without []error, err error) {
	if len(f.Share) == 0 {
		return nil, nil, usagef("give the shares: --share FILE, once for each")
	}
	with, err := f.identities(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range f.Share {
		s, err := readShare(ctx, path, with)
		switch {
		case ctx.Err() != nil:
			return nil, nil, err
		case err != nil:
			without = append(without, err)
		default:
			out = append(out, s)
		}
	}
	return out, without, nil
}

// combine reads the shares and puts them together. Who has enough without one that
// does not open goes on, and is told which that is.
func (f shareFlags) combine(a *app) (*escrow.Private, error) {
	shares, without, err := f.read(a.ctx)
	if err != nil {
		return nil, err
	}
	defer clear(shares)
	if len(shares) == 0 {
		return nil, errors.Join(without...)
	}
	private, err := escrow.Combine(shares)
	if err != nil {
		return nil, errors.Join(append(without, err)...)
	}
	for _, why := range without {
		fmt.Fprintf(a.stderr, "holdfast: a share was left out, the others are enough: %v\n", why)
	}
	return private, nil
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
	holders, err := c.shareholders(a.ctx)
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
	before, err := all[api.Deal](a, hub, "/v1/recovery")
	if err != nil {
		return err
	}
	names := make([]string, len(holders))
	for i, h := range holders {
		names[i] = h.name
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
		if err := writeShare(path, s, holders[i].to); err != nil {
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
	tellReplaced(a, before)
	return nil
}

// tellReplaced says what is to be done about the shares of the deals before: what
// stands on one is lost with it.
func tellReplaced(a *app, before []api.Deal) {
	for _, d := range before {
		if d.Missing > 0 {
			fmt.Fprintf(a.stdout, "\nThe shares of deal %s still open old copies of the keyring. Have each shareholder read the code first, then destroy the share and give you the code; %s:\n\n  holdfast recovery check SHARE --age-identity FILE\n  holdfast recovery destroyed CODE\n",
				d.ID, many(d.Missing, "code")+map[bool]string{true: " is enough", false: " are enough"}[d.Missing == 1])
		}
	}
}

func (c *recoveryDealCmd) Left() string {
	return "holdfast recovery show" + c.again() + " names the deal in force. If that is still the one of before, remove what " + quoted(c.Out) + " has, and deal again"
}

// shareholder is who is dealt a share, and what it is encrypted to.
type shareholder struct {
	name string
	to   age.Recipient
	same string // alike for two who open with the same
}

func (c *recoveryDealCmd) shareholders(ctx context.Context) (out []shareholder, err error) {
	for _, text := range c.Share {
		name, recipient, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usagef("--share NAME=age1... or NAME=passphrase:FILE")
		}
		h := shareholder{name: name, same: recipient}
		if path, pass := strings.CutPrefix(recipient, "passphrase:"); pass {
			phrase, err := readPassphrase(ctx, path)
			if err != nil {
				return nil, err
			}
			if len(phrase) < 16 {
				return nil, usagef("the passphrase in %s is short: 16 characters at least, or five words", path)
			}
			if h.to, err = age.NewScryptRecipient(string(phrase)); err != nil {
				return nil, usagef("the passphrase in %s can't be used", path)
			}
			h.same = "passphrase:" + string(phrase)
		} else if all, err := age.ParseRecipients(strings.NewReader(recipient)); err != nil || len(all) != 1 {
			return nil, usagef("what stands for %q is no age recipient: age1..., from age-keygen", name)
		} else {
			h.to = all[0]
			if named, ok := h.to.(fmt.Stringer); ok {
				h.same = named.String()
			}
		}
		if i := slices.IndexFunc(out, func(o shareholder) bool { return o.same == h.same }); i >= 0 {
			return nil, usagef("%q and %q have the same %s: whoever has it would have two shares, and fewer people than you ask for could open. Give each shareholder one of his own",
				out[i].name, name, map[bool]string{true: "passphrase", false: "age recipient"}[strings.HasPrefix(h.same, "passphrase:")])
		}
		out = append(out, h)
	}
	return out, nil
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
OPENS counts the shares that are not destroyed. TO DESTROY is of a deal that is not in force any more: so many must go before the rest open nothing.

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
				if s.Vouched != "" {
					who[i] = cell(s.Name) + " (destroyed, says " + cell(s.Vouched) + ")"
				}
			}
		}
		left := len(d.Shareholders)
		for _, s := range d.Shareholders {
			if s.Destroyed != nil {
				left--
			}
		}
		destroy := fmt.Sprint(d.Missing)
		if d.State == string(recovery.InForce) {
			destroy = "-" // its shares are the way back
		}
		rows = append(rows, []string{d.ID, d.State, fmt.Sprintf("%d of %d", d.Threshold, left), strings.Join(who, ", "), whenever(d.Since), whenever(d.Rehearsed), destroy})
	}
	return c.print(a, deals, []string{"DEAL", "STATE", "OPENS", "SHAREHOLDERS", "SINCE", "REHEARSED", "TO DESTROY"}, rows)
}

type recoveryCheckCmd struct {
	File           string   `arg:"" help:"The share: its age file, or its text." type:"path"`
	AgeIdentity    []string `help:"A file of age identities that open it." placeholder:"FILE" type:"path" env:"-"`
	PassphraseFile []string `name:"share-passphrase-file" help:"A file whose first line is its passphrase." placeholder:"FILE" type:"path" env:"-"`
	Print          bool     `help:"Print the share, as one writes it on paper. Whoever reads it has it." env:"-"`
	outputFlags
	Commitment string `help:"The commitment that recovery show -o json has for this share: the share is compared with it." placeholder:"HEX" env:"-"`
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
	if c.json() {
		return printJSON(a.stdout, struct {
			Number    int       `json:"number"`
			Of        int       `json:"of"`
			Threshold int       `json:"threshold"`
			Name      string    `json:"name"`
			Deal      string    `json:"deal"`
			Made      time.Time `json:"made"`
			Hub       string    `json:"hub"`
			Code      string    `json:"code"`
		}{s.Number, s.Of, s.Threshold, s.Name, s.Deal.String(), s.Made, s.Hub, s.Code.String()})
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
	private, err := c.combine(a)
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
	Code        string `arg:"" optional:"" help:"The line after \"code\" on the share that was destroyed."`
	Deal        string `help:"Where there is no code any more: the deal, which is not in force." placeholder:"ID" env:"-"`
	Shareholder string `help:"Where there is no code any more: whose share it was." placeholder:"NAME" env:"-"`
	Vouch       string `help:"Where there is no code any more: who answers for its destruction. Certificates name this person." placeholder:"WHO" env:"-"`
	hubFlags
	outputFlags
}

func (*recoveryDestroyedCmd) Help() string {
	return `Records a shareholder's word that a share was destroyed: the code on it says that he had it. When so many are gone that the rest are too few, the
erasures from before the next deal are complete. Deal anew first: a share of the deal in force is needed.

Where the code is lost, or the shareholder gives none, somebody may answer for it: a statement of another, which certificates name.

Example:
  holdfast recovery destroyed 5kb52cvasbyszu3ettmrj3cziu --data DATA
  holdfast recovery destroyed --deal 6ytz3mlw5vmxsnhn7dthqbmwgm --shareholder notary --vouch "Ada Lovelace" --data DATA`
}

func (c *recoveryDestroyedCmd) Run(a *app) error {
	if named := c.Deal != "" && c.Shareholder != "" && c.Vouch != ""; named == (c.Code != "") || !named && c.Deal+c.Shareholder+c.Vouch != "" {
		return usagef("give the code; or, where there is none any more, --deal, --shareholder and --vouch")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var d api.Deal
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/recovery/destroyed", map[string]string{"code": c.Code, "deal": c.Deal, "name": c.Shareholder, "vouch": c.Vouch}, &d); err != nil {
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
	private, err := c.combine(a)
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
	tellTogether(a, r.Deal)
	return nil
}

// tellTogether says what is to become of shares that have opened.
func tellTogether(a *app, deal string) {
	fmt.Fprintf(a.stdout, "The shares of deal %s were together on one machine: when the hub runs, deal anew (holdfast recovery deal --help), and have the old ones destroyed. Until then doctor says recovery-opened.\n", deal)
}

func (c *recoveryOpenCmd) Left() string {
	return "Run it again with the same arguments: it goes on where it was, or says that there is nothing left to do"
}
