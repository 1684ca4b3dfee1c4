// Package receipt writes what an owner takes away in writing: the receipt of a
// grant (ISO/IEC TS 27560:2023 in the profile of the W3C Data Privacy Vocabulary,
// JSON-LD), a grant as an agreement in ODRL 2.2, and a report of everything that
// the hub answers about him, as one page of HTML.
//
// A receipt and a report carry a signature (a note of golang.org/x/mod/sumdb) over
// the SHA-256 of every other byte of the file: the two Verify functions need no
// hub, and find a changed byte. The JSON-LD carries its whole context, so nothing
// is fetched to read it. It decides nothing and asks nobody: what is true is its
// caller's word.
package receipt

import (
	"fmt"
	"strings"
	"time"
)

// Version is that of the forms that this package writes.
const Version = "1"

// Terms is where the terms are explained that no public vocabulary has.
const Terms = "https://github.com/holdfast-iot/holdfast/blob/main/docs/format/receipt.md#"

// Party is somebody whom a document names.
type Party struct {
	ID   string
	Name string // "": not for the reader to know
	Kind string // person, household, organisation, service
}

// Purpose is why data may be used.
type Purpose struct {
	Name          string
	IRI           string
	Text          string
	LegalBasis    string // a short name or an IRI
	RetentionDays int    // 0: no limit by the purpose
}

// Stream is one kind of reading that a grant covers.
type Stream struct {
	Name        string
	Category    string // IRI, "" if nobody said
	Sensitivity string // normal, sensitive, special or ""
}

// Duties are what is asked of whoever gives readings out.
type Duties struct {
	Every    time.Duration
	Decimals *int
	Step     float64
	Delay    time.Duration
	Drop     []string
	MinGroup int
}

// Grant is an owner's word, with what the hub knows about it.
type Grant struct {
	Hub          string // origin of the ledger: the hub's name in every IRI
	Jurisdiction string // of the hub, ISO 3166; "" if not configured
	ID           string
	Owner        Party // by id alone: a receipt names no data subject
	Controller   Party
	Recipient    Party
	Purpose      Purpose
	AllDevices   bool
	Devices      []string // ids
	Assignments  []string // ids; none: all of these devices
	AllStreams   bool
	Streams      []Stream  // those that it covers now
	From, To     time.Time // of the readings; zero: no bound
	Made         time.Time
	Until        time.Time
	Ended        time.Time // zero until it is taken back
	Duties       Duties
}

// State is what became of the grant.
func (g Grant) State(now time.Time) (state string, since time.Time) {
	switch {
	case !g.Ended.IsZero():
		return "withdrawn", g.Ended
	case !now.Before(g.Until):
		return "expired", g.Until
	}
	return "given", g.Made
}

// object is a node of JSON-LD. Keys are written in byte order.
type object = map[string]any

// iri names a thing of the hub. It is a name and no address: a hub has several, and
// they change.
func (g Grant) iri(kind, id string) string { return hubIRI(g.Hub) + kind + "/" + id }

func hubIRI(hub string) string { return "holdfast:" + strings.TrimPrefix(hub, "holdfast/") + "/" }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// context is the whole JSON-LD context of a document: prefixes, and which values
// are IRIs or times.
func context(more object) object {
	c := object{
		"dct":     "http://purl.org/dc/terms/",
		"dpv":     "https://w3id.org/dpv#",
		"hf":      Terms,
		"rdf":     "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
		"skos":    "http://www.w3.org/2004/02/skos/core#",
		"xsd":     "http://www.w3.org/2001/XMLSchema#",
		"eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
	}
	for k, v := range more {
		c[k] = v
	}
	return c
}

// typed says that the values of these terms are of a type: an IRI or a time.
func typed(c object, kind string, terms ...string) {
	for _, t := range terms {
		c[t] = object{"@type": kind}
	}
}

// Document returns the receipt of a grant as it is at a time, unsigned. The same
// state makes the same bytes whenever it is asked for.
func (g Grant) Document(now time.Time) object {
	c := context(object{
		"dpv-27560": "https://w3id.org/dpv/schema/dpv-27560#",
		"loc":       "https://w3id.org/dpv/loc#",
		"schema":    "https://schema.org/",
	})
	typed(c, "@id", "dct:conformsTo", "dct:creator", "dct:publisher", "dpv:hasDataController", "dpv:hasJurisdiction", "dpv:hasLegalBasis", "dpv:hasProcessing",
		"dpv:hasRecipient", "dpv:isExercisedAt", "dpv:isIndicatedBy", "dpv:hasDataSource", "schema:recipient", "skos:broader")
	typed(c, "xsd:dateTime", "dct:created", "dpv:isIndicatedAtTime")
	state, since := g.State(now)
	return object{
		"@context":                c,
		"@id":                     g.iri("receipts", g.ID+"/"+state),
		"@type":                   "dpv:ConsentReceipt",
		"dct:conformsTo":          "dpv-27560:receipt",
		"dct:created":             stamp(since),
		"dct:identifier":          g.ID + "/" + state,
		"dct:language":            "en",
		"dct:publisher":           g.iri("parties", g.Controller.ID),
		"schema:recipient":        g.iri("parties", g.Owner.ID),
		"schema:schemaVersion":    Version,
		"dpv:hasRecordOfActivity": g.record(now),
	}
}

func (g Grant) record(now time.Time) object {
	r := object{
		"@id":                   g.iri("grants", g.ID),
		"@type":                 "dpv:ConsentRecord",
		"dct:conformsTo":        "dpv-27560:record",
		"dct:created":           stamp(g.Made),
		"dct:creator":           g.iri("parties", g.Controller.ID),
		"dpv:hasIdentifier":     g.ID,
		"dpv:hasDataSubject":    object{"@id": g.iri("parties", g.Owner.ID), "@type": "dpv:DataSubject", "dpv:hasIdentifier": g.Owner.ID},
		"dpv:hasDataController": g.iri("parties", g.Controller.ID),
		"dpv:hasEntity":         g.entities(),
		"dpv:hasProcess":        []any{g.process()},
		"dpv:hasConsentStatus":  g.events(now),
		"dpv:hasConsentControl": object{
			"@type": "dpv:WithdrawConsent", "dpv:isExercisedAt": g.iri("v1/grants", g.ID),
			"dct:description": "The owner takes the grant back with a credential of his own: holdfast grant end " + g.ID + ". From the next read on it allows nothing.",
		},
		"dpv:hasRight": g.rights(),
		"dpv:hasNotice": object{
			"@type": "dpv:ConsentNotice", "dct:language": "en", "dct:description": g.Purpose.Text, "dpv:hasIdentifier": g.Purpose.Name,
		},
	}
	if g.Jurisdiction != "" {
		r["dpv:hasJurisdiction"] = "loc:" + g.Jurisdiction
	}
	return r
}

func (g Grant) entities() []any {
	controller := entity(g, g.Controller, "dpv:DataController")
	if g.Controller.ID == g.Recipient.ID {
		controller["@type"] = []any{"dpv:DataController", "dpv:Recipient"}
		return []any{controller}
	}
	return []any{controller, entity(g, g.Recipient, "dpv:Recipient")}
}

func entity(g Grant, p Party, role string) object {
	e := object{"@id": g.iri("parties", p.ID), "@type": role, "dpv:hasIdentifier": p.ID}
	if p.Name != "" {
		e["dpv:hasName"] = p.Name
	}
	return e
}

func (g Grant) process() object {
	p := object{
		"@type":                 "dpv:Process",
		"dpv:hasDataController": g.iri("parties", g.Controller.ID),
		"dpv:hasRecipient":      g.iri("parties", g.Recipient.ID),
		"dpv:hasPurpose":        g.purpose(),
		"dpv:hasPersonalData":   g.personalData(),
		"dpv:hasProcessing":     []any{"dpv:MakeAvailable", "dpv:Use"},
		"dpv:hasDataSource":     "dpv:DataSubjectDataSource",
		"dpv:hasStorageCondition": []any{
			object{"@type": "dpv:StorageLocation", "dct:description": "The hub " + g.Hub + ", each reading sealed with the owner's key."},
			object{"@type": "dpv:StorageDuration", "dpv:hasDuration": g.storage()},
		},
		"dpv:hasDuration": object{"@type": "dpv:UntilTimeDuration", "rdf:value": stamp(g.Until)},
	}
	if b := bases(g.Purpose.LegalBasis); len(b) > 0 {
		p["dpv:hasLegalBasis"] = b
	}
	if measures := g.Duties.Words(); len(measures) > 0 {
		var all []any
		for _, m := range measures {
			all = append(all, object{"@type": "dpv:TechnicalOrganisationalMeasure", "dct:description": m})
		}
		p["dpv:hasTechnicalOrganisationalMeasure"] = all
	}
	return p
}

func (g Grant) purpose() object {
	p := object{"@type": "dpv:Purpose", "skos:prefLabel": g.Purpose.Name}
	if g.Purpose.IRI != "" {
		p["skos:broader"] = g.Purpose.IRI
	}
	if g.Purpose.Text != "" {
		p["skos:definition"] = g.Purpose.Text
	}
	return p
}

func (g Grant) storage() object {
	if g.Purpose.RetentionDays > 0 {
		return object{"@type": "dpv:TemporalDuration", "rdf:value": fmt.Sprintf("P%dD", g.Purpose.RetentionDays)}
	}
	return object{"@type": "dpv:UntilEventDuration", "rdf:value": "The owner erases them, or the last purpose of their stream ends."}
}

func (g Grant) personalData() []any {
	var all []any
	for _, s := range g.Streams {
		d := object{"@type": "dpv:PersonalData", "skos:prefLabel": s.Name}
		switch s.Sensitivity {
		case "sensitive":
			d["@type"] = "dpv:SensitivePersonalData"
		case "special":
			d["@type"] = "dpv:SpecialCategoryPersonalData"
		}
		if s.Category != "" {
			d["skos:broader"] = s.Category
		}
		all = append(all, d)
	}
	if g.AllStreams {
		of := "every stream of the owner's devices, now and later"
		if len(g.Assignments) > 0 {
			of = "every stream, now and later, of " + strings.Join(g.Assignments, ", ")
		}
		all = append(all, object{"@type": "dpv:PersonalData", "skos:prefLabel": of})
	}
	return all
}

// events are what happened to the consent, in order.
func (g Grant) events(now time.Time) []any {
	by := g.iri("parties", g.Owner.ID)
	given := object{
		"@type": []any{"dpv:ConsentGiven", "dpv:ExplicitlyExpressedConsent"}, "dpv:isIndicatedAtTime": stamp(g.Made), "dpv:isIndicatedBy": by,
		"dpv:hasIndicationMethod": "with the owner's own credential",
	}
	switch state, since := g.State(now); state {
	case "withdrawn":
		return []any{given, object{"@type": "dpv:ConsentWithdrawn", "dpv:isIndicatedAtTime": stamp(since), "dpv:isIndicatedBy": by,
			"dpv:hasIndicationMethod": "with the owner's own credential"}}
	case "expired":
		return []any{given, object{"@type": "dpv:ConsentExpired", "dpv:isIndicatedAtTime": stamp(since)}}
	}
	return []any{given}
}

// rights are those that the hub itself answers.
func (g Grant) rights() []any {
	var all []any
	for _, r := range []struct{ article, title, path string }{
		{"A7-3", "Withdraw this consent: holdfast grant end " + g.ID, "grants/" + g.ID},
		{"A15", "See what there is, who read it and why: holdfast me report FILE.html", "me/report"},
		{"A17", "Erase: holdfast erase", "me/data"},
		{"A18", "Restrict: holdfast hold add", "holds"},
		{"A20", "Take everything along: holdfast export", "exports"},
		{"A21", "Object to a purpose: holdfast hold add", "holds"},
	} {
		all = append(all, object{"@type": []any{"dpv:DataSubjectRight", "eu-gdpr:" + r.article}, "dct:title": r.title, "dpv:isExercisedAt": g.iri("v1", r.path)})
	}
	return all
}

// bases returns the IRIs of a legal basis: in general, and in the GDPR.
func bases(basis string) []any {
	known := map[string][2]string{
		"consent":             {"dpv:Consent", "eu-gdpr:A6-1-a"},
		"contract":            {"dpv:Contract", "eu-gdpr:A6-1-b"},
		"legal-obligation":    {"dpv:LegalObligation", "eu-gdpr:A6-1-c"},
		"vital-interest":      {"dpv:VitalInterest", "eu-gdpr:A6-1-d"},
		"public-task":         {"dpv:PublicInterest", "eu-gdpr:A6-1-e"},
		"legitimate-interest": {"dpv:LegitimateInterest", "eu-gdpr:A6-1-f"},
	}
	if b, ok := known[basis]; ok {
		return []any{b[0], b[1]}
	}
	if strings.Contains(basis, ":") {
		return []any{basis}
	}
	return nil // of data about no person there is none
}

// Words says the duties in plain words, one sentence each.
func (d Duties) Words() (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if d.Every > 0 {
		add("Readings leave only as totals over %s or longer.", span(d.Every))
	}
	if d.MinGroup > 0 {
		add("Readings leave only together with those of at least %d people.", d.MinGroup)
	}
	if d.Delay > 0 {
		add("Readings leave when they are %s old.", span(d.Delay))
	}
	if d.Decimals != nil {
		add("Places are rounded to %d decimals of a degree.", *d.Decimals)
	}
	if d.Step > 0 {
		add("Numbers are rounded to multiples of %g.", d.Step)
	}
	if len(d.Drop) > 0 {
		add("Left out: %s.", strings.Join(d.Drop, ", "))
	}
	return all
}

// span says a duration in words: 15 minutes, 1 day.
func span(d time.Duration) string {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.of; n > 0 && d%u.of == 0 {
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return d.String()
}
