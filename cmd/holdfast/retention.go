package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type retentionCmd struct {
	List retentionListCmd `cmd:"" help:"List the rules."`
	Set  retentionSetCmd  `cmd:"" help:"Set a rule."`
	Drop retentionDropCmd `cmd:"" help:"Take a rule back."`
	Due  retentionDueCmd  `cmd:"" help:"Show what the next run destroys."`
	Run  retentionRunCmd  `cmd:"" help:"Destroy now what is due."`
}

func (*retentionCmd) Help() string {
	return `Readings are kept as long as the longest of their purposes says, bounded by their stream. A rule says it for a category and a purpose, in
place of what the purpose says. What has expired is shown to nobody; once a day its keys are destroyed, unless a hold keeps them.

Example:
  holdfast retention set 30 --purpose maintenance --category https://w3id.org/dpv/pd#Location --data DATA`
}

type retentionListCmd struct {
	hubFlags
	outputFlags
}

func (*retentionListCmd) Help() string {
	return `Lists the rules of retention. What a purpose says by itself, holdfast purpose list shows.

Example:
  holdfast retention list --data DATA`
}

func (c *retentionListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	rules, err := all[api.Rule](a, hub, "/v1/retention/rules")
	if err != nil {
		return err
	}
	rows := make([][]string, len(rules))
	for i, r := range rules {
		rows[i] = []string{orAll(r.Purpose), orAll(r.Category), fmt.Sprint(r.Days)}
	}
	return c.print(a, rules, []string{"PURPOSE", "CATEGORY", "DAYS"}, rows)
}

func orAll(text string) string {
	if text == "" {
		return "all"
	}
	return text
}

type retentionSetCmd struct {
	Days     int    `arg:"" help:"For how many days from arrival."`
	Purpose  string `help:"The purpose; every one if left out." placeholder:"PURPOSE" env:"-"`
	Category string `help:"The category; every one if left out." placeholder:"IRI" env:"-"`
	hubFlags
}

func (*retentionSetCmd) Help() string {
	return `Sets a rule of retention, or replaces it. It counts for what is stored, too: what it makes expire is withheld at once and destroyed in the
next run. See first what that would be with holdfast retention due.

Example:
  holdfast retention set 30 --purpose maintenance --data DATA`
}

func (c *retentionSetCmd) Run(a *app) error {
	if c.Purpose == "" && c.Category == "" {
		return usagef("name a purpose, a category or both")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	rule := api.Rule{Category: c.Category, Purpose: c.Purpose, Days: c.Days}
	if err := hub.Do(a.ctx, http.MethodPut, "/v1/retention/rules", rule, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Kept for %s.\n", many(c.Days, "day"))
	return nil
}

type retentionDropCmd struct {
	Purpose  string `help:"The rule's purpose." placeholder:"PURPOSE" env:"-"`
	Category string `help:"The rule's category." placeholder:"IRI" env:"-"`
	hubFlags
}

func (*retentionDropCmd) Help() string {
	return `Takes a rule back: what the purpose says holds again, for what is still there.

Example:
  holdfast retention drop --purpose maintenance --data DATA`
}

func (c *retentionDropCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	q := url.Values{"purpose": {c.Purpose}, "category": {c.Category}}
	if err := hub.Do(a.ctx, http.MethodDelete, "/v1/retention/rules?"+q.Encode(), nil, nil); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, "The rule is taken back.")
	return nil
}

type retentionDueCmd struct {
	hubFlags
	outputFlags
}

func (*retentionDueCmd) Help() string {
	return `Shows, by ids alone, which months and days of which streams the next run destroys, and which a hold keeps. It changes nothing.

Example:
  holdfast retention due --data DATA`
}

func (c *retentionDueCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.Expiry
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/retention/due", nil, &x); err != nil {
		return err
	}
	if x.Doubted {
		fmt.Fprintf(a.stderr, "The clock is far ahead of the last run, %s: nothing dies by age until holdfast retention run --clock-is-right.\n", whenever(x.Last))
	}
	return c.print(a, x, dueHeader(), dueRows(x))
}

func dueHeader() []string { return []string{"ASSIGNMENT", "STREAM", "ARRIVED", "HELD"} }

func dueRows(x api.Expiry) [][]string {
	rows := make([][]string, len(x.Due))
	for i, d := range x.Due {
		held := ""
		if d.Held {
			held = "held"
		}
		rows[i] = []string{d.Assignment, d.Stream, strings.Trim(fmt.Sprint(d.Buckets), "[]"), held}
	}
	return rows
}

type retentionRunCmd struct {
	DryRun       bool `help:"Only show what is due." env:"-"`
	ClockIsRight bool `help:"Vouch for a clock that is far ahead of the last run." env:"-"`
	hubFlags
	outputFlags
}

func (*retentionRunCmd) Help() string {
	return `Destroys what is due now, as the hub does each day after midnight UTC by itself. It can't be undone.

Example:
  holdfast retention run --dry-run --data DATA`
}

func (c *retentionRunCmd) Run(a *app) error {
	if c.DryRun {
		return (&retentionDueCmd{c.hubFlags, c.outputFlags}).Run(a)
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.Expiry
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/retention/runs", map[string]any{"clock_is_right": c.ClockIsRight}, &x); err != nil {
		return err
	}
	return c.print(a, x, dueHeader(), dueRows(x))
}
