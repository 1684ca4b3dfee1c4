package grant

import (
	"database/sql"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// TestGrantsOfAnOwnerAreBounded: others read lists that an owner fills.
func TestGrantsOfAnOwnerAreBounded(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	g, err := h.Make(ctx, h.own(h.ada), h.everything())
	if err != nil {
		t.Fatal(err)
	}
	err = h.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO data_grant (id, grantor, recipient, state, info_sealed) SELECT randomblob(16), $2, $3, 'active', x'00' FROM n`,
			maxGrants-1, h.ada, g.Recipient)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Make(ctx, h.own(h.ada), h.everything())
	wants(t, err, holdfast.TooLarge, "at most 1000 grants")
	if err := h.End(ctx, h.own(h.ada), g.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Make(ctx, h.own(h.ada), h.everything()); err != nil {
		t.Errorf("after one was taken back: %v", err)
	}
}
