package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/dpv"
)

type purposeCmd struct {
	Add    purposeAddCmd    `cmd:"" help:"Add a purpose."`
	List   purposeListCmd   `cmd:"" help:"List the purposes."`
	Show   purposeShowCmd   `cmd:"" help:"Show a purpose."`
	End    purposeEndCmd    `cmd:"" help:"End a purpose."`
	Revive purposeReviveCmd `cmd:"" help:"Take back the end of a purpose."`
}

func (*purposeCmd) Help() string {
	return `A purpose is why data may be used, with its legal basis. Nothing is collected or read without one.

Example:
  holdfast purpose add maintenance --iri dpv:ServiceMonitoring --basis contract --retention 90d --text "To see when your device needs care." --data DATA`
}

type purposeAddCmd struct {
	Name       string   `arg:"" help:"A short name, used once."`
	IRI        string   `name:"iri" required:"" help:"A purpose of the W3C Data Privacy Vocabulary, as dpv:ServiceProvision." placeholder:"IRI" env:"-"`
	Basis      string   `required:"" help:"The legal basis: consent, contract, legal-obligation, vital-interest, public-task, legitimate-interest, none; or one of the vocabulary, as eu-gdpr:A6-1-b." placeholder:"BASIS" env:"-"`
	Parent     string   `help:"The purpose that it is a part of: a grant for that one covers this one." placeholder:"PURPOSE" env:"-"`
	Retention  string   `help:"How long readings are kept for it, in whole days: 90d; no limit if left out." placeholder:"DURATION" env:"-"`
	Controller string   `help:"The organisation that answers for it; the operating organisation if left out." placeholder:"PARTY" env:"-"`
	Category   []string `help:"Data that it concerns, as pd:Location. May be given again." placeholder:"IRI" env:"-"`
	Text       string   `help:"What it is, for the people whose data it is; its name if left out." placeholder:"TEXT" env:"-"`
	hubFlags
	outputFlags
}

func (*purposeAddCmd) Help() string {
	return `Adds a purpose. A name is used once: what it stood for must not be read as something else later.

Example:
  holdfast purpose add maintenance --iri dpv:ServiceMonitoring --basis contract --retention 90d --text "To see when your device needs care." --data DATA`
}

func (c *purposeAddCmd) Run(a *app) error {
	days, err := wholeDays(c.Retention)
	if err != nil {
		return usagef("--retention: %w", err)
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if c.Text == "" {
		c.Text = c.Name
	}
	var p api.Purpose
	err = hub.Do(a.ctx, http.MethodPost, "/v1/purposes", map[string]any{"name": c.Name, "iri": c.IRI, "legal_basis": c.Basis,
		"parent": c.Parent, "controller": c.Controller, "categories": c.Category, "retention_days": days, "text": c.Text}, &p)
	if err != nil {
		return err
	}
	return c.print(a, p, purposeHeader(), [][]string{purposeRow(p)})
}

// wholeDays reads a duration of days.
func wholeDays(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	d, err := api.ParseDuration(text)
	if err == nil && (d <= 0 || d%(24*time.Hour) != 0) {
		err = errors.New("give whole days, as 90d")
	}
	return int(d / (24 * time.Hour)), err
}

func purposeHeader() []string {
	return []string{"NAME", "PART OF", "BASIS", "DAYS", "STATE", "TEXT", "IRI"}
}

func purposeRow(p api.Purpose) []string {
	state, days := "live", ""
	if !p.Live {
		state = "ended"
	}
	if p.RetentionDays > 0 {
		days = fmt.Sprint(p.RetentionDays)
	}
	return []string{p.Name, p.Parent, p.LegalBasis, days, state, p.Text, dpv.Short(p.IRI)}
}

type purposeListCmd struct {
	hubFlags
	outputFlags
}

func (*purposeListCmd) Help() string {
	return `Lists all purposes, ended ones included.

Example:
  holdfast purpose list --data DATA`
}

func (c *purposeListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	purposes, err := all[api.Purpose](a, hub, "/v1/purposes")
	if err != nil {
		return err
	}
	rows := make([][]string, len(purposes))
	for i, p := range purposes {
		rows[i] = purposeRow(p)
	}
	return c.print(a, purposes, purposeHeader(), rows)
}

type purposeShowCmd struct {
	Name string `arg:"" help:"The purpose's name."`
	hubFlags
	outputFlags
}

func (*purposeShowCmd) Help() string {
	return `Shows a purpose.

Example:
  holdfast purpose show operation --data DATA -o json`
}

func (c *purposeShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p api.Purpose
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/purposes", c.Name), nil, &p); err != nil {
		return err
	}
	return c.print(a, p, purposeHeader(), [][]string{purposeRow(p)})
}

type purposeEndCmd struct {
	Name string `arg:"" help:"The purpose's name."`
	hubFlags
}

func (*purposeEndCmd) Help() string {
	return `Ends a purpose: from now on nothing is read for it, nor collected for it alone. What only it kept is withheld at once and
destroyed after a day, in which holdfast purpose revive takes the end back.

Example:
  holdfast purpose end maintenance --data DATA`
}

func (c *purposeEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/purposes", c.Name), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "The purpose %s has ended.\n", cell(c.Name))
	return nil
}
