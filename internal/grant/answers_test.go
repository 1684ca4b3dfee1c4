package grant_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/timeline"
)

// asked is a hub behind TLS and an owner of many grants and disclosures.
type asked struct {
	*querytest.House
	client *http.Client
	url    string
	token  string
	others []holdfast.PartyID // recipients
}

func (a *asked) get(t *testing.T, path string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+a.token)
	w, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %.300s", path, w.StatusCode, err, body)
	}
	return body
}

func askable(t *testing.T, owners, grants, disclosures int) *asked {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := &asked{House: querytest.Build(t)}
	authority, err := identity.Create(ctx, identity.Deps{Catalog: a.Catalog, Vault: a.Vault, Ledger: a.Ledger}, []string{"127.0.0.1"}, identity.Options{})
	must(err)
	keeper, err := access.Open(ctx, access.Deps{Catalog: a.Catalog, Vault: a.Vault, Ledger: a.Ledger, Authority: authority, Operating: a.House.Custody.Operating}, access.Options{})
	must(err)
	none := func(context.Context, holdfast.Scope) error { return nil }
	cut := func(context.Context) error { return nil }
	gone, err := erasure.Open(ctx, erasure.Deps{Arrival: func() int64 { return time.Now().UnixNano() },
		Catalog: a.Catalog, Vault: a.Vault, Ledger: a.Ledger, Series: a.Series, Grants: a.Register, Custody: a.House.Custody, Logger: slog.New(slog.DiscardHandler),
		Places: erasure.Places{Connections: authority.Erase, Credentials: keeper.Erase, Grants: a.Register.Erase, Sessions: none, Wills: none, Ledger: none, Twins: none, Memory: a.Series.Forget,
			Journal: cut, Catalog: cut, Readings: none, Messages: none, Alarms: none, Custody: a.House.Custody.Erase},
	})
	must(err)
	served, err := api.New(api.Deps{Access: keeper, Custody: a.House.Custody, Identity: authority, Grants: a.Register, Query: a.Query, Measure: a.Series,
		Ledger: a.Ledger, Erasure: gone, Timeline: timeline.New(timeline.Deps{Custody: a.House.Custody, Query: a.Query, Series: a.Series, Ingest: a.Gate, Erasure: gone}),
		Archive: archive.New(a.Query, a.House.Custody, a.Register, a.Ledger), Limits: api.Limits{PerSecond: 1e9, Burst: 1e9}})
	must(err)
	server := httptest.NewTLSServer(served)
	t.Cleanup(server.Close)
	a.client, a.url = server.Client(), server.URL

	a.Purpose("study")
	for i := range 50 {
		p, err := a.House.Custody.AddParty(ctx, a.Admin.Credential, fmt.Sprintf("Institute %d", i), custody.Organisation)
		must(err)
		a.others = append(a.others, p.ID)
	}
	spec := grant.Spec{Purpose: "study", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: a.Now().AddDate(1, 0, 0)}
	for i := range owners {
		p, err := a.House.Custody.AddParty(ctx, a.Admin.Credential, fmt.Sprintf("Owner %d", i), custody.Person)
		must(err)
		n := disclosures / 2 / max(1, owners-1)
		if i == 0 {
			n = disclosures / 2
			code, _, err := keeper.Invite(ctx, a.Admin, p.ID)
			must(err)
			m, err := keeper.Redeem(ctx, access.Redemption{Code: code, From: "192.0.2.1"})
			must(err)
			a.token = m.Token
			for j := range 20 {
				d := a.Device(custody.DeviceSpec{Label: fmt.Sprintf("device-%d", j), Owner: p.ID})
				for _, s := range []string{"pulse", "steps", "place"} {
					a.Send(d, querytest.At(s, a.Now().Add(-time.Minute), holdfast.NumberValue(1)))
				}
			}
		}
		must(grant.FillOwner(a.Register, context.WithoutCancel(ctx), p.ID, spec, a.others, grants/owners, n, a.Now().Add(-90*24*time.Hour)))
	}
	return a
}

// TestOwnersAnswersOverHTTPS: the whole answer, as an owner gets it, with many grants
// and disclosures in the catalog. HOLDFAST_LONG=1 takes 100,000 grants and 1,000,000
// disclosures.
func TestOwnersAnswersOverHTTPS(t *testing.T) {
	owners, grants, disclosures, limit := 5, 1000, 2000, time.Second // beside other tests
	if os.Getenv("HOLDFAST_LONG") != "" {
		owners, grants, disclosures, limit = 100, 100_000, 1_000_000, 50*time.Millisecond
	}
	began := time.Now()
	a := askable(t, owners, grants, disclosures)
	t.Logf("%d owners, %d grants, %d disclosures in %v", owners, grants, disclosures, time.Since(began).Round(time.Second))
	for _, path := range []string{
		"/v1/me/recipients", "/v1/me/recipients?limit=1000", "/v1/me/purposes", "/v1/me/data", "/v1/grants", "/v1/me/disclosures",
		"/v1/me/disclosures?after=" + fmt.Sprint(disclosures/4), "/v1/me/disclosures?recipient=" + a.others[6].String(),
		"/v1/me/disclosures?purpose=study", "/v1/me/disclosures?" + url.Values{"from": {"-60d"}, "before": {"-30d"}}.Encode(),
	} {
		fastest, size := time.Hour, 0
		for range 5 { // the neighbours' work is not ours
			began := time.Now()
			size = len(a.get(t, path))
			fastest = min(fastest, time.Since(began))
		}
		t.Logf("%-75s %v, %d bytes", path, fastest.Round(100*time.Microsecond), size)
		if fastest > limit {
			t.Errorf("%s takes %v, more than %v", path, fastest, limit)
		}
	}
}
