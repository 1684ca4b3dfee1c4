package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/server"
)

type doctorCmd struct {
	hubFlags
	outputFlags
	Strict  bool   `help:"Exit 1 for what is weak, too." env:"-"`
	Ready   bool   `help:"Only ask whether readings are acknowledged now, as /readyz says." env:"-"`
	RootKey string `help:"Where the root key of a hub that does not run is (default: where init put it)." placeholder:"PATH"`
}

func (doctorCmd) Help() string {
	return `Says what is wrong, weak or worth knowing in a hub's deployment, the most urgent
first, each with the mend. With --data it looks at the folder itself when the hub
does not answer. Exits 1 when something is wrong, 0 otherwise; docs/doctor.md has
every id.

Example:
  holdfast doctor --data DATA
  holdfast doctor --data DATA --strict -o json`
}

func (c *doctorCmd) Run(a *app) error {
	if c.Ready {
		return c.ready(a)
	}
	found, err := c.ask(a)
	if err != nil {
		return err
	}
	if c.json() {
		err = printJSON(a.stdout, api.Page[api.Finding]{Items: found})
	} else {
		err = printFindings(a, found)
	}
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, f := range found {
		count[f.Level]++
	}
	switch {
	case count[api.Wrong] > 0:
		return holdfast.Errorf(holdfast.Internal, "%s wrong", are(count[api.Wrong]))
	case c.Strict && count[api.Weak] > 0:
		return holdfast.Errorf(holdfast.Internal, "%s weak", are(count[api.Weak]))
	}
	return nil
}

// ready is for supervisors that can't ask /readyz themselves.
func (c *doctorCmd) ready(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var r api.Readiness
	if err := hub.Do(a.ctx, http.MethodGet, "/readyz", nil, &r); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	if _, err := fmt.Fprintln(a.stdout, "Readings are acknowledged."); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func are(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}

// ask asks the hub, or the data folder when nobody answers for it.
func (c *doctorCmd) ask(a *app) ([]api.Finding, error) {
	found, err := c.askHub(a)
	if err == nil || c.Data == "" || c.Hub != "" || holdfast.KindOf(err) != holdfast.Unavailable {
		return found, err
	}
	return server.DoctorStopped(server.Config{Data: c.Data, RootKey: c.RootKey, Version: version()})
}

func (c *doctorCmd) askHub(a *app) ([]api.Finding, error) {
	hub, err := c.connect(a)
	if err != nil {
		return nil, err
	}
	defer hub.Close()
	var found api.Page[api.Finding]
	err = hub.Do(a.ctx, http.MethodGet, "/v1/doctor", nil, &found)
	return found.Items, err
}

func printFindings(a *app, found []api.Finding) error {
	good := true
	for _, f := range found {
		good = good && f.Level == api.Note
	}
	if good {
		if _, err := fmt.Fprint(a.stdout, "Nothing is wrong or weak that can be seen from here.\n\n"); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	for _, f := range found {
		since := ""
		if !f.Since.IsZero() {
			since = ", since " + f.Since.Format(time.RFC3339)
		}
		if _, err := fmt.Fprintf(a.stdout, "%-5s  %s\n       %s%s\n       mend: %s\n", f.Level, f.ID, cell(f.What), since, cell(f.Mend)); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}
