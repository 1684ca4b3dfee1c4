package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast/internal/api"
)

// Whatever has become of an erasure that was asked for, who asked reads it, with the
// commands that he or another types next, whole.
func TestWhatWhoErasesReads(t *testing.T) {
	until := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const id, joint = "5kb52cvasbyszu3ettmrj3cziu", "gq3tembtgm2tkmrzgq3tembtgm"
	mine := hubFlags{Hub: "https://hub.example:8443", Token: "/home/anna/my token", CA: "/home/anna/it's.pem", For: "Home"}
	for _, c := range []struct {
		name     string
		flags    hubFlags
		e        api.Erasure
		missing  string   // why there is no certificate to wait for
		says     []string // in its text
		commands [][]string
	}{
		{"in bulk, by an administrator at the machine", hubFlags{Data: "/var/lib/hold fast"},
			api.Erasure{ID: id, State: "approval", Until: &until, Pending: "another one has to approve it, and could be deputy (x)"}, "another administrator has to approve it",
			[]string{"Nothing is erased yet: another one has to approve it, and could be deputy (x). Until 2026-11-30T12:00:00Z"},
			[][]string{{"holdfast", "erasure", "approve", id, "--data", "/var/lib/hold fast", "--identity", "HIS-FOLDER"}}},
		{"in bulk, by an administrator's token", hubFlags{Hub: "https://hub.example:8443", Token: "admin.token", CA: "hub ca.pem"},
			api.Erasure{ID: id, State: "approval", Until: &until, Pending: "why"}, "another administrator has to approve it", nil,
			[][]string{{"holdfast", "erasure", "approve", id, "--hub", "https://hub.example:8443", "--ca", "hub ca.pem", "--token", "HIS.token"}}},
		{"with a window", mine, api.Erasure{ID: id, State: "waiting", Until: &until, Pending: "a claim"}, "it can still be undone",
			[]string{"Refused on every path from now on. Why: a claim. Until 2026-11-30T12:00:00Z it can be undone"},
			[][]string{{"holdfast", "erasure", "undo", id, "--hub", mine.Hub, "--token", mine.Token, "--ca", mine.CA, "--for", "Home"},
				{"holdfast", "erasure", "show", id, "--certificate", "FILE", "--hub", mine.Hub, "--token", mine.Token, "--ca", mine.CA, "--for", "Home"}}},
		{"a household's", mine, api.Erasure{State: "waiting", Joint: &api.JointErasure{ID: joint, Until: &until, Missing: []string{"x", "y"}}}, "it waits for others' word",
			[]string{"Nothing is erased yet: it waits for the word of 2 more adults, until 2026-11-30T12:00:00Z"},
			[][]string{{"holdfast", "member", "confirm", joint, "--certificate", "our home.cert", "--hub", mine.Hub, "--ca", mine.CA, "--token", "HIS.token"}}},
		{"at once", mine, api.Erasure{ID: id, State: "asked"}, "", []string{"Erasure " + id + ": refused on every path from now on."}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := &eraseCmd{hubFlags: c.flags, Certificate: "/home/anna/our home.cert"}
			if missing := cmd.asked(&app{stdout: &out, stderr: &out}, c.e); missing != c.missing {
				t.Errorf("no certificate, since %q", missing)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("it does not say %q: %s", text, &out)
				}
			}
			var typed [][]string
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "  holdfast ") {
					typed = append(typed, words(t, line))
				}
			}
			if !slices.EqualFunc(typed, c.commands, slices.Equal) {
				t.Errorf("to be typed: %q, not %q", typed, c.commands)
			}
			p, err := parser()
			if err != nil {
				t.Fatal(err)
			}
			for _, words := range typed {
				if _, err := p.Parse(words[1:]); err != nil {
					t.Errorf("%q: %v", words, err)
				}
			}
		})
	}
}

// words are those of a line as a shell reads it.
func words(t *testing.T, line string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\n' `+strings.TrimSpace(line)).Output()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}
