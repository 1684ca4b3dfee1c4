// Command holdfast runs a hub for connected devices and talks to one. Each verb
// is a file of its own; `holdfast VERB --help` explains it with an example.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"regexp"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/server"
)

// commands is every verb. Flags are read from the command line, then from the
// environment as HOLDFAST_NAME_OF_FLAG.
type commands struct {
	Init   initCmd   `cmd:"" help:"Make a data folder, a root key and the first administrator."`
	Serve  serveCmd  `cmd:"" help:"Run the hub."`
	Demo   demoCmd   `cmd:"" help:"See it all at once: a hub, devices, owners, a grant, an erasure."`
	Enrol  enrolCmd  `cmd:"" help:"Get this device its certificate with an enrolment code."`
	Send   sendCmd   `cmd:"" help:"Send readings as a device."`
	Intake intakeCmd `cmd:"" help:"Bring in readings from what is there already: an MQTT broker."`

	Party      partyCmd      `cmd:"" help:"People, households, organisations and services."`
	Member     memberCmd     `cmd:"" help:"Who belongs to a household or organisation, and what waits for your word."`
	Token      tokenCmd      `cmd:"" help:"Credentials of people and programs."`
	Login      loginCmd      `cmd:"" help:"Log in at an issuer that the hub believes, and keep its token."`
	Session    sessionCmd    `cmd:"" help:"What you can come in with, and ending it."`
	Factor     factorCmd     `cmd:"" help:"A second factor for what can't be undone."`
	Profile    profileCmd    `cmd:"" help:"Device models."`
	Device     deviceCmd     `cmd:"" help:"Devices: add, show, revoke, claim, transfer, release."`
	Command    commandCmd    `cmd:"" help:"Tell a device what to do, and see what came of it."`
	Twin       twinCmd       `cmd:"" help:"What is wanted of a device, and what it says of itself."`
	Purpose    purposeCmd    `cmd:"" help:"Why data may be used."`
	Assignment assignmentCmd `cmd:"" help:"Who has a device when: shifts, loans, rentals, tenancies."`
	Grant      grantCmd      `cmd:"" help:"Who may read an owner's data, and for what."`
	Permission permissionCmd `cmd:"" help:"Staff's permissions to read an owner's data."`
	Hold       holdCmd       `cmd:"" help:"Restrict or object to use, stop collection, keep data for a claim or by law."`
	Retention  retentionCmd  `cmd:"" help:"How long readings are kept."`
	Group      groupCmd      `cmd:"" help:"Devices to be asked about together."`
	Alarm      alarmCmd      `cmd:"" help:"Be told when readings are as they should not be."`
	Webhook    webhookCmd    `cmd:"" help:"Addresses that alarms tell."`
	Query      queryCmd      `cmd:"" help:"Read readings, or windows of them."`
	Feed       feedCmd       `cmd:"" help:"Follow readings as they come."`
	Erase      eraseCmd      `cmd:"" help:"Erase a party, a device or a stream, with a certificate."`
	Rekey      rekeyCmd      `cmd:"" help:"Replace keys that may have become known."`
	Erasure    erasureCmd    `cmd:"" help:"What was asked to be erased: how far it is, undo, approve."`
	Retraction retractionCmd `cmd:"" help:"Who has to delete what he was given, and has."`
	Export     exportCmd     `cmd:"" help:"Take everything of a party along, in open formats."`
	Me         meCmd         `cmd:"" help:"Who reads your data, what for, and a report of it."`
	Verify     verifyCmd     `cmd:"" help:"Check an export, a certificate, a receipt, a report or a proof, without a hub."`
	Ledger     ledgerCmd     `cmd:"" help:"The record of everything that changed or left."`

	Backup  backupCmd  `cmd:"" help:"Copy a hub into a folder, encrypted; what is new since the last time."`
	Restore restoreCmd `cmd:"" help:"Make a new data folder from a backup; try it; confirm it."`

	Keyring keyringCmd `cmd:"" help:"Where the keyring is: copies in other places."`
	Holder  holderCmd  `cmd:"" help:"Who holds the root key: files, TPMs, other programs."`
	Drill   drillCmd   `cmd:"" help:"Prove that erasing works here, with made-up owners: everything is searched afterwards."`
	Doctor  doctorCmd  `cmd:"" help:"What is wrong or weak in a deployment, with the mend."`
	Bench   benchCmd   `cmd:"" help:"What this machine can take: speed and size, measured."`

	Recovery   recoveryCmd   `cmd:"" help:"A way back for the day that every holder of the root key is lost."`
	Upgrade    upgradeCmd    `cmd:"" help:"Carry a data folder to this version, go back, or confirm."`
	Version    versionCmd    `cmd:"" help:"What this program is and was made of."`
	Completion completionCmd `cmd:"" help:"Completion of commands for a shell."`
	Man        manCmd        `cmd:"" help:"The manual page."`

	ShowVersion kong.VersionFlag `name:"version" env:"-" help:"Print the version and leave."`
}

// app is what every verb runs in.
type app struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	stdin  io.Reader
	leave  func(code int) // ends the program where it is; nil: it is not this verb's to end
}

// Exit codes of every verb.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// Every verb has keys or tokens in its memory. Where it can't be turned off, the
	// doctor says what may happen.
	if err := server.NoCoreDumps(); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast: core dumps can't be turned off:", err)
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" { // whose memory keeps owners' keys for months
		if err := server.Uninterrupted(); err != nil {
			fmt.Fprintln(os.Stderr, "holdfast: keys may stay on the stacks of signals:", err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(&app{ctx: ctx, stdout: forPeople(os.Stdout), stderr: os.Stderr, stdin: os.Stdin, leave: os.Exit}, os.Args[1:])
	stop()
	os.Exit(code)
}

// parser reads the command line. It can be used again, one run after another.
func parser() (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("holdfast"),
		kong.Description("A self-hosted backend for connected devices in which every reading belongs to someone."),
		kong.DefaultEnvars("HOLDFAST"),
		kong.Vars{"version": version()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
}

func run(a *app, args []string) (code int) {
	p, err := parser()
	if err != nil {
		fmt.Fprintln(a.stderr, "holdfast:", err)
		return exitFailed
	}
	return runWith(p, a, args)
}

func runWith(p *kong.Kong, a *app, args []string) (code int) {
	left := -1
	p.Stdout, p.Stderr = a.stdout, a.stderr
	p.Exit = func(n int) { left = n; panic(leave{}) }
	defer func() { // --help and --version end here
		if r := recover(); r != nil {
			if _, ok := r.(leave); !ok {
				panic(r)
			}
			code = left
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := p.Parse(withTimes(args))
	if err != nil {
		fmt.Fprintln(a.stderr, "holdfast:", err)
		if pe, ok := errors.AsType[*kong.ParseError](err); ok && pe.Context != nil && pe.Context.Command() != "" {
			verb, _, _ := strings.Cut(pe.Context.Command(), " <") // arguments are not for the shell
			fmt.Fprintf(a.stderr, "Try: holdfast %s --help\n", verb)
		}
		return exitUsage
	}
	if err := noneEmpty(k); err != nil {
		fmt.Fprintln(a.stderr, "holdfast:", err)
		return exitUsage
	}
	settled := a.endsSoon(k)
	err = k.Run(a)
	settled()
	if err != nil && a.ctx.Err() != nil {
		a.tellStopped(k, err)
		return exitFailed
	}
	if err != nil {
		fmt.Fprintln(a.stderr, "holdfast:", err)
		if _, ok := errors.AsType[usageError](err); ok {
			return exitUsage
		}
		return exitFailed
	}
	return exitDone
}

type leave struct{}

// ago is a time before now, as --from and --to take it.
var ago = regexp.MustCompile(`^-[0-9]`)

// withTimes joins "--from -2h" to "--from=-2h": to the parser, what begins with a
// dash is a flag. No flag of ours begins with a digit.
func withTimes(args []string) []string {
	var joined []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return append(joined, args[i:]...)
		}
		if strings.HasPrefix(a, "--") && !strings.Contains(a, "=") && i+1 < len(args) && ago.MatchString(args[i+1]) {
			a += "=" + args[i+1]
			i++
		}
		joined = append(joined, a)
	}
	return joined
}

// noneEmpty refuses flags and arguments that are given and empty: a variable of a
// script that is not set must not make all of a device out of one stream of it.
func noneEmpty(k *kong.Context) error {
	for _, p := range k.Path {
		var v *kong.Value
		name := ""
		switch {
		case p.Resolved: // from the environment, where empty is as good as absent
		case p.Flag != nil:
			v, name = p.Flag.Value, "--"+p.Flag.Name
		case p.Positional != nil:
			v, name = p.Positional, "<"+p.Positional.Name+">"
		}
		if v != nil && isEmpty(v.Target) {
			return usagef("%s is empty: give a value, or leave it out (is a variable not set?)", name)
		}
	}
	return nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return v.Len() == 0
	case reflect.Slice:
		for i := range v.Len() {
			if isEmpty(v.Index(i)) {
				return true
			}
		}
		return v.Len() == 0
	}
	return false
}

// usageError is a mistake on the command line that only the verb can see.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{holdfast.Errorf(holdfast.Invalid, format, args...)}
}
