package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type eraseCmd struct {
	What        string `arg:"" name:"what" help:"PARTY, DEVICE or DEVICE/STREAM, by name or id; ASSIGNMENT or ASSIGNMENT/STREAM, by id."`
	From        string `help:"Only readings from then on, of a device, an assignment or a stream." placeholder:"TIME" env:"-"`
	To          string `help:"Only readings up to then." placeholder:"TIME" env:"-"`
	Category    string `help:"Only streams of this DPV category, or a narrower one: pd:Location." placeholder:"CATEGORY" env:"-"`
	Month       string `help:"Only what arrived in this month, which is over: 2026-03. Its keys are dropped, nothing is sealed again." placeholder:"YYYY-MM" env:"-"`
	Whose       string `help:"Of a device that several use: only what is this party's." placeholder:"PARTY" env:"-"`
	Rest        bool   `help:"Erase what no hold keeps; without it, a hold on any of it refuses all." env:"-"`
	Undo        string `help:"How long it can be undone before anything is destroyed: 24h, 7d; at most 30d." placeholder:"TIME" env:"-"`
	Preview     bool   `help:"Only show what would go, who has received it and what is kept." env:"-"`
	Yes         bool   `help:"Don't ask." env:"-"`
	Certificate string `help:"Write the certificate to this new file. Not needed with --undo or --preview." placeholder:"FILE" type:"path" env:"-"`
	hubFlags
	outputFlags
}

func (*eraseCmd) Help() string {
	return `Erases for good: the keys are destroyed, then the ciphertext, and the hub signs a certificate of it. Shows what will go and asks first. What is a
household's waits for the word of every adult of it, 30 days at most. With --undo it is refused on every path at once, and destroyed when the time is over.

Example:
  holdfast erase pump-1/vibration --to 2025-12-31 --certificate vibration.cert --data DATA
  holdfast erase 5kb52cvasbyszu3ettmrj3cziu --certificate loan.cert --token my.token --hub https://HOST:8443
  holdfast erase watch --category pd:Location --preview --token my.token --hub https://HOST:8443
  holdfast erase watch --month 2026-03 --undo 24h --token my.token --hub https://HOST:8443
  holdfast erase "Ada Lovelace" --certificate ada.cert --data DATA
  holdfast verify ada.cert`
}

// target is what an erasure is asked of, as the API takes it.
type target struct {
	Party    string `json:"party,omitempty"`
	Device   string `json:"device,omitempty"`
	Period   string `json:"assignment,omitempty"`
	Stream   string `json:"stream,omitempty"`
	Category string `json:"category,omitempty"`
	Month    string `json:"month,omitempty"`
	Whose    string `json:"whose,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Rest     bool   `json:"rest,omitempty"`
	Undo     string `json:"undo,omitempty"`
}

func (c *eraseCmd) Run(a *app) error {
	for flag, text := range map[string]string{"--from": c.From, "--to": c.To} {
		if err := checkTime(flag, text); err != nil {
			return err
		}
	}
	switch {
	case strings.HasSuffix(c.What, "/"):
		return usagef("no stream is named behind the / of %s: name one, or leave the / out for all", cell(c.What))
	case !c.Preview && c.Undo == "" && c.Certificate == "":
		return usagef("name a new file for the certificate: --certificate FILE")
	case !c.Preview && !c.Yes && !isTerminal(a.stdin):
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
	if c.Preview {
		return c.preview(a, hub, t)
	}
	if !c.Yes {
		if err := c.goes(a, hub, t); err != nil {
			return err
		}
		if ok, err := c.confirmed(a); err != nil || !ok {
			return errors.Join(err, holdfast.Errorf(holdfast.Conflict, "nothing was erased"))
		}
	}
	return c.erase(a, hub, t)
}

// erase asks for it, and waits for the certificate unless that is a while off.
func (c *eraseCmd) erase(a *app, hub *client.Client, t target) error {
	var file *os.File
	drop := func() error { return nil }
	if c.Certificate != "" {
		var err error
		if file, err = newCertificate(c.Certificate); err != nil {
			return err
		}
		drop = func() error { return errors.Join(file.Close(), os.Remove(c.Certificate)) }
	}
	var e api.Erasure
	if err := hub.Do(a.ctx, http.MethodPost, "/v1/erasures?wait=0", t, &e); err != nil {
		return errors.Join(err, drop())
	}
	words := *a
	if c.json() { // which is alone on the output
		words.stdout = a.stderr
	}
	missing := c.asked(&words, e)
	if missing == "" && file != nil {
		fmt.Fprintln(a.stderr, "Waiting for the certificate.")
		if err := c.awaitErasure(a, hub, &e); err != nil {
			return errors.Join(err, c.told(a, e), drop())
		}
		return errors.Join(writeCertificate(&words, file, c.Certificate, e), c.told(a, e))
	}
	err := c.told(a, e)
	if missing != "" {
		err = errors.Join(c.without(missing), err, drop())
	}
	return err
}

// told writes an erasure as JSON, if that is wanted.
func (c *eraseCmd) told(a *app, e api.Erasure) error {
	if !c.json() {
		return nil
	}
	return c.print(a, e, nil, nil)
}

// asked says what has become of what was asked for, and returns why there is no
// certificate to wait for: "" if there will be.
func (c *eraseCmd) asked(a *app, e api.Erasure) (missing string) {
	switch {
	case e.Joint != nil:
		c.waits(a, *e.Joint)
		return "it waits for others' word"
	case e.State == "approval":
		fmt.Fprintf(a.stdout, "Nothing is erased yet: %s. Until %s he types:\n\n  holdfast erasure approve %s%s\n", cell(e.Pending), whenever(e.Until), e.ID, c.another())
		return "another administrator has to approve it"
	case e.State == "waiting":
		c.undoable(a, e)
		return "it can still be undone"
	}
	fmt.Fprintf(a.stderr, "Erasure %s: refused on every path from now on.\n", e.ID)
	return ""
}

// undoable says until when an erasure that waits can be undone, and how.
func (h *hubFlags) undoable(a *app, e api.Erasure) {
	why := ""
	if e.Pending != "" {
		why = " Why: " + cell(e.Pending) + "."
	}
	fmt.Fprintf(a.stdout, "Refused on every path from now on.%s Until %s it can be undone:\n\n  holdfast erasure undo %s%s\n\nAfter that it is destroyed, and there is a certificate:\n\n  holdfast erasure show %s --certificate FILE%s\n",
		why, whenever(e.Until), e.ID, h.again(), e.ID, h.again())
}

// without is for a certificate that was asked for and is not there yet.
func (c *eraseCmd) without(why string) error {
	if c.Certificate == "" {
		return nil
	}
	return holdfast.Errorf(holdfast.Conflict, "there is no certificate yet: %s", why)
}

// waits says what a household's erasure waits for.
func (c *eraseCmd) waits(a *app, j api.JointErasure) {
	file := "FILE"
	if c.Certificate != "" {
		file = quoted(filepath.Base(c.Certificate))
	}
	fmt.Fprintf(a.stdout, "Nothing is erased yet: it waits for the word of %s, until %s. Each of them types:\n\n  holdfast member confirm %s --certificate %s%s\n",
		many(len(j.Missing), "more adult"), whenever(j.Until), j.ID, file, c.another())
}

// patience is for how many seconds one question waits for the end of an erasure.
const patience = "5"

// awaitErasure asks until the erasure is done, or something keeps it from getting on. It
// needs no credential, which may be gone with the data.
func (h *hubFlags) awaitErasure(a *app, hub *client.Client, e *api.Erasure) error {
	show := fmt.Sprintf("holdfast erasure show %s --certificate FILE%s", e.ID, h.again())
	for e.State != "done" {
		if e.Pending != "" {
			h.inFull(a, hub, e)
			return holdfast.Errorf(holdfast.Unavailable, "erasure %s is refused on every path and goes on by itself; there is no certificate yet. It waits for: %s. Later: %s", e.ID, e.Pending, show)
		}
		if err := hub.Do(a.ctx, http.MethodGet, named("/v1/erasures", e.ID)+"?wait="+patience, nil, e); err != nil {
			return fmt.Errorf("erasure %s goes on: %s: %w", e.ID, show, err)
		}
	}
	return nil
}

// inFull adds to an erasure that waits, of which everybody with its id is told a little,
// what the list tells whoever may see that.
func (h *hubFlags) inFull(a *app, hub *client.Client, e *api.Erasure) {
	if h.Token+h.Identity+h.Data == "" || e.Pending == "" && e.State != "waiting" && e.State != "approval" {
		return
	}
	list, err := all[api.Erasure](a, hub, "/v1/erasures")
	if err != nil { // his credential may be gone with the data
		return
	}
	for _, x := range list {
		if x.ID == e.ID && x.State == e.State && x.Pending != "" {
			e.Pending, e.Deciders = x.Pending, x.Deciders
		}
	}
}

// resolve finds out what is meant and shows it.
func (c *eraseCmd) resolve(a *app, hub *client.Client) (t target, err error) {
	t = target{From: c.From, To: c.To, Rest: c.Rest, Category: c.Category, Month: c.Month, Whose: c.Whose, Undo: c.Undo}
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
		if !c.Preview {
			c.showAssignment(a, x, stream)
		}
		return t, nil
	} else if deviceErr != nil && inDevice {
		return t, deviceErr
	}
	switch {
	case deviceErr == nil && !inDevice && partyErr == nil:
		return t, usagef("a device and a party have this name: give the id, %s or %s", d.ID, p.ID)
	case deviceErr == nil:
		t.Device, t.Stream = d.ID, stream
		c.showDevice(a, d, stream)
		return t, nil
	case partyErr == nil && c.Category == "" && (c.From != "" || c.To != ""):
		return t, usagef("--from and --to are for a device, an assignment, a stream or a category")
	case partyErr == nil && c.Category+c.Month != "":
		t.Party = p.ID
		c.showNarrow(a, p)
		return t, nil
	case partyErr == nil:
		t.Party = p.ID
		return t, c.showParty(a, hub, p)
	}
	return t, holdfast.Errorf(holdfast.NotFound, "there is no device and no party of this name, and no assignment of this id%s", c.underWay(a, hub))
}

// mostUnderWay is how many erasures are named to who asks for what is not there.
const mostUnderWay = 3

// underWay names the newest erasures that the caller may know of and that have taken what
// they are about: that may be what he asks for once more, and its name went with it.
func (c *eraseCmd) underWay(a *app, hub *client.Client) string {
	list, err := all[api.Erasure](a, hub, "/v1/erasures")
	if err != nil {
		return ""
	}
	var named []string
	for _, e := range slices.Backward(list) {
		if (e.State == "asked" || e.State == "destroyed") && len(named) < mostUnderWay {
			named = append(named, fmt.Sprintf("  holdfast erasure show %s%s", e.ID, c.again()))
		}
	}
	if len(named) == 0 {
		return ""
	}
	return "; it may be what an erasure has taken that is under way:\n\n" + strings.Join(named, "\n")
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
	if c.Month != "" {
		span += " that arrived in " + cell(c.Month)
	}
	if c.Category != "" {
		span += " of the category " + cell(c.Category)
	}
	if c.Whose != "" {
		span += " that are " + cell(c.Whose) + "'s"
	}
	if span != "" {
		span = ", its readings" + span + " and no others"
	}
	return span
}

// showNarrow says what of all of a party's is meant.
func (c *eraseCmd) showNarrow(a *app, p api.Party) {
	if !c.Preview {
		fmt.Fprintf(a.stderr, "This will erase, for good, of the %s %s (%s)%s.\n", p.Kind, cell(p.Name), p.ID, c.span())
	}
}

func (c *eraseCmd) showDevice(a *app, d api.Device, stream string) {
	if c.Preview {
		return
	}
	fmt.Fprintf(a.stderr, "This will erase, for good, ")
	span := c.span()
	if stream != "" {
		fmt.Fprintf(a.stderr, "the stream %s of device %s (%s)%s.\n", cell(stream), cell(d.Label), d.ID, span)
	} else {
		fmt.Fprintf(a.stderr, "device %s (%s)%s.\n", cell(d.Label), d.ID, span)
	}
}

func (c *eraseCmd) showParty(a *app, hub *client.Client, p api.Party) error {
	if c.Preview {
		return nil
	}
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

func (c *eraseCmd) confirmed(a *app) (bool, error) {
	undone := "It can't be undone."
	if c.Undo != "" {
		undone = "It can be undone for " + cell(c.Undo) + "."
	}
	fmt.Fprint(a.stderr, undone+" Erase? Type yes: ")
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return false, usagef("nobody is here to ask: give --yes")
	}
	if err != nil {
		return false, fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(answer) == "yes", nil
}
