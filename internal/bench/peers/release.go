package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Release says which program is compared with.
type Release struct {
	Name    string
	Version string // upstream's, without the packager's suffixes
	Year    int    // when the package got this version; 0 if not known
}

// String returns for example "InfluxDB 1.6.7 (2020)".
func (r Release) String() string {
	s := r.Name + " " + r.Version
	if r.Year != 0 {
		s += fmt.Sprintf(" (%d)", r.Year)
	}
	return s
}

// release asks the package manager which version of a package this is, and its
// changelog since when.
func release(name, pkg string) Release {
	r := Release{Name: name, Version: "of unknown version"}
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil {
		return r
	}
	upstream, _, _ := strings.Cut(string(out), "-")
	r.Version = upstreamSuffix.ReplaceAllString(upstream, "")
	logs, _ := filepath.Glob("/usr/share/doc/" + pkg + "/changelog.Debian*.gz")
	slices.Sort(logs)
	for _, path := range logs {
		if year := yearOf(path, upstream); year != 0 {
			r.Year = year // the last is the whole one; a rebuild's has its own date
		}
	}
	return r
}

var (
	upstreamSuffix = regexp.MustCompile(`[+~].*$`)
	changelogEntry = regexp.MustCompile(`(?m)^\S+ \(([^)]*)\)(?s:.*?)^ -- .*\w{3}, +\d+ \w{3} (\d{4}) `)
)

// yearOf is the year of the oldest entry of a changelog that has this upstream
// version.
func yearOf(path, upstream string) (year int) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return 0
	}
	text, err := io.ReadAll(io.LimitReader(z, 16<<20))
	if err != nil {
		return 0
	}
	for _, m := range changelogEntry.FindAllSubmatch(text, -1) { // newest first
		if strings.HasPrefix(string(m[1]), upstream+"-") {
			year, _ = strconv.Atoi(string(m[2]))
		}
	}
	return year
}

// find looks for a program by name or full path.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", holdfast.Errorf(holdfast.NotFound, "%s is not installed", filepath.Base(name))
	}
	return path, nil
}
