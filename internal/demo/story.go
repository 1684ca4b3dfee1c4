package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// chapter is one thing that the story shows. It fails when a promise is not kept.
type chapter struct {
	title string
	tell  func(ctx context.Context) (string, error)
}

// tell goes through a reading's life with the credentials of those it concerns.
func (t *teller) tell(ctx context.Context) error {
	h := t.hub
	for _, c := range []chapter{
		{"The operating organisation reads its own bench", t.operatorReads},
		{"The couriers and the maker follow the speed of the vans, each live", t.bothFollowed},
		{"The maker asks where the vans are, and how cold the shop's room is", t.makerIsRefused},
		{"The shop has an alarm on its cold room", t.shopIsWarned},
		{"Somebody shuts the door", t.roomIsCold},
		{"The operating organisation asks for Ada's heart rate", t.operatorIsRefused},
		{"Ada gets a credential of her own and reads hers", t.adaReads},
		{"Ada grants a study her heart rate, and nothing else", t.adaGrants},
		{"Ada asks where her data went", t.adaAsks},
		{"Ada takes everything along", t.adaExports},
		{"Ada has everything erased", t.adaErases},
		{"The ledger is checked from its first entry", t.ledgerHolds},
	} {
		what, err := c.tell(ctx)
		if err != nil {
			fmt.Fprintf(h.out, "✗ %s\n    %v\n", c.title, err)
			return fmt.Errorf("%s: %w", c.title, err)
		}
		fmt.Fprintf(h.out, "✓ %s\n    %s\n", c.title, what)
	}
	fmt.Fprint(h.out, `
What to try next, with a hub of your own:

  holdfast init ./data
  holdfast serve --data ./data
  holdfast device add my-device --data ./data      (in another terminal)

The last one prints the line that joins the device. docs/device-guide.md has the
ways to do it with curl, mosquitto_pub or a microcontroller.
`)
	return nil
}

// teller holds what one chapter leaves to the next.
type teller struct {
	hub      *hub
	couriers *client.Client
	owner    *follower // the couriers
	maker    *follower
	secret   string // of the shop's webhook
	ada      *client.Client
	study    string // party id
}

// close ends what the chapters left open.
func (t *teller) close() {
	t.owner.stop()
	t.maker.stop()
	for _, c := range []*client.Client{t.couriers, t.ada} {
		if c != nil {
			c.Close()
		}
	}
}

// read asks for all readings of the day.
func read(ctx context.Context, c *client.Client, query url.Values, take func(row)) error {
	query = maps.Clone(query)
	query.Set("format", "ndjson")
	query.Set("from", time.Now().Add(-24*time.Hour).Format(time.RFC3339))
	query.Set("to", time.Now().Add(time.Hour).Format(time.RFC3339))
	body, _, err := c.Stream(ctx, http.MethodGet, "/v1/readings", query, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = rows(body, func(r row) bool {
		if r.Stream != "" {
			take(r)
		}
		return false
	})
	return err
}

// count asks for readings and returns how many came.
func count(ctx context.Context, c *client.Client, query url.Values) (n int, err error) {
	err = read(ctx, c, query, func(row) { n++ })
	return n, err
}

// denied turns a refusal into what it says, and anything else into a broken
// promise.
func denied(n int, err error) (string, error) {
	switch k := holdfast.KindOf(err); {
	case err == nil:
		return "", holdfast.Errorf(holdfast.Internal, "%d readings were given out that must not be", n)
	case k == holdfast.Denied || k == holdfast.NotFound:
		return "refused: " + err.Error(), nil
	}
	return "", err
}

func (t *teller) operatorReads(ctx context.Context) (string, error) {
	n, err := count(ctx, t.hub.admin, url.Values{"device": {"bench-1"}})
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.Internal, "nothing came")
	}
	return fmt.Sprintf("%d readings of bench-1, by role, on record", n), err
}

func (t *teller) operatorIsRefused(ctx context.Context) (string, error) {
	return denied(count(ctx, t.hub.admin, url.Values{"device": {"band-ada"}, "stream": {"heart_rate"}}))
}

func (t *teller) adaReads(ctx context.Context) (string, error) {
	var err error
	if t.ada, err = t.hub.invite(ctx, t.hub.people["Ada"]); err != nil {
		return "", err
	}
	n, err := count(ctx, t.ada, url.Values{"device": {"band-ada"}})
	if err == nil && n == 0 {
		err = holdfast.Errorf(holdfast.Internal, "nothing came")
	}
	return fmt.Sprintf("%d readings; that she was invited is on her record", n), err
}

func (t *teller) adaGrants(ctx context.Context) (string, error) {
	var party, token struct {
		ID    string
		Token string
	}
	admin := t.hub.admin
	if err := admin.Do(ctx, http.MethodPost, "/v1/purposes", map[string]any{
		"name": "heart-study", "iri": "https://w3id.org/dpv#AcademicResearch", "legal_basis": "consent", "text": "A study of resting heart rates.",
	}, nil); err != nil {
		return "", fmt.Errorf("add purpose: %w", err)
	}
	if err := admin.Do(ctx, http.MethodPost, "/v1/parties", map[string]string{"name": "Heart Study", "kind": "organisation"}, &party); err != nil {
		return "", err
	}
	t.study = party.ID
	program := map[string]any{"label": "study", "party": party.ID, "role": "program", "purposes": []string{"heart-study"}}
	if err := admin.Do(ctx, http.MethodPost, "/v1/tokens", program, nil); holdfast.KindOf(err) != holdfast.Denied {
		return "", holdfast.Errorf(holdfast.Internal, "an administrator could read as the study: %v", err)
	}
	itself, err := t.hub.invite(ctx, party.ID)
	if err != nil {
		return "", fmt.Errorf("invite the study: %w", err)
	}
	defer itself.Close()
	if err := itself.Do(ctx, http.MethodPost, "/v1/tokens", program, &token); err != nil {
		return "", fmt.Errorf("add token: %w", err)
	}
	study, err := client.New(client.Options{Hub: t.hub.at.API, Token: token.Token})
	if err != nil {
		return "", err
	}
	defer study.Close()
	// A recipient knows devices by id: what their owner calls them is the owner's.
	pulse := url.Values{"device": {t.hub.devices["band-ada"]}, "stream": {"heart_rate"}, "purpose": {"heart-study"}}
	if _, err := denied(count(ctx, study, pulse)); err != nil {
		return "", fmt.Errorf("before the grant: %w", err)
	}
	grant := map[string]any{"recipient": party.ID, "purpose": "heart-study", "streams": []string{"heart_rate"}, "until": "+30d"}
	if err := admin.Do(ctx, http.MethodPost, "/v1/grants", grant, nil); holdfast.KindOf(err) != holdfast.Denied {
		return "", holdfast.Errorf(holdfast.Internal, "an administrator could make a grant for her: %v", err)
	}
	if err := t.ada.Do(ctx, http.MethodPost, "/v1/grants", grant, nil); err != nil {
		return "", fmt.Errorf("make grant: %w", err)
	}
	n, err := count(ctx, study, pulse)
	if err != nil || n == 0 {
		return "", fmt.Errorf("%d readings under the grant: %w", n, err)
	}
	pulse.Set("stream", "location")
	if _, err := denied(count(ctx, study, pulse)); err != nil {
		return "", fmt.Errorf("location: %w", err)
	}
	return fmt.Sprintf("the study reads %d heart rates; where she was, it is refused", n), nil
}

func (t *teller) adaAsks(ctx context.Context) (string, error) {
	var page struct {
		Items []struct {
			Recipient struct{ ID string } `json:"recipient"`
			Rows      uint64              `json:"rows"`
		} `json:"items"`
	}
	if err := t.ada.Do(ctx, http.MethodGet, "/v1/me/recipients", nil, &page); err != nil {
		return "", err
	}
	for _, r := range page.Items {
		if r.Recipient.ID == t.study && r.Rows > 0 {
			return fmt.Sprintf("Heart Study got %d readings", r.Rows), nil
		}
	}
	return "", holdfast.Errorf(holdfast.Internal, "the study is not among her recipients")
}

func (t *teller) adaExports(ctx context.Context) (string, error) {
	body, _, err := t.ada.Stream(ctx, http.MethodPost, "/v1/exports", nil, map[string]string{})
	if err != nil {
		return "", err
	}
	defer body.Close()
	dir := filepath.Join(t.hub.dir, "export")
	folder, err := archive.NewFolder(dir)
	if err != nil {
		return "", err
	}
	if err := errors.Join(archive.Untar(ctx, body, folder), folder.Close()); err != nil {
		return "", err
	}
	r, err := archive.Verify(os.DirFS(dir), "")
	if err == nil && len(r.Faults) > 0 {
		err = holdfast.Errorf(holdfast.Internal, "the bundle does not verify: %s", r.Faults[0])
	}
	return fmt.Sprintf("%d readings as Parquet and NDJSON, signed, in balance, checked without the hub", r.Rows), err
}

func (t *teller) adaErases(ctx context.Context) (string, error) {
	begin := time.Now()
	var e struct {
		State       string
		Certificate string
	}
	if err := t.ada.Do(ctx, http.MethodPost, "/v1/erasures", map[string]string{"party": t.hub.people["Ada"]}, &e); err != nil {
		return "", err
	}
	took := time.Since(begin)
	c, err := erasure.VerifyCertificate([]byte(e.Certificate), "")
	if err != nil {
		return "", fmt.Errorf("verify certificate: %w", err)
	}
	if _, err := denied(count(ctx, t.ada, url.Values{"device": {"band-ada"}})); err != nil {
		return "", err
	}
	return fmt.Sprintf("keys destroyed and ciphertext removed in %d ms; the certificate names root key %d and verifies without the hub",
		took.Milliseconds(), c.Destroyed.From), nil
}

func (t *teller) ledgerHolds(ctx context.Context) (string, error) {
	var r struct {
		Entries, Erased uint64
		Faults          []string
	}
	if err := t.hub.admin.Do(ctx, http.MethodPost, "/v1/ledger/verify", nil, &r); err != nil {
		return "", err
	}
	if len(r.Faults) > 0 {
		return "", holdfast.Errorf(holdfast.Internal, "%d faults, the first: %s", len(r.Faults), r.Faults[0])
	}
	return fmt.Sprintf("%d entries, %d of them lawfully unreadable since the erasure, none altered", r.Entries, r.Erased), nil
}
