// Package dpv knows concepts of the W3C Data Privacy Vocabulary (DPV): purposes,
// categories of personal data, legal bases, states of consent and rights, by IRI,
// with what each is a part of. They come from the vocabulary, its extension for
// personal data (pd) and its extension for the GDPR (eu-gdpr), in one version.
//
// The table beside this file has a line per concept: its short form, its kind, the
// short forms of the broader ones, and its label, with tabs between. Only names and
// hierarchy are here: what a concept means stands at its IRI.
//
// The table has all concepts of these modules of the vocabulary that are of a kind, by
// the type that the vocabulary gives them: 122 purposes (purposes, without Sector,
// which is none), 12 + 9 + 222 categories (those of personal_data that are personal,
// core and extended of pd), 51 + 45 legal bases (legal_basis, consent_types and
// contract_types; legal_basis, legal_basis_special and legal_basis_data_transfer of
// eu-gdpr), 13 states of consent (consent_status) and 4 + 17 rights (rights, rights
// of eu-gdpr). Labels and hierarchy are those of the vocabulary, its slips included,
// as pd:VehicalLicenseNumber. A broader concept that is of another kind or of none is
// left out; dpv:RightsFulfilment, whose only one is a legal basis, is directly a
// dpv:Purpose.
//
// It knows nothing that is not in the table, and does not go to the network.
package dpv

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Version is that of the vocabulary.
const Version = "2.3"

// Kind is what a concept can stand for.
type Kind string

// The kinds.
const (
	Purpose  Kind = "purpose"
	Category Kind = "category" // of personal data
	Basis    Kind = "basis"    // legal
	Consent  Kind = "consent"  // its state
	Right    Kind = "right"
)

// words says what a concept of a kind is.
func (k Kind) words() string {
	switch k {
	case Category:
		return "a category of personal data"
	case Basis:
		return "a legal basis"
	case Consent:
		return "a state of consent"
	}
	return "a " + string(k)
}

// namespaces are the prefixes of short forms.
var namespaces = [...]struct{ prefix, iri string }{
	{"eu-gdpr:", "https://w3id.org/dpv/legal/eu/gdpr#"},
	{"pd:", "https://w3id.org/dpv/pd#"},
	{"dpv:", "https://w3id.org/dpv#"},
}

// Concept is one of the vocabulary.
type Concept struct {
	IRI   string
	Kind  Kind
	Label string   // in English
	above []string // IRIs of all that it is a part of, the nearest first
}

// Broader returns the IRIs of every concept that c is a part of, the nearest first.
// They must not be changed.
func (c Concept) Broader() []string { return c.above }

// Within reports whether c is other or a part of it.
func (c Concept) Within(other Concept) bool {
	return c.IRI != "" && (c.IRI == other.IRI || slices.Contains(c.above, other.IRI))
}

// Short returns the short form of c.
func (c Concept) Short() string { return Short(c.IRI) }

// Lookup returns a concept by its IRI or its short form, as dpv:ServiceProvision.
func Lookup(iri string) (Concept, bool) {
	c, ok := table()[Expand(iri)]
	return c, ok
}

// Expand writes a short form out. Anything else stays as it is.
func Expand(short string) string {
	for _, n := range namespaces {
		if name, ok := strings.CutPrefix(short, n.prefix); ok {
			return n.iri + name
		}
	}
	return short
}

// Short is the other way round.
func Short(iri string) string {
	for _, n := range namespaces {
		if name, ok := strings.CutPrefix(iri, n.iri); ok {
			return n.prefix + name
		}
	}
	return iri
}

// All returns the concepts of a kind, by IRI.
func All(k Kind) []Concept {
	var all []Concept
	for _, iri := range slices.Sorted(maps.Keys(table())) {
		if c := table()[iri]; c.Kind == k {
			all = append(all, c)
		}
	}
	return all
}

//go:embed dpv-2.3.tsv
var lines string

// table is read once. A table that can't be read is a mistake of whoever changed it.
var table = sync.OnceValue(func() map[string]Concept {
	all, err := read(lines)
	if err != nil {
		panic("dpv: " + err.Error())
	}
	return all
})

// read reads a table and refuses one with a concept twice, with a broader concept
// that it lacks, or with one that is a part of itself.
func read(lines string) (map[string]Concept, error) {
	all, direct := map[string]Concept{}, map[string][]string{}
	for i, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		f := strings.Split(line, "\t")
		if len(f) != 4 || f[0] == Expand(f[0]) || f[3] == "" {
			return nil, fmt.Errorf("line %d is not of a short form, a kind, broader ones and a label", i+1)
		}
		c := Concept{IRI: Expand(f[0]), Kind: Kind(f[1]), Label: f[3]}
		if !slices.Contains([]Kind{Purpose, Category, Basis, Consent, Right}, c.Kind) {
			return nil, fmt.Errorf("line %d: there is no kind %q", i+1, f[1])
		}
		if _, twice := all[c.IRI]; twice {
			return nil, fmt.Errorf("line %d: %s stands there twice", i+1, f[0])
		}
		all[c.IRI] = c
		for _, b := range strings.Fields(f[2]) {
			direct[c.IRI] = append(direct[c.IRI], Expand(b))
		}
	}
	for iri, c := range all {
		for next := direct[iri]; len(next) > 0; {
			var further []string
			for _, b := range next {
				switch _, ok := all[b]; {
				case !ok:
					return nil, fmt.Errorf("%s is a part of %s, which is not there", Short(iri), Short(b))
				case b == iri:
					return nil, fmt.Errorf("%s is a part of itself", Short(iri))
				case !slices.Contains(c.above, b):
					c.above = append(c.above, b)
					further = append(further, direct[b]...)
				}
			}
			next = further
		}
		all[iri] = c
	}
	return all, nil
}
