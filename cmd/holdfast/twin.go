package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type twinCmd struct {
	Show twinShowCmd `cmd:"" help:"Show what is wanted of a device and what it says of itself."`
	Set  twinSetCmd  `cmd:"" help:"Say what is wanted of a device."`
}

func (*twinCmd) Help() string {
	return `A device has a desired state, which its owner writes, and a reported one, which it writes itself. The device learns the desired state when it comes, and
each change of it. What it has not reported yet is the delta.

Example:
  holdfast twin set lamp '{"colour": "red"}' --data DATA
  holdfast twin show lamp --data DATA`
}

type twinShowCmd struct {
	Device string `arg:"" help:"The device, by label or id."`
	hubFlags
	outputFlags
}

func (*twinShowCmd) Help() string {
	return `Shows what is wanted of a device, what it says of itself, and what differs.

Example:
  holdfast twin show lamp --data DATA
  holdfast twin show lamp -o json --token my.token --hub https://HOST:8443`
}

func (c *twinShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var t api.Twin
	if err := hub.Do(a.ctx, http.MethodGet, twinPath(c.Device), nil, &t); err != nil {
		return err
	}
	return c.print(a, t, twinHeader(), twinRows(t))
}

func twinPath(device string) string { return named("/v1/devices", device) + "/twin" }

func twinHeader() []string { return []string{"WHAT", "VERSION", "CHANGED", "STATE"} }

func twinRows(t api.Twin) [][]string {
	return [][]string{
		{"desired", fmt.Sprint(t.Desired.Version), whenever(t.Desired.Changed), string(t.Desired.State)},
		{"reported", fmt.Sprint(t.Reported.Version), whenever(t.Reported.Changed), string(t.Reported.State)},
		{"delta", "", "", string(t.Delta)},
	}
}

type twinSetCmd struct {
	Device string `arg:"" help:"The device, by label or id."`
	State  string `arg:"" help:"What to change, as a JSON merge patch: a member that is null goes."`
	Whole  bool   `help:"STATE is all of the desired state, not a change." env:"-"`
	If     int64  `help:"Only if the desired state is of this version now." default:"-1" placeholder:"N" env:"-"`
	hubFlags
	outputFlags
}

func (*twinSetCmd) Help() string {
	return `Changes what is wanted of a device. The device learns it at once, or when it comes back; of several changes it learns the newest.

Example:
  holdfast twin set lamp '{"colour": "red", "blink": null}' --data DATA
  holdfast twin set lamp '{"colour": "red"}' --whole --if 3 --token my.token --hub https://HOST:8443`
}

func (c *twinSetCmd) Run(a *app) error {
	if !json.Valid([]byte(c.State)) {
		return usagef(`the state is a JSON object, as '{"colour": "red"}'`)
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := client.Body{Type: "application/json", Data: []byte(c.State)}
	if c.If >= 0 {
		body.IfMatch = strconv.Quote(strconv.FormatInt(c.If, 10))
	}
	method := http.MethodPatch
	if c.Whole {
		method = http.MethodPut
	}
	var t api.Twin
	if err := hub.Do(a.ctx, method, twinPath(c.Device), body, &t); err != nil {
		return err
	}
	return c.print(a, t, twinHeader(), twinRows(t))
}
