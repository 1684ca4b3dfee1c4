package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// grew reports whether what is measured grows and does not stop: whether the lower
// quartile of the last third of the samples is above that of the third before by more
// than slack and a tenth of it. The first third is for caches to fill. What work under
// way holds, an export above all, is in more and more of the samples as there is more
// to do; what is never let go is in each.
func grew(samples []float64, slack float64) (from, to float64, yes bool) {
	n := len(samples) / 3
	quartile := func(s []float64) float64 {
		s = slices.Clone(s)
		slices.Sort(s)
		return s[len(s)/4]
	}
	from, to = quartile(samples[n:2*n]), quartile(samples[2*n:])
	return from, to, to > from*1.1+slack
}

// The rule finds a leak that is small beside the noise, and takes noise, a level
// that is reached and a single peak for what they are.
func TestTheRuleOfTheSoak(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		draw := func(level func(i int) float64) []float64 {
			out := make([]float64, 60)
			for i := range out {
				out[i] = level(i) + 20*r.Float64()
			}
			return out
		}
		for name, x := range map[string]struct {
			samples []float64
			grew    bool
		}{
			"noise":           {draw(func(int) float64 { return 100 }), false},
			"a cache":         {draw(func(i int) float64 { return 100 + 50*float64(min(i, 20))/20 }), false},
			"a peak":          {draw(func(i int) float64 { return 100 + 500*float64(max(0, i-57)) }), false},
			"work":            {draw(func(i int) float64 { return 100 + 500*float64(i*i%3*i/30) }), false},
			"one in a sample": {draw(func(i int) float64 { return 100 + 2*float64(i) }), true},
		} {
			if from, to, yes := grew(x.samples, 12); yes != x.grew {
				t.Errorf("seed %d: %s: %.0f to %.0f is %v", seed, name, from, to, yes)
			}
		}
	}
}

// soaking is what goes on during a soak. Each job is done again and again.
type soaking struct {
	h       *house
	hub     *child
	devices []*thing
	scope   holdfast.Scope // of a stream that is erased span by span
	mu      sync.Mutex
	done    map[string]int
	erasing [][2]time.Time // from asked to done
	cut     []cut
}

// cut is what had to be asked again.
type cut struct {
	what     string
	from, to time.Time
	err      error
}

func (s *soaking) jobs() map[string]func(ctx context.Context, i int) error {
	address := strings.TrimPrefix(s.hub.at.MQTT, "mqtts://")
	configs := make([]*tls.Config, len(s.devices))
	for i, d := range s.devices {
		configs[i] = d.tls()
	}
	turns := make(chan struct{}, 2)
	posting := s.devices[0].http(s.h.t)
	var steady *wire
	var last time.Time // steady was seen to live
	return map[string]func(ctx context.Context, i int) error{
		"connect": func(ctx context.Context, i int) error {
			began := time.Now()
			d := i % len(s.devices)
			w, err := s.devices[d].joins(ctx, turns, configs[d], address, fmt.Sprint("c", i%5))
			if err != nil {
				return s.again("connect", began, err)
			}
			defer w.Conn.(*tls.Conn).NetConn().Close()
			return s.again("connect", began, w.publish(1+i%20, "n", fmt.Sprint(i)))
		},
		"publish": func(ctx context.Context, i int) (err error) {
			if steady == nil {
				last = time.Now()
				if steady, err = s.devices[0].joins(ctx, turns, configs[0], address, "steady"); err != nil {
					return s.again("join", last, err)
				}
			}
			began := last
			last = time.Now()
			if err = steady.publish(20, "scratch", fmt.Sprintf(`{"t":%d,"v":1}`, 1_735_689_600+i)); err != nil {
				steady.Conn.(*tls.Conn).NetConn().Close()
				steady = nil
			}
			return s.again("publish", began, err)
		},
		"post": func(ctx context.Context, i int) error {
			began := time.Now()
			status, _, text, err := post(posting, s.hub.at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"n","v":1},{"n":"m","v":2}]`))
			if err == nil && status == http.StatusServiceUnavailable {
				return s.again("post", began, errors.New(text))
			}
			if err != nil || status != http.StatusNoContent {
				return fmt.Errorf("%d %s %w", status, text, err)
			}
			return nil
		},
		"query": func(ctx context.Context, i int) error {
			time.Sleep(50 * time.Millisecond) // a credential may ask only so often
			return s.fetch(ctx, "query", http.MethodGet, "/v1/readings?"+url.Values{"device": {"device 0"}, "stream": {"n"}, "limit": {"1000"}}.Encode(), "")
		},
		"export": func(ctx context.Context, i int) error {
			time.Sleep(500 * time.Millisecond) // it is whole each time
			return s.fetch(ctx, "export", http.MethodPost, "/v1/exports", `{}`)
		},
		"erase": func(ctx context.Context, i int) error {
			scope := s.scope
			from := time.Unix(1_735_689_600+int64(i), 0)
			scope.Span = holdfast.Span{From: from.UnixNano(), To: from.UnixNano()}
			line, err := json.Marshal(scope)
			if err != nil {
				return err
			}
			began := time.Now()
			if _, err := s.hub.in.Write(append(line, '\n')); err != nil {
				return err
			}
			switch answer, err := s.hub.out.ReadString('\n'); {
			case err != nil:
				return err
			case strings.HasPrefix(answer, "refused"):
				return errors.New(answer)
			}
			for s.h.count(s.hub, "holdfast_erasures_done_total", "") <= float64(i) {
				time.Sleep(20 * time.Millisecond)
			}
			s.mu.Lock()
			s.erasing = append(s.erasing, [2]time.Time{began, time.Now()})
			s.mu.Unlock()
			time.Sleep(time.Second)
			return nil
		},
	}
}

// again takes it that an erasure cuts the connections of the device that it is of
// and has others ask again. Whether there was one is looked at in the end.
func (s *soaking) again(what string, began time.Time, err error) error {
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cut = append(s.cut, cut{what, began, time.Now(), err})
	}
	return nil
}

// unexplained returns what was cut while nothing was erased.
func (s *soaking) unexplained() []cut {
	return slices.DeleteFunc(slices.Clone(s.cut), func(c cut) bool {
		return slices.ContainsFunc(s.erasing, func(e [2]time.Time) bool { return !c.to.Before(e[0]) && !c.from.After(e[1]) })
	})
}

// fetch asks as the first administrator and reads the answer to its end.
func (s *soaking) fetch(ctx context.Context, what, method, path, body string) error {
	began := time.Now()
	r, err := http.NewRequestWithContext(ctx, method, s.hub.at.API+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := s.h.asks(s.hub).Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode >= 300 {
		text, _ := io.ReadAll(a.Body)
		if a.StatusCode == http.StatusServiceUnavailable { // "readings were erased while they were read"
			return s.again(what, began, errors.New(string(text)))
		}
		return fmt.Errorf("%s %s: %s %s", method, path, a.Status, text)
	}
	_, err = io.Copy(io.Discard, a.Body)
	return err
}

// pace keeps each job below what one device, or one person, may ask for in a second.
const pace = 20 * time.Millisecond

// run does every job until ctx ends.
func (s *soaking) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for name, job := range s.jobs() {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := job(context.WithoutCancel(ctx), i); err != nil {
					s.h.t.Errorf("%s %d: %v", name, i, err)
					return
				}
				s.mu.Lock()
				s.done[name]++
				s.mu.Unlock()
				time.Sleep(pace)
			}
		})
	}
}

// Everything that a hub does, for a while: what it holds does not grow. 20 seconds,
// with HOLDFAST_LONG ten minutes, with HOLDFAST_SOAK what that says.
func TestSoak(t *testing.T) {
	length := 20 * time.Second
	if long() {
		length = 10 * time.Minute
	}
	if text := os.Getenv("HOLDFAST_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	h := newHouse(t)
	op := h.admin().Party
	s := &soaking{h: h, done: map[string]int{}}
	for i := range 10 {
		s.devices = append(s.devices, h.enrolled(op, fmt.Sprint("device ", i)))
	}
	h.mustSend(s.devices[0].Peer, number("scratch", time.Unix(1_735_689_599, 0), 1), number("n", time.Now(), 1))
	var err error
	if s.scope, err = h.custody.ScopeOfStream(t.Context(), s.devices[0].Device, "scratch"); err != nil {
		t.Fatal(err)
	}
	h.halt()
	s.hub = h.spawn(childConfig{RollEvery: 200 * time.Millisecond, Collect: true})
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); s.run(ctx) }()
	// What lives after a collection is half of what the next one waits for.
	// Caches are bounded and fill for a minute: only a longer soak can tell them from
	// a leak by less than they hold.
	memory := 8.0 * (1 << 20)
	if length < 2*time.Minute {
		memory = 24 << 20
	}
	slack := map[string]float64{"go_memstats_next_gc_bytes": memory, "go_goroutines": 20, "process_open_fds": 20}
	samples := map[string][]float64{}
	for tick := time.Tick(length / 60); ctx.Err() == nil; {
		<-tick
		for name := range slack {
			samples[name] = append(samples[name], h.count(s.hub, name, ""))
		}
	}
	<-ended
	for name, slack := range slack {
		from, to, yes := grew(samples[name], slack)
		t.Logf("%s: %.0f, later %.0f", name, from, to)
		if yes {
			t.Errorf("%s grows: %.0f", name, samples[name])
		}
	}
	t.Logf("done: %v", s.done)
	t.Logf("asked again: %d", len(s.cut))
	for _, c := range s.unexplained() {
		t.Errorf("%s was cut while nothing was erased, after %s: %v", c.what, c.to.Sub(c.from), c.err)
	}
	for name := range s.jobs() {
		if s.done[name] < 3 {
			t.Errorf("%s was done %d times", name, s.done[name])
		}
	}
	for _, name := range []string{"holdfast_series_rolls_total", "holdfast_series_merges_total", "holdfast_erasures_done_total"} {
		if n := h.count(s.hub, name, ""); n == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	s.hub.end()
	if t.Failed() {
		t.Logf("the hub says: %.4000s", s.hub.stderr)
	}
}
