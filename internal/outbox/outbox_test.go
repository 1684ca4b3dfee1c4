package outbox

import (
	"bytes"
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

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// office is an outbox in a house, with a clock that is moved by hand.
type office struct {
	*testing.T
	*Outbox
	house *querytest.House
	anna  access.Principal
	at    time.Time
	log   bytes.Buffer
	o     Options
}

func open(t *testing.T, change func(*Options)) *office {
	t.Helper()
	f := &office{T: t, house: querytest.Build(t), at: time.Now()}
	f.anna = f.house.Party("Anna")
	f.o = Options{Now: func() time.Time { return f.at }, Log: slog.New(slog.NewTextHandler(&f.log, nil)), Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if change != nil {
		change(&f.o)
	}
	f.reopen()
	return f
}

// reopen is what a restart finds.
func (f *office) reopen() {
	f.Helper()
	b, err := Open(f.Context(), Deps{f.house.Catalog, f.house.Vault, f.house.Ledger}, f.o)
	if err != nil {
		f.Fatal(err)
	}
	b.draw = func() float64 { return 0.5 }
	f.Outbox = b
}

// step does what is due and returns when the next attempt is.
func (f *office) step() time.Time {
	for {
		var flights sync.WaitGroup
		next, begun := f.launch(f.Context(), &flights)
		if flights.Wait(); begun == 0 {
			return next
		}
	}
}

func (f *office) hook(name, address string) (Webhook, string) {
	f.Helper()
	w, secret, err := f.Add(f.Context(), f.anna.Party, f.anna.Credential, name, address)
	if err != nil {
		f.Fatal(err)
	}
	return w, secret
}

func (f *office) tell(w Webhook, body string, about ...holdfast.AssignmentID) holdfast.DeliveryID {
	f.Helper()
	id, err := f.Outbox.Send(f.Context(), Message{Party: f.anna.Party, Webhook: w.ID, Body: []byte(body), About: about})
	if err != nil {
		f.Fatal(err)
	}
	return id
}

func (f *office) delivery(id holdfast.DeliveryID) Delivery {
	f.Helper()
	d, err := f.Delivery(f.Context(), f.anna.Party, id)
	if err != nil {
		f.Fatal(err)
	}
	return d
}

// receiver is somebody's server: it keeps what it was asked, and answers as it is told.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []received
	says func(w http.ResponseWriter, n int)
}

type received struct {
	Headers http.Header
	Body    []byte
}

func receive(t *testing.T, f *Options, says func(w http.ResponseWriter, n int)) *receiver {
	r := &receiver{says: says}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.got = append(r.got, received{req.Header, body})
		n := len(r.got)
		r.mu.Unlock()
		if r.says != nil {
			r.says(w, n)
		}
	}))
	t.Cleanup(r.Close)
	f.Roots = x509.NewCertPool()
	f.Roots.AddCert(r.Certificate())
	return r
}

func status(codes ...int) func(http.ResponseWriter, int) {
	return func(w http.ResponseWriter, n int) { w.WriteHeader(codes[min(n, len(codes))-1]) }
}

// TestSignature: another implementation of Standard Webhooks takes what is sent, and
// a message that fails comes again under the same id, later each time.
func TestSignatureAndRetries(t *testing.T) {
	var r *receiver
	f := open(t, func(o *Options) { r = receive(t, o, status(500, 503, 204)) })
	w, secret := f.hook("ops", r.URL+"/alarms")
	id := f.tell(w, `{"type":"alarm.firing"}`)
	var waits []time.Duration
	for next := f.step(); !next.IsZero(); next = f.step() {
		waits = append(waits, next.Sub(f.at))
		f.at = next
	}
	if len(r.got) != 3 || len(waits) != 2 || waits[0] != 5*time.Second || waits[1] != 15*time.Second {
		t.Fatal(len(r.got), "requests, waits", waits)
	}
	lib, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range r.got {
		if err := lib.VerifyIgnoringTimestamp(g.Body, g.Headers); err != nil {
			t.Error(i, err)
		}
		if lib.VerifyIgnoringTimestamp(append(g.Body, ' '), g.Headers) == nil {
			t.Error("a changed body is taken")
		}
		if got := g.Headers.Get("Webhook-Id"); got != MessageID(id) {
			t.Error(got)
		}
	}
	if err := lib.Verify(r.got[0].Body, r.got[0].Headers); err != nil {
		t.Error(err)
	}
	d := f.delivery(id)
	if d.State != Delivered || d.Attempts != 3 {
		t.Error(d)
	}
	all, _ := f.Webhooks(t.Context(), f.anna.Party)
	text, _ := json.Marshal(all)
	if key := strings.TrimPrefix(secret, secretPrefix); strings.Contains(string(text)+f.log.String()+fmt.Sprint(all), key) {
		t.Error("the secret is shown again")
	}
	witnesses(t, secret, r.got[2])
}

// TestRestart: what waits is sent after a restart, under the same id and when it is due.
func TestRestart(t *testing.T) {
	var r *receiver
	f := open(t, func(o *Options) { r = receive(t, o, status(500, 200)) })
	w, _ := f.hook("ops", r.URL)
	f.tell(w, `{}`)
	f.at = f.step()
	f.reopen()
	f.step()
	if len(r.got) != 2 || r.got[0].Headers.Get("webhook-id") != r.got[1].Headers.Get("webhook-id") {
		t.Fatal(len(r.got))
	}
	// What was sent and not written down comes twice, as the same.
	id := f.tell(w, `{}`)
	f.step()
	rows, err := f.readJobs(t.Context(), `id = $1`, id)
	if err != nil {
		t.Fatal(err)
	}
	rows[0].state, rows[0].Body = Waiting, []byte(`{}`)
	if err := f.write(t.Context(), rows[0]); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	f.step()
	if len(r.got) != 4 || r.got[2].Headers.Get("webhook-id") != r.got[3].Headers.Get("webhook-id") {
		t.Fatal(len(r.got))
	}
}

// TestGivesUp: a job ends after its attempts or its day, is kept, and can be tried again.
func TestGivesUp(t *testing.T) {
	var r *receiver
	f := open(t, func(o *Options) { r = receive(t, o, status(500)) })
	w, _ := f.hook("ops", r.URL)
	id := f.tell(w, `{"a":1}`)
	began := f.at
	for next := f.step(); !next.IsZero(); next = f.step() {
		f.at = next
	}
	d := f.delivery(id)
	if d.State != Dead || d.Attempts != maxAttempts || len(r.got) != maxAttempts || !strings.Contains(d.Last, "500") {
		t.Fatalf("%+v after %d requests", d, len(r.got))
	}
	if took := f.at.Sub(began); took < time.Hour || took > 25*time.Hour {
		t.Error("given up after", took)
	}
	tr, err := f.Failing(t.Context())
	if err != nil || tr.Dead != 1 || len(tr.Webhooks) != 1 || f.FailingTargets() != 1 {
		t.Error(tr, err)
	}
	r.says = status(200)
	if _, err := f.Retry(t.Context(), f.anna.Party, id); err != nil {
		t.Fatal(err)
	}
	f.step()
	if d := f.delivery(id); d.State != Delivered || string(r.got[maxAttempts].Body) != `{"a":1}` || f.FailingTargets() != 0 {
		t.Errorf("%+v", d)
	}
	if _, err := f.Retry(t.Context(), f.anna.Party, id); holdfast.KindOf(err) != holdfast.Conflict {
		t.Error(err)
	}
	f.at = f.at.Add(9 * 24 * time.Hour)
	if err := f.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := f.Deliveries(t.Context(), f.anna.Party); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

// TestFailingTargetIsSpared: after three failures one job at a time finds out
// whether a target is back, and nobody else waits for it.
func TestFailingTargetIsSpared(t *testing.T) {
	var bad, good *receiver
	f := open(t, func(o *Options) {
		bad = receive(t, o, status(500))
		good = receive(t, o, nil)
		o.Roots.AddCert(bad.Certificate())
	})
	w, _ := f.hook("bad", bad.URL)
	v, _ := f.hook("good", good.URL)
	for range 50 {
		f.tell(w, `{}`)
	}
	for range 3 {
		f.tell(v, `{}`)
	}
	f.step()
	if len(good.got) != 3 || len(bad.got) != perTarget {
		t.Fatal(len(good.got), len(bad.got))
	}
	end := f.at.Add(time.Hour)
	for next := f.step(); next.Before(end) && !next.IsZero(); next = f.step() {
		f.at = next
	}
	if len(bad.got) > 14 { // 30 s, 1 m, 2 m, 4 m, ... 30 m apart
		t.Error(len(bad.got), "requests of one hour to a target that fails")
	}
	bad.says = status(200)
	for next := f.step(); !next.IsZero(); next = f.step() {
		f.at = next
	}
	if n := f.waiting(f.anna.Party); n != 0 {
		t.Error(n, "still wait")
	}
}

// TestWhatAnswersMean: 410 ends a webhook until a test is taken, Retry-After is
// honoured, redirects are not followed.
func TestWhatAnswersMean(t *testing.T) {
	var r *receiver
	f := open(t, func(o *Options) { r = receive(t, o, nil) })
	w, _ := f.hook("ops", r.URL)
	r.says = func(w http.ResponseWriter, _ int) {
		w.Header().Set("Retry-After", "7200")
		w.WriteHeader(429)
	}
	id := f.tell(w, `{}`)
	if next := f.step(); next.Sub(f.at) != 2*time.Hour {
		t.Error("asked to wait two hours, waits", next.Sub(f.at))
	}
	f.at = f.at.Add(2 * time.Hour)
	other := receive(t, &Options{}, nil)
	r.says = func(w http.ResponseWriter, _ int) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(307)
	}
	f.at = f.step()
	if d := f.delivery(id); len(other.got) != 0 || !strings.Contains(d.Last, "redirect") {
		t.Error(d)
	}
	r.says = status(410)
	f.step()
	if d := f.delivery(id); d.State != Dead || !strings.Contains(d.Last, "410") {
		t.Error(d)
	}
	if x, err := f.Webhook(t.Context(), f.anna.Party, "ops"); err != nil || x.State != Disabled {
		t.Error(x, err)
	}
	r.says = nil
	asked := len(r.got)
	id = f.tell(w, `{}`)
	if f.step(); f.delivery(id).State != Dead || len(r.got) != asked {
		t.Error("a disabled webhook is asked")
	}
	if _, err := f.Send(t.Context(), Message{Party: f.anna.Party, Webhook: w.ID, Body: []byte(`{}`), Test: true}); err != nil {
		t.Fatal(err)
	}
	f.step()
	if x, err := f.Webhook(t.Context(), f.anna.Party, "ops"); err != nil || x.State != Active {
		t.Error(x, err)
	}
}

// TestRotation: both secrets sign for a day, then the new one alone.
func TestRotation(t *testing.T) {
	var r *receiver
	f := open(t, func(o *Options) { r = receive(t, o, nil) })
	w, before := f.hook("ops", r.URL)
	_, after, err := f.Rotate(t.Context(), f.anna.Party, f.anna.Credential, "ops")
	if err != nil || after == before {
		t.Fatal(err)
	}
	takes := func(secret string) bool {
		lib, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		last := r.got[len(r.got)-1]
		return lib.VerifyIgnoringTimestamp(last.Body, last.Headers) == nil
	}
	f.tell(w, `{}`)
	f.step()
	if !takes(before) || !takes(after) {
		t.Error("both secrets should sign")
	}
	f.at = f.at.Add(overlap)
	f.tell(w, `{}`)
	f.step()
	if takes(before) || !takes(after) {
		t.Error("the new secret alone should sign")
	}
}

// TestAddresses: what is not public is neither taken nor asked.
func TestAddresses(t *testing.T) {
	f := open(t, func(o *Options) { o.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")} })
	for text, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "10.1.2.3": true, "::ffff:10.1.2.3": true,
		"127.0.0.1": false, "::1": false, "0.0.0.0": false, "::": false, "10.2.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "169.254.169.254": false,
		"fe80::1": false, "fd00:ec2::254": false, "100.100.100.200": false, "::ffff:127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "224.0.0.1": false,
		"255.255.255.255": false, "ff02::1": false, "198.18.0.1": false, "2001:db8::1": false, "fe80::1%eth0": false,
	} {
		if got := f.may(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: may be asked: %t", text, got)
		}
	}
	for address, want := range map[string]holdfast.Kind{
		"http://example.org/": holdfast.Invalid, "https:///x": holdfast.Invalid, "https://a:b@example.org/": holdfast.Invalid, "ftp://example.org": holdfast.Invalid, "": holdfast.Invalid,
		"https://example.org/#x": holdfast.Invalid, "https://127.0.0.1/": holdfast.Denied, "https://[::1]:8443/": holdfast.Denied, "https://169.254.169.254/latest": holdfast.Denied,
		"https://example.org/" + strings.Repeat("x", 3000): holdfast.TooLarge,
	} {
		if _, _, err := f.Add(t.Context(), f.anna.Party, f.anna.Credential, "x", address); holdfast.KindOf(err) != want || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%.60s: %v", address, err)
		}
	}
	// A name that leads within is found out when it is asked.
	asked := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer s.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
	w, _ := f.hook("inside", "https://localhost:"+port+"/")
	id := f.tell(w, `{}`)
	f.step()
	if d := f.delivery(id); asked || d.State != Waiting || !strings.Contains(d.Last, "--webhook-allow") {
		t.Errorf("%t %+v", asked, d)
	}
}

// TestErase: with a party goes all that is sent for it, with an assignment whatever
// tells of it, for whomever.
func TestErase(t *testing.T) {
	var r *receiver
	f := open(t, func(o *Options) { r = receive(t, o, status(500)) })
	d := f.house.Device(custody.DeviceSpec{Label: "watch", Owner: f.house.Party("Ben").Party})
	w, _ := f.hook("ops", r.URL)
	tells, other := f.tell(w, `{"v":1}`, d.Assignment), f.tell(w, `{"v":2}`)
	if err := f.Outbox.Erase(t.Context(), holdfast.Scope{Party: d.Owner, Assignments: []holdfast.AssignmentID{d.Assignment}, Span: holdfast.Span{From: 1, To: 2}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Delivery(t.Context(), f.anna.Party, tells); holdfast.KindOf(err) != holdfast.NotFound {
		t.Error(err)
	}
	if f.delivery(other).State != Waiting || f.waiting(f.anna.Party) != 1 {
		t.Error("what tells of somebody else is gone, too")
	}
	if err := f.Outbox.Erase(t.Context(), holdfast.Scope{Party: f.anna.Party, Whole: true, Span: holdfast.Always}); err != nil {
		t.Fatal(err)
	}
	if all, err := f.Webhooks(t.Context(), f.anna.Party); err != nil || len(all) != 0 || f.waiting(f.anna.Party) != 0 {
		t.Error(all, err)
	}
	f.reopen()
	if f.step(); len(r.got) != 0 {
		t.Error("something was sent")
	}
	// All of it was recorded.
	events, err := f.house.Ledger.Events(t.Context(), vault.OfParty(f.anna.Party), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(events); !strings.Contains(string(text), "webhook added") {
		t.Errorf("%s", text)
	}
}

// TestRun: jobs are sent as they come, and a shutdown leaves what it did not send.
func TestRun(t *testing.T) {
	var r *receiver
	got := make(chan int, 8)
	f := open(t, func(o *Options) {
		o.Now = time.Now
		r = receive(t, o, func(_ http.ResponseWriter, n int) { got <- n })
	})
	w, _ := f.hook("ops", r.URL)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Outbox.Run(ctx) }()
	f.tell(w, `{}`)
	<-got
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	f.tell(w, `{}`)
	f.reopen()
	if f.waiting(f.anna.Party) != 1 {
		t.Error("what was not sent is lost")
	}
}
