package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast-iot/holdfast"
)

// The ledger as C2SP tlog-tiles: public by nature, the same for everybody, and
// nothing in it but hashes.
const (
	ledgerCheckpoint = "GET /ledger/checkpoint"
	ledgerTile       = "GET /ledger/tile/{tile...}"
	ledgerRenewals   = "GET /ledger/renewals"
)

// tilesPerSecond is how many of these requests one address may make, ten times as
// many at once: whoever reads a large tree anew asks for many.
const tilesPerSecond = 50

func (a *API) tiles() {
	a.plain(ledgerCheckpoint, rule{}, func(w http.ResponseWriter, r *http.Request) {
		c, err := a.Ledger.Published(r.Context())
		if err != nil {
			a.refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		openToAll(w, "no-cache")
		w.Write(c.Note)
	})
	a.plain(ledgerTile, rule{}, a.tile)
	a.plain(ledgerRenewals, rule{}, func(w http.ResponseWriter, r *http.Request) {
		all, err := a.Ledger.Renewals(r.Context())
		if err != nil {
			a.refuse(w, r, err)
			return
		}
		openToAll(w, "no-cache")
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(all)
	})
}

// openToAll takes back what answers about somebody need: pages of any origin may
// read this, and caches keep it.
func openToAll(w http.ResponseWriter, caching string) {
	w.Header().Set("Cache-Control", caching)
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	w.Header().Set("Access-Control-Allow-Origin", "*")
}

// tileOf reads LEVEL/N[.p/W] or entries/N[.p/W]; the level of entries is -1.
func tileOf(path string) (tlog.Tile, bool) {
	level, rest, _ := strings.Cut(path, "/")
	switch level {
	case "entries":
		level = "data"
	case "data":
		return tlog.Tile{}, false
	}
	t, err := tlog.ParseTilePath("tile/8/" + level + "/" + rest)
	return t, err == nil
}

func (a *API) tile(w http.ResponseWriter, r *http.Request) {
	t, ok := tileOf(r.PathValue("tile"))
	if !ok {
		a.refuse(w, r, holdfast.Errorf(holdfast.NotFound, "a tile is /ledger/tile/LEVEL/N or /ledger/tile/entries/N, with .p/WIDTH for one that is not full (c2sp.org/tlog-tiles)"))
		return
	}
	var body []byte
	var err error
	if t.L < 0 {
		body, err = a.Ledger.Bundle(r.Context(), t.N, t.W)
	} else {
		body, err = a.Ledger.Tile(r.Context(), t.L, t.N, t.W)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	openToAll(w, "public, max-age=31536000, immutable")
	w.Write(body)
}
