package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/journal"
)

// stranger asks without a credential.
func (h *house) stranger() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.identity.CAPEM())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func getState(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func faultsOf(r api.Readiness) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(r.Checks)) {
		if !r.Checks[name] {
			out = append(out, name)
		}
	}
	return out
}

// What stands in the way of taking readings in shows in /readyz, each under its
// name, and goes when it does.
func TestReady(t *testing.T) {
	h := newHouse(t)
	ask := func() api.Readiness {
		h.readiness.at = time.Time{} // no older answer
		return h.ready(t.Context())
	}
	if got := ask(); got.Ready || !slices.Equal(faultsOf(got), []string{"listeners"}) {
		t.Errorf("before its ports answer: %+v", got)
	}
	sound := soundHost(h, 0)
	h.Server.host = sound
	close(h.bound)
	if got := ask(); !got.Ready || len(got.Checks) != 8 || got.Detail != "" || len(faultsOf(got)) > 0 {
		t.Fatalf("in order: %+v", got)
	}
	for _, x := range []struct {
		fails   string
		provoke func() (undo func())
	}{
		{"disk", func() func() {
			h.Server.host.Disk = func(string) (disk, error) { return disk{Free: 1 << 20, Size: 100 << 30}, nil }
			return func() { h.Server.host = sound }
		}},
		{"disk", func() func() {
			h.Server.host.Disk = func(string) (disk, error) { return disk{Free: 50 << 30, Size: 100 << 30, Nodes: 1000}, nil }
			return func() { h.Server.host = sound }
		}},
		{"confirmed", func() func() {
			h.stores.restored = restoredState{Suspended: true, Why: "the copy of Ada's"}
			if got := ask(); !strings.Contains(got.Detail, "restored from a backup") || strings.Contains(got.Detail, "Ada") || got.After < time.Minute {
				t.Errorf("a stranger is told of a suspended hub: %+v", got)
			}
			return func() { h.stores.restored = restoredState{} }
		}},
		{"running", func() func() { h.leaving.Store(true); return func() { h.leaving.Store(false) } }},
		{"catalog", func() func() { // somebody writes and does not end
			begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				ended <- h.stores.catalog.Write(context.Background(), func(*sql.Tx) error { close(begun); <-end; return nil })
			}()
			<-begun
			return func() {
				close(end)
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}},
	} {
		undo := x.provoke()
		if got := ask(); got.Ready || !slices.Equal(faultsOf(got), []string{x.fails}) || !strings.HasPrefix(got.Detail, "not ready: "+x.fails) {
			t.Errorf("%s: %+v", x.fails, got)
		}
		undo()
		if got := ask(); !got.Ready {
			t.Errorf("after %s: %+v", x.fails, got)
		}
	}
	if h.ready(t.Context()); time.Since(h.readiness.at) > readyKept {
		t.Error("it asked anew within a second")
	}
}

// On a disk that is full the hub says that it is not ready, and that it is when
// there is room.
func TestReadyOnAFullDisk(t *testing.T) {
	h, disk := onDisk(t, 160)
	close(h.bound)
	if got := h.ready(t.Context()); !got.Ready {
		t.Fatalf("%+v", got)
	}
	ballast := fillDisk(t, disk)
	h.readiness.at = time.Time{}
	if got := h.ready(t.Context()); got.Ready || got.Checks["disk"] {
		t.Errorf("on a full disk: %+v", got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	h.readiness.at = time.Time{}
	if got := h.ready(t.Context()); !got.Ready {
		t.Errorf("with room again: %+v", got)
	}
}

// A stranger learns names and yes or no. At the end /readyz says no while all else
// is still served, and then the ports close.
func TestReadyAtTheEnd(t *testing.T) {
	h := newHouse(t)
	h.Server.host = soundHost(h, 0)
	h.config.Drain = 2 * time.Second
	d := h.enrolled(h.person("Anna").Party, "watch")
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	s := h.Server
	go func() { ended <- s.Run(ctx, func(at Addresses) { ready <- at }) }()
	at := <-ready
	c := h.stranger()
	if status, body := getState(t, c, at.API+"/healthz"); status != 200 || body != "{\"alive\":true}\n" {
		t.Errorf("/healthz: %d %s", status, body)
	}
	status, body := getState(t, c, at.API+"/readyz")
	var got api.Readiness
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || !got.Ready {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if strings.Contains(body, h.dir) || len(body) > 200 {
		t.Errorf("it tells more than names: %s", body)
	}
	stop()
	for began := time.Now(); ; {
		if status, body = getState(t, c, at.API+"/readyz"); status != 200 {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("it is ready all the same")
		}
	}
	if status != 503 || !strings.Contains(body, `"running":false`) || !strings.Contains(body, `"journal":true`) {
		t.Errorf("at the end: %d %s", status, body)
	}
	if code, _, answer, err := post(d.http(t), at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"pulse","v":61}]`)); err != nil || code/100 != 2 {
		t.Errorf("a reading meanwhile: %d %s %v", code, answer, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	h.Server = nil
	if _, err := c.Get(at.API + "/healthz"); err == nil {
		t.Error("it answers after its end")
	}
}

// A hub whose journal has failed is not ready.
func TestNotReadyWhenTheJournalFailed(t *testing.T) {
	disk := &frailDisk{files: map[string]*frailFile{}}
	g := Machine()
	g.Journal = func(string) (*journal.File, error) { return journal.Open(disk, journal.Options{SegmentSize: 1 << 20}) }
	h := newHouseOn(t, g)
	close(h.bound)
	h.Server.host = soundHost(h, 0)
	p := h.device(h.person("Anna").Party, "watch")
	h.mustSend(p, number("pulse", time.Now(), 60))
	if got := h.ready(t.Context()); !got.Ready {
		t.Fatalf("%+v", got)
	}
	disk.broken.Store(true)
	if err := h.send(p, number("pulse", time.Now(), 61)); err == nil {
		t.Error("acknowledged on a disk that failed")
	}
	h.readiness.at = time.Time{}
	if got := h.ready(t.Context()); got.Ready || !slices.Equal(faultsOf(got), []string{"journal"}) {
		t.Errorf("%+v", got)
	}
}

// A disk that does not answer is told from one that is slow.
func TestNotReadyWhenTheDiskHangs(t *testing.T) {
	var r readiness
	now := time.Now()
	for _, x := range []struct {
		after  time.Duration
		syncs  uint64
		queued int
		stuck  bool
	}{{0, 5, 100, false}, {5, 5, 100, false}, {11, 5, 100, true}, {12, 6, 100, false}, {40, 6, 0, false}, {45, 6, 100, false}, {60, 6, 100, true}} {
		if err := r.stuck(now.Add(x.after*time.Second), x.syncs, x.queued); (err != nil) != x.stuck || err != nil && holdfast.KindOf(err) != holdfast.Unavailable {
			t.Errorf("after %d s: %v", x.after, err)
		}
	}
}

// frailDisk is a journal's disk in memory that can break.
type frailDisk struct {
	mu     sync.Mutex
	files  map[string]*frailFile
	broken atomic.Bool
}

type frailFile struct {
	disk *frailDisk
	mu   sync.Mutex
	b    []byte
}

func (d *frailDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.files)), nil
}

func (d *frailDisk) Open(name string) (journal.DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[name], nil
}

func (d *frailDisk) Create(name string, size int64) (journal.DiskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[name] = &frailFile{disk: d, b: make([]byte, size)}
	return d.files[name], nil
}

func (d *frailDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[to] = d.files[from]
	delete(d.files, from)
	return nil
}

func (d *frailDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	return nil
}

func (d *frailDisk) Sync() error             { return nil }
func (d *frailDisk) Path(name string) string { return "memory/" + name }

func (f *frailFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(p, f.b[min(off, int64(len(f.b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *frailFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return copy(f.b[off:], p), nil
}

func (f *frailFile) Sync() error {
	if f.disk.broken.Load() {
		return syscall.EIO
	}
	return nil
}

func (f *frailFile) Size() (int64, error) { return int64(len(f.b)), nil }
func (f *frailFile) Close() error         { return nil }
