package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// audience is a hub whose devices many follow: half of them their owner, half a
// recipient's programs under a grant, each device both.
type audience struct {
	*estate
	hub       *child
	devices   []*thing
	followers []*reader // a credential has fifty feeds
	slow      *reader
	webs      []*http.Client // of the devices
	each      int            // readings of a device in a round
	rounds    atomic.Int64   // that were sent
	last      int            // rounds in all
}

func newAudience(t *testing.T, feeds, devices int) *audience {
	h := newHouse(t)
	if _, err := h.grants.AddPurpose(t.Context(), h.admin().Credential, grant.Purpose{Name: "study", IRI: "https://w3id.org/dpv#AcademicResearch", LegalBasis: "consent", Text: "To study."}); err != nil {
		t.Fatal(err)
	}
	a := &audience{estate: &estate{house: h, targets: map[string]*target{}}}
	anna, institute := a.party("Anna", custody.Person), a.party("Institute", custody.Organisation)
	now := time.Now()
	for i := range devices {
		d := h.enrolled(anna.Party, fmt.Sprint("device-", i))
		h.mustSend(d.Peer, number("n", now.Add(-time.Hour), 0))
		a.devices = append(a.devices, d)
	}
	a.targets["anna"] = &target{slug: "anna", party: anna.Party, device: a.devices[0]}
	var end func()
	a.at, end = h.serve()
	owner := a.reader("Anna", anna, access.Spec{Role: access.Owner}, nothing)
	a.must("Anna", "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+1d"}`, new(struct{ ID string }))
	a.slow = a.reader("Anna, slow", anna, access.Spec{Role: access.Owner}, nothing)
	for i := 0; i < feeds; i += 100 {
		if i > 0 {
			owner = a.reader(fmt.Sprint("Anna ", i), anna, access.Spec{Role: access.Owner}, nothing)
		}
		program := a.reader(fmt.Sprint("program ", i), institute, access.Spec{Role: access.Program, Purposes: []holdfast.Purpose{"study"}}, nothing)
		a.followers = append(a.followers, owner, program)
	}
	end()
	h.halt()
	a.hub = h.serving(nil)
	return a
}

// follow opens the feeds, ten on each connection, and returns when all are open. Each
// must give every reading of its device once, in order; all says when they have.
func (a *audience) follow(ctx context.Context, all *sync.WaitGroup) {
	a.t.Helper()
	var opening sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i, who := range a.followers {
		for c := range 5 {
			opening.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				config := a.devices[0].tls()
				config.Certificates = nil
				tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true}
				a.t.Cleanup(tr.CloseIdleConnections)
				for s := range 10 {
					device := (i/2*50 + c*10 + s) % len(a.devices)
					body, err := a.open(ctx, &http.Client{Transport: tr}, who, a.devices[device].Device.String())
					if err != nil {
						a.t.Errorf("feed %d of %s: %v", c*10+s, who.name, err)
						return
					}
					all.Go(func() {
						defer body.Close()
						if err := a.takes(body); err != nil {
							a.t.Errorf("%s of device %d: %v", who.name, device, err)
						}
					})
				}
			})
		}
	}
	opening.Wait()
}

func (a *audience) open(ctx context.Context, web *http.Client, who *reader, device string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.hub.at.API+"/v1/feed?format=ndjson&device="+device, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+who.token)
	res, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		res.Body.Close()
		return nil, fmt.Errorf("%s %s", res.Status, res.Proto)
	}
	return res.Body, nil
}

// takes reads a feed until it has all.
func (a *audience) takes(body io.Reader) error {
	lines := bufio.NewReader(body)
	for want := 1; want <= a.each*a.last; {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("before reading %d: %w", want, err)
		}
		_, rest, ok := bytes.Cut(line, []byte(`"value":`))
		if !ok {
			if bytes.HasPrefix(line, []byte(`{"idle"`)) {
				continue
			}
			return fmt.Errorf("before reading %d: %s", want, line)
		}
		text, _, _ := bytes.Cut(rest, []byte(","))
		if got, err := strconv.Atoi(string(text)); err != nil || got != want {
			return fmt.Errorf("reading %d is %s", want, text)
		}
		want++
	}
	return nil
}

// roundTime is how often each device sends.
const roundTime = 500 * time.Millisecond

// send has each device send its readings of n rounds, one device after the other.
func (a *audience) send(n int) {
	const senders = 8
	first := int(a.rounds.Load())
	began := time.Now()
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for round := range n {
				for i := s; i < len(a.devices); i += senders {
					at := began.Add(time.Duration(round)*roundTime + time.Duration(i)*roundTime/time.Duration(len(a.devices)))
					<-time.After(time.Until(at))
					if err := a.post(i, first+round); err != nil {
						a.t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	a.rounds.Add(int64(n))
}

func (a *audience) post(device, round int) error {
	var b strings.Builder
	now := float64(time.Now().UnixMilli()) / 1000
	fmt.Fprintf(&b, `[{"bn":"n","bt":%.3f,"t":0,"v":%d}`, now, round*a.each+1)
	for k := 1; k < a.each; k++ {
		fmt.Fprintf(&b, `,{"t":%.3f,"v":%d}`, float64(k)/1000, round*a.each+k+1)
	}
	status, _, text, err := post(a.webs[device], a.hub.at.Device+"/v1/data", "application/senml+json", strings.NewReader(b.String()+"]"))
	if err == nil && status != http.StatusNoContent {
		err = fmt.Errorf("device %d, round %d: %d %s", device, round, status, text)
	}
	return err
}

// neverReads opens a feed of everything over a connection of its own, and reads no
// more than that it is open.
func neverReads(t *testing.T, config *tls.Config, at Addresses, token, of string) {
	t.Helper()
	nc, err := net.Dial("tcp", strings.TrimPrefix(at.API, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	config.Certificates = nil
	c := tls.Client(nc, config)
	if _, err := fmt.Fprintf(c, "GET /v1/feed?format=ndjson&%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", of, token); err != nil {
		t.Fatal(err)
	}
	var head [15]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || string(head[:]) != "HTTP/1.1 200 OK" {
		t.Fatalf("%q %v", head, err)
	}
}

// delays are those of the hub's own histogram.
func (a *audience) delays() map[string]api.FeedDelay {
	a.t.Helper()
	var all []api.FeedDelay
	got := a.slow.ask(a.hub.at.API+"/v1/feed/delay", "GET", "")
	if err := json.Unmarshal(got.body, &all); err != nil || len(all) != 2 {
		a.t.Fatalf("%v: %s", err, got.body)
	}
	out := map[string]api.FeedDelay{}
	for _, d := range all {
		out[d.Reader] = d
	}
	return out
}

// A thousand follow 200 devices over HTTPS, ten on each of 100 connections, while those
// send 10,000 readings a second: each reading comes once to each of its followers, and
// the hub stays within 256 MiB. Ten more, who follow everything and read nothing, are
// cut. Owner and recipient wait equally long. So with HOLDFAST_LONG; else a tenth of
// it, and nobody is cut in so short a time.
func TestThousandFollow(t *testing.T) {
	feeds, devices, alone, beside := 100, 20, 2, 2
	if long() {
		feeds, devices, alone, beside = 1000, 200, 20, 90
	}
	a := newAudience(t, feeds, devices)
	a.each, a.last = 25, alone+beside
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, d := range a.devices {
		a.webs = append(a.webs, d.http(t))
	}
	var all sync.WaitGroup
	before := a.hub.rss()
	a.follow(ctx, &all)
	if t.Failed() {
		return
	}
	opened := a.hub.rss()
	began, cpu := time.Now(), a.count(a.hub, "process_cpu_seconds_total", "")
	a.send(alone)
	first := a.delays()
	for range 10 {
		neverReads(t, a.devices[0].tls(), a.hub.at, a.slow.token, "owner="+a.targets["anna"].party.String())
	}
	a.send(beside)
	sent := time.Since(began)
	all.Wait()
	took, cpu := time.Since(began), a.count(a.hub, "process_cpu_seconds_total", "")-cpu
	cut := a.count(a.hub, "holdfast_feed_cut_total", "")
	second, peak := a.delays(), a.hub.peak()
	readings := a.each * a.last * devices
	t.Logf("%d readings sent in %s, %.0f a second; %d feeds had theirs, %d in all, after %s; the hub's CPU %.1f s", readings, sent.Round(time.Millisecond),
		float64(readings)/sent.Seconds(), feeds, readings*feeds/devices, took.Round(time.Millisecond), cpu)
	t.Logf("RSS: %d MiB before, %d with the feeds open, %d at most", before>>10, opened>>10, peak>>10)
	t.Logf("delay alone: %+v; with ten who don't read: %+v; %.0f were cut", first, second, cut)
	if peak > 256<<10 {
		t.Errorf("the hub takes %d MiB", peak>>10)
	}
	for role, d := range second {
		counted := a.count(a.hub, "holdfast_feed_delay_seconds_count", `reader="`+role+`"`)
		if counted < float64(a.each*(a.last-1)*feeds/2) { // of who is gone once he has the last, that may not be counted
			t.Errorf("the delay of %.0f readings of %s is counted", counted, role)
		}
		if d.P99 > max(2*first[role].P99, 1000) {
			t.Errorf("%s: p99 is %v ms alone and %v ms beside those who don't read", role, first[role].P99, d.P99)
		}
	}
	const grain = 15. // ms: what the scheduler of a busy machine makes of anything
	o, p := second["owner"].P50, second["program"].P50
	if long() {
		o, p = second["owner"].P99, second["program"].P99
	}
	if max(o, p)-min(o, p) > max(grain, max(o, p)/10) {
		t.Errorf("the owner waits %v ms, a program %v ms", o, p)
	}
	if long() && cut != 10 {
		t.Errorf("%.0f who read nothing are cut", cut)
	}
	a.hub.end()
}

// Who reads nothing is cut, counted and said in the log; who does gets everything.
func TestFeedCutsWhoDoesNotRead(t *testing.T) {
	log := new(text)
	h := newHouse(t)
	h.halt()
	h.logger = slog.New(slog.NewTextHandler(log, nil))
	h.asking = api.Limits{StreamStall: 300 * time.Millisecond}
	h.start()
	f := newFollowedOn(t, h)
	now := time.Now()
	f.mustSend(f.band.Peer, number("pulse", now.Add(-time.Minute), 0), number("steps", now.Add(-time.Minute), 0))
	neverReads(t, f.band.tls(), f.at, f.anna.token, "device=band")
	lines, status := f.lines(t.Context(), f.anna, "device=band&stream=steps")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	n := 0
	for began := time.Now(); !strings.Contains(log.String(), "its reader took nothing"); {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("nobody is cut after %d readings", n)
		}
		for range 10 {
			f.mustSend(f.band.Peer, many("pulse", now.Add(time.Duration(n)*time.Microsecond), 500)...)
			n += 500
		}
		f.mustSend(f.band.Peer, number("steps", now.Add(time.Duration(n)*time.Microsecond), float64(n)))
		if l := next(t, lines); l["value"] != float64(n) {
			t.Fatalf("reading %d is %v", n, l)
		}
	}
	families, err := f.Server.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families {
		if m.GetName() == "holdfast_feed_cut_total" && m.GetMetric()[0].GetCounter().GetValue() != 1 {
			t.Errorf("%v are counted", m.GetMetric())
		}
	}
}

func many(stream string, from time.Time, n int) []holdfast.Sample {
	out := make([]holdfast.Sample, n)
	for i := range out {
		out[i] = number(stream, from.Add(time.Duration(i)*time.Microsecond), float64(i))
	}
	return out
}

// A hub that is killed while readings come, three times, and started again: a client's feed
// goes on behind its cursor, and everything that was acknowledged comes once.
func TestFeedOutlivesAKilledHub(t *testing.T) {
	h := newHouse(t)
	e := &estate{house: h, targets: map[string]*target{}}
	anna := e.party("Anna", custody.Person)
	band := h.enrolled(anna.Party, "band")
	h.mustSend(band.Peer, number("pulse", time.Now().Add(-time.Hour), 0))
	e.targets["anna"] = &target{slug: "anna", party: anna.Party, device: band}
	who := e.reader("Anna", anna, access.Spec{Role: access.Owner}, nothing)
	h.halt()
	hub := h.serving(nil)
	address := strings.TrimPrefix(hub.at.API, "https://")
	c, err := client.New(client.Options{Hub: hub.at.API, Token: who.token, CA: band.ca, AnyName: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	const n = 300
	got, ended := make(chan int, n), make(chan error, 1)
	go func() {
		want := 0.
		for item, err := range c.Feed(ctx, client.FeedOptions{Device: "band", From: "-2h"}) {
			switch {
			case err != nil || item.Reset != "":
				ended <- errors.Join(err, errors.New(item.Reset))
				return
			case item.Idle:
			case item.Value.Number() != want:
				ended <- fmt.Errorf("reading %v is %v", want, item.Value.Number())
				return
			default:
				want++
				got <- int(want)
				if want > n {
					ended <- nil
					return
				}
			}
		}
		ended <- fmt.Errorf("nothing comes after %v", want-1)
	}()
	<-got // it follows
	began := time.Now().Add(-time.Minute)
	config, turns := band.tls(), make(chan struct{}, 1)
	var w *wire
	kill := 50
	for i := 1; i <= n; {
		if w == nil {
			if w, err = band.joins(ctx, turns, config, strings.TrimPrefix(hub.at.MQTT, "mqtts://"), "band"); err != nil {
				t.Fatal(err)
			}
		}
		if i == kill { // some are under way to the disk, to the feed and to the client
			kill += 100
			go hub.cmd.Process.Kill()
		}
		at := float64(began.UnixMilli()+int64(i)) / 1000
		if err := w.publish(1, "pulse", fmt.Sprintf(`{"t":%.3f,"v":%d}`, at, i)); err == nil {
			i++
			continue
		}
		<-hub.ended
		w.Close()
		w = nil
		hub = h.serving(nil, "--listen-api", address)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.Close()
}
