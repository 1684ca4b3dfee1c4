package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/server"
	"github.com/holdfast-iot/holdfast/internal/vault/conform"
)

type holderCmd struct {
	List   holderListCmd   `cmd:"" help:"Show who holds the root key, and how they do."`
	Add    holderAddCmd    `cmd:"" help:"Give the root key to another holder."`
	Fence  holderFenceCmd  `cmd:"" help:"Go on without a holder that is lost or broken."`
	Return holderReturnCmd `cmd:"" help:"Take a fenced holder back: it destroys what it held."`
	Remove holderRemoveCmd `cmd:"" help:"End a holder's part: it destroys all that it holds."`
	Test   holderTestCmd   `cmd:"" help:"Try a holder, with keys that nothing hangs on."`
}

func (*holderCmd) Help() string {
	return `Holders keep the root key: a file, a TPM, or any program that speaks the protocol of docs/holders.md. Any one of them opens the data, all must destroy the
old root key at an erasure. One is a way to lose everything: have two, in different places. Stop the hub for what changes them.

Example:
  holdfast holder add file:/mnt/usb/root.key --name usb --data DATA
  holdfast holder list --data DATA
  holdfast holder test "exec:/usr/local/lib/holdfast/openbao.py /etc/holdfast/openbao.json"`
}

// keyFlags say whose holders, and how the first is opened.
type keyFlags struct {
	Data       string `required:"" help:"The data folder of the stopped hub." placeholder:"DIR" type:"path"`
	RootKey    string `help:"Where the root key file is (default: where init put it)." placeholder:"PATH" type:"path"`
	Passphrase string `name:"passphrase-file" help:"A file whose first line is the root key file's passphrase." placeholder:"FILE"`
}

func (f keyFlags) config(a *app) (server.Config, error) {
	pass, err := readPassphrase(a.ctx, f.Passphrase)
	return server.Config{Data: f.Data, RootKey: f.RootKey, Passphrase: pass, Version: version()}, err
}

// seeHolders says how to see what a change that was cut short has come to.
func (f keyFlags) seeHolders() string {
	return "holdfast holder list --data " + quoted(f.Data) + " shows what was done; if it was not, run it again"
}

type holderListCmd struct {
	keyFlags
	outputFlags
}

func (*holderListCmd) Help() string {
	return `Asks each holder that is not fenced which generations of the root key it holds; one more than the hub's is left of a rotation that was given up. While
the hub runs, holders are named and not asked. Exits 1 if one fails.

Example:
  holdfast holder list --data DATA
  holdfast holder list --data DATA -o json`
}

func (c *holderListCmd) Run(a *app) error {
	config, err := c.config(a)
	if err != nil {
		return err
	}
	all, err := server.ListHolders(a.ctx, config)
	if err != nil {
		return err
	}
	rows, failed := make([][]string, len(all)), []string(nil)
	for i, h := range all {
		state := h.State
		switch state {
		case server.HolderFenced:
			state += " since " + when(h.FencedAt)
		case server.HolderHolds:
			state += " " + strings.Trim(fmt.Sprint(h.Generations), "[]")
		case server.HolderFails:
			state += ": " + h.Error
			failed = append(failed, h.Name)
		}
		rows[i] = []string{h.Name, h.Kind, string(h.Grade), h.Vouch, state, h.URL}
	}
	if c.json() {
		err = printJSON(a.stdout, all)
	} else {
		err = printTable(a.stdout, []string{"NAME", "KIND", "GRADE", "VOUCHED", "STATE", "URL"}, rows)
	}
	if err == nil && failed != nil {
		err = holdfast.Errorf(holdfast.Unavailable, "holders that fail: %s. The hub does not start until they are back or fenced", strings.Join(failed, ", "))
	}
	return err
}

func (c *holderListCmd) Left() string { return "Nothing was changed" }

type holderAddCmd struct {
	URL   string `arg:"" name:"url" help:"file:/PATH (new; ?passphrase-file=/PATH protects it), tpm:/dev/tpmrm0?state=/PATH, or exec:/PATH ARGUMENTS."`
	Name  string `required:"" help:"What certificates and messages call it." placeholder:"NAME" env:"-"`
	Vouch string `help:"Of a program: who answers for its destruction being of grade purge. Certificates name this person." placeholder:"WHO" env:"-"`
	keyFlags
	outputFlags
}

func (*holderAddCmd) Help() string {
	return `Has the holder wrap the root key in force. From then on every erasure waits for it, and any one holder opens the data: put it where nobody can take
both it and the data folder, and where it is not lost together with the others.

In exec:, a space within an argument is written %20, a % itself %25. Try a program with holdfast holder test first.

Example:
  holdfast holder add file:/mnt/usb/root.key --name usb --data DATA
  holdfast holder add "exec:/usr/local/lib/holdfast/hsm --slot 3" --name hsm --vouch "Ada Lovelace" --data DATA`
}

func (c *holderAddCmd) Run(a *app) error {
	config, err := c.config(a)
	if err != nil {
		return err
	}
	h, err := server.AddHolder(a.ctx, config, server.HolderSpec{Name: c.Name, URL: c.URL, Vouch: c.Vouch})
	if err != nil {
		return err
	}
	return c.tell(a, h, fmt.Sprintf("Holder %s has the root key (generation %d, grade %s). Erasures wait for it from now on.", h.Name, h.Generations[0], h.Grade))
}

func (c *holderAddCmd) Left() string {
	return c.seeHolders()
}

// tell prints a holder, or a sentence about it.
func (o outputFlags) tell(a *app, v any, sentence string) error {
	if o.json() {
		return printJSON(a.stdout, v)
	}
	_, err := fmt.Fprintln(a.stdout, sentence)
	return err
}

type holderFenceCmd struct {
	Name string `arg:"" name:"name" help:"The holder."`
	keyFlags
	outputFlags
}

func (*holderFenceCmd) Help() string {
	return `The holder is not asked any more: the hub starts without it and erasures go on. But as long as it may still exist, it may open what it held together
with an old copy of the keyring: every certificate from now on names it as pending, until holder return or holder remove.

Example:
  holdfast holder fence tpm --data DATA`
}

func (c *holderFenceCmd) Run(a *app) error {
	config, err := c.config(a)
	if err != nil {
		return err
	}
	h, opens, err := server.FenceHolder(a.ctx, config, c.Name)
	if err != nil {
		return err
	}
	if err := c.tell(a, h, fmt.Sprintf("Holder %s is not asked any more. Certificates name it as pending, until\n\n  holdfast holder return %[1]s --data %s", h.Name, quoted(c.Data))); err != nil {
		return err
	}
	if opens != nil {
		return fmt.Errorf("the holder is fenced, and the hub still can't be started: %w", opens)
	}
	return nil
}

func (c *holderFenceCmd) Left() string {
	return c.seeHolders()
}

type holderReturnCmd struct {
	Name string `arg:"" name:"name" help:"The holder."`
	URL  string `name:"url" help:"Where it is, of one that was added after the backup that the hub was restored from." placeholder:"URL" env:"-"`
	keyFlags
	outputFlags
}

func (*holderReturnCmd) Help() string {
	return `A fenced holder that works again destroys every root key of before, which completes the certificates that name it as pending, and gets the one in
force. Of one that was added after the backup that the hub was restored from, say with --url where it is: it must open the keyring.

Example:
  holdfast holder return tpm --data DATA
  holdfast holder return usb --url file:/mnt/usb/root.key --data NEW`
}

func (c *holderReturnCmd) Run(a *app) error {
	config, err := c.config(a)
	if err != nil {
		return err
	}
	h, err := server.ReturnHolder(a.ctx, config, c.Name, c.URL)
	if err != nil {
		return err
	}
	return c.tell(a, h, fmt.Sprintf("Holder %s has destroyed what is before generation %d, and has the root key. What certificates named as pending is done.", h.Name, h.Generations[0]))
}

func (c *holderReturnCmd) Left() string {
	return c.seeHolders()
}

type holderRemoveCmd struct {
	Name  string `arg:"" name:"name" help:"The holder."`
	Vouch string `help:"Of a fenced holder that is gone for good: who answers that what it held is destroyed. Certificates name this person." placeholder:"WHO" env:"-"`
	keyFlags
	outputFlags
}

func (*holderRemoveCmd) Help() string {
	return `The holder destroys every root key that it has and is no longer asked. The last one can't be removed. Of one that is fenced and can't be asked any
more, a person may answer for the destruction: a statement, not a proof.

Example:
  holdfast holder remove usb --data DATA
  holdfast holder remove tpm --vouch "Ada Lovelace" --data DATA`
}

func (c *holderRemoveCmd) Run(a *app) error {
	config, err := c.config(a)
	if err != nil {
		return err
	}
	s, err := server.RemoveHolder(a.ctx, config, c.Name, c.Vouch)
	if err != nil {
		return err
	}
	sentence := fmt.Sprintf("Holder %s has destroyed all that it held, and has no part in the keyring any more.", s.Holder)
	if s.Vouched != "" {
		sentence = fmt.Sprintf("Holder %s has no part in the keyring any more. That what it held is destroyed stands on the word of %s.", s.Holder, cell(s.Vouched))
	}
	return c.tell(a, s, sentence)
}

func (c *holderRemoveCmd) Left() string {
	return c.seeHolders()
}

type holderTestCmd struct {
	URL string `arg:"" name:"url" help:"exec:/PATH ARGUMENTS; tpm:/dev/tpmrm0?state=/PATH, of a state file that is not there yet; file:/FOLDER to try files there."`
	outputFlags
}

func (*holderTestCmd) Help() string {
	return `Runs the steps that every holder must pass, with two keyrings that nothing hangs on, and leaves them empty. It stops at the first step that fails and
says what to mend. Exits 1 then. A program that makes RSA keys may take a minute. It can't show that the program keeps no copy elsewhere.

Example:
  holdfast holder test "exec:/usr/local/lib/holdfast/openssl.py /var/lib/holdfast-keys"
  holdfast holder test "tpm:/dev/tpmrm0?state=/var/lib/holdfast-tpm/try.json&index=0x01800180"
  holdfast holder test "exec:/usr/local/lib/holdfast/hsm --slot 3" -o json`
}

func (c *holderTestCmd) Run(a *app) error {
	var all []conform.Result
	passed, err := server.TestHolder(a.ctx, c.URL, func(r conform.Result) {
		if all = append(all, r); c.json() {
			return
		}
		said := "ok"
		switch {
		case r.Skipped:
			said = "not tried: " + r.Why
		case !r.OK:
			said = "failed: " + cell(r.Error) + "\n  mend: " + r.Mend
		}
		fmt.Fprintf(a.stdout, "%-24s %6d ms  %s\n", r.Step, r.Took.Round(time.Millisecond).Milliseconds(), said)
	})
	if err != nil {
		return err
	}
	if c.json() {
		if err := printJSON(a.stdout, struct {
			OK    bool             `json:"ok"`
			Steps []conform.Result `json:"steps"`
		}{passed, all}); err != nil {
			return err
		}
	}
	if !passed {
		return holdfast.Errorf(holdfast.Invalid, "the holder does not keep the contract: step %q", all[len(all)-1].Step)
	}
	return nil
}
