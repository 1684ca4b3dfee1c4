// Command peers measures figures of package bench beside the programs that they
// name: mosquitto, VictoriaMetrics, InfluxDB and PostgreSQL, from the system's
// packages. `./test --peers` runs it. A peer that is not installed is left out,
// loudly. It is a program of its own so that what only peers need is not linked
// into holdfast.
//
// A peer listens on loopback only, keeps its files in a temporary folder of its
// own that goes when it stops, runs as an unprivileged user where it insists on
// that, and dies with this program. What its configuration changes from the
// package's default is said where it is started, and is in its favour. What a peer
// refuses is an error, never a fast success, and what it acknowledged is counted.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/holdfast-iot/holdfast/internal/bench"
)

type command struct {
	Figures  []string `arg:"" optional:"" help:"Which figures: P1, P2, ... or all (default)."`
	Holdfast string   `required:"" help:"The holdfast program." placeholder:"PATH"`
	Page     string   `help:"The page that gets the results; what it says of other figures stays." placeholder:"FILE"`
	bench.Options
	Output string `short:"o" enum:"table,json" default:"table" help:"How to print: table or json." placeholder:"FORMAT"`
}

// peersOf are the sides beside Holdfast, by figure.
func peersOf(figure string) []bench.Maker {
	return map[string][]bench.Maker{
		"P1": {mosquittoSide("P1")},
		"P2": {mosquittoSide("P2")},
		"P3": {mosquittoSide("P3")},
		"P4": {mosquittoSide("P4")},
		"P5": diskPeers(),
		"P6": linePeers(),
		"P7": {queriesOfVictoriaMetrics},
		"P8": {eraseOfPostgreSQL},

		"GDPR":    {recordsOfPostgreSQL},
		"ERASURE": remainsPeers(),
	}[figure]
}

func main() {
	var c command
	kong.Parse(&c, kong.Name("./test --peers"), kong.Description("Measures Holdfast beside other programs."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := c.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func (c *command) run(ctx context.Context) (err error) {
	if len(c.Figures) == 0 {
		c.Figures = []string{"all"}
	}
	figures, err := bench.Find(c.Figures)
	if err != nil {
		return err
	}
	b, err := bench.Open(c.Options, c.Holdfast, "./test --peers "+c.asked(), os.Stderr)
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
		r, err := b.Measure(ctx, f, peersOf(f.ID))
		if err != nil {
			return err
		}
		results = append(results, r)
		if c.Page != "" { // at once: who interrupts a long run keeps what is done
			if err := bench.WritePage(c.Page, []*bench.Result{r}); err != nil {
				return err
			}
		}
	}
	if c.Output == "json" {
		return bench.PrintJSON(os.Stdout, results)
	}
	return bench.PrintTable(os.Stdout, results)
}

// asked is the command line without what ./test adds to it.
func (c *command) asked() string {
	var out []string
	for i := 1; i < len(os.Args); i++ {
		switch a := os.Args[i]; {
		case a == "--holdfast" || a == "--page":
			i++
		case strings.HasPrefix(a, "--holdfast=") || strings.HasPrefix(a, "--page="):
		default:
			out = append(out, a)
		}
	}
	return strings.Join(out, " ")
}
