package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

const codeText = "hf1:hub.example:8444/aeaqcaibaeaqcaibaeaqcaibae/" + "aibaeaqcaibaeaqcaibaeaqcai" + "/0303030303030303030303030303030303030303030303030303030303030303"

func FuzzParseCode(f *testing.F) {
	f.Add(codeText)
	f.Add("hf1:[::1]:1/a/b/c")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			if c != (Code{}) || holdfast.KindOf(err) != holdfast.Invalid || len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Fatalf("%q, %v", text, err)
			}
			return
		}
		if _, _, err := net.SplitHostPort(c.Address); err != nil || c.Device.IsZero() {
			t.Fatal(err)
		}
		for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %q", c, c, &c)} {
			if strings.Contains(shown, c.Secret) {
				t.Error("printed, a code shows its secret")
			}
		}
		if b, err := json.Marshal(c); err != nil || strings.Contains(string(b), c.Secret) {
			t.Error("as JSON, a code shows its secret")
		}
	})
}

func TestParseCode(t *testing.T) {
	id := holdfast.DeviceID{1, 2, 3}
	secret := secretText.EncodeToString(make([]byte, 16))
	pin := strings.Repeat("0a", 32)
	good := "hf1:hub.example:8444/" + id.String() + "/" + secret + "/" + pin
	c, err := ParseCode(good)
	if err != nil || c.Address != "hub.example:8444" || c.Device != id || c.Secret != secret || c.CA[0] != 10 {
		t.Fatalf("%v", err)
	}
	for _, bad := range []string{"", good + "/", good + "0", strings.ToUpper(good), strings.Replace(good, ":8444", "", 1), strings.Replace(good, "8444", "08444", 1),
		strings.Replace(good, "8444", "0", 1), strings.Replace(good, "8444", "65536", 1), strings.Replace(good, "hub.example", "a b", 1),
		strings.Replace(good, "hub.example", "user@hub", 1), strings.Replace(good, secret, secret[1:], 1), strings.Replace(good, pin, strings.ToUpper(pin), 1)} {
		if _, err := ParseCode(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if c, err := NewCode("https://hub.example", id.String(), secret, pin); err != nil || c.Address != "hub.example:8444" {
		t.Errorf("the usual port: %v", err)
	}
}

// A degenerate SignedData of one certificate, made by openssl crl2pkcs7 -nocrl.
const opensslPKCS7 = `
MIIBogYJKoZIhvcNAQcCoIIBkzCCAY8CAQExADALBgkqhkiG9w0BBwGgggF3MIIBczCCARmgAwIBAgIUDRsMFohAXvQWwGCmWNwWYo5cfEwwCgYIKoZIzj0EAwIwDzENMA
sGA1UEAwwEdGVzdDAeFw0yNjExMjIxNDA4NDVaFw0zNjExMTkxNDA4NDVaMA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATKJRzONysOSRKU
TwmHOJ8Hu87cFZKD0WW/jluz2HeLVLeV6jHCOukYdM3/1ky50dhPANjB9DNaXBwqFV5GJsTKo1MwUTAdBgNVHQ4EFgQU6u17iEHJMt/xTUQHRrCeH96+k7YwHwYDVR0jBB
gwFoAU6u17iEHJMt/xTUQHRrCeH96+k7YwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA26y9hi7ddw51fWuU8vHyU+l0oS6zjpKOiTKk9bASDCICICaV
rR9nrlf+cJVIMEAGxB++5rkmLERP8mEzIrhGd63hMQA=
`

func TestParseCertsOnly(t *testing.T) {
	certs, err := parseCertsOnly([]byte(opensslPKCS7))
	if err != nil || len(certs) != 1 || certs[0].Subject.CommonName != "test" {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
}

func FuzzParseCertsOnly(f *testing.F) {
	f.Add([]byte(opensslPKCS7))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte{0x30, 0x80, 0x06, 0x09, 0, 0})))
	f.Add([]byte("MAA="))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := parseCertsOnly(text)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}

// What is sent is JSON whatever it holds.
func FuzzAppendSample(f *testing.F) {
	f.Add("temperature", "Cel", int64(1), uint64(2), uint64(3), "text")
	f.Add("a", "\xff", int64(math.MinInt64), uint64(0), math.Float64bits(math.NaN()), "\x00\u2028")
	f.Fuzz(func(t *testing.T, stream, unit string, at int64, seq, bits uint64, text string) {
		for _, v := range []holdfast.Value{holdfast.NumberValue(math.Float64frombits(bits)), holdfast.IntegerValue(int64(bits)), holdfast.BooleanValue(bits&1 == 1),
			holdfast.TextValue(text), holdfast.BytesValue([]byte(text)), holdfast.LocationValue(holdfast.Position{Latitude: math.Float64frombits(bits)}), {}} {
			for _, timed := range []bool{false, true} {
				b, err := appendSample(nil, holdfast.Sample{Stream: stream, Unit: unit, Time: at, Timed: timed, Seq: seq, Value: v})
				if err == nil && !json.Valid(b) {
					t.Errorf("not JSON: %s", b)
				}
			}
		}
	})
}
