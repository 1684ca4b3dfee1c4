package demo

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The shop believes what the library of Standard Webhooks signs with its secret, and
// nothing else.
func TestShopChecksSignatures(t *testing.T) {
	const secret, other = "whsec_c2VjcmV0LW9mLXRoZS1zaG9wLTAxMjM0NTY3", "whsec_c2VjcmV0LW9mLW90aGVycy0wMTIzNDU2Nzg5"
	const body = `{"type":"alarm.firing","data":{"instances":[{"device_name":"cold-1","value":9.5}]}}`
	message := func(secret, signed, sent string, at time.Time) told {
		lib, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := lib.Sign("msg_1", at, []byte(signed))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		h.Set("webhook-id", "msg_1")
		h.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
		h.Set("webhook-signature", signature)
		return told{h, []byte(sent)}
	}
	now := time.Now()
	n, err := message(secret, body, body, now).read(secret)
	if err != nil || n.Type != "alarm.firing" || len(n.Data.Instances) != 1 || n.Data.Instances[0].Value != 9.5 {
		t.Fatalf("%+v, %v", n, err)
	}
	for what, m := range map[string]told{
		"another secret": message(other, body, body, now),
		"another body":   message(secret, body, body+" ", now),
		"long ago":       message(secret, body, body, now.Add(-time.Hour)),
		"no signature":   {http.Header{}, []byte(body)},
	} {
		if n, err := m.read(secret); err == nil || n.Type != "" {
			t.Errorf("%s: %+v, %v", what, n, err)
		}
	}
}
