package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type keyringCmd struct {
	Show       keyringShowCmd       `cmd:"" help:"Show where the keyring is, and how its copies fare."`
	AddCopy    keyringAddCopyCmd    `cmd:"" name:"add-copy" help:"Keep a copy of the keyring in another place."`
	RemoveCopy keyringRemoveCopyCmd `cmd:"" name:"remove-copy" help:"Keep a copy no longer."`
	Verify     keyringVerifyCmd     `cmd:"" help:"Compare copies with the keyring, byte by byte."`
}

func (*keyringCmd) Help() string {
	return `The keyring has every owner's key, under the root key. A copy in another place, on another disk or a mounted share, has what is new before it counts, and beside it
what was erased, withdrawn and revoked, signed: a restore needs both. A copy is of no use without the root key. Stop the hub for all but show.

Example:
  holdfast keyring add-copy file:/mnt/safe/keyring --name safe --data DATA
  holdfast keyring show --data DATA
  holdfast keyring verify --data DATA`
}

type keyringShowCmd struct {
	Data string `required:"" help:"The data folder." placeholder:"DIR" type:"path"`
	outputFlags
}

func (*keyringShowCmd) Help() string {
	return `Compares the names of the keyring's own files, not all that was taken back since; holdfast keyring verify compares every byte of both. A copy that is ahead has
take-backs that this hub does not know, and nothing is written to it. Why a copy of a hub that runs is late says holdfast doctor.

Example:
  holdfast keyring show --data DATA
  holdfast keyring show --data DATA -o json`
}

func (c *keyringShowCmd) Run(a *app) error {
	r, err := server.ShowKeyring(a.ctx, server.Config{Data: c.Data}, false, "")
	if err != nil {
		return err
	}
	if r.Runs {
		c.askAhead(a, r.Copies)
	}
	return c.tellCopies(a, r)
}

// askAhead asks the hub that runs which copies it leaves as they are: names of files
// don't tell. One that does not answer says nothing of it.
func (c *keyringShowCmd) askAhead(a *app, copies []server.CopyReport) {
	asked := doctorCmd{hubFlags: hubFlags{Data: c.Data}}
	found, err := asked.askHub(a)
	if err != nil {
		return
	}
	for i, e := range copies {
		for _, f := range found {
			if why, ok := strings.CutPrefix(f.What, "the copy "+e.Name+" of the keyring gets nothing new: "); ok {
				copies[i].State, copies[i].Error = server.CopyAhead, why
			}
		}
	}
}

// tellCopies prints how copies fare.
func (o outputFlags) tellCopies(a *app, r server.KeyringState) error {
	if o.json() {
		return printJSON(a.stdout, r)
	}
	fmt.Fprintf(a.stdout, "The keyring is in %s: %s, newest head %s.\n", quoted(r.Folder), many(r.Files, "file"), r.Head)
	if len(r.Copies) == 0 {
		_, err := fmt.Fprintln(a.stdout, "It has no copy: if this folder is lost, all data are, backups or not. holdfast keyring add-copy makes one.")
		return err
	}
	rows := make([][]string, len(r.Copies))
	for i, e := range r.Copies {
		state := e.State
		switch {
		case e.Error != "":
			state += ": " + e.Error
		case e.Check != nil && e.State == server.CopyDiffers:
			state += fmt.Sprintf(": lacks %d of %d files, has %d otherwise (%s)", len(e.Check.Missing), e.Check.Files, len(e.Check.Different), strings.Join(append(slices.Clone(e.Check.Missing), e.Check.Different...), ", "))
		}
		rows[i] = []string{e.Name, state, e.URL}
	}
	return printTable(a.stdout, []string{"NAME", "STATE", "URL"}, rows)
}

type keyringAddCopyCmd struct {
	URL  string `arg:"" name:"url" help:"file:/PATH, a folder of its own that is there: on another disk, or a mounted share."`
	Name string `required:"" help:"What messages call it." placeholder:"NAME" env:"-"`
	keyFlags
	outputFlags
}

// keyringCopy is a copy as commands print it.
type keyringCopy struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

func (*keyringAddCopyCmd) Help() string {
	return `Copies the keyring there, and keeps it in step from the next start on: a new owner's key, or an erasure, counts when one copy at least has it. A copy that can't be
written is late: the hub goes on with the others, and catches it up when it is back. If no copy can be written, no device can be added and erasures wait. The
folder must be there: one that is missing is more likely a disk that is not mounted.

Example:
  holdfast keyring add-copy file:/mnt/safe/keyring --name safe --data DATA
  holdfast keyring add-copy file:/mnt/safe/keyring --name safe --data DATA -o json`
}

func (c *keyringAddCopyCmd) Run(a *app) error {
	config, err := c.config(a)
	if err == nil {
		err = server.AddCopy(a.ctx, config, c.Name, c.URL)
	}
	if err != nil {
		return err
	}
	return c.tell(a, keyringCopy{c.Name, c.URL}, fmt.Sprintf("Copy %s has all of the keyring, and gets what is new while the hub runs.", c.Name))
}

func (c *keyringAddCopyCmd) Left() string {
	return "If holdfast keyring show --data " + quoted(c.Data) + " does not name the copy " + c.Name + ", run it again"
}

type keyringRemoveCopyCmd struct {
	Name string `arg:"" name:"name" help:"The copy."`
	keyFlags
	outputFlags
}

func (*keyringRemoveCopyCmd) Help() string {
	return `The copy gets nothing new from the next start on. Its files stay: remove them, lest a restore takes an old one. After the next erasure they open nothing.

Example:
  holdfast keyring remove-copy safe --data DATA`
}

func (c *keyringRemoveCopyCmd) Run(a *app) error {
	config, err := c.config(a)
	if err != nil {
		return err
	}
	url, err := server.RemoveCopy(a.ctx, config, c.Name)
	if err != nil {
		return err
	}
	return c.tell(a, keyringCopy{c.Name, url}, fmt.Sprintf("Copy %s is kept no longer. Remove its files: %s", c.Name, quoted(strings.TrimPrefix(url, "file:"))))
}

func (c *keyringRemoveCopyCmd) Left() string {
	return "If holdfast keyring show --data " + quoted(c.Data) + " names the copy " + c.Name + " still, run it again"
}

type keyringVerifyCmd struct {
	Name string `arg:"" optional:"" name:"name" help:"The copy (default: all)."`
	Data string `required:"" help:"The data folder of the stopped hub." placeholder:"DIR" type:"path"`
	outputFlags
}

func (*keyringVerifyCmd) Help() string {
	return `Reads the keyring and its copies whole, with what was taken back beside them, and names the files that differ. Exits 1 if one differs or can't be read;
the hub catches it up when it runs: start it, stop it, and verify again.

Example:
  holdfast keyring verify --data DATA
  holdfast keyring verify safe --data DATA -o json`
}

func (c *keyringVerifyCmd) Run(a *app) error {
	r, err := server.ShowKeyring(a.ctx, server.Config{Data: c.Data}, true, c.Name)
	if err != nil {
		return err
	}
	if err := c.tellCopies(a, r); err != nil {
		return err
	}
	var bad []string
	for _, e := range r.Copies {
		if e.State != server.CopyWhole {
			bad = append(bad, e.Name)
		}
	}
	if bad != nil {
		return holdfast.Errorf(holdfast.Unavailable, "copies that are not whole: %s. The hub catches them up while it runs: start it, stop it, and verify again", strings.Join(bad, ", "))
	}
	return nil
}

func (c *keyringVerifyCmd) Left() string {
	return "Nothing was changed, and nothing is known of the copies: run it again, it begins anew"
}
