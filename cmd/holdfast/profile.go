package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/custody"
)

type profileCmd struct {
	Add  profileAddCmd  `cmd:"" help:"Add a version of a profile from a file."`
	List profileListCmd `cmd:"" help:"List the profiles."`
	Show profileShowCmd `cmd:"" help:"Show a profile."`
}

func (*profileCmd) Help() string {
	return `A profile is a device model: which streams it has, of which type, unit and category, for which purposes, and for how long.

Example:
  holdfast profile add pump.json --data DATA
  holdfast device add pump-1 --profile pump --data DATA`
}

type profileAddCmd struct {
	File string `arg:"" help:"The profile in JSON." type:"path"`
	hubFlags
	outputFlags
}

func (*profileAddCmd) Help() string {
	return `Adds a profile, or a higher version of one. Devices keep the version they were added with. docs/profiles.md has the format.

Example:
  holdfast profile add pump.json --data DATA`
}

func (c *profileAddCmd) Run(a *app) error {
	file, err := os.ReadFile(c.File)
	if err != nil {
		return fileError("profile", err)
	}
	if _, err := custody.ParseProfile(file); err != nil { // says here what the hub, which does not repeat what it is sent, would not
		return err
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p custody.Profile
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/profiles", client.Body{Type: "application/json", Data: file}, &p); err != nil {
		return err
	}
	if err := c.print(a, p, profileHeader(), [][]string{profileRow(p)}); err != nil {
		return err
	}
	return sayDead(a, hub, p)
}

// sayDead names the purposes of a profile that are not alive: readings collected for
// them alone would be refused, which is better heard before the first device sends.
func sayDead(a *app, hub *client.Client, p custody.Profile) error {
	purposes, err := all[api.Purpose](a, hub, "/v1/purposes")
	if holdfast.KindOf(err) == holdfast.Denied { // a program that only writes
		return nil
	}
	if err != nil {
		return err
	}
	known := map[holdfast.Purpose]bool{}
	for _, u := range purposes {
		known[holdfast.Purpose(u.Name)] = u.Ended == nil
	}
	for _, s := range p.Streams {
		for _, u := range s.Purposes {
			if alive, said := known[u]; alive {
				continue
			} else if !said {
				fmt.Fprintf(a.stderr, "There is no purpose %s yet, and nothing is collected for it alone: holdfast purpose add %s --iri IRI --basis BASIS\n", cell(string(u)), quoted(string(u)))
			} else {
				fmt.Fprintf(a.stderr, "The purpose %s has ended: nothing is collected for it alone.\n", cell(string(u)))
			}
			known[u] = true // is said once
		}
	}
	return nil
}

func profileHeader() []string { return []string{"NAME", "VERSION", "STREAMS"} }

func profileRow(p custody.Profile) []string {
	return []string{p.Name, fmt.Sprint(p.Version), fmt.Sprint(len(p.Streams))}
}

type profileListCmd struct {
	hubFlags
	outputFlags
}

func (*profileListCmd) Help() string {
	return `Lists the profiles, the newest version of each first.

Example:
  holdfast profile list --data DATA`
}

func (c *profileListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	profiles, err := all[custody.Profile](a, hub, "/v1/profiles")
	if err != nil {
		return err
	}
	rows := make([][]string, len(profiles))
	for i, p := range profiles {
		rows[i] = profileRow(p)
	}
	return c.print(a, profiles, profileHeader(), rows)
}

type profileShowCmd struct {
	Name    string `arg:"" help:"The profile's name."`
	Version int    `name:"version-number" help:"A version; the newest if left out." placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*profileShowCmd) Help() string {
	return `Shows the streams of a profile. With -o json it is the file that profile add takes.

Example:
  holdfast profile show pump --data DATA -o json`
}

func (c *profileShowCmd) Run(a *app) error {
	if c.Version < 0 {
		return usagef("a version is a number from 1")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var p custody.Profile
	if err := hub.Do(a.ctx, http.MethodGet, fmt.Sprintf("%s?version=%d", named("/v1/profiles", c.Name), c.Version), nil, &p); err != nil {
		return err
	}
	rows := make([][]string, len(p.Streams))
	for i, s := range p.Streams {
		purposes := make([]string, len(s.Purposes))
		for j, u := range s.Purposes {
			purposes[j] = string(u)
		}
		days := ""
		if s.RetentionDays > 0 {
			days = fmt.Sprint(s.RetentionDays)
		}
		rows[i] = []string{s.Name, s.Type, s.Unit, s.Category, s.Sensitivity, strings.Join(purposes, ","), days}
	}
	return c.print(a, p, []string{"STREAM", "TYPE", "UNIT", "CATEGORY", "SENSITIVITY", "PURPOSES", "DAYS"}, rows)
}
