package main

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type webhookCmd struct {
	Add        webhookAddCmd        `cmd:"" help:"Add a webhook; its secret is shown once."`
	List       webhookListCmd       `cmd:"" help:"List webhooks, and which of them fail."`
	Rotate     webhookRotateCmd     `cmd:"" help:"Give a webhook a new secret."`
	Test       webhookTestCmd       `cmd:"" help:"Send a webhook a test."`
	Deliveries webhookDeliveriesCmd `cmd:"" help:"What was sent, waits or was given up; try it again or drop it."`
	End        webhookEndCmd        `cmd:"" help:"End a webhook."`
}

func (*webhookCmd) Help() string {
	return `A webhook is an address that alarms tell. What is sent is signed by Standard Webhooks (standardwebhooks.com), for which receivers have libraries in
most languages. The address is https:// and public; serve --webhook-allow CIDR lets webhooks be in a network of yours.

Example:
  holdfast webhook add ops https://ops.example.org/holdfast --token my.token --hub https://HOST:8443`
}

type webhookAddCmd struct {
	Name string `arg:"" help:"What it is called."`
	URL  string `arg:"" name:"url" help:"https://..., at a public address."`
	hubFlags
	outputFlags
}

func (*webhookAddCmd) Help() string {
	return `Adds a webhook and shows its secret, whsec_..., which is never shown again: put it where the receiver checks signatures.

Example:
  holdfast webhook add ops https://ops.example.org/holdfast --token my.token --hub https://HOST:8443`
}

func (c *webhookAddCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var w api.NewWebhook
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/webhooks", map[string]any{"name": c.Name, "url": c.URL}, &w); err != nil {
		return err
	}
	return c.printNew(a, w)
}

func (o outputFlags) printNew(a *app, w api.NewWebhook) error {
	return o.print(a, w, []string{"ID", "NAME", "URL", "SECRET"}, [][]string{{w.ID, w.Name, w.URL, w.Secret}})
}

type webhookListCmd struct {
	hubFlags
	outputFlags
}

func (*webhookListCmd) Help() string {
	return `Lists the webhooks of your party. One that answered 410 is disabled: a test that it takes makes it active again.

Example:
  holdfast webhook list --token my.token --hub https://HOST:8443`
}

func (c *webhookListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	hooks, err := all[api.Webhook](a, hub, "/v1/webhooks")
	if err != nil {
		return err
	}
	rows := make([][]string, len(hooks))
	for i, w := range hooks {
		failing := ""
		if w.Failures > 0 {
			failing = many(w.Failures, "time") + " since " + whenever(w.Failing)
		}
		rows[i] = []string{w.ID, w.Name, w.URL, w.State, failing, w.Last}
	}
	return c.print(a, hooks, []string{"ID", "NAME", "URL", "STATE", "FAILED", "LAST"}, rows)
}

type webhookRotateCmd struct {
	Webhook string `arg:"" help:"Its name or id."`
	hubFlags
	outputFlags
}

func (*webhookRotateCmd) Help() string {
	return `Gives a webhook a new secret and shows it, once. For a day the one before signs beside it, so that the receiver can change over without a gap.

Example:
  holdfast webhook rotate ops --token my.token --hub https://HOST:8443`
}

func (c *webhookRotateCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var w api.NewWebhook
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/webhooks", c.Webhook)+"/rotate", nil, &w); err != nil {
		return err
	}
	return c.printNew(a, w)
}

type webhookTestCmd struct {
	Webhook string `arg:"" help:"Its name or id."`
	hubFlags
	outputFlags
}

func (*webhookTestCmd) Help() string {
	return `Sends a webhook a test, at once; holdfast webhook deliveries shows what became of it.

Example:
  holdfast webhook test ops --token my.token --hub https://HOST:8443`
}

func (c *webhookTestCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var d api.Delivery
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/webhooks", c.Webhook)+"/test", nil, &d); err != nil {
		return err
	}
	return c.printDeliveries(a, hub, d, d)
}

type webhookDeliveriesCmd struct {
	Retry string `help:"Try this one again, now." placeholder:"ID" env:"-"`
	Drop  string `help:"Drop this one: it is not tried again." placeholder:"ID" env:"-"`
	hubFlags
	outputFlags
}

func (*webhookDeliveriesCmd) Help() string {
	return `Lists webhooks and mail of the last days, the newest first: what waits is tried again by itself, up to 12 times within a day; then it is dead, and kept
a week.

Example:
  holdfast webhook deliveries --token my.token --hub https://HOST:8443
  holdfast webhook deliveries --retry gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *webhookDeliveriesCmd) Run(a *app) error {
	if c.Retry != "" && c.Drop != "" {
		return usagef("give --retry or --drop, not both")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.Drop != "" {
		if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/deliveries", c.Drop), nil, nil); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "Delivery %s is dropped.\n", c.Drop)
		return nil
	}
	if c.Retry != "" {
		var d api.Delivery
		if err := hub.Do(a.ctx, http.MethodPost, named("/v1/deliveries", c.Retry)+"/retry", nil, &d); err != nil {
			return err
		}
		return c.printDeliveries(a, hub, d, d)
	}
	list, err := all[api.Delivery](a, hub, "/v1/deliveries")
	if err != nil {
		return err
	}
	return c.printDeliveries(a, hub, list, list...)
}

// printDeliveries prints deliveries, in the table with the names of their webhooks.
// One that has ended meanwhile, or that the credential may not list, has its id.
func (o outputFlags) printDeliveries(a *app, hub *client.Client, whole any, list ...api.Delivery) error {
	called := map[string]string{}
	if !o.json() {
		webhooks, err := all[api.Webhook](a, hub, "/v1/webhooks")
		if err != nil && holdfast.KindOf(err) != holdfast.Denied {
			return err
		}
		for _, w := range webhooks {
			called[w.ID] = w.Name
		}
	}
	rows := make([][]string, len(list))
	for i, d := range list {
		rows[i] = []string{d.ID, cmp.Or(d.Mail, called[d.Webhook], d.Webhook), d.State, whenever(d.Made), strconv.Itoa(d.Attempts), whenever(d.Next), d.Last}
	}
	return o.print(a, whole, []string{"ID", "TO", "STATE", "MADE", "ATTEMPTS", "NEXT", "LAST"}, rows)
}

type webhookEndCmd struct {
	Webhook string `arg:"" help:"Its name or id."`
	hubFlags
}

func (*webhookEndCmd) Help() string {
	return `Ends a webhook, with what waits for it. Alarms that tell it go on without.

Example:
  holdfast webhook end ops --token my.token --hub https://HOST:8443`
}

func (c *webhookEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/webhooks", c.Webhook), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Webhook %s has ended.\n", c.Webhook)
	return nil
}
