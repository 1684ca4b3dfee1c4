// Package packaging makes what a release consists of beside its binaries: archives
// that are the same bytes each time, the bill of materials of the very binary, the
// notices of the modules in it, and a container image. It knows nothing of how
// binaries are built: ./release does that.
package packaging

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/mod/module"
)

// Module is a module that is linked into a binary.
type Module struct {
	Path, Version string
	Sum           string // as go.sum has it, h1:...

	Licence    string   // SPDX expression; "" if it was not recognised
	Copyrights []string // lines of its licence files
	Notice     string   // its NOTICE file, which has to be passed on
}

// Linked reads from a binary which modules it was made of, sorted, and by which Go.
func Linked(binary string) (modules []Module, goVersion string, err error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, "", fmt.Errorf("read what %s is made of: %w", filepath.Base(binary), err)
	}
	for _, d := range info.Deps {
		modules = append(modules, moduleOf(d))
	}
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, info.GoVersion, nil
}

func moduleOf(d *debug.Module) Module {
	if d.Replace != nil {
		d = d.Replace
	}
	return Module{Path: d.Path, Version: d.Version, Sum: d.Sum}
}

// Listed says, with licences, what will be linked into the program on any of the
// platforms of a release; top is the module's folder.
func Listed(top string, platforms []string) (all []Module, err error) {
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module cache: %w", err)
	}
	for _, platform := range platforms {
		system, arch, _ := strings.Cut(platform, "/")
		c := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/holdfast")
		c.Dir, c.Env = top, append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0")
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("list what is linked for %s: %w", platform, err)
		}
		var modules []Module
		for line := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return r == '\n' }) {
			path, version, _ := strings.Cut(line, " ")
			modules = append(modules, Module{Path: path, Version: version})
		}
		all = All(all, modules)
	}
	for i := range all {
		if err := all[i].DescribeFrom(strings.TrimSpace(string(cache))); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// DescribeFrom is Describe for the module's folder in a module cache.
func (m *Module) DescribeFrom(cache string) error {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return err
	}
	return m.Describe(filepath.Join(cache, path+"@"+version))
}

// licenceFile are the names under which modules keep their terms.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)

// Describe fills in licence, copyrights and notice from the module's folder in the
// module cache.
func (m *Module) Describe(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for the licence of %s: %w", m.Path, err)
	}
	var found []string
	for _, e := range entries {
		name := e.Name()
		isNotice := strings.EqualFold(strings.TrimSuffix(name, filepath.Ext(name)), "NOTICE")
		if e.IsDir() || !isNotice && !licenceFile.MatchString(name) || strings.Contains(name, "3RD-PARTY") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if isNotice {
			m.Notice = strings.TrimSpace(string(text))
			continue
		}
		for _, l := range Licences(string(text)) {
			if !slices.Contains(found, l) {
				found = append(found, l)
			}
		}
		m.Copyrights = append(m.Copyrights, copyrights(string(text))...)
	}
	m.Licence = strings.Join(found, " AND ")
	if chosen, ok := choices[m.Path]; ok {
		m.Licence = chosen
	}
	if m.Licence == "" {
		return errors.New("no licence of " + m.Path + " was recognised in " + dir)
	}
	return nil
}

// choices are modules that offer several licences, or whose further terms are of
// parts that are not linked: what they are used under.
var choices = map[string]string{
	"github.com/eclipse/paho.golang":      "BSD-3-Clause",
	"github.com/eclipse/paho.mqtt.golang": "BSD-3-Clause",
}

// marks are phrases by which a licence is known.
var marks = []struct{ licence, phrase string }{
	{"Apache-2.0", "apache license version 2.0, january 2004"},
	{"MPL-2.0", "mozilla public license version 2.0"},
	{"MPL-2.0", "mozilla public license, version 2.0"},
	{"EPL-2.0", "eclipse public license - v 2.0"},
	{"BSD-3-Clause", "neither the name"},
	{"BSD-3-Clause", "may not be used to endorse or promote products derived"},
	{"BSD-2-Clause", "redistributions in binary form must reproduce"},
	{"MIT", "permission is hereby granted, free of charge"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any"},
	{"Unlicense", "this is free and unencumbered software released into the public domain"},
}

// Licences returns the licences whose text is in a file.
func Licences(text string) (found []string) {
	plain := strings.ToLower(strings.Join(strings.Fields(text), " "))
	for _, m := range marks {
		if !strings.Contains(plain, m.phrase) || slices.Contains(found, m.licence) ||
			m.licence == "BSD-2-Clause" && slices.Contains(found, "BSD-3-Clause") {
			continue
		}
		found = append(found, m.licence)
	}
	return found
}

// permissive are licences under which a binary may be passed on with notices alone.
var permissive = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unlicense", "MPL-2.0"}

// Permitted reports whether all of an expression's licences are known to be fit.
func Permitted(expression string) bool {
	for l := range strings.SplitSeq(expression, " AND ") {
		if !slices.Contains(permissive, l) {
			return false
		}
	}
	return true
}

var copyrightLine = regexp.MustCompile(`(?i)^copyright (\(c\)|©|[0-9]{4}|the |holders|[A-Z])`)

func copyrights(text string) (found []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "*#/ "))
		if copyrightLine.MatchString(line) && !strings.Contains(line, "[yyyy]") && !strings.Contains(strings.ToLower(line), "copyright owner") &&
			!strings.Contains(strings.ToLower(line), "copyright license") && !strings.Contains(strings.ToLower(line), "copyright notice") && !slices.Contains(found, line) {
			found = append(found, line)
		}
	}
	return found
}
