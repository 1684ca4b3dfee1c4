package main

import (
	"fmt"
	"net/http"
)

type purposeReviveCmd struct {
	Name string `arg:"" help:"The purpose's name."`
	hubFlags
}

func (*purposeReviveCmd) Help() string {
	return `Takes back the end of a purpose, within a day of it (serve --purpose-grace): after that, what only it kept may be destroyed.

Example:
  holdfast purpose revive maintenance --data DATA`
}

func (c *purposeReviveCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodPost, named("/v1/purposes", c.Name)+"/revival", nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "The purpose %s lives again.\n", cell(c.Name))
	return nil
}
