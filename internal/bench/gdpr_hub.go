package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// hubRecords keeps personal records as a hub does: each a device behind a gateway,
// with one stream that is collected for the record's purpose.
type hubRecords struct {
	*Gateway
	staff     []*client.Client // the administrator's, taken in turn: a hub lets one credential ask so often
	turn      int
	processor *client.Client
	recipient string // the processor's party

	parties  map[int]string // ids, by person
	people   map[string]int // persons, by id
	owners   map[int]*client.Client
	grants   map[int]string // ids, by person
	holds    map[string]string
	erasures map[int]string // ids, by key
	redeemed int
	stranger *http.Client // who has no credential yet
}

// gdprOnHub is Holdfast's side of figure GDPR.
func gdprOnHub(ctx context.Context, b *Bench) (*Side, error) {
	g, err := b.Gateway(ctx, 0)
	if err != nil {
		return nil, err
	}
	h := &hubRecords{Gateway: g, parties: map[int]string{}, people: map[string]int{}, owners: map[int]*client.Client{}, grants: map[int]string{},
		holds: map[string]string{}, erasures: map[int]string{}}
	play := NewGDPR(1, h)
	return b.OwnSide(func(ctx context.Context, _ int) (Values, error) { return play.Round(ctx) }, func() error {
		return errors.Join(h.Close(), h.Discard())
	}), nil
}

const (
	recordStream  = "record_data"
	staffTokens   = 12
	settlings     = 200 // questions until all erasures are done
	meetersAtOnce = 40  // a hub lets one address redeem so many invitations at once
)

func purposeName(n int) string  { return fmt.Sprintf("purpose-%02d", n) }
func recordName(key int) string { return fmt.Sprintf("record-%06d", key) }

// as is a client with a token.
func (h *hubRecords) as(token string) (*client.Client, error) {
	return client.New(client.Options{Hub: h.API(), Token: token})
}

// hand is one of the administrator's clients.
func (h *hubRecords) hand() *client.Client {
	h.turn++
	return h.staff[h.turn%len(h.staff)]
}

func (h *hubRecords) Load(ctx context.Context, all []Record, sharing []int) error {
	if err := h.settleIn(ctx); err != nil {
		return err
	}
	began := time.Now()
	hands := make(chan *client.Client, len(h.staff))
	for _, s := range h.staff {
		hands <- s
	}
	ids := make([]string, len(all))
	if _, err := Pour(ctx, declarers, len(all), func(ctx context.Context, i int) error {
		s := <-hands
		defer func() { hands <- s }()
		var party struct{ ID string }
		if err := s.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": fmt.Sprintf("person %d", all[i].Person), "kind": "person"}, &party); err != nil {
			return err
		}
		ids[i] = party.ID
		return nil
	}); err != nil {
		return err
	}
	for i, id := range ids {
		h.parties[all[i].Person], h.people[id] = id, all[i].Person
	}
	for _, r := range all {
		if err := h.Insert(ctx, r); err != nil {
			return err
		}
	}
	for _, person := range sharing {
		if err := errors.Join(h.Meet(ctx, person), h.Share(ctx, person, PurposeOf(person), true)); err != nil {
			return err
		}
	}
	h.b.Say("brought in %d records of as many persons in %s", len(all), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// settleIn makes tokens for the staff, the purposes with a profile each, and the
// processor.
func (h *hubRecords) settleIn(ctx context.Context) error {
	for i := range staffTokens {
		var made struct{ Token string }
		if err := h.admin.Do(ctx, http.MethodPost, "/v1/tokens", map[string]any{"label": fmt.Sprintf("staff %d", i), "role": "administrator", "scopes": []string{"read", "write"}}, &made); err != nil {
			return err
		}
		c, err := h.as(made.Token)
		if err != nil {
			return err
		}
		h.staff = append(h.staff, c)
	}
	var names []string
	for i := range gdprPurposes {
		names = append(names, purposeName(i))
		if err := h.hand().Do(ctx, http.MethodPost, "/v1/purposes", map[string]any{"name": names[i], "iri": "https://w3id.org/dpv#ServiceProvision",
			"legal_basis": "legitimate-interest", "text": "One of the purposes of the benchmark."}, nil); err != nil {
			return err
		}
		profile := map[string]any{"name": "record-" + names[i], "version": 1, "streams": []any{map[string]any{"name": recordStream, "type": "text", "purposes": []string{names[i]}}}}
		if err := h.hand().Do(ctx, http.MethodPost, "/v1/profiles", profile, nil); err != nil {
			return err
		}
	}
	var party struct{ ID string }
	if err := h.admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": "processor", "kind": "service"}, &party); err != nil {
		return err
	}
	h.recipient = party.ID
	invited, err := h.invite(ctx, party.ID)
	if err != nil {
		return err
	}
	var made struct{ Token string }
	if err := invited.Do(ctx, http.MethodPost, "/v1/tokens", map[string]any{"label": "processor", "role": "program", "purposes": names, "scopes": []string{"read"}}, &made); err != nil {
		return err
	}
	h.processor, err = h.as(made.Token)
	return err
}

// invite makes a party's own credential.
func (h *hubRecords) invite(ctx context.Context, party string) (*client.Client, error) {
	var invited struct{ Code string }
	if err := h.hand().Do(ctx, http.MethodPost, "/v1/parties/"+party+"/invitations", nil, &invited); err != nil {
		return nil, err
	}
	var made struct{ Token string }
	if err := h.redeem(ctx, invited.Code, &made); err != nil {
		return nil, err
	}
	return h.as(made.Token)
}

// redeem shows an invitation's code, from an address of its own now and then.
func (h *hubRecords) redeem(ctx context.Context, code string, made any) error {
	if h.redeemed%meetersAtOnce == 0 {
		h.stranger = h.asker(h.roots)
	}
	h.redeemed++
	body, err := json.Marshal(map[string]string{"code": code, "label": "phone"})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.API()+"/v1/invitations/redeem", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := h.stranger.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusCreated {
		return holdfast.Errorf(holdfast.Internal, "redeem an invitation: the hub answers %s", a.Status)
	}
	return json.NewDecoder(a.Body).Decode(made)
}

func (h *hubRecords) Meet(ctx context.Context, person int) (err error) {
	if h.owners[person] == nil {
		h.owners[person], err = h.invite(ctx, h.parties[person])
	}
	return err
}

func (h *hubRecords) Insert(ctx context.Context, r Record) error {
	spec := map[string]string{"label": recordName(r.Key), "gateway": h.self.ID, "owner": h.parties[r.Person], "profile": "record-" + purposeName(r.Purpose)}
	var added struct{ Device struct{ ID string } }
	if err := h.hand().Do(ctx, http.MethodPost, "/v1/devices", spec, &added); err != nil {
		return err
	}
	h.ids[recordName(r.Key)] = added.Device.ID
	return h.put(ctx, r)
}

func (h *hubRecords) put(ctx context.Context, r Record) error {
	return h.Write(ctx, fmt.Appendf(nil, "record,device=%s data=%q %d\n", recordName(r.Key), r.Data, time.Now().UnixMilli()))
}

// Rectify sends the changed record as its newest reading; what is read is the
// newest.
func (h *hubRecords) Rectify(ctx context.Context, r Record) error { return h.put(ctx, r) }

func (h *hubRecords) Delete(ctx context.Context, r Record, byPerson bool) error {
	who := h.hand()
	if byPerson {
		who = h.owners[r.Person]
	}
	var e struct{ ID string }
	if err := who.Do(ctx, http.MethodPost, "/v1/erasures?wait=0", map[string]string{"device": h.ids[recordName(r.Key)]}, &e); err != nil {
		return err
	}
	h.erasures[r.Key] = e.ID
	return nil
}

func (h *hubRecords) ReadOwn(ctx context.Context, r Record) (string, bool, error) {
	return h.latest(ctx, h.owners[r.Person], r, "")
}

func (h *hubRecords) Process(ctx context.Context, r Record) (string, bool, error) {
	return h.latest(ctx, h.processor, r, purposeName(r.Purpose))
}

// latest is the newest reading of a record; a refusal is not an error.
func (h *hubRecords) latest(ctx context.Context, who *client.Client, r Record, purpose string) (string, bool, error) {
	q := url.Values{"device": {h.ids[recordName(r.Key)]}, "stream": {recordStream}, "from": {"-1d"}, "format": {"json"}}
	if purpose != "" {
		q.Set("purpose", purpose)
	}
	var got struct{ Rows []struct{ Value string } }
	err := who.Do(ctx, http.MethodGet, "/v1/readings?"+q.Encode(), nil, &got)
	switch {
	case holdfast.KindOf(err) == holdfast.Denied, holdfast.KindOf(err) == holdfast.NotFound:
		return "", false, nil
	case err != nil || len(got.Rows) == 0:
		return "", false, err
	}
	return got.Rows[len(got.Rows)-1].Value, true, nil
}

// items asks for all pages of a list.
func items[T any](ctx context.Context, who *client.Client, path string) (all []T, err error) {
	for after := ""; ; {
		q := url.Values{"limit": {"1000"}}
		if after != "" {
			q.Set("after", after)
		}
		var page struct {
			Items []T
			Next  string
		}
		if err := who.Do(ctx, http.MethodGet, path+"?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		if all = append(all, page.Items...); page.Next == "" {
			return all, nil
		}
		after = page.Next
	}
}

func (h *hubRecords) UsedFor(ctx context.Context, person, purpose int) (bool, error) {
	var all struct {
		Items []struct {
			Name    string
			Streams []json.RawMessage
		}
	}
	err := h.owners[person].Do(ctx, http.MethodGet, "/v1/me/purposes", nil, &all)
	for _, p := range all.Items {
		if p.Name == purposeName(purpose) {
			return len(p.Streams) > 0, err
		}
	}
	return false, err
}

func (h *hubRecords) Held(ctx context.Context, person int) (n int, err error) {
	var data struct{ Devices []struct{ Readings int } }
	err = h.owners[person].Do(ctx, http.MethodGet, "/v1/me/data", nil, &data)
	for _, d := range data.Devices {
		if d.Readings > 0 {
			n++
		}
	}
	return n, err
}

func (h *hubRecords) Share(ctx context.Context, person, purpose int, on bool) error {
	own := h.owners[person]
	if !on {
		return own.Do(ctx, http.MethodDelete, "/v1/grants/"+h.grants[person], nil, nil)
	}
	var g struct{ ID string }
	err := own.Do(ctx, http.MethodPost, "/v1/grants", map[string]any{"recipient": h.recipient, "purpose": purposeName(purpose), "until": "+300d"}, &g)
	h.grants[person] = g.ID
	return err
}

func (h *hubRecords) Sharers(ctx context.Context, purpose int) (people []int, err error) {
	all, err := items[struct {
		Owner   struct{ ID string }
		Purpose string
		Live    bool
	}](ctx, h.processor, "/v1/grants")
	for _, g := range all {
		if g.Live && g.Purpose == purposeName(purpose) {
			people = append(people, h.people[g.Owner.ID])
		}
	}
	return people, err
}

func (h *hubRecords) Shares(ctx context.Context, person int) (bool, error) {
	id := h.grants[person]
	if id == "" { // he never shared: there is nothing to ask for
		id = holdfast.NewID[holdfast.GrantID]().String()
	}
	var g struct{ Live bool }
	err := h.processor.Do(ctx, http.MethodGet, "/v1/grants/"+id, nil, &g)
	if holdfast.KindOf(err) == holdfast.NotFound {
		err = nil
	}
	return g.Live, err
}

func (h *hubRecords) Retain(ctx context.Context, purpose, days int) error {
	return h.hand().Do(ctx, http.MethodPut, "/v1/retention/rules", map[string]any{"purpose": purposeName(purpose), "days": days}, nil)
}

// hold sets a person's own hold, or ends the one that stands.
func (h *hubRecords) hold(ctx context.Context, person int, kind, purpose string, on bool) error {
	own, key := h.owners[person], fmt.Sprintf("%d %s %s", person, kind, purpose)
	if !on {
		return own.Do(ctx, http.MethodDelete, "/v1/holds/"+h.holds[key], nil, nil)
	}
	spec := map[string]string{"kind": kind}
	if purpose != "" {
		spec["purpose"] = purpose
	}
	var set struct{ ID string }
	err := own.Do(ctx, http.MethodPost, "/v1/holds", spec, &set)
	h.holds[key] = set.ID
	return err
}

func (h *hubRecords) Restrict(ctx context.Context, person int, on bool) error {
	return h.hold(ctx, person, "restriction", "", on)
}

func (h *hubRecords) Object(ctx context.Context, person, purpose int, on bool) error {
	return h.hold(ctx, person, "objection", purposeName(purpose), on)
}

// Log reads from the operating organisation's record, which is the hub's own.
func (h *hubRecords) Log(ctx context.Context) (int, error) {
	var page struct{ Items []json.RawMessage }
	err := h.hand().Do(ctx, http.MethodGet, "/v1/ledger/entries?record=hub&limit=100", nil, &page)
	return len(page.Items), err
}

// Readers is what the person's own answer says, which he hands to the regulator.
func (h *hubRecords) Readers(ctx context.Context, person int) (int, error) {
	all, err := items[struct {
		Recipient struct{ ID string }
		Reads     int
	}](ctx, h.owners[person], "/v1/me/recipients")
	n := 0
	for _, d := range all {
		if d.Recipient.ID == h.recipient {
			n += d.Reads
		}
	}
	return n, err
}

// Deleted reads the certificate, whose signature `holdfast verify` checks offline.
func (h *hubRecords) Deleted(ctx context.Context, r Record) (bool, error) {
	var e struct{ State, Certificate string }
	err := h.hand().Do(ctx, http.MethodGet, "/v1/erasures/"+h.erasures[r.Key], nil, &e)
	return e.State == "done" && e.Certificate != "", err
}

// Settle waits for the erasure that was asked last, and then sees that all are done.
func (h *hubRecords) Settle(ctx context.Context) error {
	for try := 0; ; try++ {
		all, err := items[struct{ ID, State string }](ctx, h.hand(), "/v1/erasures")
		if err != nil {
			return err
		}
		open := ""
		for _, e := range all {
			if e.State != "done" {
				open = e.ID
			}
		}
		switch {
		case open == "":
			return nil
		case try == settlings:
			return holdfast.Errorf(holdfast.Internal, "an erasure is not done after minutes")
		}
		if err := h.hand().Do(ctx, http.MethodGet, "/v1/erasures/"+open+"?wait=60", nil, nil); err != nil {
			return err
		}
	}
}

func (h *hubRecords) Recovered(_ context.Context, keys map[int]bool) (int, error) {
	return MarksIn(h.dir, keys)
}

func (h *hubRecords) Disk() (int64, error) { return Files(h.Data()) }
