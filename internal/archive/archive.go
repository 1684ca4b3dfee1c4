// Package archive takes all of an owner's data out of the hub as a bundle, and
// checks a bundle wherever it lies.
//
// Export promises that readings leave through package query, with its decision
// and its record, that what it hands over is complete and in balance when it
// returns without an error, and that no plaintext touches the hub's disk: files
// go to a Sink one after another, each whole and in memory. A bundle that broke
// off has no manifests, so that it can't be taken for a whole one.
//
// Verify needs no hub: it holds every file against the manifests, the readings
// against the balance sheet, the owner's record against the ledger's checkpoint and
// the manifests against the signature.
//
// It does not read bundles into a hub, and does not keep what it exported.
package archive

import (
	"context"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Signer is the ledger, as this package needs it.
type Signer interface {
	Origin() string
	VerifierKey() string
	Sign(text string) ([]byte, error)
	Events(ctx context.Context, o vault.Owner, from uint64, limit int) ([]ledger.Event, error)
	Slice(ctx context.Context, o vault.Owner, since uint64, put func(line any) error) error
}

// Archive exports. It is safe for concurrent use.
type Archive struct {
	query   *query.Query
	custody *custody.Custody
	grants  *grant.Register
	ledger  Signer
}

// New makes an Archive over what it reads.
func New(q *query.Query, c *custody.Custody, g *grant.Register, l Signer) *Archive {
	return &Archive{query: q, custody: c, grants: g, ledger: l}
}

// Sink takes the files of a bundle in the order in which they are made. Names are
// slash-separated and relative. The sink keeps no reference to content.
type Sink interface {
	Put(ctx context.Context, name string, content []byte) error
}

// Exported says what an export took out.
type Exported struct {
	ID       string           `json:"id"`
	Owner    holdfast.PartyID `json:"owner"`
	Files    int              `json:"files"`
	Bytes    int64            `json:"bytes"` // of payload
	Devices  int              `json:"devices"`
	Streams  int              `json:"streams"`
	Rows     uint64           `json:"rows"`
	Withheld int              `json:"withheld"` // streams of devices of the owner that are about somebody else
}
