package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type commandCmd struct {
	Send   commandSendCmd   `cmd:"" help:"Send a command to a device."`
	List   commandListCmd   `cmd:"" help:"List a device's commands."`
	Show   commandShowCmd   `cmd:"" help:"Show a command and what came of it."`
	Cancel commandCancelCmd `cmd:"" help:"Take back a command that its device does not have yet."`
}

func (*commandCmd) Help() string {
	return `A command is something that a device is to do. It waits in the hub until the device has it, or until it expires, and the device answers with a result.
An owner commands his own devices, an administrator the operating organisation's. Each command stands on the record of the one whose device it is.

Example:
  holdfast command send pump-1 start '{"speed": 3}' --wait 30s --data DATA`
}

type commandSendCmd struct {
	Device  string        `arg:"" help:"The device, by label or id."`
	Name    string        `arg:"" help:"What to do, in the device's own words."`
	Args    string        `arg:"" optional:"" default:"null" help:"Its arguments, in JSON."`
	Wait    time.Duration `help:"Wait so long for the device's answer, and print it." placeholder:"DURATION" env:"-"`
	Expires string        `help:"How long it may wait for the device, as 10m or 7d; 1h if left out." placeholder:"DURATION" env:"-"`
	Reason  string        `help:"Why, in words; kept with the command." placeholder:"TEXT" env:"-"`
	Key     string        `help:"Your own name for this command: sent again with it, it is the same one." placeholder:"TEXT" env:"-"`
	hubFlags
	outputFlags
}

func (*commandSendCmd) Help() string {
	return `Sends a command. When this returns it is durable in the hub; a device that is switched off gets it when it comes back, unless it has expired.
With --wait the device's answer is printed, and the exit code is 1 unless the device has done it.

Example:
  holdfast command send pump-1 start '{"speed": 3}' --data DATA
  holdfast command send lamp blink --wait 30s --expires 1m --token my.token --hub https://HOST:8443
  holdfast command send pump-1 calibrate --key night-2026-11-22 --reason "after the new bearing" --data DATA`
}

func (c *commandSendCmd) Run(a *app) error {
	if !json.Valid([]byte(c.Args)) {
		return usagef("the arguments of a command are JSON: a text has quotes of its own, as '\"slow\"'")
	}
	if c.Wait < 0 {
		return usagef("--wait is a duration like 30s")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	body := map[string]any{"device": c.Device, "name": c.Name, "args": json.RawMessage(c.Args)}
	for name, text := range map[string]string{"expires": c.Expires, "reason": c.Reason, "key": c.Key} {
		if text != "" {
			body[name] = text
		}
	}
	var x api.Command
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/commands", body, &x); err != nil {
		return err
	}
	if c.Wait > 0 {
		if x, err = awaited(a, hub, x.ID, c.Wait); err != nil {
			return err
		}
	}
	if err := c.print(a, x, commandHeader(), [][]string{commandRow(x)}); err != nil {
		return err
	}
	if c.Wait > 0 && x.Ended == nil {
		return holdfast.Errorf(holdfast.Unavailable, "the device has not answered within %s: the command is %s, holdfast command show %s tells what becomes of it", c.Wait, x.State, x.ID)
	}
	if c.Wait > 0 && x.State != "done" {
		return holdfast.Errorf(holdfast.Unavailable, "the command is %s", x.State)
	}
	return nil
}

// longestWait is how long one request waits; a longer wait asks again.
const longestWait = 20 * time.Second

// awaited asks for a command until it has ended or a time is over.
func awaited(a *app, hub *client.Client, id string, most time.Duration) (x api.Command, err error) {
	for until := time.Now().Add(most); ; {
		left := min(time.Until(until), longestWait)
		seconds := max(0, int((left+time.Second-1)/time.Second))
		if err := hub.Do(a.ctx, http.MethodGet, fmt.Sprintf("%s?wait=%d", named("/v1/commands", id), seconds), nil, &x); err != nil {
			return x, err
		}
		if x.Ended != nil || time.Now().After(until) {
			return x, nil
		}
	}
}

func commandHeader() []string {
	return []string{"ID", "N", "NAME", "STATE", "SENT", "EXPIRES", "DELIVERED", "ENDED", "RESULT", "REASON"}
}

func commandRow(x api.Command) []string {
	return []string{x.ID, fmt.Sprint(x.N), x.Name, x.State, whenever(x.Sent), whenever(x.Expires), whenever(x.Delivered), whenever(x.Ended), string(x.Result), x.Reason}
}

type commandListCmd struct {
	Device string `arg:"" help:"The device, by label or id."`
	State  string `help:"Only those in this state: queued, delivered, accepted, done, failed, expired or cancelled." placeholder:"STATE" env:"-"`
	hubFlags
	outputFlags
}

func (*commandListCmd) Help() string {
	return `Lists a device's commands, the newest first. One that has ended is kept for 90 days after it would have expired, at most 1,000 of a device.

Example:
  holdfast command list pump-1 --data DATA
  holdfast command list pump-1 --state queued -o json --data DATA`
}

func (c *commandListCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	q := url.Values{"device": {c.Device}}
	if c.State != "" {
		q.Set("state", c.State)
	}
	commands, err := all[api.Command](a, hub, "/v1/commands?"+q.Encode())
	if err != nil {
		return err
	}
	rows := make([][]string, len(commands))
	for i, x := range commands {
		rows[i] = commandRow(x)
	}
	return c.print(a, commands, commandHeader(), rows)
}

type commandShowCmd struct {
	ID   string        `arg:"" help:"The command's id."`
	Wait time.Duration `help:"Wait so long for the device's answer." placeholder:"DURATION" env:"-"`
	hubFlags
	outputFlags
}

func (*commandShowCmd) Help() string {
	return `Shows a command and what came of it; its arguments are in the JSON.

Example:
  holdfast command show gq3tembtgm2tkmrzgq3tembtgm -o json --data DATA`
}

func (c *commandShowCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	x, err := awaited(a, hub, c.ID, c.Wait)
	if err != nil {
		return err
	}
	return c.print(a, x, commandHeader(), [][]string{commandRow(x)})
}

type commandCancelCmd struct {
	ID string `arg:"" help:"The command's id."`
	hubFlags
}

func (*commandCancelCmd) Help() string {
	return `Takes back a command that its device does not have yet. What a device has can't be called back: send it another command.

Example:
  holdfast command cancel gq3tembtgm2tkmrzgq3tembtgm --data DATA`
}

func (c *commandCancelCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var x api.Command
	if err := hub.Do(a.ctx, http.MethodDelete, named("/v1/commands", c.ID), nil, &x); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Command %s is cancelled.\n", x.ID)
	return nil
}
