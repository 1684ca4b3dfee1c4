package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/client"
)

type enrolCmd struct {
	Code string `arg:"" optional:"" help:"The enrolment code that 'device add' printed; - reads it from standard input." placeholder:"hf1:..."`
	Out  string `required:"" help:"Folder for the identity: key.pem, cert.pem, ca.pem, hub.json." placeholder:"DIR" type:"path"`

	URL      string `name:"url" help:"In place of the code: the hub, https://HOST:8444." placeholder:"URL"`
	Device   string `help:"In place of the code: the device's id." placeholder:"ID"`
	Secret   string `name:"code" help:"In place of the code: its secret." placeholder:"SECRET"`
	CASHA256 string `name:"ca-sha256" help:"In place of the code: SHA-256 of the authority's public key." placeholder:"HEX"`

	Renew bool `help:"Renew the identity in the folder instead, with a new key."`
}

func (*enrolCmd) Help() string {
	return `Makes a key on this device, gets a certificate for it with the one-time code (EST, RFC 7030) and writes both to a folder. Nothing is trusted but
the authority whose hash stands in the code. The key never leaves the device. If it fails half-way, run it again: the code still works for the
same folder.

Example:
  holdfast enrol hf1:hub.example:8444/DEVICE/SECRET/HASH --out pump-1
  holdfast send --identity pump-1 temperature=21.5

A certificate lives 30 days. 'holdfast send' renews it by itself; from cron, use
  holdfast enrol --renew --out pump-1`
}

func (c *enrolCmd) Run(a *app) error {
	if c.Renew {
		return c.renew(a)
	}
	code, err := c.code(a)
	if err != nil {
		return err
	}
	i, err := client.Enrol(a.ctx, code, c.Out)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Device %s has its certificate, valid until %s, in %s.\n", i.Device, i.NotAfter.UTC().Format(time.DateOnly), c.Out)
	return nextSteps(a, i)
}

// code reads the enrolment code, or puts it together from its parts.
func (c *enrolCmd) code(a *app) (client.Code, error) {
	parts := c.URL != "" || c.Device != "" || c.Secret != "" || c.CASHA256 != ""
	switch {
	case parts && c.Code != "":
		return client.Code{}, usagef("give the code, or --url, --device, --code and --ca-sha256, not both")
	case parts:
		code, err := client.NewCode(c.URL, c.Device, c.Secret, c.CASHA256)
		if err != nil {
			return code, usageError{err}
		}
		return code, nil
	case c.Code == "":
		return client.Code{}, usagef("give the code that 'holdfast device add' printed: hf1:...")
	}
	code, err := client.ParseCode(secretArg(a, c.Code))
	if err != nil {
		return code, usageError{err}
	}
	return code, nil
}

// secretArg is a code of the command line, or, for -, a line of standard input:
// other users of a machine see command lines.
func secretArg(a *app, text string) string {
	if text == "-" {
		buf := make([]byte, 1024)
		n := 0
		for n < len(buf) && !strings.Contains(string(buf[:n]), "\n") {
			m, err := a.stdin.Read(buf[n:])
			n += m
			if err != nil {
				break
			}
		}
		text, _, _ = strings.Cut(string(buf[:n]), "\n")
	}
	return strings.TrimSpace(text)
}

func (c *enrolCmd) renew(a *app) error {
	i, err := client.Renew(a.ctx, c.URL, c.Out)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "Device %s has a new certificate, valid until %s, in %s.\n", i.Device, i.NotAfter.UTC().Format(time.DateOnly), c.Out)
	return nil
}

// nextSteps prints commands that work as they stand with this identity.
func nextSteps(a *app, i client.Identity) error {
	dir := shown(i.Dir)
	u, err := url.Parse(i.Hub.Device)
	if err != nil {
		return err
	}
	file := func(name string) string { return quoted(filepath.Join(dir, name)) }
	fmt.Fprintf(a.stdout, "\nSend a reading, with any of these:\n\n  holdfast send --identity %s temperature=21.5\n\n", quoted(dir))
	fmt.Fprintf(a.stdout, "  curl -fsS --cacert %s --cert %s --key %s \\\n    -d '[{\"n\":\"temperature\",\"u\":\"Cel\",\"v\":21.5}]' %s/v1/data\n\n",
		file("ca.pem"), file("cert.pem"), file("key.pem"), i.Hub.Device)
	port := "8883"
	if m, err := url.Parse(i.Hub.MQTT); err == nil && m.Port() != "" {
		port = m.Port()
	}
	fmt.Fprintf(a.stdout, "  mosquitto_pub -h %s -p %s --cafile %s --cert %s --key %s \\\n    -q 1 -t data/temperature -m 21.5\n",
		u.Hostname(), port, file("ca.pem"), file("cert.pem"), file("key.pem"))
	if i.Hub.MQTT == "" {
		fmt.Fprintf(a.stdout, "\n(8883 is the usual port of MQTT; what this hub uses is in the first lines that serve prints.)\n")
	}
	return nil
}

// shown is a path as short as it can be typed here.
func shown(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil && len(short) < len(path) {
		return short
	}
	return path
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quoted is s as a shell reads it back.
func quoted(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
