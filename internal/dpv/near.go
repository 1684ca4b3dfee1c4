package dpv

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
)

// maxName is the longest name that Near compares, in bytes. Concepts have at most 45.
const maxName = 64

// Near returns up to three short forms of a kind whose names are like a text that is
// no concept of it, for whoever mistyped one, the most alike first: those that a few
// letters make the same, then those with the text in them or in the text, then those
// that begin alike.
func Near(text string, k Kind) []string {
	name := plain(text)
	if name == "" || len(name) > maxName {
		return nil
	}
	type candidate struct {
		short      string
		far, edits int
	}
	var all []candidate
	for _, c := range All(k) {
		other := plain(c.IRI)
		next := candidate{short: c.Short(), edits: edits(name, other)}
		switch long := len(name) >= 4 && len(other) >= 4; {
		case next.edits <= (len(name)+1)/4:
		case long && (strings.Contains(other, name) || strings.Contains(name, other)):
			next.far = 1
		case long && name[:4] == other[:4]:
			next.far = 2
		default:
			continue
		}
		all = append(all, next)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(a.far-b.far, a.edits-b.edits, strings.Compare(a.short, b.short))
	})
	var near []string
	for _, c := range all[:min(3, len(all))] {
		near = append(near, c.short)
	}
	return near
}

// Instead says to whoever gave a text that is no concept of a kind what to give: what
// the text is if it is a concept of another kind, and some that are like it.
func Instead(text string, k Kind) string {
	var what string
	if c, ok := Lookup(text); ok && c.Kind != k {
		what = c.Short() + " is " + c.Kind.words() + "; "
	}
	if near := Near(text, k); near != nil {
		return what + "take " + k.words() + ", as " + strings.Join(near, ", ")
	}
	return what + "take " + k.words() + " by IRI or short form, as " + k.examples()
}

// examples are concepts of a kind that devices' data often need.
func (k Kind) examples() string {
	switch k {
	case Purpose:
		return "dpv:ServiceMonitoring, dpv:ScientificResearch"
	case Category:
		return "pd:Health, pd:Location"
	case Basis:
		return "eu-gdpr:A6-1-a, eu-gdpr:A6-1-b"
	case Consent:
		return "dpv:ConsentGiven"
	}
	return "eu-gdpr:A15"
}

// plain returns the last part of an IRI or a short form, with letters and digits in
// lower case only, so that a label is like the name.
func plain(text string) string {
	if i := strings.LastIndexAny(text, ":#/"); i >= 0 {
		text = text[i+1:]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, text)
}

// edits returns how many bytes have to be put in, taken out or changed to make one
// text the other.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
