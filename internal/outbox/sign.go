package outbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks 1.0.
const (
	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"
)

// sign returns the signature header: HMAC-SHA256 over id, time and body, one for
// each secret that is in force.
func sign(id string, at time.Time, body []byte, secrets ...[]byte) (timestamp, signatures string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	var all []string
	for _, s := range secrets {
		h := hmac.New(sha256.New, s)
		h.Write([]byte(id + "." + timestamp + "."))
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return timestamp, strings.Join(all, " ")
}
