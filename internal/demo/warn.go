package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// receiver is the shop's server, which is told of alarms by webhook.
type receiver struct {
	address string
	roots   *x509.CertPool
	server  *http.Server
	ended   chan error
	told    chan told
}

// told is a message as it came.
type told struct {
	header http.Header
	body   []byte
}

// newReceiver listens on loopback, with a certificate that only roots vouch for.
func newReceiver() (*receiver, error) {
	cert, err := ownCertificate()
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	r := &receiver{address: "https://" + l.Addr().String() + "/alarms", roots: x509.NewCertPool(), ended: make(chan error, 1), told: make(chan told, 64)}
	r.roots.AddCert(cert.Leaf)
	r.server = &http.Server{Handler: r, ReadTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { r.ended <- r.server.Serve(l) }()
	return r, nil
}

// ownCertificate is signed by itself, for a day.
func ownCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// ServeHTTP takes a message. What does not fit is refused: it would be sent again.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, 1<<20))
	if err != nil {
		return
	}
	select {
	case r.told <- told{q.Header, body}:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (r *receiver) stop() {
	if r != nil {
		r.server.Close()
		<-r.ended
	}
}

// notice is what the shop looks at in a message.
type notice struct {
	Type string
	Data struct {
		Instances []struct {
			Name  string `json:"device_name"`
			Value float64
			Since time.Time
		}
	}
}

// read checks a message's signature before it looks at what it says, as Standard
// Webhooks has it.
func (m told) read(secret string) (n notice, err error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return n, fmt.Errorf("read secret: %w", err)
	}
	sum := hmac.New(sha256.New, key)
	fmt.Fprintf(sum, "%s.%s.%s", m.header.Get("webhook-id"), m.header.Get("webhook-timestamp"), m.body)
	want := "v1," + base64.StdEncoding.EncodeToString(sum.Sum(nil))
	signed := slices.ContainsFunc(strings.Fields(m.header.Get("webhook-signature")), func(s string) bool { return hmac.Equal([]byte(s), []byte(want)) })
	sent, err := strconv.ParseInt(m.header.Get("webhook-timestamp"), 10, 64)
	if !signed || err != nil || time.Since(time.Unix(sent, 0)).Abs() > 5*time.Minute {
		return n, holdfast.Errorf(holdfast.Internal, "a message is not signed by this hub, now")
	}
	return n, json.Unmarshal(m.body, &n)
}

// toldWithin is how long a message may take to come.
const toldWithin = 15 * time.Second

// next waits for the next message, which is to be of one kind and about cold-1.
func (t *teller) next(ctx context.Context, kind string) (n notice, err error) {
	late := time.NewTimer(toldWithin)
	defer late.Stop()
	select {
	case m := <-t.hub.receiver.told:
		n, err = m.read(t.secret)
	case <-late.C:
		err = holdfast.Errorf(holdfast.Internal, "no %s came", kind)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && (n.Type != kind || len(n.Data.Instances) != 1 || n.Data.Instances[0].Name != "cold-1") {
		err = holdfast.Errorf(holdfast.Internal, "a %q came, and not one %s of cold-1", n.Type, kind)
	}
	return n, err
}

// shopIsWarned has the shop's alarm look at what its cold room sent.
func (t *teller) shopIsWarned(ctx context.Context) (string, error) {
	shopkeeper, err := t.hub.invite(ctx, t.hub.people[shop])
	if err != nil {
		return "", err
	}
	defer shopkeeper.Close()
	var webhook struct{ Secret string }
	if err := shopkeeper.Do(ctx, http.MethodPost, "/v1/webhooks", map[string]string{"name": "shop", "url": t.hub.receiver.address}, &webhook); err != nil {
		return "", fmt.Errorf("add webhook: %w", err)
	}
	t.secret = webhook.Secret
	begun := time.Now()
	alarm := map[string]any{
		"name": "too-warm", "kind": "threshold", "severity": "critical", "device": "cold-1", "stream": "temperature",
		"op": "above", "level": 8, "clear": 6, "for": "2m", "every": "1s", "webhooks": []string{"shop"},
	}
	if err := shopkeeper.Do(ctx, http.MethodPost, "/v1/alarms", alarm, nil); err != nil {
		return "", fmt.Errorf("add alarm: %w", err)
	}
	n, err := t.next(ctx, "alarm.firing")
	if err != nil {
		return "", err
	}
	i := n.Data.Instances[0]
	if i.Value <= 8 {
		return "", holdfast.Errorf(holdfast.Internal, "the alarm fires at %v", i.Value)
	}
	return fmt.Sprintf("above 8 °C for two minutes, now %.1f °C: a signed webhook says so, %d ms after the alarm was made", i.Value, time.Since(begun).Milliseconds()), nil
}

// roomIsCold sends what the sensor says after somebody has shut the door.
func (t *teller) roomIsCold(ctx context.Context) (string, error) {
	begun := time.Now()
	if err := t.hub.say(ctx, "cold-1", "data/temperature", "5.5"); err != nil {
		return "", err
	}
	if _, err := t.next(ctx, "alarm.resolved"); err != nil {
		return "", err
	}
	return fmt.Sprintf("5.5 °C is under the 6 at which the alarm ends: a second webhook says so after %d ms", time.Since(begun).Milliseconds()), nil
}

// makerIsRefused has the maker ask for what belongs to the firms.
func (t *teller) makerIsRefused(ctx context.Context) (string, error) {
	for _, what := range [][2]string{{"van-1", "location"}, {"cold-1", "temperature"}} {
		if _, err := denied(count(ctx, t.hub.admin, url.Values{"device": {t.hub.devices[what[0]]}, "stream": {what[1]}})); err != nil {
			return "", fmt.Errorf("%s of %s: %w", what[1], what[0], err)
		}
	}
	return "refused both: the couriers granted speed alone, the shop nothing", nil
}
