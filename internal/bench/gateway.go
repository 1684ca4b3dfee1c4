package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// Gateway is a hub with one enrolled device that sends for others: each is
// declared on the hub, is a device of its own, and belongs to the operating
// organisation.
type Gateway struct {
	*Hub
	self  Device
	roots *x509.CertPool
	http  *http.Client // the gateway's
	admin *client.Client
	asks  *http.Client // the administrator's too, with nothing between the question and the answer's bytes
	party string
	ids   map[string]string // of children, by name
}

// Gateway makes a hub and so many children, which are called as a corpus calls its
// devices. The hub runs.
func (b *Bench) Gateway(ctx context.Context, children int) (_ *Gateway, err error) {
	g := &Gateway{ids: map[string]string{}}
	if g.Hub, err = b.NewHub(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	began := time.Now()
	devices, err := g.Enrol(ctx, []string{"gateway"})
	if err != nil {
		return nil, err
	}
	g.self = devices[0]
	ca, err := os.ReadFile(filepath.Join(g.Identity(), "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	g.roots = x509.NewCertPool()
	g.roots.AppendCertsFromPEM(ca)
	if err := g.connect(ctx); err != nil {
		return nil, err
	}
	if err := g.declare(ctx, "", 0, children); err != nil {
		return nil, err
	}
	if children > 0 {
		b.Say("declared %d devices behind a gateway in %s", children, time.Since(began).Round(100*time.Millisecond))
	}
	return g, nil
}

// connect makes the clients of a hub that has just started.
func (g *Gateway) connect(ctx context.Context) (err error) {
	g.http = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: g.roots, Certificates: []tls.Certificate{g.self.Pair}, MinVersion: tls.VersionTLS13},
		MaxIdleConnsPerHost: 16, DisableCompression: true,
	}}
	if g.admin, err = g.Admin(); err != nil {
		return err
	}
	person, err := tls.LoadX509KeyPair(filepath.Join(g.Identity(), "cert.pem"), filepath.Join(g.Identity(), "key.pem"))
	if err != nil {
		return fmt.Errorf("read administrator's identity: %w", err)
	}
	g.asks = &http.Client{Timeout: time.Minute, Transport: &http.Transport{ // HTTP/1.1, as the peers are asked
		TLSClientConfig: &tls.Config{RootCAs: g.roots, Certificates: []tls.Certificate{person}, MinVersion: tls.VersionTLS13}, DisableCompression: true,
	}}
	var me struct{ Party struct{ ID string } }
	if err := g.admin.Do(ctx, http.MethodGet, "/v1/me", nil, &me); err != nil {
		return err
	}
	g.party = me.Party.ID
	return nil
}

// Restart stops the hub in order and starts it again.
func (g *Gateway) Restart(ctx context.Context) error {
	g.hangUp()
	if err := g.Stop(); err != nil {
		return err
	}
	return g.Resume(ctx)
}

// Resume starts the hub that was stopped.
func (g *Gateway) Resume(ctx context.Context) error {
	if err := g.Start(ctx); err != nil {
		return err
	}
	return g.connect(ctx)
}

func (g *Gateway) hangUp() {
	if g.asks != nil {
		g.admin.Close()
		g.http.CloseIdleConnections()
		g.asks.CloseIdleConnections()
	}
}

// Close stops the hub.
func (g *Gateway) Close() error {
	g.hangUp()
	return g.Stop()
}

// declarers is how many devices are declared at once; declareRate is a little less
// than what the hub lets one credential ask in a second.
const (
	declarers   = 8
	declareRate = 90
)

// declare adds n children of the gateway, from the given number on, for an owner,
// "" for the operating organisation.
func (g *Gateway) declare(ctx context.Context, owner string, first, n int) error {
	tick := time.NewTicker(time.Second / declareRate)
	defer tick.Stop()
	ids := make([]string, n)
	_, err := Pour(ctx, declarers, n, func(ctx context.Context, i int) error {
		if i > declareRate*3 { // the first few hundred may come at once
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		spec := map[string]string{"label": corpus.Name(first + i), "gateway": g.self.ID}
		if owner != "" {
			spec["owner"] = owner
		}
		var added struct{ Device struct{ ID string } }
		if err := g.admin.Do(ctx, http.MethodPost, "/v1/devices", spec, &added); err != nil {
			return fmt.Errorf("declare device %d: %w", first+i, err)
		}
		ids[i] = added.Device.ID
		return nil
	})
	for i, id := range ids {
		g.ids[corpus.Name(first+i)] = id
	}
	return err
}

// Write sends lines with times in milliseconds, as any agent would: again when the
// hub asks for patience.
func (g *Gateway) Write(ctx context.Context, lines []byte) error {
	for {
		wait, err := g.post(ctx, lines)
		if err != nil || wait == 0 {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// post sends lines once. It returns how long the hub wants to be left alone, if it
// did not take them for that.
func (g *Gateway) post(ctx context.Context, lines []byte) (wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.Device()+"/write?precision=ms", bytes.NewReader(lines))
	if err != nil {
		return 0, err
	}
	a, err := g.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err
	}
	switch a.StatusCode {
	case http.StatusNoContent:
		return 0, nil
	case http.StatusTooManyRequests:
		after, err := strconv.Atoi(a.Header.Get("Retry-After"))
		return time.Duration(max(1, after)) * time.Second, err
	}
	return 0, holdfast.Errorf(holdfast.Internal, "the hub answers %s: %.300s", a.Status, text)
}

// read asks for readings and gives each line of the answer.
func (g *Gateway) read(ctx context.Context, query url.Values, each func(line []byte) error) error {
	query.Set("format", "ndjson")
	body, _, err := g.admin.Stream(ctx, http.MethodGet, "/v1/readings", query, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Sums asks what there is of each kind between two times.
func (g *Gateway) Sums(ctx context.Context, from, to time.Time) (map[string]corpus.Sum, error) {
	sums := map[string]corpus.Sum{}
	ended := false
	err := g.read(ctx, url.Values{"owner": {g.party}, "from": {from.Format(time.RFC3339Nano)}, "to": {to.Format(time.RFC3339Nano)},
		"every": {"1d"}, "agg": {"count,sum"}}, func(line []byte) error {
		var row struct {
			Done   bool
			Error  json.RawMessage
			Stream string
			Count  int
			Sum    float64
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return fmt.Errorf("read sums: %w", err)
		}
		if row.Error != nil {
			return holdfast.Errorf(holdfast.Internal, "read sums: %s", row.Error)
		}
		if ended = row.Done; ended {
			return nil
		}
		s := sums[row.Stream]
		sums[row.Stream] = corpus.Sum{Count: s.Count + row.Count, Total: s.Total + row.Sum}
		return nil
	})
	if err == nil && !ended {
		err = holdfast.Errorf(holdfast.Internal, "read sums: the answer has no end")
	}
	return sums, err
}

// Verify compares what the hub has of a corpus with what was sent. Of texts the
// number is compared.
func (g *Gateway) Verify(ctx context.Context, c *corpus.Corpus, want map[corpus.Kind]corpus.Sum) error {
	got, err := g.Sums(ctx, c.From.Add(-time.Second), c.To().Add(time.Second))
	if err != nil {
		return err
	}
	for k, w := range want {
		s := got[k.Stream()]
		mean := s.Mean()
		if k == corpus.State {
			mean = w.Mean()
		}
		if !w.Close(float64(s.Count), mean) {
			return holdfast.Errorf(holdfast.Internal, "the hub has %d readings of %s with the mean %v, %d with %v were acknowledged", s.Count, k, s.Mean(), w.Count, w.Mean())
		}
	}
	return nil
}

// Metric is the sum of a metric's values on the hub.
func (g *Gateway) Metric(ctx context.Context, name string) (float64, error) {
	body, _, err := g.admin.Stream(ctx, http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	sum := 0.0
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		series, value, ok := bytes.Cut(lines.Bytes(), []byte(" "))
		if family, _, _ := bytes.Cut(series, []byte("{")); ok && string(family) == name {
			v, err := strconv.ParseFloat(string(value), 64)
			if err != nil {
				return 0, fmt.Errorf("read metrics: %w", err)
			}
			sum += v
		}
	}
	return sum, lines.Err()
}
