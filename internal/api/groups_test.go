package api

import (
	"encoding/csv"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
)

// lends makes a grant of an owner's to the institute.
func (h *house) lends(owner holdfast.PartyID, o policy.Obligations) {
	h.t.Helper()
	h.Grant(access.Principal{Credential: holdfast.NewID[holdfast.CredentialID](), Party: owner, Role: access.Owner}, grant.Spec{
		Recipient: h.instituteID, Purpose: "study", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: time.Now().AddDate(0, 1, 0), Obligations: o,
	})
}

// Devices of several owners are asked about together by a recipient who may read none
// of them alone.
func TestGroups(t *testing.T) {
	h := build(t, Limits{})
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-48 * time.Hour)
	h.lends(h.annaID, policy.Obligations{MinGroup: 2})
	h.lends(h.benID, policy.Obligations{MinGroup: 2})
	for _, d := range []custody.Device{h.watch, h.scale} {
		h.Send(d, querytest.At("energy", day.Add(time.Hour), holdfast.NumberValue(3)))
	}
	h.ask(h.institute, "GET", "/v1/readings?device="+h.watch.ID.String()+"&stream=energy", "").is(403).hides("group")
	h.ask(h.institute, "GET", "/v1/readings?owner="+h.annaID.String()+"&stream=energy", "").is(403).shows("declared group of at least 2")

	stranger := holdfast.NewID[holdfast.DeviceID]().String()
	body := `{"name":"street","devices":["` + h.watch.ID.String() + `","` + h.scale.ID.String() + `","` + stranger + `"]`
	h.ask(h.institute, "POST", "/v1/groups", body+`}`).is(403).shows("scope write")
	h.ask(h.admin, "POST", "/v1/groups", body+`,"every":"5h","party":"Institute"}`).is(422)
	h.ask(h.admin, "POST", "/v1/groups", body+`,"tz":"Mars","party":"Institute"}`).is(400).shows("IANA")
	h.ask(h.anna, "POST", "/v1/groups", body+`,"party":"Institute"}`).is(403)
	var g Group
	h.ask(h.admin, "POST", "/v1/groups", body+`,"party":"Institute"}`).is(201).into(&g)
	if g.Count != 3 || g.Every != "1d" || g.Zone != "UTC" || g.Party == nil || g.Party.ID != h.instituteID.String() {
		t.Errorf("%+v", g)
	}
	h.ask(h.admin, "POST", "/v1/groups", body+`,"party":"Institute"}`).is(409)
	h.ask(h.institute, "GET", "/v1/groups", "").is(200).shows(`"street"`, `"count":3`).hides(stranger)
	h.ask(h.institute, "GET", "/v1/groups/street", "").is(200).shows(stranger)
	h.ask(h.admin, "GET", "/v1/groups?party=Institute", "").is(200).shows("street")
	h.ask(h.ben, "GET", "/v1/groups", "").is(200).hides("street")
	h.ask(h.ben, "GET", "/v1/groups/"+g.ID, "").is(404)
	h.ask(h.ben, "DELETE", "/v1/groups/"+g.ID, "").is(404)

	from := "&from=" + day.Format(time.DateOnly) + "&to=" + day.Add(24*time.Hour-time.Nanosecond).Format(time.RFC3339Nano)
	read := "/v1/readings?stream=energy&group=street&agg=sum,count" + from
	h.ask(h.institute, "GET", read, "").is(200).shows(`"sum":6`, `"count":2`, `"streams":2`).hides("watch", "scale", h.watch.ID.String(), annaName)
	h.ask(h.institute, "GET", "/v1/readings?stream=energy&agg=sum&group="+g.ID+from, "").is(200).shows(`"sum":6`)
	h.ask(h.institute, "GET", read+"&format=csv", "").is(200).shows("unit,type,streams,start,end,readings,sum,count")
	h.ask(h.institute, "GET", read+"&format=columns", "").is(400)
	h.ask(h.institute, "GET", read+"&limit=1", "").is(403).shows("comes whole")
	h.ask(h.institute, "GET", "/v1/readings?stream=energy&group=street&agg=max"+from, "").is(403).shows("not max")
	h.ask(h.institute, "GET", "/v1/readings?group=street", "").is(400).shows("name the streams")
	h.ask(h.institute, "GET", "/v1/readings?group=street&stream=energy&device=watch", "").is(400)
	h.ask(h.institute, "GET", "/v1/readings?group=none&stream=energy", "").is(404)
	h.ask(h.ben, "GET", "/v1/readings?stream=energy&group="+g.ID, "").is(404)
	h.ask(h.anna, "GET", "/v1/me/recipients", "").is(200).shows("Institute")

	h.ask(h.admin, "DELETE", "/v1/groups/"+g.ID, "").is(204)
	h.ask(h.institute, "GET", read, "").is(404)
}

// What an obligation drops stands in no format.
func TestFormatsUnderObligations(t *testing.T) {
	h := build(t, Limits{})
	two := 2
	h.lends(h.annaID, policy.Obligations{Step: 10, Decimals: &two, Drop: []policy.Field{policy.FieldDevice, policy.FieldSequence, policy.FieldAltitude, policy.FieldMark}})
	s := querytest.At("place", time.Now().Add(-time.Minute), holdfast.LocationValue(holdfast.Position{Latitude: 52.229676, Longitude: 21.012229, Altitude: 113.75}))
	s.Seq = 987654
	h.Send(h.watch, s, holdfast.Sample{Stream: "steps", Value: holdfast.IntegerValue(4321), Seq: 987655})
	streams, err := h.House.Custody.StreamsOf(t.Context(), h.watch)
	h.must(err)
	hidden := []string{h.watch.ID.String(), "watch", "987654", "987655", "52.2296", "113.75", "4321", "stamped"}
	for _, s := range streams {
		hidden = append(hidden, s.ID.String(), string(s.ID[:]), string(h.watch.ID[:]))
	}
	read := "/v1/readings?owner=" + h.annaID.String()
	for _, format := range []string{"json", "ndjson", "columns", "csv", "senml"} {
		h.ask(h.institute, "GET", read+"&format="+format, "").is(200).shows("52.23", "4320").hides(hidden...)
		h.ask(h.institute, "GET", read+"&limit=1&format="+format, "").is(200).hides(hidden...)
		if format != "columns" && format != "senml" {
			h.ask(h.institute, "GET", read+"&every=1h&agg=first,last,count&by=device,profile&format="+format, "").is(200).hides(hidden...)
		}
	}
	lines, err := csv.NewReader(strings.NewReader(h.ask(h.institute, "GET", read+"&format=csv", "").is(200).body)).ReadAll()
	h.must(err)
	for _, line := range lines[1:] {
		if line[7] != "" || line[8] != "" {
			t.Errorf("sequence %q, marks %q", line[7], line[8])
		}
	}
	read += "&format=parquet"
	if n := h.found(h.ask(h.institute, "GET", read, "").is(200).body, hidden); n > 0 {
		t.Errorf("Parquet shows %d of what is hidden", n)
	}
	if n := h.found(h.ask(h.anna, "GET", read, "").is(200).body, hidden); n == 0 {
		t.Error("it would not show them to anybody")
	}
}

// found counts the values in a Parquet file that contain any of the texts.
func (h *house) found(file string, texts []string) (n int) {
	h.t.Helper()
	all, err := parquet.OpenFile(strings.NewReader(file), int64(len(file)))
	h.must(err)
	for _, group := range all.RowGroups() {
		rows := group.Rows()
		for buf := make([]parquet.Row, 100); err == nil; {
			var got int
			got, err = rows.ReadRows(buf)
			for _, row := range buf[:got] {
				for _, v := range row {
					if slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(v.String(), s) }) {
						n++
					}
				}
			}
		}
		if err != io.EOF {
			h.t.Fatal(err)
		}
		h.must(rows.Close())
		err = nil
	}
	return n
}
