package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type groupCmd struct {
	Add  groupAddCmd  `cmd:"" help:"Declare a group."`
	List groupListCmd `cmd:"" help:"List your groups."`
	Show groupShowCmd `cmd:"" help:"Show a group."`
	End  groupEndCmd  `cmd:"" help:"End a group."`
}

func (*groupCmd) Help() string {
	return `A group is devices, of anybody's, that a recipient asks about together, in windows of one length. Owners who let their readings out only among
others are counted in it, as far as their grants go; which of them are is not told. A group can't be changed, and what was answered about it stays
remembered: who is in one can't be counted in another.

Example:
  holdfast group add house-12 --devices meters.txt --every 1d --tz Europe/Warsaw --token landlord.token --hub https://HOST:8443`
}

type groupAddCmd struct {
	Name    string   `arg:"" help:"What it is called."`
	Device  []string `help:"A device: the id of anybody's, or the label of one of yours. May be given again." placeholder:"DEVICE" env:"-"`
	Devices string   `help:"A file with a device on each line." placeholder:"FILE" type:"path" env:"-"`
	Every   string   `enum:"1h,2h,3h,4h,6h,8h,12h,1d,1w,1mo" default:"1d" help:"The length of its windows: 1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 1w or 1mo." placeholder:"DURATION" env:"-"`
	TZ      string   `name:"tz" default:"UTC" help:"The time zone of its days, weeks and months." placeholder:"ZONE" env:"-"`
	Party   string   `help:"For administrators: the recipient whose it is." placeholder:"PARTY" env:"-"`
	hubFlags
	outputFlags
}

func (*groupAddCmd) Help() string {
	return `Declares a group of at most 100,000 devices. Whether there is a device of an id is not told. A credential needs the scope to write.

Example:
  holdfast group add house-12 --devices meters.txt --every 1d --tz Europe/Warsaw --token landlord.token --hub https://HOST:8443
  holdfast query energy --group house-12 --agg sum --from -7d --token landlord.token --hub https://HOST:8443`
}

func (c *groupAddCmd) Run(a *app) error {
	devices := c.Device
	if c.Devices != "" {
		f, err := os.Open(c.Devices)
		if err != nil {
			return fmt.Errorf("read devices: %w", err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if text := strings.TrimSpace(lines.Text()); text != "" {
				devices = append(devices, text)
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read devices: %w", err)
		}
	}
	if len(devices) == 0 {
		return usagef("a group has devices: name them with --device or --devices")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"name": c.Name, "devices": devices, "every": c.Every, "tz": c.TZ}
	if c.Party != "" {
		body["party"] = c.Party
	}
	var g api.Group
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/groups", body, &g); err != nil {
		return err
	}
	return c.print(a, g, groupHeader(), [][]string{groupRow(g)})
}

func groupHeader() []string {
	return []string{"ID", "NAME", "WHOSE", "DEVICES", "EVERY", "ZONE", "STATE"}
}

func groupRow(g api.Group) []string {
	state := "live"
	if g.Ended != nil {
		state = "ended " + whenever(g.Ended)
	}
	return []string{g.ID, g.Name, partyName(g.Party), strconv.Itoa(g.Count), g.Every, g.Zone, state}
}

type groupListCmd struct {
	Party string `help:"For administrators: whose." placeholder:"PARTY" env:"-"`
	hubFlags
	outputFlags
}

func (*groupListCmd) Help() string {
	return `Lists the groups of your party, the newest first, ended ones included.

Example:
  holdfast group list --token landlord.token --hub https://HOST:8443`
}

func (c *groupListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	path := "/v1/groups"
	if c.Party != "" {
		path += "?party=" + url.QueryEscape(c.Party)
	}
	groups, err := all[api.Group](a, hub, path)
	if err != nil {
		return err
	}
	rows := make([][]string, len(groups))
	for i, g := range groups {
		rows[i] = groupRow(g)
	}
	return c.print(a, groups, groupHeader(), rows)
}

type groupShowCmd struct {
	Group string `arg:"" help:"The group's name or id."`
	hubFlags
	outputFlags
}

func (*groupShowCmd) Help() string {
	return `Shows a group; with -o json, the ids of the devices that were declared.

Example:
  holdfast group show house-12 --token landlord.token --hub https://HOST:8443`
}

func (c *groupShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var g api.Group
	if err := hub.Do(a.ctx, http.MethodGet, named("/v1/groups", c.Group), nil, &g); err != nil {
		return err
	}
	return c.print(a, g, groupHeader(), [][]string{groupRow(g)})
}

type groupEndCmd struct {
	Group string `arg:"" help:"The group's name or id."`
	hubFlags
}

func (*groupEndCmd) Help() string {
	return `Ends a group: nothing is asked about it any more. Its name is free again; what was answered about it stays remembered.

Example:
  holdfast group end house-12 --token landlord.token --hub https://HOST:8443`
}

func (c *groupEndCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/groups", c.Group), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Ended %s.\n", c.Group)
	return nil
}
