package drill

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/archive"
)

// owner is somebody whose data can be recognised wherever they are: each of his
// names, texts and numbers occurs nowhere else.
type owner struct {
	kind    string // canary or control
	party   string // ids
	device  string
	token   string
	label   string
	texts   []string // what he and his device said
	numbers []float64
	words   map[string]string // name of the place → what stands there
	sent    int
}

func newOwner(kind string) *owner {
	o := &owner{kind: kind, words: map[string]string{}}
	for i := range 4 {
		o.texts = append(o.texts, o.word(fmt.Sprintf("text reading %d", i)))
	}
	for range 16 {
		o.numbers = append(o.numbers, 1000+mrand.Float64()*1000)
	}
	return o
}

// word makes up a text for a place.
func (o *owner) word(place string) string {
	w := o.kind + "-" + strings.ToLower(rand.Text())
	o.words[place] = w
	return w
}

// patterns adds all that may be recognised.
func (o *owner) patterns(w *words) {
	for place, text := range o.words {
		_, random, _ := strings.Cut(text, "-") // what is before occurs in both
		w.text(place, random)
	}
	for _, f := range o.numbers {
		w.number("a number", f)
	}
	w.text("token", o.token)
}

// ids adds what stands in clear wherever there is something of his, for good: by it
// a search shows that it sees.
func (o *owner) ids(w *words) error {
	p, err := holdfast.ParseID[holdfast.PartyID](o.party)
	if err != nil {
		return err
	}
	d, err := holdfast.ParseID[holdfast.DeviceID](o.device)
	if err != nil {
		return err
	}
	w.add("party id", p[:])
	w.add("device id", d[:])
	return nil
}

// study reads under a grant.
const study = "drill-study"

// common adds what both owners use.
func (d *drill) common(ctx context.Context) error {
	admin := d.hub.admin
	var party struct{ ID string }
	if err := admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": study, "kind": "organisation"}, &party); err != nil {
		return err
	}
	d.study = party.ID
	if err := admin.Do(ctx, http.MethodPost, "/v1/purposes", map[string]any{"name": study, "iri": "dpv:AcademicResearch", "legal_basis": "consent", "text": "A study."}, nil); err != nil {
		return err
	}
	itself, err := d.hub.invite(ctx, party.ID)
	if err != nil {
		return err
	}
	c, err := d.hub.as(itself)
	if err != nil {
		return err
	}
	defer c.Close()
	var made struct{ Token string }
	err = c.Do(ctx, http.MethodPost, "/v1/tokens", map[string]any{"label": "study", "role": "program", "purposes": []string{study}}, &made)
	d.studyToken = made.Token
	return err
}

// join adds an owner with a device, which gets its certificate.
func (d *drill) join(ctx context.Context, o *owner) error {
	var p struct{ ID string }
	if err := d.hub.admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": o.word("name"), "kind": "person"}, &p); err != nil {
		return err
	}
	o.party, o.label = p.ID, o.word("device label")
	o.word("stream of numbers")
	o.word("stream of texts")
	var added struct {
		Device        struct{ ID string } `json:"device"`
		EnrolmentCode string              `json:"enrolment_code"`
	}
	if err := d.hub.admin.Do(ctx, http.MethodPost, "/v1/devices", map[string]string{"label": o.label, "owner": o.party}, &added); err != nil {
		return fmt.Errorf("add device: %w", err)
	}
	o.device = added.Device.ID
	code, err := client.ParseCode(added.EnrolmentCode)
	if err != nil {
		return err
	}
	if _, err := client.Enrol(ctx, code, d.identity(o)); err != nil {
		return err
	}
	o.token, err = d.hub.invite(ctx, o.party)
	return err
}

func (d *drill) identity(o *owner) string { return filepath.Join(d.dir, "devices", o.kind) }

// send has the owner's device send n readings, with its certificate.
func (d *drill) send(ctx context.Context, o *owner, n int) error {
	c, err := client.New(client.Options{Hub: d.hub.at.Device, Identity: d.identity(o)})
	if err != nil {
		return err
	}
	defer c.Close()
	for n > 0 {
		some := make([]holdfast.Sample, 0, 500)
		for len(some) < min(n, 500) {
			i := o.sent + len(some)
			s := holdfast.Sample{Stream: o.words["stream of numbers"], Time: time.Now().UnixNano(), Timed: true, Value: holdfast.NumberValue(o.numbers[i%len(o.numbers)])}
			if i%8 == 7 {
				s.Stream, s.Value = o.words["stream of texts"], holdfast.TextValue(o.texts[i/8%len(o.texts)])
			}
			some = append(some, s)
		}
		if _, err := c.Send(ctx, some...); err != nil {
			return err
		}
		o.sent += len(some)
		n -= len(some)
	}
	return nil
}

// readings asks for all readings of an owner's device.
func (d *drill) readings(ctx context.Context, h *hub, token string, o *owner) (n int, text string, err error) {
	c, err := h.as(token)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	q := url.Values{"device": {o.device}, "format": {"ndjson"}, "from": {d.start.Add(-time.Hour).Format(time.RFC3339)}, "to": {time.Now().Add(time.Hour).Format(time.RFC3339)}}
	if token == d.studyToken {
		q.Set("purpose", study)
	}
	body, _, err := c.Stream(ctx, http.MethodGet, "/v1/readings", q, nil)
	if err != nil {
		return 0, "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return strings.Count(string(b), `"stream"`), string(b), err
}

// belong gives an owner something in every place that can hold anything of his.
func (d *drill) belong(ctx context.Context, o *owner) error {
	c, err := d.hub.as(o.token)
	if err != nil {
		return err
	}
	defer c.Close()
	hook := o.word("webhook")
	device := "/v1/devices/" + url.PathEscape(o.device) + "/twin"
	for _, ask := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/v1/grants", map[string]any{"recipient": d.study, "purpose": study, "streams": []string{o.words["stream of numbers"]}, "until": "+30d"}},
		{http.MethodPost, "/v1/commands", map[string]any{"device": o.device, "name": o.word("command"), "args": map[string]string{"a": o.word("command's arguments")}, "reason": o.word("command's reason"), "expires": "7d"}},
		{http.MethodPut, device, map[string]any{"wish": o.word("wanted state")}},
		{http.MethodPost, "/v1/webhooks", map[string]string{"name": hook, "url": "https://127.0.0.1:9/" + o.word("webhook's address")}},
		{http.MethodPost, "/v1/alarms", map[string]any{"name": o.word("alarm"), "kind": "threshold", "device": o.device, "stream": o.words["stream of numbers"], "op": "above", "level": 10, "every": "1s",
			"message": o.word("alarm's message") + " {value}", "webhooks": []string{hook}}},
		{http.MethodPost, "/v1/tokens", map[string]any{"label": o.word("label of a credential"), "role": "program", "purposes": []string{string(holdfast.Operation)}}},
	} {
		var answer struct{ Secret string }
		into := any(&answer)
		if ask.method == http.MethodPut {
			into = nil
		}
		if err := c.Do(ctx, ask.method, ask.path, ask.body, into); err != nil {
			return fmt.Errorf("%s %s: %w", ask.method, ask.path, err)
		}
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(answer.Secret, "whsec_")); err == nil && len(raw) >= 16 {
			o.words["webhook's secret"] = o.kind + "-" + strings.TrimPrefix(answer.Secret, "whsec_")
			o.words["webhook's secret, raw"] = o.kind + "-" + string(raw)
		}
	}
	return nil
}

// filled fails on a place that has nothing of the owner: there the drill would see
// nothing.
func (d *drill) filled(ctx context.Context, o *owner) error {
	var all strings.Builder
	n, text, err := d.readings(ctx, d.hub, o.token, o)
	if err != nil || n != o.sent {
		return holdfast.Errorf(holdfast.Internal, "%d of %d readings of the %s are there: %w", n, o.sent, o.kind, err)
	}
	all.WriteString(text)
	if n, _, err = d.readings(ctx, d.hub, d.studyToken, o); err != nil || n == 0 {
		return holdfast.Errorf(holdfast.Internal, "%d readings of the %s under a grant: %w", n, o.kind, err)
	}
	c, err := d.hub.as(o.token)
	if err != nil {
		return err
	}
	defer c.Close()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // until the alarm has fired
		var page struct{ Items []struct{ State string } }
		if err := c.Do(ctx, http.MethodGet, "/v1/deliveries", nil, &page); err != nil {
			return err
		}
		if len(page.Items) > 0 && page.Items[0].State == "waiting" {
			break
		}
		if time.Now().After(end) {
			return holdfast.Errorf(holdfast.Internal, "no message of the %s's alarm waits", o.kind)
		}
	}
	for _, path := range o.paths() {
		b, err := ask(ctx, c, path)
		if err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		all.Write(b)
	}
	var missing []string
	for place, text := range o.words {
		if !strings.Contains(all.String(), text) && !strings.Contains(place, "secret") && place != "command's arguments" {
			missing = append(missing, place)
		}
	}
	if len(missing) > 0 {
		return holdfast.Errorf(holdfast.Internal, "not filled for the %s: %s", o.kind, strings.Join(missing, ", "))
	}
	return nil
}

// paths are what an owner may ask for his own, but readings.
func (o *owner) paths() []string {
	return []string{"/v1/me", "/v1/me/data", "/v1/me/recipients", "/v1/me/disclosures", "/v1/me/purposes", "/v1/me/sessions", "/v1/ledger/entries", "/v1/devices", "/v1/devices/" + o.device, "/v1/devices/" + o.device + "/twin",
		"/v1/commands?device=" + o.device, "/v1/grants", "/v1/alarms", "/v1/webhooks", "/v1/deliveries", "/v1/tokens"}
}

func ask(ctx context.Context, c *client.Client, path string) ([]byte, error) {
	var b json.RawMessage
	err := c.Do(ctx, http.MethodGet, path, nil, &b)
	return b, err
}

// export takes along what is the owner's, who keeps it.
func (d *drill) export(ctx context.Context, o *owner) error {
	c, err := d.hub.as(o.token)
	if err != nil {
		return err
	}
	defer c.Close()
	body, _, err := c.Stream(ctx, http.MethodPost, "/v1/exports", nil, map[string]string{})
	if err != nil {
		return err
	}
	defer body.Close()
	dir := filepath.Join(d.dir, "aside", "export-"+o.kind)
	folder, err := archive.NewFolder(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(archive.Untar(ctx, body, folder), folder.Close()); err != nil {
		return err
	}
	r, err := archive.Verify(os.DirFS(dir), "")
	if err == nil && (len(r.Faults) > 0 || int(r.Rows) != o.sent) {
		err = holdfast.Errorf(holdfast.Internal, "the export of %d readings has %d, and %d faults", o.sent, r.Rows, len(r.Faults))
	}
	return err
}
