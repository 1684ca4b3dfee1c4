package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/server"
)

// RunOptions shape a run of the demo.
type RunOptions struct {
	Out  io.Writer
	For  time.Duration // how long the devices send; 0: as fast as they can, then the story
	Seed uint64
}

// fleetLength is the virtual time that the devices live through.
const fleetLength = 20 * time.Minute

// Run makes a whole hub in a temporary folder, joins simulated devices to it over
// mutual TLS, lets them send, and tells the story of a reading's life: who may
// read it, who may not, how it is taken along, how it is erased. Everything is
// gone when it returns. An error means that a promise was not kept.
func Run(ctx context.Context, o RunOptions) error {
	h, err := start(ctx, o.Out)
	if err != nil {
		return err
	}
	defer h.stop()
	plan := Fleet(o.Seed, time.Now().Add(-fleetLength), fleetLength)
	if o.For > 0 {
		plan.Speed = float64(fleetLength) / float64(o.For)
	}
	if err := h.join(ctx, plan.Devices); err != nil {
		return fmt.Errorf("join devices: %w", err)
	}
	h.rush = o.For <= 0
	t := teller{hub: h}
	defer t.close()
	if err := t.share(ctx, plan.Start); err != nil {
		return fmt.Errorf("share: %w", err)
	}
	if err := h.play(ctx, plan, o.For > 0); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return t.tell(ctx)
}

// operator is the operating organisation. It has made all the devices.
const operator = "Acme Devices"

// hub is the demo's hub with what its people hold.
type hub struct {
	out     io.Writer
	dir     string // temporary; data/, root.key, devices/, export/
	at      server.Addresses
	admin   *client.Client
	cancel  context.CancelFunc
	stopped chan error
	rush    bool // the devices send as fast as they can

	receiver   *receiver
	identities map[string]string // device name → folder
	people     map[string]string // and firms: name → party id
	devices    map[string]string // name → device id
}

func start(ctx context.Context, out io.Writer) (_ *hub, err error) {
	dir, err := os.MkdirTemp("", "holdfast-demo-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	h := &hub{out: out, dir: dir, stopped: make(chan error, 1), identities: map[string]string{}, people: map[string]string{}, devices: map[string]string{}}
	defer func() {
		if err != nil {
			h.receiver.stop()
			os.RemoveAll(dir)
		}
	}()
	if h.receiver, err = newReceiver(); err != nil {
		return nil, fmt.Errorf("start receiver of webhooks: %w", err)
	}
	data := filepath.Join(dir, "data")
	if _, err := server.Init(ctx, data, server.InitOptions{
		Organisation: operator, Hosts: []string{"localhost", "127.0.0.1"}, RootKey: filepath.Join(dir, "root.key"),
	}); err != nil {
		return nil, err
	}
	s, err := server.Open(ctx, server.Config{
		Data: data, ListenAPI: "127.0.0.1:0", ListenDevice: "127.0.0.1:0", ListenMQTT: "127.0.0.1:0",
		WebhookAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, WebhookRoots: h.receiver.roots,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	ready := make(chan struct{})
	go func() { h.stopped <- s.Run(running, func(at server.Addresses) { h.at = at; close(ready) }) }()
	select {
	case <-ready:
	case err := <-h.stopped:
		cancel()
		return nil, err
	}
	h.admin, err = client.New(client.Options{Hub: h.at.API, Identity: filepath.Join(data, "admin")})
	if err != nil {
		cancel()
		<-h.stopped
		return nil, err
	}
	fmt.Fprintf(out, "A hub runs in %s\n  people and programs  %s\n  devices              %s and %s\n\n", dir, h.at.API, h.at.MQTT, h.at.Device)
	return h, nil
}

func (h *hub) stop() {
	if h.admin != nil {
		h.admin.Close()
	}
	h.cancel()
	<-h.stopped
	h.receiver.stop()
	os.RemoveAll(h.dir)
}

// invite gives a party a credential of its own, and returns who asks with it.
func (h *hub) invite(ctx context.Context, party string) (*client.Client, error) {
	var invited struct{ Code string }
	if err := h.admin.Do(ctx, http.MethodPost, "/v1/parties/"+party+"/invitations", nil, &invited); err != nil {
		return nil, err
	}
	token, err := h.redeem(ctx, invited.Code)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Hub: h.at.API, Token: token})
}

// redeem turns an invitation into a token, as its holder would with a browser.
func (h *hub) redeem(ctx context.Context, code string) (string, error) {
	ca, err := os.ReadFile(filepath.Join(h.identities["band-ada"], "ca.pem"))
	if err != nil {
		return "", err
	}
	guest, err := client.New(client.Options{Hub: h.at.API, CA: ca})
	if err != nil {
		return "", err
	}
	defer guest.Close()
	var made struct{ Token string }
	err = guest.Do(ctx, http.MethodPost, "/v1/invitations/redeem", map[string]string{"code": code}, &made)
	return made.Token, err
}

// join adds owners, profiles and devices, and enrols each device as it would
// itself: with its code, a key made here, and trust in the pinned authority only.
func (h *hub) join(ctx context.Context, devices []Device) error {
	profiles, firms := map[string]bool{}, 0
	for _, d := range devices {
		if !profiles[d.Profile] {
			profiles[d.Profile] = true
			if err := h.admin.Do(ctx, http.MethodPost, "/v1/profiles", profileOf(d), nil); err != nil {
				return fmt.Errorf("add profile %s: %w", d.Profile, err)
			}
		}
		if d.Owner != "" && h.people[d.Owner] == "" {
			var p struct{ ID string }
			kind := "person"
			if d.Firm {
				kind = "organisation"
				firms++
			}
			if err := h.admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": d.Owner, "kind": kind}, &p); err != nil {
				return fmt.Errorf("add party: %w", err)
			}
			h.people[d.Owner] = p.ID
		}
		spec := map[string]string{"label": d.Name, "profile": d.Profile}
		if d.Owner != "" {
			spec["owner"] = d.Owner
		}
		var added struct {
			Device        struct{ ID string } `json:"device"`
			EnrolmentCode string              `json:"enrolment_code"`
		}
		if err := h.admin.Do(ctx, http.MethodPost, "/v1/devices", spec, &added); err != nil {
			return fmt.Errorf("add device: %w", err)
		}
		code, err := client.ParseCode(added.EnrolmentCode)
		if err != nil {
			return err
		}
		folder := filepath.Join(h.dir, "devices", d.Name)
		if _, err := client.Enrol(ctx, code, folder); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
		h.identities[d.Name], h.devices[d.Name] = folder, added.Device.ID
	}
	fmt.Fprintf(h.out, "%d devices of %d people, %d firms and the operating organisation have their certificates.\n", len(devices), len(h.people)-firms, firms)
	return nil
}

// profileOf is the profile that a simulated device needs.
func profileOf(d Device) json.RawMessage {
	type stream struct {
		Name     string   `json:"name"`
		Type     string   `json:"type"`
		Unit     string   `json:"unit,omitempty"`
		Purposes []string `json:"purposes"`
	}
	p := struct {
		Name    string   `json:"name"`
		Version int      `json:"version"`
		Streams []stream `json:"streams"`
	}{Name: d.Profile, Version: 1}
	for _, s := range d.Streams {
		p.Streams = append(p.Streams, stream{s.Name, s.Type.String(), s.Unit, []string{string(holdfast.Operation)}})
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic("demo: " + err.Error()) // strings and numbers only
	}
	return b
}

// inFlight is how many messages of one device wait for their acknowledgement.
const inFlight = 16

// play sends the plan, each device over its own MQTT connection at QoS 1.
func (h *hub) play(ctx context.Context, plan Plan, live bool) error {
	if live {
		fmt.Fprintf(h.out, "They send %[1]d minutes of their lives. Meanwhile, in another terminal:\n\n  holdfast query bench-1/temperature --data %[2]s\n  holdfast feed van-1/speed --data %[2]s\n\n",
			int(fleetLength.Minutes()), filepath.Join(h.dir, "data"))
	}
	queues := map[string]chan Message{}
	senders, sending := errgroup.WithContext(ctx)
	var acked, refused atomic.Int64
	for i := range plan.Devices {
		name := plan.Devices[i].Name
		c, err := h.connect(sending, name)
		if err != nil {
			return fmt.Errorf("connect %s: %w", name, err)
		}
		q := make(chan Message, 64)
		queues[name] = q
		senders.Go(func() error { return send(sending, c, q, &acked, &refused) })
	}
	begin := time.Now()
	last := begin
	for d, m := range plan.Play(sending) {
		select {
		case queues[d.Name] <- m:
		case <-sending.Done():
		}
		if now := time.Now(); now.Sub(last) > 500*time.Millisecond {
			last = now
			if onTerminal(h.out) {
				fmt.Fprintf(h.out, "\r%s  %d readings acknowledged ", m.At.Format(time.TimeOnly), acked.Load())
			}
		}
	}
	for _, q := range queues {
		close(q)
	}
	if err := senders.Wait(); err != nil {
		return err
	}
	if n := refused.Load(); n > 0 {
		return holdfast.Errorf(holdfast.Internal, "%d messages were refused", n)
	}
	if onTerminal(h.out) {
		fmt.Fprint(h.out, "\r")
	}
	fmt.Fprintf(h.out, "%d readings acknowledged in %s: each is sealed with its owner's key and on disk.\n\n", acked.Load(), time.Since(begin).Round(100*time.Millisecond))
	return ctx.Err()
}

// onTerminal reports that a line can be written over.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// connect opens a device's MQTT session over mutual TLS.
func (h *hub) connect(ctx context.Context, name string) (*paho.Client, error) {
	dir := h.identities[name]
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	d := tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}}
	conn, err := d.DialContext(ctx, "tcp", h.at.MQTT[len("mqtts://"):])
	if err != nil {
		return nil, err
	}
	c := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(conn), ClientID: name})
	_, err = c.Connect(ctx, &paho.Connect{ClientID: name, KeepAlive: 30, CleanStart: true})
	return c, err
}

// say sends one reading of a device, on a connection of its own.
func (h *hub) say(ctx context.Context, name, topic, payload string) error {
	c, err := h.connect(ctx, name)
	if err != nil {
		return err
	}
	defer c.Disconnect(&paho.Disconnect{})
	_, err = c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
	return err
}

// send publishes a device's messages in order, a few in flight.
func send(ctx context.Context, c *paho.Client, q <-chan Message, acked, refused *atomic.Int64) error {
	defer c.Disconnect(&paho.Disconnect{})
	flights, flying := errgroup.WithContext(ctx)
	flights.SetLimit(inFlight)
	for m := range q {
		flights.Go(func() error {
			r, err := c.Publish(flying, &paho.Publish{Topic: m.Topic, QoS: 1, Payload: m.Payload})
			switch {
			case err == nil:
				acked.Add(int64(len(m.Samples)))
			case r != nil && r.ReasonCode >= 0x80:
				refused.Add(1)
			default:
				return err
			}
			return nil
		})
	}
	return flights.Wait()
}
