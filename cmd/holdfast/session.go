package main

import (
	"fmt"
	"net/http"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type sessionCmd struct {
	List sessionListCmd `cmd:"" help:"What you can come in with: certificates, tokens, logins."`
	End  sessionEndCmd  `cmd:"" help:"End one, or all others."`
}

func (*sessionCmd) Help() string {
	return `A session is a credential of yours: each certificate, token and login, with the day it was last used.

Example:
  holdfast session list --token ada.token --hub https://HOST:8443
  holdfast session end --others --token ada.token --hub https://HOST:8443`
}

type sessionListCmd struct {
	hubFlags
	outputFlags
}

func (*sessionListCmd) Help() string {
	return `Lists them. One that you don't know is not yours: end it.

Example:
  holdfast session list --token ada.token --hub https://HOST:8443`
}

func (c *sessionListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	items, err := all[api.Session](a, hub, "/v1/me/sessions")
	if err != nil {
		return err
	}
	rows := make([][]string, len(items))
	for i, s := range items {
		this := ""
		if s.This {
			this = "this one"
		}
		rows[i] = []string{s.ID, s.Kind, s.Role, s.Label, s.Issuer, whenever(s.Made), s.LastUsed, whenever(s.Until), whenever(s.Settled), this}
	}
	return c.print(a, items, []string{"ID", "KIND", "ROLE", "LABEL", "ISSUER", "MADE", "LAST USED", "UNTIL", "SETTLED", ""}, rows)
}

type sessionEndCmd struct {
	ID       string `arg:"" optional:"" help:"The credential's id."`
	Others   bool   `help:"All but the one that asks, and open invitations." env:"-"`
	Programs bool   `help:"With --others: those of programs, too." env:"-"`
	hubFlags
}

func (*sessionEndCmd) Help() string {
	return `Ends one session, or all others. They are refused from the next request on.

Example:
  holdfast session end gq3tembtgm2tkmrzgq3tembtgm --token ada.token --hub https://HOST:8443
  holdfast session end --others --token ada.token --hub https://HOST:8443`
}

func (c *sessionEndCmd) Run(a *app) error {
	if (c.ID == "") != c.Others || c.Programs && !c.Others {
		return usagef("name one session, or give --others")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.ID != "" {
		if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/me/sessions", c.ID), nil, nil); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "Session %s is ended.\n", c.ID)
		return nil
	}
	var e api.Ended
	if err := hub.Do(a.ctx, http.MethodDelete, fmt.Sprintf("/v1/me/sessions?programs=%t", c.Programs), nil, &e); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s ended.\n", many(e.Ended, "session"))
	return nil
}
