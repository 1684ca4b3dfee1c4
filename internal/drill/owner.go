package drill

import (
	"context"
	"crypto/rand"
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
	spare   string // a second device, which is offered to others
	lent    string // another's, which is his for a time
	grant   string
	token   string
	label   string
	texts   []string // what he and his device said
	numbers []float64
	words   map[string]string // name of the place → what stands there
	unasked map[string]bool   // places that are not shown to anybody
	orders  []string          // commands that he has sent, by id
	sent    int
	// assignments are those whose keys die with him.
	assignments []holdfast.AssignmentID
}

func newOwner(kind string) *owner {
	o := &owner{kind: kind, words: map[string]string{}, unasked: map[string]bool{}}
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

// hidden makes up a text for a place that no answer shows.
func (o *owner) hidden(place string) string {
	o.unasked[place] = true
	return o.word(place)
}

// secret takes note of what the hub has made up for the owner and shows but once.
func (o *owner) secret(place, text string, raw []byte) {
	for name, s := range map[string]string{place: text, place + ", raw": string(raw)} {
		if o.unasked[name] = true; len(s) >= 8 {
			o.words[name] = o.kind + "-" + s
		}
	}
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
	var err error
	if err := admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": study, "kind": "organisation"}, &party); err != nil {
		return err
	}
	d.study = party.ID
	if err := admin.Do(ctx, http.MethodPost, "/v1/purposes", map[string]any{"name": study, "iri": "dpv:AcademicResearch", "legal_basis": "consent", "text": "A study."}, nil); err != nil {
		return err
	}
	if d.lender, err = d.hub.invite(ctx, party.ID); err != nil {
		return err
	}
	c, err := d.hub.as(d.lender)
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

// paths are what an owner may ask for his own, but readings.
func (o *owner) paths() []string {
	all := []string{"/v1/me", "/v1/me/data", "/v1/me/recipients", "/v1/me/disclosures", "/v1/me/purposes", "/v1/me/sessions", "/v1/me/permissions", "/v1/me/notices", "/v1/ledger/entries", "/v1/devices", "/v1/devices/" + o.device,
		"/v1/devices/" + o.spare, "/v1/devices/" + o.device + "/twin", "/v1/commands?device=" + o.device, "/v1/assignments?device=" + o.lent, "/v1/grants", "/v1/grants/" + o.grant + "/receipt", "/v1/groups", "/v1/holds",
		"/v1/alarms", "/v1/alarms/" + o.words["alarm"] + "/history", "/v1/webhooks", "/v1/deliveries", "/v1/tokens", "/v1/transfers", "/v1/notices"}
	for _, id := range o.orders {
		all = append(all, "/v1/commands/"+id)
	}
	return all
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
