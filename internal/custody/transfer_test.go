package custody

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast"
)

// Of two who show a code at once, the slower one learns no more than that it is over.
func TestWhoIsLateLearnsNothingOfTheDevice(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	anna, ben, eve := h.party("Anna"), h.party("Ben"), h.party("Eve")
	added, err := h.AddDevice(ctx, h.admin, DeviceSpec{Label: "watch", Owner: anna})
	if err != nil {
		t.Fatal(err)
	}
	o, _, err := h.OfferTransfer(ctx, h.admin, TransferSpec{Device: added.Device.ID, Seller: anna})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(context.Context, *sql.Tx, []Moved) error { return nil }
	if _, _, err := h.TakeTransfer(ctx, h.admin, ben, o, "", nothing); err != nil {
		t.Fatal(err)
	}
	_, _, err = h.TakeTransfer(ctx, h.admin, eve, o, "", nothing)
	wants(t, err, holdfast.Conflict, "offered no more")
	if strings.Contains(err.Error(), added.Device.ID.String()) {
		t.Errorf("%v", err)
	}
}
