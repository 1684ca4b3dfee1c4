package grant

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/seal"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// keyring is the vault as these tests need it: one key per owner, in memory.
type keyring struct {
	mu     sync.Mutex
	owners map[vault.Owner]*seal.Cipher
	lookup [32]byte
}

func (k *keyring) add(o vault.Owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owners[o] = seal.NewCipher(seal.NewKey())
}

func (k *keyring) destroy(o vault.Owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.owners, o)
}

func (k *keyring) cipher(o vault.Owner) (*seal.Cipher, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.owners[o]; c != nil {
		return c, nil
	}
	return nil, holdfast.Errorf(holdfast.NotFound, "owner %s has no such key", o)
}

func (k *keyring) SealField(_ context.Context, o vault.Owner, table string, row []byte, column string, plain []byte) ([]byte, error) {
	c, err := k.cipher(o)
	if err != nil {
		return nil, err
	}
	return c.Seal(nil, plain, seal.FieldPlace(o, table, row, column)), nil
}

func (k *keyring) OpenField(_ context.Context, o vault.Owner, table string, row []byte, column string, box []byte) ([]byte, error) {
	c, err := k.cipher(o)
	if err != nil {
		return nil, err
	}
	return c.Open(nil, box, seal.FieldPlace(o, table, row, column))
}

func (k *keyring) Hash(_ context.Context, domain, text string) ([]byte, error) {
	m := hmac.New(sha256.New, k.lookup[:])
	fmt.Fprintf(m, "%d %s%s", len(domain), domain, text)
	return m.Sum(nil), nil
}

// diary is the ledger as these tests need it. It fails on demand, to show that
// nothing happens unrecorded.
type diary struct {
	keys    *keyring
	mu      sync.Mutex
	entries []string // "kind payload", with the owner before it
	broken  error
}

func (d *diary) Append(_ context.Context, _ *sql.Tx, o vault.Owner, kind string, payload any) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return 0, d.broken
	}
	if _, err := d.keys.cipher(o); err != nil {
		return 0, err
	}
	b, err := json.Marshal(payload)
	d.entries = append(d.entries, fmt.Sprintf("%s|%s|%s", o, kind, b))
	return uint64(len(d.entries)), err
}

func (d *diary) kinds(o vault.Owner) (kinds []string) {
	for _, e := range d.entries {
		if parts := strings.SplitN(e, "|", 3); parts[0] == o.String() {
			kinds = append(kinds, parts[1])
		}
	}
	return kinds
}

type hub struct {
	*Register
	t        testing.TB
	dir      string
	keys     *keyring
	diary    *diary
	clock    time.Time
	catalog  *catalog.DB
	ada, bob holdfast.PartyID
	lab      holdfast.PartyID
	admin    holdfast.CredentialID
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{
		t: t, dir: t.TempDir(), clock: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		keys: &keyring{owners: make(map[vault.Owner]*seal.Cipher), lookup: [32]byte(seal.NewKey())},
		ada:  holdfast.NewID[holdfast.PartyID](), bob: holdfast.NewID[holdfast.PartyID](), lab: holdfast.NewID[holdfast.PartyID](),
		admin: holdfast.NewID[holdfast.CredentialID](),
	}
	h.diary = &diary{keys: h.keys}
	for _, o := range []vault.Owner{vault.Hub, vault.OfParty(h.ada), vault.OfParty(h.bob), vault.OfParty(h.lab)} {
		h.keys.add(o)
	}
	db, err := catalog.Open(t.Context(), h.dir, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h.catalog = db
	h.restart()
	return h
}

// restart is what a crash and a new start do: memory is lost.
func (h *hub) restart() {
	h.t.Helper()
	r, err := Open(h.t.Context(), h.catalog, h.keys, h.diary, Options{Now: func() time.Time { return h.clock }})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Register = r
}

func (h *hub) research() {
	h.t.Helper()
	if _, err := h.AddPurpose(h.t.Context(), h.admin, research); err != nil {
		h.t.Fatal(err)
	}
}

var research = Purpose{
	Name: "research", IRI: "https://w3id.org/dpv#ResearchAndDevelopment", LegalBasis: "consent", RetentionDays: 365, Text: "Finding out how bearings wear.",
}

func (h *hub) own(p holdfast.PartyID) Caller {
	return Caller{Credential: holdfast.NewID[holdfast.CredentialID](), Party: p, Owner: true}
}

// everything is a grant to the lab of all there is, for a month.
func (h *hub) everything(change ...func(*Spec)) Spec {
	s := Spec{Recipient: h.lab, Purpose: "research", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.clock.AddDate(0, 1, 0)}
	for _, f := range change {
		f(&s)
	}
	return s
}

func wants(t testing.TB, err error, kind holdfast.Kind, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("no error, want %v with %q", kind, words)
	case holdfast.KindOf(err) != kind || !strings.Contains(err.Error(), words):
		t.Errorf("%v error %q, want %v with %q", holdfast.KindOf(err), err, kind, words)
	}
}

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

func TestGrantIsMadeByItsOwnerAlone(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	for who, by := range map[string]Caller{
		"administrator":            {Credential: h.admin, Party: h.ada},
		"credential without party": {Credential: h.admin, Owner: true},
	} {
		_, err := h.Make(ctx, by, h.everything())
		wants(t, err, holdfast.Denied, "a grant is made with the owner's own credential")
		if t.Failed() {
			t.Fatal(who)
		}
	}
	g, err := h.Make(ctx, h.own(h.ada), h.everything(func(s *Spec) {
		s.AllDevices, s.Devices = false, []holdfast.DeviceID{{1}}
		s.AllStreams, s.Streams = false, []string{"pulse"}
		s.Data = holdfast.Span{From: 10, To: 20}
	}))
	if err != nil || g.Grantor != h.ada {
		t.Fatalf("%+v, %v", g, err)
	}
	h.restart()
	if got, err := h.Grant(ctx, g.ID); err != nil || !cmp.Equal(got, g) || !got.Live(h.clock) {
		t.Errorf("%v %s", err, cmp.Diff(g, got))
	}
	want := []policy.Grant{{
		ID: g.ID, Grantor: h.ada, Recipient: h.lab, Purpose: "research", Devices: []holdfast.DeviceID{{1}}, Streams: []string{"pulse"},
		Data: holdfast.Span{From: 10, To: 20}, Made: h.clock.UnixNano(), Until: h.clock.AddDate(0, 1, 0).UnixNano(),
	}}
	if got, err := h.For(ctx, h.lab, h.ada); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v %s", err, cmp.Diff(want, got))
	}
	for what, pair := range map[string][2]holdfast.PartyID{"another recipient": {h.bob, h.ada}, "another owner": {h.lab, h.bob}} {
		if got, err := h.For(ctx, pair[0], pair[1]); err != nil || len(got) != 0 {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}

	wants(t, h.End(ctx, Caller{Credential: h.admin, Party: h.ada}, g.ID), holdfast.Denied, "own credential")
	wants(t, h.End(ctx, h.own(h.bob), g.ID), holdfast.NotFound, "no such grant")
	h.clock = h.clock.Add(time.Hour)
	if err := h.End(ctx, h.own(h.ada), g.ID); err != nil {
		t.Fatal(err)
	}
	wants(t, h.End(ctx, h.own(h.ada), g.ID), holdfast.Conflict, "ended already")
	if got, err := h.For(ctx, h.lab, h.ada); err != nil || len(got) != 0 {
		t.Errorf("an ended grant still counts: %+v, %v", got, err)
	}
	for what, list := range map[string]func() ([]Grant, error){
		"by its owner":     func() ([]Grant, error) { return h.GrantsBy(ctx, h.ada) },
		"by its recipient": func() ([]Grant, error) { return h.GrantsTo(ctx, h.lab) },
	} {
		if got, err := list(); err != nil || len(got) != 1 || !got[0].Ended.Equal(h.clock) || got[0].Live(h.clock) {
			t.Errorf("listed %s: %+v, %v", what, got, err)
		}
	}
	if got, err := h.GrantsBy(ctx, h.lab); err != nil || len(got) != 0 {
		t.Errorf("the recipient stands as grantor: %+v, %v", got, err)
	}
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"grant made", "grant ended"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestGrantSaysWhatItCovers(t *testing.T) {
	h := newHub(t)
	h.research()
	for _, c := range []struct {
		reason string
		change func(*Spec)
	}{
		{"a recipient other than", func(s *Spec) { s.Recipient = holdfast.PartyID{} }},
		{"a recipient other than", func(s *Spec) { s.Recipient = h.ada }},
		{"own-access needs no grant", func(s *Spec) { s.Purpose = holdfast.OwnAccess }},
		{"does not exist or has ended", func(s *Spec) { s.Purpose = "marketing" }},
		{"names devices or says all", func(s *Spec) { s.AllDevices = false }},
		{"names devices or says all", func(s *Spec) { s.Devices = []holdfast.DeviceID{{1}} }},
		{"names streams or says all", func(s *Spec) { s.AllStreams = false }},
		{"names at most", func(s *Spec) { s.AllStreams, s.Streams = false, make([]string, 1001) }},
		{"must not contain", func(s *Spec) { s.AllStreams, s.Streams = false, []string{"#"} }},
		{"end before they begin", func(s *Spec) { s.Data = holdfast.Span{From: 2, To: 1} }},
		{"has a last day", func(s *Spec) { s.Until = time.Time{} }},
		{"have ended already", func(s *Spec) { s.Until = h.clock }},
		{"at most 2 years", func(s *Spec) { s.Until = h.clock.AddDate(2, 0, 1) }},
	} {
		_, err := h.Make(t.Context(), h.own(h.ada), h.everything(c.change))
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%v, want %q", err, c.reason)
		}
	}
	if _, err := h.Make(t.Context(), h.own(h.ada), h.everything(func(s *Spec) { s.Until = h.clock.AddDate(2, 0, 0) })); err != nil {
		t.Errorf("two years: %v", err)
	}
}

func TestNothingHappensUnrecorded(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	g, err := h.Make(ctx, h.own(h.ada), h.everything())
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("ledger away")
	h.diary.broken = away
	_, err = h.AddPurpose(ctx, h.admin, Purpose{Name: "care", IRI: research.IRI, LegalBasis: "contract", Text: "x"})
	for what, err := range map[string]error{
		"purpose added": err,
		"purpose ended": h.EndPurpose(ctx, h.admin, "research"),
		"grant ended":   h.End(ctx, h.own(h.ada), g.ID),
		"bar set":       h.setBar(Bar{Assignment: holdfast.AssignmentID{1}, Span: holdfast.Always}),
	} {
		if !errors.Is(err, away) {
			t.Errorf("%s without a record: %v", what, err)
		}
	}
	if _, err := h.Make(ctx, h.own(h.ada), h.everything()); !errors.Is(err, away) {
		t.Errorf("grant made without a record: %v", err)
	}
	if _, err := h.OpenDisclosure(ctx, h.reading()); !errors.Is(err, away) {
		t.Errorf("disclosure opened without a record: %v", err)
	}
	if h.Live(ctx, "care") || !h.Live(ctx, "research") || h.Barred(holdfast.AssignmentID{1}, holdfast.StreamID{}, 0, 0) {
		t.Error("it happened all the same")
	}
	if got, _ := h.For(ctx, h.lab, h.ada); len(got) != 1 {
		t.Errorf("grants %+v", got)
	}
	if got, _ := h.Disclosures(ctx, h.ada); len(got) != 0 {
		t.Errorf("disclosures %+v", got)
	}
}

func (h *hub) setBar(bars ...Bar) error {
	return h.catalog.Write(h.t.Context(), func(tx *sql.Tx) error {
		for _, b := range bars {
			if err := h.SetBar(h.t.Context(), tx, b); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestBarKeepsOutWhatWasErased(t *testing.T) {
	h := newHub(t)
	a, b, c := holdfast.AssignmentID{1}, holdfast.AssignmentID{2}, holdfast.AssignmentID{3}
	s, other := holdfast.StreamID{1}, holdfast.StreamID{2}
	const erased = 1000
	if err := h.setBar(
		Bar{Party: h.ada, Assignment: a, Stream: s, Span: holdfast.Always, ArrivedBefore: erased},
		Bar{Party: h.ada, Assignment: b, Stream: s, Span: holdfast.Span{From: 10, To: 20}, ArrivedBefore: erased},
		Bar{Assignment: c, Span: holdfast.Always, ArrivedBefore: math.MaxInt64},
	); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for _, x := range []struct {
			what        string
			a           holdfast.AssignmentID
			s           holdfast.StreamID
			at, arrived int64
			want        bool
		}{
			{"sent again after the erasure", a, s, 500, 2000, true},
			{"still in the journal", a, s, 500, 900, true},
			{"still in the journal, from a clock ahead", a, s, 5000, 900, true},
			{"taken after the erasure", a, s, 1500, 1600, false},
			{"at the moment of the erasure", a, s, erased, erased, false},
			{"another stream", a, other, 500, 900, false},
			{"in the erased span", b, s, 20, 2000, true},
			{"outside it", b, s, 21, 2000, false},
			{"outside it, in the journal", b, s, 9, 900, false},
			{"any stream of an assignment that is gone", c, other, 1 << 60, 1 << 60, true},
			{"another assignment", holdfast.AssignmentID{9}, s, 500, 900, false},
		} {
			if got := h.Barred(x.a, x.s, x.at, x.arrived); got != x.want {
				t.Errorf("%s, %s: barred %v", when, x.what, got)
			}
		}
	}
	check("at once")
	h.restart()
	check("after a restart")
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"bar set", "bar set"}) {
		t.Errorf("recorded %v", got)
	}
	if got := h.diary.kinds(vault.Hub); !slices.Equal(got, []string{"bar set"}) {
		t.Errorf("recorded of the hub %v", got)
	}
}

func TestBarOfAFailedErasureGoesWithReload(t *testing.T) {
	h := newHub(t)
	a := holdfast.AssignmentID{1}
	boom := errors.New("boom")
	err := h.catalog.Write(t.Context(), func(tx *sql.Tx) error {
		if err := h.SetBar(t.Context(), tx, Bar{Assignment: a, Span: holdfast.Always, ArrivedBefore: 1}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if !h.Barred(a, holdfast.StreamID{}, 0, 0) {
		t.Error("a bar waits for its transaction")
	}
	if err := h.ReloadBars(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.Barred(a, holdfast.StreamID{}, 0, 0) {
		t.Error("the bar of a failed transaction stays")
	}
}

func TestBarsExpire(t *testing.T) {
	h := newHub(t)
	a := holdfast.AssignmentID{1}
	now := h.clock.UnixNano()
	bar := Bar{Assignment: a, Span: holdfast.Always, ArrivedBefore: now}
	if err := h.setBar(bar, bar); err != nil { // set twice, as an erasure that runs again does
		t.Fatal(err)
	}
	h.clock = h.clock.AddDate(0, 0, BarDays).Add(-time.Nanosecond)
	if err := h.expireBars(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !h.Barred(a, holdfast.StreamID{}, now-1, h.clock.UnixNano()) {
		t.Error("gone too early")
	}
	h.clock = h.clock.Add(time.Nanosecond)
	if h.Barred(a, holdfast.StreamID{}, now-1, h.clock.UnixNano()) {
		t.Error("it counts after 400 days")
	}
	if err := h.expireBars(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if n := len(*h.bars.Load()); n != 0 {
		t.Errorf("%d bars are left", n)
	}
}

// reading is the lab about to read two streams of Ada's.
func (h *hub) reading() Disclosure {
	return Disclosure{
		Owner: h.ada, Reader: h.admin, Recipient: h.lab, Purpose: "research", Grant: holdfast.GrantID{7}, Streams: []holdfast.StreamID{{2}, {1}, {2}},
	}
}

func (h *hub) openDisclosure(d Disclosure) holdfast.DisclosureID {
	h.t.Helper()
	id, err := h.OpenDisclosure(h.t.Context(), d)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *hub) disclosures() []Disclosure {
	h.t.Helper()
	all, err := h.Disclosures(h.t.Context(), h.ada)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func TestDisclosureIsDurableBeforeAnythingLeaves(t *testing.T) {
	h := newHub(t)
	id := h.openDisclosure(h.reading())
	opened := h.clock
	h.restart() // a crash while the readings were on their way
	got := h.disclosures()
	want := Disclosure{
		ID: id, Owner: h.ada, Reader: h.admin, Recipient: h.lab, Purpose: "research", Grant: holdfast.GrantID{7}, Streams: []holdfast.StreamID{{1}, {2}},
		Opened: opened, Last: opened, Reads: 1,
	}
	if diff := cmp.Diff([]Disclosure{want}, got); diff != "" {
		t.Errorf("the amount must be unknown, nothing else: %s", diff)
	}
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"disclosure opened"}) {
		t.Errorf("recorded %v", got)
	}
	if next := h.openDisclosure(h.reading()); next == id {
		t.Error("a read joins a disclosure of a process that is dead")
	}
	wants(t, h.CloseDisclosure(t.Context(), id, 1, 1, 1), holdfast.NotFound, "is not open")
	_, err := h.OpenDisclosure(t.Context(), Disclosure{Owner: h.ada, Recipient: h.lab})
	wants(t, err, holdfast.Invalid, "a purpose")
}

func TestReadsWithinFifteenMinutesAreOneDisclosure(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	id := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, id, 10, 100, 200); err != nil {
		t.Fatal(err)
	}
	h.clock = h.clock.Add(14 * time.Minute)
	same := h.reading()
	slices.Reverse(same.Streams)
	if again := h.openDisclosure(same); again != id {
		t.Error("the same read is another disclosure")
	}
	if d := h.disclosures()[0]; d.Complete || d.Rows != 10 {
		t.Errorf("while a read is under way: %+v", d)
	}
	if err := h.CloseDisclosure(ctx, id, 5, 50, 150); err != nil {
		t.Fatal(err)
	}
	d := h.disclosures()[0]
	if d.Rows != 15 || d.Reads != 2 || d.First != 50 || d.Final != 200 || !d.Complete || !d.Last.Equal(h.clock) {
		t.Errorf("after two reads: %+v", d)
	}
	wants(t, h.CloseDisclosure(ctx, id, 1, 1, 1), holdfast.NotFound, "is not open")

	for what, change := range map[string]func(*Disclosure){
		"another reader":    func(d *Disclosure) { d.Reader = holdfast.CredentialID{9} },
		"another recipient": func(d *Disclosure) { d.Recipient = h.bob },
		"another purpose":   func(d *Disclosure) { d.Purpose = "care" },
		"another grant":     func(d *Disclosure) { d.Grant = holdfast.GrantID{8} },
		"other streams":     func(d *Disclosure) { d.Streams = d.Streams[:1] },
		"another owner":     func(d *Disclosure) { d.Owner = h.bob },
	} {
		r := h.reading()
		change(&r)
		if other := h.openDisclosure(r); other == id {
			t.Errorf("%s joins the disclosure", what)
		}
	}
	h.clock = h.clock.Add(time.Minute)
	if later := h.openDisclosure(h.reading()); later == id {
		t.Error("a read after 15 minutes joins it")
	}
}

func TestAmountsAreWrittenWithoutAWritePerRead(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	id := h.openDisclosure(h.reading())
	for range 100 {
		h.openDisclosure(h.reading())
	}
	for range 101 {
		if err := h.CloseDisclosure(ctx, id, 2, 1, 3); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.diary.entries); n != 1 {
		t.Errorf("%d entries for one disclosure", n)
	}
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(h.diary.entries); n != 1 {
		t.Errorf("a flush within the 15 minutes records %d entries", n)
	}
	h.clock = h.clock.Add(15 * time.Minute)
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if len(h.byID)+len(h.byKey) != 0 {
		t.Error("a closed disclosure stays in memory")
	}
	h.restart()
	if d := h.disclosures()[0]; d.Rows != 202 || d.Reads != 101 || !d.Complete {
		t.Errorf("%+v", d)
	}
	if got := h.diary.kinds(vault.OfParty(h.ada)); !slices.Equal(got, []string{"disclosure opened", "disclosure closed"}) {
		t.Errorf("recorded %v", got)
	}
	if last := h.diary.entries[1]; !strings.Contains(last, `"rows":202`) {
		t.Errorf("the amount is not in the ledger: %s", last)
	}
}

func TestACrashLosesAMinuteOfCountsAtMost(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	id := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, id, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := h.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, id, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if d := h.disclosures()[0]; d.Rows != 10 || d.Complete {
		t.Errorf("%+v: want at least 10 rows, amount unknown", d)
	}
}

func TestCloseWritesAllButReadsUnderWay(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	done := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(ctx, done, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	busy := h.reading()
	busy.Purpose = "care"
	h.openDisclosure(busy)
	h.diary.broken = errors.New("ledger away")
	if err := h.Close(ctx); !errors.Is(err, h.diary.broken) {
		t.Errorf("a failed close says %v", err)
	}
	h.diary.broken = nil
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	h.restart()
	for _, d := range h.disclosures() {
		if want := d.ID == done; d.Complete != want || (want && d.Rows != 10) {
			t.Errorf("%+v", d)
		}
	}
}

func TestErasedPartyTakesItsGrantsAndDisclosuresAlong(t *testing.T) {
	h := newHub(t)
	h.research()
	ctx := t.Context()
	if _, err := h.Make(ctx, h.own(h.ada), h.everything()); err != nil {
		t.Fatal(err)
	}
	toAda, err := h.Make(ctx, h.own(h.bob), h.everything(func(s *Spec) { s.Recipient = h.ada }))
	if err != nil {
		t.Fatal(err)
	}
	id := h.openDisclosure(h.reading())
	his := h.reading()
	his.Owner = h.bob
	hisID := h.openDisclosure(his)
	h.setBar(Bar{Party: h.ada, Assignment: holdfast.AssignmentID{1}, Span: holdfast.Always, ArrivedBefore: 1})

	part := holdfast.Scope{Party: h.ada, Assignments: []holdfast.AssignmentID{{1}}, Span: holdfast.Always}
	if err := h.Erase(ctx, part); err != nil {
		t.Fatal(err)
	}
	if got, _ := h.GrantsBy(ctx, h.ada); len(got) != 1 || len(h.disclosures()) != 1 {
		t.Error("erasing a device took the owner's record of who had its data")
	}
	h.keys.destroy(vault.OfParty(h.ada)) // rows are gone after the key, not with it
	if got, err := h.For(ctx, h.lab, h.ada); err != nil || len(got) != 0 {
		t.Errorf("a grant without its grantor: %+v, %v", got, err)
	}
	if err := h.CloseDisclosure(ctx, id, 1, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := h.CloseDisclosure(ctx, hisID, 3, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := h.Flush(ctx); err != nil {
		t.Errorf("another's erasure holds up the others' records: %v", err)
	}
	whole := holdfast.Scope{Party: h.ada, Span: holdfast.Always, Whole: true}
	for range 2 {
		if err := h.Erase(ctx, whole); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := h.GrantsBy(ctx, h.ada); err != nil || len(got) != 0 || len(h.disclosures()) != 0 {
		t.Errorf("left: %+v, %v", got, err)
	}
	if g, err := h.Grant(ctx, toAda.ID); err != nil || g.Live(h.clock) {
		t.Errorf("a grant to the erased party lives: %+v, %v", g, err)
	}
	if got, _ := h.Disclosures(ctx, h.bob); len(got) != 1 || got[0].Rows != 3 {
		t.Errorf("another's disclosures: %+v", got)
	}
	if !h.Barred(holdfast.AssignmentID{1}, holdfast.StreamID{}, 0, 0) {
		t.Error("the bar went with the party")
	}
}

func TestNothingOfAnOwnerIsOnDiskInClear(t *testing.T) {
	h := newHub(t)
	h.research()
	if _, err := h.Make(t.Context(), h.own(h.ada), h.everything(func(s *Spec) { s.AllStreams, s.Streams = false, []string{"secret-stream"} })); err != nil {
		t.Fatal(err)
	}
	h.openDisclosure(h.reading())
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, text := range []string{"research", "secret-stream", "bearings"} {
		if strings.Contains(string(all), text) {
			t.Errorf("%q is on disk", text)
		}
	}
	if !strings.Contains(string(all), "CREATE TABLE disclosure") {
		t.Error("the search finds nothing at all")
	}
}

func TestRunFlushesAndEndsWithItsContext(t *testing.T) {
	h := newHub(t)
	id := h.openDisclosure(h.reading())
	if err := h.CloseDisclosure(t.Context(), id, 10, 1, 2); err != nil {
		t.Fatal(err)
	}
	// The catalog's goroutines stand outside the bubble, so this flush must not
	// reach it: the owner is erased, and his disclosure is only forgotten.
	h.keys.destroy(vault.OfParty(h.ada))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx, func(err error) { t.Error(err) }) }()
		time.Sleep(flushEvery + time.Second)
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v", err)
		}
	})
	if len(h.byID) != 0 {
		t.Error("the minute passed without a flush")
	}
}

func TestManyReadersShareDisclosures(t *testing.T) {
	h := newHub(t)
	ctx := t.Context()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			d := h.reading()
			d.Grant = holdfast.GrantID{byte(i % 2)}
			for range 20 {
				id, err := h.OpenDisclosure(ctx, d)
				if err != nil {
					t.Error(err)
					return
				}
				if err := h.CloseDisclosure(ctx, id, 1, 5, 5); err != nil {
					t.Error(err)
				}
				if i == 0 {
					if err := h.Flush(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	h.restart()
	var rows uint64
	for _, d := range h.disclosures() {
		rows += d.Rows
	}
	if all := h.disclosures(); len(all) != 2 || rows != 160 || !all[0].Complete || !all[1].Complete {
		t.Errorf("%d disclosures of %d rows", len(all), rows)
	}
}

func BenchmarkHot(b *testing.B) {
	h := newHub(b)
	for i := range 100 {
		if err := h.setBar(Bar{Assignment: holdfast.AssignmentID{byte(i)}, Span: holdfast.Always, ArrivedBefore: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("live", func(b *testing.B) {
		for b.Loop() {
			if !h.Live(b.Context(), holdfast.Operation) {
				b.Fatal()
			}
		}
	})
	b.Run("barred", func(b *testing.B) {
		for b.Loop() {
			if h.Barred(holdfast.AssignmentID{50}, holdfast.StreamID{}, 5, 5) {
				b.Fatal()
			}
		}
	})
	b.Run("join a disclosure", func(b *testing.B) {
		d := h.reading()
		for b.Loop() {
			id, err := h.OpenDisclosure(b.Context(), d)
			if err != nil {
				b.Fatal(err)
			}
			if err := h.CloseDisclosure(b.Context(), id, 1, 1, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
