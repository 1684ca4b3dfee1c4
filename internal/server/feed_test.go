package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// followed is a hub with Anna's band and who may follow it.
type followed struct {
	*estate
	band *thing
	anna *reader
}

func newFollowed(t *testing.T) *followed { return newFollowedOn(t, newHouse(t)) }

func newFollowedOn(t *testing.T, h *house) *followed {
	t.Helper()
	f := &followed{estate: &estate{house: h, targets: map[string]*target{}}}
	anna := f.party("Anna", custody.Person)
	f.band = h.enrolled(anna.Party, "band")
	f.targets["anna"] = &target{slug: "anna", party: anna.Party, device: f.band}
	f.at, _ = h.serve()
	f.anna = f.reader("Anna", anna, access.Spec{Role: access.Owner}, nothing)
	return f
}

// lines follows in NDJSON and gives each line; it ends with the test.
func (f *followed) lines(ctx context.Context, r *reader, query string) (<-chan map[string]any, int) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.at.API+"/v1/feed?format=ndjson&"+query, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	web := *r.web
	web.Timeout = 0
	res, err := web.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	out := make(chan map[string]any, 10_000)
	go func() { // it ends with the answer
		defer close(out)
		defer res.Body.Close()
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			var line map[string]any
			if json.Unmarshal(s.Bytes(), &line) == nil {
				out <- line
			}
		}
	}()
	return out, res.StatusCode
}

func next(t *testing.T, lines <-chan map[string]any) map[string]any {
	t.Helper()
	select {
	case l, ok := <-lines:
		if ok {
			return l
		}
		t.Fatal("the feed is over")
	case <-time.After(time.Minute):
		t.Fatal("nothing comes")
	}
	return nil
}

// Who follows gets what is stored, then what comes, once each, on behind a cursor too;
// a restart of the hub between them changes nothing.
func TestFeedGoesOnBehindItsCursor(t *testing.T) {
	f := newFollowed(t)
	now := time.Now().Truncate(time.Second)
	send := func(i int) {
		f.mustSend(f.band.Peer, number("pulse", now.Add(time.Duration(i-100)*time.Second), float64(i)))
	}
	send(0)
	ctx, cancel := context.WithCancel(t.Context())
	lines, status := f.lines(ctx, f.anna, "device=band&from=-1h")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	if l := next(t, lines); l["value"] != 0. || l["stream"] != "pulse" || l["label"] != "band" {
		t.Fatalf("what is stored is %v", l)
	}
	cursor := ""
	for i := 1; i <= 5; i++ {
		send(i)
		l := next(t, lines)
		if l["value"] != float64(i) {
			t.Fatalf("reading %d is %v", i, l)
		}
		cursor = l["cursor"].(string)
	}
	cancel()
	send(6)
	c, err := client.New(client.Options{Hub: f.at.API, Token: f.anna.token, CA: f.band.ca, AnyName: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	want := 6.
	for item, err := range c.Feed(ctx, client.FeedOptions{Device: "band", After: cursor}) {
		if err != nil {
			t.Fatal(err)
		}
		if item.Idle {
			continue
		}
		if item.Value.Number() != want || item.Stream != "pulse" || item.Time != now.Add(time.Duration(want-100)*time.Second).UnixNano() {
			t.Fatalf("reading %v is %+v", want, item)
		}
		if want++; want == 9 {
			break
		}
		send(int(want))
	}
	if ctx.Err() != nil {
		t.Fatal("the client got not all")
	}
	got := f.anna.ask(f.at.API+"/v1/feed?device=band&after=AAAA", "GET", "")
	if got.status != http.StatusBadRequest {
		t.Errorf("a cursor of nobody's: %d %s", got.status, got.body)
	}
}

// A feed ends within two seconds of its credential, saying why; the hub's end is told
// likewise. Ten are less than what it says by itself would take.
func TestFeedSaysWhyItEnds(t *testing.T) {
	f := newFollowed(t)
	lines, _ := f.lines(t.Context(), f.anna, "device=band")
	second := f.reader("Anna's other", access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: f.targets["anna"].party, Role: access.Owner,
		Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}, access.Spec{Role: access.Owner}, nothing)
	if got := second.ask(f.at.API+"/v1/tokens/"+f.anna.credential.String(), "DELETE", ""); got.status/100 != 2 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	began := time.Now()
	end, _ := next(t, lines)["end"].(map[string]any)
	if end["title"] != "denied" || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(began), end)
	}
}

// Node's own fetch reads the events as browsers do, id and all.
func TestEventsAreReadByNode(t *testing.T) {
	need(t, "node", "curl")
	f := newFollowed(t)
	f.mustSend(f.band.Peer, number("pulse", time.Now(), 61.5))
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, f.band.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	const program = `
const res = await fetch(process.argv[1], {headers: {Authorization: "Bearer " + process.env.TOKEN}});
let text = "", id = "";
for await (const part of res.body.pipeThrough(new TextDecoderStream())) {
  text += part;
  for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
    const event = {};
    for (const line of text.slice(0, end).split("\n")) { const [, k, v] = line.match(/^(\w*): ?(.*)$/); event[k] = v; }
    if (event.id) id = event.id;
    if (event.event === "reading") { console.log(res.headers.get("content-type"), JSON.parse(event.data).value, id.length > 20); process.exit(0); }
  }
}`
	cmd := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", program, strings.Replace(f.at.API, "127.0.0.1", "localhost", 1)+"/v1/feed?device=band&from=-1h")
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+ca, "TOKEN="+f.anna.token)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "text/event-stream 61.5 true\n" {
		t.Errorf("%v: %s", err, out)
	}
	out, _ := exec.CommandContext(t.Context(), "curl", "-sN", "--max-time", "1", "--cacert", ca, "-H", "Authorization: Bearer "+f.anna.token,
		strings.Replace(f.at.API, "127.0.0.1", "localhost", 1)+"/v1/feed?device=band&from=-1h").Output() // it ends by time, with an error
	if !bytes.HasPrefix(out, []byte("retry: 2000\n\nevent: reading\nid: ")) || !bytes.Contains(out, []byte(`"value":61.5`)) {
		t.Errorf("curl reads %s", out)
	}
}

// The owner and the hub's operating organisation, each of its own device and at the same
// time, get readings with the same delay: it depends on nothing that tells them apart.
func TestDelayIsTheSameForOwnerAndMaker(t *testing.T) {
	f := newFollowed(t)
	op := f.house.admin()
	op.Scopes |= access.ScopeMetrics
	maker := f.reader("the maker", op, access.Spec{Role: access.Administrator}, nothing)
	pump := f.enrolled(op.Party, "pump")
	for _, d := range []*thing{f.band, pump} {
		f.mustSend(d.Peer, number("pulse", time.Now().Add(-time.Minute), 0))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	owners, _ := f.lines(ctx, f.anna, "device=band")
	makers, status := f.lines(ctx, maker, "device=pump")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	rounds := 150
	if long() {
		rounds = 3000
	}
	at := time.Now()
	for i := range rounds { // each reading of one beside one of the other, first one and then the other first
		both := []*thing{f.band, pump}
		for k := range both {
			at = at.Add(time.Microsecond)
			f.mustSend(both[(i+k)%2].Peer, number("pulse", at, float64(i)))
		}
		next(t, owners)
		next(t, makers)
	}
	var all []api.FeedDelay
	got := f.anna.ask(f.at.API+"/v1/feed/delay", "GET", "")
	if err := json.Unmarshal(got.body, &all); err != nil || len(all) != 2 {
		t.Fatalf("%v: %s", err, got.body)
	}
	t.Logf("%+v", all)
	grain := 50. // ms: what the scheduler of a busy machine makes of anything
	if long() {
		grain = 15
	}
	apart := func(what string, x, y float64) {
		if diff := x - y; diff > max(grain, x/10) || -diff > max(grain, y/10) {
			t.Errorf("%s of %s is %v ms, of %s %v ms", what, all[0].Reader, x, all[1].Reader, y)
		}
	}
	apart("p50", all[0].P50, all[1].P50)
	if long() { // of a few readings it is what the machine did at one moment
		apart("p99", all[0].P99, all[1].P99)
	}
	if all[0].Readings+all[1].Readings > 0 {
		t.Errorf("an owner is told how much others read: %s", got.body)
	}
	// The last is counted a moment after it has come.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got = maker.ask(f.at.API+"/v1/feed/delay", "GET", "")
		if err := json.Unmarshal(got.body, &all); err != nil || len(all) != 2 {
			t.Fatalf("%v: %s", err, got.body)
		}
		if all[0].Readings == uint64(rounds) && all[1].Readings == uint64(rounds) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: so many readings are counted, want %d of each", got.body, rounds)
		}
	}
}

// Of one credential there are so many feeds, and others are let in all the same.
func TestFeedsOfOneCredentialAreBounded(t *testing.T) {
	f := newFollowed(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 64 {
		if _, status := f.lines(ctx, f.anna, "device=band"); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	got := f.anna.ask(f.at.API+"/v1/feed?device=band", "GET", "")
	if got.status != http.StatusTooManyRequests || !strings.Contains(string(got.body), "too many feeds") {
		t.Errorf("one more: %d %s", got.status, got.body)
	}
}

// What a device sends first of all comes at once to who follows it already; a device that
// was not there, too, to who follows all.
func TestFeedGivesTheFirstReadingsOfADevice(t *testing.T) {
	f := newFollowed(t)
	owner := f.targets["anna"].party
	one, status := f.lines(t.Context(), f.anna, "device=band")
	all, second := f.lines(t.Context(), f.anna, "owner="+owner.String())
	if status != http.StatusOK || second != http.StatusOK {
		t.Fatal(status, second)
	}
	for i, p := range []identity.Peer{f.band.Peer, f.band.Peer, f.device(owner, "late")} {
		began := time.Now()
		f.mustSend(p, number([]string{"pulse", "steps", "pulse"}[i], time.Now(), float64(i)))
		for who, lines := range map[string]<-chan map[string]any{"of the device": one, "of all": all} {
			if who == "of the device" && i > 1 {
				continue
			}
			if l := next(t, lines); l["value"] != float64(i) {
				t.Errorf("reading %d %s is %v", i, who, l)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("reading %d %s takes %v", i, who, took)
			}
		}
	}
}
