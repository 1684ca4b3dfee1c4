package api

import (
	"bytes"
	"encoding/csv"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// TestClock: times are written as the standard library writes them, in any zone.
func TestClock(t *testing.T) {
	seed := testseed.Of(t)
	draw := rand.New(rand.NewPCG(seed, 1))
	for _, name := range []string{"", "UTC", "Europe/Warsaw", "Asia/Kolkata", "America/St_Johns", "Africa/Monrovia", "Pacific/Apia", "Australia/Lord_Howe"} {
		c := clock{}
		zone := time.UTC
		if name != "" {
			var err error
			if zone, err = query.ParseZone(name); err != nil {
				t.Fatal(err)
			}
			c.zone = zone
		}
		at := int64(0)
		for i := range 20_000 {
			switch draw.IntN(8) {
			case 0:
				at = int64(draw.Uint64())
			case 1:
				at += draw.Int64N(86400e9)
			case 2:
				at = at/1e9*1e9 + draw.Int64N(1000)*1e6
			default:
				at += draw.Int64N(30 * 60e9)
			}
			want := time.Unix(0, at).In(zone).Format(time.RFC3339Nano)
			if got := string(c.append(nil, at)); got != want {
				t.Fatalf("time %d of %s, %d: %s, want %s", i, name, at, got, want)
			}
		}
	}
}

// TestCells: a text in CSV is in quotes where encoding/csv puts it in quotes.
func TestCells(t *testing.T) {
	for _, s := range []string{"", "a", "a,b", `say "on"`, "two\nlines", "cr\r", " front", "back ", "\u00a0wide", `\.`, "é", "\xff", "=1+1", "\ttab", `"`} {
		var want bytes.Buffer
		w := csv.NewWriter(&want)
		w.Write([]string{"x", s})
		w.Flush()
		if got := "x," + string(appendCell(nil, s)) + "\n"; got != want.String() {
			t.Errorf("%q is written %q, want %q", s, got, want.String())
		}
	}
}

// TestWindowsOfManyDevices: what the API says of groups, calendars and fills, in each
// format.
func TestWindowsOfManyDevices(t *testing.T) {
	h := build(t, Limits{})
	from := time.Now().Add(-30 * time.Minute).UTC().Format(time.RFC3339)
	base := "/v1/readings?from=" + from + "&every=1y&agg=count,p50,max"
	h.ask(h.admin, "GET", base+"&stream=temperature&by=none", "").is(200).
		shows(`"type":"number","streams":1`, `"readings":10,"count":10,"p50":24.5,"max":29.5`).hides("pump-1", "61")
	h.ask(h.admin, "GET", base+"&device=*&by=stream,profile&format=ndjson", "").is(200).shows(`"stream":"state","profile":"","type":"text"`, `"p50":null`).hides(annaName)
	h.ask(h.anna, "GET", base+"&stream=pulse&by=owner&format=csv", "").is(200).
		shows("owner,unit,type,streams,start,end,readings,count,p50,max\n" + h.annaID.String() + ",,number,1,").hides("temperature")
	h.ask(h.anna, "GET", "/v1/readings?stream=pulse&every=1d&tz=Asia/Kolkata&from="+from, "").is(200).shows(`T00:00:00+05:30"`)
	h.ask(h.anna, "GET", "/v1/readings?stream=pulse&tz=Asia/Kolkata&from="+from, "").is(200).shows(`+05:30"`).hides(`Z"`)
	h.ask(h.admin, "GET", "/v1/readings?stream=pulse&owner="+h.annaID.String()+"&every=1h&by=none", "").is(403).hides("61")
	h.ask(h.admin, "GET", "/v1/readings?device=pump-1&stream=state&every=1h&agg=rate", "").is(400).shows("count, first and last only")
	h.ask(h.admin, "GET", base+"&stream=temperature&by=none&limit=1", "").is(200)
	filled := h.ask(h.admin, "GET", "/v1/readings?device=pump-1&stream=temperature&every=1m&fill=0&from="+from, "").is(200).shows(`"readings":0,"mean":0`)
	if n := strings.Count(filled.body, "start"); n < 29 || n > 32 {
		t.Error(n, "windows of 30 minutes up to now")
	}

	file := h.ask(h.admin, "GET", base+"&owner=Acme&by=device,stream&format=parquet", "").is(200).body
	r := parquet.NewGenericReader[any](strings.NewReader(file))
	defer r.Close()
	var columns []string
	for _, f := range r.Schema().Fields() {
		columns = append(columns, f.Name())
	}
	if got := strings.Join(columns, ","); got != "device,label,stream,unit,type,streams,start,end,readings,count,p50,max" {
		t.Error(got)
	}
	rows := make([]parquet.Row, 3)
	if n, _ := r.ReadRows(rows); n != 2 {
		t.Fatal(n, "rows")
	}
	if s, temperature := rows[0], rows[1]; s[2].String() != "state" || !s[10].IsNull() || s[8].Int64() != 10 ||
		temperature[2].String() != "temperature" || temperature[10].Double() != 24.5 || temperature[11].Double() != 29.5 {
		t.Error(rows[:2])
	}
}
