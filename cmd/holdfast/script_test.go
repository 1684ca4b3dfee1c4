package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"holdfast": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(run(&app{ctx: ctx, stdout: os.Stdout, stderr: os.Stderr, stdin: os.Stdin, leave: os.Exit}, os.Args[1:]))
	}, "slowholder": func() { os.Exit(slowHolder()) }})
}

// Each script is one story that a user can follow. `await FILE` waits for a file,
// as a hub's run.json; `pick VARIABLE PREFIX` takes a word of the last output.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Values[mailbox{}] = &mailbox{}
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, ".config"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":     await,
			"pick":      pick,
			"receiver":  receiver,
			"delivered": delivered,
		},
	})
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: await FILE")
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not appear", args[0])
		}
	}
}

// pick sets a variable to the first word of the last output that begins with the
// prefix; of JSON, NAME: is the value of that member.
func pick(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: pick VARIABLE PREFIX")
	}
	member, named := strings.CutSuffix(args[1], ":")
	words := strings.Fields(ts.ReadFile("stdout"))
	for i, word := range words {
		if named && word == `"`+member+`":` && i+1 < len(words) {
			ts.Setenv(args[0], strings.Trim(words[i+1], `",`))
			return
		}
		word = strings.Trim(word, `"',`)
		if strings.HasPrefix(word, args[1]) {
			ts.Setenv(args[0], word)
			return
		}
	}
	ts.Fatalf("no word of the output begins with %s", args[1])
}
