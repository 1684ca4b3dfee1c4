package access

import (
	"database/sql"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// TestCredentialsOfAPartyAreBounded: whoever has one makes no end of them.
func TestCredentialsOfAPartyAreBounded(t *testing.T) {
	h := build(t)
	owner, _ := h.owner()
	own := Spec{Label: "more", Party: owner.Party, Role: Owner}
	first, err := h.Add(t.Context(), owner, own, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = h.catalog.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO access_credential (id, kind, proof_hash, party, role, scopes, about_sealed, made, not_after, revoked, last_day, holder, since, settled)
			SELECT randomblob(16), kind, proof_hash, party, role, scopes, about_sealed, made, not_after, 0, 0, holder, since, settled FROM access_credential, n WHERE id = $2`,
			maxLive-2, first.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Add(t.Context(), owner, own, nil)
	wantKind(t, "one too many", err, holdfast.TooLarge)
	if _, err := h.Add(t.Context(), owner, Spec{Label: "p", Party: owner.Party, Role: Program, Scopes: ScopeWrite}, nil); err != nil {
		t.Errorf("of another role: %v", err)
	}
	if err := h.Revoke(t.Context(), owner, first.ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Add(t.Context(), owner, own, nil); err != nil {
		t.Errorf("after one was revoked: %v", err)
	}
}
