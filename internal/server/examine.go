package server

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// Thresholds of the doctor.
const (
	scarceDisk    = 1 << 30
	scarcePart    = 0.1
	plentyOfDisk  = 20 << 30            // is enough, whatever part of the disk it is
	soon          = 30 * 24 * time.Hour // a person has to do something by then
	clockError    = time.Second         // that the kernel admits
	filesAhead    = 5 * time.Minute     // times of the hub's own files
	namedAtMost   = 10                  // devices and credentials of one finding
	fewFiles      = 4096
	littleMemory  = 128 << 20
	slowSync      = 50 * time.Millisecond
	enoughSyncs   = 20
	longQueue     = 8 << 20
	slackOfClock  = time.Second
	deepTail      = 256 << 20 // bytes of journal not rolled
	oldTail       = 3 * time.Hour
	rollsFail     = time.Minute
	lateExpiry    = 50 * time.Hour // the daily run of retention is overdue
	lateErasure   = time.Minute
	latePurge     = 24 * time.Hour
	lateTicks     = 3 // of the ledger
	renewedByThen = 7 * 24 * time.Hour
	endedLately   = 400 * 24 * time.Hour // older ones are nobody's worry
	usedLately    = 14                   // days
)

// examination gathers findings. What it asks of a data folder holds whether the hub
// runs or not.
type examination struct {
	host host
	data string
	now  time.Time
	out  []api.Finding
}

func examine(h host, data string) *examination {
	if whole, err := filepath.Abs(data); err == nil {
		data = whole // what is printed holds wherever it is typed
	}
	return &examination{host: h, data: data, now: h.Now()}
}

func (x *examination) add(id, what, mend string) { x.since(id, time.Time{}, what, mend) }

func (x *examination) since(id string, since time.Time, what, mend string) {
	x.out = append(x.out, api.Finding{ID: id, Level: ailments[rank(id)].level, What: what, Mend: mend, Since: since.UTC().Truncate(time.Second)})
}

// findings returns them, the most urgent first.
func (x *examination) findings() []api.Finding {
	slices.SortStableFunc(x.out, func(a, b api.Finding) int { return cmp.Compare(rank(a.ID), rank(b.ID)) })
	return x.out
}

// disk looks at the disk of the data folder.
func (x *examination) disk() {
	d, err := x.host.Disk(x.data)
	if err != nil {
		return
	}
	if d.Free < scarceDisk || d.Free < plentyOfDisk && float64(d.Free) < scarcePart*float64(d.Size) {
		x.add("disk-space", fmt.Sprintf("%d MiB are free on the disk of the data folder, of %d", d.Free>>20, d.Size>>20),
			"free space or enlarge the disk (df -h "+x.data+"): when it is full, readings are no longer acknowledged")
	}
	if d.Nodes > 0 && float64(d.FreeNodes) < scarcePart/2*float64(d.Nodes) {
		x.add("disk-files", fmt.Sprintf("the disk of the data folder can hold only %d more files", d.FreeNodes),
			"delete files that other programs left there (df -i "+x.data+"), or make the file system anew with more inodes")
	}
	switch d.Sort {
	case diskVolatile:
		x.add("disk-volatile", "the data folder lies in memory ("+d.Kind+"): it is gone when the machine goes off", "stop the hub and move the folder to a disk: cp -a "+x.data+" NEW")
	case diskLayered:
		x.add("disk-layered", "the data folder lies in the layer of a container ("+d.Kind+"): it goes with the container", "stop the hub, move the folder to a volume, and mount that")
	case diskRemote:
		x.add("disk-remote", "the data folder lies on a network or shared file system ("+d.Kind+"): what it calls durable and locked, another machine must keep",
			"move the folder to a local disk: cp -a "+x.data+" NEW, with the hub stopped")
	}
	x.rights()
}

// rights looks at who may read the data folder.
func (x *examination) rights() {
	if o, err := x.host.Stat(x.data); err == nil && o.Mode.Perm()&0o077 != 0 {
		x.add("data-readable", fmt.Sprintf("others than the hub's user may enter the data folder (mode %04o): the first administrator's key is in it", o.Mode.Perm()), "chmod 700 "+x.data)
	}
	if _, err := os.Stat(filepath.Join(x.data, adminDir, "key.pem")); err == nil {
		x.add("administrator-in-data", "the first administrator's key lies in the data folder: whoever copies the folder may act as him",
			"move "+filepath.Join(x.data, adminDir)+" to where administrators work, and name it with --identity; commands with --data need it where it is")
	}
}

// keyFile is a file that holds the root key.
type keyFile struct {
	name, path string // of the holder
	protected  bool
	alone      bool   // no other holds it
	other      string // a holder that was seen to answer, if there is one
	silent     error  // why this one does not answer, as far as is known
}

// rootKey looks at a file that holds the root key.
func (x *examination) rootKey(k keyFile) {
	name, path, protected := k.name, k.path, k.protected
	o, err := x.host.Stat(path)
	if gone := errors.Is(err, fs.ErrNotExist); gone || k.silent != nil {
		x.silent(k, gone)
		return
	} else if err != nil {
		return
	}
	if o.Mode.Perm()&0o077 != 0 {
		x.add("root-key-readable", fmt.Sprintf("others may read the root key (mode %04o)", o.Mode.Perm()), "chmod 600 "+path)
	}
	if dir, err := x.host.Stat(filepath.Dir(path)); err == nil {
		if dir.Mode.Perm()&0o200 == 0 {
			x.add("root-key-fixed", "the folder of the root key can't be written: no erasure comes to its end", "chmod 700 "+filepath.Dir(path))
		} else if dir.Mode.Perm()&0o022 != 0 && dir.Mode&fs.ModeSticky == 0 {
			x.add("root-key-readable", fmt.Sprintf("others may replace the root key (mode %04o of its folder)", dir.Mode.Perm()), "chmod 700 "+filepath.Dir(path))
		}
	}
	if data, err := x.host.Stat(x.data); err == nil {
		if data.Device == o.Device {
			x.add("root-key-same-disk", "the root key lies on the disk of the data folder: whoever takes the disk has both",
				x.move(name, path))
		}
		if data.UID != o.UID {
			x.add("root-key-owner", "the root key and the data folder have different owners", fmt.Sprintf("chown --reference=%s %s", x.data, path))
		}
	}
	if !protected {
		x.add("root-key-no-passphrase", "the root key file has no passphrase", "keep the file on an encrypted volume; a passphrase is given when a hub is made: holdfast init --passphrase-file")
	}
}

// silent says what it means that a root key file is not the one that was there.
func (x *examination) silent(k keyFile, gone bool) {
	what := "there is no root key of holder " + k.name + " at " + k.path
	if !gone {
		what = "the root key of holder " + k.name + " does not answer: " + k.silent.Error()
	}
	const put = "mount its disk, or put the same file back, and never an older copy over a newer file"
	switch {
	case k.other != "":
		x.add("root-key-missing", what+". No erasure is carried out, and the hub does not start again without it, but holder "+k.other+" opens everything",
			put+"; if it is lost, stop the hub and holdfast holder fence "+k.name+" --data "+x.data)
	case k.alone:
		x.add("root-key-missing", what+". Without it the hub does not start again and nothing can be read",
			put+", before anything else; a hub that still runs must not be stopped before that")
	default:
		x.add("root-key-missing", what+". No other holder is seen to answer either (programs are not asked here): without one of them the hub does not start again and nothing can be read",
			put+", before anything else; a hub that still runs must not be stopped, and no holder fenced, before one answers: holdfast holder list --data "+x.data+" asks those of a stopped hub")
	}
}

// move says how a root key file gets to another place. Only that of the first holder is
// named to serve; of another the keyring knows the place.
func (x *examination) move(name, path string) string {
	if name == rootKeyHolder {
		return "stop the hub, mv " + path + " to another disk, and name the new place with serve --root-key"
	}
	return "stop the hub, holdfast holder add file:/OTHER-DISK/root.key --name NEW --data " + x.data + ", then holdfast holder remove " + name + " --data " + x.data
}

// tpm looks at what a TPM that holds the root key answered.
func (x *examination) tpm(name string, s tpmholder.Status, err error) {
	switch {
	case err != nil:
		x.add("tpm-silent", "the TPM of holder "+name+" does not do its part, and no erasure is carried out without it: "+err.Error(),
			"mend it; if it is lost, stop the hub and holdfast holder fence "+name+" --data "+x.data)
	case s.Ahead:
		x.add("tpm-counter-ahead", fmt.Sprintf("the counter of the TPM of holder %s stands at %d, which is more than the hub asked for: somebody else increments it, or its state file is an older copy. If no newer root key is sealed there, this holder opens nothing any more", name, s.Counter),
			"stop the hub and ask it: holdfast holder list --data "+x.data+"; if it fails, holder fence "+name+", then add a TPM with another index=")
	}
}

// holders looks at who holds the root key.
func (x *examination) holders(k keys) {
	live := 0
	disks := map[uint64]string{}
	for _, h := range k.Holders {
		if !h.FencedAt.IsZero() {
			x.since("holder-fenced", h.FencedAt, "holder "+h.Name+" of the root key is not asked any more: every certificate since names it as pending",
				"bring it back: stop the hub, holdfast holder return "+h.Name+" --data "+x.data+"; if it is gone for good: holdfast holder remove "+h.Name+" --vouch WHO --data "+x.data)
			continue
		}
		live++
		if h.Vouch != "" {
			x.add("holder-vouched", "the grade purge of holder "+h.Name+" stands on the word of a person, who is named in certificates", "nothing to do as long as that person answers for it")
		}
		u, err := parseHolder(h.URL)
		if err != nil || u.scheme != schemeFile {
			continue
		}
		if o, err := x.host.Stat(u.path); err == nil {
			if other, same := disks[o.Device]; same {
				x.add("holders-same-disk", "the holders "+other+" and "+h.Name+" of the root key lie on one disk: they are lost together",
					"stop the hub, holdfast holder remove "+h.Name+" --data "+x.data+", and add one on another disk or machine")
			}
			disks[o.Device] = h.Name
		}
	}
	if live < 2 {
		x.add("root-key-one-holder", "one holder has the root key: if it is lost, all data are",
			"stop the hub and add a second one in another place: holdfast holder add file:/OTHER-DISK/root.key --name second --data "+x.data)
	}
}

// copies looks at where the keyring is, and, of a hub that runs, at how its copies
// fare.
func (x *examination) copies(k keys, states []vault.CopyState) {
	if len(k.Copies) == 0 {
		x.add("copy-none", "the keyring is in the data folder alone: a backup is of no use without one, and what was taken back since is not known to a restore",
			"stop the hub, holdfast keyring add-copy file:/OTHER-DISK/keyring --name NAME --data "+x.data)
	}
	own, err := x.host.Stat(x.data)
	for _, e := range k.Copies {
		dir := strings.TrimPrefix(e.URL, schemeFile+":")
		if o, cerr := x.host.Stat(dir); err == nil && cerr == nil && o.Device == own.Device {
			x.add("copy-same-disk", "the copy "+e.Name+" of the keyring lies on the disk of the data folder: they are lost together",
				"stop the hub, holdfast keyring remove-copy "+e.Name+" --data "+x.data+", and add one on another disk or machine")
		}
	}
	for _, s := range states {
		switch {
		case s.Ahead:
			x.since("copy-late", s.Since, "the copy "+s.Name+" of the keyring gets nothing new: "+s.Reason,
				"stop the other hub, if one runs; then holdfast restore from this copy, or stop this hub, holdfast keyring remove-copy "+s.Name+" --data "+x.data+", and holdfast keyring add-copy into a new folder")
		case s.Late:
			x.since("copy-late", s.Since, "the copy "+s.Name+" of the keyring lacks what is new: "+s.Reason,
				"it is tried again each 10 s; look at its disk, its mount and its rights, or stop the hub and holdfast keyring remove-copy "+s.Name+" --data "+x.data)
		}
	}
}

// clock looks at the machine's clock.
func (x *examination) clock() {
	if k, known := x.host.Clock(); known {
		switch {
		case !k.Synchronised:
			x.add("clock-unsynchronised", "nobody keeps this machine's clock right: the kernel knows of no time server",
				"timedatectl set-ntp true, or install chrony; in a container: on the machine that it runs on")
		case k.Error > clockError:
			x.add("clock-unsynchronised", fmt.Sprintf("this machine's clock may be wrong by %s: its time server has not been heard for long", k.Error.Round(100*time.Millisecond)),
				"chronyc tracking, or timedatectl timesync-status, says what its server does")
		}
	}
}

// fileTimes compares the clock with what the hub wrote last: a clock that was set
// back while it was stopped.
func (x *examination) fileTimes() {
	for _, name := range []string{ledgerFile, runFile, catalogDir + "/catalog.db"} {
		o, err := x.host.Stat(filepath.Join(x.data, name))
		if err != nil {
			continue
		}
		if ahead := o.Time.Sub(x.now); ahead > filesAhead {
			x.add("clock-set-back", fmt.Sprintf("%s was written %s in the future: the system's clock was set back", name, ahead.Round(time.Second)), "set the clock right and keep it so (timedatectl set-ntp true)")
			return
		}
	}
}

// limits looks at what the process may have.
func (x *examination) limits() {
	if n := x.host.Files(); n < fewFiles {
		x.add("open-files", fmt.Sprintf("the hub may have %d files open, connections included", n), "LimitNOFILE=65536 in the service's unit, or ulimit -n 65536 before serve")
	}
	limit, group := x.host.Memory()
	switch {
	case limit > 0 && limit < littleMemory || group > 0 && group < littleMemory:
		x.add("memory-small", fmt.Sprintf("the hub may take %d MiB of memory", min(cmp.Or(limit, group), cmp.Or(group, limit))>>20), "MemoryMax=512M in the service's unit, or GOMEMLIMIT=384MiB")
	case limit == 0 && group == 0:
		x.add("memory-unlimited", "nothing bounds the hub's memory: beside other programs a storm of connections takes what there is", "MemoryMax=512M in the service's unit, or GOMEMLIMIT=384MiB")
	}
}

// secrecy looks at how keys may get out of memory.
func (x *examination) secrecy() error {
	s, err := x.host.Secret()
	if err != nil {
		return err
	}
	if s.Dumps {
		x.add("memory-dumped", "the system may write the hub's memory, with its keys, to a disk when it crashes", "LimitCORE=0 in the service's unit, or ulimit -c 0 before serve; the log of the start says why the hub could not turn it off itself")
	}
	if len(s.Swaps) > 0 {
		x.add("memory-swapped", fmt.Sprintf("the system swaps to %s, which is not encrypted as far as can be told: keys may get there, and outlive their destruction", strings.Join(s.Swaps, ", ")),
			"MemorySwapMax=0 in the service's unit, or no swap (swapoff -a), or an encrypted one")
	}
	if s.Keeps {
		x.add("memory-keeps-keys", "this build does not overwrite in memory what it derived from a destroyed key: it goes when the memory is used again", "a release of Holdfast, or a build by the version of Go that its go.mod names")
	}
	return nil
}

// upgrade looks at which version the folder is for.
func (x *examination) upgrade() {
	r, _, err := readRelease(osFolder(x.data), x.data)
	switch {
	case holdfast.KindOf(err) == holdfast.Conflict:
		x.add("folder-newer", err.Error(), "start the newer holdfast, or go back with that one: holdfast upgrade --data "+x.data+" --back")
	case err != nil:
		x.add("folder-damaged", err.Error(), "put back an undamaged copy of that file, or remove it")
	case r.From != nil:
		x.since("upgrade-unconfirmed", r.From.At, fmt.Sprintf("the upgrade from %s is not confirmed: what leads back is still kept", r.From.Version),
			"when all is well: holdfast upgrade --data "+x.data+" --confirm; else stop the hub and use --back")
	}
}

// messages looks at what does not get out.
func (x *examination) messages(t outbox.Trouble) {
	if t.Mail.Times > 0 {
		x.since("mail-failing", t.Mail.Since, fmt.Sprintf("the mail server has not taken the last %d messages", t.Mail.Times), "look for outbox in the log; check the settings of mail of serve")
	}
	if len(t.Webhooks) > 0 {
		x.add("webhooks-failing", fmt.Sprintf("%s not taken the last message: %s", plural(len(t.Webhooks), "a webhook has", "%d webhooks have"), list(t.Webhooks)), "tell whose they are; they are tried again by themselves")
	}
	if t.Disabled > 0 {
		x.add("webhooks-disabled", plural(t.Disabled, "a webhook said that it is gone, and gets nothing any more", "%d webhooks said that they are gone, and get nothing any more"), "their owners make new ones, or remove them")
	}
	if t.Dead > 0 {
		x.add("messages-given-up", plural(t.Dead, "a message was given up within the last days", "%d messages were given up within the last days"), "mend the mail server or the webhook; then their owners send them again")
	}
}

// interrupted looks for what an init left that did not end.
func (x *examination) interrupted() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(x.data), "."+filepath.Base(x.data)+".init-*"))
	if len(left) > 0 {
		x.add("init-interrupted", fmt.Sprintf("%d folders of an interrupted init lie beside the data folder", len(left)), "rm -r "+strings.Join(left, " "))
	}
}

// certificateIn reads a certificate's file; nil if there is none that can be read.
func certificateIn(path string) *x509.Certificate {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

// authority looks at the hub's own authority.
func (x *examination) authority(notAfter time.Time) {
	if left := notAfter.Sub(x.now); left < 12*soon {
		x.add("authority-ends", "the hub's authority ends on "+notAfter.UTC().Format(time.DateOnly)+": no device's certificate counts after that",
			"make a new hub (holdfast init) and enrol the devices with it before that: holdfast device add prints the codes")
	}
}

// list writes a few ids and how many more there are.
func list[T fmt.Stringer](ids []T) string {
	var b strings.Builder
	for i, id := range ids {
		if i == namedAtMost {
			fmt.Fprintf(&b, " and %d more", len(ids)-namedAtMost)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(id.String())
	}
	return b.String()
}

// plural is one thing or several.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(many, n)
}
