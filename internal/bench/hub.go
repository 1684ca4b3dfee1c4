package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// Hub is a real `holdfast serve` in a temporary folder. It is stopped and started
// again without loss.
type Hub struct {
	b    *Bench
	dir  string // data/, root.key
	p    *Process
	at   addresses
	seen atomic.Uint32 // source addresses used
}

// addresses is run.json.
type addresses struct {
	API    string `json:"api"`
	Device string `json:"device"`
	MQTT   string `json:"mqtt"`
}

// NewHub makes a data folder and starts a hub on it.
func (b *Bench) NewHub(ctx context.Context) (*Hub, error) {
	dir, err := b.Folder("hub")
	if err != nil {
		return nil, err
	}
	h := &Hub{b: b, dir: dir}
	made := exec.CommandContext(ctx, b.Binary, "init", h.Data(), "--host", "localhost", "--host", "127.0.0.1", "--root-key", filepath.Join(dir, "root.key"))
	if out, err := made.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("init hub: %w: %s", err, out)
	}
	return h, h.Start(ctx)
}

// Data is the hub's data folder.
func (h *Hub) Data() string { return filepath.Join(h.dir, "data") }

// Start starts a hub that was stopped. env are more variables of its environment,
// such as GOMEMLIMIT=512MiB.
func (h *Hub) Start(ctx context.Context, env ...string) error {
	if h.p != nil {
		return holdfast.Errorf(holdfast.Conflict, "start hub: it runs")
	}
	run := filepath.Join(h.Data(), "run.json")
	os.Remove(run) // of one that was killed
	args := []string{"serve", "--data", h.Data(), "--root-key", filepath.Join(h.dir, "root.key"), "--log-level", "error",
		"--listen-api", "127.0.0.1:0", "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0",
		// One device and one address send here what thousands do elsewhere.
		"--readings-per-device=-1", "--bytes-per-device=-1", "--connects-per-address=-1",
		// And one administrator has everybody erased.
		"--erasure-bulk=0"}
	if path := h.b.profileFile("cpu-" + time.Now().Format("150405.000") + ".pprof"); path != "" {
		args = append(args, "--cpu-profile", path, "--memory-profile", strings.Replace(path, "cpu-", "mem-", 1))
	}
	cmd := exec.Command(h.b.Binary, args...)
	cmd.Env = append(os.Environ(), env...)
	p, err := StartProcess(ctx, "hub", cmd, func(context.Context) error {
		text, err := os.ReadFile(run)
		if err == nil {
			err = json.Unmarshal(text, &h.at)
		}
		return err
	})
	h.p = p
	return err
}

// Stop ends the hub as an operator does: what it acknowledged is on disk.
func (h *Hub) Stop() error {
	if h.p == nil {
		return nil
	}
	p := h.p
	h.p = nil
	return p.Stop()
}

// Kill ends the hub as a power cut does.
func (h *Hub) Kill() error {
	if h.p == nil {
		return nil
	}
	p := h.p
	h.p = nil
	err := p.cmd.Process.Kill()
	<-p.ended
	return err
}

// PID is the running hub's.
func (h *Hub) PID() int { return h.p.PID() }

// API is where people and programs ask: https://HOST:PORT.
func (h *Hub) API() string { return h.at.API }

// Device is where devices post over HTTPS: https://HOST:PORT.
func (h *Hub) Device() string { return h.at.Device }

// MQTT is where devices publish: HOST:PORT.
func (h *Hub) MQTT() string {
	u, err := url.Parse(h.at.MQTT)
	if err != nil {
		return h.at.MQTT
	}
	return u.Host
}

// Identity is the folder of the administrator's identity.
func (h *Hub) Identity() string { return filepath.Join(h.Data(), "admin") }

// Admin is a client of the running hub as its administrator. The caller closes it.
func (h *Hub) Admin() (*client.Client, error) {
	return client.New(client.Options{Hub: h.API(), Identity: h.Identity()})
}

// OwnSide is Holdfast as a side of a figure.
func (b *Bench) OwnSide(round func(ctx context.Context, round int) (Values, error), close func() error) *Side {
	version := "unknown"
	if out, err := exec.Command(b.Binary, "--version").Output(); err == nil {
		version = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(out)), "holdfast"))
	}
	return &Side{Name: Own, Version: version, Year: time.Now().Year(), Round: round, Close: close}
}

// Own is the name of Holdfast's side.
const Own = "Holdfast"
