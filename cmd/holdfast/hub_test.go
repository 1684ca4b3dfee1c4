package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Who does not say which hub, or as whom, is told how to.
func TestConnectWithoutEnough(t *testing.T) {
	empty := t.TempDir()
	stopped := t.TempDir()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("hft1.x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags hubFlags
		want  string
		usage bool
	}{
		{hubFlags{}, "--identity DIR", true},
		{hubFlags{Hub: "https://x"}, "--identity DIR", true},
		{hubFlags{Identity: "a", Token: "b"}, "not both", true},
		{hubFlags{Token: token}, "which hub", true},
		{hubFlags{Token: token, Hub: "https://x"}, "a token looks like", false},
		{hubFlags{Token: filepath.Join(empty, "none"), Hub: "https://x"}, "read token", false},
		{hubFlags{Data: filepath.Join(empty, "none")}, "holdfast init", false},
		{hubFlags{Data: stopped}, "holdfast serve --data", false},
		{hubFlags{Hub: "https://x", Identity: empty}, "key.pem", false},
	} {
		_, err := c.flags.connect(&app{ctx: t.Context()})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.flags, err, c.want)
		}
		if _, usage := errors.AsType[usageError](err); usage != c.usage {
			t.Errorf("%+v: usage is %v", c.flags, usage)
		}
	}
}

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{
		"https://[::]:8443": "https://127.0.0.1:8443", "https://0.0.0.0:1": "https://127.0.0.1:1",
		"https://192.0.2.1:8443": "https://192.0.2.1:8443", "https://hub.example:8443": "https://hub.example:8443",
	} {
		if got := reachable(in); got != want {
			t.Errorf("%s is reached at %s, want %s", in, got, want)
		}
	}
}

// A name that somebody else chose can't steer the terminal or break the table.
func TestTables(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	rows := [][]string{{"a", "\x1b[31mred\ttab\nline"}, {"longer", ""}, {"ünï", when(time.Unix(0, 0))}, {"x", when(time.Time{})}}
	if err := (outputFlags{Output: "table"}).print(a, nil, []string{"NAME", "WHAT"}, rows); err != nil {
		t.Fatal(err)
	}
	want := "NAME    WHAT\na       \ufffd[31mred\ufffdtab\ufffdline\nlonger  -\nünï     1970-01-01T00:00:00Z\nx       -\n"
	if out.String() != want {
		t.Errorf("%q\nwant %q", out.String(), want)
	}
	out.Reset()
	if err := (outputFlags{Output: "json"}).print(a, map[string]string{"a": "<&>"}, nil, rows); err != nil || out.String() != "{\n  \"a\": \"<&>\"\n}\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// What is printed to be typed is read by a shell as it is.
func TestQuoted(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"a/b-c_1.pem", "a b", "it's", `$HOME"\`, "ünï", "~x", ""} {
		got, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quoted(s)).Output()
		if err != nil || string(got) != s {
			t.Errorf("%q is read as %q: %v", s, got, err)
		}
	}
}

func TestEnrolWithoutEnough(t *testing.T) {
	for _, c := range []enrolCmd{{}, {Code: "hf1:x"}, {Code: "hf1:x", URL: "https://x"}, {URL: "https://x"}, {Code: "-"}} {
		a := &app{stdin: strings.NewReader("hf1:nothing\n")}
		_, err := c.code(a)
		if _, usage := errors.AsType[usageError](err); !usage {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
