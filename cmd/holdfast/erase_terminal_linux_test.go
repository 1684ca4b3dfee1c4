package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

// terminal is a pseudo-terminal on which somebody types.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return keyboard, screen
}

// On a terminal what would go is shown before it is asked, and only yes erases.
func TestErasingIsConfirmedOnATerminal(t *testing.T) {
	p := startPeople(t)
	p.do(exitDone, "party", "add", "Anna", "--kind", "person", "--data", p.data)
	link := wordOf(t, p.do(exitDone, "party", "invite", "Anna", "--data", p.data), "https://")
	p.do(exitDone, "party", "redeem", link, "--data", p.data, "--out", p.file("anna.token"))
	out := p.do(exitDone, "device", "add", "watch", "--owner", "Anna", "--data", p.data)
	p.do(exitDone, "enrol", wordOf(t, out, "hf1:"), "--out", p.file("watch"))
	i, err := client.LoadIdentity(p.file("watch"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Hub: i.Hub.Device, Identity: p.file("watch"), AnyName: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Send(t.Context(), holdfast.Sample{Stream: "steps", Value: holdfast.NumberValue(1200)}, holdfast.Sample{Stream: "pulse", Value: holdfast.NumberValue(60)}); err != nil {
		t.Fatal(err)
	}
	erasures := func() (all []api.Erasure) {
		t.Helper()
		if err := json.Unmarshal([]byte(p.do(exitDone, p.as("anna.token", "erasure", "list", "-o", "json")...)), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	types := func(text string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		keyboard, screen := terminal(t)
		if _, err := keyboard.WriteString(text); err != nil {
			t.Fatal(err)
		}
		var out, said bytes.Buffer
		code = run(&app{ctx: t.Context(), stdout: &out, stderr: &said, stdin: screen}, p.as("anna.token", append([]string{"erase"}, args...)...))
		return code, out.String(), said.String()
	}
	const end = "\x04" // of the input
	for _, c := range []struct {
		text string
		code int
		says string
	}{
		{"y\n", exitFailed, "nothing was erased"}, {"YES\n", exitFailed, "nothing was erased"}, {"no\n", exitFailed, "nothing was erased"}, {"\n", exitFailed, "nothing was erased"},
		{"yes please\n", exitFailed, "nothing was erased"}, {"watch\n", exitFailed, "nothing was erased"}, {end, exitUsage, "nobody is here to ask: give --yes"},
	} {
		code, stdout, said := types(c.text, "watch", "--certificate", p.file("watch.cert"))
		if code != c.code || stdout != "" || !strings.Contains(said, c.says) {
			t.Errorf("%q: exit %d, %q, %q", c.text, code, stdout, said)
		}
	}
	if all := erasures(); len(all) > 0 {
		t.Fatalf("%d erasures are begun by other words", len(all))
	}
	if _, err := os.Stat(p.file("watch.cert")); err == nil {
		t.Error("there is a certificate of nothing")
	}

	code, stdout, said := types("yes\n", "watch/steps", "--undo", "24h", "-o", "json")
	var e api.Erasure
	if err := json.Unmarshal([]byte(stdout), &e); code != exitDone || err != nil || e.State != "waiting" || e.Until == nil {
		t.Fatalf("exit %d, %s, %v\n%s", code, stdout, err, said)
	}
	order := []string{"This will erase, for good, the stream steps of device watch", "1 reading, taken ", "watch   steps   1", "It can be undone for 24h. Erase? Type yes: ", "holdfast erasure undo " + e.ID}
	inOrder(t, said, order)
	if strings.Contains(said, "pulse") {
		t.Errorf("what stays is shown: %s", said)
	}
	p.do(exitDone, p.as("anna.token", "erasure", "undo", e.ID)...)

	code, stdout, said = types("yes\n", "watch", "--certificate", p.file("watch.cert"), "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &e); code != exitDone || err != nil || e.Outcome != "fulfilled" {
		t.Fatalf("exit %d, %s, %v\n%s", code, stdout, err, said)
	}
	inOrder(t, said, []string{"This will erase, for good, device watch (", "2 readings, taken ", "It can't be undone. Erase? Type yes: ", "Erasure " + e.ID + ": refused on every path from now on.", "Waiting for the certificate.", "Erased. The certificate is in "})
	if got, err := os.ReadFile(p.file("watch.cert")); err != nil || string(got) != e.Certificate {
		t.Errorf("the certificate is not that of the answer: %v", err)
	}
	if all := erasures(); !slices.ContainsFunc(all, func(x api.Erasure) bool { return x.ID == e.ID && x.State == "done" }) {
		t.Error("the list does not have it")
	}
}

// inOrder fails unless a text has these, one behind the other.
func inOrder(t *testing.T, text string, parts []string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			t.Errorf("%q is not where it should be: %s", part, text)
			return
		}
		rest = after
	}
}
