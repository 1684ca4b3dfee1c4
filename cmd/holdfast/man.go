package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

type manCmd struct{}

func (*manCmd) Help() string {
	return `Prints the manual page, of all commands, as man reads it.

Example:
  holdfast man | man -l -
  holdfast man > /usr/local/share/man/man1/holdfast.1`
}

func (*manCmd) Run(a *app, k *kong.Context) error {
	m := thisProgram()
	date, _, _ := strings.Cut(m.Date, "T") // of the commit, so that a page is the same each time
	_, err := io.WriteString(a.stdout, manual(k.Model, m.Version, date))
	return err
}

// manual is the page in the macros of man(7).
func manual(model *kong.Application, version, date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH HOLDFAST 1 %q %q %q\n", date, "Holdfast "+version, "Holdfast")
	fmt.Fprintf(&b, ".SH NAME\nholdfast \\- %s\n", roff(strings.TrimSuffix(model.Help, ".")))
	b.WriteString(".SH SYNOPSIS\n.B holdfast\n.I COMMAND\n.RI [ FLAGS ]\n")
	b.WriteString(".SH DESCRIPTION\nEach command explains itself with an example: \\fBholdfast \\fICOMMAND\\fB \\-\\-help\\fR. " +
		"Flags are read from the command line, then from the environment as \\fBHOLDFAST_NAME_OF_FLAG\\fR.\n")
	b.WriteString(".SH COMMANDS\n")
	for _, p := range places("", model.Node)[1:] {
		if len(p.verbs) > 0 { // what follows it is told there
			continue
		}
		n := model.Node
		for _, name := range strings.Split(p.at, "/")[1:] {
			for _, child := range n.Children {
				if child.Name == name {
					n = child
					break
				}
			}
		}
		fmt.Fprintf(&b, ".SS %s\n", roff("holdfast "+strings.Join(strings.Split(p.at, "/")[1:], " ")+positions(n)))
		b.WriteString(roff(n.Help) + "\n")
		manDetail(&b, n.Detail)
		for _, f := range n.Flags {
			if f.Hidden {
				continue
			}
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(flagText(f)), roff(f.Help))
		}
	}
	b.WriteString(`.SH EXIT STATUS
0 done, 1 failed, 2 wrong usage.
.SH FILES
The data folder that \fBinit\fR makes, and the root key outside it.
.SH SEE ALSO
https://github.com/holdfast\-iot/holdfast
`)
	return b.String()
}

// positions are the arguments of a command.
func positions(n *kong.Node) (s string) {
	for _, p := range n.Positional {
		s += " " + p.Summary()
	}
	return s
}

func flagText(f *kong.Flag) string {
	text := "--" + f.Name
	if f.Short != 0 {
		text = "-" + string(f.Short) + ", " + text
	}
	if !f.IsBool() && !f.IsCounter() {
		text += "=" + f.FormatPlaceHolder()
	}
	return text
}

// manDetail writes a help text: paragraphs, and its example as it stands.
func manDetail(b *strings.Builder, text string) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if part == "" {
			continue
		}
		head, example, found := strings.Cut(part, "Example:\n")
		if head = strings.TrimSpace(head); head != "" {
			b.WriteString(".PP\n")
			for line := range strings.Lines(head) {
				b.WriteString(roff(strings.TrimSpace(line)) + "\n")
			}
		}
		if found {
			b.WriteString(".PP\n.nf\n")
			for line := range strings.Lines(example) {
				b.WriteString(roff(strings.TrimRight(line, "\n")) + "\n")
			}
			b.WriteString(".fi\n")
		}
	}
}

// roff is text in which nothing is a request or an escape.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
