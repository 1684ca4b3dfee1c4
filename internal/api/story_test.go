package api

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/archive"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/receipt"
	"github.com/holdfast-iot/holdfast/internal/senml"
)

func timeOf(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

// table is the answer in JSON.
type table struct {
	Purpose  string
	Withheld int
	Rows     []map[string]any
	Next     string
}

// An owner grants, a recipient reads, the owner sees it and takes the grant back.
func TestGrantReadAndTakeBack(t *testing.T) {
	h := build(t, Limits{})
	watch := h.watch.ID.String()
	h.ask(h.institute, "GET", "/v1/readings?device="+watch, "").is(403).shows("grant").hides("pulse")
	var g Grant
	h.ask(h.anna, "POST", "/v1/grants", `{"recipient":"Institute","purpose":"study","until":"+30d","devices":["watch"],"streams":["pulse"]}`).is(201).into(&g)
	h.ask(h.anna, "GET", "/v1/decisions?reader=Institute&purpose=study&device=watch&stream=pulse", "").is(200).
		shows(`"allowed":true`, `"grant":"`+g.ID+`"`, "grant of the owner", "permit (")
	h.ask(h.anna, "GET", "/v1/decisions?reader=Institute&purpose=operation&device=watch&stream=pulse", "").is(200).shows(`"allowed":false`).hides(g.ID)
	h.ask(h.anna, "GET", "/v1/decisions?reader=nobody&purpose=study&device=watch", "").is(404)

	var got table
	h.ask(h.institute, "GET", "/v1/readings?device="+watch+"&stream=pulse", "").is(200).hides(annaName).into(&got)
	if len(got.Rows) != 10 || got.Purpose != "study" || got.Rows[0]["value"] != 61.0 || got.Rows[9]["value"] != 70.0 {
		t.Errorf("read %+v", got)
	}
	h.ask(h.institute, "GET", "/v1/readings?owner="+h.annaID.String(), "").is(200).shows("pulse")

	h.ask(h.anna, "GET", "/v1/me/recipients", "").is(200).shows("Institute", `"purpose":"study"`, `"stream":"pulse"`, g.ID)
	h.ask(h.anna, "GET", "/v1/me/disclosures?limit=1&purpose=study", "").is(200).shows("Institute", `"reason":"grant of the owner"`)
	h.ask(h.anna, "GET", "/v1/me/disclosures?after=x", "").is(400)
	h.ask(h.ben, "GET", "/v1/me/disclosures", "").is(200).hides("Institute", "pulse")
	report := h.ask(h.anna, "GET", "/v1/me/report", "").is(200).shows("Institute", "watch/pulse", annaName)
	if r, err := receipt.VerifyReport([]byte(report.body), h.House.Ledger.VerifierKey()); err != nil || r.PersonID != h.annaID.String() {
		t.Errorf("%+v, %v", r.Person, err)
	}
	if paper := h.ask(h.institute, "GET", "/v1/grants/"+g.ID+"/receipt", "").is(200); paper.body != "" {
		if c, err := receipt.Verify([]byte(paper.body), h.House.Ledger.VerifierKey()); err != nil || c.State != "given" || c.Recipient != "Institute" {
			t.Errorf("%+v, %v", c, err)
		}
	}
	h.ask(h.ben, "GET", "/v1/grants/"+g.ID+"/receipt", "").is(404)
	h.ask(h.anna, "GET", "/v1/me/purposes", "").is(200).shows("To show study.", g.ID, "own-access")
	h.ask(h.anna, "GET", "/v1/grants/"+g.ID, "").is(200).shows(`"live":true`)
	h.ask(h.institute, "DELETE", "/v1/grants/"+g.ID, "").is(403)
	h.ask(h.anna, "DELETE", "/v1/grants/"+g.ID, "").is(204)
	h.ask(h.institute, "GET", "/v1/readings?device="+watch, "").is(403)
	h.ask(h.anna, "DELETE", "/v1/grants/"+g.ID, "").is(409)
}

func TestReadingsInEveryFormat(t *testing.T) {
	h := build(t, Limits{})
	d := h.Device(custody.DeviceSpec{Label: "lab"})
	at := time.Now().Add(-time.Minute)
	send := func(stream string, v holdfast.Value) { h.Send(d, querytest.At(stream, at, v)) }
	send("nan", holdfast.NumberValue(math.NaN()))
	send("inf", holdfast.NumberValue(math.Inf(-1)))
	send("tiny", holdfast.NumberValue(5e-324))
	send("big", holdfast.IntegerValue(math.MaxInt64))
	send("on", holdfast.BooleanValue(true))
	send("words", holdfast.TextValue("a,\"b\"\n=1+1"))
	send("raw", holdfast.BytesValue([]byte{0, 255, 7}))
	send("place", holdfast.LocationValue(holdfast.Position{Latitude: 48.1, Longitude: 11.5, Altitude: math.NaN()}))

	stamp := at.UTC().Format(time.RFC3339Nano)
	h.ask(h.admin, "GET", "/v1/readings?device=lab", "").is(200).shows(stamp, `"value":"NaN"`, `"value":"-Infinity"`, `"value":5e-324`,
		`"value":9223372036854775807`, `"value":true`, `"value":"AP8H"`, `"value":{"latitude":48.1,"longitude":11.5}`, `"type":"location"`, `"purpose":"operation"`)
	lines := strings.Split(strings.TrimSpace(h.ask(h.admin, "GET", "/v1/readings?device=lab&format=ndjson", "").is(200).body), "\n")
	if len(lines) != 9 || !strings.Contains(lines[8], `"done":true,"rows":8`) {
		t.Errorf("lines %q", lines)
	}
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Errorf("not JSON: %s", l)
		}
	}

	rows, err := csv.NewReader(strings.NewReader(h.ask(h.admin, "GET", "/v1/readings?device=lab&format=csv", "").is(200).body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, r := range rows[1:] {
		values[r[2]] = r[6]
	}
	want := map[string]string{"nan": "NaN", "inf": "-Infinity", "tiny": "5e-324", "big": "9223372036854775807", "on": "true", "words": "a,\"b\"\n=1+1",
		"raw": "AP8H", "place": "48.1 11.5"}
	if diff := cmp.Diff(want, values); diff != "" {
		t.Errorf("CSV: %s", diff)
	}

	// What goes out as SenML is what would come in.
	r := newRequest("GET", "/v1/readings?device=lab", "")
	r.Header.Set("Accept", senml.MediaJSON)
	samples, err := senml.DecodeJSON([]byte(h.do(h.admin, r).is(200).body), time.Now().UnixNano())
	if err != nil || len(samples) != 8 {
		t.Fatalf("%d samples: %v", len(samples), err)
	}
	for _, s := range samples {
		if s.Time != at.UnixNano() || s.Stream == "big" && s.Value.Integer() != math.MaxInt64 {
			t.Errorf("sample %+v", s)
		}
	}
	h.ask(h.admin, "GET", "/v1/readings?owner=Acme&format=senml", "").is(200).shows(`"n":"` + h.pump.ID.String() + "/temperature")

	windows := h.ask(h.admin, "GET", "/v1/readings?device=pump-1&stream=temperature&every=1d&agg=count,mean,max&from=-2d&format=csv", "").is(200)
	if !strings.HasPrefix(windows.body, "device,label,stream,unit,type,start,end,readings,count,mean,max\n") || !strings.Contains(windows.body, "29.5\n") {
		t.Errorf("windows %s", windows.body)
	}
	h.ask(h.admin, "GET", "/v1/readings?device=pump-1&stream=state&every=1d&from=-2d&agg=last,count", "").is(200).shows(`ok, \"fine\"`)
	h.ask(h.admin, "GET", "/v1/readings?stream=temperature", "").is(200).shows("29.5")
	h.ask(h.admin, "GET", "/v1/readings?device=pump-1&from=1990-01-01&to=1990-01-02", "").is(200).shows(`"rows":[`).hides("temperature")
}

// Pages give each reading once, whatever their size.
func TestPagesOfReadings(t *testing.T) {
	h := build(t, Limits{})
	for _, size := range []int{1, 3, 7, 20, 100} {
		seen, cursor := 0, ""
		for pages := 0; ; pages++ {
			if pages > 25 {
				t.Fatalf("pages of %d have no end", size)
			}
			var got table
			h.ask(h.admin, "GET", "/v1/readings?device=pump-1&limit="+strconv.Itoa(size)+"&cursor="+cursor, "").is(200).into(&got)
			seen += len(got.Rows)
			if cursor = got.Next; cursor == "" {
				break
			}
		}
		if seen != 20 {
			t.Errorf("pages of %d give %d readings, want 20", size, seen)
		}
	}
}

// An erasure ends with a certificate that anybody can check, and that the erased
// can still fetch.
func TestEraseWithCertificate(t *testing.T) {
	h := build(t, Limits{})
	var e Erasure
	h.ask(h.anna, "POST", "/v1/erasures?wait=60", `{"device":"watch","stream":"pulse"}`).is(200).hides("pulse", "watch").into(&e)
	if _, err := erasure.VerifyCertificate([]byte(e.Certificate), e.Verifier); err != nil || e.State != "done" || len(e.Streams) != 1 {
		t.Fatalf("erasure %+v: %v", e, err)
	}
	h.ask(h.anna, "GET", "/v1/readings?device=watch&stream=pulse", "").is(404)

	e = Erasure{}
	h.ask(h.anna, "DELETE", "/v1/me/data?wait=60", "").is(200).into(&e)
	h.ask(h.anna, "GET", "/v1/me", "").is(401)
	var again Erasure
	h.ask("", "GET", "/v1/erasures/"+e.ID+"?wait=1", "").is(200).into(&again)
	if diff := cmp.Diff(e, again); diff != "" || !e.Whole {
		t.Errorf("fetched without a credential: %s", diff)
	}
	if _, err := erasure.VerifyCertificate([]byte(e.Certificate), e.Verifier); err != nil {
		t.Error(err)
	}
	h.ask("", "GET", "/v1/erasures", "").is(401)
	h.ask(h.admin, "GET", "/v1/parties", "").is(200).hides(annaName)
	h.ask(h.admin, "GET", "/v1/readings?owner="+h.annaID.String(), "").is(404)
	var r ledger.Report
	h.ask(h.admin, "POST", "/v1/ledger/verify", "").is(200).into(&r)
	if len(r.Faults) > 0 || r.Erased == 0 {
		t.Errorf("ledger %+v", r)
	}
}

// An export is a bundle that verifies, with what is the owner's and nothing else.
func TestExport(t *testing.T) {
	h := build(t, Limits{})
	g := h.ask(h.anna, "POST", "/v1/exports", "").is(200)
	files := fstest.MapFS{}
	in := tar.NewReader(strings.NewReader(g.body))
	for {
		f, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(f.Name, "/")
		files[name] = &fstest.MapFile{Data: content}
		if bytes.Contains(content, []byte("temperature")) || bytes.Contains(content, []byte(benName)) {
			t.Errorf("%s holds what is not Anna's", name)
		}
	}
	r, err := archive.Verify(files, h.API.Ledger.VerifierKey())
	if err != nil || len(r.Faults) > 0 || r.Rows != 10 || !r.Trusted {
		t.Fatalf("bundle %+v: %v", r, err)
	}
	h.ask(h.admin, "POST", "/v1/exports", `{"party":"Acme"}`).is(200).hides("pulse")
	h.ask(h.institute, "POST", "/v1/exports", "").is(403)
}

func TestDevicesUnitsAndClaims(t *testing.T) {
	h := build(t, Limits{})
	var added AddedDevice
	h.ask(h.admin, "POST", "/v1/devices", `{"label":"box","unclaimed":true,"serial":"SN-1"}`).is(201).shows("hf1:127.0.0.1:8444/").into(&added)
	h.ask(h.admin, "POST", "/v1/devices", `{"label":"box","unclaimed":true}`).is(409)
	h.ask(h.ben, "GET", "/v1/devices/"+added.Device.ID, "").is(404)
	h.ask(h.ben, "POST", "/v1/claims", `{"code":"abcd-efgh-ijkm-nopq"}`).is(403)
	h.ask(h.ben, "POST", "/v1/claims", `{"code":"`+added.ClaimCode+`"}`).is(201).shows(`"state":"active"`, benName)
	h.ask(h.anna, "POST", "/v1/claims", `{"code":"`+added.ClaimCode+`"}`).is(403)
	h.ask(h.ben, "GET", "/v1/devices/box", "").is(200).hides("SN-1")
	h.ask(h.admin, "GET", "/v1/devices/box", "").is(200).shows("SN-1", benName)

	var codes Codes
	h.ask(h.admin, "POST", "/v1/devices/box/codes", `{}`).is(201).into(&codes)
	if codes.EnrolmentCode == "" || codes.EnrolmentCode == added.EnrolmentCode {
		t.Errorf("codes %+v", codes)
	}
	h.ask(h.admin, "POST", "/v1/devices/box/codes", `{"kind":"claim"}`).is(409)
	h.ask(h.ben, "POST", "/v1/devices/box/revocation", `{"reason":"lost"}`).is(204)
	h.ask(h.admin, "POST", "/v1/devices/box/revocation", "").is(204)
	h.ask(h.admin, "POST", "/v1/devices/pump-1/revocation", "").is(404) // it never had a code

	r := newRequest("POST", "/v1/units?unclaimed=true&days=30", "serial,label\nA-1,alpha\nA-2,beta\nSN-1,old\n")
	r.Header.Set("Content-Type", "text/csv")
	units := h.do(h.admin, r).is(200).shows(`{"serial":"SN-1","existing":true}`)
	var lines []UnitLine
	for d := json.NewDecoder(strings.NewReader(units.body)); ; {
		var u UnitLine
		if err := d.Decode(&u); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, u)
	}
	if len(lines) != 3 || lines[1].Label != "alpha" || lines[1].EnrolmentCode == "" || lines[2].ClaimCode == "" {
		t.Errorf("lines %+v", lines)
	}
	h.ask(h.admin, "GET", "/v1/devices?unclaimed=true", "").is(200).shows("alpha", "beta").hides("box", "pump")
	r = newRequest("POST", "/v1/units", "serial\n\"hunter2")
	r.Header.Set("Content-Type", "text/csv")
	if p := h.do(h.admin, r).is(400).hides("hunter2").problem(); !strings.Contains(p.Detail, "line") {
		t.Errorf("detail %q", p.Detail)
	}
}

func TestListsComeInPages(t *testing.T) {
	h := build(t, Limits{})
	for i := range 7 {
		h.ask(h.admin, "POST", "/v1/parties", `{"name":"P`+strconv.Itoa(i)+`","kind":"service"}`).is(201)
	}
	var names []string
	for after := ""; ; {
		var p Page[Party]
		h.ask(h.admin, "GET", "/v1/parties?limit=3&after="+after, "").is(200).into(&p)
		for _, q := range p.Items {
			names = append(names, q.Name)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	want := []string{"Acme", annaName, benName, "Institute", "P0", "P1", "P2", "P3", "P4", "P5", "P6"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestLedgerShowsAndProves(t *testing.T) {
	h := build(t, Limits{})
	var page Page[Entry]
	h.ask(h.anna, "GET", "/v1/ledger/entries?limit=2", "").is(200).into(&page)
	if len(page.Items) != 2 || page.Next == "" || page.Items[0].Kind != "party added" {
		t.Fatalf("entries %+v", page)
	}
	p, err := ledger.ParseProof([]byte(h.ask(h.anna, "GET", "/v1/ledger/entries/"+strconv.FormatUint(page.Items[0].Index, 10)+"/proof", "").is(200).body))
	if err != nil {
		t.Fatal(err)
	}
	var head Checkpoint
	h.ask(h.anna, "GET", "/v1/ledger", "").is(200).into(&head)
	if e, err := p.Check(head.Verifier); err != nil || e.Kind != "party added" {
		t.Errorf("%+v: %v", e, err)
	}
	h.ask(h.anna, "GET", "/v1/ledger/entries?device=watch", "").is(200)
	h.ask(h.admin, "GET", "/v1/ledger/entries", "").is(200).shows("purpose added")
	h.ask(h.admin, "GET", "/v1/ledger/entries?record=own", "").is(200).hides("purpose added")
}

func TestLimitsHold(t *testing.T) {
	h := build(t, Limits{PerSecond: 0.001, Burst: 3, OpenRequests: 0.1, Streams: 1, OwnStreams: 1})
	for range 3 {
		h.ask(h.anna, "GET", "/v1/me", "").is(200)
	}
	g := h.ask(h.anna, "GET", "/v1/me", "").is(429)
	g.problem()
	if n, err := strconv.Atoi(g.header.Get("Retry-After")); err != nil || n < 1 {
		t.Errorf("Retry-After %q", g.header.Get("Retry-After"))
	}
	h.ask(h.ben, "GET", "/v1/me", "").is(200) // one credential's haste is not another's
	h.ask("", "GET", "/v1/ca.pem", "").is(200).shows("BEGIN CERTIFICATE")
	h.ask("", "GET", "/v1/ca.pem", "").is(429).problem()
	h.ask("", "GET", "/healthz", "").is(200)

	leave, err := h.streams.take(h.first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.streams.take(h.first.ID); problemOf(err).Status != 429 {
		t.Errorf("a second stream of one credential: %v", err)
	}
	h.ask(h.ben, "GET", "/v1/readings?owner="+h.benID.String(), "").is(503).problem()
	leave()
	h.ask(h.ben, "GET", "/v1/readings?owner="+h.benID.String(), "").is(200)
}

// Over TLS: a certificate is a credential, a long answer comes with its trailer,
// and ends when its credential does.
func TestOverTLS(t *testing.T) {
	h := build(t, Limits{})
	for i := range 3000 {
		if i%1000 == 0 {
			var all []holdfast.Sample
			for j := range 1000 {
				all = append(all, querytest.At("level", time.Now().Add(-time.Duration(i+j)*time.Millisecond), holdfast.NumberValue(float64(i+j))))
			}
			h.Send(h.pump, all...)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	srv := Server(h.API.Identity.PeopleTLS(), h.API, nil)
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	defer func() { srv.Close(); <-served }()
	address := "https://" + ln.Addr().String()
	pair, err := tls.X509KeyPair(h.first.Certificate, h.first.Key)
	h.must(err)
	roots := x509.NewCertPool()
	roots.AddCert(h.API.Identity.CA())
	c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	defer c.CloseIdleConnections()

	r, err := c.Get(address + "/v1/readings?device=pump-1&stream=level&limit=2500&format=csv")
	h.must(err)
	rows, err := csv.NewReader(r.Body).ReadAll()
	h.must(err)
	r.Body.Close()
	if len(rows) != 2501 || r.Trailer.Get("Holdfast-Next") == "" || r.ProtoMajor != 2 {
		t.Errorf("%d rows, trailer %v, %s", len(rows), r.Trailer, r.Proto)
	}
	if r, err = c.Get(address + "/v1/me"); err != nil || r.StatusCode != 200 {
		t.Fatalf("me: %v %v", r, err)
	}
	r.Body.Close()
}

// A credential that ends breaks off what it was reading: no reader takes a part
// for the whole.
func TestRevocationBreaksAStreamOff(t *testing.T) {
	h := build(t, Limits{})
	var all []holdfast.Sample
	for i := range 5000 {
		all = append(all, querytest.At("level", time.Now().Add(-time.Duration(i)*time.Millisecond), holdfast.NumberValue(float64(i))))
	}
	h.Send(h.pump, all...)
	var me Me
	h.ask(h.admin, "GET", "/v1/me", "").is(200).into(&me)
	r := newRequest("GET", "/v1/readings?device=pump-1&stream=level&format=ndjson", "")
	r.Header.Set("Authorization", "Bearer "+h.admin)
	w := &revoking{ResponseRecorder: httptest.NewRecorder(), after: 2, do: func() { h.ask(h.admin, "DELETE", "/v1/tokens/"+me.Credential, "").is(204) }}
	broken := func() (fault any) {
		defer func() { fault = recover() }()
		h.ServeHTTP(w, r)
		return nil
	}()
	if broken != http.ErrAbortHandler {
		t.Errorf("the answer ended as if it were whole: %v", broken)
	}
	body := w.Body.String()
	if !strings.Contains(body, `"error"`) || strings.Contains(body, `"done"`) || strings.Count(body, "\n") > 4500 {
		t.Errorf("%d lines, the last %s", strings.Count(body, "\n"), body[max(0, len(body)-300):])
	}
}

// revoking does something when a few writes have come.
type revoking struct {
	*httptest.ResponseRecorder
	after int
	do    func()
}

func (w *revoking) Write(p []byte) (int, error) {
	if w.after--; w.after == 0 {
		w.do()
	}
	return w.ResponseRecorder.Write(p)
}

// A reader that takes nothing does not keep a stream for ever.
func TestStalledReaderIsCut(t *testing.T) {
	h := build(t, Limits{StreamStall: 100 * time.Millisecond})
	text := strings.Repeat("x", 200<<10)
	for i := range 120 { // more than the buffers of a connection
		h.Send(h.pump, querytest.At("note", time.Now().Add(-time.Duration(i)*time.Second), holdfast.TextValue(text)))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	ended := make(chan struct{}, 8)
	srv := Server(h.API.Identity.PeopleTLS(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		h.ServeHTTP(w, r)
	}), nil)
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	defer func() { srv.Close(); <-served }()
	roots := x509.NewCertPool()
	roots.AddCert(h.API.Identity.CA())
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: roots})
	h.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /v1/readings?device=pump-1&stream=note HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer "+h.admin+"\r\n\r\n")
	h.must(err)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the stream is still under way")
	}
	if n := h.streams.count(); n != 0 {
		t.Errorf("%v streams under way", n)
	}
	h.ask(h.admin, "HEAD", "/v1/readings?device=pump-1", "").is(405)
}

// The description says what is there, with nothing of huma's own.
func TestOpenAPI(t *testing.T) {
	h := build(t, Limits{})
	var spec struct {
		OpenAPI    string
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	g := h.ask(h.anna, "GET", "/openapi.json", "").is(200).hides("$schema", "ErrorModel", "unpkg", "https://example.com")
	g.into(&spec)
	if !strings.HasPrefix(spec.OpenAPI, "3.1") || spec.Components.Schemas["Problem"] == nil {
		t.Errorf("version %q, schemas %d", spec.OpenAPI, len(spec.Components.Schemas))
	}
	for _, p := range []string{"/v1/readings", "/v1/parties", "/v1/devices/{id}", "/v1/erasures/{id}", "/v1/exports", "/v1/me/data", "/v1/units", "/v1/invitations/redeem", "/v1/ca.pem"} {
		if spec.Paths[p] == nil {
			t.Errorf("%s is not described", p)
		}
	}
	for _, ref := range strings.Split(g.body, `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(ref, `"`)
		if spec.Components.Schemas[name] == nil {
			t.Errorf("schema %s is named and not there", name)
		}
	}
	h.ask("", "GET", "/docs", "").is(401)
}

// Logs and metrics name routes and ids.
func TestNoNamesInLogsAndMetrics(t *testing.T) {
	h := build(t, Limits{})
	h.ask(h.admin, "GET", "/v1/parties/Anna%20Achternaam", "").is(200)
	h.ask(h.anna, "GET", "/v1/readings?device=watch&stream=pulse", "").is(200)
	h.ask(h.admin, "GET", "/v1/readings?owner=Anna%20Achternaam", "").is(403)
	m := h.ask(h.admin, "GET", "/metrics", "").is(200).shows(`route="GET /v1/parties/{id}"`, "holdfast_api_rows_total 10")
	for _, s := range []string{annaName, "Achternaam", "pulse", "watch", h.annaID.String()} {
		if strings.Contains(m.body, s) || strings.Contains(h.log.String(), s) {
			t.Errorf("%q stands in a log or metric", s)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := timeOf("2026-06-01T12:00:00Z")
	for text, want := range map[string]string{
		"now": "2026-06-01T12:00:00Z", "-2h": "2026-06-01T10:00:00Z", "-1d12h": "2026-05-31T00:00:00Z", "+30d": "2026-07-01T12:00:00Z",
		"2026-01-31": "2026-01-31T23:59:59.999999999Z", "2026-01-31T10:00:00.5+02:00": "2026-01-31T08:00:00.5Z",
	} {
		if got, err := ParseTime(text, now, true); err != nil || got != timeOf(want).UnixNano() {
			t.Errorf("%s is %s, %v, want %s", text, time.Unix(0, got).UTC(), err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026", "2026-13-01", "-", "--2h", "-2h-1m", "2h", "-1d-2h", "999999999d", "-1.5d"} {
		if got, err := ParseTime(text, now, false); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}

// An owner may have a certificate in place of a token: the key stays with him.
func TestRedeemForACertificate(t *testing.T) {
	h := build(t, Limits{})
	var invited Invited
	h.ask(h.anna, "POST", "/v1/parties/"+h.annaID.String()+"/invitations", "").is(201).into(&invited)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	h.must(err)
	body, err := json.Marshal(Redemption{Code: invited.Code, Label: "laptop", CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	h.must(err)
	var made NewCredential
	h.ask("", "POST", "/v1/invitations/redeem", string(body)).is(201).hides("hft1").into(&made)
	block, _ := pem.Decode([]byte(made.Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	h.must(err)
	r := newRequest("GET", "/v1/me", "")
	r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert}}
	h.do("", r).is(200).shows(annaName)
	h.ask(h.anna, "GET", "/v1/tokens", "").is(200).shows("laptop", `"kind":"certificate"`)
	h.ask(h.admin, "GET", "/v1/tokens", "").is(200).hides("laptop")
	h.ask(h.admin, "DELETE", "/v1/tokens/"+made.ID, "").is(204)
	h.do("", r.Clone(t.Context())).is(401)
}

// Columns say what rows say: the same readings, times exact, marks and sequence
// numbers at their places.
func TestReadingsInColumns(t *testing.T) {
	h := build(t, Limits{})
	d := h.Device(custody.DeviceSpec{Label: "lab"})
	begin := time.Unix(1772366400, 123456789)
	for i := range 20 {
		s := querytest.At("level", begin.Add(time.Duration(i)*1500*time.Microsecond), holdfast.NumberValue(float64(i)/4))
		if i%7 == 3 {
			s.Seq = uint64(i)
		}
		h.Send(d, s)
		h.Send(d, querytest.At("state", begin.Add(-time.Duration(i)*time.Second), holdfast.TextValue("a,\"b\"")))
	}
	h.Send(d, holdfast.Sample{Stream: "level", Value: holdfast.NumberValue(math.Inf(1))})
	path := "/v1/readings?device=lab&from=2026-01-01&format="
	type flat struct {
		Stream, Time, Value string
		Seq                 uint64
		Marks               string
	}
	var rows, columns []flat
	for line := range strings.Lines(h.ask(h.admin, "GET", path+"ndjson", "").is(200).body) {
		var r struct {
			Stream string
			Time   time.Time
			Value  json.RawMessage
			Seq    uint64
			Marks  []string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Stream != "" {
			rows = append(rows, flat{r.Stream, string(appendSeconds(nil, r.Time.UnixNano())), string(r.Value), r.Seq, strings.Join(r.Marks, " ")})
		}
	}
	lines := 0
	for line := range strings.Lines(h.ask(h.admin, "GET", path+"columns", "").is(200).body) {
		lines++
		var c struct {
			Stream string
			Time   []json.Number
			Value  []json.RawMessage
			Seq    []uint64
			Marks  [][]string
			Done   bool
			Rows   int
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if len(c.Value) != len(c.Time) || c.Seq != nil && len(c.Seq) != len(c.Time) || c.Marks != nil && len(c.Marks) != len(c.Time) {
			t.Fatalf("columns of lengths %d, %d, %d, %d", len(c.Time), len(c.Value), len(c.Seq), len(c.Marks))
		}
		for i := range c.Time {
			f := flat{Stream: c.Stream, Time: c.Time[i].String(), Value: string(c.Value[i])}
			if c.Seq != nil {
				f.Seq = c.Seq[i]
			}
			if c.Marks != nil {
				f.Marks = strings.Join(c.Marks[i], " ")
			}
			columns = append(columns, f)
		}
		if c.Done && c.Rows != 41 {
			t.Errorf("the last line says %d rows", c.Rows)
		}
	}
	if diff := cmp.Diff(rows, columns); diff != "" || len(rows) != 41 || lines != 3 {
		t.Errorf("%d rows, %d lines of columns: %s", len(rows), lines, diff)
	}
	h.ask(h.admin, "GET", path+"columns&every=1m", "").is(400)
}
