package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/receipt"
)

type grantReceiptCmd struct {
	ID   string `arg:"" help:"The grant's id."`
	File string `arg:"" optional:"" help:"Write it to this new file; left out: print it." type:"path"`
	hubFlags
}

func (*grantReceiptCmd) Help() string {
	return `The receipt of a grant in the words of ISO/IEC TS 27560 and the W3C Data Privacy Vocabulary, signed by the hub: what was allowed, to whom, for what and
until when, and whether it was taken back. Both sides may keep it, and anybody can check it without the hub.

Example:
  holdfast grant receipt gq3tembtgm2tkmrzgq3tembtgm receipt.json --token my.token --hub https://HOST:8443
  holdfast verify receipt.json`
}

func (c *grantReceiptCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := fetch(a, hub, named("/v1/grants", c.ID)+"/receipt", c.File); err != nil || c.File == "" {
		return err
	}
	fmt.Fprintf(a.stdout, "The receipt is in %s. To check it, without a hub:\n\n  holdfast verify %s\n", c.File, c.File)
	return nil
}

type grantAgreementCmd struct {
	ID   string `arg:"" help:"The grant's id."`
	File string `arg:"" optional:"" help:"Write it to this new file; left out: print it." type:"path"`
	hubFlags
}

func (*grantAgreementCmd) Help() string {
	return `A grant as an agreement in ODRL 2.2 (JSON-LD), for programs that know rights by that language.

Example:
  holdfast grant agreement gq3tembtgm2tkmrzgq3tembtgm --token my.token --hub https://HOST:8443`
}

func (c *grantAgreementCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	return fetch(a, hub, named("/v1/grants", c.ID)+"/agreement", c.File)
}

// fetch writes what is at a path, byte for byte, to a new file or to the output.
func fetch(a *app, hub *client.Client, path, file string) error {
	body, _, err := hub.Stream(a.ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if file == "" {
		_, err = io.Copy(a.stdout, body)
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usagef("%s is there already: name a new file", file)
	} else if err != nil {
		return fileError("file", err)
	}
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(file))
	}
	return nil
}

func (c *verifyCmd) receipt(a *app, text []byte) error {
	r, err := receipt.Verify(text, c.key())
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	err = printTable(a.stdout, nil, [][]string{
		{"receipt", r.Receipt}, {"hub", r.Hub}, {"state", r.State}, {"since", r.Created}, {"purpose", r.Purpose}, {"recipient", r.Recipient}, {"until", r.Until},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	c.good(a, r.Verifier)
	return nil
}

func (c *verifyCmd) report(a *app, text []byte) error {
	r, err := receipt.VerifyReport(text, c.key())
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(a.stdout, r)
	}
	if err := printTable(a.stdout, nil, [][]string{{"report of", r.Person}, {"hub", r.Hub}, {"made", when(r.Made)}}); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	c.good(a, r.Verifier)
	return nil
}
