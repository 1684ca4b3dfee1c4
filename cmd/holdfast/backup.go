package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/backup"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type backupCmd struct {
	Take  backupTakeCmd  `cmd:"" default:"withargs" help:"Make a backup, or add to it what is new."`
	List  backupListCmd  `cmd:"" help:"List the backups of a folder."`
	Check backupCheckCmd `cmd:"" help:"Read a backup and see that it is whole and unaltered."`
	Prune backupPruneCmd `cmd:"" help:"Remove old backups, and what only they need."`
}

func (*backupCmd) Help() string {
	return `Copies a hub, running or not, into a folder: what is new since the last time, encrypted to recipients of age. Neither the root key nor the keyring is in it: these
are kept elsewhere. docs/backup.md tells what to keep where, and how to restore.

Example:
  age-keygen -o backup.key                       # elsewhere than on the hub; it prints the recipient
  holdfast backup /mnt/backup --recipient age1... --data DATA
  holdfast backup list /mnt/backup
  holdfast backup check /mnt/backup --identity backup.key
  holdfast backup prune /mnt/backup --keep 35d`
}

type backupTakeCmd struct {
	Dir            string   `arg:"" help:"The folder of this hub's backups; made if it is not there." type:"path"`
	Recipient      []string `help:"Whom it is encrypted to, as age1...; repeated." placeholder:"AGE1..." sep:","`
	RecipientsFile []string `help:"A file with a recipient on each line; repeated." placeholder:"FILE" type:"path" sep:"none"`
	Keep           string   `default:"35d" help:"How long you keep it: the hub tells whoever is erased by when the last copy of his ciphertext is gone." placeholder:"TIME"`
	Rate           string   `help:"Fetch at most so much a second, as 20M." placeholder:"BYTES"`
	RootKey        string   `help:"Of a hub that does not run: where the root key is (default: where init put it)." placeholder:"PATH" type:"path"`
	Passphrase     string   `name:"passphrase-file" help:"A file whose first line is the root key's passphrase." placeholder:"FILE"`
	hubFlags
	outputFlags
}

func (*backupTakeCmd) Help() string {
	return `Makes a backup of a hub that serves, asked over HTTPS as an administrator, or of the stopped hub of a data folder. What is in the folder already is not fetched
again. If it breaks off, run it again: it goes on where it was, and the folder stays as good as before. It exits 0 if the backup is whole, 1 if there is none, 2 if it was called
wrongly; on a terminal it says how far it is.

Example:
  holdfast backup /mnt/backup --recipient age1... --data DATA
  holdfast backup /mnt/backup --recipients-file who.txt --token admin.token --hub https://HOST:8443 --rate 20M`
}

func (c *backupTakeCmd) Run(a *app) error {
	keep, err := daysOrTime(c.Keep)
	if err != nil {
		return usagef("--keep is a time like 35d")
	}
	rate, err := bytesOf(c.Rate)
	if err != nil || rate > 0 && rate < leastRate {
		return usagef("--rate is a number of bytes like 20M, 64K at least")
	}
	to, err := readRecipients(a.ctx, c.Recipient, c.RecipientsFile)
	if err != nil {
		return err
	}
	f, err := backup.OpenFolder(c.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	o := backup.TakeOptions{Keep: keep, Rate: rate, Progress: meter(a.stderr)}
	if o.Progress != nil {
		fmt.Fprint(a.stderr, "The hub copies its catalog ...")
	}
	r, err := c.take(a, f, to, o)
	endMeter(a.stderr)
	if err != nil {
		return err
	}
	// What no keyring opens is no backup yet: who prunes only after a good one keeps those
	// of before.
	whole := r.Statement.Keyring != backup.CopiesLate || len(r.Statement.KeyringCopies) > 0
	if !whole {
		err = holdfast.Errorf(holdfast.Unavailable, "backup %s is whole, and no copy of the keyring has all owner keys that it needs: mend one (holdfast keyring show --data DATA), and back up again before you prune", r.Snapshot)
	}
	if c.json() {
		return errors.Join(printJSON(a.stdout, struct {
			backup.Report
			Complete bool `json:"complete"`
		}{r, whole}), err)
	}
	st := r.Statement
	fmt.Fprintf(a.stdout, "Backup %s: %d readings of %s, %s in %s; new: %s in %s (%s).\n", r.Snapshot, st.Readings, many(st.Streams, "stream"),
		sizeText(r.Bytes), many(r.Pieces, "piece"), sizeText(r.Written), many(r.New, "piece"), r.Took.Round(10*time.Millisecond))
	fmt.Fprintf(a.stdout, "It opens with the age identity, and is of use only with the root key of the hub and a keyring of now or later.\n")
	if whole && len(st.KeyringCopies) == 0 {
		fmt.Fprintf(a.stdout, "The only keyring is in the data folder: if that is lost, so is what this backup holds.\n")
	}
	return err
}

func (c *backupTakeCmd) Left() string {
	return "No new backup was made; those in " + quoted(c.Dir) + " are as good as before. Run it again: it goes on with the pieces that are there"
}

func (c *backupTakeCmd) take(a *app, f *backup.Folder, to backup.Recipients, o backup.TakeOptions) (backup.Report, error) {
	if c.Data != "" && c.Hub == "" {
		if _, err := readRunning(c.Data); holdfast.KindOf(err) == holdfast.Unavailable {
			pass, err := readPassphrase(a.ctx, c.Passphrase)
			if err != nil {
				return backup.Report{}, err
			}
			return server.BackupStopped(a.ctx, server.Config{Data: c.Data, RootKey: c.RootKey, Passphrase: pass, Version: version()}, f, to, o)
		}
	}
	hub, err := c.connect(a)
	if err != nil {
		return backup.Report{}, err
	}
	defer hub.Close()
	return backup.Take(a.ctx, remoteHub{hub}, f, to, o)
}

// remoteHub is a hub that is backed up over HTTPS.
type remoteHub struct{ *client.Client }

func (h remoteHub) Begin(ctx context.Context, keep time.Duration) (p backup.Plan, err error) {
	body, _, err := h.Stream(ctx, http.MethodPost, "/v1/backups", nil, map[string]int64{"keep": int64(keep / time.Second)})
	if err != nil {
		return p, err
	}
	defer body.Close()
	return backup.ReadPlan(body)
}

func (h remoteHub) Parts(ctx context.Context, plan string, n, count int, w io.Writer) error {
	body, _, err := h.Stream(ctx, http.MethodGet, fmt.Sprintf("%s/pieces/%d", named("/v1/backups", plan), n), url.Values{"count": {strconv.Itoa(count)}}, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

func (h remoteHub) Finish(ctx context.Context, plan string, d backup.Done) ([]byte, error) {
	var out api.FinishedBackup
	err := h.Do(ctx, http.MethodPost, named("/v1/backups", plan)+"/finish", d, &out)
	return []byte(out.Statement), err
}

type backupListCmd struct {
	Dir      string   `arg:"" help:"The folder of backups." type:"path"`
	Identity []string `help:"An age identity that opens them, to see what is in them; repeated." placeholder:"FILE" type:"path" sep:"none" env:"-"`
	outputFlags
}

func (*backupListCmd) Help() string {
	return `Lists the backups that are whole, the newest first. With an identity it says what is in each, and that its manifest is signed.

Example:
  holdfast backup list /mnt/backup --identity backup.key`
}

type listedBackup struct {
	backup.Snapshot
	Statement *backup.Statement `json:"statement,omitempty"`
	Problem   string            `json:"problem,omitempty"`
}

func (c *backupListCmd) Run(a *app) error {
	ids, err := readIdentities(a.ctx, c.Identity)
	if err != nil {
		return err
	}
	f, err := backup.ReadFolder(c.Dir)
	if err != nil {
		return err
	}
	found, err := f.Snapshots()
	if err != nil {
		return err
	}
	all, rows := make([]listedBackup, len(found)), make([][]string, len(found))
	for i, s := range found {
		all[i].Snapshot = s
		rows[i] = []string{s.ID, when(s.At)}
		if len(c.Identity) == 0 {
			continue
		}
		rows[i] = append(rows[i], "", "", "", "")
		r, err := f.Open(s.ID, ids, "")
		if err != nil {
			all[i].Problem = err.Error()
			rows[i][5] = err.Error()
			continue
		}
		st := &r.Statement
		all[i].Statement = st
		rows[i] = []string{s.ID, when(s.At), sizeText(st.Bytes), strconv.FormatInt(st.Readings, 10), strconv.Itoa(st.Owners.Owners), "whole"}
	}
	if len(c.Identity) > 0 || c.json() {
		return c.print(a, all, []string{"BACKUP", "AT", "SIZE", "READINGS", "OWNER KEYS", "STATE"}, rows)
	}
	if err := printTable(a.stdout, []string{"BACKUP", "AT"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "With --identity FILE it says what is in each.")
	return nil
}

func (c *backupListCmd) Left() string {
	return "Nothing was changed"
}

type backupCheckCmd struct {
	Dir      string   `arg:"" help:"The folder of backups." type:"path"`
	Snapshot string   `help:"Which backup (default: the newest)." placeholder:"ID" env:"-"`
	Identity []string `help:"The age identity that opens it; repeated." placeholder:"FILE" type:"path" sep:"none" env:"-"`
	Key      string   `help:"The hub's public key, from holdfast ledger show; else the one that is in there, to compare by hand." placeholder:"KEY" env:"-"`
	outputFlags
}

func (*backupCheckCmd) Help() string {
	return `Reads every piece of a backup, decrypts it and compares it with what the hub signed. Neither the hub nor its keys are needed; what is in the backup stays
sealed. Whether it can be restored with the keys that you keep is what holdfast restore drill tells. It exits 0 if all is whole, 1 if anything is missing or altered.

Example:
  holdfast backup check /mnt/backup --identity backup.key`
}

func (c *backupCheckCmd) Left() string {
	return "Nothing was changed, and nothing is known of the backup: run it again, it begins anew"
}

func (c *backupCheckCmd) Run(a *app) error {
	ids, err := readBackupIdentities(a.ctx, c.Identity)
	if err != nil {
		return err
	}
	f, err := backup.ReadFolder(c.Dir)
	if err != nil {
		return err
	}
	r, err := f.Open(c.Snapshot, ids, c.Key)
	if err != nil {
		return err
	}
	done, err := r.Check(a.ctx, meter(a.stderr))
	endMeter(a.stderr)
	if err != nil {
		return err
	}
	if c.json() { // which also says what is wrong
		err = printJSON(a.stdout, done)
	} else if len(done.Bad) == 0 {
		fmt.Fprintf(a.stdout, "Backup %s of hub %s is whole: %s, %s, signed by\n\n  %s\n", done.Snapshot, done.Statement.Hub, many(done.Pieces, "piece"), sizeText(done.Bytes), done.Statement.Verifier)
	}
	if err == nil && len(done.Bad) > 0 {
		return holdfast.Errorf(holdfast.Invalid, "backup %s is not whole: %s:\n  %s\nRemove what is altered from %s and back up again: what the hub still has is written anew", done.Snapshot, many(done.BadPieces, "piece"),
			strings.Join(done.Bad[:min(20, len(done.Bad))], "\n  "), quoted(filepath.Join(c.Dir, "pieces")))
	}
	return err
}

type backupPruneCmd struct {
	Dir    string `arg:"" help:"The folder of backups." type:"path"`
	Keep   string `default:"35d" help:"Remove those that are older." placeholder:"TIME"`
	DryRun bool   `help:"Only say what would be removed." env:"-"`
	outputFlags
}

func (*backupPruneCmd) Help() string {
	return `Removes backups that are older than a time, but never the newest, and then the pieces that no backup needs. It needs no key. What the hub says of when the
last ciphertext of somebody who was erased is gone holds only if this is run. One that breaks off is gone on with by the next.

Example:
  holdfast backup prune /mnt/backup --keep 35d --dry-run
  holdfast backup prune /mnt/backup --keep 35d`
}

func (c *backupPruneCmd) Left() string {
	return "Each backup that is kept is whole, and the newest is. Run it again: it does the rest"
}

func (c *backupPruneCmd) Run(a *app) error {
	keep, err := daysOrTime(c.Keep)
	if err != nil {
		return usagef("--keep is a time like 35d")
	}
	if _, err := backup.ReadFolder(c.Dir); err != nil {
		return err
	}
	f, err := backup.OpenFolder(c.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := f.Prune(a.ctx, keep, time.Now(), backup.PruneOptions{Dry: c.DryRun, Progress: meter(a.stderr)})
	endMeter(a.stderr)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, p)
	}
	what := "Removed"
	if c.DryRun {
		what = "Would be removed"
	}
	_, err = fmt.Fprintf(a.stdout, "%s: %s, %s with %s. Kept: %s.\n", what, many(len(p.Snapshots), "backup"), many(p.Pieces, "piece"), sizeText(p.Bytes), many(p.Kept, "backup"))
	return err
}

// leastRate is slow enough for any line, and fast enough for a hub, which waits a
// minute for whoever does not read what he asked for.
const leastRate = 64 << 10

// daysOrTime reads 35d or 12h.
func daysOrTime(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 1 || n > 36500 {
			return 0, usagef("not a number of days")
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(text)
}

var sizes = regexp.MustCompile(`^([0-9]{1,12})([kKMG]?)$`)

// bytesOf reads 20M; nothing is 0.
func bytesOf(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	m := sizes.FindStringSubmatch(text)
	if m == nil {
		return 0, usagef("not a number of bytes")
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n << map[string]int{"": 0, "k": 10, "K": 10, "M": 20, "G": 30}[m[2]], err
}

// sizeText writes a number of bytes for a person.
func sizeText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// meter shows how far a run is and how fast, a few times a second, where somebody
// looks.
func meter(w io.Writer) func(backup.Progress) {
	if !isTerminal(w) {
		return nil
	}
	var mu sync.Mutex
	began := time.Now()
	var last time.Time
	return func(p backup.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < 200*time.Millisecond {
			return
		}
		last = time.Now()
		fmt.Fprint(w, "\r"+meterText(p, last.Sub(began))+"\x1b[K")
	}
}

// meterText is a line of the meter after a time.
func meterText(p backup.Progress, after time.Duration) string {
	if p.Total == 0 {
		return fmt.Sprintf("%s, %s", sizeText(p.Bytes), many(p.Pieces, "piece"))
	}
	text := fmt.Sprintf("%s of %s, piece %d of %d", sizeText(p.Bytes), sizeText(p.Total), p.Pieces, p.Of)
	if p.Written > 0 {
		text += ", new: " + sizeText(p.Written)
	}
	if left := p.Total - p.Bytes; after >= 2*time.Second && p.Bytes > 0 && left > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(float64(after)/float64(p.Bytes)*float64(left)).Round(time.Second))
	}
	return text
}

func endMeter(w io.Writer) {
	if isTerminal(w) {
		fmt.Fprintln(w)
	}
}
