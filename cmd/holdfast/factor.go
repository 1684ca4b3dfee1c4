package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type factorCmd struct {
	Add     factorAddCmd     `cmd:"" help:"Make a second factor."`
	Confirm factorConfirmCmd `cmd:"" help:"Confirm it with its first code."`
	Show    factorShowCmd    `cmd:"" help:"Whether there is one."`
	Remove  factorRemoveCmd  `cmd:"" help:"Remove it."`
}

func (*factorCmd) Help() string {
	return `A second factor makes a code of six digits every 30 seconds (TOTP). With --code a new credential does at once what it could do after 7 days only: erase, export, hand over.

Example:
  holdfast factor add --token ada.token --hub https://HOST:8443
  holdfast factor confirm 123456 --token ada.token --hub https://HOST:8443
  holdfast export Ada ./mine --code 654321 --token new.token --hub https://HOST:8443`
}

type factorAddCmd struct {
	hubFlags
	outputFlags
}

func (*factorAddCmd) Help() string {
	return `Makes a second factor and shows its secret, once: give it to a program that makes codes, then confirm it.

Example:
  holdfast factor add --token ada.token --hub https://HOST:8443`
}

func (c *factorAddCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var f api.NewFactor
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/me/factor", nil, &f); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, f)
	}
	fmt.Fprintf(a.stdout, "%s\n\nIts secret alone: %s\nIt counts when it is confirmed: holdfast factor confirm CODE\n", f.URL, f.Secret)
	return nil
}

type factorConfirmCmd struct {
	FirstCode string `arg:"" help:"The code that it makes now."`
	hubFlags
	outputFlags
}

func (*factorConfirmCmd) Help() string {
	return `Confirms a new second factor, and shows recovery codes, once: each does once what a code does. Keep them where the second factor is not.

Example:
  holdfast factor confirm 123456 --token ada.token --hub https://HOST:8443`
}

func (c *factorConfirmCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var r api.RecoveryCodes
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/me/factor/confirm", map[string]string{"code": c.FirstCode}, &r); err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	fmt.Fprintf(a.stdout, "The second factor counts. Its recovery codes, shown this once:\n\n  %s\n", strings.Join(r.Codes, "\n  "))
	return nil
}

type factorShowCmd struct {
	hubFlags
	outputFlags
}

func (*factorShowCmd) Help() string {
	return `Says whether there is a second factor, and how many recovery codes are left.

Example:
  holdfast factor show --token ada.token --hub https://HOST:8443`
}

func (c *factorShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var f api.Factor
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/me/factor", nil, &f); err != nil {
		return err
	}
	return c.print(a, f, []string{"CONFIRMED", "RECOVERY CODES"}, [][]string{{fmt.Sprint(f.Confirmed), fmt.Sprint(f.Recovery)}})
}

type factorRemoveCmd struct{ hubFlags }

func (*factorRemoveCmd) Help() string {
	return `Removes the second factor and its recovery codes. Who has lost it shows a recovery code with --code, or uses a settled credential.

Example:
  holdfast factor remove --code ABCD-EFGH-IJKL-MNOP --token ada.token --hub https://HOST:8443`
}

func (c *factorRemoveCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, "/v1/me/factor", nil, nil); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, "The second factor is removed.")
	return nil
}
