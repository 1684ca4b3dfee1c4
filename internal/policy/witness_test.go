package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"
)

// drawnWorld and witnessed are what goes to the reference engine and comes back.
type (
	drawnWorld struct {
		Policies map[string]json.RawMessage `json:"policies"`
		Requests []witnessRequest           `json:"requests"`
	}
	witnessRequest struct {
		Principal cedar.EntityUID   `json:"principal"`
		Action    cedar.EntityUID   `json:"action"`
		Resource  cedar.EntityUID   `json:"resource"`
		Context   cedar.Record      `json:"context"`
		Entities  []json.RawMessage `json:"entities"`
	}
	witnessAnswer struct {
		Decision string   `json:"decision"`
		Reason   []string `json:"reason"`
		Errors   []string `json:"errors"`
	}
	witnessed struct {
		Version string `json:"version"`
		Worlds  []struct {
			Errors  []string        `json:"errors"`
			Answers []witnessAnswer `json:"answers"`
		} `json:"worlds"`
	}
)

// Cedar's reference engine, which is another implementation, finds our policies right
// by our schema and decides drawn worlds as we do, by the same policies.
func TestReferenceEngine(t *testing.T) {
	folder := os.Getenv("HOLDFAST_CEDAR")
	if folder == "" {
		t.Skip("NOT TESTED against Cedar's reference engine: HOLDFAST_CEDAR names no folder with it; ./test installs it")
	}
	d := draws(t)
	var worlds []drawnWorld
	var want [][]witnessAnswer
	for range 150 {
		first := d.request()
		if first.Owner.IsZero() {
			continue
		}
		grants, forbids := d.words(&first)
		s, err := Compile(first.Whose(), grants, forbids)
		if err != nil {
			t.Fatal(err)
		}
		w := s.to[first.ReaderParty]
		if w == nil {
			w = s.others
		}
		world := drawnWorld{Policies: map[string]json.RawMessage{}}
		for id, p := range w.everything().All() {
			b, err := p.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			world.Policies[string(id)] = b
		}
		var answers []witnessAnswer
		for range 6 {
			r := d.request()
			r.Owner, r.Subject, r.ReaderParty = first.Owner, first.Subject, first.ReaderParty
			asked := w.worldOf(&r, s.seen.stream(&r, w.whose))
			how, why := cedar.Authorize(w.matter(&r), asked, asked.request) // what is left out changes nothing
			a := witnessAnswer{Decision: "deny", Reason: append([]string{}, idsOf(why)...), Errors: []string{}}
			if how == cedar.Allow {
				a.Decision = "allow"
			}
			slices.Sort(a.Reason)
			answers = append(answers, a)
			world.Requests = append(world.Requests, asked.witness(t))
		}
		worlds, want = append(worlds, world), append(want, answers)
	}
	in, err := json.Marshal(map[string]any{"schema": Schema(), "worlds": worlds})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "witness.cjs"), folder)
	node.Stdin, node.Stderr = bytes.NewReader(in), os.Stderr
	out, err := node.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got witnessed
	if err := json.Unmarshal(out, &got); err != nil || len(got.Worlds) != len(worlds) {
		t.Fatalf("%d worlds of %d, %v", len(got.Worlds), len(worlds), err)
	}
	allowed := 0
	for i, w := range got.Worlds {
		if len(w.Errors) > 0 {
			t.Errorf("the reference engine %s refuses policies: %q", got.Version, w.Errors)
		}
		if diff := cmp.Diff(want[i], w.Answers); diff != "" {
			t.Fatalf("the reference engine %s (+) decides otherwise: %s", got.Version, diff)
		}
		for _, a := range w.Answers {
			if a.Decision == "allow" {
				allowed++
			}
		}
	}
	if allowed < 20 {
		t.Errorf("%d answers of the drawn ones allow", allowed)
	}
}

// witness is a world as the reference engine reads it.
func (w *world) witness(t *testing.T) witnessRequest {
	t.Helper()
	r := witnessRequest{Principal: w.request.Principal, Action: w.request.Action, Resource: w.request.Resource, Context: w.request.Context}
	for _, e := range []cedar.Entity{w.reader, w.purpose, w.stream} {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		r.Entities = append(r.Entities, b)
	}
	return r
}
