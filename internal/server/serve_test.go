package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// The test binary is a hub when childEnv is set: kill, full disks and exit codes
// need a process of their own.
const childEnv = "HOLDFAST_TEST_HUB"

// childConfig is what a child is told.
type childConfig struct {
	Data, RootKey string
	RollEvery     time.Duration // 0: as usual
	Files         uint64        // most open files; 0: as usual
	Collect       bool          // garbage, with every roll
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(childMain(text))
	}
	if len(os.Args) == 3 && os.Args[1] == holderArgument {
		os.Exit(holderMain(os.Args[2]))
	}
	if len(os.Args) == 3 && os.Args[1] == restoreArgument {
		os.Exit(restoreMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

// childMain serves until it is told to end, and says where on stdout.
func childMain(text string) int {
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if c.Files > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: c.Files, Max: c.Files}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
	}
	s, err := Open(ctx, Config{Data: c.Data, RootKey: c.RootKey, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, "holdfast:", err)
		return 1
	}
	if c.RollEvery > 0 {
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				time.Sleep(c.RollEvery)
				if err := s.series.Roll(ctx); err != nil && ctx.Err() == nil {
					s.log.Error("keep readings", "error", err)
				}
				if i%4 == 3 {
					s.series.Merge(ctx)
				}
				if c.Collect {
					runtime.GC()
				}
			}
		}()
	}
	err = s.Run(ctx, func(at Addresses) {
		json.NewEncoder(os.Stdout).Encode(at)
		go s.erasesWhatIsAsked(ctx, os.Stdin, os.Stdout)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "holdfast:", err)
		return 1
	}
	return 0
}

// erasesWhatIsAsked takes scopes, one a line, and answers with the erasure's id when
// it is durable that it was asked for.
func (s *Server) erasesWhatIsAsked(ctx context.Context, in io.Reader, out io.Writer) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var scope holdfast.Scope
		err := json.Unmarshal(lines.Bytes(), &scope)
		if err == nil {
			var op holdfast.PartyID
			if op, err = s.custody.Operating(ctx); err == nil {
				var e erasure.Erasure
				by := access.Principal{Settled: true, Credential: holdfast.NewID[holdfast.CredentialID](), Party: op, Role: access.Administrator,
					Scopes: access.ScopeRead | access.ScopeWrite, NotAfter: time.Now().Add(time.Hour)}
				if e, err = s.erasure.Ask(ctx, by, scope); err == nil {
					fmt.Fprintln(out, e.ID)
				}
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			fmt.Fprintln(out, "refused")
		}
	}
}

// child is a hub in a process of its own.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	at     Addresses
	ended  chan struct{}
	stderr *text
	web    *http.Client // the first administrator's
}

// text is a buffer that two goroutines may share.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// spawn starts a hub on the house's folder, which the house must have let go of.
func (h *house) spawn(c childConfig) *child {
	h.t.Helper()
	c.Data = h.dir
	if c.RootKey == "" {
		c.RootKey = h.rootKey
	}
	k := launch(h.t, c)
	line, err := k.out.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &k.at) != nil {
		<-k.ended
		h.t.Fatalf("the hub does not start: %s", k.stderr)
	}
	return k
}

// refusal starts a hub that is to refuse to start, and returns what it says.
func (h *house) refusal(c childConfig) string {
	h.t.Helper()
	if c.Data == "" {
		c.Data = h.dir
	}
	k := launch(h.t, c)
	if line, err := k.out.ReadString('\n'); err == nil {
		k.kill()
		h.t.Fatalf("the hub starts: %s", line)
	}
	<-k.ended
	if code := k.cmd.ProcessState.ExitCode(); code != 1 {
		h.t.Errorf("exit code %d: %s", code, k.stderr)
	}
	return k.stderr.String()
}

func launch(t testing.TB, c childConfig) *child {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	k := &child{t: t, ended: make(chan struct{}), stderr: new(text)}
	k.cmd = exec.Command(os.Args[0])
	k.cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	k.cmd.Stderr = k.stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k.cmd.Stdout, k.out = w, bufio.NewReader(r)
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(k.ended)
		k.cmd.Wait()
	}()
	t.Cleanup(func() { k.kill(); r.Close() })
	return k
}

func (k *child) kill() {
	k.cmd.Process.Kill()
	<-k.ended
}

func (k *child) signal(s os.Signal) { k.cmd.Process.Signal(s) }

// end asks the hub to end and expects that it does so without a fault.
func (k *child) end() {
	k.t.Helper()
	k.signal(syscall.SIGTERM)
	select {
	case <-k.ended:
	case <-time.After(30 * time.Second):
		k.kill()
		k.t.Fatal("the hub does not end")
	}
	if code := k.cmd.ProcessState.ExitCode(); code != 0 {
		k.t.Errorf("the hub ends with %d: %s", code, k.stderr)
	}
}

// serve runs the house's hub in this process; what it returns ends it, and starts
// the hub anew without serving.
func (h *house) serve() (at Addresses, end func()) {
	h.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan Addresses, 1), make(chan error, 1)
	s := h.Server
	go func() { ended <- s.Run(ctx, func(at Addresses) { ready <- at }) }()
	var once sync.Once
	halt := func(again bool) {
		once.Do(func() {
			stop()
			select {
			case err := <-ended:
				if err != nil {
					h.t.Errorf("run: %v", err)
				}
			case <-time.After(40 * time.Second):
				h.t.Error("the hub does not end")
			}
			h.Server = nil
			if again {
				h.start()
			}
		})
	}
	h.t.Cleanup(func() { halt(false) })
	select {
	case at = <-ready:
	case err := <-ended:
		h.t.Fatalf("run: %v", err)
	}
	return at, func() { halt(true) }
}

// thing is a device with its key and certificate.
type thing struct {
	identity.Peer
	label string
	cert  tls.Certificate
	ca    []byte // PEM
}

// enrolled is a new device of owner that has its certificate.
func (h *house) enrolled(owner holdfast.PartyID, label string) *thing {
	h.t.Helper()
	return h.enrol(h.device(owner, label), label)
}

func (h *house) enrol(p identity.Peer, label string) *thing {
	h.t.Helper()
	code, _, err := h.identity.MakeCode(h.t.Context(), p.Device, p.Assignment, identity.CodeOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := h.identity.Enrol(h.t.Context(), p.Device.String(), code.SecretText(), csr, "192.0.2.1")
	if err != nil {
		h.t.Fatal(err)
	}
	return &thing{Peer: p, label: label, ca: h.identity.CAPEM(),
		cert: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}}
}

// tls is how the device connects: it verifies the server.
func (d *thing) tls() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{d.cert}, ServerName: "localhost"}
}

// files writes the identity as command line tools want it.
func (d *thing) files(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(d.cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"ca.pem":   d.ca,
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.cert.Certificate[0]}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dial makes the TLS connection for MQTT.
func (d *thing) dial(ctx context.Context, at Addresses) (net.Conn, error) {
	dialer := tls.Dialer{Config: d.tls()}
	return dialer.DialContext(ctx, "tcp", strings.TrimPrefix(at.MQTT, "mqtts://"))
}

// dialMQTT connects Eclipse's MQTT 5 client.
func (d *thing) dialMQTT(ctx context.Context, at Addresses, hello *paho.Connect, cfg paho.ClientConfig) (*paho.Client, *paho.Connack, error) {
	nc, err := d.dial(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	cfg.Conn = packets.NewThreadSafeConn(nc)
	if cfg.PacketTimeout == 0 {
		cfg.PacketTimeout = time.Minute
	}
	c := paho.NewClient(cfg)
	ack, err := c.Connect(ctx, hello)
	if err != nil {
		nc.Close()
		return nil, ack, err
	}
	return c, ack, nil
}

// mqtt is dialMQTT for a test in which nothing may go wrong.
func (d *thing) mqtt(t testing.TB, at Addresses) *paho.Client {
	t.Helper()
	c, _, err := d.dialMQTT(t.Context(), at, &paho.Connect{ClientID: d.label, KeepAlive: 60, CleanStart: true}, paho.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect(&paho.Disconnect{}) })
	return c
}

// http is a client that is the device.
func (d *thing) http(t testing.TB) *http.Client {
	tr := &http.Transport{TLSClientConfig: d.tls()}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// post sends a body and returns the status, the header and the answer.
func post(c *http.Client, url, contentType string, body io.Reader) (int, http.Header, string, error) {
	r, err := c.Post(url, contentType, body)
	if err != nil {
		return 0, nil, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Header, string(b), err
}

// need finds outside programs, or ends the test aloud.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skipf("SKIPPED: %s is not installed and HOLDFAST_NO_TOOLS=1", p)
		}
		t.Fatalf("%s is not installed: install it, or set HOLDFAST_NO_TOOLS=1 to leave this test out", p)
	}
}

// long reports whether there is time for more rounds than usual.
func long() bool { return os.Getenv("HOLDFAST_LONG") != "" }

// snapshotOf reads every file of a folder, for a test that nothing changed.
func snapshotOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		out[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
