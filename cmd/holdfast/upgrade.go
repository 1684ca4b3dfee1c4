package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type upgradeCmd struct {
	Data    string `required:"" help:"The data folder." placeholder:"DIR" type:"path"`
	DryRun  bool   `help:"Only say what would be done." env:"-" xor:"what"`
	Confirm bool   `help:"The new version is good: end the way back. The hub may run meanwhile." env:"-" xor:"what"`
	Back    bool   `help:"Go back to the version before, as long as the upgrade is not confirmed." env:"-" xor:"what"`
	Yes     bool   `help:"With --back: don't ask, take away what only this version has." env:"-"`
	outputFlags
}

func (*upgradeCmd) Help() string {
	return `Carries the data folder of a stopped hub to this version, and says how far it is;
serve does the same when it starts. Until --confirm, --back leads back to the
version before: what that one knows stays as it is now, erasures and readings
included; what only this version has is taken away. docs/upgrades.md tells more.

Example:
  holdfast upgrade --data DATA --dry-run
  holdfast upgrade --data DATA
  holdfast upgrade --data DATA --confirm`
}

func (c *upgradeCmd) Run(a *app) error {
	config := server.Config{Data: c.Data, Version: version(), Logger: slog.New(tellSteps{a: a})}
	if c.Back {
		return c.back(a, config)
	}
	if c.Yes {
		return usagef("--yes goes with --back")
	}
	do := server.Upgrade
	switch {
	case c.DryRun:
		do = server.UpgradeState
	case c.Confirm:
		do = server.ConfirmUpgrade
	}
	u, err := do(a.ctx, config)
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, u)
	}
	fmt.Fprintf(a.stdout, "The data folder is of holdfast %s (catalog %d). This is holdfast %s (catalog %d).\n", u.Version, u.Catalog, version(), u.Known)
	switch {
	case u.Pending():
		fmt.Fprintf(a.stdout, "To upgrade it: stop the hub, then\n\n  holdfast upgrade --data %s\n", quoted(c.Data))
	case u.From != "":
		fmt.Fprintf(a.stdout, `It was upgraded from %s on %s, and that is not confirmed. When all is well:

  holdfast upgrade --data %s --confirm

Else stop the hub, go back, and start holdfast %s again:

  holdfast upgrade --data %[3]s --back
`, u.From, u.At.Format(time.DateOnly), quoted(c.Data), u.From)
	default:
		fmt.Fprintln(a.stdout, "There is nothing to upgrade and nothing to confirm.")
	}
	return nil
}

func (c *upgradeCmd) back(a *app, config server.Config) (err error) {
	w, err := server.GoBack(a.ctx, config)
	if err != nil {
		return err
	}
	defer w.Close()
	if len(w.Takes) > 0 {
		rows := make([][]string, len(w.Takes))
		for i, t := range w.Takes {
			rows[i] = []string{t.Name, strconv.FormatInt(t.Rows, 10)}
		}
		fmt.Fprintf(a.stdout, "holdfast %s does not know these tables, so they go, with what is in them:\n\n", w.To)
		if err := printTable(a.stdout, []string{"TABLE", "ROWS"}, rows); err != nil {
			return err
		}
	}
	if !c.Yes {
		return holdfast.Errorf(holdfast.Conflict, "nothing was changed; to go back to holdfast %s, say --yes", w.To)
	}
	if err := w.Go(a.ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Done. Start holdfast %s on %s.\n", w.To, quoted(c.Data))
	return err
}

// tellSteps shows the hub's log of an upgrade to a person.
type tellSteps struct{ a *app }

func (tellSteps) Enabled(context.Context, slog.Level) bool { return true }
func (t tellSteps) WithAttrs([]slog.Attr) slog.Handler     { return t }
func (t tellSteps) WithGroup(string) slog.Handler          { return t }

func (t tellSteps) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(strings.TrimPrefix(r.Message, "upgrade: "))
	r.Attrs(func(at slog.Attr) bool {
		fmt.Fprintf(&line, "  %s %s", at.Key, at.Value)
		return true
	})
	_, err := fmt.Fprintln(t.a.stderr, line.String())
	return err
}
