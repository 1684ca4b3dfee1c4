package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// What is deployed runs commands that this program has: the unit, the image, compose.
func TestDeployedCommandsParse(t *testing.T) {
	t.Setenv("HOLDFAST_DATA", "") // what a tester has set says nothing here
	parses := func(where string, args []string) {
		t.Helper()
		p, err := kong.New(&commands{}, kong.Name("holdfast"), kong.Vars{"version": ""}, kong.Exit(func(int) { t.Errorf("%s: %v leaves", where, args) }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Parse(args); err != nil {
			t.Errorf("%s: holdfast %s: %v", where, strings.Join(args, " "), err)
		}
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/holdfast (.*)$`).FindStringSubmatch(read("deploy/holdfast.service"))
	parses("deploy/holdfast.service", strings.Fields(start[1]))

	lists := regexp.MustCompile(`(?m)CMD (\[.*\])$`).FindAllStringSubmatch(read("Containerfile"), -1)
	if len(lists) != 2 {
		t.Fatalf("the Containerfile has %d commands", len(lists))
	}
	for _, list := range lists {
		var args []string
		if err := json.Unmarshal([]byte(list[1]), &args); err != nil {
			t.Fatal(err)
		}
		if args[0] == "/holdfast" {
			args = args[1:]
		}
		parses("Containerfile", args)
	}
	compose := read("examples/compose/compose.yaml")
	if n := strings.Count(compose, "\n"); n >= 60 {
		t.Errorf("compose.yaml has %d lines", n)
	}
	if !tool(t, "python3") {
		return
	}
	python := exec.CommandContext(t.Context(), "python3", "-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)")
	python.Stdin = strings.NewReader(compose)
	out, err := python.Output()
	if err != nil {
		t.Fatalf("compose.yaml is no YAML, or there is no python3-yaml: %v", err)
	}
	var file struct {
		Services map[string]struct {
			Image, User string
			Command     []string
			ReadOnly    bool `json:"read_only"`
			Volumes     []string
			Healthcheck struct{ Test []string }
		}
		Volumes map[string]any
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`\$\{\w+:-([^}]*)\}`)
	for name, s := range file.Services {
		for i := range s.Command {
			s.Command[i] = variable.ReplaceAllString(s.Command[i], "$1")
		}
		parses("compose, "+name, s.Command)
		for _, v := range s.Volumes {
			if from, _, _ := strings.Cut(v, ":"); !strings.HasPrefix(from, "/") {
				if _, ok := file.Volumes[from]; !ok {
					t.Errorf("compose, %s: volume %s is not declared", name, from)
				}
			}
		}
		if !s.ReadOnly || len(s.Volumes) < 2 {
			t.Errorf("compose, %s: %+v", name, s)
		}
	}
	if check := file.Services["holdfast"].Healthcheck.Test; len(check) < 3 || check[0] != "CMD" || check[1] != "/holdfast" {
		t.Errorf("compose: the health is checked by %v", check)
	} else {
		parses("compose, health", check[2:])
	}
}
