package receipt

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast-iot/holdfast"
)

// hub signs as the ledger does.
type hub struct {
	signer note.Signer
	public string
}

func newHub(t testing.TB, name string) hub {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return hub{s, public}
}

func (h hub) Sign(text string) ([]byte, error) { return note.Sign(&note.Note{Text: text}, h.signer) }
func (h hub) VerifierKey() string              { return h.public }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const hostile = `</script><script>alert(1)</script>"'<!--`

func heart() Grant {
	two := 2
	return Grant{
		Hub: "hub.example/log", Jurisdiction: "PL", ID: "gaaaaaaaaaaaaaaaaaaaaaaaaa",
		Owner: Party{ID: "pada", Kind: "person"}, Controller: Party{ID: "pacme", Name: "Acme", Kind: "organisation"},
		Recipient: Party{ID: "plab", Name: "Institute " + hostile, Kind: "organisation"},
		Purpose:   Purpose{Name: "study", IRI: "https://w3id.org/dpv#ResearchAndDevelopment", Text: "To find out how hearts beat.", LegalBasis: "consent", RetentionDays: 30},
		Devices:   []string{"dwatch"}, Assignments: []string{"ashift"},
		Streams: []Stream{{Name: "pulse", Category: "https://w3id.org/dpv/pd#HeartRate", Sensitivity: "special"}, {Name: "steps", Sensitivity: "sensitive"}, {Name: "battery"}},
		From:    noon.AddDate(0, -1, 0), To: noon.AddDate(0, 1, 0), Made: noon, Until: noon.AddDate(1, 0, 0),
		Duties: Duties{Every: 15 * time.Minute, Decimals: &two, Step: 0.5, Delay: 24 * time.Hour, Drop: []string{"device"}, MinGroup: 5},
	}
}

func TestReceiptsVerifyOffline(t *testing.T) {
	h, other := newHub(t, "hub.example/log"), newHub(t, "hub.example/log")
	g := heart()
	file, err := Sign(g.Document(noon), h)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", h.public} {
		c, err := Verify(file, key)
		want := Checked{Receipt: "holdfast:hub.example/log/receipts/" + g.ID + "/given", Hub: "hub.example/log", Verifier: h.public, Created: "2026-11-22T12:00:00Z",
			State: "given", Purpose: "study", Recipient: g.Recipient.Name, Until: "2027-11-22T12:00:00Z"}
		if err != nil || c != want {
			t.Errorf("%+v, %v", c, err)
		}
	}
	refused := func(what string, file []byte, key, words string) {
		t.Helper()
		if _, err := Verify(file, key); holdfast.KindOf(err) != holdfast.Invalid || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", what, err, words)
		}
	}
	refused("another hub's key", file, other.public, "another hub's")
	refused("no key", file, "nonsense", "not a verifier key")
	refused("another recipient", bytes.Replace(file, []byte("Institute"), []byte("Insurance"), 1), "", "altered")
	refused("a space", bytes.Replace(file, []byte(`": "`), []byte(`":  "`), 1), "", "altered")
	refused("a key twice", bytes.Replace(file, []byte("{\n"), []byte("{\n  \"dct:language\": \"pl\",\n"), 1), "", "altered")
	refused("no JSON", []byte("{"), "", "no JSON")
	doc := g.Document(noon)
	doc[verifierTerm] = h.public
	unsigned, err := encode(doc)
	if err != nil {
		t.Fatal(err)
	}
	refused("no signature", unsigned, "", "altered")
	forged, err := Sign(g.Document(noon), other)
	if err != nil {
		t.Fatal(err)
	}
	refused("forged with another key", forged, h.public, "another hub's")
	elsewhere, err := Sign(g.Document(noon), newHub(t, "evil.example"))
	if err != nil {
		t.Fatal(err)
	}
	refused("signed by a hub that is not in its ids", elsewhere, "", "not by its hub")
	report, err := h.Sign(statement(reportHeader, file))
	if err != nil {
		t.Fatal(err)
	}
	doc[signatureTerm] = string(report)
	if file, err = encode(doc); err != nil {
		t.Fatal(err)
	}
	refused("a report's signature", file, "", "altered")
}

func TestEveryByteOfAReceiptIsSigned(t *testing.T) {
	h := newHub(t, "hub.example/log")
	file, err := Sign(heart().Document(noon), h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file {
		changed := slices.Clone(file)
		changed[i] ^= 1
		if _, err := Verify(changed, h.public); err == nil {
			t.Fatalf("byte %d can change: %q", i, changed[max(0, i-20):min(len(file), i+20)])
		}
	}
}

func TestReceiptsFollowTheGrant(t *testing.T) {
	g := heart()
	if a, b := g.Document(noon), g.Document(noon.Add(time.Hour)); a["dct:created"] != b["dct:created"] {
		t.Error("the same state has two receipts")
	}
	events := func(g Grant, now time.Time) string {
		b, err := json.Marshal(g.events(now))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if e := events(g, g.Until.Add(-1)); !strings.Contains(e, "ConsentGiven") || strings.Contains(e, "Expired") {
		t.Error(e)
	}
	if e := events(g, g.Until); !strings.Contains(e, "ConsentGiven") || !strings.Contains(e, "ConsentExpired") || !strings.Contains(e, stamp(g.Until)) {
		t.Error(e)
	}
	g.Ended = noon.Add(time.Minute)
	if e := events(g, g.Until); !strings.Contains(e, "ConsentWithdrawn") || strings.Contains(e, "Expired") || !strings.Contains(e, stamp(g.Ended)) {
		t.Error(e)
	}
	if strings.Contains(events(g, noon), "Ada") {
		t.Error("the data subject is named")
	}
}

// TestForeignWitness: jsonld.js understands every term, and what it understands is
// what the vocabularies mean.
func TestForeignWitness(t *testing.T) {
	if os.Getenv("HOLDFAST_JSONLD") == "" {
		t.Skip("NOT TESTED by jsonld.js: HOLDFAST_JSONLD names no folder with it (./test installs it), so no other reader saw that every term expands")
	}
	h := newHub(t, "hub.example/log")
	withdrawn, plain := heart(), heart()
	withdrawn.Ended = noon.Add(time.Hour)
	plain.Duties, plain.AllDevices, plain.AllStreams, plain.Devices, plain.Streams = Duties{}, true, true, nil, nil
	plain.Purpose.LegalBasis, plain.Purpose.IRI, plain.Purpose.RetentionDays, plain.Jurisdiction = "none", "", 0, ""
	plain.From, plain.To = time.Time{}, time.Time{}
	var files []string
	write := func(b []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(t.TempDir(), "doc.jsonld"))
		if err := os.WriteFile(files[len(files)-1], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []Grant{heart(), withdrawn, plain} {
		write(Sign(g.Document(noon.AddDate(2, 0, 0)), h))
		write(g.Agreement(noon))
	}
	quads := expand(t, files)
	for i, q := range quads {
		checkQuads(t, files[i], q)
	}
	for i, wanted := range map[int][]string{
		0: {"<https://w3id.org/dpv#hasConsentStatus>", "<https://w3id.org/dpv#ConsentGiven>", "<https://w3id.org/dpv#ConsentExpired>", "<https://w3id.org/dpv/pd#HeartRate>",
			"<https://w3id.org/dpv/legal/eu/gdpr#A7-3>", "<https://w3id.org/dpv#hasRecipient> <holdfast:hub.example/log/parties/plab>", "<https://w3id.org/dpv/loc#PL>",
			"<https://w3id.org/dpv#SpecialCategoryPersonalData>", `"2026-11-22T12:00:00Z"^^<http://www.w3.org/2001/XMLSchema#dateTime>`,
			"<http://purl.org/dc/terms/conformsTo> <https://w3id.org/dpv/schema/dpv-27560#receipt>"},
		1: {"<http://www.w3.org/ns/odrl/2/Agreement>", "<http://www.w3.org/ns/odrl/2/assignee> <holdfast:hub.example/log/parties/plab>",
			"<http://www.w3.org/ns/odrl/2/rightOperand> <https://w3id.org/dpv#ResearchAndDevelopment>", "<http://www.w3.org/ns/odrl/2/delayPeriod>",
			`"PT900S"^^<http://www.w3.org/2001/XMLSchema#duration>`, "<http://www.w3.org/ns/odrl/2/read>"},
		2: {"<https://w3id.org/dpv#ConsentWithdrawn>"},
		5: {"<http://www.w3.org/ns/odrl/2/action> <http://www.w3.org/ns/odrl/2/read>"},
	} {
		for _, w := range wanted {
			if !strings.Contains(quads[i], w) {
				t.Errorf("%d lacks %s:\n%s", i, w, quads[i])
			}
		}
	}
	broken := bytes.Replace(must(os.ReadFile(files[0])), []byte(`"dpv:hasNotice"`), []byte(`"hasNotice"`), 1)
	write(broken, nil)
	if out, err := script(files[len(files)-1:]).CombinedOutput(); err == nil {
		t.Errorf("a term without a meaning passes: %s", out)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func script(files []string) *exec.Cmd {
	return exec.Command("node", append([]string{filepath.Join("testdata", "expand.cjs")}, files...)...)
}

func expand(t *testing.T, files []string) (quads []string) {
	t.Helper()
	out, err := script(files).Output()
	if e, ok := err.(*exec.ExitError); ok {
		t.Fatalf("jsonld.js: %s", e.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &quads); err != nil {
		t.Fatal(err)
	}
	return quads
}

// checkQuads refuses a predicate or a class of no vocabulary that we mean.
func checkQuads(t *testing.T, file, quads string) {
	t.Helper()
	doc := string(must(os.ReadFile(file)))
	if n := strings.Count(quads, "\n"); n < 20 {
		t.Fatalf("%s says only %d things", file, n)
	}
	for line := range strings.Lines(quads) {
		if strings.Contains(line, "<_:") || strings.Contains(line, "<>") {
			t.Errorf("%s: a relative IRI: %s", file, line)
		}
		parts := strings.SplitN(line, " ", 3)
		known := slices.ContainsFunc([]string{"<http://purl.org/dc/terms/", "<https://w3id.org/dpv#", "<https://w3id.org/dpv/", "<http://www.w3.org/ns/odrl/2/",
			"<http://www.w3.org/1999/02/22-rdf-syntax-ns#", "<http://www.w3.org/2004/02/skos/core#", "<https://schema.org/", "<" + Terms},
			func(p string) bool { return strings.HasPrefix(parts[1], p) })
		if !known {
			t.Errorf("%s: a predicate of no vocabulary: %s", file, line)
		}
	}
	var raw object
	if err := json.Unmarshal([]byte(doc), &raw); err != nil {
		t.Fatal(err)
	}
	delete(raw, "@context")
	keys(raw, func(key string) { // every key that was written was understood
		_, local, ok := strings.Cut(key, ":")
		if ok && !strings.Contains(quads, local+">") {
			t.Errorf("%s: the term %s was dropped", file, key)
		}
	})
}

func keys(v any, visit func(string)) {
	switch v := v.(type) {
	case object:
		for k, inner := range v {
			visit(k)
			keys(inner, visit)
		}
	case []any:
		for _, inner := range v {
			keys(inner, visit)
		}
	}
}
