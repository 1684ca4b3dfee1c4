package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// shell runs a script in dir and returns what it printed.
func shell(t *testing.T, dir, script string, env ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// eventually reads a stream until it holds n readings: QoS 0 carries no promise,
// so only waiting tells.
func (h *house) eventually(who access.Principal, p identity.Peer, stream string, n int) []holdfast.Reading {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := h.read(who, p, stream)
		if err == nil && len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("stream %s has %d of %d readings: %v", stream, len(got), n, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// mosquitto_pub in both versions and all three qualities of service: what it sends
// is read back bit for bit.
func TestMosquittoIsADevice(t *testing.T) {
	need(t, "bash", "mosquitto_pub")
	h := newHouse(t)
	anna := h.person("Anna")
	d := h.enrolled(anna.Party, "watch")
	at, _ := h.serve()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(at.MQTT, "mqtts://"))
	dir := d.files(t)
	pub := `mosquitto_pub -h localhost -p ` + port + ` --cafile ca.pem --cert cert.pem --key key.pem `
	values := []string{"21.5", "-0.1", "1e-7", "123456789.25", "0", "3"}
	n := 0
	for _, version := range []string{"311", "5"} {
		for qos := range 3 {
			script := fmt.Sprintf(`%s -V %s -q %d -t data/room/temperature -m '{"t":%d.%09d,"v":%s}'`, pub, version, qos, 1700000000+n, n, values[n])
			if out, err := shell(t, dir, script); err != nil {
				t.Fatalf("%s: %v %s", script, err, out)
			}
			n++
			got := h.eventually(anna, d.Peer, "room/temperature", n)
			var want float64
			fmt.Sscan(values[n-1], &want)
			if r := got[n-1]; r.Time != int64(1700000000+n-1)*1e9+int64(n-1) || r.Value != holdfast.NumberValue(want) {
				t.Errorf("version %s, QoS %d: %d %v, want %v", version, qos, r.Time, r.Value.Number(), want)
			}
		}
	}
	// A pack in a file, a text, and many lines with QoS 2.
	pack := `[{"bn":"","bt":1700000000,"n":"lat","u":"lat","v":52.520008},{"n":"on","vb":true},{"n":"word","vs":"Gr\u00f6\u00dfe"},{"n":"raw","vd":"AAH_"}]`
	if err := os.WriteFile(filepath.Join(dir, "pack.json"), []byte(pack), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := shell(t, dir, pub+`-V 5 -q 1 -t data -f pack.json && `+pub+`-V 311 -q 1 -t data/note -m 'not JSON at all' && seq 0 999 | `+pub+`-V 311 -q 2 -t data/lines -l`)
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for stream, want := range map[string]holdfast.Value{"lat": holdfast.NumberValue(52.520008), "on": holdfast.BooleanValue(true),
		"word": holdfast.TextValue("Größe"), "raw": holdfast.BytesValue([]byte{0, 1, 0xff}), "note": holdfast.TextValue("not JSON at all")} {
		got, err := h.read(anna, d.Peer, stream)
		if err != nil || len(got) != 1 || got[0].Value != want {
			t.Errorf("%s: %v %v", stream, got, err)
		}
	}
	got := h.eventually(anna, d.Peer, "lines", 1000)
	for i, r := range got {
		if r.Value.Number() != float64(i) {
			t.Fatalf("line %d is %v", i, r.Value.Number())
		}
	}
	if len(got) != 1000 {
		t.Errorf("%d lines", len(got))
	}
}

// Whoever is not a device of this hub does not get in, and a device does not talk
// to what is not its hub.
func TestMosquittoIsTurnedAway(t *testing.T) {
	need(t, "bash", "mosquitto_pub", "openssl")
	h, other := newHouse(t), newHouse(t)
	anna, ben := h.person("Anna"), other.person("Ben")
	d, revoked, foreign := h.enrolled(anna.Party, "watch"), h.enrolled(anna.Party, "stolen"), other.enrolled(ben.Party, "watch")
	if err := h.identity.Revoke(t.Context(), revoked.Device, "stolen"); err != nil {
		t.Fatal(err)
	}
	at, _ := h.serve()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(at.MQTT, "mqtts://"))
	ours, theirs, taken := d.files(t), foreign.files(t), revoked.files(t)
	self := t.TempDir()
	if out, err := shell(t, self, `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -subj /CN=$ID -addext "subjectAltName=URI:urn:holdfast:device:$ID" 2>&1`,
		"ID="+d.Device.String()); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for name, tls := range map[string]string{
		"a wrong CA":                                   "--cafile " + theirs + "/ca.pem --cert " + ours + "/cert.pem --key " + ours + "/key.pem",
		"no certificate":                               "--cafile " + ours + "/ca.pem",
		"another hub's certificate":                    "--cafile " + ours + "/ca.pem --cert " + theirs + "/cert.pem --key " + theirs + "/key.pem",
		"a revoked certificate":                        "--cafile " + ours + "/ca.pem --cert " + taken + "/cert.pem --key " + taken + "/key.pem",
		"a certificate of its own making":              "--cafile " + ours + "/ca.pem --cert " + self + "/cert.pem --key " + self + "/key.pem",
		"its own certificate, by a name not the hub's": "-h 127.0.0.2 --cafile " + ours + "/ca.pem --cert " + ours + "/cert.pem --key " + ours + "/key.pem",
	} {
		for _, version := range []string{"311", "5"} {
			out, err := shell(t, ours, "timeout 20 mosquitto_pub -h localhost -p "+port+" "+tls+" -V "+version+" -q 1 -t data/x -m 1")
			if err == nil {
				t.Errorf("with %s, version %s: sent. %s", name, version, out)
			} else if e, ok := err.(*exec.ExitError); ok && e.ExitCode() == 124 {
				t.Errorf("with %s, version %s: left waiting", name, version)
			}
		}
	}
	if out, err := shell(t, ours, "mosquitto_pub -h localhost -p "+port+" --cafile ca.pem --cert cert.pem --key key.pem -q 1 -t data/x -m 1"); err != nil {
		t.Errorf("the device itself: %v %s", err, out)
	}
	got, err := h.read(anna, d.Peer, "x")
	if err != nil || len(got) != 1 {
		t.Errorf("%d readings: %v", len(got), err)
	}
}

// A revocation ends live connections within a second, MQTT and HTTPS, idle or busy. A
// machine that has other work gets ten, which is far from any other end of theirs.
func TestRevocationCutsLiveConnections(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	d, stays := h.enrolled(anna.Party, "watch"), h.enrolled(anna.Party, "stays")
	at, _ := h.serve()
	gone := make(chan time.Time, 64)
	note := paho.ClientConfig{OnServerDisconnect: func(*paho.Disconnect) { gone <- time.Now() }, OnClientError: func(error) { gone <- time.Now() }}
	for _, id := range []string{"idle", "busy"} {
		c, _, err := d.dialMQTT(t.Context(), at, &paho.Connect{ClientID: id, KeepAlive: 60, CleanStart: true}, note)
		if err != nil {
			t.Fatal(err)
		}
		if id == "busy" {
			go func() {
				for i := 0; ; i++ {
					if _, err := c.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/n", Payload: fmt.Append(nil, i)}); err != nil {
						return
					}
				}
			}()
		}
	}
	web, other := d.http(t), stays.mqtt(t, at)
	if status, _, text, err := post(web, at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"n","v":1}]`)); err != nil || status != 204 {
		t.Fatalf("%d %s %v", status, text, err)
	}
	// A connection that is in the middle of a request.
	nc, err := tls.Dial("tcp", strings.TrimPrefix(at.Device, "https://"), d.tls())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "POST /v1/data HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/senml+json\r\nContent-Length: 1000\r\n\r\n[{\"n\":")
	halfCut := make(chan time.Time, 1)
	go func() { io.Copy(io.Discard, nc); halfCut <- time.Now() }()
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	if err := h.identity.Revoke(t.Context(), d.Device, "stolen"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case when := <-gone:
			if when.Before(began) {
				t.Error("cut before the revocation")
			}
		case <-time.After(time.Until(began.Add(10 * time.Second))):
			t.Error("an MQTT connection lives on after the revocation")
		}
	}
	select {
	case <-halfCut:
	case <-time.After(time.Until(began.Add(10 * time.Second))):
		t.Error("a request under way lives on after the revocation")
	}
	t.Logf("all cut after %s", time.Since(began).Round(time.Millisecond))
	before, err := h.read(anna, d.Peer, "n")
	if err != nil {
		t.Fatal(err)
	}
	if status, _, text, err := post(web, at.Device+"/v1/data", "application/senml+json", strings.NewReader(`[{"n":"n","v":2}]`)); err == nil {
		t.Errorf("HTTPS after the revocation: %d %s", status, text)
	}
	if _, _, err := d.dialMQTT(t.Context(), at, &paho.Connect{ClientID: "again", KeepAlive: 60, CleanStart: true}, paho.ClientConfig{}); err == nil {
		t.Error("MQTT after the revocation")
	}
	if after, err := h.read(anna, d.Peer, "n"); err != nil || len(after) != len(before) {
		t.Errorf("%d readings at the revocation, %d later: %v", len(before), len(after), err)
	}
	if _, err := other.Publish(t.Context(), &paho.Publish{QoS: 1, Topic: "data/n", Payload: []byte("1")}); err != nil {
		t.Errorf("another device of the owner: %v", err)
	}
}

// A device that is a shell script: it trusts nothing but the pin in its code,
// enrols, sends in three formats, renews, and its code works once.
func TestCurlIsADevice(t *testing.T) {
	need(t, "bash", "curl", "openssl")
	h := newHouse(t)
	anna := h.person("Anna")
	p := h.device(anna.Party, "plant")
	at, _ := h.serve()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(at.Device, "https://"))
	code, _, err := h.identity.MakeCode(t.Context(), p.Device, p.Assignment, identity.CodeOptions{Address: "localhost:" + port})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env := []string{"CODE=" + code.Text()}
	out, err := shell(t, dir, `
		IFS=/ read -r ADDRESS DEVICE SECRET PIN <<< "${CODE#hf1:}"
		EST=https://$ADDRESS/.well-known/est
		curl -fsSk $EST/cacerts | openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out ca.pem
		openssl x509 -in ca.pem -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r | grep -q "^$PIN "
		openssl ecparam -name prime256v1 -genkey -noout -out key.pem
		openssl req -new -key key.pem -subj "/CN=$DEVICE" -outform DER | openssl base64 > request
		curl -fsS --cacert ca.pem -u $DEVICE:$SECRET -H 'Content-Type: application/pkcs10' --data-binary @request $EST/simpleenroll |
			openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out cert.pem
		CURL="curl -sS -o answer -w %{http_code} --cacert ca.pem --cert cert.pem --key key.pem"
		[ $($CURL -H 'Content-Type: application/senml+json' -d '[{"bt":1700000000,"n":"moisture","u":"%RH","v":41.25},{"n":"moisture","t":1.5,"v":41.125}]' https://$ADDRESS/v1/data) = 204 ]
		[ $($CURL --data-binary $'soil moisture=12.5,wet=true,n=7i 1700000000000000001\nsoil moisture=12.25 1700000000000000002' https://$ADDRESS/write) = 204 ]
		[ $($CURL --data-binary 'soil moisture=12.125 1700000003' "https://$ADDRESS/api/v2/write?precision=s&org=x&bucket=y") = 204 ]
		printf '\x81\xa3\x00\x61\x63\x06\x00\x02\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00' > pack.cbor
		[ $($CURL -H 'Content-Type: application/senml+cbor' --data-binary @pack.cbor https://$ADDRESS/v1/data) = 204 ]
		openssl genpkey -algorithm ED25519 -out next-key.pem
		openssl req -new -key next-key.pem -subj "/CN=$DEVICE" -outform DER | openssl base64 > request
		curl -fsS --cacert ca.pem --cert cert.pem --key key.pem --data-binary @request $EST/simplereenroll |
			openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out next-cert.pem
		NEXT="curl -sS -o answer -w %{http_code} --cacert ca.pem --cert next-cert.pem --key next-key.pem"
		[ $($NEXT -d '[{"n":"renewed","v":1}]' https://$ADDRESS/v1/data) = 204 ]
		if $CURL -d '[{"n":"renewed","v":2}]' https://$ADDRESS/v1/data; then echo the old certificate works; exit 1; fi
		[ $(curl -sS -o answer -w '%{http_code}' --cacert ca.pem -u $DEVICE:$SECRET --data-binary @request $EST/simpleenroll) = 401 ]
		[ $(curl -sS -o answer -w '%{http_code}' --cacert ca.pem -d '[{"n":"x","v":1}]' https://$ADDRESS/v1/data) = 401 ]
		if curl -sS https://$ADDRESS/v1/data -d x; then echo the hub is trusted by chance; exit 1; fi
	`, env...)
	if err != nil {
		answer, _ := os.ReadFile(filepath.Join(dir, "answer"))
		t.Fatalf("%v\n%s\nlast answer: %s", err, out, answer)
	}
	for stream, want := range map[string][]holdfast.Reading{
		"moisture":      {{Time: 1700000000e9, Value: holdfast.NumberValue(41.25)}, {Time: 17000000015e8, Value: holdfast.NumberValue(41.125)}},
		"soil_moisture": {{Time: 1700000000e9 + 1, Value: holdfast.NumberValue(12.5)}, {Time: 1700000000e9 + 2, Value: holdfast.NumberValue(12.25)}, {Time: 1700000003e9, Value: holdfast.NumberValue(12.125)}},
		"soil_wet":      {{Time: 1700000000e9 + 1, Value: holdfast.BooleanValue(true)}},
		"soil_n":        {{Time: 1700000000e9 + 1, Value: holdfast.IntegerValue(7)}},
	} {
		got, err := h.read(anna, p, stream)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %v %v", stream, got, err)
		}
		for i := range got {
			if got[i].Time != want[i].Time || got[i].Value != want[i].Value {
				t.Errorf("%s: reading %d is %v, want %v", stream, i, got[i], want[i])
			}
		}
	}
	if got, err := h.read(anna, p, "c"); err != nil || len(got) != 1 || got[0].Value.Number() != 1.5 {
		t.Errorf("CBOR: %v %v", got, err)
	}
	if got, err := h.read(anna, p, "renewed"); err != nil || len(got) != 1 {
		t.Errorf("after the renewal: %v %v", got, err)
	}
}

// The listeners speak TLS 1.3 with a post-quantum key exchange first, and nothing
// in clear.
func TestListenersSpeakOnlyTLS(t *testing.T) {
	h := newHouse(t)
	d := h.enrolled(h.person("Anna").Party, "watch")
	at, _ := h.serve()
	for _, address := range []string{strings.TrimPrefix(at.MQTT, "mqtts://"), strings.TrimPrefix(at.Device, "https://")} {
		nc, err := tls.Dial("tcp", address, d.tls())
		if err != nil {
			t.Fatal(err)
		}
		if cs := nc.ConnectionState(); cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 {
			t.Errorf("%s: TLS %x, key exchange %s", address, cs.Version, cs.CurveID)
		}
		nc.Close()
		old := d.tls()
		old.MaxVersion = tls.VersionTLS12
		if nc, err := tls.Dial("tcp", address, old); err == nil {
			nc.Close()
			t.Errorf("%s speaks TLS 1.2", address)
		}
	}
	if r, err := http.Get("http://" + strings.TrimPrefix(at.Device, "https://") + "/v1/data"); err == nil {
		if r.Body.Close(); r.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: %s", r.Status)
		}
	}
}
