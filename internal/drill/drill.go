// Package drill proves from outside that erasing works: it makes a hub in a folder
// of its own, as a process of its own, gives two made-up owners something in every
// place that can hold anything of theirs, erases one of them, and then looks for
// what was his: in every file, in the blocks of the disk that are free again, in
// backups, in the memory of the process, and by asking and restoring.
//
// Each search looks for what must be there as well, of the owner who was not erased;
// one that does not find that is blind, and the drill fails. What could not be
// tried is said, and what erasure does not reach is shown.
package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/internal/scratch"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Options shape a drill.
type Options struct {
	Program  string // the holdfast that is tried
	Version  string
	Dir      string // a new folder to work in, which stays; "": a temporary one
	Keep     bool   // leave what is in the folder
	Readings int    // of each owner; default 2000
	// Image puts the hub on a file system of its own, whose free blocks are searched
	// too: ImageIfPossible, ImageAlways or ImageNever.
	Image    string
	Progress func(Step)
	// Omit leaves something out that was to be planted, to see that the drill tells.
	Omit func(method, path string) bool
	// Sabotage makes the erasure forget something, to see that the drill tells: it is
	// called after the erasure with the hub's folder, a pattern that must not be
	// anywhere, and one of the keys, and returns another process to search, or 0.
	Sabotage func(folder, pattern string, key []byte) (pid int, err error)
}

// Values of Options.Image.
const (
	ImageIfPossible = ""
	ImageAlways     = "always"
	ImageNever      = "never"
)

type drill struct {
	opts   Options
	report Report
	own    *scratch.Folder
	dir    string // hub/ (on the image), devices/, aside/, scratch/
	start  time.Time
	image  *image // nil: none
	hub    *hub

	study, studyToken string
	lender            string // the study's own token
	canary, control   *owner
	recipient         string
	certificate       string
}

func (d *drill) root() string    { return filepath.Join(d.dir, "hub") }
func (d *drill) data() string    { return filepath.Join(d.root(), "data") }
func (d *drill) aside() string   { return filepath.Join(d.dir, "aside") }
func (d *drill) scratch() string { return filepath.Join(d.dir, "scratch") }
func (d *drill) backups() string { return filepath.Join(d.root(), "backups") }
func (d *drill) copied() string  { return filepath.Join(d.root(), "copy") } // of the keyring

// rootKeys are the two holders'.
func (d *drill) rootKeys() []string {
	return []string{filepath.Join(d.root(), "keys", "root.key"), filepath.Join(d.root(), "second", "root.key")}
}

// Run carries the drill out. The error says that it could not be; what it found is
// in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Readings <= 0 {
		o.Readings = 2000
	}
	now := time.Now()
	d := &drill{opts: o, start: now.Add(-time.Hour).Truncate(time.Second), canary: newOwner("canary"), control: newOwner("control")}
	d.report = Report{Format: "1", Version: o.Version, At: now.UTC().Truncate(time.Second), Machine: fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())}
	err := d.folder()
	if err == nil {
		err = d.tell(ctx)
	}
	if d.hub != nil {
		err = errors.Join(err, d.hub.stop())
	}
	err = errors.Join(err, d.clean())
	d.report.Passed = err == nil
	for _, s := range d.report.Steps {
		d.report.Passed = d.report.Passed && s.Result != Fail
	}
	d.report.TookSeconds = float64(time.Since(now).Milliseconds()) / 1000
	return d.report, err
}

// folder makes the places to work in.
func (d *drill) folder() (err error) {
	kind := scratch.Kind{Name: "holdfast-drill", Before: unmountLeft}
	if d.opts.Dir == "" {
		d.clearLeft(kind)
		d.own, err = kind.New("")
	} else if d.dir, err = filepath.Abs(d.opts.Dir); err == nil {
		d.own, err = kind.At(d.dir)
	}
	if err != nil {
		return err
	}
	d.dir = d.own.Path
	for _, sub := range []string{"hub", "devices", "aside", "scratch"} {
		if err := os.Mkdir(filepath.Join(d.dir, sub), 0o700); err != nil {
			return err
		}
	}
	if d.opts.Image != ImageNever {
		d.image, err = mountImage(d.dir, d.root(), d.opts.Readings)
		if err != nil && d.opts.Image == ImageAlways {
			return err
		}
		if err != nil {
			d.add(Step{ID: "image", What: "a disk of its own for the hub", Result: NotTried, Detail: "no file system can be mounted here: " + err.Error()})
		}
	} else {
		d.add(Step{ID: "image", What: "a disk of its own for the hub", Result: NotTried, Detail: "it was not wanted"})
	}
	for _, sub := range []string{"keys", "second", "copy"} {
		if err := os.Mkdir(filepath.Join(d.root(), sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// clearLeft removes what drills that were killed have left.
func (d *drill) clearLeft(kind scratch.Kind) {
	cleared, err := kind.Clear("")
	s := Step{ID: "leftover", What: "what a drill that was killed has left", Result: Pass, Detail: "removed: " + strings.Join(cleared, ", ")}
	if err != nil {
		s.Result, s.Detail = NotTried, err.Error()
	}
	if err != nil || len(cleared) > 0 {
		d.add(s)
	}
}

func (d *drill) clean() error {
	if d.own == nil {
		return nil
	}
	if err := d.image.unmount(); err != nil {
		return errors.Join(err, d.own.Release())
	}
	if d.opts.Keep {
		return d.own.Keep()
	}
	if d.opts.Dir == "" {
		return d.own.Remove()
	}
	var err error
	for _, of := range []string{"hub", "devices", "aside", "scratch", "disk.img"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(d.dir, of)))
	}
	return errors.Join(err, d.own.Keep())
}

// tell goes through all of it.
func (d *drill) tell(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := d.hub.stop(); err != nil {
		return err
	}
	if err := d.planted(ctx); err != nil {
		return fmt.Errorf("look for what was planted: %w", err)
	}
	before, err := d.keys(ctx)
	if err != nil {
		return fmt.Errorf("look at the keys: %w", err)
	}
	if err := d.copyAside(); err != nil {
		return fmt.Errorf("copy the keys aside: %w", err)
	}
	if d.hub, err = d.serve(ctx, d.data()); err != nil {
		return err
	}
	owners, err := d.canary.owners()
	if err != nil {
		return err
	}
	h := d.destroyed(before, owners)
	d.report.Keys = h.n
	if err := d.use(ctx); err != nil {
		return err
	}
	err = d.remembered(ctx)
	d.check("remembered", "what is in memory alone: a device's last word waits", "", err)
	gone := &wanted{dead: new(words), live: new(words)}
	d.canary.patterns(gone.dead)
	d.control.patterns(gone.live)
	if err := d.control.ids(gone.live); err != nil {
		return err
	}
	d.report.Patterns = gone.dead.n
	d.report.Places = slices.Sorted(maps.Keys(d.canary.words))

	visible := d.memoryBefore(h)
	if err := d.erase(ctx); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	pid := 0
	if d.opts.Sabotage != nil {
		var key []byte
		for _, r := range before.all {
			if owners[r.Owner] {
				key = r.Key[:]
			}
		}
		_, pattern, _ := cut(d.canary.words["name"])
		if pid, err = d.opts.Sabotage(d.data(), pattern, key); err != nil {
			return err
		}
	}
	d.asked(ctx, gone)
	d.retracted(ctx)
	d.memoryAfter(ctx, h, visible, pid)
	return d.stopped(ctx, h, gone, before, owners, visible)
}

// stopped looks at what does not need the hub that erased, and at what it does after.
func (d *drill) stopped(ctx context.Context, h *hunt, gone *wanted, before keys, owners map[vault.Owner]bool, visible error) error {
	t := new(Tally)
	d.searched("files-running", "files of the hub while it runs", t, gone.tree(d.data(), t))
	if err := d.hub.stop(); err != nil {
		return err
	}
	d.keyring(ctx, h, before, owners)
	d.copies()
	if err := d.left(ctx); err != nil {
		return fmt.Errorf("look for what is left: %w", err)
	}
	t = new(Tally)
	d.searched("files", "all files of the hub, its root keys' and its backups' folders: patterns", t, gone.tree(d.root(), t))
	d.keyFiles(ctx, h)
	d.searchBackups(ctx, h, gone)
	d.searchImage(h, gone)
	hub, err := d.serve(ctx, d.data())
	if err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	d.hub = hub
	d.restarted(ctx, h, gone, visible)
	if err := d.hub.stop(); err != nil {
		return err
	}
	d.restores(ctx, gone)
	if d.hub, err = d.serve(ctx, d.data()); err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	d.held(ctx)
	return nil
}
