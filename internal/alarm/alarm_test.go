package alarm_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/alarm"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// post is a hub with alarms, a webhook that keeps what it is told, and a clock.
type post struct {
	t testing.TB
	*querytest.House
	*alarm.Alarms
	box     *outbox.Outbox
	hook    *httptest.Server
	asked   map[holdfast.CredentialID]access.Principal
	ended   map[holdfast.CredentialID]bool
	exprs   alarm.Expressions
	log     *bytes.Buffer
	webhook outbox.Webhook

	of holdfast.PartyID // whose deliveries are waited for; zero: the operating organisation's

	mu  sync.Mutex
	got []alarm.Notice
}

func build(t testing.TB) *post {
	t.Helper()
	p := &post{t: t, House: querytest.Build(t), asked: map[holdfast.CredentialID]access.Principal{}, ended: map[holdfast.CredentialID]bool{}, log: &bytes.Buffer{}}
	p.hook = httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n alarm.Notice
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &n) != nil {
			t.Errorf("a webhook is told %s", body)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, n)
	}))
	t.Cleanup(p.hook.Close)
	p.restart()
	var err error
	if p.webhook, _, err = p.box.Add(t.Context(), p.Acme, p.Admin.Credential, "ops", p.hook.URL); err != nil {
		t.Fatal(err)
	}
	p.asked[p.Admin.Credential] = p.Admin
	return p
}

// restart opens outbox and alarms as the next process does.
func (p *post) restart() {
	p.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(p.hook.Certificate())
	log := slog.New(slog.NewTextHandler(p.log, nil))
	var err error
	p.box, err = outbox.Open(p.t.Context(), outbox.Deps{Catalog: p.Catalog, Vault: p.Vault, Ledger: p.Ledger},
		outbox.Options{Now: p.Now, Log: log, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Roots: roots,
			Still: func(ctx context.Context, rule holdfast.AlarmID, about []holdfast.AssignmentID) error {
				return p.Still(ctx, rule, about)
			}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Alarms, err = alarm.Open(p.t.Context(), alarm.Deps{Catalog: p.Catalog, Vault: p.Vault, Ledger: p.Ledger, Read: p.Query.Read, Outbox: p.box, Expressions: p.exprs,
		Acting: func(_ context.Context, id holdfast.CredentialID) (access.Principal, error) {
			who, ok := p.asked[id]
			if !ok || p.ended[id] {
				return who, holdfast.Errorf(holdfast.Denied, "the credential has ended")
			}
			return who, nil
		}}, alarm.Options{Now: p.Now, Log: log})
	if err != nil {
		p.t.Fatal(err)
	}
}

// pass lets time go by and looks once, then delivers.
func (p *post) pass(d time.Duration) {
	p.t.Helper()
	p.Later(d)
	p.Look(p.t.Context())
}

// told returns what the webhook was told since it was asked last.
func (p *post) told() (all []string) {
	p.t.Helper()
	ctx, stop := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.box.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		waits := 0
		all, err := p.box.Deliveries(ctx, cmp.Or(p.of, p.Acme))
		if err != nil {
			p.t.Fatal(err)
		}
		for _, d := range all {
			if d.State == outbox.Waiting {
				waits++
			}
		}
		if waits == 0 {
			break
		}
	}
	stop()
	<-ended
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.got {
		all = append(all, fmt.Sprintf("%s %d %s", strings.TrimPrefix(n.Type, "alarm."), n.Data.Count, n.Data.Message))
	}
	p.got = nil
	return all
}

func (p *post) want(want ...string) {
	p.t.Helper()
	if got := p.told(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		p.t.Fatalf("told %q\nwant %q\n%s", got, want, p.log)
	}
}

func (p *post) send(d custody.Device, stream string, v float64) {
	p.t.Helper()
	p.Send(d, querytest.At(stream, p.Now(), holdfast.NumberValue(v)))
}

func (p *post) state(name string) alarm.Status {
	p.t.Helper()
	s, err := p.Show(p.Admin, name)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *post) add(s alarm.Spec) alarm.Status {
	p.t.Helper()
	if s.Webhooks == nil {
		s.Webhooks = []holdfast.WebhookID{p.webhook.ID}
	}
	st, err := p.Add(p.t.Context(), p.Admin, "", s)
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

func at(f float64) *float64 { return &f }

// TestStory: a value crosses, waits, fires, is acknowledged, falls, and nothing of
// it is said twice or forgotten when the hub starts again in between.
func TestStory(t *testing.T) {
	p := build(t)
	d := p.Device(custody.DeviceSpec{Label: "cold-1"})
	p.send(d, "temp", 4)
	p.add(alarm.Spec{Name: "warm", Device: d.ID, Stream: "temp", Severity: "critical", Repeat: 10 * time.Minute, Message: "{device} has {value}, more than {level}",
		Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 8, Clear: at(6), For: time.Minute}})
	p.pass(10 * time.Second)
	if s := p.state("warm"); s.State != "ok" || s.Purpose != holdfast.Operation || len(s.Instances) != 1 || s.Instances[0].Value != 4.0 {
		t.Fatalf("%+v", s)
	}
	p.send(d, "temp", 9)
	p.pass(10 * time.Second)
	if s := p.state("warm"); s.State != "pending" {
		t.Fatalf("%+v", s)
	}
	p.restart()
	p.pass(40 * time.Second)
	p.want()
	p.restart()
	p.pass(20 * time.Second)
	p.want("firing 1 cold-1 has 9, more than 8")
	p.restart()
	p.pass(10 * time.Second)
	p.pass(10 * time.Second)
	p.want()
	p.pass(10 * time.Minute)
	p.want("firing 1 cold-1 has 9, more than 8")
	if _, err := p.Acknowledge(t.Context(), p.Admin, "warm", "", "on my way"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Acknowledge(t.Context(), p.Admin, "warm", "", ""); holdfast.KindOf(err) != holdfast.Conflict {
		t.Error(err)
	}
	p.restart()
	p.pass(11 * time.Minute)
	p.want()
	if s := p.state("warm"); s.State != "acknowledged" || s.Instances[0].Note != "on my way" {
		t.Fatalf("%+v", s)
	}
	p.send(d, "temp", 7) // not cold enough
	p.pass(10 * time.Second)
	p.want()
	p.send(d, "temp", 6)
	p.pass(10 * time.Second)
	p.want("resolved 1 cold-1 has 6, more than 8")
	history, err := p.History(t.Context(), p.Admin, "warm")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range history {
		kinds = append(kinds, e.Kind)
	}
	if got := strings.Join(kinds, " "); got != "resolved acknowledged fired" {
		t.Error(got)
	}
	events, err := p.Ledger.Events(t.Context(), vault.OfParty(p.Acme), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	record, _ := json.Marshal(events)
	for _, kind := range []string{"alarm added", "alarm sent", "alarm acknowledged", "disclosure opened"} {
		if !bytes.Contains(record, []byte(kind)) {
			t.Errorf("%q is not on the record", kind)
		}
	}
	if err := p.End(t.Context(), p.Admin, "warm"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Show(p.Admin, "warm"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Error(err)
	}
}

// TestManyAtOnce: a thousand devices that fall silent are one message, and so is
// their return; muted, nothing is said.
func TestManyAtOnce(t *testing.T) {
	p := build(t)
	const many = 40
	var all []custody.Device
	for n := range many {
		d := p.Device(custody.DeviceSpec{Label: fmt.Sprintf("box-%02d", n)})
		all = append(all, d)
		p.send(d, "temp", 1)
	}
	p.add(alarm.Spec{Name: "quiet", Owner: p.Acme, Stream: "temp", Gather: time.Minute, Condition: alarm.Condition{Kind: alarm.Silence, Silence: 5 * time.Minute}})
	p.pass(time.Second)
	p.pass(4 * time.Minute)
	p.want()
	p.pass(2 * time.Minute)
	p.want(fmt.Sprintf("firing %d quiet is firing: box-00/temp, one of %d", many, many))
	for _, d := range all[:3] {
		p.send(d, "temp", 1)
	}
	p.pass(10 * time.Second)
	p.want() // gathered
	p.pass(time.Minute)
	p.want("resolved 3 quiet is resolved: box-00/temp, one of 3")
	if s := p.state("quiet"); s.Counts[alarm.Firing] != many-3 {
		t.Errorf("%+v", s.Counts)
	}
	if _, err := p.Mute(t.Context(), p.Admin, "quiet", "", "", p.Now().Add(time.Hour)); holdfast.KindOf(err) != holdfast.Invalid {
		t.Error(err)
	}
	if _, err := p.Mute(t.Context(), p.Admin, "quiet", "", "the van is in the garage", p.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		p.send(d, "temp", 1)
	}
	p.pass(10 * time.Second)
	p.pass(10 * time.Minute)
	p.want()
	p.pass(time.Hour) // they are still silent when it ends
	p.want(fmt.Sprintf("firing %d quiet is firing: box-00/temp, one of %d", many, many))
}

// TestDenied: a rule acts under its credential and grant. Withdrawn, it says nothing
// and shows nothing; granted again, it is back. The owner sees the use.
func TestDenied(t *testing.T) {
	p := build(t)
	p.Purpose("care")
	anna := p.Party("Anna")
	clinic := p.Party("Clinic")
	nurse := p.Program(clinic.Party, "care")
	nurse.Scopes |= access.ScopeWrite
	p.asked[nurse.Credential] = nurse
	d := p.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party})
	p.send(d, "pulse", 70)
	spec := alarm.Spec{Name: "fast", Device: d.ID, Stream: "pulse", Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 120}}
	if _, err := p.Add(t.Context(), nurse, "", spec); holdfast.KindOf(err) != holdfast.Denied {
		t.Fatal(err)
	}
	g := p.Grant(anna, grant.Spec{Recipient: clinic.Party, Purpose: "care", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: p.Now().Add(24 * time.Hour)})
	if _, err := p.Add(t.Context(), nurse, "", spec); err != nil {
		t.Fatal(err)
	}
	p.Later(time.Second)
	p.send(d, "pulse", 140)
	p.pass(10 * time.Second)
	show := func(by access.Principal) alarm.Status {
		t.Helper()
		s, err := p.Show(by, "fast")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := show(nurse); s.State != "firing" || s.Instances[0].Value != 140.0 || s.Instances[0].Name != "" {
		t.Fatalf("%+v", s)
	}
	if s := show(clinic); s.State != "firing" || len(s.Instances) != 0 {
		t.Errorf("who did not make the rule sees what it read: %+v", s)
	}
	if _, err := p.Show(anna, "fast"); holdfast.KindOf(err) != holdfast.NotFound {
		t.Error(err)
	}
	all, err := p.Register.Disclosures(t.Context(), anna.Party)
	if err != nil || len(all) == 0 || all[0].Recipient != clinic.Party || all[0].Purpose != "care" {
		t.Error(all, err)
	}
	if err := p.Register.End(t.Context(), p.Caller(anna), g.ID); err != nil {
		t.Fatal(err)
	}
	p.pass(10 * time.Second)
	if s := show(nurse); s.State != "denied" || s.Reason == "" || len(s.Instances) != 0 {
		t.Fatalf("%+v", s)
	}
	p.restart()
	if s := show(nurse); s.State != "denied" {
		t.Fatalf("%+v", s)
	}
	p.Grant(anna, grant.Spec{Recipient: clinic.Party, Purpose: "care", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: p.Now().Add(24 * time.Hour)})
	p.pass(2 * time.Minute)
	if s := show(nurse); s.State != "firing" || s.Reason != "" {
		t.Fatalf("%+v", s)
	}
	p.ended[nurse.Credential] = true
	p.pass(10 * time.Second)
	if s := show(nurse); s.State != "denied" {
		t.Fatalf("%+v", s)
	}
	// With Anna goes what the rule knew of her.
	if err := p.Alarms.Erase(t.Context(), holdfast.Scope{Party: anna.Party, Whole: true, Assignments: []holdfast.AssignmentID{d.Assignment}, Span: holdfast.Always}); err != nil {
		t.Fatal(err)
	}
	history, err := p.History(t.Context(), nurse, "fast")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range history {
		if e.Value != nil || e.Stream != "" {
			t.Errorf("%+v", e)
		}
	}
}

// TestWithdrawnBeforeItIsSent: what waits to be sent again goes with the right to it,
// and what history told of it does; of who may still read it stays.
func TestWithdrawnBeforeItIsSent(t *testing.T) {
	for _, how := range []string{"nothing", "grant", "one device", "credential", "rule"} {
		t.Run(how, func(t *testing.T) {
			p := build(t)
			p.Purpose("care")
			anna, clinic := p.Party("Anna"), p.Party("Clinic")
			nurse := p.Program(clinic.Party, "care")
			nurse.Scopes |= access.ScopeWrite
			p.asked[nurse.Credential] = nurse
			d, other := p.Device(custody.DeviceSpec{Label: "watch", Owner: anna.Party}), p.Device(custody.DeviceSpec{Label: "band", Owner: anna.Party})
			g := p.Grant(anna, grant.Spec{Recipient: clinic.Party, Purpose: "care", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: p.Now().Add(24 * time.Hour)})
			w, _, err := p.box.Add(t.Context(), clinic.Party, nurse.Credential, "clinic", p.hook.URL)
			if err != nil {
				t.Fatal(err)
			}
			p.send(d, "pulse", 70)
			p.send(other, "pulse", 70)
			spec := alarm.Spec{Name: "fast", Owner: anna.Party, Stream: "pulse", Webhooks: []holdfast.WebhookID{w.ID}, Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 120}}
			if _, err := p.Add(t.Context(), nurse, "", spec); err != nil {
				t.Fatal(err)
			}
			p.Later(time.Second)
			p.send(d, "pulse", 140)
			p.pass(10 * time.Second)
			switch how {
			case "grant", "one device":
				if err := p.Register.End(t.Context(), p.Caller(anna), g.ID); err != nil {
					t.Fatal(err)
				}
				if how == "one device" {
					p.Grant(anna, grant.Spec{Recipient: clinic.Party, Purpose: "care", Devices: []holdfast.DeviceID{other.ID}, AllStreams: true, Data: holdfast.Always, Until: p.Now().Add(24 * time.Hour)})
				}
			case "credential":
				p.ended[nurse.Credential] = true
			case "rule":
				if err := p.End(t.Context(), nurse, "fast"); err != nil {
					t.Fatal(err)
				}
			}
			p.Later(5 * time.Second)
			p.restart() // and what waited is tried again
			p.of = clinic.Party
			got := p.told()
			all, err := p.box.Deliveries(t.Context(), clinic.Party)
			if err != nil {
				t.Fatal(err)
			}
			if how == "nothing" {
				if len(got) != 1 || len(all) != 1 {
					t.Errorf("told %q, deliveries %v", got, all)
				}
			} else if len(got) != 0 || len(all) != 0 {
				t.Errorf("told %q after the right had ended, deliveries %v", got, all)
			}
			if how == "rule" {
				return
			}
			p.pass(time.Minute)
			history, err := p.History(t.Context(), nurse, "fast")
			if err != nil || len(history) == 0 {
				t.Fatal(history, err)
			}
			for _, e := range history {
				if tells := e.Value != nil || !e.Device.IsZero(); tells != (how == "nothing" && e.Kind == "fired") {
					t.Errorf("history: %+v", e)
				}
			}
		})
	}
}

// TestExpressions: each element that an expression yields is an instance.
func TestExpressions(t *testing.T) {
	p := build(t)
	e := &exprs{}
	p.exprs = e
	p.restart()
	if _, err := p.Add(t.Context(), p.Admin, "", alarm.Spec{Name: "bad", Condition: alarm.Condition{Kind: alarm.Expression, Expression: "temp >"}}); err == nil || !strings.Contains(err.Error(), "1:7") {
		t.Fatal(err)
	}
	p.add(alarm.Spec{Name: "hot", Condition: alarm.Condition{Kind: alarm.Expression, Expression: "temp > 8", For: 15 * time.Second}})
	e.yields = []alarm.Sample{{Labels: map[string]string{"device": "a"}, Value: 9}, {Labels: map[string]string{"device": "b"}, Value: 10}}
	p.pass(10 * time.Second)
	if s := p.state("hot"); s.State != "pending" || len(s.Instances) != 2 {
		t.Fatalf("%+v", s)
	}
	p.pass(20 * time.Second)
	p.want("firing 2 hot is firing, one of 2")
	e.yields = e.yields[:1]
	p.pass(10 * time.Second)
	p.want("resolved 1 hot is resolved")
	p.pass(10 * time.Second)
	if s := p.state("hot"); len(s.Instances) != 1 || s.Instances[0].Labels["device"] != "a" || s.Instances[0].Value != 9.0 {
		t.Errorf("%+v", s)
	}
}

type exprs struct{ yields []alarm.Sample }

func (e *exprs) Check(text string) error {
	if strings.HasSuffix(text, ">") {
		return holdfast.Errorf(holdfast.Invalid, "1:7: the expression ends where a value should be")
	}
	return nil
}

func (e *exprs) Evaluate(context.Context, access.Principal, holdfast.Purpose, string, time.Time) ([]alarm.Sample, error) {
	return e.yields, nil
}

// TestMistakes: what can't be a rule is refused, with what to change.
func TestMistakes(t *testing.T) {
	p := build(t)
	d := p.Device(custody.DeviceSpec{Label: "d"})
	p.send(d, "temp", 1)
	p.Send(d, querytest.At("mode", p.Now(), holdfast.TextValue("auto")))
	good := func() alarm.Spec {
		return alarm.Spec{Name: "x", Device: d.ID, Stream: "temp", Condition: alarm.Condition{Kind: alarm.Threshold, Op: alarm.Above, Level: 8}}
	}
	for says, change := range map[string]func(*alarm.Spec){
		"no stream of this name":  func(s *alarm.Spec) { s.Stream = "tmep" },
		"no such party or device": func(s *alarm.Spec) { s.Device = holdfast.NewID[holdfast.DeviceID]() },
		"give the lower one":      func(s *alarm.Spec) { s.Clear = at(9) },
		"give the higher one":     func(s *alarm.Spec) { s.Op, s.Clear = alarm.Below, at(7) },
		"lie between them":        func(s *alarm.Spec) { s.Op, s.High, s.Clear = alarm.Outside, 9, at(1) },
		"not less than":           func(s *alarm.Spec) { s.Op = alarm.Outside },
		"0 or more":               func(s *alarm.Spec) { s.For = -time.Second },
		"in a message":            func(s *alarm.Spec) { s.Message = "{owner}" },
		"kind silence":            func(s *alarm.Spec) { s.Stream = "mode" },
		"no such webhook":         func(s *alarm.Spec) { s.Webhooks = []holdfast.WebhookID{holdfast.NewID[holdfast.WebhookID]()} },
		"sends no mail":           func(s *alarm.Spec) { s.Mail = []string{"a@example.org"} },
		"evaluates no": func(s *alarm.Spec) {
			s.Condition, s.Device, s.Stream = alarm.Condition{Kind: alarm.Expression, Expression: "up"}, holdfast.DeviceID{}, ""
		},
		"silence is from": func(s *alarm.Spec) { s.Kind = alarm.Silence },
		"per is from":     func(s *alarm.Spec) { s.Kind = alarm.Rate },
		"compare with":    func(s *alarm.Spec) { s.Op = "over" },
	} {
		s := good()
		change(&s)
		if _, err := p.Add(t.Context(), p.Admin, "", s); err == nil || !strings.Contains(err.Error(), says) || holdfast.KindOf(err) == holdfast.Internal {
			t.Errorf("%q: %v", says, err)
		}
	}
	if n := len(p.List(p.Admin)); n != 0 {
		t.Error(n, "rules were made")
	}
	s := good()
	s.Stream, s.Op, s.Level, s.Text = "mode", alarm.Equals, 0, "auto"
	p.add(s)
	p.pass(time.Second)
	p.want("firing 1 x is firing: d/mode auto")
}
