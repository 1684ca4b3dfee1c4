package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/parquet-go/parquet-go"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

// What nothing else on the hub holds: readings of Anna's, and what she calls them.
var (
	plantedValues = []string{"7351.625", "amber-heron-words", "61.735194", "24.306217"}
	plantedNames  = []string{"annas-private-watch", "quietnumber", "quiettext", "quietplace"}
)

// Every command is tried by a stranger, a recipient, staff and the owner. A reading
// that one prints, or writes to a file, is read by its owner or under his grant, and
// stands on a disclosure to that very reader; a stranger is told not even a name. A
// command that is new fails this test until it says how it is tried.
func TestNoCommandReadsWithoutADecision(t *testing.T) {
	h := newHouse(t)
	h.everyCommandIsKnown()
	all := tries()
	changing := slices.IndexFunc(all, func(c try) bool { return c.command == "party add" })
	var told sync.WaitGroup
	for _, r := range []string{"stranger", "recipient", "recipient's program", "staff", "owner"} {
		which := all[:changing]
		if r == "recipient's program" { // it may ask for readings, and what else it may is tried in internal/server
			which = slices.DeleteFunc(slices.Clone(which), func(c try) bool { return c.command != "query" && c.command != "export" })
		}
		p := h.parser()
		told.Go(func() { h.tryAll(p, r, which) })
	}
	told.Wait()
	p := h.parser()
	for i := range all[changing:] { // each by the stranger before the owner ends what it is about
		h.tryAll(p, "stranger", all[changing+i:][:1])
		h.tryAll(p, "owner", all[changing+i:][:1])
	}
	for _, r := range []string{"recipient's program", "owner"} {
		if h.shown[r] == 0 {
			t.Errorf("no command showed the %s a reading: the test asks for nothing", r)
		}
	}
	t.Logf("readings were shown by %v commands", h.shown)
}

// house is a hub with an owner, a stranger who owns something too, a recipient with a
// grant for one stream, and its staff.
type house struct {
	*people
	names *strings.Replacer
	hub   *client.Client // as the owner
	ids   map[string]string
	files atomic.Int64

	mu    sync.Mutex
	shown map[string]int // commands that showed a reader planted values
}

func newHouse(t *testing.T) *house {
	h := &house{people: startPeople(t), ids: map[string]string{}, shown: map[string]int{}}
	person := func(name, kind string) {
		h.ids[name] = h.made(h.as("", "party", "add", name, "--kind", kind))
		link := wordOf(t, h.do(exitDone, h.as("", "party", "invite", name)...), "https://")
		h.ids["{link}"] = link
		h.do(exitDone, "party", "redeem", link, "--data", h.data, "--out", h.file(name+".token"))
	}
	person("Anna", "person")
	person("Ben", "person")
	person("Clinic", "organisation")
	h.ids["Carl"] = h.made(h.as("", "party", "add", "Carl", "--kind", "person"))
	device := func(label, owner string, samples ...holdfast.Sample) {
		out := h.do(exitDone, h.as("", "device", "add", label, "--owner", owner)...)
		h.do(exitDone, "enrol", wordOf(t, out, "hf1:"), "--out", h.file(label))
		i, err := client.LoadIdentity(h.file(label))
		if err != nil {
			t.Fatal(err)
		}
		h.ids[label] = i.Device.String()
		c, err := client.New(client.Options{Hub: i.Hub.Device, Identity: h.file(label), AnyName: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Send(t.Context(), samples...); err != nil {
			t.Fatal(err)
		}
	}
	device(plantedNames[0], "Anna",
		holdfast.Sample{Stream: plantedNames[1], Value: holdfast.NumberValue(7351.625)},
		holdfast.Sample{Stream: plantedNames[2], Value: holdfast.TextValue(plantedValues[1])},
		holdfast.Sample{Stream: plantedNames[3], Value: holdfast.LocationValue(holdfast.Position{Latitude: 61.735194, Longitude: 24.306217})})
	device("bens-lamp", "Ben", holdfast.Sample{Stream: "light", Value: holdfast.NumberValue(1)})
	h.do(exitDone, h.as("", "purpose", "add", "study", "--iri", "dpv:AcademicResearch", "--basis", "consent")...)
	label := plantedNames[0]
	for name, line := range map[string]string{
		"{grant}": "grant add --to Clinic --purpose study --until +30d --stream " + plantedNames[1],
		"{hold}":  "hold add claim --party Anna --reason case",
		"{group}": "group add ward --device " + h.ids[label], "{notice}": "device notice ask --reason gone " + label,
		"{permission}": "permission ask Anna --reason why", "{assignment}": "assignment add --basis loan --owner " + h.ids["Carl"] + " --from 2030-01-01T00:00:00Z --to 2030-02-01T00:00:00Z " + label,
		"{transfer}": "device transfer offer " + label, "{command}": "command send " + label + " blink", "{credential}": "token add annas-own --role owner",
		"{webhook}": "webhook add annas-hook https://annas.invalid/", "{alarm}": "alarm add annas --device " + label + " --stream " + plantedNames[1] + " --silence 700h",
	} {
		as := "Anna.token"
		switch name {
		case "{hold}", "{notice}", "{permission}":
			as = ""
		case "{group}":
			as = "Clinic.token"
		}
		h.ids[name] = h.made(h.as(as, strings.Fields(line)...))
	}
	h.do(exitDone, h.as("Clinic.token", "token", "add", "wards", "--purpose", "study", "--out", h.file("program.token"))...)
	if err := os.WriteFile(h.file("profile.json"), []byte(`{"name": "band", "version": 1, "streams": [{"name": "pulse", "type": "number", "unit": "1/min", "purposes": ["operation"]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	pairs := []string{"{device}", h.ids[label], "{label}", label, "{anna}", h.ids["Anna"], "{profile}", h.file("profile.json"), "{number}", plantedNames[1], "{text}", plantedNames[2], "{place}", plantedNames[3]}
	for name, id := range h.ids {
		if strings.HasPrefix(name, "{") {
			pairs = append(pairs, name, id)
		}
	}
	h.names = strings.NewReplacer(pairs...)
	var err error
	if h.hub, err = (&hubFlags{Token: h.file("Anna.token"), Data: h.data, CA: filepath.Join(h.data, "admin", "ca.pem")}).connect(&app{ctx: t.Context()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.hub.Close() })
	return h
}

// as adds who asks: the token of that file, or the administrator.
func (h *house) as(token string, args ...string) []string {
	if token == "" {
		return append(args, "--data", h.data)
	}
	return h.people.as(token, args...)
}

// made is the id of what a command makes.
func (h *house) made(args []string) string {
	h.t.Helper()
	out := h.do(exitDone, append(args, "-o", "json")...)
	_, rest, _ := strings.Cut(out, `"id": "`)
	id, _, ok := strings.Cut(rest, `"`)
	if !ok {
		h.t.Fatalf("holdfast %s makes nothing with an id: %s", strings.Join(args, " "), out)
	}
	return id
}

func wordOf(t *testing.T, out, prefix string) string {
	t.Helper()
	for _, w := range strings.Fields(out) {
		if w = strings.Trim(w, `"',`); strings.HasPrefix(w, prefix) {
			return w
		}
	}
	t.Fatalf("no word begins with %s: %s", prefix, out)
	return ""
}

// everyCommandIsKnown compares the commands that there are with those that are tried.
func (h *house) everyCommandIsKnown() {
	h.t.Helper()
	p := h.parser()
	said := map[string]bool{}
	for _, c := range tries() {
		if said[c.command] || (len(c.lines) == 0) == (c.apart == "") {
			h.t.Errorf("command %s is said twice, or not how or why not", c.command)
		}
		said[c.command] = true
	}
	for _, n := range p.Model.Leaves(false) {
		command := strings.TrimPrefix(n.FullPath(), "holdfast ")
		if !said[command] {
			h.t.Errorf("command %s is new: say here how to try it, in every way that might show something of somebody's (tries)", command)
		}
		delete(said, command)
	}
	for command := range maps.Keys(said) {
		h.t.Errorf("command %s is gone: take it out of tries", command)
	}
}

func (h *house) tryAll(p *kong.Kong, reader string, all []try) {
	for _, c := range all {
		for _, line := range c.lines {
			h.try(p, reader, c, line)
		}
	}
}

// parser is the command line's, made once for many commands.
func (h *house) parser() *kong.Kong {
	h.t.Helper()
	p, err := parser()
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// try runs a command as one reader and judges what came out of it.
func (h *house) try(p *kong.Kong, reader string, c try, line string) {
	h.t.Helper()
	dir := h.file(fmt.Sprint("try", h.files.Add(1)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	args := strings.Fields(c.command + " " + strings.ReplaceAll(h.names.Replace(line), "{out}", filepath.Join(dir, "out")))
	if !c.bare {
		args = h.as(map[string]string{"stranger": "Ben.token", "recipient": "Clinic.token", "recipient's program": "program.token", "owner": "Anna.token"}[reader], args...)
	} else {
		args = append(args, "--data", h.data)
	}
	before := h.disclosed(reader)
	var out, faults bytes.Buffer
	code := runWith(p, &app{ctx: h.t.Context(), stdout: &out, stderr: &faults, stdin: strings.NewReader("")}, args)
	what := fmt.Sprintf("%s: holdfast %s", reader, strings.Join(args, " "))
	if code == exitUsage {
		h.t.Errorf("%s: the try is mistaken: %s", what, &faults)
	}
	all := h.laidOpen(dir, append(out.Bytes(), faults.Bytes()...))
	values := within(all, plantedValues)
	if len(values) > 0 {
		h.mu.Lock()
		h.shown[reader]++
		h.mu.Unlock()
		if reader == "stranger" || reader == "staff" || strings.HasPrefix(reader, "recipient") && !slices.Equal(values, plantedValues[:1]) {
			h.t.Errorf("%s: shows readings that it may not: %s", what, values)
		}
		after := h.disclosed(reader)
		for i := 0; i < 1500 && c.command == "feed" && after <= before; i++ {
			time.Sleep(20 * time.Millisecond) // a feed is counted when the hub has seen its reader go
			after = h.disclosed(reader)
		}
		if after <= before {
			h.t.Errorf("%s: shows %s, which stands on no disclosure: %d rows before, %d after", what, values, before, after)
		}
	}
	names := within(all, plantedNames)
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, name) })
	})
	if reader == "stranger" && len(names) > 0 {
		h.t.Errorf("%s: tells a stranger %s", what, names)
	}
}

// disclosed is how many readings of Anna's the hub says that a reader was given.
func (h *house) disclosed(reader string) (rows uint64) {
	h.t.Helper()
	found, err := all[api.Recipient](&app{ctx: h.t.Context()}, h.hub, "/v1/me/recipients")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, r := range found {
		party := ""
		if r.Recipient != nil {
			party = r.Recipient.ID
		}
		is := map[string]bool{"owner": r.As == "self", "staff": r.As == "staff", "stranger": party == h.ids["Ben"], "recipient's program": party == h.ids["Clinic"] && r.Role == "program", "recipient": party == h.ids["Clinic"] && r.Role == "owner"}
		if is[reader] {
			rows += r.Rows
		}
	}
	return rows
}

// laidOpen is what a command printed and wrote, the rows of Parquet as text.
func (h *house) laidOpen(dir string, printed []byte) []byte {
	h.t.Helper()
	all := h.plain(printed)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(append(append(all, '\n'), filepath.Base(path)+"\n"...), h.plain(text)...)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func (h *house) plain(b []byte) []byte {
	h.t.Helper()
	end := bytes.LastIndex(b, []byte("PAR1")) // what it says on stderr comes behind
	if !bytes.HasPrefix(b, []byte("PAR1")) || end < 4 {
		return b
	}
	file, err := parquet.OpenFile(bytes.NewReader(b[:end+4]), int64(end+4))
	if err != nil {
		h.t.Fatal(err)
	}
	text := bytes.Clone(b[end+4:])
	for _, group := range file.RowGroups() {
		rows := group.Rows()
		buf := make([]parquet.Row, 16)
		for {
			n, err := rows.ReadRows(buf)
			for _, row := range buf[:n] {
				text = fmt.Appendf(text, "%v\n", row)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				h.t.Fatal(err)
			}
		}
		rows.Close()
	}
	return text
}

func within(b []byte, planted []string) (found []string) {
	for _, p := range planted {
		if bytes.Contains(b, []byte(p)) {
			found = append(found, p)
		}
	}
	return found
}
