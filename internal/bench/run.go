package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Options shape a run. The tags are for the command line of the programs that run
// figures. The zero value of what a figure chooses itself is its own choice.
type Options struct {
	For         time.Duration `help:"How long a round loads the servers." default:"5s" placeholder:"5s"`
	Rounds      int           `help:"Rounds of each side." default:"3" placeholder:"3"`
	Connections int           `help:"Connections, each a device of its own (default: the figure's)." placeholder:"N"`
	InFlight    int           `help:"Messages of a connection on their way at once (default: the figure's)." placeholder:"N"`
	Payload     int           `help:"Bytes of a message's payload." default:"100" placeholder:"100"`
	Rate        float64       `help:"Messages a second, where a figure sends at a given rate (default: the figure's)." placeholder:"N"`
	MQTT        string        `name:"mqtt" help:"Version of MQTT that devices speak: 3.1.1 or 5." default:"3.1.1" enum:"3.1.1,5" placeholder:"3.1.1"`
	Dir         string        `help:"Folder for the temporary files: on the disk that is to be measured." placeholder:"DIR"`
	Profile     string        `help:"Write the hub's processor and memory profiles there." placeholder:"DIR"`
}

func (o Options) check() error {
	switch {
	case o.For < 50*time.Millisecond || o.For > 10*time.Minute:
		return holdfast.Errorf(holdfast.Invalid, "--for is between 50ms and 10m")
	case o.Rounds < 1 || o.Rounds > 100:
		return holdfast.Errorf(holdfast.Invalid, "--rounds is between 1 and 100")
	case o.Connections < 0 || o.Connections > 20_000:
		return holdfast.Errorf(holdfast.Invalid, "--connections is at most 20000")
	case o.InFlight < 0 || o.InFlight > 1000:
		return holdfast.Errorf(holdfast.Invalid, "--in-flight is at most 1000")
	case o.Payload < 40 || o.Payload > 8000:
		return holdfast.Errorf(holdfast.Invalid, "--payload is between 40 and 8000")
	case o.Rate < 0 || o.Rate > 10_000_000:
		return holdfast.Errorf(holdfast.Invalid, "--rate is at most 10000000")
	}
	return nil
}

// Bench is one invocation: what its figures share.
type Bench struct {
	Options
	Binary  string // the holdfast program, which is run as `holdfast serve`
	Command string // how the user asked, for the results

	progress io.Writer
	dir      string
	fleet    *Fleet
}

// Open makes the temporary folder. Progress is written to progress, a line for
// each step.
func Open(o Options, binary, command string, progress io.Writer) (*Bench, error) {
	if runtime.GOOS != "linux" {
		return nil, holdfast.Errorf(holdfast.Invalid, "the figures are measured with /proc: run them on Linux")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "holdfast-bench-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o755); err != nil {
			return nil, fmt.Errorf("make folder for profiles: %w", err)
		}
	}
	return &Bench{Options: o, Binary: binary, Command: command, progress: progress, dir: dir}, nil
}

// Close removes everything.
func (b *Bench) Close() error {
	var err error
	if b.fleet != nil {
		err = b.fleet.hub.Stop()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// Folder makes a fresh temporary folder, which goes with the Bench. It is not
// called as its hint says if that is taken.
func (b *Bench) Folder(hint string) (string, error) {
	dir, err := os.MkdirTemp(b.dir, hint+"-")
	if err != nil {
		return "", fmt.Errorf("make temporary folder: %w", err)
	}
	return dir, nil
}

// Say tells the user how far it is.
func (b *Bench) Say(format string, args ...any) {
	fmt.Fprintf(b.progress, format+"\n", args...)
}

// Measure runs a figure beside peers.
func (b *Bench) Measure(ctx context.Context, f Figure, peers []Maker) (_ *Result, err error) {
	b.Say("%s: %s", f.ID, f.Title)
	r := &Result{Figure: f.ID, Date: time.Now().UTC().Truncate(time.Second), Command: b.Command, Machine: MachineOf(b.dir)}
	var sides []*Side
	defer func() {
		for _, s := range sides {
			if s.Close != nil {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	for i, make := range append([]Maker{f.Holdfast}, peers...) {
		s, err := make(ctx, b)
		if i > 0 && holdfast.KindOf(err) == holdfast.NotFound {
			b.Say("%s: SKIPPED: %v", f.ID, err)
			r.Skipped = append(r.Skipped, err.Error())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.ID, err)
		}
		sides = append(sides, s)
		r.Sides = append(r.Sides, Rounds{Name: s.Name, Version: s.Version, Year: s.Year})
	}
	if r.Before, err = ProbeDisk(ctx, b.dir); err != nil {
		return nil, err
	}
	for round := range b.Rounds {
		for i, s := range sides {
			began := time.Now()
			v, err := s.Round(ctx, round)
			if err != nil {
				return nil, fmt.Errorf("%s, %s, round %d: %w", f.ID, s.Name, round+1, err)
			}
			maps.DeleteFunc(v, func(_ string, x float64) bool { return math.IsInf(x, 0) || math.IsNaN(x) }) // a share of nothing was not measured
			r.Sides[i].Rounds = append(r.Sides[i].Rounds, v)
			b.Say("%s: round %d of %d, %s: %s (%s)", f.ID, round+1, b.Rounds, s.Name, f.brief(v), time.Since(began).Round(100*time.Millisecond))
		}
	}
	if r.After, err = ProbeDisk(ctx, b.dir); err != nil {
		return nil, err
	}
	if r.Disturbed = r.Before.Differs(r.After); r.Disturbed {
		b.Say("%s: DISTURBED: the bare disk took %s before and %s after", f.ID, r.Before, r.After)
	}
	return r, nil
}

// brief is a round in a line.
func (f *Figure) brief(v Values) string {
	text, said := "", map[string]bool{}
	for _, m := range f.Measures {
		if x, ok := v[m.Key]; ok && !said[m.Key] { // once, however many peers it is compared with
			said[m.Key] = true
			if text != "" {
				text += ", "
			}
			text += m.What + " " + m.Unit.Format(x)
		}
	}
	return text
}

// profileFile is where a profile of a hub goes, "" if none is wanted.
func (b *Bench) profileFile(name string) string {
	if b.Profile == "" {
		return ""
	}
	return filepath.Join(b.Profile, name)
}
