package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/holdfast-iot/holdfast/internal/api"
)

type retractionCmd struct {
	List retractionListCmd `cmd:"" help:"List what you were given and is erased."`
	Ack  retractionAckCmd  `cmd:"" help:"Say that you have deleted it."`
	Of   retractionOfCmd   `cmd:"" help:"Who had what of yours was erased, and who says that it is deleted there."`
}

func (*retractionCmd) Help() string {
	return `Whoever has received readings that are erased is told to delete them: by his webhooks, as erasure.retraction, and by this list. It names ids only.

Example:
  holdfast retraction list --token shop.token --hub https://HOST:8443
  holdfast retraction ack gq3tembtgm2tkmrzgq3tembtgm --token shop.token --hub https://HOST:8443
  holdfast retraction of ERASURE --token my.token --hub https://HOST:8443`
}

func retractionHeader() []string {
	return []string{"ID", "STATE", "RECIPIENT", "STREAMS", "FROM", "TO", "MONTH", "TOLD", "CONFIRMED"}
}

func retractionRow(r api.Retraction) []string {
	return []string{r.ID, r.State, partyName(r.Recipient), fmt.Sprint(len(r.Streams)), whenever(r.From), whenever(r.To), r.Month, whenever(r.Made), whenever(r.Acked)}
}

type retractionListCmd struct {
	hubFlags
	outputFlags
}

func (*retractionListCmd) Help() string {
	return `Lists what your party was given and is erased, the oldest first. -o json has the ids of grants, devices and streams.

Example:
  holdfast retraction list -o json --token shop.token --hub https://HOST:8443`
}

func (c *retractionListCmd) Run(a *app) error {
	return listRetractions(a, &c.hubFlags, c.outputFlags, "/v1/retractions")
}

func listRetractions(a *app, h *hubFlags, o outputFlags, path string) error {
	hub, err := h.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	told, err := all[api.Retraction](a, hub, path)
	if err != nil {
		return err
	}
	rows := make([][]string, len(told))
	for i, r := range told {
		rows[i] = retractionRow(r)
	}
	return o.print(a, told, retractionHeader(), rows)
}

type retractionAckCmd struct {
	ID string `arg:"" help:"The retraction's id."`
	hubFlags
}

func (*retractionAckCmd) Help() string {
	return `Says that what was retracted is deleted, copies and all. The one whose data it was sees it.

Example:
  holdfast retraction ack gq3tembtgm2tkmrzgq3tembtgm --token shop.token --hub https://HOST:8443`
}

func (c *retractionAckCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var r api.Retraction
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/retractions/"+url.PathEscape(c.ID)+"/ack", nil, &r); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Retraction %s: your word that it is deleted is on record.\n", r.ID)
	return nil
}

type retractionOfCmd struct {
	Erasure string `arg:"" help:"The erasure's id."`
	hubFlags
	outputFlags
}

func (*retractionOfCmd) Help() string {
	return `Shows who had received what was erased, and who has confirmed that it is deleted there.

Example:
  holdfast retraction of gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *retractionOfCmd) Run(a *app) error {
	return listRetractions(a, &c.hubFlags, c.outputFlags, named("/v1/erasures", c.Erasure)+"/retractions")
}
