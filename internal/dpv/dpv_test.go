package dpv

import (
	"maps"
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
	for _, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		if broader := strings.Fields(strings.Split(line, "\t")[2]); !slices.IsSorted(broader) {
			t.Errorf("broader ones are not in order: %s", line)
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

// As many as the modules have that the package's comment names: a concept that is
// lost or added by mistake changes one of these.
func TestCounts(t *testing.T) {
	want := map[string]int{"purpose dpv": 122, "category dpv": 12, "category pd": 9 + 222, "basis dpv": 16 + 5 + 30, "basis eu-gdpr": 17 + 10 + 18,
		"consent dpv": 13, "right dpv": 4, "right eu-gdpr": 17}
	got := map[string]int{}
	for _, k := range []Kind{Purpose, Category, Basis, Consent, Right} {
		for _, c := range All(k) {
			prefix, _, _ := strings.Cut(c.Short(), ":")
			got[string(k)+" "+prefix]++
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the table has %v, want %v", got, want)
	}
}

// Some concepts stand as in the vocabulary, with what they are directly a part of:
// those with several broader ones, those that 2.3 changed, those with a label that is
// not the name, and some of each module.
func TestAsInTheVocabulary(t *testing.T) {
	for short, want := range map[string]string{
		"dpv:Purpose":                        "Purpose",
		"dpv:ServiceManagement":              "Service Management < dpv:Purpose",
		"dpv:ServiceProvision":               "Service Provision < dpv:ServiceManagement",
		"dpv:PaymentManagement":              "Payment Management < dpv:ServiceManagement",
		"dpv:RepairImpairments":              "Repair Impairments < dpv:ServiceManagement",
		"dpv:ServiceUsageAnalytics":          "Service Usage Analytics < dpv:ServiceMonitoring",
		"dpv:ServicePersonalisation":         "Service Personalisation < dpv:Personalisation dpv:ServiceManagement",
		"dpv:CommercialResearch":             "Commercial Research < dpv:CommercialPurpose dpv:ResearchAndDevelopment",
		"dpv:ScientificResearch":             "Scientific Research < dpv:ResearchAndDevelopment",
		"dpv:ImproveHealthcare":              "Improve Healthcare < dpv:PublicBenefit",
		"dpv:ImproveTransportMobility":       "Improve Transport and Mobility < dpv:PublicBenefit",
		"dpv:MisusePreventionAndDetection":   "Misuse, Prevention and Detection < dpv:EnforceSecurity",
		"dpv:RecruitmentTargetedAdvertising": "Targeted Recruitment Advertising < dpv:RecruitmentAdvertising dpv:TargetedAdvertising",
		"dpv:PersonnelPerformanceMonitoring": "Personnel Performance Monitoring < dpv:PersonnelMonitoring dpv:PersonnelPerformanceManagement",
		"dpv:ProtectionOfIPR":                "Protection of Intellectual Property Rights < dpv:FulfilmentOfObligation",
		"dpv:RightsFulfilment":               "Rights Fulfilment < dpv:Purpose",
		"dpv:PersonalData":                   "Personal Data",
		"dpv:InferredPersonalData":           "Inferred Personal Data < dpv:DerivedPersonalData",
		"dpv:SpecialCategoryPersonalData":    "Special Category Personal Data < dpv:SensitivePersonalData",
		"pd:Vulnerability":                   "Vulnerability < dpv:SensitivePersonalData",
		"pd:Tracking":                        "Tracking < dpv:PersonalData",
		"pd:Location":                        "Location < pd:Tracking",
		"pd:GPSCoordinate":                   "GPS Coordinate < pd:CurrentLocation",
		"pd:HomeLocation":                    "Home Place < pd:Location",
		"pd:BirthCountry":                    "Birth Country < pd:BirthPlace pd:Country",
		"pd:Behavioural":                     "Behavioural < pd:External",
		"pd:VehicleUsage":                    "Vehicle Usage < pd:Behavioural pd:Vehicle",
		"pd:VehicalLicenseNumber":            "Vehicle License Number < pd:VehicleLicense",
		"pd:MedicalHealth":                   "Medical Health < dpv:SpecialCategoryPersonalData pd:External",
		"pd:Health":                          "Health < pd:MedicalHealth",
		"pd:PhysicalHealth":                  "Physical Health < pd:Health",
		"pd:Biometric":                       "Biometric < dpv:SpecialCategoryPersonalData pd:Identifying",
		"pd:TradeUnionMembership":            "Trade Union Membership < dpv:SpecialCategoryPersonalData pd:GroupMembership",
		"pd:PaymentCardNumber":               "Payment Card Number < pd:AccountIdentifier pd:PaymentCard",
		"pd:UserAgent":                       "User agent < pd:Tracking",
		"dpv:ExpressedConsent":               "Expressed Consent < dpv:InformedConsent",
		"dpv:VitalInterestOfDataSubject":     "Vital Interest of Data Subject < dpv:VitalInterestOfNaturalPerson",
		"dpv:B2B2CContract":                  "Business-to-Business-to-Consumer Contract < dpv:B2BContract dpv:B2CContract",
		"eu-gdpr:A6-1-a":                     "Art.6(1-a) consent < dpv:ExpressedConsent eu-gdpr:Consent",
		"eu-gdpr:A6-1-d-natural-person":      "Art 6(1-d) protect vital interests of natural person < dpv:VitalInterestOfNaturalPerson eu-gdpr:A6-1-d",
		"eu-gdpr:A9-2-h":                     "Art 9(2-h) health & medicine < dpv:LegalBasis",
		"eu-gdpr:A49-1-a":                    "Art 49(1-a) explicit consent < dpv:DataTransferLegalBasis dpv:ExplicitlyExpressedConsent eu-gdpr:Consent",
		"eu-gdpr:AdequacyDecision":           "Adequacy Decision < eu-gdpr:A45-3",
		"dpv:ConsentWithdrawn":               "Consent Withdrawn < dpv:ConsentStatusInvalidForProcessing",
		"eu-gdpr:A15":                        "A15 Right of Access < dpv:DataSubjectRight",
		"eu-gdpr:A22-3-a":                    "A22 Right to human intervention < eu-gdpr:A22",
		"eu-gdpr:A78":                        "A78 Right to an effective judicial remedy against a supervisory authority < dpv:Right",
	} {
		c := concept(t, short)
		label, broader, _ := strings.Cut(want, " < ")
		direct := strings.Fields(broader)
		for i, b := range direct {
			direct[i] = Expand(b)
		}
		if c.Label != label || len(c.Broader()) < len(direct) || !slices.Equal(c.Broader()[:len(direct)], direct) || direct == nil && c.Broader() != nil {
			t.Errorf("%s is %q within %v", short, c.Label, c.Broader())
		}
	}
	for _, gone := range []string{"dpv:Sector", "dpv:CreditChecking", "pd:Behavioral", "dpv:Data", "dpv:AnonymisedData", "eu-gdpr:BindingCorporateRules", "eu-gdpr:SARNotice"} {
		if c, ok := Lookup(gone); ok {
			t.Errorf("%s is a %s", gone, c.Kind)
		}
	}
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
		{"pd:GPSCoordinate", "pd:Location", true},
		{"pd:Fingerprint", "dpv:SensitivePersonalData", true},
		{"dpv:RightsFulfilment", "dpv:LegalObligation", false},
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
