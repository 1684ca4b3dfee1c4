package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

// preview shows what the erasure would do.
func (c *eraseCmd) preview(a *app, hub *client.Client, t target) error {
	var p api.ErasurePreview
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/erasures/preview", t, &p); err != nil {
		return err
	}
	if c.json() {
		return c.print(a, p, nil, nil)
	}
	fmt.Fprintf(a.stdout, "Would go: %s (%s).\n", c.What+c.span(), many(p.Devices, "device"))
	if err := previewTexts(a.stdout, p); err != nil {
		return err
	}
	switch {
	case p.How == "part" && p.Reseal > 0:
		fmt.Fprintf(a.stdout, "In part: about %s that share a key with it are sealed again.\n", many(int(p.Reseal), "reading"))
	case p.How == "month":
		fmt.Fprintln(a.stdout, "By dropping the keys of the month: nothing is sealed again.")
	}
	if p.Waits != "" {
		fmt.Fprintf(a.stdout, "Asked for now, %s.\n", cell(p.Waits))
	}
	switch {
	case p.Undo != "":
		fmt.Fprintf(a.stdout, "It can be undone for %s.\n", p.Undo)
	case p.Refused == "":
		fmt.Fprintln(a.stdout, "Once it has begun it can't be undone: --undo 24h has it wait for a day.")
	}
	fmt.Fprintln(a.stdout, "Nothing was erased.")
	return nil
}

// goes shows what the hub would erase, to who is to say yes to it.
func (c *eraseCmd) goes(a *app, hub *client.Client, t target) error {
	var p api.ErasurePreview
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/erasures/preview", t, &p); err != nil {
		return err
	}
	return previewTexts(a.stderr, p)
}

// previewTexts writes what would go, what of it others have, and what stays.
func previewTexts(w io.Writer, p api.ErasurePreview) error {
	if p.First != nil && p.Readings != nil && p.Bytes != nil {
		about := ""
		if p.About {
			about = "About "
		}
		stored := fmt.Sprintf("%d bytes stored", *p.Bytes)
		if *p.Bytes == 0 {
			stored = "not in a segment yet"
		}
		fmt.Fprintf(w, "%s%s, taken %s to %s, %s.\n", about, many(int(*p.Readings), "reading"), whenever(p.First), whenever(p.Last), stored)
	}
	if err := previewTables(w, p); err != nil {
		return err
	}
	if p.Recipients > 0 && len(p.Received) == 0 {
		have := "have received some of it and are"
		if p.Recipients == 1 {
			have = "has received some of it and is"
		}
		fmt.Fprintf(w, "%s %s told to delete it.\n", many(p.Recipients, "recipient"), have)
	}
	if x := p.Also; x != nil {
		fmt.Fprintf(w, "With it go %s, %s, %s and %s.\n", many(x.Credentials, "credential"), many(x.Grants, "grant"), many(x.Webhooks, "webhook"), many(x.Alarms, "alarm"))
	}
	if p.Ends > 0 {
		are := "is not over and ends"
		if p.Ends > 1 {
			are = "are not over and end"
		}
		fmt.Fprintf(w, "%s %s with it: what is measured later belongs to the device's owner, who can read it.\n", many(p.Ends, "period"), are)
	}
	for _, k := range p.Kept {
		fmt.Fprintf(w, "Kept: assignment %s, by %s %s\n", k.Assignment, k.Why, k.Hold)
	}
	if p.Refused != "" {
		fmt.Fprintf(w, "It would be refused: %s.\n", p.Refused)
	}
	return nil
}

func previewTables(w io.Writer, p api.ErasurePreview) error {
	if len(p.Streams) > 0 {
		rows := make([][]string, len(p.Streams))
		for i, s := range p.Streams {
			device := s.Label
			if device == "" {
				device = s.Device
			}
			rows[i] = []string{device, s.Stream, strconv.FormatUint(s.Readings, 10), strconv.FormatInt(s.Bytes, 10), whenever(s.First), whenever(s.Last)}
		}
		if err := printTable(w, []string{"DEVICE", "STREAM", "READINGS", "BYTES", "FIRST", "LAST"}, rows); err != nil {
			return err
		}
	}
	if len(p.Received) == 0 {
		return nil
	}
	rows := make([][]string, len(p.Received))
	for i, r := range p.Received {
		rows[i] = []string{partyName(r.Recipient), r.Purpose, strconv.FormatUint(r.Rows, 10), whenever(r.Last)}
	}
	return printTable(w, []string{"RECEIVED BY", "FOR", "ROWS", "LAST"}, rows)
}
