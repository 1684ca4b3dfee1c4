package identity

import (
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need finds outside programs, or ends the test aloud: as a failure, unless
// HOLDFAST_NO_TOOLS=1 says that they are left out on purpose.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
			t.Skipf("%s is not installed and HOLDFAST_NO_TOOLS=1", p)
		}
		t.Fatalf("%s is not installed: install it, or set HOLDFAST_NO_TOOLS=1 to leave this test out", p)
	}
}

// shell runs a script in dir and returns what it printed.
func shell(t *testing.T, dir, script string, env ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A device that is a shell script: it trusts nothing but the pin in its code,
// enrols, sends, renews with a new key, and is refused with the old one. The
// scripts are those of docs/format/enrolment.md.
func TestCurlAndOpenSSLAreADevice(t *testing.T) {
	need(t, "bash", "curl", "openssl")
	h := build(t)
	mux := http.NewServeMux()
	mux.Handle("/.well-known/est/", h.EST())
	mux.HandleFunc("POST /v1/data", func(w http.ResponseWriter, r *http.Request) {
		p, err := h.Peer(r.Context(), *r.TLS)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		w.Write([]byte(p.Device.String()))
	})
	for name, least := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
		t.Run(name, func(t *testing.T) {
			d := h.device()
			hub := listen(t, h.DeviceTLS(least), mux)
			curl := "curl"
			if least == tls.VersionTLS12 {
				curl = "curl --tls-max 1.2"
			}
			env := []string{"HUB=https://" + hub, "EST=https://" + hub + "/.well-known/est", "DEVICE=" + d.id.String(),
				"SECRET=" + d.code.SecretText(), "PIN=" + strings.SplitN(d.code.Text(), "/", 4)[3], "CURL=" + curl}
			dir := t.TempDir()
			shell(t, dir, `
				$CURL -fsSk $EST/cacerts | openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out ca.pem
				openssl x509 -in ca.pem -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r | grep -q "^$PIN "
				openssl ecparam -name prime256v1 -genkey -noout -out key.pem
				openssl req -new -key key.pem -subj "/CN=$DEVICE" -outform DER | openssl base64 > request
				$CURL -fsS --cacert ca.pem -u $DEVICE:$SECRET -H 'Content-Type: application/pkcs10' --data-binary @request $EST/simpleenroll |
					openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out cert.pem
				openssl verify -CAfile ca.pem -purpose sslclient cert.pem`, env...)
			if got := shell(t, dir, `$CURL -fsS --cacert ca.pem --cert cert.pem --key key.pem -X POST $HUB/v1/data`, env...); got != d.id.String() {
				t.Errorf("the hub met %q", got)
			}
			shell(t, dir, `
				openssl genpkey -algorithm ED25519 -out next-key.pem
				openssl req -new -key next-key.pem -subj "/CN=$DEVICE" -outform DER | openssl base64 > request
				$CURL -fsS --cacert ca.pem --cert cert.pem --key key.pem --data-binary @request $EST/simplereenroll |
					openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out next-cert.pem
				$CURL -fsS --cacert ca.pem --cert next-cert.pem --key next-key.pem -X POST $HUB/v1/data`, env...)
			if got := shell(t, dir, `$CURL -sS --cacert ca.pem --cert cert.pem --key key.pem -X POST $HUB/v1/data 2>&1 || echo cut`, env...); !strings.HasSuffix(got, "cut") {
				t.Errorf("the superseded certificate: %s", got)
			}
			if got := shell(t, dir, `$CURL -sS -o /dev/null -w '%{http_code}' --cacert ca.pem -u $DEVICE:$SECRET --data-binary @request $EST/simpleenroll`, env...); got != "401" {
				t.Errorf("the used code: %s", got)
			}
		})
	}
	// What openssl writes without conversion is taken too.
	hub := listen(t, h.DeviceTLS(tls.VersionTLS13), mux)
	for _, form := range []string{"PEM", "DER"} {
		d := h.device()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), h.CAPEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		shell(t, dir, `
			openssl req -new -newkey rsa:2048 -nodes -keyout key.pem -subj /CN=x -outform $FORM -out request 2>/dev/null
			curl -fsS --cacert ca.pem -u $DEVICE:$SECRET --data-binary @request https://$HUB/.well-known/est/simpleenroll | openssl base64 -d | openssl pkcs7 -inform DER -noout`,
			"FORM="+form, "DEVICE="+d.id.String(), "SECRET="+d.code.SecretText(), "HUB="+hub)
	}
}
