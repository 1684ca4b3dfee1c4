package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type restoreCmd struct {
	Dir     restoreDirCmd     `cmd:"" name:"folder" default:"withargs" help:"Make a new data folder from a backup."`
	Drill   restoreDrillCmd   `cmd:"" help:"Try a restore in a folder of its own, and report."`
	Confirm restoreConfirmCmd `cmd:"" help:"Let everybody into a restored hub."`
}

func (*restoreCmd) Help() string {
	return `Makes a new data folder from a backup, the newest copy of the keyring and one holder of the root key. docs/backup.md tells the whole way.

Example:
  holdfast restore NEW --from /mnt/backup --identity backup.key --keyring /mnt/keyring --root-key root.key
  holdfast restore drill --from /mnt/backup --identity backup.key --keyring /mnt/keyring --root-key root.key
  holdfast restore confirm --data NEW`
}

// restoreFlags say what a restore is made of.
type restoreFlags struct {
	From       string   `required:"" help:"The folder of backups." placeholder:"DIR" type:"path" env:"-"`
	Snapshot   string   `help:"Which backup (default: the newest)." placeholder:"ID" env:"-"`
	Identity   []string `help:"The age identity that opens it; repeated." placeholder:"FILE" type:"path" sep:"none" env:"-"`
	Keyring    string   `required:"" help:"The newest copy of the keyring: a copy's folder, or keyring in the old data folder." placeholder:"DIR" type:"path" env:"-"`
	RootKey    string   `help:"The root key's file." placeholder:"PATH" type:"path"`
	Passphrase string   `name:"passphrase-file" help:"A file whose first line is the root key's passphrase." placeholder:"FILE"`
	Holder     string   `help:"Instead of a root key file: the URL of any other holder, tpm:... or exec:..." placeholder:"URL" env:"-"`
	Key        string   `help:"The hub's public key, from holdfast ledger show: what signed the backup must be that." placeholder:"KEY" env:"-"`
}

func (f restoreFlags) options(a *app, data string) (c server.Config, o server.RestoreOptions, err error) {
	if f.Holder == "" && f.RootKey == "" {
		return c, o, usagef("give one holder of the root key: --root-key FILE, or --holder URL")
	}
	if f.Holder != "" && f.RootKey != "" {
		return c, o, usagef("--root-key and --holder each name a holder: one is enough")
	}
	c = server.Config{Data: data, RootKey: f.RootKey, Version: version()}
	if c.Passphrase, err = readPassphrase(a.ctx, f.Passphrase); err != nil {
		return c, o, err
	}
	o = server.RestoreOptions{Snapshot: f.Snapshot, Keyring: f.Keyring, Holder: f.Holder, Verifier: f.Key, Progress: meter(a.stderr)}
	if o.Identities, err = readBackupIdentities(a.ctx, f.Identity); err != nil {
		return c, o, err
	}
	o.From, err = backup.ReadFolder(f.From)
	return c, o, err
}

type restoreDirCmd struct {
	Dir string `arg:"" help:"A new folder." type:"path"`
	restoreFlags
	shareFlags
	outputFlags
}

func (*restoreDirCmd) Help() string {
	return `Makes a new data folder. What was erased, withdrawn, revoked or used since the backup is carried out again from the signed take-backs beside the keyring, before
anything listens. The ledger gets a new name. If more may have been taken back than these show, the hub starts suspended: only the administrator that the restore made comes
in, until holdfast restore confirm. If it breaks off, run it again. The old hub must not run any more. If every holder is lost, recovery shares open the keyring, and
--root-key is where the new root key goes.

Example:
  holdfast restore NEW --from /mnt/backup --identity backup.key --keyring /mnt/keyring --root-key root.key
  holdfast restore NEW --from /mnt/backup --identity backup.key --keyring /mnt/keyring --holder "exec:/usr/local/lib/holdfast/hsm --slot 3"
  holdfast restore NEW --from /mnt/backup --identity backup.key --keyring /mnt/keyring --root-key new.key --share A --share B --age-identity notary.key`
}

func (c *restoreDirCmd) Run(a *app) error {
	config, o, err := c.options(a, c.Dir)
	if err != nil {
		return err
	}
	if len(c.Share) > 0 {
		if c.Holder != "" {
			return usagef("shares make a root key file: say where with --root-key, without --holder")
		}
		if o.Shares, err = c.combine(a); err != nil {
			return err
		}
		defer o.Shares.Wipe()
	}
	r, err := server.Restore(a.ctx, config, o)
	endMeter(a.stderr)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	fmt.Fprintf(a.stdout, "Restored backup %s of hub %s: %d readings of %s; %s carried out again.\n", r.Snapshot, r.Hub, r.Readings, many(r.Streams, "stream"), many(int(r.TakenBack), "take-back"))
	tellLost(a, r)
	fmt.Fprintf(a.stdout, "The ledger is now %s. Its public key, for everybody who keeps the old one:\n\n  %s\n\nThe administrator's identity is in %s.\n", r.Ledger, r.Verifier, quoted(r.Admin))
	if !r.Until.IsZero() {
		fmt.Fprintf(a.stdout, "\nThe copy of the keyring has all that was taken back until %s.\n", when(r.Until))
	}
	tellKeys(a, r, c.Dir)
	if r.Deal != "" {
		fmt.Fprintln(a.stdout)
		tellTogether(a, r.Deal)
	}
	tellWaiting(a, r.Waiting)
	if r.Suspended != "" {
		fmt.Fprintf(a.stdout, "\nThe hub starts suspended: %s. Revoke and withdraw again what you know of, then stop it and\n\n  holdfast restore confirm --data %s\n", r.Suspended, quoted(c.Dir))
	}
	return nil
}

func (c *restoreDirCmd) Left() string {
	return server.RestoreLeft(c.Dir)
}

// tellKeys says what became of the other holders and of the copies of the keyring.
func tellKeys(a *app, r server.Restored, dir string) {
	for _, name := range r.Fenced {
		fmt.Fprintf(a.stdout, "\nHolder %s is fenced. While the hub is stopped, as it is now, bring it back, or have somebody answer for what it held:\n\n  holdfast holder return %[1]s --data %[2]s\n  holdfast holder remove %[1]s --vouch WHO --data %[2]s\n", name, quoted(dir))
	}
	for _, c := range r.Copies {
		switch {
		case c.Why == "":
			fmt.Fprintf(a.stdout, "\nThe copy of the keyring %s (%s) is kept in step again.\n", c.Name, cell(c.URL))
		case c.Registered:
			fmt.Fprintf(a.stdout, "\nThe copy of the keyring %s (%s) is late: %s. It is caught up when it can be reached; if it is gone for good:\n\n  holdfast keyring remove-copy %[1]s --data %[4]s\n", c.Name, cell(c.URL), cell(c.Why), quoted(dir))
		default:
			fmt.Fprintf(a.stdout, "\nThe copy of the keyring %s (%s) is NOT kept any more: %s. Add it again before you start the hub, or another:\n\n  holdfast keyring add-copy %[4]s --name %[1]s --data %[5]s\n", c.Name, cell(c.URL), cell(c.Why), quoted(c.URL), quoted(dir))
		}
	}
	if r.Unread > 0 {
		fmt.Fprintf(a.stdout, "\nOf the folder %s can't be read, for other recipients or damaged: certificates of erasure reckon with the time that the others are kept.\n", many(r.Unread, "backup"))
	}
}

func tellWaiting(a *app, all []server.Waits) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(a.stdout, "\n%s, and can be undone once more for the whole time that was asked for:\n\n", map[bool]string{true: "An erasure waits", false: many(len(all), "erasure") + " wait"}[len(all) == 1])
	for _, w := range all {
		fmt.Fprintf(a.stdout, "  %s begins %s\n", w.Erasure, when(w.Until))
	}
}

func tellLost(a *app, r server.Restored) {
	chunks := 0
	for _, l := range r.Lost {
		chunks += l.Chunks
	}
	if chunks > 0 {
		fmt.Fprintf(a.stdout, "Of %s, %s can't be opened: erased, or sealed again in an erasure, since the backup.\n", many(len(r.Lost), "stream"), many(chunks, "chunk"))
	}
}

type restoreDrillCmd struct {
	Scratch string `help:"Where the folder is made that goes when it ends; it takes as much room as the hub's (default: the system's)." placeholder:"DIR" type:"path" env:"-"`
	Data    string `help:"Tell the hub of this data folder, if it runs, that it ended well." placeholder:"DIR" type:"path"`
	restoreFlags
	outputFlags
}

func (*restoreDrillCmd) Help() string {
	return `Restores a backup into a folder of its own, opens it without serving anybody, decodes every reading, compares their number with the backup's, carries
the take-backs beside the keyring out again, computes the ledger anew, reports, and removes the folder. The hub may run: its root key is asked to open and for nothing else. With --data the hub, if it runs, is told that it ended well.

Example:
  holdfast restore drill --from /mnt/backup --identity backup.key --keyring /mnt/safe/keyring --root-key root.key --data DATA`
}

func (c *restoreDrillCmd) Run(a *app) error {
	config, o, err := c.options(a, c.Scratch)
	if err != nil {
		return err
	}
	r, err := server.Drill(a.ctx, config, o)
	endMeter(a.stderr)
	if err != nil {
		return err
	}
	if err := c.print(a, r, []string{"BACKUP", "READINGS", "STREAMS", "CHUNKS", "LOST", "DIFFERENT", "TOOK"}, [][]string{{r.Snapshot, strconv.FormatInt(r.Readings, 10), strconv.Itoa(r.Streams),
		strconv.Itoa(r.Chunks), strconv.Itoa(len(r.Lost)), strconv.Itoa(len(r.Different)), r.Took.Round(time.Millisecond).String()}}); err != nil {
		return err
	}
	if r.Suspended != "" && !c.json() {
		fmt.Fprintf(a.stdout, "A hub restored from these starts suspended: %s.\n", r.Suspended)
	}
	if len(r.Different) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "%s not the readings that the backup says", many(len(r.Different), "stream"))
	}
	if c.Data == "" {
		return nil
	}
	if _, err := readRunning(c.Data); holdfast.KindOf(err) == holdfast.Unavailable {
		fmt.Fprintf(a.stderr, "The hub of %s does not run: it does not know of this drill. All is there.\n", quoted(c.Data))
		return nil
	}
	if err := c.tell(a); err != nil {
		return fmt.Errorf("all is there, and the hub was not told of it: %w", err)
	}
	return nil
}

func (c *restoreDrillCmd) Left() string {
	return "Nothing is known of the backup. Run it again: it clears what this one may have left of its own folder"
}

// tell has the hub keep when a drill ended well.
func (c *restoreDrillCmd) tell(a *app) error {
	hub, err := (&hubFlags{Data: c.Data}).connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	return hub.Do(a.ctx, http.MethodPost, "/v1/backups/drills", map[string]time.Time{"at": time.Now().UTC()}, nil)
}

type restoreConfirmCmd struct {
	Data       string `required:"" help:"The data folder of the restored hub, which is stopped." placeholder:"DIR" type:"path"`
	RootKey    string `help:"Where the root key is (default: where the restore was told)." placeholder:"PATH" type:"path"`
	Passphrase string `name:"passphrase-file" help:"A file whose first line is the root key's passphrase." placeholder:"FILE"`
	outputFlags
}

func (*restoreConfirmCmd) Help() string {
	return `Says that what was revoked, withdrawn and erased since the backup is known to the restored hub. From its next start on everybody is let in again. Erasures that
wait can be undone for their whole time again, counted from now; it says which. It stands on the hub's record.

Example:
  holdfast restore confirm --data NEW`
}

func (c *restoreConfirmCmd) Left() string {
	return "Run it again: it says so if the hub was confirmed"
}

func (c *restoreConfirmCmd) Run(a *app) error {
	pass, err := readPassphrase(a.ctx, c.Passphrase)
	if err != nil {
		return err
	}
	done, err := server.ConfirmRestore(a.ctx, server.Config{Data: c.Data, RootKey: c.RootKey, Passphrase: pass, Version: version()})
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, done)
	}
	fmt.Fprintf(a.stdout, "Confirmed. Start the hub: holdfast serve --data %s\n", quoted(c.Data))
	tellWaiting(a, done.Waiting)
	return nil
}
