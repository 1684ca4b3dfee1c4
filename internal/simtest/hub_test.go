package simtest

import (
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
	"net/url"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"github.com/holdfast-iot/holdfast/internal/server"
)

// hub is one process of the hub on a disk, from its start to its end.
type hub struct {
	disk    *Disk
	vfs     *VFS
	network *Network
	stop    context.CancelFunc
	power   chan struct{} // closed when the power has gone
	ended   chan struct{} // closed when the process has
	err     error         // why it ended; after ended
	killed  bool          // it lost the disk, and not the power

	transports []*http.Transport
}

// start starts a hub and returns when it listens or has failed to; alive says
// which. The power may go at any time.
func start(ctx context.Context, d *Disk, plan func(op, path string) Fate, latency func() time.Duration, log *slog.Logger) (h *hub, alive bool, err error) {
	h = &hub{disk: d, network: NewNetwork(), power: make(chan struct{}), ended: make(chan struct{})}
	d.Plan(plan, func() { close(h.power) })
	if h.vfs, err = RegisterVFS(d); err != nil {
		return nil, false, err
	}
	ctx, h.stop = context.WithCancel(ctx)
	ready := make(chan struct{})
	go func() {
		defer close(h.ended)
		s, err := server.Open(ctx, server.Config{Data: DataFolder, RootKey: RootKey, Ground: d.Ground(h.vfs, h.network, latency), Logger: log})
		if err == nil {
			err = s.Run(ctx, func(server.Addresses) { close(ready) })
		}
		h.err = err
	}()
	select {
	case <-ready:
		synctest.Wait() // what goes on from before the start does not race with what comes
		return h, true, nil
	case <-h.ended:
		return h, false, nil
	case <-h.power:
		return h, false, nil
	}
}

// end waits until nothing of the process is left. The clients' connections are
// theirs to end, before.
func (h *hub) end() error {
	h.stop()
	<-h.ended
	for _, t := range h.transports {
		t.CloseIdleConnections()
	}
	h.network.Cut()
	return h.vfs.Close()
}

// client is an HTTP client on the hub's network.
func (h *hub) client(c *tls.Config) *http.Client {
	t := &http.Transport{DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		n, _ := strconv.Atoi(port)
		raw, err := h.network.Dial(ctx, n)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, c)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}}
	h.transports = append(h.transports, t)
	return &http.Client{Transport: t, Timeout: 90 * time.Second}
}

// ask sends a request and returns the status and the body; 0 if no whole answer
// came.
func ask(ctx context.Context, c *http.Client, method, target, token, media string, body []byte) (int, []byte) {
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, []byte(err.Error())
	}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := c.Do(r)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return a.StatusCode, b
}

// people are those who ask the hub, each with a client of a run of it.
type people struct {
	img    *image
	admin  *http.Client
	owners *http.Client
	things []*http.Client
}

func (h *hub) people(img *image) *people {
	plain := &tls.Config{RootCAs: img.roots, ServerName: "localhost"}
	p := &people{img: img, owners: h.client(plain)}
	c := plain.Clone()
	c.Certificates = []tls.Certificate{img.admin}
	p.admin = h.client(c)
	for _, d := range img.devices {
		c := plain.Clone()
		c.Certificates = []tls.Certificate{d.cert}
		p.things = append(p.things, h.client(c))
	}
	return p
}

const (
	apiURL    = "https://localhost:8443"
	deviceURL = "https://localhost:8444"
)

// errNoAnswer is that the hub went away, or can't at the moment.
var errNoAnswer = errors.New("no answer")

// errNotFound is that there is nothing of that name, or no more.
var errNotFound = errors.New("not found")

// read returns the numbers of a stream's readings, as who has them of a device sees them.
func (p *people) read(ctx context.Context, of part, stream string) ([]int, error) {
	d := p.img.devices[of.device]
	q := url.Values{"device": {d.id.String()}, "stream": {stream}, "from": {"1990-01-01"}, "to": {"2100-01-01"}, "format": {"ndjson"}}
	status, body := ask(ctx, p.owners, "GET", apiURL+"/v1/readings?"+q.Encode(), p.img.owners[of.whose].token, "", nil)
	switch {
	case status == 0 || status >= 500 || status == 429:
		return nil, fmt.Errorf("%w: %d %.300s", errNoAnswer, status, body)
	case status == 401 || status == 403 || status == 404:
		return nil, errNotFound
	case status != 200:
		return nil, fmt.Errorf("read: %d %s", status, body)
	}
	var out []int
	for line := range strings.SplitSeq(strings.TrimSpace(string(body)), "\n") {
		var row struct {
			Device string
			Value  any
		}
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return nil, err
		}
		if row.Device == "" {
			continue
		}
		text := strings.TrimPrefix(fmt.Sprint(row.Value), canary)
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("a reading has the value %v", row.Value)
		}
		out = append(out, int(n))
	}
	return out, nil
}
