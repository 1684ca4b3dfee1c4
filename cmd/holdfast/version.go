package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
)

// What ./release stamps into a binary; empty in one that `go build` made.
var (
	stampedVersion string // 0.2.0
	stampedCommit  string
	stampedDate    string // of the commit, RFC 3339
)

// version is the release's, or the module's as the Go command recorded it.
func version() string {
	if stampedVersion != "" {
		return stampedVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

type versionCmd struct{ outputFlags }

func (*versionCmd) Help() string {
	return `Says which program this is: version, commit and its date, Go, and how many
modules it was made of. The bill of materials of a release names each.

Example:
  holdfast version -o json`
}

// made is what a program is made of.
type made struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"` // of the commit
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Modules  int    `json:"modules"`
}

func thisProgram() made {
	m := made{Version: version(), Commit: stampedCommit, Date: stampedDate, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	m.Modules = len(info.Deps)
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && m.Commit == "":
			m.Commit = s.Value
		case s.Key == "vcs.time" && m.Date == "":
			m.Date = s.Value
		case s.Key == "vcs.modified":
			m.Modified = s.Value == "true"
		}
	}
	return m
}

func (c *versionCmd) Run(a *app) error {
	m := thisProgram()
	if c.json() {
		return printJSON(a.stdout, m)
	}
	commit := m.Commit
	if m.Modified {
		commit += ", with changes"
	}
	fmt.Fprintf(a.stdout, "Holdfast %s\n", m.Version)
	return printTable(a.stdout, nil, [][]string{{"commit", commit}, {"date", m.Date}, {"go", m.Go}, {"platform", m.Platform}, {"modules", strconv.Itoa(m.Modules)}})
}
