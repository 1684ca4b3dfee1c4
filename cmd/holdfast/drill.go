package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/drill"
)

type drillCmd struct {
	Dir      string `help:"Work in this new folder, where the report stays (default: a temporary one, and no report but on the screen)." placeholder:"DIR" type:"path" env:"-"`
	Keep     bool   `help:"Leave the hub, its backups and what was kept aside in the folder." env:"-"`
	Readings int    `help:"How many readings each of the two owners has." default:"2000" placeholder:"N" env:"-"`
	Image    bool   `help:"Fail if the hub can't be put on a disk of its own, whose free blocks are searched too." env:"-"`
	outputFlags
}

func (*drillCmd) Help() string {
	return `Proves from outside that erasing works on this machine, with made-up owners and a hub of its own: it fills every place, erases one owner, and searches files, the
disk's free blocks, backups and the hub's memory for what was his and for his keys; it asks, and it restores. A search that does not find the other owner's things
counts as failed, and what could not be tried is said. Your own hub is not touched. As root it can do all of it: it mounts a disk image, and looks into the memory of the
hub it started. Exits 1 if anything failed.

Example:
  sudo holdfast drill
  holdfast drill --dir drill-2026-11 --keep
  sudo holdfast drill --image -o json > drill.json`
}

func (c *drillCmd) Run(a *app) error {
	if c.Readings < 100 || c.Readings > 10_000_000 {
		return usagef("--readings is from 100 to 10000000")
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	o := drill.Options{Program: program, Version: version(), Dir: c.Dir, Keep: c.Keep, Readings: c.Readings,
		Progress: func(s drill.Step) { fmt.Fprintln(a.stderr, s.Line()) }}
	if c.Image {
		o.Image = drill.ImageAlways
	}
	r, err := drill.Run(a.ctx, o)
	if err != nil {
		return fmt.Errorf("the drill did not come to its end: %w", err)
	}
	if err := c.write(a, r); err != nil {
		return err
	}
	if !r.Passed {
		return holdfast.Errorf(holdfast.Internal, "the drill FAILED: something that was to be erased is there, or could not be looked for")
	}
	return nil
}

func (c *drillCmd) Left() string {
	return "It proves nothing. Run it again: it begins anew, and removes what this one may have left"
}

// Grace lets it end its hub, and unmount and remove what it made.
func (c *drillCmd) Grace() time.Duration { return 40 * time.Second }

// write prints the report, and leaves it in the folder that was named.
func (c *drillCmd) write(a *app, r drill.Report) error {
	if c.Dir != "" {
		f, err := os.Create(filepath.Join(c.Dir, "drill.md"))
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if err := errors.Join(r.WriteMarkdown(f), f.Close()); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if f, err = os.Create(filepath.Join(c.Dir, "drill.json")); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if err := errors.Join(printJSON(f, r), f.Close()); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	return r.WriteMarkdown(a.stdout)
}
