package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type eraseCmd struct {
	What        string `arg:"" name:"what" help:"PARTY, DEVICE or DEVICE/STREAM, by name or id; ASSIGNMENT or ASSIGNMENT/STREAM, by id."`
	From        string `help:"Only readings from then on, of a device, an assignment or a stream." placeholder:"TIME" env:"-"`
	To          string `help:"Only readings up to then." placeholder:"TIME" env:"-"`
	Rest        bool   `help:"Erase what no hold keeps; without it, a hold on any of it refuses all." env:"-"`
	Yes         bool   `help:"Don't ask." env:"-"`
	Certificate string `required:"" help:"Write the certificate to this new file." placeholder:"FILE" type:"path" env:"-"`
	hubFlags
}

func (*eraseCmd) Help() string {
	return `Erases for good: the keys are destroyed, then the ciphertext, and the hub signs a certificate of it. Shows what will go and asks first. What is a
household's waits for the word of every adult of it, 30 days at most.

Example:
  holdfast erase pump-1/vibration --to 2025-12-31 --certificate vibration.cert --data DATA
  holdfast erase 5kb52cvasbyszu3ettmrj3cziu --certificate loan.cert --token my.token --hub https://HOST:8443
  holdfast erase "Ada Lovelace" --certificate ada.cert --data DATA
  holdfast verify ada.cert`
}

// target is what an erasure is asked of, as the API takes it.
type target struct {
	Party  string `json:"party,omitempty"`
	Device string `json:"device,omitempty"`
	Period string `json:"assignment,omitempty"`
	Stream string `json:"stream,omitempty"`
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
	Rest   bool   `json:"rest,omitempty"`
}

func (c *eraseCmd) Run(a *app) error {
	for flag, text := range map[string]string{"--from": c.From, "--to": c.To} {
		if err := checkTime(flag, text); err != nil {
			return err
		}
	}
	if !c.Yes && !isTerminal(a.stdin) {
		return usagef("nobody is here to ask: give --yes")
	}
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	t, err := c.resolve(a, hub)
	if err != nil {
		return err
	}
	if !c.Yes {
		if ok, err := confirmed(a); err != nil || !ok {
			return errors.Join(err, holdfast.Errorf(holdfast.Conflict, "nothing was erased"))
		}
	}
	file, err := os.OpenFile(c.Certificate, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // before it is too late for a mistake in its name
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s is there already: name a new file", c.Certificate)
	}
	if err != nil {
		return fmt.Errorf("make file for the certificate: %w", err)
	}
	var e api.Erasure
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/erasures?wait=0", t, &e); err != nil {
		return errors.Join(err, file.Close(), os.Remove(c.Certificate))
	}
	if e.Joint != nil {
		return errors.Join(c.waits(a, *e.Joint), file.Close(), os.Remove(c.Certificate))
	}
	fmt.Fprintf(a.stderr, "Erasure %s: refused on every path from now on. Waiting for the certificate.\n", e.ID)
	if err := awaitErasure(a, hub, &e); err != nil {
		return fmt.Errorf("erasure %s goes on, GET /v1/erasures/%s has its certificate: %w", e.ID, e.ID, errors.Join(err, file.Close(), os.Remove(c.Certificate)))
	}
	_, err = file.WriteString(e.Certificate)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	if len(e.Kept) > 0 {
		fmt.Fprintf(a.stdout, "Holds keep some of it: %s. The certificate names them.\n", many(len(e.Kept), "part"))
	}
	fmt.Fprintf(a.stdout, "Erased. The certificate is in %s. To check it anywhere, without a hub:\n\n  holdfast verify %s --key '%s'\n", c.Certificate, c.Certificate, e.Verifier)
	return nil
}

// waits says what a household's erasure waits for.
func (c *eraseCmd) waits(a *app, j api.JointErasure) error {
	fmt.Fprintf(a.stdout, "Nothing is erased yet: it waits for the word of %s, until %s. Each of them:\n\n  holdfast member confirm %s --certificate FILE\n",
		many(len(j.Missing), "more adult"), whenever(j.Until), j.ID)
	return nil
}

// awaitErasure asks until the erasure is done. It needs no credential, which may be gone
// with the data.
func awaitErasure(a *app, hub *client.Client, e *api.Erasure) error {
	for e.State != "done" {
		if err := hub.Do(a.ctx, http.MethodGet, named("/v1/erasures", e.ID)+"?wait=20", nil, e); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds out what is meant and shows it.
func (c *eraseCmd) resolve(a *app, hub *client.Client) (t target, err error) {
	t = target{From: c.From, To: c.To, Rest: c.Rest}
	name, stream, inDevice := strings.Cut(c.What, "/")
	var d api.Device
	deviceErr := hub.Do(a.ctx, http.MethodGet, named("/v1/devices", name), nil, &d)
	if deviceErr != nil && holdfast.KindOf(deviceErr) != holdfast.NotFound {
		return t, deviceErr
	}
	var p api.Party
	var partyErr error
	if !inDevice {
		partyErr = hub.Do(a.ctx, http.MethodGet, named("/v1/parties", name), nil, &p)
		if partyErr != nil && holdfast.KindOf(partyErr) != holdfast.NotFound {
			return t, partyErr
		}
	}
	if x, found, err := c.assignment(a, hub, name); err != nil {
		return t, err
	} else if found && deviceErr != nil && (inDevice || partyErr != nil) {
		t.Period, t.Stream = x.ID, stream
		c.showAssignment(a, x, stream)
		return t, nil
	} else if deviceErr != nil && inDevice {
		return t, deviceErr
	}
	switch {
	case deviceErr == nil && !inDevice && partyErr == nil:
		return t, usagef("a device and a party have this name: give the id, %s or %s", d.ID, p.ID)
	case deviceErr == nil:
		t.Device, t.Stream = d.ID, stream
		return t, c.showDevice(a, d, stream)
	case partyErr == nil && (c.From != "" || c.To != ""):
		return t, usagef("--from and --to are for a device, an assignment or a stream")
	case partyErr == nil:
		t.Party = p.ID
		return t, c.showParty(a, hub, p)
	}
	return t, holdfast.Errorf(holdfast.NotFound, "there is no device and no party of this name, and no assignment of this id")
}

// assignment looks for one of this id; a name is none.
func (c *eraseCmd) assignment(a *app, hub *client.Client, name string) (x api.Assignment, found bool, err error) {
	if _, err := holdfast.ParseID[holdfast.AssignmentID](name); err != nil {
		return x, false, nil
	}
	err = hub.Do(a.ctx, http.MethodGet, named("/v1/assignments", name), nil, &x)
	if kind := holdfast.KindOf(err); kind == holdfast.NotFound || kind == holdfast.Denied { // a program's credential sees none
		return x, false, nil
	}
	return x, err == nil, err
}

func (c *eraseCmd) showAssignment(a *app, x api.Assignment, stream string) {
	what := ""
	if stream != "" {
		what = "the stream " + cell(stream) + " of "
	}
	whose := x.Owner
	if x.Subject != nil {
		whose = x.Subject
	}
	fmt.Fprintf(a.stderr, "This will erase, for good, %sassignment %s of device %s, the readings of %s%s.\n", what, x.ID, x.Device, cell(partyName(whose)), c.span())
}

// span says of which readings it is, if not of all.
func (c *eraseCmd) span() (span string) {
	if c.From != "" {
		span = " from " + c.From
	}
	if c.To != "" {
		span += " up to " + c.To
	}
	if span != "" {
		span = ", its readings" + span + " and no others"
	}
	return span
}

func (c *eraseCmd) showDevice(a *app, d api.Device, stream string) error {
	fmt.Fprintf(a.stderr, "This will erase, for good, ")
	span := c.span()
	if stream != "" {
		fmt.Fprintf(a.stderr, "the stream %s of device %s (%s)%s.\n", cell(stream), cell(d.Label), d.ID, span)
	} else {
		fmt.Fprintf(a.stderr, "device %s (%s)%s.\n", cell(d.Label), d.ID, span)
	}
	var shown []api.Stream
	for _, s := range d.Streams {
		if stream == "" || s.Name == stream {
			shown = append(shown, s)
		}
	}
	if len(shown) == 0 {
		return nil
	}
	return printTable(a.stderr, streamHeader(), streamRows(shown))
}

func (c *eraseCmd) showParty(a *app, hub *client.Client, p api.Party) error {
	fmt.Fprintf(a.stderr, "This will erase, for good, the %s %s (%s) with all its devices, readings, grants and credentials.\n", p.Kind, cell(p.Name), p.ID)
	devices, err := all[api.Device](a, hub, "/v1/devices?owner="+url.QueryEscape(p.ID))
	if err != nil || len(devices) == 0 {
		return err
	}
	rows := make([][]string, len(devices))
	for i, d := range devices {
		rows[i] = deviceRow(d)
	}
	return printTable(a.stderr, deviceHeader(), rows)
}

func isTerminal(in any) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

func confirmed(a *app) (bool, error) {
	fmt.Fprint(a.stderr, "It can't be undone. Erase? Type yes: ")
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return false, usagef("nobody is here to ask: give --yes")
	}
	if err != nil {
		return false, fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(answer) == "yes", nil
}
