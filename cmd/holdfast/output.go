package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// outputFlags are those of every listing.
type outputFlags struct {
	Output string `short:"o" enum:"table,json" default:"table" help:"How to print: table or json." placeholder:"FORMAT"`
}

// json reports whether JSON is wanted.
func (o outputFlags) json() bool { return o.Output == "json" }

// print writes v as JSON, or the rows as an aligned table under their header.
func (o outputFlags) print(a *app, v any, header []string, rows [][]string) error {
	if o.json() {
		return printJSON(a.stdout, v)
	}
	return printTable(a.stdout, header, rows)
}

// printJSON writes v, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// many is a number of things: 1 file, 2 files.
func many(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// printTable aligns columns. Without rows it prints the header alone.
func printTable(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell(c))
		}
		fmt.Fprintln(t)
	}
	if len(header) > 0 {
		line(header)
	}
	for _, r := range rows {
		line(r)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// cell shows a text in a table: names come from others, so nothing in them may
// steer the terminal or break the columns. An empty one is a dash.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, s)
}

// when shows a time in a table, in UTC; the zero time is nothing.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
