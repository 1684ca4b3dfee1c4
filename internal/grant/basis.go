package grant

import (
	"context"
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/dpv"
)

// maxDepth is how many purposes stand above one another at most.
const maxDepth = 8

// bases are the words for a legal basis and the concepts that they stand for: GDPR
// Art. 6(1) a to f. Concepts within one of the broader are of that word.
var bases = [...]struct {
	word, iri string
	broader   [2]string
}{
	{"consent", "eu-gdpr:A6-1-a", [2]string{"dpv:Consent"}},
	{"contract", "eu-gdpr:A6-1-b", [2]string{"dpv:Contract"}},
	{"legal-obligation", "eu-gdpr:A6-1-c", [2]string{"dpv:LegalObligation"}},
	{"vital-interest", "eu-gdpr:A6-1-d", [2]string{"dpv:VitalInterest"}},
	{"public-task", "eu-gdpr:A6-1-e", [2]string{"dpv:PublicInterest", "dpv:OfficialAuthorityOfController"}},
	{"legitimate-interest", "eu-gdpr:A6-1-f", [2]string{"dpv:LegitimateInterest"}},
}

// Consent is the legal basis that is the word of the one whose data it is, and
// NoBasis that of data about no person.
const (
	Consent = "consent"
	NoBasis = "none"
)

// LegalBases returns the words for a legal basis: those of GDPR Art. 6(1) a to f,
// and none for data about no person.
func LegalBases() []string {
	var words []string
	for _, b := range bases {
		words = append(words, b.word)
	}
	return append(words, NoBasis)
}

// noBasis are concepts that stand within one of a word and are yet no basis of GDPR
// Art. 6(1): what allows a transfer to another country; consent that was not informed
// (Art. 4(11)) or is only taken from what somebody does (recital 32); and contracts
// that the one whose data it is is no party to.
var noBasis = [...]string{
	"dpv:DataTransferLegalBasis", "dpv:UninformedConsent", "dpv:ImpliedConsent",
	"dpv:B2BContract", "dpv:G2BContract", "dpv:G2GContract",
	"dpv:DataControllerContract", "dpv:DataProcessorContract", "dpv:SubProcessorAgreement", "dpv:ThirdPartyContract",
}

// special begins the short forms of the conditions of GDPR Art. 9(2). They lift the
// bar on special categories of data and come on top of a basis of Art. 6(1).
const special = "eu-gdpr:A9-2-"

// ParseBasis reads a legal basis: a word, or a concept of DPV by its IRI or its short
// form.
func ParseBasis(text string) (word, iri string, err error) {
	if text == NoBasis {
		return NoBasis, "", nil
	}
	c, known := dpv.Lookup(text)
	known = known && c.Kind == dpv.Basis
	for _, b := range bases {
		if text == b.word {
			return b.word, dpv.Expand(b.iri), nil
		}
		for _, broader := range b.broader {
			if top, ok := dpv.Lookup(broader); known && ok && c.Within(top) && isBasis(c) {
				return b.word, c.IRI, nil
			}
		}
	}
	words := "a legal basis is one of " + strings.Join(LegalBases(), ", ")
	if known {
		return "", "", holdfast.Errorf(holdfast.Invalid, "%s, or a concept of DPV %s for one; %s is none of GDPR Art. 6(1): take one that is, as eu-gdpr:A6-1-a", words, dpv.Version, c.Short())
	}
	return "", "", holdfast.Errorf(holdfast.Invalid, "%s, or a concept of DPV %s for one: %s", words, dpv.Version, dpv.Instead(text, dpv.Basis))
}

// isBasis reports whether a concept of a legal basis, which is within that of a word,
// can stand for that word.
func isBasis(c dpv.Concept) bool {
	for _, other := range noBasis {
		if o, ok := dpv.Lookup(other); !ok || c.Within(o) {
			return false
		}
	}
	return !strings.HasPrefix(c.Short(), special)
}

// ConceptIRI returns the IRI of a concept of DPV that is given by IRI or short form.
func ConceptIRI(what, text string, k dpv.Kind) (string, error) {
	if c, ok := dpv.Lookup(text); ok && c.Kind == k {
		return c.IRI, nil
	}
	return "", holdfast.Errorf(holdfast.Invalid, "%s is not a %s of DPV %s (https://w3id.org/dpv): %s", what, k, dpv.Version, dpv.Instead(text, k))
}

// CategoryIRIs is ConceptIRI for categories of data, each once.
func CategoryIRIs(given []string) ([]string, error) {
	if len(given) > maxCategories {
		return nil, holdfast.Errorf(holdfast.TooLarge, "at most %d categories can be named", maxCategories)
	}
	var all []string
	for _, text := range given {
		iri, err := ConceptIRI("one of the categories", text, dpv.Category)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, iri) {
			all = append(all, iri)
		}
	}
	return all, nil
}

// checkParent refuses a parent of which the purpose is no part: a grant for the parent
// covers it, and so it must not stretch why, on what ground or how long.
func (r *Register) checkParent(p Purpose) error {
	if p.Parent == "" {
		return nil
	}
	all := *r.purposes.Load()
	parent, ok := all[p.Parent]
	switch {
	case p.Parent == p.Name:
		return holdfast.Errorf(holdfast.Invalid, "a purpose is not a part of itself: name another parent or none")
	case !ok:
		return holdfast.Errorf(holdfast.Invalid, "there is no purpose of the parent's name: add the parent first")
	case p.Parent == holdfast.OwnAccess:
		return holdfast.Errorf(holdfast.Invalid, "own-access has no parts: name another parent or none")
	case !r.Live(context.Background(), p.Parent):
		return holdfast.Errorf(holdfast.Invalid, "the parent has ended: name another parent or none")
	case len(r.Broader(p.Parent))+2 > maxDepth:
		return holdfast.Errorf(holdfast.Invalid, "at most %d purposes stand above one another: name a parent further up", maxDepth)
	case !narrower(p.IRI, parent.IRI):
		return holdfast.Errorf(holdfast.Invalid, "the purpose's IRI is no part of its parent's, which is %s: name a narrower one or no parent", dpv.Short(parent.IRI))
	case p.BasisIRI != parent.BasisIRI && !narrower(p.BasisIRI, parent.BasisIRI):
		return holdfast.Errorf(holdfast.Invalid, "the purpose's legal basis is not its parent's, which is %s, nor a narrower one: name that or no parent", parent.LegalBasis)
	case parent.RetentionDays > 0 && (p.RetentionDays == 0 || p.RetentionDays > parent.RetentionDays):
		return holdfast.Errorf(holdfast.Invalid, "the purpose keeps data longer than its parent, which keeps them %d days: keep them no longer, or name no parent", parent.RetentionDays)
	}
	return nil
}

// narrower reports whether one concept is another or a part of it.
func narrower(iri, other string) bool {
	c, _ := dpv.Lookup(iri)
	o, ok := dpv.Lookup(other)
	return ok && c.Within(o)
}
