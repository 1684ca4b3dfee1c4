package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// program builds holdfast as it is shipped: the test binary may have the race
// detector in it, whose memory is not the hub's.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "holdfast")
	out, err := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/holdfast-iot/holdfast/cmd/holdfast").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build holdfast: %w: %s", err, out)
	}
	return path, nil
})

// serving starts `holdfast serve` on the house's folder, which the house must have
// let go of. Each of env is NAME=VALUE.
func (h *house) serving(env []string, flags ...string) *child {
	h.t.Helper()
	path, err := program()
	if err != nil {
		h.t.Fatal(err)
	}
	k := &child{t: h.t, ended: make(chan struct{}), stderr: new(text)}
	k.cmd = exec.Command(path, append([]string{"serve", "--data", h.dir, "--root-key", h.rootKey,
		"--listen-api", "127.0.0.1:0", "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0"}, flags...)...)
	k.cmd.Env = append(os.Environ(), env...)
	k.cmd.Stderr = k.stderr
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	k.cmd.Stdout, k.out = w, bufio.NewReader(r)
	if err := k.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(k.ended)
		k.cmd.Wait()
	}()
	h.t.Cleanup(func() { k.kill(); r.Close() })
	if line, err := k.out.ReadString('\n'); err != nil {
		<-k.ended
		h.t.Fatalf("the hub does not start: %s %s", line, k.stderr)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, runFile))
	if err == nil {
		err = json.Unmarshal(b, &k.at)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

// peak is the most memory that a process ever had, in KiB.
func (k *child) peak() (kib int) {
	k.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.cmd.Process.Pid))
	if err != nil {
		k.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib
		}
	}
	k.t.Fatal("no VmHWM")
	return 0
}

// wire is an MQTT 3.1.1 connection in the fewest bytes, for a crowd of them.
type wire struct {
	net.Conn
	next uint16
}

// patient is a socket whose owner computes only when it is its turn: devices have
// a processor each, and ten thousand in one process would keep each other from
// answering the hub.
type patient struct {
	net.Conn
	turns chan struct{} // nil: it need not wait any more
}

func (p *patient) Read(b []byte) (int, error) {
	if p.turns == nil {
		return p.Conn.Read(b)
	}
	<-p.turns
	n, err := p.Conn.Read(b)
	p.turns <- struct{}{}
	return n, err
}

// joins makes a connection of a device; client tells it from others of the device.
// turns has room for as many as compute at once.
func (d *thing) joins(ctx context.Context, turns chan struct{}, config *tls.Config, address, client string) (*wire, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		nc.SetDeadline(deadline)
	}
	p := &patient{nc, turns}
	c := tls.Client(p, config)
	turns <- struct{}{}
	defer func() { <-turns; p.turns = nil }()
	hello := []byte{0x10, byte(12 + len(client)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0x0e, 0x10, 0, byte(len(client))}
	_, err = c.Write(append(hello, client...))
	var ack [4]byte
	if err == nil {
		_, err = io.ReadFull(c, ack[:])
	}
	if err == nil && ack != [4]byte{0x20, 2, 0, 0} {
		err = fmt.Errorf("CONNACK % x", ack)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	return &wire{Conn: c}, nil
}

// publish sends n publishes of QoS 1 to a stream and waits until they are
// acknowledged.
func (w *wire) publish(n int, stream, payload string) error {
	var b []byte
	topic := "data/" + stream
	for range n {
		w.next++
		if w.next == 0 {
			w.next = 1
		}
		b = append(b, 0x32, byte(4+len(topic)+len(payload)), 0, byte(len(topic)))
		b = append(b, topic...)
		b = binary.BigEndian.AppendUint16(b, w.next)
		b = append(b, payload...)
	}
	w.SetDeadline(time.Now().Add(time.Minute))
	if _, err := w.Write(b); err != nil {
		return err
	}
	acks := b[:4*n]
	if _, err := io.ReadFull(w, acks); err != nil {
		return err
	}
	for i := range n {
		if acks[4*i] != 0x40 {
			return fmt.Errorf("answered with % x", acks[4*i:4*i+4])
		}
	}
	return nil
}

// crowd is n connections of devices, as even as can be.
type crowd struct {
	wires []*wire
	took  []time.Duration // until each was in, tries that failed included
	tries int
}

// gathers has n connections of devices made at once. Who is not let in comes again
// after a moment, as devices do, until ctx ends.
func gathers(ctx context.Context, devices []*thing, at Addresses, n int) (*crowd, error) {
	c := &crowd{wires: make([]*wire, n), took: make([]time.Duration, n)}
	address := strings.TrimPrefix(at.MQTT, "mqtts://")
	turns := make(chan struct{}, 2)
	configs := make([]*tls.Config, len(devices))
	for i, d := range devices {
		configs[i] = d.tls()
	}
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	began := time.Now()
	for i := range n {
		all.Go(func() {
			d, config := devices[i%len(devices)], configs[i%len(devices)]
			for tries := 1; ; tries++ {
				one, cancel := context.WithTimeout(ctx, 30*time.Second)
				w, err := d.joins(one, turns, config, address, fmt.Sprint("c", i/len(devices)))
				cancel()
				if err == nil {
					c.wires[i], c.took[i] = w, time.Since(began)
				}
				if err == nil || ctx.Err() != nil {
					mu.Lock()
					c.tries += tries
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
			}
		})
	}
	all.Wait()
	return c, failed
}

func (c *crowd) leaves() {
	for _, w := range c.wires {
		if w != nil {
			w.Conn.(*tls.Conn).NetConn().Close() // without a farewell, as a device that is switched off
		}
	}
}

// enrols gives a party n devices with certificates.
func (h *house) enrols(n int) []*thing {
	h.t.Helper()
	owner := h.person("Fleet")
	out := make([]*thing, n)
	for i := range out {
		out[i] = h.enrolled(owner.Party, fmt.Sprint("device ", i))
	}
	return out
}

// asks is a client of the hub that is its first administrator.
func (h *house) asks(hub *child) *http.Client {
	h.t.Helper()
	if hub.web == nil {
		pair, err := tls.LoadX509KeyPair(filepath.Join(h.dir, adminDir, "cert.pem"), filepath.Join(h.dir, adminDir, "key.pem"))
		if err != nil {
			h.t.Fatal(err)
		}
		ca, err := os.ReadFile(filepath.Join(h.dir, adminDir, "ca.pem"))
		if err != nil {
			h.t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		hub.web = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "localhost"}}}
		h.t.Cleanup(hub.web.CloseIdleConnections)
	}
	return hub.web
}

// count reads a number of the hub's metrics: the sum of all of a name and, unless it
// is "", with a label's value.
func (h *house) count(hub *child, name, label string) float64 {
	h.t.Helper()
	r, err := h.asks(hub).Get(hub.at.API + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		what, value, _ := strings.Cut(lines.Text(), " ")
		if base, _, _ := strings.Cut(what, "{"); base == name && strings.Contains(what, label) {
			n, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
			if err != nil {
				h.t.Fatal(lines.Text())
			}
			sum += n
		}
	}
	if lines.Err() != nil || r.StatusCode != http.StatusOK {
		h.t.Fatalf("metrics: %s %v", r.Status, lines.Err())
	}
	return sum
}

// files lets this process have n files open, or says how many it may.
func files(t *testing.T, n int) int {
	t.Helper()
	if most := int(openFiles()); n > most {
		return most
	}
	return n
}
