package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/bench"
)

type benchCmd struct {
	Figures []string `arg:"" help:"Which figures: P1, P2, ... or all." placeholder:"FIGURE"`
	bench.Options
	outputFlags
}

func (benchCmd) Help() string {
	text := `Sizes this machine: runs a hub in a temporary folder, loads it over loopback and
prints what it did, with goals where they need no other program to compare with.
Nothing is left behind. It takes both processor and disk to their limits: do not run
it beside a hub that serves.

Figures:
`
	for _, f := range bench.Figures() {
		text += fmt.Sprintf("  %-4s %s\n", f.ID, f.Title)
	}
	return text + `
Examples:
  holdfast bench P1
  holdfast bench P1 P3 --for 10s --rounds 5 --dir /var/tmp -o json
  holdfast bench all`
}

func (c *benchCmd) Run(a *app) (err error) {
	figures, err := bench.Find(c.Figures)
	if err != nil {
		return usageError{err}
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	b, err := bench.Open(c.Options, binary, "holdfast "+strings.Join(os.Args[1:], " "), a.stderr)
	if err != nil {
		return err
	}
	defer func() {
		if e := b.Close(); err == nil {
			err = e
		}
	}()
	var results []*bench.Result
	for _, f := range figures {
		r, err := b.Measure(a.ctx, f, nil)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if c.json() {
		return bench.PrintJSON(a.stdout, results)
	}
	return bench.PrintTable(a.stdout, results)
}
