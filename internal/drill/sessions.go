package drill

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// person is the folder of the owner's own certificate.
func (d *drill) person(o *owner) string { return filepath.Join(d.dir, "devices", o.kind+"-person") }

// plantSessions has the owner subscribe to his readings and his device to its commands,
// and go away: what comes then waits for both.
func (d *drill) plantSessions(ctx context.Context, c *client.Client, o *owner) error {
	if err := d.certify(ctx, c, o); err != nil {
		return err
	}
	for _, s := range []struct{ identity, client, filter string }{
		{d.person(o), o.hidden("client of the owner"), "feed/" + o.label + "/" + o.words["stream of numbers"]},
		{d.identity(o), o.hidden("client of the device"), "cmd/#"},
	} {
		if d.opts.Omit != nil && d.opts.Omit("SUBSCRIBE", s.filter) {
			continue
		}
		nc, err := d.dial(ctx, s.identity)
		if err != nil {
			return err
		}
		m, err := connect(ctx, nc, &paho.Connect{ClientID: s.client})
		if err == nil {
			_, err = m.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: s.filter, QoS: 1}}})
		}
		if err == nil {
			err = m.Disconnect(&paho.Disconnect{})
		}
		if err := errors.Join(err, closed(nc)); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	return nil
}

// will has the device die, so that its last word waits in the hub's memory.
func (d *drill) will(ctx context.Context, o *owner) error {
	if d.opts.Omit != nil && d.opts.Omit("WILL", o.kind) {
		return nil
	}
	nc, err := d.dial(ctx, d.identity(o))
	if err != nil {
		return err
	}
	hour := uint32(3600)
	_, err = connect(ctx, nc, &paho.Connect{ClientID: "mortal-" + o.kind, WillMessage: &paho.WillMessage{Topic: "data/" + o.words["stream of texts"], QoS: 1, Payload: []byte(o.hidden("will"))},
		WillProperties: &paho.WillProperties{WillDelayInterval: &hour}})
	return errors.Join(err, closed(nc))
}

func closed(nc net.Conn) error {
	if err := nc.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func connect(ctx context.Context, nc net.Conn, c *paho.Connect) (*paho.Client, error) {
	hour := uint32(3600)
	c.KeepAlive, c.Properties = 60, &paho.ConnectProperties{SessionExpiryInterval: &hour}
	m := paho.NewClient(paho.ClientConfig{ClientID: c.ClientID, Conn: packets.NewThreadSafeConn(nc), PacketTimeout: patience})
	_, err := m.Connect(ctx, c)
	return m, err
}

func (d *drill) dial(ctx context.Context, identity string) (net.Conn, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(identity, "cert.pem"), filepath.Join(identity, "key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(d.data(), "admin", "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	to := tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}}
	return to.DialContext(ctx, "tcp", strings.TrimPrefix(d.hub.at.MQTT, "mqtts://"))
}

// certify gives the owner a certificate of his own.
func (d *drill) certify(ctx context.Context, c *client.Client, o *owner) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	var made struct{ Certificate string }
	err = c.Do(ctx, http.MethodPost, "/v1/tokens", map[string]any{"label": o.word("label of a certificate"), "role": "owner", "csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}, &made)
	if err != nil {
		return err
	}
	if err := os.Mkdir(d.person(o), 0o700); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(d.person(o), "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
		os.WriteFile(filepath.Join(d.person(o), "cert.pem"), []byte(made.Certificate), 0o600))
}

// gauge reads a metric of the hub.
func (d *drill) gauge(ctx context.Context, name string) (float64, error) {
	body, _, err := d.hub.admin.Stream(ctx, http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	for lines := bufio.NewScanner(body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, holdfast.Errorf(holdfast.Internal, "the hub has no metric %s", name)
}

// remembered plants what is in the hub's memory alone, and waits until it is there.
func (d *drill) remembered(ctx context.Context) error {
	for _, o := range []*owner{d.canary, d.control} {
		if err := d.will(ctx, o); err != nil {
			return err
		}
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		wills, err := d.gauge(ctx, "holdfast_mqtt_wills_waiting")
		if err != nil || wills == 2 {
			return err
		}
		if time.Now().After(end) {
			return holdfast.Errorf(holdfast.Internal, "%g wills wait, not 2", wills)
		}
	}
}
