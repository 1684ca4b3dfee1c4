package server

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documentedRoutes are those that the first columns of a page's tables name: methods,
// then the path that they are for, each between backticks. A path without a method has
// those of the one before it; one that ends in /... stands for all that begin so; .../x
// for the path before it with x as its last part.
func documentedRoutes(t *testing.T, page string) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	method, part := regexp.MustCompile(`^[A-Z]+$`), regexp.MustCompile("`([^`]+)`")
	var out []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cell, _, _ := strings.Cut(line[2:], " | ")
		var methods []string
		before, fresh := "", false
		for _, m := range part.FindAllStringSubmatch(cell, -1) {
			for word := range strings.FieldsSeq(m[1]) {
				if method.MatchString(word) {
					if !fresh {
						methods = nil
					}
					methods, fresh = append(methods, word), true
					continue
				}
				path, _, _ := strings.Cut(word, "?")
				if rest, ok := strings.CutPrefix(path, ".../"); ok {
					path = before[:strings.LastIndex(before, "/")+1] + rest
				}
				if !strings.HasPrefix(path, "/") {
					continue
				}
				before, fresh = path, false
				if len(methods) == 0 {
					out = append(out, path)
				}
				for _, m := range methods {
					out = append(out, m+" "+path)
				}
			}
		}
	}
	return out
}

// inDocument says whether a route is one of those, whatever its parameters are called.
func inDocument(said []string, route string) bool {
	parameter := regexp.MustCompile(`\{[^}]*\}`)
	plain := func(s string) string { return parameter.ReplaceAllString(s, "{}") }
	return slices.ContainsFunc(said, func(s string) bool {
		if begin, all := strings.CutSuffix(s, "/..."); all {
			return strings.HasPrefix(route, begin+"/")
		}
		return plain(s) == plain(route)
	})
}

// Every route of both HTTPS ports stands in the table of its document, and no other.
func TestRoutesAreDocumented(t *testing.T) {
	h := newHouse(t)
	s := h.Server
	_, end := h.serve()
	defer end()
	people, devices := documentedRoutes(t, "api.md"), documentedRoutes(t, "device-guide.md")
	have := append(s.people.Routes(), s.devices.Routes()...)
	for _, route := range s.people.Routes() {
		if route != "/" && !inDocument(people, route) { // there it says that there is nothing
			t.Errorf("docs/api.md, Routes, lacks a line with `%s`", route)
		}
	}
	for _, route := range s.devices.Routes() {
		if route != "/" && !inDocument(devices, route) {
			t.Errorf("docs/device-guide.md, HTTP, lacks a line with `%s`", route)
		}
	}
	for _, said := range append(people, devices...) {
		there := slices.ContainsFunc(have, func(route string) bool { return inDocument([]string{said}, route) })
		if !there {
			t.Errorf("docs have %s, which no hub has", said)
		}
	}
}
