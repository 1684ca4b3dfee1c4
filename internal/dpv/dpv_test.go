package dpv

import (
	"slices"
	"strings"
	"testing"
)

func concept(t *testing.T, iri string) Concept {
	t.Helper()
	c, ok := Lookup(iri)
	if !ok {
		t.Fatalf("there is no %s", iri)
	}
	return c
}

// The table is whole: it is read without an error, every concept is found by both of
// its names and leads to the root of its kind.
func TestTable(t *testing.T) {
	all, err := read(lines)
	if err != nil {
		t.Fatal(err)
	}
	roots := map[Kind]string{Purpose: "dpv:Purpose", Category: "dpv:PersonalData", Basis: "dpv:LegalBasis", Consent: "dpv:ConsentStatus", Right: "dpv:Right"}
	for iri, c := range all {
		if got := concept(t, c.Short()); got.IRI != iri || concept(t, iri).IRI != iri {
			t.Errorf("%s is found as %s", iri, got.IRI)
		}
		if root := concept(t, roots[c.Kind]); !c.Within(root) {
			t.Errorf("%s is a %s and not within %s", c.Short(), c.Kind, root.Short())
		}
		for _, b := range c.Broader() {
			if concept(t, b).Kind != c.Kind {
				t.Errorf("%s, a %s, is a part of %s", c.Short(), c.Kind, Short(b))
			}
		}
	}
	if order := strings.Split(strings.TrimSuffix(lines, "\n"), "\n"); !slices.IsSortedFunc(order, byKind) {
		t.Error("the table is not in order: by kind, then by short form")
	}
}

func byKind(a, b string) int {
	kinds := []string{"purpose", "category", "basis", "consent", "right"}
	x, y := strings.Split(a, "\t"), strings.Split(b, "\t")
	if d := slices.Index(kinds, x[1]) - slices.Index(kinds, y[1]); d != 0 {
		return d
	}
	return strings.Compare(x[0], y[0])
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		what, other string
		want        bool
	}{
		{"dpv:ServiceProvision", "https://w3id.org/dpv#ServiceManagement", true},
		{"dpv:ServiceProvision", "dpv:ServiceProvision", true},
		{"dpv:ServiceManagement", "dpv:ServiceProvision", false},
		{"dpv:AcademicResearch", "dpv:Marketing", false},
		{"pd:PhysicalHealth", "dpv:SpecialCategoryPersonalData", true},
		{"pd:Location", "dpv:SpecialCategoryPersonalData", false},
		{"eu-gdpr:A6-1-a", "dpv:Consent", true},
		{"eu-gdpr:A6-1-b", "dpv:Consent", false},
	} {
		if got := concept(t, c.what).Within(concept(t, c.other)); got != c.want {
			t.Errorf("%s within %s: %t", c.what, c.other, got)
		}
	}
	if (Concept{}).Within(Concept{}) {
		t.Error("nothing is within nothing")
	}
}

func TestLookupKnowsNothingElse(t *testing.T) {
	for _, iri := range []string{"", "dpv:", "ServiceProvision", "https://w3id.org/dpv#", "http://w3id.org/dpv#ServiceProvision", "DPV:ServiceProvision",
		"https://w3id.org/dpv#ServiceProvision ", "https://w3id.org/dpv/pd#ServiceProvision", "dpv:https://w3id.org/dpv#ServiceProvision"} {
		if c, ok := Lookup(iri); ok {
			t.Errorf("%q is %s", iri, c.IRI)
		}
	}
}

func TestNear(t *testing.T) {
	if near := Near("dpv:Research", Purpose); !slices.Contains(near, "dpv:AcademicResearch") {
		t.Errorf("near %q", near)
	}
	if near := Near("x", Purpose); near != nil {
		t.Errorf("near %q", near)
	}
}

func TestReadRefuses(t *testing.T) {
	for what, table := range map[string]string{
		"too few columns": "dpv:A\tpurpose\t\n",
		"no label":        "dpv:A\tpurpose\t\t\n",
		"a full IRI":      "https://w3id.org/dpv#A\tpurpose\t\tA\n",
		"a kind":          "dpv:A\tperson\t\tA\n",
		"twice":           "dpv:A\tpurpose\t\tA\ndpv:A\tpurpose\t\tA\n",
		"which is not":    "dpv:A\tpurpose\tdpv:B\tA\n",
		"of itself":       "dpv:A\tpurpose\tdpv:B\tA\ndpv:B\tpurpose\tdpv:A\tB\n",
	} {
		if _, err := read(table); err == nil {
			t.Errorf("read one with %s", what)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Lookup("https://w3id.org/dpv/pd#PhysicalHealth"); !ok {
			b.Fatal("lost")
		}
	}
}
