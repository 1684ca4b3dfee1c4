package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Every way out of the hub is tried by everybody. What is somebody's comes out to
// nobody who may not have it, in no form; and a reading that comes out stands on a
// disclosure to that very reader, which the record has. A way that is new fails this
// test until it says how it is tried.
func TestNothingLeavesWithoutADecision(t *testing.T) {
	e := newEstate(t)
	e.scene()
	e.everyRouteIsKnown()
	var told sync.WaitGroup
	reads, changing := e.split()
	for _, r := range e.readers {
		told.Go(func() { e.try(r, reads) })
	}
	told.Wait()
	e.onRecord()
	for _, a := range changing {
		for _, r := range e.readers {
			e.try(r, []ask{a})
		}
	}
	e.nothingIsIn("the log", []byte(e.log.String()))
}

// split parts what only reads from what changes something.
func (e *estate) split() (reads, changing []ask) {
	all := asks()
	i := slices.IndexFunc(all, func(a ask) bool { return a.route == "POST /v1/parties" })
	return all[:i], all[i:]
}

// everyRouteIsKnown compares the routes that there are with those that are asked.
func (e *estate) everyRouteIsKnown() {
	e.t.Helper()
	asked := map[string]bool{}
	for _, a := range asks() {
		asked[a.route] = true
	}
	have := e.people.Routes()
	for _, route := range have {
		if !asked[route] {
			e.t.Errorf("route %s is new: say in asks (enforce_ways_test.go) how to ask it, in every way that might give out something of somebody's", route)
		}
		delete(asked, route)
	}
	for route := range asked {
		e.t.Errorf("route %s is gone: take it out of asks (enforce_ways_test.go)", route)
	}
	var spec struct{ Paths map[string]map[string]any }
	e.must("an administrator", "GET", "/openapi.json", "", &spec)
	described := 0
	for path, operations := range spec.Paths {
		for method := range operations {
			route := strings.ToUpper(method) + " " + strings.Replace(path, "{tile}", "{tile...}", 1)
			if described++; !slices.Contains(have, route) {
				e.t.Errorf("%s is described and not a route: does it get past api.handle, stream and plain?", route)
			}
		}
	}
	e.t.Logf("%d routes, %d of them described, %d readers, %d planted", len(have), described, len(e.readers), len(e.plants))
}

// try asks all of it as one reader, about every target.
func (e *estate) try(r *reader, all []ask) {
	given, asked := e.rowsGiven(r), 0
	for _, a := range all {
		method, _, ok := strings.Cut(a.route, " ")
		if !ok {
			method = http.MethodGet
		}
		for _, w := range a.ways {
			for i, slug := range slices.Sorted(maps.Keys(e.targets)) {
				x := e.targets[slug]
				path, body, mentions := w.about(x)
				if i > 0 && !mentions {
					continue
				}
				got := r.ask(e.at.API+path, method, body)
				asked++
				given = e.judge(r, fmt.Sprintf("%s %s %s", method, path, body), got, given)
				if method != http.MethodGet && mentions && got.status/100 == 2 && !slices.Contains(r.over, slug) && !anybodys(a.route) {
					e.t.Errorf("%s, who stands for nothing of %s's, may %s %s %s: %d %.200s", r.name, slug, method, path, body, got.status, got.body)
				}
			}
		}
	}
}

// anybodys are routes that anybody may use with another's name in the question,
// since it changes nothing of the other's.
func anybodys(route string) bool {
	return slices.Contains([]string{"POST /v1/groups"}, route) || strings.HasPrefix(route, "POST /api/v1/")
}

// judge fails on what came out and must not have, or stands on no disclosure.
func (e *estate) judge(r *reader, what string, got answer, before map[string]uint64) map[string]uint64 {
	after := before
	if got.status/100 == 2 && !r.credential.IsZero() {
		after = e.rowsGiven(r)
	}
	if got.status == http.StatusTooManyRequests && !r.credential.IsZero() || got.status >= 500 && !r.credential.IsZero() {
		e.t.Errorf("%s asks %s: %d %.300s", r.name, what, got.status, got.body)
	}
	values := map[string]uint64{}
	for _, p := range found(e.plants, got.all) {
		if strings.Contains(what, p.text) && p.text != "" && got.status/100 != 2 {
			e.t.Errorf("%s asks %s: the refusal repeats what was sent: %.300s", r.name, what, got.body)
		}
		if !r.may(p) && !(p.text != "" && strings.Contains(what, p.text)) {
			e.t.Errorf("%s asks %s and is told %s: %d %.300s", r.name, what, p, got.status, got.body)
		}
		if p.sort == aValue {
			values[p.whose]++
		}
	}
	for slug := range values {
		for i := 0; i < 1500 && strings.Contains(what, "/v1/feed?") && after[slug] <= before[slug]; i++ {
			time.Sleep(20 * time.Millisecond) // a feed is counted when the hub has seen its reader go
			after = e.rowsGiven(r)
		}
		if after[slug] <= before[slug] {
			e.t.Errorf("%s asks %s and is given a reading of %s's that stands on no disclosure: %d rows before, %d after", r.name, what, slug, before[slug], after[slug])
		}
	}
	return after
}

// onRecord: the ledger has every disclosure, on the record of whom it concerns.
func (e *estate) onRecord() {
	e.t.Helper()
	n := 0
	for slug, x := range e.targets {
		events, err := e.ledger.Events(e.t.Context(), vault.OfParty(x.party), 0, 10_000)
		if err != nil {
			e.t.Fatal(err)
		}
		var record bytes.Buffer
		for _, v := range events {
			if v.Kind == "disclosure opened" {
				json.NewEncoder(&record).Encode(v)
			}
		}
		all, err := e.grants.Disclosures(e.t.Context(), x.party)
		if err != nil {
			e.t.Fatal(err)
		}
		if len(all) == 0 {
			e.t.Errorf("nothing of %s's was disclosed to anybody: the test asks for nothing", slug)
		}
		for _, d := range all {
			if n++; !bytes.Contains(record.Bytes(), []byte(d.ID.String())) {
				e.t.Errorf("disclosure %s of %s's is not on the record", d.ID, slug)
			}
		}
	}
	e.t.Logf("%d disclosures, all on record", n)
}

func (e *estate) nothingIsIn(where string, b []byte) {
	e.t.Helper()
	for _, p := range found(e.plants, b) {
		e.t.Errorf("in %s: %s", where, p)
	}
	if len(b) < 300 {
		e.t.Errorf("%s is all but empty: %s", where, b)
	}
}

// scene is what there is of each target besides readings.
func (e *estate) scene() {
	e.t.Helper()
	type made struct{ ID string }
	var archive made
	e.must("an administrator", "POST", "/v1/parties", `{"name":"Archive","kind":"organisation"}`, &archive)
	for slug, as := range map[string][2]string{"anna": {"Anna, the owner", "Anna, the owner"}, "ben": {"Ben", "Ben"}, "worker": {"the worker", "the works"}, "acme": {"an admin", ""}} {
		x := e.targets[slug]
		set := func(name, as, method, path, body string) {
			var m made
			p, b, _ := way{path, body}.about(x)
			e.must(as, method, p, b, &m)
			x.names[name] = m.ID
		}
		x.names["slug"], x.names["index"] = slug, "9"
		for _, name := range []string{"house", "joint", "grant", "permission", "transfer", "notice", "membership", "erasure", "alarm", "webhook", "delivery", "retraction"} {
			x.names[name] = holdfast.NewID[holdfast.JointID]().String()
		}
		i := slices.IndexFunc(e.readers, func(r *reader) bool { return strings.HasPrefix(r.name, as[0]) })
		x.names["credential"] = e.readers[i].credential.String()
		set("group", as[0], "POST", "/v1/groups", `{"name":"group-of-{slug}","devices":["{device}"]}`)
		set("erasure", as[0], "POST", "/v1/erasures?wait=0", `{"device":"{device}","stream":"{ticks}","undo":"24h","rest":true}`)
		set("erasure", as[0], "DELETE", "/v1/erasures/{erasure}", "") // that leaves what it was of
		set("hold", "an admin", "POST", "/v1/holds", `{"kind":"claim","reason":"{reason}","party":"{party}"}`)
		set("webhook", as[0], "POST", "/v1/webhooks", `{"name":"hook-of-{slug}","url":"https://hook-of-{slug}.invalid/"}`)
		set("alarm", as[0], "POST", "/v1/alarms", `{"name":"alarm-of-{slug}","kind":"silence","silence":"700h","device":"{device}","stream":"{stream}","webhooks":["hook-of-{slug}"]}`)
		set("delivery", as[0], "POST", "/v1/webhooks/{webhook}/test", "")
		set("command", as[0], "POST", "/v1/commands", `{"device":"{device}","name":"wish-of-{slug}","args":"wish-of-{slug}"}`)
		set("wish", as[0], "PATCH", "/v1/devices/{device}/twin", `{"as":"wish-of-{slug}"}`)
		e.plants = append(e.plants, plant{whose: slug, sort: aWish, text: "wish-of-" + slug})
		if slug == "acme" {
			continue
		}
		recipient := map[string]string{"anna": "Institute"}[slug]
		if recipient == "" {
			recipient = archive.ID
		}
		set("grant", as[0], "POST", "/v1/grants", `{"recipient":"`+recipient+`","purpose":"study","streams":["{stream}"],"until":"+1d"}`)
		set("permission", "an admin", "POST", "/v1/permissions", `{"whose":"{party}","reason":"{reason}"}`)
		set("notice", "an admin", "POST", "/v1/devices/{device}/notices", `{"reason":"{reason}"}`)
		set("house", "an admin", "POST", "/v1/parties", `{"name":"House of-{slug}","kind":"household"}`)
		e.plants = append(e.plants, plant{whose: slug, sort: aName, text: "House of-" + slug})
		set("membership", "an admin", "POST", "/v1/members", `{"of":"{house}","member":"{party}","kind":"adult"}`)
	}
	for slug, as := range map[string]string{"anna": "Anna, the owner", "ben": "Ben"} {
		var m struct{ Transfer made }
		e.must(as, "POST", "/v1/transfers", `{"device":"`+e.targets[slug].names["device"]+`"}`, &m)
		e.targets[slug].names["transfer"] = m.Transfer.ID
	}
}
