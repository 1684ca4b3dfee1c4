package intake

import (
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// level is one level of a rule's topic.
type level struct {
	text string // literal, or what a level begins with if prefix
	name string // of a placeholder, "" for + and #
	kind levelKind
}

type levelKind byte

const (
	literal levelKind = iota
	prefix            // $*
	one               // + or {name}
	rest              // # or {name#}
)

// parseTopic reads a rule's topic: levels are literal, +, {name}, x* (that begin
// so), and at the end # or {name#}.
func parseTopic(topic string) ([]level, error) {
	if topic == "" || len(topic) > 1024 {
		return nil, holdfast.Errorf(holdfast.Invalid, "a rule has a \"topic\", as sensors/{device}/{stream}")
	}
	parts := strings.Split(topic, "/")
	out := make([]level, len(parts))
	for i, p := range parts {
		name, isName := strings.CutPrefix(p, "{")
		if isName {
			if name, isName = strings.CutSuffix(name, "}"); !isName {
				return nil, holdfast.Errorf(holdfast.Invalid, "a placeholder is a whole level of the topic, as {device}")
			}
		}
		name, all := strings.CutSuffix(name, "#")
		switch {
		case isName && !all:
			out[i] = level{name: name, kind: one}
		case isName || p == "#":
			if i < len(parts)-1 {
				return nil, holdfast.Errorf(holdfast.Invalid, "# is the last level of a topic")
			}
			out[i] = level{kind: rest}
			if isName {
				out[i].name = name
			}
		case p == "+":
			out[i] = level{kind: one}
		case strings.HasSuffix(p, "*"):
			out[i] = level{text: strings.TrimSuffix(p, "*"), kind: prefix}
		default:
			out[i] = level{text: p}
		}
		if isName && !isWord(name) {
			return nil, holdfast.Errorf(holdfast.Invalid, "a placeholder's name is a word, as {device}")
		}
		if out[i].kind == literal && strings.ContainsAny(p, "+#{}") || out[i].kind == prefix && strings.ContainsAny(p, "+#{}") {
			return nil, holdfast.Errorf(holdfast.Invalid, "+, # and {name} are whole levels of a topic")
		}
	}
	return out, nil
}

func isWord(s string) bool {
	for _, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// matches reads a topic: what the placeholders stand for.
func (r *Rule) matches(topic string) (map[string]string, bool) {
	parts := strings.Split(topic, "/")
	var names map[string]string
	set := func(name, value string) {
		if name == "" {
			return
		}
		if names == nil {
			names = make(map[string]string, 4)
		}
		names[name] = value
	}
	for i, l := range r.levels {
		if l.kind == rest {
			if l.name != "" && i >= len(parts) {
				return nil, false
			}
			set(l.name, strings.Join(parts[min(i, len(parts)):], "/"))
			return names, true
		}
		if i >= len(parts) {
			return nil, false
		}
		switch l.kind {
		case literal:
			if parts[i] != l.text {
				return nil, false
			}
		case prefix:
			if !strings.HasPrefix(parts[i], l.text) {
				return nil, false
			}
		case one:
			set(l.name, parts[i])
		}
	}
	return names, len(parts) == len(r.levels)
}

// checkTemplate refuses placeholders that the topic does not name.
func checkTemplate(t string, names map[string]bool) error {
	_, err := expand(t, func(name string) (string, bool) { return "", names[name] })
	return err
}

// expand replaces the {placeholders} of a template.
func expand(t string, value func(string) (string, bool)) (string, error) {
	if !strings.ContainsAny(t, "{}") {
		return t, nil
	}
	var b strings.Builder
	for {
		head, tail, ok := strings.Cut(t, "{")
		b.WriteString(head)
		if !ok {
			return b.String(), nil
		}
		name, after, ok := strings.Cut(tail, "}")
		v, known := value(name)
		if !ok || !known {
			return "", holdfast.Errorf(holdfast.Invalid, "{%s} is no placeholder of the topic", name)
		}
		b.WriteString(v)
		t = after
	}
}

func filterOf(levels []level) string {
	parts := make([]string, len(levels))
	for i, l := range levels {
		switch l.kind {
		case literal:
			parts[i] = l.text
		case rest:
			parts[i] = "#"
		default:
			parts[i] = "+"
		}
	}
	return strings.Join(parts, "/")
}

func checkFilter(f string) error {
	levels, err := parseTopic(f)
	if err == nil && filterOf(levels) != f {
		err = holdfast.Errorf(holdfast.Invalid, "\"subscribe\" lists MQTT topic filters, as sensors/+/temperature or sensors/#")
	}
	return err
}

// reduce leaves out filters that others cover, and refuses those that overlap
// in part.
func reduce(filters []string) ([]string, error) {
	slices.Sort(filters)
	filters = slices.Compact(filters)
	var out []string
	for i, f := range filters {
		covered := false
		for j, g := range filters {
			covered = covered || i != j && covers(g, f)
		}
		if !covered {
			out = append(out, f)
		}
	}
	for i, f := range out {
		for _, g := range out[i+1:] {
			if overlap(strings.Split(f, "/"), strings.Split(g, "/")) {
				return nil, holdfast.Errorf(holdfast.Invalid,
					"a topic can fit both %s and %s, and the broker may deliver it twice: give \"subscribe\" with one filter that covers both", f, g)
			}
		}
	}
	return out, nil
}

// covers reports whether all topics of f fit g.
func covers(g, f string) bool {
	a, b := strings.Split(g, "/"), strings.Split(f, "/")
	for i := range a {
		switch {
		case a[i] == "#":
			return true
		case i >= len(b) || b[i] == "#":
			return false
		case a[i] != "+" && a[i] != b[i]:
			return false
		}
	}
	return len(a) == len(b)
}

// overlap reports whether a topic can fit both.
func overlap(a, b []string) bool {
	for i := 0; ; i++ {
		switch {
		case i < len(a) && a[i] == "#", i < len(b) && b[i] == "#":
			return true
		case i >= len(a) || i >= len(b):
			return len(a) == len(b)
		case a[i] != "+" && b[i] != "+" && a[i] != b[i]:
			return false
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
