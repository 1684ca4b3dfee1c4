package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
)

// plant is a broker of somebody else's, a hub, and a gateway on it, each a process
// of its own that can be killed.
type plant struct {
	t             *testing.T
	dir           string
	brokerPort    string
	hubArgs       []string
	hub, broker   *exec.Cmd
	mqttPort      string
	secret, trust string // files
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	for _, program := range []string{"mosquitto", "mosquitto_passwd", "mosquitto_pub"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
				t.Skipf("SKIPPED: %s is not installed and HOLDFAST_NO_TOOLS=1: the intake was not tried against a real broker", program)
			}
			t.Fatalf("%s is not installed (Debian: mosquitto, mosquitto-clients); HOLDFAST_NO_TOOLS=1 skips what needs it", program)
		}
	}
	p := &plant{t: t, dir: t.TempDir(), brokerPort: freePort(t), mqttPort: freePort(t)}
	p.secret, p.trust = p.file("secret"), p.file("broker-ca.pem")
	p.brokerFiles()
	p.startBroker()
	p.must("init", p.file("data"), "--organisation", "Acme", "--host", "localhost", "--root-key", p.file("root.key"))
	p.hubArgs = []string{"serve", "--data", p.file("data"), "--listen-api", "127.0.0.1:" + freePort(t), "--listen-device", "127.0.0.1:" + freePort(t), "--listen-mqtt", "127.0.0.1:" + p.mqttPort}
	p.startHub()
	out := p.must("device", "add", "house", "--data", p.file("data"))
	p.must("enrol", wordOf(t, out, "hf1:"), "--out", p.file("house"))
	t.Cleanup(func() {
		for _, c := range []*exec.Cmd{p.hub, p.broker} {
			c.Process.Kill()
			c.Wait()
		}
	})
	return p
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (p *plant) file(name string) string { return filepath.Join(p.dir, name) }

// holdfast is this program in a process of its own.
func (p *plant) holdfast(args ...string) *exec.Cmd {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"holdfast"}, args...)
	cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.file(".config"))
	return cmd
}

func (p *plant) try(args ...string) (string, error) {
	cmd := p.holdfast(args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *plant) must(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("holdfast %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// await waits for something that other processes do.
func (p *plant) await(what string, done func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not within a minute", what)
		}
	}
}

func (p *plant) startHub() {
	p.t.Helper()
	os.Remove(filepath.Join(p.file("data"), "run.json")) // what a killed one left
	p.hub = p.holdfast(p.hubArgs...)
	if err := p.hub.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.await("the hub", func() bool {
		_, err := os.Stat(filepath.Join(p.file("data"), "run.json"))
		return err == nil
	})
}

// brokerFiles are a broker's certificate, password and configuration.
func (p *plant) brokerFiles() {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(p.trust, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	p.write(p.file("broker-key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	p.write(p.secret, "a broker's password\n")
	if out, err := exec.Command("mosquitto_passwd", "-c", "-b", p.file("passwords"), "collector", "a broker's password").CombinedOutput(); err != nil {
		p.t.Fatalf("%v %s", err, out)
	}
	if err := os.Mkdir(p.file("kept"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	p.write(p.file("mosquitto.conf"), fmt.Sprintf(`user root
per_listener_settings true
persistence true
persistence_location %[1]s/kept/
max_queued_messages 0
max_inflight_messages 0
listener %[2]s 127.0.0.1
allow_anonymous false
password_file %[1]s/passwords
cafile %[1]s/broker-ca.pem
certfile %[1]s/broker-ca.pem
keyfile %[1]s/broker-key.pem
listener 0 %[1]s/broker.sock
allow_anonymous true
`, p.dir, p.brokerPort))
}

func (p *plant) write(path, text string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) startBroker() {
	p.t.Helper()
	p.broker = exec.Command("mosquitto", "-c", p.file("mosquitto.conf"))
	if err := p.broker.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.await("the broker", func() bool {
		c, err := net.Dial("unix", p.file("broker.sock"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// publisher is a device that has never heard of Holdfast.
func (p *plant) publisher() mqtt3.Client {
	p.t.Helper()
	o := mqtt3.NewClientOptions().AddBroker("unix://" + p.file("broker.sock")).SetClientID("things").SetCleanSession(false).
		SetMaxReconnectInterval(200 * time.Millisecond).SetOrderMatters(true)
	c := mqtt3.NewClient(o)
	if token := c.Connect(); !token.WaitTimeout(30*time.Second) || token.Error() != nil {
		p.t.Fatalf("publisher: %v", token.Error())
	}
	p.t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func (p *plant) publish(c mqtt3.Client, topic string, payload any) {
	p.t.Helper()
	if token := c.Publish(topic, 1, false, payload); !token.WaitTimeout(30*time.Second) || token.Error() != nil {
		p.t.Fatalf("publish: %v", token.Error())
	}
}

func (p *plant) from(more ...string) []string {
	return append([]string{"intake", "mqtt", "--from", "mqtts://localhost:" + p.brokerPort, "--ca", p.trust, "--user", "collector", "--password-file", p.secret}, more...)
}

// collector is an intake that runs.
type collector struct {
	*exec.Cmd
	told bytes.Buffer
	read chan struct{} // closed when it has said all

	mu   sync.Mutex
	said strings.Builder // on its way
}

func (c *collector) line(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said.WriteString(text + "\n")
}

// saying is what it has said on its way up to now.
func (c *collector) saying() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// run starts an intake and waits until it says something.
func (p *plant) run(until string, args ...string) *collector {
	p.t.Helper()
	c := &collector{Cmd: p.holdfast(args...), read: make(chan struct{})}
	c.Stdout = &c.told
	stderr, err := c.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(c.read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			c.line(lines.Text())
		}
	}()
	p.await("the intake at the broker", func() bool { return strings.Contains(c.saying(), until) })
	return c
}

// collect starts an intake that stores.
func (p *plant) collect(more ...string) *collector {
	p.t.Helper()
	return p.run("connected to the broker", p.from(append([]string{"--identity", p.file("house"), "--hub", "mqtts://localhost:" + p.mqttPort, "--every", "100ms"}, more...)...)...)
}

// end tells the intake to end and returns its report.
func (c *collector) end(t *testing.T) string {
	t.Helper()
	c.Process.Signal(syscall.SIGTERM)
	<-c.read
	if err := c.Wait(); err != nil {
		t.Errorf("the intake: %v\n%s", err, c.saying())
	}
	return c.told.String()
}

func (c *collector) kill() {
	c.Process.Kill()
	<-c.read
	c.Wait()
}

// readings are how often each value of a stream is held.
func (p *plant) readings(stream string) map[string]int {
	out, err := p.try("query", stream, "--from", "2020-01-01T00:00:00Z", "--to", "+1h", "--data", p.file("data"), "-o", "senml")
	if err != nil {
		return nil
	}
	var pack []struct {
		V  json.Number
		VB *bool
		VS *string
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber()
	if d.Decode(&pack) != nil {
		return nil
	}
	got := map[string]int{}
	for _, r := range pack {
		switch {
		case r.VB != nil:
			got[fmt.Sprint(*r.VB)]++
		case r.VS != nil:
			got[*r.VS]++
		default:
			got[r.V.String()]++
		}
	}
	return got
}

// mute leads to the broker, and says nothing to it any more once it is told so:
// what has been stored is not acknowledged.
func (p *plant) mute() (port string, now func()) {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	var muted atomic.Bool
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", "127.0.0.1:"+p.brokerPort)
			if err != nil {
				near.Close()
				continue
			}
			go func() {
				defer near.Close()
				io.Copy(near, far)
			}()
			go func() {
				defer far.Close()
				for b := make([]byte, 32<<10); ; {
					n, err := near.Read(b)
					if err != nil {
						return
					}
					if !muted.Load() {
						far.Write(b[:n])
					}
				}
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() { muted.Store(true) }
}

// Killed after its readings were stored and before the broker heard of it, an
// intake gets them again and gives them the times that they had.
func TestIntakeStoresOnceWhatComesAgain(t *testing.T) {
	p := newPlant(t)
	p.must("device", "add", "pump", "--gateway", "house", "--data", p.file("data"))
	things := p.publisher()
	for i, version := range []string{"5", "3.1.1"} {
		stream := fmt.Sprint("n", i)
		port, mute := p.mute()
		c := p.collect("--map", "plain", "--mqtt-version", version, "--from", "mqtts://localhost:"+port)
		mute()
		for n := range 10 {
			p.publish(things, "sensors/pump/"+stream, strconv.Itoa(n))
		}
		p.await("what was published", func() bool { return len(p.readings("pump/"+stream)) == 10 })
		c.kill()
		c = p.collect("--map", "plain", "--mqtt-version", version)
		p.publish(things, "sensors/pump/"+stream, "10")
		p.await("all of it again", func() bool { return strings.Contains(c.saying(), "holdfast: 11 messages, 11 readings durable") })
		for n, times := range p.readings("pump/" + stream) {
			if times != 1 {
				t.Errorf("MQTT %s: number %s is there %d times", version, n, times)
			}
		}
		c.end(t)
	}
}

// Devices publish at QoS 1 while the intake is killed, the hub is killed and stays
// away, and the broker is restarted: every message is stored, and those that were
// delivered again are stored once, whether they say when they were made or not.
func TestIntakeLosesNothing(t *testing.T) {
	p := newPlant(t)
	for _, name := range []string{"pump", "lamp"} {
		p.must("device", "add", name, "--gateway", "house", "--data", p.file("data"))
	}
	things := p.publisher()
	sent := 0
	some := func(n int) {
		for range n {
			p.publish(things, "sensors/pump/n", strconv.Itoa(sent))
			p.publish(things, "zigbee2mqtt/lamp", fmt.Sprintf(`{"last_seen":%d,"n":%d}`, 1772366400000+int64(sent), sent))
			sent++
		}
	}
	maps := []string{"--map", "plain", "--map", "zigbee2mqtt", "--window", "20"}
	c := p.collect(maps...)
	for range 3 { // killed in the middle
		some(40)
		c.kill()
		some(40)
		c = p.collect(maps...)
	}
	some(20)
	p.hub.Process.Kill()
	p.hub.Wait()
	some(100) // more than a window
	c.kill()
	c = p.collect(maps...)
	p.startHub()
	some(20)
	all := func(stream string) map[string]int {
		var got map[string]int
		p.await("every message on the hub", func() bool { got = p.readings(stream); return len(got) == sent })
		return got
	}
	for _, stream := range []string{"pump/n", "lamp/n"} {
		for n, times := range all(stream) {
			if times != 1 {
				t.Errorf("%s: number %s is there %d times", stream, n, times)
			}
		}
	}
	p.broker.Process.Signal(syscall.SIGTERM)
	p.broker.Wait()
	p.startBroker()
	some(40)
	for _, stream := range []string{"pump/n", "lamp/n"} {
		all(stream)
	}
	report := c.end(t)
	if !strings.Contains(report, "0 without a reading, 0 refused") {
		t.Errorf("%s\n%s", report, c.saying())
	}
}

// What comes from each kind of device, by each map, and what the reports say.
func TestIntakeKnowsWhatPeopleHave(t *testing.T) {
	p := newPlant(t)
	things := p.publisher()
	maps := []string{"--map", "tasmota", "--map", "zigbee2mqtt", "--map", "sparkplug", "--map", "plain"}
	payloads := map[string]string{}
	text, err := os.ReadFile("../../internal/sparkplug/testdata/payloads.json")
	if err == nil {
		err = json.Unmarshal(text, &payloads)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw := func(name string) []byte {
		b, err := hex.DecodeString(payloads[name])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	everything := func() {
		p.publish(things, "tele/plug/SENSOR", `{"Time":"2026-03-01T12:00:00Z","ENERGY":{"Power":42}}`)
		p.publish(things, "tele/plug/LWT", "Online")
		p.publish(things, "zigbee2mqtt/lamp", `{"last_seen":"2026-03-01T12:00:00Z","state":"ON"}`)
		p.publish(things, "zigbee2mqtt/bridge/state", `{"state":"online"}`)
		p.publish(things, "sensors/pump/temperature", "21.5")
		p.publish(things, "sensors/pump/broken", `{"secret":7351}`)
		p.publish(things, "spBv1.0/plant/NBIRTH/gw", raw("nbirth"))
	}
	// A look changes nothing: neither hub nor broker.
	look := p.run("looks for", p.from(append(maps, "--dry-run", "--for", "2s", "-o", "json")...)...)
	everything()
	<-look.read
	if err := look.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := &look.told
	var report struct {
		Messages, Readings, Unmapped int
		Declare                      []string
		Devices                      []struct {
			Device  string
			Streams []struct{ Stream, Type, Unit string }
		}
	}
	if err := json.Unmarshal(seen.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	want := []string{"holdfast device add gw --gateway GATEWAY", "holdfast device add lamp --gateway GATEWAY", "holdfast device add plug --gateway GATEWAY", "holdfast device add pump --gateway GATEWAY"}
	if diff := cmp.Diff(want, report.Declare); diff != "" || report.Messages != 6 || report.Unmapped != 1 || report.Readings != 0 || strings.Contains(seen.String(), "7351") {
		t.Errorf("a look (-want +got):\n%s\n%s", diff, seen)
	}
	if d := p.readings("plug/ENERGY/Power"); len(d) != 0 {
		t.Errorf("a dry run has stored %v", d)
	}

	// Devices that nobody declared are listed, or declared on the way.
	c := p.collect(append(maps, "--mqtt-version", "3.1.1")...)
	p.publish(things, "sensors/pump/temperature", "20")
	p.publish(things, "spBv1.0/plant/NDATA/gw", raw("ndata"))
	if told := p.ended(c, "2 messages"); !strings.Contains(told, "holdfast device add pump --gateway") || !strings.Contains(told, "no birth has said") {
		t.Errorf("%s", told)
	}
	c = p.collect(append(maps, "--mqtt-version", "3.1.1", "--declare", "--data", p.file("data"))...)
	everything()
	p.ended(c, "6 messages")
	// The births outlive the process.
	c = p.collect(maps...)
	p.publish(things, "spBv1.0/plant/NDATA/gw", raw("ndata"))
	p.publish(things, "spBv1.0/plant/NDEATH/gw", raw("ndata"))
	if told := p.ended(c, "2 messages"); !strings.Contains(told, "1 metrics of aliases") {
		t.Errorf("%s", told)
	}
	for stream, want := range map[string]map[string]int{
		"plug/ENERGY/Power": {"42": 1}, "plug/online": {"true": 1}, "lamp/state": {"true": 1}, "pump/temperature": {"21.5": 1},
		"gw/Line/Temperature": {"21.5": 1, "22.25": 1}, "gw/Line/Count": {"-5": 1, "-6": 1}, "gw/Recipe": {"dough": 1}, "gw/online": {"true": 1, "false": 1},
	} {
		if diff := cmp.Diff(want, p.readings(stream)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", stream, diff)
		}
	}
	// What can't be stored stays at the broker until the map knows it.
	c = p.collect("--map", "plain", "--unmapped", "hold", "--window", "4")
	for i := range 3 {
		p.publish(things, "sensors/pump/late", fmt.Sprintf(`{"n":%d}`, i))
	}
	<-c.read
	if err := c.Wait(); err == nil || !strings.Contains(c.saying(), "are held at the broker") {
		t.Errorf("%v %s", err, c.saying())
	}
	p.write(p.file("map.json"), `{"rules": [{"topic": "sensors/{device}/{stream}", "payload": "json", "device": "{device}", "stream": "{stream}"}]}`)
	c = p.collect("--map", p.file("map.json"), "--unmapped", "hold")
	p.await("what was held", func() bool { return len(p.readings("pump/late/n")) == 3 })
	c.end(t)
}

// ended waits until an intake has taken so many messages, then ends it.
func (p *plant) ended(c *collector, messages string) string {
	p.t.Helper()
	p.await(messages, func() bool { return strings.Contains(c.saying(), "holdfast: "+messages) })
	told := c.end(p.t)
	if !strings.HasPrefix(told, messages) {
		p.t.Errorf("want %s: %s\n%s", messages, told, c.saying())
	}
	return told
}
