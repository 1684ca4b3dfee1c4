package mqtt

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// mosquitto runs mosquitto_pub as a device over mutual TLS.
type mosquitto struct {
	dir  string
	addr string
}

func newMosquitto(t *testing.T, a *authority, id holdfast.DeviceID, addr string) mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto_pub"); err != nil {
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skip("SKIPPED: mosquitto_pub is not installed and HOLDFAST_NO_TOOLS=1: no foreign client was tried")
		}
		t.Fatal("mosquitto_pub is not installed (Debian: mosquitto-clients); HOLDFAST_NO_TOOLS=1 skips what needs it")
	}
	return mosquitto{a.files(id), addr}
}

func (m mosquitto) run(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(m.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mosquitto_pub", append([]string{"-h", host, "-p", port, "-d",
		"--cafile", filepath.Join(m.dir, "ca.pem"), "--cert", filepath.Join(m.dir, "cert.pem"), "--key", filepath.Join(m.dir, "key.pem"),
	}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMosquittoPublishes(t *testing.T) {
	a, h := newAuthority(t), newHub()
	_, addr := serving(t, a, h, Options{})
	pub := newMosquitto(t, a, holdfast.DeviceID{1}, addr)
	want := 0
	for _, version := range []string{"311", "5"} {
		for qos := range 3 {
			t.Run(fmt.Sprintf("v%s qos%d", version, qos), func(t *testing.T) {
				out, err := pub.run(t, "", "-V", version, "-q", fmt.Sprint(qos), "-t", "data/room/temperature", "-m", fmt.Sprint(20+want))
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				got := h.await(want + 1)
				if v := values(t, got, "room/temperature"); v[want] != float64(20+want) {
					t.Errorf("value %d is %v", want, v[want])
				}
				want++
			})
		}
	}
}

func TestMosquittoManyLines(t *testing.T) {
	a, h := newAuthority(t), newHub()
	_, addr := serving(t, a, h, Options{})
	pub := newMosquitto(t, a, holdfast.DeviceID{1}, addr)
	const n = 500
	var lines strings.Builder
	for i := range n {
		fmt.Fprintln(&lines, i)
	}
	for _, args := range [][]string{{"-V", "5", "-q", "1"}, {"-V", "311", "-q", "2"}} {
		h.set(func() { h.got = nil })
		out, err := pub.run(t, lines.String(), append(args, "-l", "-t", "data/n")...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for i, v := range values(t, h.await(n), "n") {
			if v != float64(i) {
				t.Fatalf("%v: value %d is %v", args, i, v)
			}
		}
		if len(h.arrivals()) != n {
			t.Errorf("%v: %d arrivals", args, len(h.arrivals()))
		}
	}
}

func TestMosquittoIsToldWhy(t *testing.T) {
	a, h := newAuthority(t), newHub()
	s, addr := serving(t, a, h, Options{})
	pub := newMosquitto(t, a, holdfast.DeviceID{1}, addr)
	out, _ := pub.run(t, "", "-V", "5", "-q", "1", "-t", "sensors/x", "-m", "1")
	if !strings.Contains(out, "RC:144") {
		t.Errorf("a wrong topic was not answered with 0x90:\n%s", out)
	}
	out, err := pub.run(t, "", "-V", "311", "-q", "1", "-t", "sensors/x", "-m", "1")
	if err != nil || !strings.Contains(out, "received PUBACK") {
		t.Errorf("3.1.1 is not acknowledged: %v\n%s", err, out)
	}
	if got := h.arrivals(); len(got) != 0 {
		t.Errorf("refused readings arrived: %v", got)
	}
	if n := len(s.Refusals()); n != 2 {
		t.Errorf("%d refusals are remembered, want 2", n)
	}
	// mosquitto_pub takes the retain flag off where CONNACK says that nothing is retained.
	out, err = pub.run(t, "", "-V", "5", "-q", "1", "-r", "-t", "data/x", "-m", "1")
	if err != nil || !strings.Contains(out, "RC:0)") {
		t.Errorf("retain: %v\n%s", err, out)
	}
}
