package deviceapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// influxPing answers what clients of InfluxDB ask before they send.
func (a *API) influxPing(w http.ResponseWriter, _ *http.Request, _ identity.Peer) error {
	w.Header().Set("X-Influxdb-Version", "1.8-holdfast")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// influxQuery answers what Telegraf asks when it starts: that a database be made.
// There is none to make and nothing to refuse: whose a reading is stands in the
// certificate. Nothing else is answered here, least of all readings.
func (a *API) influxQuery(w http.ResponseWriter, r *http.Request, _ identity.Peer) error {
	body, release, err := a.body(w, r)
	if err != nil {
		return err
	}
	defer release()
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return holdfast.Errorf(holdfast.Invalid, "the body is no form")
	}
	q := strings.ToUpper(strings.Join(strings.Fields(form.Get("q")+" "+r.URL.Query().Get("q")), " "))
	if !strings.HasPrefix(q, "CREATE DATABASE ") || strings.Contains(q, ";") {
		return holdfast.Errorf(holdfast.Invalid, "devices ask no questions here: people and programs do, at the API (https://HOST:8443)")
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write([]byte(`{"results":[{"statement_id":0}]}` + "\n"))
	return err
}
