package grant

import (
	"database/sql"
	"slices"
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
			INSERT INTO data_grant (id, n, grantor, recipient, state, info_sealed) SELECT randomblob(16), 1000 + i, $2, $3, 'active', x'00' FROM n`,
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

// A recipient of very many grants turns their pages without reading all of them.
func TestPagesOfGrants(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	var made []holdfast.GrantID
	for i := range 25 {
		by, to := h.ada, h.lab
		if i%5 == 0 {
			by, to = h.lab, h.ada // the lab is an owner, too
		}
		g, err := h.Make(ctx, h.own(by), h.everything(func(s *Spec) { s.Recipient = to }))
		if err != nil {
			t.Fatal(err)
		}
		made = append([]holdfast.GrantID{g.ID}, made...)
	}
	turn := func(withMade bool) (ids []holdfast.GrantID) {
		var after holdfast.GrantID
		for {
			page, more, err := h.PageOfGrants(ctx, h.lab, withMade, after, 7)
			if err != nil || len(page) == 0 && more {
				t.Fatal(page, err)
			}
			for _, g := range page {
				ids = append(ids, g.ID)
			}
			if !more {
				return ids
			}
			after = ids[len(ids)-1]
		}
	}
	if got := turn(true); !slices.Equal(got, made) {
		t.Errorf("with those it made: %v, want %v", got, made)
	}
	if got := turn(false); len(got) != 20 || slices.Contains(got, made[24]) {
		t.Errorf("only those it was given: %v", got)
	}
	_, _, err := h.PageOfGrants(ctx, h.bob, true, made[0], 7)
	wants(t, err, holdfast.Conflict, "ask again from the start") // another's grant is no place to begin
}
