package api

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

var wildcard = regexp.MustCompile(`\{[a-z]+\}`)

// A route that somebody adds is closed until it is listed with a reason.
func TestNoRouteAnswersAStranger(t *testing.T) {
	h := build(t, Limits{OpenRequests: 1000})
	strangers := 0
	for pattern := range h.rules {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			method, path = "GET", pattern
		}
		path = wildcard.ReplaceAllString(path, h.watch.ID.String())
		open := openRoutes()[pattern] != ""
		for _, token := range []string{"", "nonsense", "hft1.gq3tembtgm2tkmrzgq3tembtgm." + strings.Repeat("A", 43)} {
			r := newRequest(method, path, "")
			strangers++
			r.RemoteAddr = fmt.Sprintf("198.51.%d.%d:4711", strangers/250, strangers%250) // each is limited by address
			g := h.do(token, r)
			if !open && g.status != http.StatusUnauthorized {
				t.Errorf("%s answers a stranger %d: %s", pattern, g.status, g.body)
			}
			if !open {
				g.problem()
				if g.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: 401 without a hint", pattern)
				}
			}
			if open && g.status == http.StatusUnauthorized && !strings.Contains(pattern, "est") {
				t.Errorf("%s is listed as open and answers 401", pattern)
			}
		}
	}
	for pattern := range openRoutes() {
		if _, ok := h.rules[pattern]; !ok {
			t.Errorf("%s is listed as open and does not exist", pattern)
		}
	}
	h.ask("", "GET", "/nothing/here", "").is(401)
	h.ask(h.anna, "GET", "/nothing/here", "").is(404).problem()
	h.ask(h.anna, "PUT", "/v1/me", "").is(405).problem()
}

// What an administrator can't do, by any route, is read what is not Acme's.
func TestAdministratorDoesNotReadOthersData(t *testing.T) {
	h := build(t, Limits{})
	watch, anna := h.watch.ID.String(), h.annaID.String()
	for _, q := range []string{
		"device=" + watch, "device=watch", "owner=" + anna, "device=watch&stream=pulse", "device=" + watch + "&stream=pulse&purpose=study",
		"device=" + watch + "&purpose=own-access", "stream=pulse&owner=" + anna, "device=" + watch + "&every=1m&agg=last", "device=" + watch + "&format=senml",
	} {
		g := h.ask(h.admin, "GET", "/v1/readings?"+q, "").hides("61", "70")
		if g.status < 400 || g.status >= 500 {
			t.Errorf("%s answers %d: %s", q, g.status, g.body)
		}
		g.problem()
	}
	h.ask(h.admin, "GET", "/v1/devices/"+watch, "").is(200).shows("watch").hides("pulse", "streams")
	h.ask(h.admin, "GET", "/v1/devices", "").is(200).hides("pulse", "weight")
	h.ask(h.admin, "POST", "/v1/exports", `{"party":"`+anna+`"}`).is(403).hides("pulse")
	h.ask(h.admin, "GET", "/v1/me/data", "").is(200).shows("temperature").hides("pulse", "weight", "watch")
	h.ask(h.admin, "GET", "/v1/me/recipients", "").is(200).hides("pulse")
	h.ask(h.admin, "GET", "/v1/ledger/entries?device="+watch, "").is(403)
	h.ask(h.admin, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d"}`).is(403).shows("own credential")
	h.ask(h.admin, "POST", "/v1/claims", `{"code":"abcd"}`).is(403)
	h.ask(h.admin, "DELETE", "/v1/me/data", "").is(403)
	h.ask(h.admin, "POST", "/v1/tokens", `{"label":"mine now","party":"`+anna+`","role":"owner"}`).is(403).shows("invitation")
	h.ask(h.admin, "POST", "/v1/tokens", `{"label":"x","party":"`+anna+`","role":"program","purposes":["own-access"]}`).is(400)
}

// What Ben can't see is anything of Anna's, nor whether there is an Anna.
func TestOwnerSeesNothingOfAnother(t *testing.T) {
	h := build(t, Limits{})
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d"}`).is(201)
	var page Page[Grant]
	h.ask(h.anna, "GET", "/v1/grants", "").is(200).into(&page)
	if len(page.Items) != 1 {
		t.Fatalf("Anna has %d grants", len(page.Items))
	}
	h.ask(h.anna, "POST", "/v1/erasures?wait=0", `{"device":"watch","stream":"pulse","to":"1990-01-01"}`)
	var credentials Page[Credential]
	h.ask(h.anna, "GET", "/v1/tokens", "").is(200).into(&credentials)

	nothing, party := holdfast.NewID[holdfast.DeviceID]().String(), holdfast.NewID[holdfast.PartyID]().String()
	hers := []string{annaName, "pulse", "watch", h.annaID.String(), h.watch.ID.String()}
	for _, c := range []struct{ method, path, body, same string }{
		{"GET", "/v1/parties/Anna%20Achternaam", "", "/v1/parties/Nobody"},
		{"GET", "/v1/parties/" + h.annaID.String(), "", "/v1/parties/" + party},
		{"GET", "/v1/parties/" + h.annaID.String() + "/invitations", "", "/v1/parties/" + party + "/invitations"},
		{"POST", "/v1/parties/" + h.annaID.String() + "/invitations", "", "/v1/parties/" + party + "/invitations"},
		{"GET", "/v1/devices/" + h.watch.ID.String(), "", "/v1/devices/" + nothing},
		{"GET", "/v1/devices/watch", "", "/v1/devices/nothing"},
		{"GET", "/v1/devices?owner=" + h.annaID.String(), "", "/v1/devices?owner=" + party},
		{"POST", "/v1/devices/" + h.watch.ID.String() + "/revocation", `{}`, "/v1/devices/" + nothing + "/revocation"},
		{"GET", "/v1/readings?device=" + h.watch.ID.String(), "", "/v1/readings?device=" + nothing},
		{"GET", "/v1/readings?device=watch", "", "/v1/readings?device=nothing"},
		{"GET", "/v1/readings?stream=pulse&device=" + h.watch.ID.String(), "", "/v1/readings?stream=pulse&device=" + nothing},
		{"GET", "/v1/readings?owner=" + h.annaID.String(), "", "/v1/readings?owner=" + party},
		{"GET", "/v1/readings?owner=Anna%20Achternaam", "", "/v1/readings?owner=Nobody"},
		{"GET", "/v1/readings?owner=Anna%20Achternaam&device=watch", "", "/v1/readings?owner=Nobody&device=watch"},
		{"GET", "/v1/readings?stream=pulse", "", "/v1/readings?stream=nothing"},
		{"GET", "/v1/tokens?party=" + h.annaID.String(), "", "/v1/tokens?party=" + party},
		{"DELETE", "/v1/tokens/" + credentials.Items[0].ID, "", "/v1/tokens/" + nothing},
		{"GET", "/v1/grants/" + page.Items[0].ID, "", "/v1/grants/" + nothing},
		{"DELETE", "/v1/grants/" + page.Items[0].ID, "", "/v1/grants/" + nothing},
		{"GET", "/v1/ledger/entries?device=" + h.watch.ID.String(), "", "/v1/ledger/entries?device=" + nothing},
		{"GET", "/v1/ledger/entries/3/proof", "", "/v1/ledger/entries/99999/proof"},
	} {
		g := h.ask(h.ben, c.method, c.path, c.body).hides(hers...)
		other := h.ask(h.ben, c.method, c.same, c.body)
		p, q := g.problem(), other.problem()
		same := strings.NewReplacer(credentials.Items[0].ID, "ID", nothing, "ID", "3", "N", "99999", "N")
		if g.status != other.status || same.Replace(p.Detail) != same.Replace(q.Detail) {
			t.Errorf("%s tells Ben more than %s does:\n%s\n%s", g.what, c.same, g.body, other.body)
		}
	}
	for _, path := range []string{"/v1/devices", "/v1/grants", "/v1/tokens", "/v1/me", "/v1/me/data", "/v1/me/recipients", "/v1/me/purposes", "/v1/erasures",
		"/v1/ledger/entries", "/v1/purposes", "/v1/profiles", "/v1/ledger"} {
		h.ask(h.ben, "GET", path, "").is(200).hides(annaName, "pulse", h.annaID.String(), h.watch.ID.String())
	}
	for _, body := range []string{`{"party":"` + h.annaID.String() + `"}`, `{"device":"` + h.watch.ID.String() + `"}`, `{"device":"watch","stream":"pulse"}`} {
		h.ask(h.ben, "POST", "/v1/erasures", body).is(404).hides(hers...)
	}
	h.ask(h.ben, "POST", "/v1/exports", `{"party":"`+h.annaID.String()+`"}`).is(404)
	h.ask(h.ben, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d","devices":["watch"]}`).is(404)
	h.ask(h.ben, "POST", "/v1/grants", `{"recipient":"Anna Achternaam","purpose":"study","until":"+30d"}`).is(404)
	h.ask(h.ben, "GET", "/v1/parties", "").is(403)
	h.ask(h.ben, "GET", "/v1/ledger/entries?record=hub", "").is(403)
	h.ask(h.ben, "GET", "/v1/devices?unclaimed=true", "").is(403)

	// Neither does a program learn names; a recipient knows the owner's id.
	h.ask(h.institute, "GET", "/v1/grants", "").is(200).shows(h.annaID.String()).hides(annaName)
	h.ask(h.institute, "GET", "/v1/parties", "").is(403)
	h.ask(h.institute, "GET", "/v1/tokens", "").is(403)
	h.ask(h.institute, "GET", "/v1/devices", "").is(200).hides("watch", "pump")
	h.ask(h.fleet, "GET", "/v1/devices", "").is(200).shows("pump-1").hides("watch")
	// Nor can a party that is given a person's id have it turned into a name.
	h.ask(h.ben, "POST", "/v1/grants", `{"recipient":"`+h.annaID.String()+`","purpose":"study","until":"+30d"}`).is(201).hides(annaName)
}

func TestScopesAndRolesHold(t *testing.T) {
	h := build(t, Limits{})
	h.ask(h.reader, "GET", "/v1/parties", "").is(200)
	h.ask(h.reader, "POST", "/v1/parties", `{"name":"X","kind":"person"}`).is(403).shows("write")
	h.ask(h.reader, "POST", "/v1/erasures", `{"device":"pump-1"}`).is(403)
	h.ask(h.reader, "POST", "/v1/devices", `{"label":"x"}`).is(403)
	h.ask(h.scraper, "GET", "/v1/readings?device=pump-1", "").is(403)
	h.ask(h.scraper, "GET", "/v1/devices", "").is(403)
	h.ask(h.anna, "POST", "/v1/devices", `{"label":"x"}`).is(403)
	h.ask(h.anna, "POST", "/v1/parties", `{"name":"X","kind":"person"}`).is(403)
	h.ask(h.anna, "POST", "/v1/purposes", `{"name":"x","iri":"dpv:ServiceProvision","legal_basis":"none","text":"x"}`).is(403)
	h.ask(h.anna, "POST", "/v1/ledger/verify", "").is(403)
	h.ask(h.anna, "POST", "/v1/devices/watch/codes", `{}`).is(201) // for a device that is hers
	h.ask(h.anna, "POST", "/v1/devices/watch/codes", `{"kind":"claim"}`).is(403)
	h.ask(h.ben, "POST", "/v1/devices/"+h.watch.ID.String()+"/codes", `{}`).is(404)
	h.ask(h.institute, "GET", "/v1/me", "").is(200).shows("program", "study")
	h.ask(h.institute, "GET", "/v1/me/data", "").is(403)

	for _, c := range []struct {
		token  string
		status int
	}{{h.admin, 200}, {h.scraper, 200}, {h.anna, 403}, {h.institute, 403}, {h.fleet, 403}} {
		h.ask(c.token, "GET", "/metrics", "").is(c.status).hides(annaName, benName, "pulse", h.watch.ID.String())
	}
	h.ask(h.scraper, "GET", "/metrics", "").is(200).shows(`holdfast_api_requests_total{class="4xx",route="GET /metrics"}`)
}

// A page of another origin may not use the certificate that a browser has.
func TestOtherOriginsAreRefused(t *testing.T) {
	h := build(t, Limits{})
	r := newRequest("POST", "/v1/ledger/verify", "")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	g := h.do(h.admin, r).is(403)
	g.problem()
	for _, k := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control"} {
		if g.header.Get(k) == "" {
			t.Errorf("no header %s", k)
		}
	}
}

// Where a device is about somebody else than its owner, what it measures is his:
// the owner knows the device and no more.
func TestDataSubjectIsWhoseDataItIs(t *testing.T) {
	h := build(t, Limits{})
	d := h.Device(custody.DeviceSpec{Label: "badge", Owner: h.annaID, Subject: h.benID})
	h.Send(d, querytest.At("steps", time.Now(), holdfast.NumberValue(4711)))
	h.ask(h.anna, "GET", "/v1/devices/badge", "").is(200).hides("steps", benName)
	h.ask(h.anna, "GET", "/v1/readings?device=badge", "").is(403).hides("4711")
	h.ask(h.anna, "GET", "/v1/me/data", "").is(200).hides("steps")
	h.ask(h.anna, "POST", "/v1/erasures", `{"device":"badge"}`).is(403)
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d","devices":["badge"]}`).is(403)
	h.ask(h.ben, "GET", "/v1/readings?device="+d.ID.String(), "").is(200).shows("4711")
	h.ask(h.ben, "GET", "/v1/me/data", "").is(200).shows("steps").hides(annaName)
	h.ask(h.ben, "GET", "/v1/devices", "").is(200).shows("badge")
	h.ask(h.ben, "POST", "/v1/devices/"+d.ID.String()+"/revocation", "{}").is(403)
	h.ask(h.ben, "POST", "/v1/erasures?wait=60", `{"device":"`+d.ID.String()+`","stream":"steps"}`).is(200).shows(`"state":"done"`)
}

// Who reads an open route with a credential is counted as its holder; strangers of
// the same address are few in a second, and one whose credential is no more is one.
func TestOpenRoutesKnowWhoComesWithACredential(t *testing.T) {
	h := build(t, Limits{OpenRequests: 0.1, PerSecond: 1000, Burst: 1000}) // one request of a stranger
	path := "/v1/erasures/" + holdfast.NewID[holdfast.ErasureID]().String()
	for range 20 {
		h.ask(h.admin, "GET", path, "").is(404)
	}
	h.ask("hft1_nobody", "GET", path, "").is(404)
	h.ask("hft1_nobody", "GET", path, "").is(429)
	h.ask("", "GET", path, "").is(429)
	h.ask(h.admin, "GET", path, "").is(404)
}
