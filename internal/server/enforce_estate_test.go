package server

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// estate is a hub on which much is planted, and everybody who may ask for it.
type estate struct {
	*house
	at      Addresses
	end     func() // of serving
	log     *text
	plants  []plant
	targets map[string]*target
	readers []*reader
}

// target is whom and what a question is about: a party with a device, and what there
// is of both. The names are those that stand in braces in a question.
type target struct {
	slug   string
	party  holdfast.PartyID // whose the readings are
	device *thing
	names  map[string]string
}

// reader is one of those who ask.
type reader struct {
	name       string
	credential holdfast.CredentialID // zero: none of the hub's
	token      string
	as         access.Principal // who made the credential
	spec       access.Spec
	web        *http.Client
	// may says what of the planted he may be told, anywhere.
	may func(plant) bool
	// over are those for whose things he stands, for what changes something.
	over []string
}

// everythingOf is the right of the one whose all of it is.
func everythingOf(slugs ...string) func(plant) bool {
	return func(p plant) bool { return slices.Contains(slugs, p.whose) }
}

func nothing(plant) bool { return false }

// newEstate makes the hub and everybody in it. Anna, Ben and the worker are owners of
// what they read; the works own the worker's device, whose readings are about him;
// the institute has a grant of Anna's for one stream, and the lab has none.
func newEstate(t *testing.T) *estate {
	log := new(text)
	h := newHouse(t)
	h.halt()
	h.logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.asking = api.Limits{PerSecond: 10_000, Burst: 10_000, Changes: 100} // everything is asked at once
	h.start()
	e := &estate{house: h, log: log, targets: map[string]*target{}}
	admin := h.admin()
	admin.Scopes |= access.ScopeMetrics
	if _, err := h.grants.AddPurpose(t.Context(), admin.Credential, grant.Purpose{
		Name: "study", IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."}); err != nil {
		t.Fatal(err)
	}
	works, institute, lab := e.party("The Works", custody.Organisation), e.party("Institute", custody.Organisation), e.party("Lab", custody.Organisation)
	anna, ben, worker := e.party("Annegret of-anna", custody.Person), e.party("Benedikt of-ben", custody.Person), e.party("Wilhelm of-worker", custody.Person)
	e.settle(0, "anna", anna, anna.Party, holdfast.PartyID{})
	e.settle(1, "ben", ben, ben.Party, holdfast.PartyID{})
	e.settle(2, "worker", worker, works.Party, worker.Party)
	e.settle(3, "acme", access.Principal{Party: admin.Party}, holdfast.PartyID{}, holdfast.PartyID{})
	if err := h.series.Roll(t.Context()); err != nil { // half of it lies in segments, half in the journal
		t.Fatal(err)
	}
	gateway := h.enrolled(anna.Party, "gateway-of-anna")

	e.at, e.end = h.serve()
	owner := access.Spec{Role: access.Owner}
	program := access.Spec{Role: access.Program, Purposes: []holdfast.Purpose{"study"}}
	e.reader("Anna, the owner", anna, owner, everythingOf("anna"), "anna")
	e.reader("Ben, another owner", ben, owner, everythingOf("ben"), "ben")
	e.reader("the worker, data subject", worker, owner, everythingOf("worker"), "worker")
	e.reader("the works, owner of the worker's device", works, owner,
		func(p plant) bool {
			return p.whose == "worker" && (p.sort == aLabel || p.sort == aName || p.sort == aReason)
		}, "worker")
	e.reader("the institute's program, with a grant", institute, program,
		func(p plant) bool { return p.whose == "anna" && (p.text == pulseOf("anna") || p.number == 71_234.8125) })
	e.reader("the lab's program, without one", lab, program, nothing)
	e.reader("an administrator", admin, access.Spec{Role: access.Administrator},
		func(p plant) bool {
			return p.whose == "acme" || p.sort == aName || p.sort == aLabel || p.sort == aReason
		}, "anna", "ben", "worker", "acme")
	e.reader("an auditor", admin, access.Spec{Role: access.Auditor}, func(p plant) bool {
		return p.whose == "acme" && p.sort != aValue && p.sort != aWish || p.sort == aName || p.sort == aReason
	})
	e.reader("a metrics token", admin, access.Spec{Role: access.Program, Scopes: access.ScopeMetrics}, nothing)
	e.stranger("nobody", nil)
	e.stranger("Anna's device", e.targets["anna"].device.tls().Certificates)
	e.stranger("Anna's gateway", gateway.tls().Certificates)
	return e
}

func (e *estate) party(name string, kind custody.PartyKind) access.Principal {
	e.t.Helper()
	p, err := e.custody.AddParty(e.t.Context(), e.admin().Credential, name, kind)
	if err != nil {
		e.t.Fatal(err)
	}
	return access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: p.ID, Role: access.Owner,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}
}

// settle gives a party a device with readings.
func (e *estate) settle(n int, slug string, of access.Principal, owner, subject holdfast.PartyID) {
	e.t.Helper()
	label := "band-of-" + slug
	d, err := e.custody.AddDevice(e.t.Context(), e.admin().Credential, custody.DeviceSpec{Label: label, Owner: owner, Subject: subject})
	if err != nil {
		e.t.Fatal(err)
	}
	x := &target{slug: slug, party: of.Party}
	x.device = e.enrol(e.peer(d.Device), label)
	samples, plants := streamsOf(slug, n)
	e.mustSend(x.device.Peer, samples...)
	p, err := e.custody.Party(e.t.Context(), of.Party)
	if err != nil {
		e.t.Fatal(err)
	}
	if slug != "acme" { // whose name everybody knows
		plants = append(plants, plant{whose: slug, sort: aName, text: p.Name})
	}
	e.plants = append(e.plants, append(plants, plant{whose: slug, sort: aLabel, text: label}, plant{whose: slug, sort: aReason, text: "because-of-" + slug})...)
	x.names = map[string]string{"device": x.device.Device.String(), "label": label, "party": of.Party.String(), "name": p.Name, "stream": pulseOf(slug),
		"assignment": x.device.Assignment.String(), "reason": "because-of-" + slug, "ticks": "ticks-of-" + slug}
	e.targets[slug] = x
}

func (e *estate) reader(name string, as access.Principal, s access.Spec, may func(plant) bool, over ...string) *reader {
	e.t.Helper()
	s.Label, s.Party = "asks", as.Party
	made, err := e.access.Add(e.t.Context(), as, s, nil)
	if err != nil {
		e.t.Fatalf("%s: %v", name, err)
	}
	r := &reader{name: name, credential: made.ID, token: made.Token, as: as, spec: s, may: may, over: over, web: e.client(nil)}
	e.readers = append(e.readers, r)
	return r
}

// stranger asks without a credential of the hub's, or with a device's certificate.
func (e *estate) stranger(name string, certificates []tls.Certificate) {
	e.readers = append(e.readers, &reader{name: name, may: nothing, web: e.client(certificates)})
}

// client comes from an address of its own, since what nobody may ask too often is
// counted by address.
func (e *estate) client(certificates []tls.Certificate) *http.Client {
	c := e.targets["anna"].device.tls()
	c.Certificates = certificates
	dial := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+len(e.readers)))}}
	tr := &http.Transport{TLSClientConfig: c, DialContext: dial.DialContext, DisableCompression: true}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// answer is what somebody got: status, header, body and trailer, laid open.
type answer struct {
	status int
	body   []byte
	all    []byte
}

// ask asks one thing. What goes wrong on the way is an answer, too: it has no status.
func (r *reader) ask(url, method, body string) answer {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, in)
	if err != nil {
		return answer{all: []byte(err.Error())}
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	res, err := r.web.Do(req)
	if err != nil {
		return answer{all: []byte(err.Error())}
	}
	defer res.Body.Close()
	endless := strings.Contains(url, "/v1/feed?") && res.StatusCode == http.StatusOK
	if endless { // what is stored comes at once
		defer time.AfterFunc(150*time.Millisecond, func() { res.Body.Close() }).Stop()
	}
	given, err := io.ReadAll(res.Body)
	if endless {
		err = nil
	}
	a := answer{status: res.StatusCode, body: given}
	all, hidden := revealed(given)
	a.all = bytes.Clone(all)
	for _, h := range []http.Header{res.Header, res.Trailer} {
		for _, k := range slices.Sorted(maps.Keys(h)) {
			a.all = fmt.Appendf(a.all, "\n%s: %q", k, h[k])
		}
	}
	if err != nil || hidden != nil {
		a.all = fmt.Appendf(a.all, "\n%v %v", err, hidden)
	}
	return a
}

// must is ask for what sets the scene.
func (e *estate) must(name, method, path, body string, into any) {
	e.t.Helper()
	i := slices.IndexFunc(e.readers, func(r *reader) bool { return strings.HasPrefix(r.name, name) })
	a := e.readers[i].ask(e.at.API+path, method, body)
	if a.status/100 != 2 {
		e.t.Fatalf("%s: %s %s: %d %.300s", name, method, path, a.status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			e.t.Fatalf("%s: %s %s: %v", name, method, path, err)
		}
	}
}

// rowsGiven is how many rows of each target's are on record as given to a credential.
func (e *estate) rowsGiven(r *reader) map[string]uint64 {
	rows := map[string]uint64{}
	for slug, x := range e.targets {
		all, err := e.grants.Disclosures(e.t.Context(), x.party)
		if err != nil {
			e.t.Error(err)
		}
		for _, d := range all {
			if d.Reader == r.credential {
				rows[slug] += d.Rows
			}
		}
	}
	return rows
}
