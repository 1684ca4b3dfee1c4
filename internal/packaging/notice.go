package packaging

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// entry begins what NOTICE says of a module.
var entry = regexp.MustCompile(`^([a-z0-9.-]+\.[a-z]+/?\S*) (v[0-9]\S+)$`)

// Notices are what NOTICE says of modules, and the text before and behind.
type Notices struct {
	head, tail string
	modules    map[string]string // "path version" → its indented lines
}

// ParseNotice reads a NOTICE file.
func ParseNotice(text string) Notices {
	n := Notices{modules: map[string]string{}}
	module, begun := "", false
	for line := range strings.Lines(text) {
		bare := strings.TrimRight(line, "\n")
		switch {
		case n.tail == "" && entry.MatchString(bare):
			module, begun = bare, true
			n.modules[module] = ""
		case n.tail == "" && module != "" && strings.HasPrefix(line, "    "):
			n.modules[module] += line
		case !begun:
			n.head += line
		default:
			module = ""
			n.tail += line
		}
	}
	return n
}

// Lacks says what has to be in NOTICE because of the modules, and is not.
func (n Notices) Lacks(modules []Module) (missing []string) {
	for _, m := range modules {
		if _, ok := n.modules[m.Path+" "+m.Version]; !ok {
			missing = append(missing, m.Path+" "+m.Version)
		}
		if first := m.firstOfNotice(); first != "" && !strings.Contains(n.tail, first) {
			missing = append(missing, "the NOTICE of "+m.Path)
		}
	}
	return missing
}

// With returns NOTICE for the modules: what it says of them stays, others are added
// from their licences, and modules that are not linked go.
func (n Notices) With(modules []Module) string {
	var b strings.Builder
	b.WriteString(n.head)
	tail := strings.TrimRight(n.tail, "\n") + "\n"
	for _, m := range modules {
		key := m.Path + " " + m.Version
		text, ok := n.modules[key]
		if !ok {
			text = n.olderOf(m.Path)
		}
		if text == "" {
			text = "    " + m.Licence + "\n"
			for _, c := range m.Copyrights[:min(3, len(m.Copyrights))] {
				text += "    " + c + "\n"
			}
		}
		b.WriteString(key + "\n" + text)
		if first := m.firstOfNotice(); first != "" && !strings.Contains(tail, first) {
			tail += "\n" + m.Path + ":\n" + m.Notice + "\n"
		}
	}
	return b.String() + tail
}

// olderOf is what was said of another version of a module.
func (n Notices) olderOf(path string) string {
	for key, text := range n.modules {
		if strings.HasPrefix(key, path+" ") {
			return text
		}
	}
	return ""
}

// All joins the modules of several binaries.
func All(binaries ...[]Module) []Module {
	all := slices.Concat(binaries...)
	slices.SortFunc(all, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(all, func(a, b Module) bool { return a.Path == b.Path && a.Version == b.Version })
}

// CheckLicences fails on a module whose terms are not known to be fit.
func CheckLicences(modules []Module) error {
	for _, m := range modules {
		if !Permitted(m.Licence) {
			return fmt.Errorf("check licences: %s is under %q: look at it, then enter it in internal/packaging/licence.go or leave the module out", m.Path, m.Licence)
		}
	}
	return nil
}

// firstOfNotice is the line by which a NOTICE that was passed on is found.
func (m Module) firstOfNotice() string {
	first, _, _ := strings.Cut(m.Notice, "\n")
	return strings.TrimSpace(first)
}

// Platforms are those of a release, as ./release builds them.
func Platforms() []string {
	return []string{"linux/amd64", "linux/arm64", "linux/arm", "darwin/amd64", "darwin/arm64"}
}
