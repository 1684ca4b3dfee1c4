package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func newRequest(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// Whatever is wrong with a request, the answer is a problem document of 4xx that
// does not repeat what was sent.
func TestBadInputIsNotRepeated(t *testing.T) {
	h := build(t, Limits{PerSecond: 1e6, Burst: 1e6})
	const secret = "hunter2"
	deep := strings.Repeat(`{"`+secret+`":`, 200) + "1" + strings.Repeat("}", 200)
	long := strings.Repeat(secret, 4000)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
	}{
		"no JSON":             {"POST", "/v1/parties", secret, 400},
		"half JSON":           {"POST", "/v1/parties", `{"name":"` + secret, 400},
		"two values":          {"POST", "/v1/parties", `{"name":"` + secret + `","kind":"person"} {}`, 400},
		"a list":              {"POST", "/v1/parties", `["` + secret + `"]`, 422},
		"unknown field":       {"POST", "/v1/parties", `{"name":"x","kind":"person","` + secret + `":1}`, 422},
		"field twice":         {"POST", "/v1/parties", `{"name":"x","name":"` + secret + `","kind":"person"}`, 400},
		"wrong case":          {"POST", "/v1/parties", `{"NAME":"` + secret + `","kind":"person"}`, 400},
		"wrong type":          {"POST", "/v1/parties", `{"name":{"a":"` + secret + `"},"kind":"person"}`, 422},
		"no such kind":        {"POST", "/v1/parties", `{"name":"x","kind":"` + secret + `"}`, 422},
		"bad UTF-8":           {"POST", "/v1/parties", "{\"name\":\"" + secret + "\xff\",\"kind\":\"person\"}", 400},
		"half a surrogate":    {"POST", "/v1/parties", `{"name":"` + secret + `\ud800","kind":"person"}`, 400},
		"control":             {"POST", "/v1/parties", `{"name":"` + secret + `\u0000","kind":"person"}`, 400},
		"deep":                {"POST", "/v1/parties", deep, 400},
		"oversized":           {"POST", "/v1/parties", `{"name":"` + strings.Repeat(long, 10) + `","kind":"person"}`, 413},
		"long name":           {"POST", "/v1/parties", `{"name":"` + long + `","kind":"person"}`, 400},
		"name with slash":     {"POST", "/v1/devices", `{"label":"` + secret + `/a"}`, 400},
		"no such owner":       {"POST", "/v1/devices", `{"label":"x","owner":"` + secret + `"}`, 404},
		"no such profile":     {"POST", "/v1/devices", `{"label":"x","profile":"` + secret + `"}`, 404},
		"empty body":          {"POST", "/v1/devices", ``, 400},
		"days":                {"POST", "/v1/devices", `{"label":"x","days":-7}`, 422},
		"days of a century":   {"POST", "/v1/tokens", `{"label":"x","days":36500}`, 422},
		"no such purpose":     {"POST", "/v1/tokens", `{"label":"x","purposes":["` + secret + `"]}`, 400},
		"no such scope":       {"POST", "/v1/tokens", `{"label":"x","scopes":["` + secret + `"]}`, 422},
		"bad CSR":             {"POST", "/v1/tokens", `{"label":"x","purposes":["study"],"csr":"` + secret + `"}`, 400},
		"bad profile":         {"POST", "/v1/profiles", `{"name":"x","version":1,"` + secret + `":2}`, 400},
		"bad profile type":    {"POST", "/v1/profiles", `{"name":"x","version":"` + secret + `"}`, 400},
		"huge profile":        {"POST", "/v1/profiles", `{"name":"` + strings.Repeat(secret, 200_000) + `"}`, 413},
		"bad id":              {"DELETE", "/v1/tokens/" + secret, ``, 404},
		"bad erasure":         {"GET", "/v1/erasures/" + secret, ``, 404},
		"bad grant":           {"GET", "/v1/grants/" + secret, ``, 404},
		"bad party":           {"GET", "/v1/parties/" + secret, ``, 404},
		"bad device":          {"GET", "/v1/devices/" + secret + "%00%ff", ``, 404},
		"long id":             {"GET", "/v1/devices/" + long, ``, 404},
		"bad purpose name":    {"GET", "/v1/purposes/" + secret, ``, 404},
		"bad profile name":    {"GET", "/v1/profiles/" + secret, ``, 404},
		"bad index":           {"GET", "/v1/ledger/entries/" + secret + "/proof", ``, 400},
		"negative limit":      {"GET", "/v1/parties?limit=-1", ``, 422},
		"limit of words":      {"GET", "/v1/parties?limit=" + secret, ``, 422},
		"huge limit":          {"GET", "/v1/parties?limit=99999999999999999999", ``, 422},
		"unknown parameter":   {"GET", "/v1/parties?" + secret + "=1", ``, 422},
		"bad page":            {"GET", "/v1/parties?after=" + secret, ``, 409},
		"nothing to read":     {"GET", "/v1/readings", ``, 400},
		"negative rows":       {"GET", "/v1/readings?device=pump-1&limit=-5", ``, 422},
		"bad from":            {"GET", "/v1/readings?device=pump-1&from=" + secret, ``, 400},
		"bad to":              {"GET", "/v1/readings?device=pump-1&to=" + long, ``, 400},
		"year 99999":          {"GET", "/v1/readings?device=pump-1&to=99999-01-01", ``, 400},
		"long ago":            {"GET", "/v1/readings?device=pump-1&from=-99999999d", ``, 400},
		"before time":         {"GET", "/v1/readings?device=pump-1&from=1500-01-01", ``, 400},
		"backwards":           {"GET", "/v1/readings?device=pump-1&from=2026-01-02&to=2026-01-01", ``, 400},
		"absurd windows":      {"GET", "/v1/readings?device=pump-1&from=1700-01-01&every=1ns", ``, 413},
		"negative window":     {"GET", "/v1/readings?device=pump-1&every=-1m", ``, 400},
		"bad window":          {"GET", "/v1/readings?device=pump-1&every=" + secret, ``, 400},
		"bad aggregate":       {"GET", "/v1/readings?device=pump-1&every=1m&agg=" + secret, ``, 400},
		"aggregate twice":     {"GET", "/v1/readings?device=pump-1&every=1m&agg=mean,mean", ``, 400},
		"aggregate alone":     {"GET", "/v1/readings?device=pump-1&agg=mean", ``, 400},
		"bad zone":            {"GET", "/v1/readings?device=pump-1&tz=" + secret, ``, 400},
		"this machine's zone": {"GET", "/v1/readings?device=pump-1&tz=Local", ``, 400},
		"bad group":           {"GET", "/v1/readings?device=pump-1&every=1m&by=" + secret, ``, 400},
		"group of none and":   {"GET", "/v1/readings?device=pump-1&every=1m&by=none,device", ``, 400},
		"bad fill":            {"GET", "/v1/readings?device=pump-1&every=1m&fill=" + secret, ``, 400},
		"fill with NaN":       {"GET", "/v1/readings?device=pump-1&every=1m&fill=NaN", ``, 400},
		"group of readings":   {"GET", "/v1/readings?device=pump-1&by=device", ``, 400},
		"fill of readings":    {"GET", "/v1/readings?device=pump-1&fill=0", ``, 400},
		"too much to fill":    {"GET", "/v1/readings?device=pump-1&every=1s&fill=0&from=-100d", ``, 413},
		"months of none":      {"GET", "/v1/readings?device=pump-1&every=0mo", ``, 400},
		"months of much":      {"GET", "/v1/readings?device=pump-1&every=99999mo", ``, 400},
		"quantile of 101":     {"GET", "/v1/readings?device=pump-1&every=1m&agg=p101", ``, 400},
		"windows in SenML":    {"GET", "/v1/readings?device=pump-1&every=1m&format=senml", ``, 400},
		"bad format":          {"GET", "/v1/readings?device=pump-1&format=" + secret, ``, 422},
		"bad cursor":          {"GET", "/v1/readings?device=pump-1&cursor=" + secret, ``, 400},
		"long cursor":         {"GET", "/v1/readings?device=pump-1&cursor=" + long, ``, 422},
		"bad read purpose":    {"GET", "/v1/readings?device=pump-1&purpose=" + secret, ``, 403},
		"long read purpose":   {"GET", "/v1/readings?device=pump-1&purpose=" + long, ``, 400},
		"bad stream":          {"GET", "/v1/readings?device=pump-1&stream=%2B" + secret, ``, 400},
		"no such stream":      {"GET", "/v1/readings?device=pump-1&stream=" + secret, ``, 404},
		"no such device":      {"GET", "/v1/readings?device=" + secret, ``, 404},
		"bad read grant":      {"GET", "/v1/readings?device=pump-1&grant=" + secret, ``, 400},
		"erase nothing":       {"POST", "/v1/erasures", `{}`, 400},
		"erase two":           {"POST", "/v1/erasures", `{"party":"` + secret + `","device":"` + secret + `"}`, 400},
		"erase stream alone":  {"POST", "/v1/erasures", `{"stream":"` + secret + `"}`, 400},
		"erase in the past":   {"POST", "/v1/erasures", `{"device":"pump-1","from":"` + secret + `"}`, 400},
		"erase the hub":       {"POST", "/v1/erasures", `{"party":"Acme"}`, 403},
		"wait for ever":       {"POST", "/v1/erasures?wait=86400", `{"device":"pump-1"}`, 422},
		"bad invitation":      {"POST", "/v1/invitations/redeem", `{"code":"` + secret + `"}`, 403},
		"long invitation":     {"POST", "/v1/invitations/redeem", `{"code":"` + long + `"}`, 413},
		"odd invitation":      {"POST", "/v1/invitations/redeem", `{"` + secret + `":"x"}`, 400},
		"legal basis":         {"POST", "/v1/purposes", `{"name":"x","iri":"dpv:ServiceProvision","legal_basis":"` + secret + `","text":"x"}`, 400},
		"IRI":                 {"POST", "/v1/purposes", `{"name":"x","iri":"` + secret + `","legal_basis":"none","text":"x"}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			g := h.do(h.admin, newRequest(c.method, c.path, c.body))
			g.t = t
			if g.status != c.status {
				t.Errorf("%s %s answers %d, want %d: %s", c.method, c.path[:min(len(c.path), 80)], g.status, c.status, g.body)
			}
			g.problem()
			if strings.Contains(g.body, secret) {
				t.Errorf("the answer repeats what was sent: %s", g.body)
			}
			if len(g.body) > 4000 {
				t.Errorf("a problem of %d bytes", len(g.body))
			}
		})
	}
	if strings.Contains(h.log.String(), secret) {
		t.Errorf("the log repeats what was sent: %s", h.log)
	}
}

func TestMediaTypesAreAsked(t *testing.T) {
	h := build(t, Limits{})
	for media, status := range map[string]int{"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "application/xml": 415, "application/json; charset=utf-8": 201} {
		r := newRequest("POST", "/v1/parties", `{"name":"Somebody","kind":"person"}`)
		r.Header.Set("Content-Type", media)
		h.do(h.admin, r).is(status)
	}
	r := newRequest("GET", "/v1/readings?device=pump-1", "")
	r.Header.Set("Accept", "image/png")
	h.do(h.admin, r).is(406).problem()
	r = newRequest("POST", "/v1/units", "serial\nA")
	h.do(h.admin, r).is(415).problem()
}

// A form is taken only where there is one.
func TestInvitationForm(t *testing.T) {
	h := build(t, Limits{OpenRequests: 1000})
	page := h.ask("", "GET", "/v1/invitations", "").is(200).shows("<form", "sha256-"[:0]).hides("http://", "https://")
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	var invited Invited
	h.ask(h.admin, "POST", "/v1/parties/"+h.benID.String()+"/invitations", "").is(201).into(&invited)
	send := func(code string) got {
		r := newRequest("POST", "/v1/invitations/redeem", url.Values{"code": {code}, "label": {"phone"}}.Encode())
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return h.do("", r)
	}
	send("<script>hunter2</script>").is(403).shows("wrong, used").hides("hunter2")
	made := send(invited.Code).is(200).shows("hft1.", "1 other credential").hides(invited.Code)
	_, token, _ := strings.Cut(made.body, `<pre id="token">`)
	token, _, _ = strings.Cut(token, "<")
	h.ask(token, "GET", "/v1/me", "").is(200).shows(benName, "owner")
	send(invited.Code).is(403).hides("hft1.")
	if !strings.HasSuffix(invited.Link, "/v1/invitations#"+invited.Code) {
		t.Errorf("link %q", invited.Link)
	}
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,{"b":null}]}`, `{"a":1,"a":2}`, `[[[[]]]]`, "\"\xff\"", `1 2`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		err := checkJSON(body, false)
		if err != nil && len(body) > 8 && strings.Contains(err.Error(), string(body)) {
			t.Errorf("an error repeats the body: %v", err)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"now", "-2h", "+7d", "2026-01-31", "2026-01-31T12:00:00.000000001Z", "-1d12h", "-", "9999999999999d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		now := timeOf("2026-06-01T00:00:00Z")
		early, err := ParseTime(text, now, false)
		late, errLate := ParseTime(text, now, true)
		if (err == nil) != (errLate == nil) && text[0] != '2' || err == nil && errLate == nil && early > late {
			t.Errorf("%q is %d (%v) as a start and %d (%v) as an end", text, early, err, late, errLate)
		}
	})
}
