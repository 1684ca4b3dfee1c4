package main

import (
	"time"

	"github.com/holdfast-iot/holdfast/internal/demo"
)

type demoCmd struct {
	Check bool          `help:"Tell the story once, without waiting, and exit 0 if every promise was kept, else 1."`
	For   time.Duration `help:"How long the devices send." default:"60s" placeholder:"60s"`
	Seed  uint64        `help:"Other devices, other faults: the same seed sends the same readings." default:"1" placeholder:"N"`
}

func (demoCmd) Help() string {
	return `Starts a whole hub in a temporary folder, joins the devices of several owners to it
over mutual TLS (a bearing test bench, three wearables, a courier firm's vans, a
shop's cold room), and lets them send with the faults of real fleets: gaps, wrong
clocks, tunnels, late batches, repeats. Then it shows who may read what: the couriers
and the maker of their trackers follow the same readings live, a shop is warned by a
signed webhook, an owner grants and erases; and that the record holds. Nothing is left
behind.

Example:
  holdfast demo --check`
}

func (c *demoCmd) Run(a *app) error {
	o := demo.RunOptions{Out: a.stdout, For: c.For, Seed: c.Seed}
	if c.Check {
		o.For = 0
	}
	return demo.Run(a.ctx, o)
}
