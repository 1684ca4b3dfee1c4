package server

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/erasure"
)

// ringCopy is a copy of the hub's keyring with its take-backs beside it.
func (h *house) ringCopy() string {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := h.ledger.SignTakeBacks(h.t.Context(), h.stores.vault.Generation()); err != nil {
		h.t.Fatal(err)
	}
	names, err := h.ledger.TakeBackFiles(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for name := range names {
		b, err := h.ledger.TakeBackFile(h.t.Context(), name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(h.dir, keyringDir))); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// told asks all that only reads, as some and about some, and returns on which routes
// each was told what is whose.
func (e *estate) told(readers, slugs []string) map[string]map[string][]string {
	e.t.Helper()
	told := map[string]map[string][]string{} // whose, reader, routes
	reads, _ := e.split()
	for _, r := range e.readers {
		if !slices.ContainsFunc(readers, func(name string) bool { return strings.HasPrefix(r.name, name) }) {
			continue
		}
		for _, a := range reads {
			method, _, ok := strings.Cut(a.route, " ")
			if !ok {
				method = http.MethodGet
			}
			for _, w := range a.ways {
				for i, slug := range slugs {
					path, body, mentions := w.about(e.targets[slug])
					if i > 0 && !mentions {
						continue
					}
					what := method + " " + path + " " + body
					got := r.ask(e.at.API+path, method, body)
					if got.status >= 500 || got.status == http.StatusTooManyRequests {
						e.t.Errorf("%s asks %s: %d %.300s", r.name, what, got.status, got.body)
					}
					for _, p := range found(e.plants, got.all) {
						if p.text != "" && strings.Contains(what, p.text) {
							continue // that came from the asker
						}
						if told[p.whose] == nil {
							told[p.whose] = map[string][]string{}
						}
						what := a.route
						if r.over == nil { // a recipient: of what the grants are about is no secret
							what += ": " + p.sort.String()
						}
						if all := told[p.whose][r.name]; !slices.Contains(all, what) {
							told[p.whose][r.name] = append(all, what)
						}
					}
				}
			}
		}
	}
	return told
}

// follows reads a feed until something is in it.
func (r *reader) follows(t *testing.T, url, want string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	res, err := r.web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if strings.Contains(lines.Text(), want) {
			return true
		}
	}
	return false
}

// After a restore of a backup from before it, what was erased is refused on every way
// out, to everybody; a grant that was withdrawn gives nothing, a token and a certificate
// that were revoked open nothing, an assignment that was closed takes nothing. What
// nobody took back comes out as before.
func TestARestoreRefusesOnEveryPathWhatWasTakenBack(t *testing.T) {
	e, b := newEstate(t), newShelf(t)
	e.scene()
	e.must("an administrator", "DELETE", "/v1/holds/"+e.targets["anna"].names["hold"], "", nil) // it would keep her
	anna, ben, worker := e.targets["anna"], e.targets["ben"], e.targets["worker"]
	var grant struct{ ID string }
	e.must("Ben", "POST", "/v1/grants", `{"recipient":"Lab","purpose":"study","streams":["`+pulseOf("ben")+`"],"until":"+1d"}`, &grant)
	lab := e.told([]string{"the lab"}, []string{"ben"})["ben"]
	if len(lab) == 0 {
		t.Fatal("the lab is told nothing of Ben's before his grant is withdrawn")
	}
	ways := e.told([]string{"Anna, the owner"}, []string{"anna"})["anna"]
	guests := e.subscribers("Ben", "the institute", "the lab", "Anna", "the worker")
	b.take(e.house)

	scope, err := e.custody.ScopeOfParty(t.Context(), anna.party)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := e.Server.erasure.Ask(t.Context(), e.readers[0].as, scope)
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if x, err := e.Server.erasure.Erasure(t.Context(), asked.ID); err != nil || time.Now().After(until) {
			t.Fatalf("the erasure is %s: %v", x.State, err)
		} else if x.State == erasure.Done {
			break
		}
	}
	e.must("Ben", "DELETE", "/v1/grants/"+grant.ID, "", nil)
	revoked := e.readers[slices.IndexFunc(e.readers, func(r *reader) bool { return strings.HasPrefix(r.name, "the worker") })]
	for _, c := range []holdfast.CredentialID{revoked.credential, guests[4].credential} {
		if err := e.access.Revoke(t.Context(), e.admin(), c, "lost"); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.identity.Revoke(t.Context(), ben.device.Device, "lost"); err != nil {
		t.Fatal(err)
	}
	if err := e.custody.CloseAssignment(t.Context(), e.admin().Credential, worker.device.Assignment); err != nil {
		t.Fatal(err)
	}
	ring := e.ringCopy()
	e.end()
	e.halt()
	new := filepath.Join(t.TempDir(), "new")
	r, err := Restore(t.Context(), Config{Data: new, RootKey: e.rootKey}, b.options(ring))
	if err != nil || r.Suspended != "" || r.TakenBack < 5 || len(r.Lost) == 0 {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	e.dir = new
	e.start()
	e.at, e.end = e.serve()

	e.plants = slices.DeleteFunc(e.plants, func(p plant) bool { return p.text == "House of-anna" }) // a household, which is there
	told := e.told([]string{"Ben", "the institute", "the lab", "an administrator", "an auditor"}, []string{"anna", "ben"})
	if len(told["anna"]) > 0 {
		t.Errorf("of Anna, who was erased, is told: %v", told["anna"])
	}
	for _, route := range ways["Anna, the owner"] {
		if route != "GET /v1/feed" && !slices.Contains(told["ben"]["Ben, another owner"], route) { // a feed has a moment only
			t.Errorf("%s told Anna of hers, and does not tell Ben of his after the restore", route)
		}
	}
	for _, must := range []string{"GET /v1/readings", "GET /api/v1/query", "GET /api/v1/query_range", "GET /v1/me/data", "GET /v1/devices/{id}/twin", "GET /v1/devices"} {
		if !slices.Contains(ways["Anna, the owner"], must) {
			t.Errorf("%s told Anna nothing of hers: %v", must, slices.Sorted(maps.Keys(ways)))
		}
	}
	feed := e.at.API + "/v1/feed?format=ndjson&from=2000-01-01&device=" + ben.device.Device.String()
	if b := e.readers[1]; !b.follows(t, feed, "what-ben-wrote") {
		t.Error("the feed does not tell Ben of his after the restore")
	}
	for _, name := range []string{"the institute's program, with a grant", "the lab's program, without one"} {
		for _, what := range told["ben"][name] {
			if what != "GET /v1/grants: "+aStream.String() {
				t.Errorf("%s is told of Ben's after the grant was withdrawn: %s", name, what)
			}
		}
	}
	if all := told["ben"]["the lab's program, without one"]; len(lab["the lab's program, without one"]) <= len(all) {
		t.Errorf("before the grant was withdrawn the lab was told %v, after it %v", lab, all)
	}
	e.feedsRefuse(guests[0], guests[1:3], map[string]*thing{"the certificate of who was erased": guests[3].cert, "the certificate that was revoked": guests[4].cert,
		"the device of who was erased": anna.device, "the device whose certificate was revoked": ben.device})
	for name, who := range map[string]*reader{"the token that was revoked": revoked, "the token of who was erased": e.readers[0]} {
		if got := who.ask(e.at.API+"/v1/me", http.MethodGet, ""); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %.200s", name, got.status, got.body)
		}
	}
	for name, d := range map[string]*thing{"the certificate that was revoked": ben.device, "the assignment that was closed": worker.device, "the device of who was erased": anna.device} {
		body, _ := json.Marshal([]map[string]any{{"n": "late", "v": 1}})
		status, _, text, err := post(d.http(t), e.at.Device+"/v1/data", "application/senml+json", strings.NewReader(string(body)))
		if err == nil && status/100 == 2 {
			t.Errorf("%s still sends: %d %s", name, status, text)
		}
	}
}
