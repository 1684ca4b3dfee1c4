package grant

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

func TestPurposeLivesUntilItIsEnded(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	if h.Live(ctx, "research") || !h.Live(ctx, holdfast.Operation) || !h.Live(ctx, holdfast.OwnAccess) || h.Live(ctx, "") {
		t.Error("wrong purposes live on a new hub")
	}
	h.research()
	_, err := h.AddPurpose(ctx, h.admin, research)
	wants(t, err, holdfast.Conflict, "of this name already")
	h.restart()
	want := research
	want.Added = h.clock
	if p, err := h.Purpose(ctx, "research"); err != nil || !cmp.Equal(p, want) || !h.Live(ctx, "research") {
		t.Errorf("after a restart: %+v, %v", p, err)
	}
	if err := h.EndPurpose(ctx, h.admin, "research"); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if h.Live(ctx, "research") {
		t.Error("it lives on")
	}
	wants(t, h.EndPurpose(ctx, h.admin, "research"), holdfast.Conflict, "ended already")
	wants(t, h.EndPurpose(ctx, h.admin, holdfast.Operation), holdfast.Denied, "can't be ended")
	wants(t, h.EndPurpose(ctx, h.admin, "marketing"), holdfast.NotFound, "no such purpose")
	_, err = h.AddPurpose(ctx, h.admin, research)
	wants(t, err, holdfast.Conflict, "choose another name")
	if all, _ := h.Purposes(ctx); len(all) != 3 || all[2].Ended.IsZero() {
		t.Errorf("purposes %+v", all)
	}
	if got := h.diary.kinds(vault.Hub); !slices.Equal(got, []string{"purpose added", "purpose ended"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestPurposeSaysWhatItIs(t *testing.T) {
	h := newHub(t)
	for reason, change := range map[string]func(*Purpose){
		"has no name":           func(p *Purpose) { p.Name = "" },
		"has an IRI":            func(p *Purpose) { p.IRI = "research" },
		"these legal bases":     func(p *Purpose) { p.LegalBasis = "because" },
		"retention is":          func(p *Purpose) { p.RetentionDays = -1 },
		"for the people whose":  func(p *Purpose) { p.Text = "" },
		"of this name already":  func(p *Purpose) { p.Name = holdfast.Operation },
		"of this name already ": func(p *Purpose) { p.Name = holdfast.OwnAccess },
	} {
		p := research
		change(&p)
		_, err := h.AddPurpose(t.Context(), h.admin, p)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(reason)) {
			t.Errorf("%v, want %q", err, reason)
		}
	}
}
