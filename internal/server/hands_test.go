package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// story is a hub that serves on its real ports, with people who ask its API with
// tokens of their own, and devices that send over TLS. Whose a time is goes by a
// clock that the story sets; all else by the system's.
type story struct {
	*house
	at     Addresses
	end    func()
	behind *atomic.Int64 // how far the story's clock is behind the system's, ns
	web    *http.Client
}

// someone is a party with an owner's token.
type someone struct {
	access.Principal
	name, token string
}

// day is the unit of the stories.
const day = 24 * time.Hour

// tell begins a story so long ago.
func tell(t *testing.T, ago time.Duration) *story {
	t.Helper()
	s := &story{behind: new(atomic.Int64)}
	g := Machine()
	g.Hands = func() time.Time { return time.Now().Add(-time.Duration(s.behind.Load())) }
	s.house = newHouseOn(t, g)
	s.behind.Store(int64(ago))
	s.serves()
	return s
}

func (s *story) serves() {
	s.t.Helper()
	s.at, s.end = s.serve()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.identity.CAPEM())
	s.web = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	s.t.Cleanup(s.web.CloseIdleConnections)
}

// on is the story's time on one of its days; now says so.
func (s *story) on(days float64, of time.Time) time.Time {
	return of.Add(time.Duration(days * float64(day)))
}
func (s *story) now() time.Time { return s.ground.Hands() }

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) someone(name string, kind custody.PartyKind) someone {
	s.t.Helper()
	p, err := s.custody.AddParty(s.t.Context(), s.admin().Credential, name, kind)
	s.must(err)
	return s.credentialOf(p.ID, name)
}

func (s *story) credentialOf(id holdfast.PartyID, name string) someone {
	s.t.Helper()
	code, _, err := s.access.Invite(s.t.Context(), s.admin(), id)
	s.must(err)
	m, err := s.access.Redeem(s.t.Context(), access.Redemption{Code: code, From: "192.0.2.1"})
	s.must(err)
	return someone{access.Principal{Settled: true, Credential: m.ID, Party: id, Role: access.Owner,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}, name, m.Token}
}

func (s *story) do(token, method, path, body string) (int, []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.at.API+path, strings.NewReader(body))
	s.must(err)
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := s.web.Do(r)
	s.must(err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	s.must(err)
	return answer.StatusCode, b
}

// asks is do, which has to answer with a status; into may be nil.
func (s *story) asks(who someone, status int, method, path, body string, into any) string {
	s.t.Helper()
	got, b := s.do(who.token, method, path, body)
	if got != status {
		s.t.Fatalf("%s %s %s by %s: %d %s", method, path, body, who.name, got, b)
	}
	if into != nil {
		s.must(json.Unmarshal(b, into))
	}
	return string(b)
}

// period adds one by the API, by the device's owner.
func (s *story) period(by someone, body string) (id string) {
	s.t.Helper()
	var made struct{ ID string }
	s.asks(by, http.StatusCreated, "POST", "/v1/assignments", body, &made)
	return made.ID
}

// said is a reading whose stream and text are the same word, so that any place where
// it shows up is found.
func said(at time.Time, word string) string {
	return fmt.Sprintf(`[{"t":%d,"n":%q,"vs":%q}]`, at.Unix(), word, word)
}

// posts sends over HTTPS, publishes over MQTT to a topic; both as the device itself.
func (s *story) posts(d *thing, at time.Time, word string) {
	s.t.Helper()
	status, _, answer, err := post(d.http(s.t), s.at.Device+"/v1/data", "application/senml+json", strings.NewReader(said(at, word)))
	if err != nil || status >= 300 {
		s.t.Fatalf("%s: %d %s %v", word, status, answer, err)
	}
}

func (s *story) publishes(c *paho.Client, topic string, at time.Time, word string) {
	s.t.Helper()
	r, err := c.Publish(s.t.Context(), &paho.Publish{QoS: 1, Topic: topic, Payload: []byte(said(at, word))})
	if err != nil || r.ReasonCode != 0 {
		s.t.Fatalf("%s: %+v %v", word, r, err)
	}
}

// content is a bundle in memory: all of its text, and the values in its parts.
type content struct{ bytes.Buffer }

func (c *content) Put(_ context.Context, name string, b []byte) error {
	if !bundle.IsPart(name) {
		c.Write(b)
		return nil
	}
	return bundle.ReadPart(bytes.NewReader(b), int64(len(b)), func(_ *bundle.Source, r holdfast.Reading) error {
		fmt.Fprintf(c, "\nvalue %s\n", r.Value.Text())
		return nil
	})
}

// views are all ways to what a party has: its query of all, one of the device, its
// export, looked into, and what the hub says is its own.
func (s *story) views(who someone, device holdfast.DeviceID) map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for name, path := range map[string]string{
		"query":  "/v1/readings?from=2000-01-01&to=2100-01-01&format=csv&owner=" + who.Party.String(),
		"device": "/v1/readings?from=2000-01-01&to=2100-01-01&format=csv&device=" + device.String(),
		"data":   "/v1/me/data", "report": "/v1/me/report", "show": "/v1/devices/" + device.String(),
	} {
		_, b := s.do(who.token, "GET", path, "")
		out[name] = string(b)
	}
	status, b := s.do(who.token, "POST", "/v1/exports", "")
	if status != http.StatusOK {
		s.t.Fatalf("export of %s: %d %s", who.name, status, b)
	}
	var c content
	s.must(archive.Untar(s.t.Context(), bytes.NewReader(b), &c))
	out["export"] = c.String()
	return out
}

// has says which words a party finds in every view of its own, and which in none.
func (s *story) has(who someone, device holdfast.DeviceID, yes, no []string) {
	s.t.Helper()
	for view, text := range s.views(who, device) {
		for _, w := range yes {
			if !strings.Contains(text, w) {
				s.t.Errorf("%s misses %q in the view %s: %.300s", who.name, w, view, text)
			}
			if view == "export" && !strings.Contains(text, "\nvalue "+w+"\n") {
				s.t.Errorf("%s misses the value %q in the export", who.name, w)
			}
		}
		for _, w := range no {
			if strings.Contains(text, w) {
				s.t.Errorf("%s finds %q in the view %s", who.name, w, view)
			}
		}
	}
}

func words(w ...string) []string { return w }

// A worker's own badge, with shifts by the clocks of Berlin: the employer reads what
// lies in them, by the worker's grant of that assignment, and never anything else.
func TestStoryOfAWorker(t *testing.T) {
	s := tell(t, 20*day)
	ben, firm := s.someone("Ben", custody.Person), s.someone("Firm", custody.Organisation)
	badge := s.enrolled(ben.Party, "badge")
	_, err := s.custody.AddMember(t.Context(), custody.Actor{Credential: s.admin().Credential, Party: s.admin().Party, Administrator: true},
		custody.MemberSpec{Of: firm.Party, Member: ben.Party, Kind: custody.Employee})
	s.must(err)
	for name, basis := range map[string]string{"attendance": "consent", "safety": "contract"} {
		_, err := s.grants.AddPurpose(t.Context(), s.admin().Credential, grant.Purpose{Name: holdfast.Purpose(name), IRI: "dpv:ServiceProvision", LegalBasis: basis, Text: name})
		s.must(err)
	}
	body := `{"device":"badge","owner":"Firm","subject":%q,"basis":"employ","hours":"Mo-Fr 08:00-17:00","zone":"Europe/Berlin"}`
	if code, b := s.do(firm.token, "POST", "/v1/assignments", fmt.Sprintf(body, ben.Party)); code != http.StatusNotFound {
		t.Errorf("an employer takes the time of a worker's device: %d %s", code, b)
	}
	shifts := s.period(ben, fmt.Sprintf(body, ben.Party))
	berlin, err := time.LoadLocation("Europe/Berlin")
	s.must(err)
	monday := s.now().In(berlin).AddDate(0, 0, 1)
	for monday.Weekday() != time.Monday {
		monday = monday.AddDate(0, 0, 1)
	}
	hour := func(days, h, min int) time.Time {
		return time.Date(monday.Year(), monday.Month(), monday.Day()+days, h, min, 0, 0, berlin)
	}
	s.behind.Store(0)
	c := badge.mqtt(t, s.at)
	s.publishes(c, "data", hour(0, 7, 59), "off-before")
	s.publishes(c, "data", hour(0, 8, 0), "on-first")
	s.posts(badge, hour(2, 16, 59), "on-last")
	s.posts(badge, hour(2, 17, 0), "off-after")
	s.posts(badge, hour(5, 12, 0), "off-saturday")
	on, off := words("on-first", "on-last"), words("off-before", "off-after", "off-saturday")
	all := append(words(), append(on, off...)...)
	s.has(ben, badge.Device, all, nil)
	s.has(firm, badge.Device, nil, all)

	ask := func(purpose string) string {
		return fmt.Sprintf(`{"recipient":"Firm","purpose":%q,"until":"+30d","assignments":[%q]}`, purpose, shifts)
	}
	if text := s.asks(ben, http.StatusForbidden, "POST", "/v1/grants", ask("attendance"), nil); !strings.Contains(text, "consent given to an employer") {
		t.Error(text)
	}
	s.asks(ben, http.StatusCreated, "POST", "/v1/grants", ask("safety"), nil)
	program, err := s.access.Add(t.Context(), firm.Principal, access.Spec{Label: "desk", Party: firm.Party, Role: access.Program, Purposes: []holdfast.Purpose{"safety"}}, nil)
	s.must(err)
	for _, path := range []string{"device=" + badge.Device.String(), "owner=" + ben.Party.String()} {
		text := s.asks(someone{token: program.Token, name: "the desk"}, http.StatusOK, "GET", "/v1/readings?purpose=safety&from=2000-01-01&format=csv&"+path, "", nil)
		for _, w := range on {
			if !strings.Contains(text, w) {
				t.Errorf("the employer misses %q by %s: %s", w, path, text)
			}
		}
		for _, w := range off {
			if strings.Contains(text, w) {
				t.Errorf("the employer finds %q by %s", w, path)
			}
		}
	}
	s.has(firm, badge.Device, nil, all)
	var told struct {
		Items []struct {
			Recipient struct{ ID string }
			Purpose   string
			Rows      uint64
			Streams   []struct{ Stream string }
		}
	}
	s.asks(ben, http.StatusOK, "GET", "/v1/me/recipients", "", &told)
	firms := 0
	for _, item := range told.Items {
		if item.Recipient.ID != firm.Party.String() {
			continue
		}
		firms++
		if item.Purpose != "safety" || item.Rows != 4 || len(item.Streams) != 2 || strings.HasPrefix(item.Streams[0].Stream+item.Streams[1].Stream, "off") {
			t.Errorf("what left to the employer is told as %+v", item)
		}
	}
	if firms != 1 {
		t.Errorf("the employer is named %d times in %+v", firms, told)
	}
}

// A landlord's meter behind his gateway: the tenancy is the tenant's, by the
// gateway's own connection; before and after are the landlord's.
func TestStoryOfATenantBehindAGateway(t *testing.T) {
	s := tell(t, 20*day)
	landlord, tenant, next := s.someone("Landlord", custody.Organisation), s.someone("Tenant", custody.Person), s.someone("Next", custody.Person)
	gateway := s.enrolled(landlord.Party, "gateway")
	meter, err := s.custody.AddDevice(t.Context(), s.admin().Credential, custody.DeviceSpec{Label: "meter", Owner: landlord.Party, Gateway: gateway.Device})
	s.must(err)
	begin := s.now()
	terms := `{"device":%q,"owner":%q,"basis":"tenancy","from":%q,"to":%q}`
	stamp := func(days float64) string { return s.on(days, begin).Format(time.RFC3339) }
	id := meter.Device.ID
	s.period(landlord, fmt.Sprintf(terms, id, tenant.Party, stamp(2), stamp(8)))
	if text := s.asks(landlord, http.StatusConflict, "POST", "/v1/assignments", fmt.Sprintf(terms, id, next.Party, stamp(7), stamp(12)), nil); !strings.Contains(text, "in another period") {
		t.Error(text)
	}
	s.period(landlord, fmt.Sprintf(terms, id, next.Party, stamp(9), stamp(12)))
	s.behind.Store(0)
	c := gateway.mqtt(t, s.at)
	for days, word := range map[float64]string{1: "heat-before", 3: "heat-first", 8.5: "heat-empty", 10: "heat-second", 13: "heat-after"} {
		s.publishes(c, "child/meter/data", s.on(days, begin), word)
	}
	s.posts(gateway, s.on(3, begin), "own-of-gateway") // what is the gateway's own is no child's
	s.has(tenant, id, words("heat-first"), words("heat-before", "heat-empty", "heat-second", "heat-after", "own-of-gateway"))
	s.has(next, id, words("heat-second"), words("heat-before", "heat-empty", "heat-first", "heat-after", "own-of-gateway"))
	for view, text := range s.views(landlord, id) {
		for _, w := range words("heat-first", "heat-second") {
			if strings.Contains(text, w) {
				t.Errorf("the landlord finds %q in the view %s", w, view)
			}
		}
		for _, w := range words("heat-before", "heat-empty", "heat-after") {
			if !strings.Contains(text, w) {
				t.Errorf("the landlord misses %q in the view %s", w, view)
			}
		}
	}
}

// A scooter is lent to a guest and comes back; another time it is let, and the
// customer's readings erase themselves days after he gave it back, by the hub's own
// clock and across a restart.
func TestStoryOfALoanAndARental(t *testing.T) {
	s := tell(t, 20*day)
	anna, guest, customer := s.someone("Anna", custody.Person), s.someone("Guest", custody.Person), s.someone("Customer", custody.Person)
	scooter := s.enrolled(anna.Party, "scooter")
	begin := s.now()
	stamp := func(days float64) string { return s.on(days, begin).Format(time.RFC3339) }
	loan := s.period(anna, fmt.Sprintf(`{"device":"scooter","owner":%q,"basis":"loan","from":%q}`, guest.Party, stamp(1)))
	s.behind.Store(int64(17 * day))
	s.asks(guest, http.StatusOK, "POST", "/v1/assignments/"+loan+"/end", "", nil) // he gives it back
	s.behind.Store(int64(15 * day))
	s.period(anna, fmt.Sprintf(`{"device":"scooter","owner":%q,"basis":"lease","to":%q,"erase_after_days":15}`, customer.Party, stamp(10)))
	s.behind.Store(0) // the 20th day: the rental erases itself on the 25th
	for days, word := range map[float64]string{0.5: "anna-before", 2: "guest-rides", 4: "anna-between", 7: "customer-rides", 12: "anna-after"} {
		s.posts(scooter, s.on(days, begin), word)
	}
	annas, others := words("anna-before", "anna-between", "anna-after"), words("guest-rides", "customer-rides")
	s.has(anna, scooter.Device, annas, others)
	s.has(guest, scooter.Device, words("guest-rides"), append(words("customer-rides"), annas...))
	s.has(customer, scooter.Device, words("customer-rides"), append(words("guest-rides"), annas...))

	restart := func(days time.Duration) {
		s.end()
		s.behind.Store(int64(-days * day))
		s.serves() // its runners look for what is due at the start
	}
	restart(4)
	s.must(s.timeline.Once(t.Context()))
	s.has(customer, scooter.Device, words("customer-rides"), annas)
	restart(6)
	var erased string
	for deadline := time.Now().Add(30 * time.Second); erased == ""; time.Sleep(20 * time.Millisecond) {
		var list struct {
			Items []struct{ ID, State, Certificate string }
		}
		s.asks(customer, http.StatusOK, "GET", "/v1/erasures", "", &list)
		if len(list.Items) == 1 && list.Items[0].State == "done" {
			erased = list.Items[0].Certificate
		}
		if time.Now().After(deadline) {
			t.Fatalf("the rental is not erased: %+v", list)
		}
	}
	if !strings.Contains(erased, customer.Party.String()) {
		t.Errorf("the certificate names somebody else: %s", erased)
	}
	s.has(customer, scooter.Device, nil, append(words("customer-rides", "guest-rides"), annas...))
	s.has(anna, scooter.Device, annas, others)
	s.has(guest, scooter.Device, words("guest-rides"), append(words("customer-rides"), annas...))
	s.posts(scooter, s.on(13, begin), "anna-goes-on")
	status, _, answer, err := post(scooter.http(t), s.at.Device+"/v1/data", "application/senml+json", strings.NewReader(said(s.on(8, begin), "late-ride")))
	if err != nil || status < 400 {
		t.Errorf("a late reading of the erased rental: %d %s %v", status, answer, err)
	}
	s.has(anna, scooter.Device, append(words("anna-goes-on"), annas...), append(words("late-ride"), others...))
}

// A child's watch: its guardian reads in its place to the day of majority and not a
// moment longer, in reads, exports and lists; the watch sends on all the time.
func TestStoryOfAChild(t *testing.T) {
	s := tell(t, 10*day)
	anna := s.someone("Anna", custody.Person)
	home, err := s.custody.AddParty(t.Context(), s.admin().Credential, "Home", custody.Household)
	s.must(err)
	kid, err := s.custody.AddParty(t.Context(), s.admin().Credential, "Kim", custody.Person)
	s.must(err)
	admin := custody.Actor{Credential: s.admin().Credential, Party: s.admin().Party, Administrator: true}
	_, err = s.custody.AddMember(t.Context(), admin, custody.MemberSpec{Of: home.ID, Member: kid.ID, Kind: custody.Minor, To: s.now().Add(5 * day)})
	s.must(err)
	m, err := s.custody.AddMember(t.Context(), admin, custody.MemberSpec{Of: home.ID, Member: anna.Party, Kind: custody.Guardian, Ward: kid.ID})
	s.must(err)
	s.asks(anna, http.StatusOK, "POST", "/v1/members/"+m.ID.String()+"/acceptance", "", nil)
	watch := s.enrolled(kid.ID, "watch")
	c := watch.mqtt(t, s.at)
	s.publishes(c, "data", s.now().Add(day), "as-a-child")
	kim := s.credentialOf(kid.ID, "Kim")
	reads := func(who someone) string {
		_, b := s.do(who.token, "GET", "/v1/readings?from=2000-01-01&format=csv&device="+watch.Device.String(), "")
		return string(b)
	}
	acts := func() (all string) {
		for _, path := range []string{"GET /v1/me/data", "GET /v1/devices", "GET /v1/ledger/entries", "POST /v1/exports"} {
			method, path, _ := strings.Cut(path, " ")
			r, err := http.NewRequestWithContext(t.Context(), method, s.at.API+path, nil)
			s.must(err)
			r.Header.Set("Authorization", "Bearer "+anna.token)
			r.Header.Set("Holdfast-For", url.QueryEscape("Kim"))
			answer, err := s.web.Do(r)
			s.must(err)
			answer.Body.Close()
			all += fmt.Sprint(answer.StatusCode, " ")
		}
		return all
	}
	if text := reads(anna); !strings.Contains(text, "as-a-child") {
		t.Errorf("the guardian reads %s", text)
	}
	if got := acts(); got != "200 200 200 200 " {
		t.Errorf("the guardian acts: %s", got)
	}
	s.has(kim, watch.Device, words("as-a-child"), nil)

	s.behind.Store(int64(5*day - time.Second))
	s.publishes(c, "data", s.now().Add(-time.Minute), "of-age")
	if text := reads(anna); strings.Contains(text, "as-a-child") || strings.Contains(text, "of-age") {
		t.Errorf("after the majority the guardian reads %s", text)
	}
	if got := acts(); got != "404 404 404 404 " {
		t.Errorf("after the majority the guardian acts: %s", got)
	}
	s.has(anna, watch.Device, nil, words("as-a-child", "of-age"))
	s.has(kim, watch.Device, words("as-a-child", "of-age"), nil)
	s.must(s.desk.Once(t.Context()))
	if text := s.asks(kim, http.StatusOK, "GET", "/v1/ledger/entries", "", nil); !strings.Contains(text, "majority reached") {
		t.Error(text)
	}
}
