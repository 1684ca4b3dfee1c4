package simtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/server"
)

// kept is a house that a release left behind: testdata/releases/keep makes it, and
// says what is in it. Its clock goes on from when it was made.
type kept struct {
	t       *testing.T
	dir     string
	version string
	made    time.Time
	roots   *x509.CertPool
	told    *told // what the hub logged
}

// told is a log that a hub writes and a test reads.
type told struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *told) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *told) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// eachKept runs f on a copy of each house, at the time it was made, in a bubble.
func eachKept(t *testing.T, f func(k *kept)) {
	t.Helper()
	archives, err := filepath.Glob("testdata/releases/*.tar.gz")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no release is kept: %v", err)
	}
	for _, a := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(a), ".tar.gz"), func(t *testing.T) {
			dir := t.TempDir()
			unpack(t, a, dir)
			k := &kept{t: t, dir: filepath.Join(dir, "house"), roots: x509.NewCertPool(), told: new(told)}
			k.version = strings.TrimSpace(string(k.file("answers/version")))
			k.roots.AppendCertsFromPEM(k.file("data/admin/ca.pem"))
			if k.made, err = time.Parse(time.RFC3339, strings.TrimSpace(string(k.file("answers/made")))); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				k.t = t
				time.Sleep(time.Until(k.made.Add(time.Hour)))
				f(k)
			})
		})
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o700)
		} else {
			err = sparse(name, r, h.Size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sparse writes a file without its zeros: most of a journal has not been used.
func sparse(name string, r io.Reader, size int64) error {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	block := make([]byte, 64<<10)
	for off := int64(0); off < size; {
		n, err := io.ReadFull(r, block[:min(int64(len(block)), size-off)])
		if err != nil {
			return err
		}
		if slices.ContainsFunc(block[:n], func(b byte) bool { return b != 0 }) {
			if _, err := out.WriteAt(block[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
	}
	return out.Truncate(size)
}

func (k *kept) file(name string) []byte {
	k.t.Helper()
	b, err := os.ReadFile(filepath.Join(k.dir, name))
	if err != nil {
		k.t.Fatal(err)
	}
	return b
}

func (k *kept) config() server.Config {
	return server.Config{Data: filepath.Join(k.dir, "data"), RootKey: filepath.Join(k.dir, "root.key"), Version: "today",
		Logger: slog.New(slog.NewTextHandler(k.told, nil))}
}

// life runs the hub while f asks it.
func (k *kept) life(f func(h *hub)) {
	k.t.Helper()
	h := &hub{network: NewNetwork(), ended: make(chan struct{})}
	c := k.config()
	c.Ground = server.Machine()
	c.Ground.Listen = h.network.Listen
	ctx, stop := context.WithCancel(context.Background())
	ready := make(chan struct{})
	go func() {
		defer close(h.ended)
		s, err := server.Open(ctx, c)
		if err == nil {
			err = s.Run(ctx, func(server.Addresses) { close(ready) })
		}
		h.err = err
	}()
	defer func() {
		stop()
		<-h.ended
		for _, t := range h.transports {
			t.CloseIdleConnections()
		}
		h.network.Cut()
		synctest.Wait()
		if h.err != nil {
			k.t.Errorf("the hub: %v", h.err)
		}
	}()
	select {
	case <-ready:
		f(h)
	case <-h.ended:
		k.t.FailNow()
	}
}

func (k *kept) tls(identity string) *tls.Config {
	k.t.Helper()
	c := &tls.Config{RootCAs: k.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	if identity != "" {
		pair, err := tls.X509KeyPair(k.file(identity+"/cert.pem"), k.file(identity+"/key.pem"))
		if err != nil {
			k.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// get asks as a person of the house, or as its administrator.
func (k *kept) get(h *hub, who, path string) string {
	k.t.Helper()
	return k.do(h, who, http.MethodGet, path, nil, http.StatusOK)
}

func (k *kept) do(h *hub, who, method, path string, body []byte, want int) string {
	k.t.Helper()
	token, identity := "", "data/admin"
	if who != "" {
		token, identity = strings.TrimSpace(string(k.file("people/"+who+".token"))), ""
	}
	status, answer := ask(k.t.Context(), h.client(k.tls(identity)), method, apiURL+path, token, "application/json", body)
	if status != want {
		k.t.Fatalf("%s %s as %q: %d %.400s", method, path, who, status, answer)
	}
	return string(answer)
}

// owners are whose the devices with readings are; "" is the operating organisation.
var owners = map[string]string{"watch": "Anna", "band": "Anna", "lamp": "Ben", "scale": "Clara", "hallway": "Home", "pump": "", "valve": ""}

// readings are all of a device, as csv.
func (k *kept) readings(h *hub, device string) string {
	k.t.Helper()
	q := url.Values{"device": {device}, "from": {"1960-01-01"}, "to": {"2100-01-01"}, "format": {"csv"}}
	return k.get(h, owners[device], "/v1/readings?"+q.Encode())
}

// publish sends a reading over MQTT with the certificate that the release gave.
func (k *kept) publish(h *hub, device, topic, payload string) {
	k.t.Helper()
	raw, err := h.network.Dial(k.t.Context(), 8883)
	if err != nil {
		k.t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(raw, k.tls("devices/"+device))
	if _, err := hello(k.t.Context(), c); err != nil {
		k.t.Fatalf("%s does not connect: %v", device, err)
	}
	p := packets.NewControlPacket(packets.PUBLISH)
	in := p.Content.(*packets.Publish)
	in.Topic, in.QoS, in.PacketID, in.Payload = topic, 1, 1, []byte(payload)
	if err := send(c, p); err != nil {
		k.t.Fatal(err)
	}
	back, err := packets.ReadPacket(c)
	if err != nil {
		k.t.Fatal(err)
	}
	if a, ok := back.Content.(*packets.Puback); !ok || a.ReasonCode >= 0x80 {
		k.t.Fatalf("%s to %s: %v", device, topic, back)
	}
}

// sameAnswers compares what the hub answers with what the release answered.
func (k *kept) sameAnswers(h *hub) {
	k.t.Helper()
	for device := range owners {
		want := string(k.file("answers/" + device + ".csv"))
		if strings.Count(want, "\n") < 4 {
			k.t.Errorf("%s has hardly a reading: %q", device, want)
		}
		if diff := cmp.Diff(want, k.readings(h, device)); diff != "" {
			k.t.Errorf("readings of %s (-%s +today):\n%s", device, k.version, diff)
		}
	}
}

// Whatever a release wrote opens in this version: every reading as it was, owners'
// answers, ledger, certificates; and goes on to be used.
func TestKeptFolders(t *testing.T) {
	eachKept(t, func(k *kept) {
		k.life(func(h *hub) {
			k.sameAnswers(h)
			for _, who := range []string{"Anna", "Ben", "Clara"} {
				for _, what := range []string{"recipients", "purposes", "data"} {
					var then, now any
					if err := errors.Join(json.Unmarshal(k.file("answers/"+who+"-"+what+".json"), &then),
						json.Unmarshal([]byte(k.get(h, who, "/v1/me/"+what)), &now)); err != nil {
						k.t.Fatal(err)
					}
					if page, ok := now.(map[string]any); ok && what != "data" {
						now = page["items"]
					}
					if missing := lost("", then, now); missing != nil {
						k.t.Errorf("%s's %s: what %s said is said no more: %v", who, what, k.version, missing[:min(8, len(missing))])
					}
				}
			}
			var then, now struct {
				Entries, Erased, Checkpoints int
				Faults                       []string
			}
			if err := errors.Join(json.Unmarshal(k.file("answers/ledger.json"), &then),
				json.Unmarshal([]byte(k.do(h, "", http.MethodPost, "/v1/ledger/verify", nil, http.StatusOK)), &now)); err != nil {
				k.t.Fatal(err)
			}
			if len(now.Faults) > 0 || now.Entries < then.Entries || now.Erased < then.Erased {
				k.t.Errorf("the ledger was %+v and is %+v", then, now)
			}
			var head struct{ Verifier string }
			if err := json.Unmarshal([]byte(k.get(h, "", "/v1/ledger")), &head); err != nil {
				k.t.Fatal(err)
			}
			if _, err := erasure.VerifyCertificate(k.file("answers/erased.txt"), head.Verifier); err != nil {
				k.t.Errorf("the certificate of the erasure: %v", err)
			}
			// What was taken back stays so.
			k.do(h, "Ben", http.MethodGet, "/v1/readings?device=gone&stream=secret&from=2020-01-01", nil, http.StatusForbidden)
			lamp, _, _ := strings.Cut(strings.Split(string(k.file("answers/lamp.csv")), "\n")[1], ",")
			k.do(h, "bench", http.MethodGet, "/v1/readings?device="+lamp+"&from=2020-01-01&purpose=study", nil, http.StatusForbidden)
			band, _, _ := strings.Cut(strings.Split(string(k.file("answers/band.csv")), "\n")[1], ",")
			if got := k.get(h, "bench", "/v1/readings?device="+band+"&stream=pulse&from=2020-01-01&purpose=study&format=csv"); strings.Count(got, "\n") != 44 {
				k.t.Errorf("under the grant there are %d lines, not 44", strings.Count(got, "\n"))
			}
			// And on it goes, over both ways in.
			k.publish(h, "watch", "data/steps", "77077")
			k.publish(h, "pump", "child/valve/data/open", "true")
			status, body := ask(k.t.Context(), h.client(k.tls("devices/band")), http.MethodPost, deviceURL+"/v1/data", "", "application/senml+json",
				[]byte(`[{"n":"pulse","hf_int":77,"bt":1.7e9,"t":5000}]`))
			if status/100 != 2 {
				k.t.Errorf("band: %d %s", status, body)
			}
		})
		if log := k.told.String(); catalog.Known() > catalog.Oldest && (!strings.Contains(log, "upgrade: migrating") || !strings.Contains(log, "not confirmed")) {
			k.t.Errorf("the log tells nothing of the upgrade: %s", log)
		}
		time.Sleep(24 * time.Hour) // merges, publishes, renews
		k.life(func(h *hub) {
			for device, want := range map[string]string{"watch": ",77077,", "valve": ",true,", "band": ",77,"} {
				then, now := string(k.file("answers/"+device+".csv")), k.readings(h, device)
				if missing := lostLines(then, now); len(missing) > 0 || !strings.Contains(now, want) {
					k.t.Errorf("%s after more was written: lacks %v, or %q", device, missing, want)
				}
			}
			k.do(h, "Ben", http.MethodPost, "/v1/erasures", []byte(`{"party":"Ben"}`), http.StatusOK)
		})
		c := k.config()
		u, err := server.ConfirmUpgrade(k.t.Context(), c)
		if err != nil || u.From != "" || u.Version != "today" {
			k.t.Errorf("confirmed: %+v, %v", u, err)
		}
		if _, err := server.GoBack(k.t.Context(), c); err == nil {
			k.t.Error("there is a way back after the upgrade is confirmed")
		}
	})
}

// lost says what of a document is not in another: fields may be new, nothing may
// change but what asking again adds to, and what a kill leaves uncounted.
func lost(at string, then, now any) (missing []string) {
	switch then := then.(type) {
	case map[string]any:
		now, _ := now.(map[string]any)
		for name, v := range then {
			missing = append(missing, lost(at+"."+name, v, now[name])...)
		}
	case []any:
		now, _ := now.([]any)
		for i, v := range then {
			if at := fmt.Sprintf("%s[%d]", at, i); i < len(now) && nameOf(v) != nil {
				j := slices.IndexFunc(now, func(other any) bool { return nameOf(other) == nameOf(v) })
				if j < 0 {
					missing = append(missing, at)
					continue
				}
				missing = append(missing, lost(at, v, now[j])...)
			} else if !slices.ContainsFunc(now, func(other any) bool { return lost("", v, other) == nil }) {
				missing = append(missing, at)
			}
		}
	default:
		name := at[strings.LastIndex(at, ".")+1:]
		if then != now && !slices.Contains([]string{"readings", "last", "disclosures", "reads", "rows", "last_read"}, name) {
			missing = append(missing, fmt.Sprintf("%s: %v, was %v", at, now, then))
		}
	}
	return missing
}

// nameOf is what tells one element of a list from the others, nil if nothing does.
func nameOf(v any) any {
	m, _ := v.(map[string]any)
	if id, ok := m["id"]; ok {
		return id
	}
	return m["name"]
}

func lostLines(then, now string) (missing []string) {
	have := map[string]bool{}
	for line := range strings.Lines(now) {
		have[line] = true
	}
	for line := range strings.Lines(then) {
		if !have[line] {
			missing = append(missing, line)
		}
	}
	return missing
}

// The way back: what the older program knows is as it was left, and the older
// program itself opens it (with HOLDFAST_LONG, built from the history).
func TestKeptFoldersGoBack(t *testing.T) {
	if catalog.Known() == catalog.Oldest {
		return // no version after the first
	}
	eachKept(t, func(k *kept) {
		c := k.config()
		had, err := catalog.Version(k.t.Context(), filepath.Join(k.dir, "data/catalog"))
		if err != nil {
			k.t.Fatal(err)
		}
		if had == catalog.Known() {
			return
		}
		k.life(func(h *hub) {
			k.publish(h, "watch", "data/steps", "77077")
			k.do(h, "Ben", http.MethodPost, "/v1/erasures", []byte(`{"party":"Ben"}`), http.StatusOK)
		})
		w, err := server.GoBack(k.t.Context(), c)
		if err != nil {
			k.t.Fatal(err)
		}
		if w.To != k.version || len(w.Takes) == 0 {
			k.t.Errorf("back to %s, taking %v", w.To, w.Takes)
		}
		if err := errors.Join(w.Go(k.t.Context()), w.Close()); err != nil {
			k.t.Fatal(err)
		}
		if have, err := catalog.Version(k.t.Context(), filepath.Join(k.dir, "data/catalog")); err != nil || have != had {
			k.t.Errorf("the catalog is of version %d, %v", have, err)
		}
		if _, err := os.Stat(filepath.Join(k.dir, "data/release.json")); k.version == "0.1.0" && !errors.Is(err, fs.ErrNotExist) {
			k.t.Errorf("release.json: %v", err)
		}
		if os.Getenv("HOLDFAST_LONG") != "" {
			k.olderProgram()
		}
		// Forward again: nothing acknowledged is lost, nothing erased is back.
		k.life(func(h *hub) {
			if now := k.readings(h, "watch"); !strings.Contains(now, ",77077,") {
				k.t.Error("a reading that was acknowledged is lost")
			}
			token := strings.TrimSpace(string(k.file("people/Ben.token")))
			if status, body := ask(k.t.Context(), h.client(k.tls("")), http.MethodGet, apiURL+"/v1/readings?device=lamp&from=2020-01-01", token, "", nil); status != http.StatusUnauthorized {
				k.t.Errorf("Ben, who was erased, is answered %d %s", status, body)
			}
		})
	})
}

// commits of releases, for tests that run them.
var commits = map[string]string{"0.1.0": "9a00ef1"}

// olderProgram lets the release itself open the folder, by the real clock, and
// count Anna's readings.
func (k *kept) olderProgram() {
	k.t.Helper()
	src, binary := k.t.TempDir(), filepath.Join(k.t.TempDir(), "holdfast")
	script := fmt.Sprintf(`set -e; top=$(git rev-parse --show-toplevel); git -C "$top" archive %s | tar -x -C %q; cd %q; CGO_ENABLED=0 go build -trimpath -buildvcs=false -o %q ./cmd/holdfast
cd %q; %q serve --data data --root-key root.key --listen-api 127.0.0.1:0 --listen-device 127.0.0.1:0 --listen-mqtt 127.0.0.1:0 >serve.txt 2>serve.log & pid=$!
trap 'kill $pid; wait $pid || true' EXIT
for i in $(seq 200); do [ -e data/run.json ] && break; sleep 0.1; done
%q query watch/steps --from 1960-01-01 --to 2100-01-01 --token people/Anna.token --data data -o csv
%q ledger verify --data data`, commits[k.version], src, src, binary, k.dir, binary, binary, binary)
	out, err := exec.Command("bash", "-c", script).CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(k.dir, "serve.log"))
	if err != nil || !strings.Contains(string(out), ",77077,") {
		k.t.Errorf("holdfast %s on the folder: %v\n%s\n%s", k.version, err, out, log)
	}
}
