package server

import (
	"net/url"
	"strings"
)

// way is one question that a route can be asked. What stands in braces is of the
// target that it is about; a question without braces is about the asker himself.
type way struct{ path, body string }

// ask is how a route of port 8443 is asked. The order of the list is that of the
// asking: first what only reads, then what changes, last what ends.
type ask struct {
	route string
	ways  []way
}

func get(paths ...string) (ways []way) {
	for _, p := range paths {
		ways = append(ways, way{path: p})
	}
	return ways
}

func send(path string, bodies ...string) (ways []way) {
	for _, b := range bodies {
		ways = append(ways, way{path, b})
	}
	return ways
}

// asks says how to ask every route of port 8443. A new route gets a line here: every
// way in which it might give out something, about each target.
func asks() []ask {
	const nobodys = "nothing:aaaaaaaaaaaaaaaaaaaaaaaaaa"
	return append([]ask{
		{"/", get("/", "/v1", "/v1/nothing/{device}", "/v1/devices/{device}/readings")},
		{"/.well-known/est/", get("/.well-known/est/cacerts", "/.well-known/est/csrattrs", "/.well-known/est/{device}")},
		{"GET /healthz", get("/healthz")},
		{"GET /readyz", get("/readyz")},
		{"GET /metrics", get("/metrics")},
		{"GET /openapi.json", get("/openapi.json")},
		{"GET /ledger/checkpoint", get("/ledger/checkpoint")},
		{"GET /ledger/renewals", get("/ledger/renewals")},
		{"GET /ledger/tile/{tile...}", get("/ledger/tile/0/000", "/ledger/tile/entries/000", "/ledger/tile/0/000.p/8", "/ledger/tile/entries/000.p/8")},
		{"GET /v1/ca.pem", get("/v1/ca.pem")},
		{"GET /v1/doctor", get("/v1/doctor")},
		{"GET /v1/recovery", get("/v1/recovery")},
		{"GET /v1/issuers", get("/v1/issuers")},
		{"GET /v1/invitations", get("/v1/invitations")},

		{"GET /v1/readings", readingsWays()},
		{"GET /v1/feed", feedWays()},
		{"GET /v1/feed/delay", get("/v1/feed/delay")},
		{"GET /v1/decisions", get("/v1/decisions?reader=Institute&purpose=study", "/v1/decisions?reader=Institute&purpose=study&device={device}",
			"/v1/decisions?reader=Lab&purpose=study&device={label}&stream={stream}", "/v1/decisions?reader={party}&purpose=own-access&device={device}",
			"/v1/decisions?reader=Acme+Plants&purpose=operation&device={device}")},
		{"POST /v1/exports", send("/v1/exports", `{}`, `{"party":"{party}"}`, `{"party":"{name}"}`)},

		{"GET /v1/backups", get("/v1/backups")},
		{"GET /v1/backups/{id}/pieces/{n}", get("/v1/backups/{device}/pieces/0", "/v1/backups/{device}/pieces/1?count=3")},

		{"GET /v1/me", get("/v1/me")},
		{"GET /v1/me/recipients", get("/v1/me/recipients")},
		{"GET /v1/me/disclosures", get("/v1/me/disclosures", "/v1/me/disclosures?recipient={party}", "/v1/me/disclosures?grant={grant}")},
		{"GET /v1/me/report", get("/v1/me/report")},
		{"GET /v1/me/purposes", get("/v1/me/purposes")},
		{"GET /v1/me/data", get("/v1/me/data")},
		{"GET /v1/me/ledger", get("/v1/me/ledger")},
		{"GET /v1/me/notices", get("/v1/me/notices")},
		{"GET /v1/me/permissions", get("/v1/me/permissions")},
		{"GET /v1/me/sessions", get("/v1/me/sessions")},
		{"GET /v1/me/factor", get("/v1/me/factor")},

		{"GET /v1/parties", get("/v1/parties")},
		{"GET /v1/parties/{id}", get("/v1/parties/{party}", "/v1/parties/{name}")},
		{"GET /v1/parties/{id}/invitations", get("/v1/parties/{party}/invitations")},
		{"GET /v1/members", get("/v1/members", "/v1/members?of={party}", "/v1/members?of={house}")},
		{"GET /v1/tokens", get("/v1/tokens", "/v1/tokens?party={party}")},
		{"GET /v1/devices", get("/v1/devices", "/v1/devices?owner={party}", "/v1/devices?owner={name}", "/v1/devices?unclaimed=true")},
		{"GET /v1/devices/{id}", get("/v1/devices/{device}", "/v1/devices/{label}")},
		{"GET /v1/devices/{id}/twin", get("/v1/devices/{device}/twin", "/v1/devices/{label}/twin")},
		{"GET /v1/commands", get("/v1/commands?device={device}", "/v1/commands?device={label}&state=queued")},
		{"GET /v1/commands/{id}", get("/v1/commands/{command}", "/v1/commands/{command}?wait=1")},
		{"GET /v1/assignments", get("/v1/assignments?device={device}", "/v1/assignments?device={label}")},
		{"GET /v1/assignments/{id}", get("/v1/assignments/{assignment}")},
		{"GET /v1/assignments/{id}/history", get("/v1/assignments/{assignment}/history")},
		{"GET /v1/profiles", get("/v1/profiles")},
		{"GET /v1/profiles/{name}", get("/v1/profiles/{label}")},
		{"GET /v1/purposes", get("/v1/purposes")},
		{"GET /v1/purposes/{name}", get("/v1/purposes/study")},
		{"GET /v1/retention/rules", get("/v1/retention/rules")},
		{"GET /v1/retention/due", get("/v1/retention/due")},
		{"GET /v1/grants", get("/v1/grants")},
		{"GET /v1/grants/{id}", get("/v1/grants/{grant}")},
		{"GET /v1/grants/{id}/receipt", get("/v1/grants/{grant}/receipt")},
		{"GET /v1/grants/{id}/agreement", get("/v1/grants/{grant}/agreement")},
		{"GET /v1/groups", get("/v1/groups", "/v1/groups?party={party}")},
		{"GET /v1/groups/{group}", get("/v1/groups/{group}", "/v1/groups/group-of-{slug}")},
		{"GET /v1/holds", get("/v1/holds")},
		{"GET /v1/holds/{id}", get("/v1/holds/{hold}")},
		{"GET /v1/alarms", get("/v1/alarms")},
		{"GET /v1/alarms/{id}", get("/v1/alarms/{alarm}", "/v1/alarms/alarm-of-{slug}")},
		{"GET /v1/alarms/{id}/history", get("/v1/alarms/{alarm}/history", "/v1/alarms/alarm-of-{slug}/history")},
		{"GET /v1/webhooks", get("/v1/webhooks")},
		{"GET /v1/deliveries", get("/v1/deliveries")},
		{"GET /v1/permissions", get("/v1/permissions", "/v1/permissions?whose={party}")},
		{"GET /v1/transfers", get("/v1/transfers")},
		{"GET /v1/notices", get("/v1/notices")},
		{"GET /v1/joint-erasures", get("/v1/joint-erasures")},
		{"GET /v1/erasures", get("/v1/erasures")},
		{"GET /v1/rekeys", get("/v1/rekeys")},
		{"GET /v1/rekeys/{id}", get("/v1/rekeys/{erasure}")},
		{"GET /v1/erasures/{id}", get("/v1/erasures/{erasure}")},
		{"GET /v1/erasures/{id}/retractions", get("/v1/erasures/{erasure}/retractions")},
		{"GET /v1/retractions", get("/v1/retractions")},
		{"GET /v1/ledger", get("/v1/ledger")},
		{"GET /v1/ledger/entries", get("/v1/ledger/entries", "/v1/ledger/entries?record=hub", "/v1/ledger/entries?record=own", "/v1/ledger/entries?device={device}",
			"/v1/ledger/entries?device={label}")},
		{"GET /v1/ledger/entries/{index}/proof", get("/v1/ledger/entries/3/proof", "/v1/ledger/entries/{index}/proof", "/v1/ledger/entries/{index}/proof?device={device}")},
		{"GET /v1/ledger/consistency", get("/v1/ledger/consistency?from=1")},
		{"POST /v1/backups", send("/v1/backups", `{}`, `{"keep":86400}`)},
		{"POST /v1/backups/{id}/finish", send("/v1/backups/{device}/finish", `{"list":"","written":0,"recipients":["{name}"]}`)},
		{"POST /v1/backups/drills", send("/v1/backups/drills", `{"at":"2026-11-23T00:00:00Z"}`)},
		{"POST /v1/ledger/verify", send("/v1/ledger/verify", `{}`)},
	}, append(prometheusAsks(), changes(nobodys)...)...)
}

// feedWays follows what is stored, by each name that the target has. A feed has no
// end: whoever is let in gets what comes within a moment.
func feedWays() (ways []way) {
	for _, s := range []string{"device={device}&stream={stream}", "device={label}", "owner={party}", "stream={stream}", "owner={name}&device=*", "device={device}&purpose=study"} {
		for _, f := range []string{"sse", "ndjson"} {
			ways = append(ways, way{path: "/v1/feed?from=2000-01-01&" + s + "&format=" + f})
		}
	}
	return append(ways, get("/v1/feed?device={device}", "/v1/feed?device={device}&after=AAAA", "/v1/feed?device={device}&grant={grant}&from=-1d")...)
}

// prometheusAsks asks the Prometheus API for each target by the names that its series
// could have, and for everything that there is.
func prometheusAsks() (all []ask) {
	expressions := []string{`{device="{label}"}`, `{device="{device}"}`, `{owner="{name}"}`, `{owner="{party}"}`, `{stream="{stream}"}`, `{__name__=~".+"}`}
	var now, long, listed []way
	for _, e := range expressions {
		q := url.Values{"query": {e}, "match[]": {e}}.Encode()
		q = strings.NewReplacer("%7Bdevice%7D", "{device}", "%7Blabel%7D", "{label}", "%7Bname%7D", "{name}", "%7Bparty%7D", "{party}", "%7Bstream%7D", "{stream}").Replace(q)
		now = append(now, way{path: "/api/v1/query?lookback_delta=10y&" + q})
		long = append(long, way{path: "/api/v1/query_range?lookback_delta=10y&start=1700000000&end=1900000000&step=8640000&" + q})
		listed = append(listed, way{path: "?" + q})
	}
	for _, e := range []string{`last_over_time({stream="{stream}"}[10y])`, `sum_over_time({device="{label}"}[10y])`, `{__name__=~".+"}[10y]`, `min_over_time({__name__=~".+"}[10y:1y])`} {
		q := strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(e), "%7Bstream%7D", "{stream}"), "%7Blabel%7D", "{label}")
		now = append(now, way{path: "/api/v1/query?query=" + q})
	}
	under := func(path string) (ways []way) {
		for _, w := range listed {
			ways = append(ways, way{path: path + w.path})
		}
		return ways
	}
	return []ask{
		{"GET /api/v1/query", now},
		{"GET /api/v1/query_range", long},
		{"GET /api/v1/labels", under("/api/v1/labels")},
		{"GET /api/v1/series", under("/api/v1/series")},
		{"GET /api/v1/metadata", get("/api/v1/metadata", "/api/v1/metadata?metric={stream}")},
		{"GET /api/v1/label/{name}/values", get("/api/v1/label/__name__/values", "/api/v1/label/device/values", "/api/v1/label/owner/values", "/api/v1/label/stream/values", "/api/v1/label/{label}/values")},
		{"GET /api/v1/format_query", get("/api/v1/format_query?query={stream}")},
		{"GET /api/v1/status/buildinfo", get("/api/v1/status/buildinfo")},
		{"GET /api/v1/query_exemplars", get("/api/v1/query_exemplars?query={stream}")},
		{"GET /api/v1/rules", get("/api/v1/rules")},
		{"GET /api/v1/alerts", get("/api/v1/alerts")},
		{"POST /api/v1/query", now},
		{"POST /api/v1/query_range", long},
		{"POST /api/v1/labels", under("/api/v1/labels")},
		{"POST /api/v1/series", under("/api/v1/series")},
		{"POST /api/v1/format_query", get("/api/v1/format_query?query={stream}")},
		{"POST /api/v1/query_exemplars", get("/api/v1/query_exemplars?query={stream}")},
	}
}

// readingsWays asks for readings in each form, by each name that the target has.
func readingsWays() (ways []way) {
	selections := []string{"device={device}&stream={stream}", "device={device}", "device={label}", "owner={party}", "stream={stream}", "owner={name}&device=*"}
	for _, s := range selections {
		for _, f := range []string{"json", "ndjson", "columns", "csv", "senml", "parquet"} {
			ways = append(ways, way{path: "/v1/readings?" + s + "&format=" + f})
		}
	}
	for _, q := range []string{
		"every=1h&agg=count,min,max,mean,first,last,sum,p50", "every=1d&agg=min,max,mean&by=owner,unit", "every=1h&agg=count,last&fill=previous", "every=1d&agg=count,sum&by=none",
	} {
		for _, f := range []string{"json", "ndjson", "csv", "parquet"} {
			ways = append(ways, way{path: "/v1/readings?device={device}&stream={stream}&" + q + "&format=" + f})
		}
		ways = append(ways, way{path: "/v1/readings?owner={party}&" + q})
	}
	for _, purpose := range []string{"own-access", "operation", "study"} {
		ways = append(ways, way{path: "/v1/readings?device={device}&stream={stream}&purpose=" + purpose})
	}
	return append(ways, get("/v1/readings?group={group}&stream={stream}&agg=count,mean", "/v1/readings?group=group-of-{slug}&stream={stream}",
		"/v1/readings?device={device}&stream={ticks}&limit=7", "/v1/readings?device={device}&stream={ticks}&every=1d&agg=count,sum",
		"/v1/readings?device={device}&grant={grant}", "/v1/readings?stream={stream}&from=2099-01-01&to=2000-01-01",
		"/v1/readings?device={device}&agg="+url.QueryEscape("mean"), "/v1/readings?device={device}&cursor=AAAA")...)
}

// changes are the routes that change something. Who stands for nothing of a target
// changes nothing of it; who does is told no more than by asking.
func changes(nobodys string) []ask {
	return []ask{
		{"POST /v1/parties", send("/v1/parties", `{"name":"New `+"{slug}"+`","kind":"person"}`)},
		{"POST /v1/parties/{id}/invitations", send("/v1/parties/{party}/invitations", "")},
		{"POST /v1/invitations/redeem", send("/v1/invitations/redeem", `{"code":"{device}"}`)},
		{"POST /v1/members", send("/v1/members", `{"of":"{house}","member":"{party}","kind":"adult"}`)},
		{"POST /v1/members/{id}/acceptance", send("/v1/members/{membership}/acceptance", "")},
		{"POST /v1/tokens", send("/v1/tokens", `{"label":"more","party":"{party}","role":"program","purposes":["study"]}`)},
		{"POST /v1/devices", send("/v1/devices", `{"label":"another","owner":"{party}"}`, `{"label":"{label}","owner":"{party}"}`)},
		{"POST /v1/devices/{id}/codes", send("/v1/devices/{device}/codes", `{}`, `{"kind":"claim"}`)},
		{"POST /v1/commands", send("/v1/commands", `{"device":"{device}","name":"on"}`, `{"device":"{label}","name":"on"}`)},
		{"DELETE /v1/commands/{id}", get("/v1/commands/{command}")},
		{"PUT /v1/devices/{id}/twin", send("/v1/devices/{device}/twin", `{"on":true}`)},
		{"PATCH /v1/devices/{id}/twin", send("/v1/devices/{device}/twin", `{"on":false}`, `{"on":null}`)},
		{"POST /v1/units", send("/v1/units?owner={party}", "serial,label\ns-1,{label}\n")},
		{"POST /v1/profiles", send("/v1/profiles", "name: {label}\n")},
		{"POST /v1/claims", send("/v1/claims", `{"code":"{device}"}`)},
		{"POST /v1/purposes", send("/v1/purposes", `{"name":"more","iri":"dpv:ServiceProvision","legal_basis":"consent","text":"{slug}"}`)},
		{"POST /v1/grants", send("/v1/grants", `{"recipient":"Lab","purpose":"nothing","devices":["{device}"],"streams":["{stream}"],"until":"+1d"}`)},
		{"POST /v1/groups", send("/v1/groups", `{"name":"mine {slug}","devices":["{device}"]}`, `{"name":"by label","devices":["{label}"]}`)},
		{"POST /v1/holds", send("/v1/holds", `{"kind":"claim","reason":"none","devices":["{device}"],"party":"{party}"}`)},
		{"POST /v1/permissions", send("/v1/permissions", `{"whose":"{party}","reason":"none","devices":["{device}"]}`)},
		{"POST /v1/permissions/{id}/approve", send("/v1/permissions/"+nobodys+"/approve", "")},
		{"POST /v1/permissions/{id}/refuse", send("/v1/permissions/{permission}/refuse", "")},
		{"POST /v1/assignments", send("/v1/assignments", `{"device":"{device}","subject":"{party}","basis":"loan","from":"2031-01-01","to":"2031-02-01"}`)},
		{"POST /v1/assignments/{id}/terms", send("/v1/assignments/{assignment}/terms", `{"to":"2031-01-01"}`)},
		{"POST /v1/assignments/{id}/end", send("/v1/assignments/{assignment}/end", `{}`)},
		{"POST /v1/devices/{id}/notices", send("/v1/devices/{device}/notices", `{"reason":"none"}`)},
		{"POST /v1/transfers", send("/v1/transfers", `{"device":"{device}"}`)},
		{"POST /v1/transfers/taking", send("/v1/transfers/taking", `{"transfer":"{transfer}"}`, `{"code":"{device}"}`)},
		{"POST /v1/me/links", send("/v1/me/links", `{"login":"{device}"}`)},
		{"POST /v1/me/factor/confirm", send("/v1/me/factor/confirm", `{"code":"123456"}`)},
		{"POST /v1/me/factor", send("/v1/me/factor", "")},
		{"DELETE /v1/me/factor", get("/v1/me/factor")},
		{"POST /v1/alarms", send("/v1/alarms", `{"name":"one","kind":"threshold","op":"above","level":1,"device":"{device}","stream":"{stream}"}`,
			`{"name":"all","kind":"silence","silence":"1h","owner":"{party}","stream":"{stream}"}`, `{"name":"label","kind":"silence","silence":"1h","device":"{label}","stream":"{stream}","message":"{device}"}`)},
		{"POST /v1/alarms/{id}", send("/v1/alarms/{alarm}", `{"name":"other","kind":"silence","silence":"2h","device":"{device}","stream":"{stream}"}`)},
		{"POST /v1/alarms/{id}/ack", send("/v1/alarms/{alarm}/ack", `{"note":"seen"}`)},
		{"POST /v1/alarms/{id}/mute", send("/v1/alarms/{alarm}/mute", `{"until":"+1h","reason":"quiet"}`)},
		{"POST /v1/alarms/{id}/test", send("/v1/alarms/{alarm}/test", "")},
		{"POST /v1/recovery", send("/v1/recovery", `{"id":"x","hub":"x","threshold":2,"public_key":"","made":"2026-01-01T00:00:00Z","shareholders":[]}`)},
		{"POST /v1/recovery/challenge", send("/v1/recovery/challenge", "")},
		{"POST /v1/recovery/answer", send("/v1/recovery/answer", `{"answer":"AAAA"}`)},
		{"POST /v1/recovery/destroyed", send("/v1/recovery/destroyed", `{"code":"aaaaaaaaaaaaaaaaaaaaaaaaaa"}`)},
		{"DELETE /v1/recovery", get("/v1/recovery")},
		{"POST /v1/webhooks", send("/v1/webhooks", `{"name":"hook","url":"https://hook.invalid/"}`)},
		{"POST /v1/webhooks/{id}/rotate", send("/v1/webhooks/{webhook}/rotate", "")},
		{"POST /v1/webhooks/{id}/test", send("/v1/webhooks/{webhook}/test", "")},
		{"POST /v1/deliveries/{id}/retry", send("/v1/deliveries/{delivery}/retry", "")},
		{"POST /v1/joint-erasures/{id}/confirmation", send("/v1/joint-erasures/{joint}/confirmation", "")},

		{"DELETE /v1/deliveries/{id}", get("/v1/deliveries/{delivery}")},
		{"DELETE /v1/alarms/{id}", get("/v1/alarms/{alarm}")},
		{"DELETE /v1/webhooks/{id}", get("/v1/webhooks/{webhook}")},
		{"DELETE /v1/joint-erasures/{id}", get("/v1/joint-erasures/{joint}")},
		{"DELETE /v1/notices/{id}", get("/v1/notices/{notice}")},
		{"DELETE /v1/transfers/{id}", get("/v1/transfers/{transfer}")},
		{"DELETE /v1/groups/{group}", get("/v1/groups/{group}")},
		{"DELETE /v1/members/{id}", get("/v1/members/{membership}")},
		{"DELETE /v1/permissions/{id}", get("/v1/permissions/{permission}")},
		{"DELETE /v1/holds/{id}", get("/v1/holds/{hold}")},
		{"DELETE /v1/grants/{id}", get("/v1/grants/{grant}")},
		{"PUT /v1/retention/rules", send("/v1/retention/rules", `{"category":"pd:Location","days":4000}`)},
		{"DELETE /v1/retention/rules", get("/v1/retention/rules")},
		{"POST /v1/retention/runs", send("/v1/retention/runs", "")},
		{"DELETE /v1/purposes/{name}", get("/v1/purposes/{slug}")},
		{"POST /v1/purposes/{name}/revival", send("/v1/purposes/{slug}/revival", "")},
		{"POST /v1/devices/{id}/revocation", send("/v1/devices/{device}/revocation", `{"reason":"none"}`)},
		{"POST /v1/devices/{id}/release", send("/v1/devices/{device}/release", "")},
		{"POST /v1/erasures/preview", send("/v1/erasures/preview", `{"device":"{device}"}`, `{"device":"{device}","stream":"{ticks}","from":"2000-01-01"}`, `{"party":"{party}","rest":true}`,
			`{"device":"{device}","category":"pd:Location"}`, `{"device":"{device}","whose":"{party}"}`)},
		{"POST /v1/retractions/{id}/ack", send("/v1/retractions/{retraction}/ack", "")},
		{"POST /v1/erasures/{id}/approve", send("/v1/erasures/{erasure}/approve", "")},
		{"POST /v1/erasures/{id}/refuse", send("/v1/erasures/{erasure}/refuse", "")},
		{"DELETE /v1/erasures/{id}", get("/v1/erasures/{erasure}")},
		{"POST /v1/erasures", send("/v1/erasures?wait=0", `{"device":"{device}","stream":"{ticks}"}`, `{"party":"{party}"}`)},
		{"POST /v1/rekeys", send("/v1/rekeys", `{"party":"{party}"}`)},
		{"DELETE /v1/me/data", get("/v1/me/data?wait=0")},
		{"DELETE /v1/me/sessions/{id}", get("/v1/me/sessions/{credential}")},
		{"DELETE /v1/tokens/{id}", get("/v1/tokens/{credential}")},
		{"DELETE /v1/me/sessions", get("/v1/me/sessions")},
	}
}

// about fills a way in for a target, and reports whether it is about one.
func (w way) about(x *target) (path, body string, mentions bool) {
	var pairs, escaped []string
	for name, value := range x.names {
		pairs = append(pairs, "{"+name+"}", value)
		escaped = append(escaped, "{"+name+"}", url.PathEscape(value))
		mentions = mentions || strings.Contains(w.path+w.body, "{"+name+"}")
	}
	return strings.NewReplacer(escaped...).Replace(w.path), strings.NewReplacer(pairs...).Replace(w.body), mentions
}
