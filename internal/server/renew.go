package server

import (
	"context"
	"errors"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// RenewLedger gives the ledger of a stopped hub a new name and key: see
// ledger.Renew. last are later checkpoints of the old name, as far as somebody has
// them. Where the catalog goes on from its last head it does so only if forced: a
// new name makes work for everybody who keeps the old one's key. It asks no other
// keeper, so that a restore can call it before any opens.
func RenewLedger(ctx context.Context, c Config, last []string, force bool) (r ledger.Renewal, err error) {
	c = c.withDefaults()
	s, err := openStores(ctx, c)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	l, err := ledger.Open(ctx, s.catalog, s.vault)
	if err != nil {
		return r, err
	}
	head := headFile{c.Ground.Folder(c.Data)}
	err = l.KeepOutside(ctx, head)
	if err != nil && holdfast.KindOf(err) != holdfast.Conflict {
		return r, err
	}
	if err == nil && !force && len(last) == 0 {
		return r, holdfast.Errorf(holdfast.Conflict, "the ledger goes on from its last head: it needs no new name. If the whole data folder was put back, say so with --force, "+
			"and give with --last what a witness or an owner has of later")
	}
	kept := make([]ledger.Kept, len(last))
	for i, text := range last {
		kept[i] = ledger.Kept{Checkpoint: text}
	}
	return l.Renew(ctx, head, kept...)
}
