package dpv

import (
	"slices"
	"strings"
	"testing"
)

func TestNear(t *testing.T) {
	for _, c := range []struct {
		text string
		kind Kind
		want string // the first
	}{
		{"dpv:Research", Purpose, "dpv:AcademicResearch"},
		{"dpv:serviceprovision", Purpose, "dpv:ServiceProvision"},
		{"Service Provision", Purpose, "dpv:ServiceProvision"},
		{"ServiceProvison", Purpose, "dpv:ServiceProvision"},
		{"https://w3id.org/dpv/pd#Locaton", Category, "pd:Location"},
		{"dpv:Health", Category, "pd:Health"},
		{"pd:Behavioral", Category, "pd:Behavioural"},
		{"pd:HairColor", Category, "pd:HairColour"},
		{"pd:HeartRateHealth", Category, "pd:Health"},
		{"pd:Ages", Category, "pd:Age"},
		{"eu-gdpr:A6-1-g", Basis, "eu-gdpr:A6-1-a"},
	} {
		if near := Near(c.text, c.kind); len(near) == 0 || len(near) > 3 || near[0] != c.want {
			t.Errorf("near %q are %q, want %s first", c.text, near, c.want)
		}
	}
	for _, text := range []string{"", "x", "dpv:", "#", "qqqqqqqq", strings.Repeat("location", 1<<16)} {
		if near := Near(text, Category); near != nil {
			t.Errorf("near %.20q are %q", text, near)
		}
	}
	if near := Near("pd:Ort\xff\u4f4d\u7f6e", Category); len(near) > 3 {
		t.Errorf("near letters of elsewhere are %q", near)
	}
}

// A concept (each fourth: they are many) is told from those of other kinds, by what it
// is, and something that can be taken is named.
func TestInstead(t *testing.T) {
	kinds := []Kind{Purpose, Category, Basis, Consent, Right}
	for _, k := range kinds {
		for i, c := range All(k) {
			if i%4 != 0 {
				continue
			}
			for _, other := range kinds {
				says := Instead(c.Short(), other)
				if told := strings.HasPrefix(says, c.Short()+" is "+k.words()+"; take "); told != (other != k) {
					t.Fatalf("%s in place of a %s: %s", c.Short(), other, says)
				}
				_, as, _ := strings.Cut(says, ", as ")
				for short := range strings.SplitSeq(as, ", ") {
					if near, ok := Lookup(short); !ok || near.Kind != other {
						t.Fatalf("%s in place of a %s: %s", c.Short(), other, says)
					}
				}
			}
		}
	}
	if says := Instead("pd:Location", Purpose); says != "pd:Location is a category of personal data; take a purpose by IRI or short form, as dpv:ServiceMonitoring, dpv:ScientificResearch" {
		t.Error(says)
	}
	if says := Instead("pd:Locaton", Category); !strings.HasPrefix(says, "take a category of personal data, as pd:Location") {
		t.Error(says)
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"location", "locaton", 1}, {"ab", "ba", 2}} {
		if got := edits(c.a, c.b); got != c.want || edits(c.b, c.a) != c.want {
			t.Errorf("%q to %q: %d", c.a, c.b, got)
		}
	}
}

func BenchmarkNear(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if near := Near("pd:PhysicalHelth", Category); !slices.Contains(near, "pd:PhysicalHealth") {
			b.Fatal(near)
		}
	}
}
