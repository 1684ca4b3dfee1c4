package holdfast_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// pages reads every document of the repository, by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[filepath.ToSlash(path)] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	mdLink  = regexp.MustCompile(`\[[^\]\n]*\]\(([^)\s]+)\)`)
)

// anchors are the names that headings of a page can be linked by, as GitHub makes
// them.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		text := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		out[slug] = true
	}
	return out
}

// Every relative link of every document leads to a file that is there, and to a
// heading that it has.
func TestLinksLead(t *testing.T) {
	all := pages(t)
	for path, text := range all {
		for _, m := range mdLink.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			target := path
			if to != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(path), to))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links %s, which is not there", path, m[1])
				continue
			}
			if page, ok := all[target]; ok && anchor != "" && !anchors(page)[anchor] {
				t.Errorf("%s links %s, and %s has no such heading", path, m[1], target)
			}
		}
	}
}

// The page for owners is one page, without the words of the trade.
func TestThePageForOwnersIsPlain(t *testing.T) {
	text := pages(t)["docs/for-owners.md"]
	if n := len(strings.Fields(text)); n < 200 || n >= 900 {
		t.Errorf("docs/for-owners.md has %d words, not 200 to 900", n)
	}
	said := strings.ToLower(regexp.MustCompile("`[^`]*`").ReplaceAllString(text, ""))
	for _, word := range []string{"TLS", "API", "encrypt", "cryptograph", "controller", "data subject", "credential", "ledger", "assignment", "pseudonym", "GDPR", "token", "certificate authority"} {
		if strings.Contains(said, strings.ToLower(word)) {
			t.Errorf("docs/for-owners.md says %q", word)
		}
	}
	for _, s := range regexp.MustCompile(`[.!?:]\s|\||\n\n`).Split(fence.ReplaceAllString(text, ""), -1) {
		if n := len(strings.Fields(s)); n > 35 {
			t.Errorf("docs/for-owners.md has a sentence of %d words: %.60s...", n, s)
		}
	}
}

// The table of floors in docs/architecture.md has every package, on its floor.
func TestTheFloorsAreDrawn(t *testing.T) {
	_, table, _ := strings.Cut(pages(t)["docs/architecture.md"], "\n## Floors\n")
	table, _, _ = strings.Cut(table, "\n## ")
	drawn := map[string]string{} // the floor by the package
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) [a-z]+ \| (.*) \|$`).FindAllStringSubmatch(table, -1) {
		for _, name := range regexp.MustCompile("`([a-z/]+)`").FindAllStringSubmatch(row[2], -1) {
			drawn[name[1]] += row[1] + " "
		}
	}
	for path, floor := range floors {
		name := strings.TrimPrefix(path, "internal/")
		if want := strconv.Itoa(floor); name != "" && !slices.Contains(strings.Fields(drawn[name]), want) {
			t.Errorf("docs/architecture.md, Floors, lacks `%s` on floor %d", name, floor)
		}
	}
}
