package grant

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestPurposeLivesUntilItIsEnded(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	if h.Live(ctx, "research") || !h.Live(ctx, holdfast.Operation) || !h.Live(ctx, holdfast.OwnAccess) || h.Live(ctx, "") {
		t.Error("wrong purposes live on a new hub")
	}
	h.research()
	_, err := h.AddPurpose(ctx, h.admin, research)
	wants(t, err, holdfast.Conflict, "of this name already")
	h.restart()
	want := research
	want.Added = h.clock
	if p, err := h.Purpose(ctx, "research"); err != nil || !cmp.Equal(p, want) || !h.Live(ctx, "research") {
		t.Errorf("after a restart: %+v, %v", p, err)
	}
	if err := h.EndPurpose(ctx, h.admin, "research"); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if h.Live(ctx, "research") {
		t.Error("it lives on")
	}
	wants(t, h.EndPurpose(ctx, h.admin, "research"), holdfast.Conflict, "ended already")
	wants(t, h.EndPurpose(ctx, h.admin, holdfast.Operation), holdfast.Denied, "can't be ended")
	wants(t, h.EndPurpose(ctx, h.admin, "marketing"), holdfast.NotFound, "no such purpose")
	_, err = h.AddPurpose(ctx, h.admin, research)
	wants(t, err, holdfast.Conflict, "choose another name")
	if all, _ := h.Purposes(ctx); len(all) != 3 || all[2].Ended.IsZero() {
		t.Errorf("purposes %+v", all)
	}
	if got := h.diary.kinds(vault.Hub); !slices.Equal(got, []string{"purpose added", "purpose ended"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestPurposeSaysWhatItIs(t *testing.T) {
	h := newHub(t)
	for reason, change := range map[string]func(*Purpose){
		"has no name": func(p *Purpose) { p.Name = "" },
		"take a purpose, as dpv:AcademicResearch":               func(p *Purpose) { p.IRI = "research" },
		"is not a purpose of DPV 2.3 (https://w3id.org/dpv): ":  func(p *Purpose) { p.IRI = "research" },
		"pd:Location is a category of personal data; take a pu": func(p *Purpose) { p.IRI = "pd:Location" },
		"dpv:Marketing is a purpose; take a category of person": func(p *Purpose) { p.Categories = []string{"dpv:Marketing"} },
		"eu-gdpr:A9-2-a is none of GDPR Art. 6(1)":              func(p *Purpose) { p.BasisIRI = "eu-gdpr:A9-2-a" },
		"dpv:ConsentGiven is a state of consent; take a legal":  func(p *Purpose) { p.BasisIRI = "dpv:ConsentGiven" },
		"IRI is not a purpose":                                  func(p *Purpose) { p.IRI = "https://x.example/" },
		"is not a purpose ":                                     func(p *Purpose) { p.IRI = "pd:Location" },
		"a legal basis is one":                                  func(p *Purpose) { p.LegalBasis, p.BasisIRI = "because", "" },
		"a legal basis is one ":                                 func(p *Purpose) { p.BasisIRI = "dpv:LegalBasis" },
		"is not a category":                                     func(p *Purpose) { p.Categories = []string{"pd:Location", "dpv:Marketing"} },
		"retention is":                                          func(p *Purpose) { p.RetentionDays = -1 },
		"for the people whose":                                  func(p *Purpose) { p.Text = "" },
		"of this name already":                                  func(p *Purpose) { p.Name = holdfast.Operation },
		"of this name already ":                                 func(p *Purpose) { p.Name = holdfast.OwnAccess },
	} {
		p := research
		change(&p)
		_, err := h.AddPurpose(t.Context(), h.admin, p)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(reason)) {
			t.Errorf("%v, want %q", err, reason)
		}
	}
}

// Every purpose and category of the vocabulary can be named, by IRI and by short form,
// and no concept of another kind.
func TestConceptIRI(t *testing.T) {
	for _, want := range []dpv.Kind{dpv.Purpose, dpv.Category} {
		for _, k := range []dpv.Kind{dpv.Purpose, dpv.Category, dpv.Basis, dpv.Consent, dpv.Right} {
			for _, c := range dpv.All(k) {
				for _, text := range []string{c.IRI, c.Short()} {
					switch iri, err := ConceptIRI("it", text, want); {
					case k == want && (err != nil || iri != c.IRI):
						t.Errorf("%s: %s, %v", text, iri, err)
					case k != want && (iri != "" || holdfast.KindOf(err) != holdfast.Invalid):
						t.Errorf("%s, a %s, as a %s: %s, %v", text, k, want, iri, err)
					}
				}
			}
		}
	}
}

func TestParseBasis(t *testing.T) {
	for text, want := range map[string]string{
		"none": NoBasis, "consent": Consent, "public-task": "public-task",
		"eu-gdpr:A6-1-a": Consent, "https://w3id.org/dpv/legal/eu/gdpr#A6-1-a-non-explicit-consent": Consent, "dpv:ExplicitlyExpressedConsent": Consent,
		"dpv:EmploymentContract": "contract", "dpv:EULA": "contract", "dpv:ControllerDataSubjectAgreement": "contract", "eu-gdpr:A6-1-b-enter-into-contract": "contract",
		"eu-gdpr:A6-1-c": "legal-obligation", "eu-gdpr:A6-1-d-natural-person": "vital-interest", "dpv:VitalInterestOfDataSubject": "vital-interest",
		"eu-gdpr:A6-1-e": "public-task", "dpv:OfficialAuthorityOfController": "public-task", "dpv:LegitimateInterestOfDataSubject": "legitimate-interest",
	} {
		if word, iri, err := ParseBasis(text); err != nil || word != want || (iri == "") != (want == NoBasis) {
			t.Errorf("%s: %s, %s, %v", text, word, iri, err)
		}
	}
	// What is no basis of Art. 6(1), within the concept of a word or not.
	refused := []string{"", "dpv:LegalBasis", "dpv:Purpose", "dpv:ConsentGiven", "dpv:RightsFulfilment", "eu-gdpr:A7-3", "dpv:UninformedConsent", "dpv:ImpliedConsent",
		"dpv:B2B2CContract", "dpv:G2GContract", "dpv:ControllerProcessorAgreement", "dpv:JointDataControllersAgreement", "dpv:SubProcessorAgreement", "dpv:ThirdPartyAgreement"}
	for _, c := range dpv.All(dpv.Basis) {
		if s := c.Short(); strings.HasPrefix(s, "eu-gdpr:A4") || strings.HasPrefix(s, "eu-gdpr:A9") || s == "eu-gdpr:AdequacyDecision" {
			refused = append(refused, s)
		}
	}
	if len(refused) != 14+28 {
		t.Errorf("%d are refused", len(refused))
	}
	for _, text := range refused {
		if word, iri, err := ParseBasis(text); word != "" || iri != "" || holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %s, %s, %v", text, word, iri, err)
		}
	}
	for _, other := range noBasis {
		if c, ok := dpv.Lookup(other); !ok || c.Kind != dpv.Basis {
			t.Errorf("%s is no legal basis of the vocabulary", other)
		}
	}
}

// A part of a purpose is narrower in every way: a grant for the whole covers it.
func TestPurposeIsPartOfAnother(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	part := Purpose{Name: "wear", IRI: "dpv:AcademicResearch", LegalBasis: "eu-gdpr:A6-1-a-explicit-consent", Parent: "research", RetentionDays: 30,
		Categories: []string{"pd:Location", "https://w3id.org/dpv/pd#Location"}, Controller: h.lab, Text: "How bearings wear."}
	for reason, change := range map[string]func(*Purpose){
		"not a part of itself":       func(p *Purpose) { p.Parent = "wear" },
		"no purpose of the parent's": func(p *Purpose) { p.Parent = "science" },
		"own-access has no parts":    func(p *Purpose) { p.Parent = holdfast.OwnAccess },
		"no part of its parent's":    func(p *Purpose) { p.IRI = "dpv:Marketing" },
		"legal basis is not its":     func(p *Purpose) { p.LegalBasis = "contract" },
		"legal basis is not its ":    func(p *Purpose) { p.LegalBasis = "dpv:Consent" },
		"no longer":                  func(p *Purpose) { p.RetentionDays = 0 },
		"no longer, or name":         func(p *Purpose) { p.RetentionDays = 366 },
	} {
		p := part
		change(&p)
		_, err := h.AddPurpose(ctx, h.admin, p)
		wants(t, err, holdfast.Invalid, strings.TrimSpace(reason))
	}
	got, err := h.AddPurpose(ctx, h.admin, part)
	if err != nil {
		t.Fatal(err)
	}
	h.restart()
	if kept, _ := h.Purpose(ctx, "wear"); !cmp.Equal(got, kept) || kept.LegalBasis != Consent || len(kept.Categories) != 1 ||
		kept.IRI != "https://w3id.org/dpv#AcademicResearch" || kept.BasisIRI != "https://w3id.org/dpv/legal/eu/gdpr#A6-1-a-explicit-consent" {
		t.Errorf("%+v, %s", kept, cmp.Diff(got, kept))
	}
	if above := h.Broader("wear"); !slices.Equal(above, []holdfast.Purpose{"research"}) || h.Broader("research") != nil {
		t.Errorf("above it stand %v", above)
	}
	name := holdfast.Purpose("wear")
	for i := range maxDepth {
		next := part
		next.Name, next.Parent = holdfast.Purpose("p"+string(rune('a'+i))), name
		if _, err = h.AddPurpose(ctx, h.admin, next); err != nil {
			break
		}
		name = next.Name
	}
	wants(t, err, holdfast.Invalid, "stand above one another")
	if len(h.Broader(name)) != maxDepth-1 || !h.Live(ctx, name) {
		t.Errorf("%s has %v above it", name, h.Broader(name))
	}
	if err := h.EndPurpose(ctx, h.admin, "research"); err != nil {
		t.Fatal(err)
	}
	if h.Live(ctx, "wear") || h.Live(ctx, name) {
		t.Error("a part outlives the whole")
	}
	late := part
	late.Name = "late"
	_, err = h.AddPurpose(ctx, h.admin, late)
	wants(t, err, holdfast.Invalid, "the parent has ended")
}
