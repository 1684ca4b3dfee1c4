package server

import (
	"database/sql"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/identity"
)

// returns is a house in which devices are erased and declared again.
type returns struct {
	*house
	ahead atomic.Int64 // of custody's clock
}

func (r *returns) declare(s custody.DeviceSpec) (custody.Added, identity.Peer) {
	r.t.Helper()
	d, err := r.custody.AddDevice(r.t.Context(), r.admin().Credential, s)
	if err != nil {
		r.t.Fatal(err)
	}
	return d, r.peer(d.Device)
}

func (r *returns) eraseDevice(who access.Principal, p identity.Peer) {
	r.t.Helper()
	s, err := r.custody.ScopeOfDevice(r.t.Context(), p.Device)
	if err != nil {
		r.t.Fatal(err)
	}
	r.erase(who, s)
}

func (r *returns) eraseParty(who access.Principal) {
	r.t.Helper()
	s, err := r.custody.ScopeOfParty(r.t.Context(), who.Party)
	if err != nil {
		r.t.Fatal(err)
	}
	r.erase(who, s)
}

// refused says that a device's readings from these times are not taken, for the
// reason that neighbours are told.
func (r *returns) refused(p identity.Peer, times ...time.Time) {
	r.t.Helper()
	for _, at := range times {
		if err := r.send(p, number("a", at, 111)); holdfast.KindOf(err) != holdfast.Denied || !strings.Contains(err.Error(), "were erased: they are not taken back in") {
			r.t.Errorf("a reading of %s: %v", at.Format(time.RFC3339), err)
		}
	}
}

func (r *returns) sees(who access.Principal, p identity.Peer, want int) {
	r.t.Helper()
	got, err := r.read(who, p, "a")
	if err != nil || len(got) != want {
		r.t.Errorf("%d readings, %d wanted (%v)", len(got), want, err)
	}
}

func newReturns(t *testing.T) *returns {
	t.Helper()
	r := new(returns)
	g := Machine()
	g.Hands = func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }
	r.house = newHouseOn(t, g)
	return r
}

// What was erased does not come back as somebody else's, nor as the same owner's,
// when the device is declared again: a child of its gateway, a unit by its serial, or
// the same label.
func TestWhatWasErasedDoesNotReturnWithItsDevice(t *testing.T) {
	r := newReturns(t)
	ben, cid := r.person("Ben"), r.person("Cid")
	_, gw := r.declare(custody.DeviceSpec{Label: "gw"})
	_, other := r.declare(custody.DeviceSpec{Label: "other gw"})
	old := []time.Time{time.Now().Add(-3 * day), time.Now().Add(-40 * day), time.Now()}
	heart := custody.DeviceSpec{Label: "heart", Gateway: gw.Device}
	for _, tc := range []struct {
		name        string
		first, next custody.DeviceSpec
		party, same bool // the whole party goes; the owner declares it again
		free        bool // it is another thing
	}{
		{name: "a child", first: heart, next: heart},
		{name: "a child, for the same owner", first: heart, next: heart, same: true},
		{name: "a child, its owner erased", first: heart, next: heart, party: true},
		{name: "a child, of another gateway", first: custody.DeviceSpec{Label: "plug", Gateway: gw.Device}, next: custody.DeviceSpec{Label: "plug", Gateway: other.Device}},
		{name: "a serial", first: custody.DeviceSpec{Label: "w1", Serial: "SN-1"}, next: custody.DeviceSpec{Label: "w2", Serial: "SN-1"}},
		{name: "a serial, its owner erased", first: custody.DeviceSpec{Label: "w3", Serial: "SN-3"}, next: custody.DeviceSpec{Label: "w4", Serial: "SN-3"}, party: true},
		{name: "a label", first: custody.DeviceSpec{Label: "scale"}, next: custody.DeviceSpec{Label: "scale"}},
		{name: "a label, now with a serial", first: custody.DeviceSpec{Label: "lamp"}, next: custody.DeviceSpec{Label: "lamp", Serial: "SN-5"}},
		{name: "a label of two serials", first: custody.DeviceSpec{Label: "band", Serial: "SN-6"}, next: custody.DeviceSpec{Label: "band", Serial: "SN-7"}, free: true},
		{name: "another label", first: custody.DeviceSpec{Label: "ring"}, next: custody.DeviceSpec{Label: "watch"}, free: true},
		{name: "another child", first: custody.DeviceSpec{Label: "tap", Gateway: gw.Device}, next: custody.DeviceSpec{Label: "tub", Gateway: gw.Device}, free: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			first, next := cid, ben
			if tc.party {
				first = r.person("Eve of " + tc.name)
			}
			if tc.same {
				next = first
			}
			tc.first.Owner, tc.next.Owner = first.Party, next.Party
			added, was := r.declare(tc.first)
			if !added.TakesFrom.IsZero() && tc.name == "a child" {
				t.Errorf("where nothing was erased, a device takes readings from %s", added.TakesFrom)
			} else if added.TakesFrom.IsZero() {
				r.mustSend(was, number("a", old[0], 111), number("a", old[1], 111))
			}
			r.mustSend(was, number("a", time.Now(), 112))
			if tc.party {
				r.eraseParty(first)
			} else {
				r.eraseDevice(first, was)
			}
			again, is := r.declare(tc.next)
			if tc.free {
				if !again.TakesFrom.IsZero() {
					t.Errorf("it takes readings from %s", again.TakesFrom)
				}
				r.mustSend(is, number("a", old[0], 1), number("a", old[1], 1), number("a", time.Now(), 2))
				r.sees(next, is, 3)
			} else {
				if again.TakesFrom.IsZero() {
					t.Error("nobody is told that it takes nothing from before")
				}
				r.refused(is, old[0], old[1], again.Device.Added.Add(-1))
				r.mustSend(is, number("a", time.Now(), 2))
				r.sees(next, is, 1)
			}
			r.eraseDevice(next, is)
		})
	}
	r.t = t
}

// The bar holds across a restart, for whoever has the device for a while, and no
// longer than 400 days.
func TestABarOfADeviceThatIsDeclaredAgainHolds(t *testing.T) {
	r := newReturns(t)
	ben, cid, eve := r.person("Ben"), r.person("Cid"), r.person("Eve")
	_, gw := r.declare(custody.DeviceSpec{Label: "gw"})
	spec := custody.DeviceSpec{Label: "heart", Gateway: gw.Device, Owner: cid.Party}
	_, was := r.declare(spec)
	long := time.Now().Add(-40 * day)
	r.mustSend(was, number("a", long, 111))
	r.eraseDevice(cid, was)
	r.halt()
	r.start()
	spec.Owner, spec.Unclaimed = holdfast.PartyID{}, true
	added, is := r.declare(spec)
	if _, err := r.custody.Claim(t.Context(), ben.Credential, ben.Party, added.ClaimCode); err != nil {
		t.Fatal(err)
	}
	r.halt()
	r.start()
	r.refused(is, long, time.Now().Add(-time.Hour))
	// So old a reading goes by its arrival, to whoever has the device then.
	if _, err := r.custody.AddPeriod(t.Context(), ben.Credential, custody.PeriodSpec{Device: is.Device, Owner: eve.Party, Terms: custody.Terms{Basis: "loan"}}); err != nil {
		t.Fatal(err)
	}
	r.refused(is, long)
	r.mustSend(is, number("a", time.Now(), 2))

	r.eraseDevice(ben, is)
	r.ahead.Store(int64(401 * day))
	if err := r.custody.ForgetSources(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int
	err := r.stores.catalog.Read(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM erased_source`).Scan(&left)
	})
	if err != nil || left > 0 {
		t.Errorf("%d are left (%v)", left, err)
	}
	spec.Owner, spec.Unclaimed = cid.Party, false
	if added, _ := r.declare(spec); !added.TakesFrom.IsZero() {
		t.Errorf("after 400 days it takes readings from %s", added.TakesFrom)
	}
}

// A catalog that is put back to before the device was there knows by the take-backs
// that it was erased.
func TestARestoreKnowsWhatIsNotToReturn(t *testing.T) {
	r := newReturns(t)
	r.halt()
	kept, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	if err := AddCopy(t.Context(), Config{Data: r.dir}, "safe", "file:"+kept); err != nil {
		t.Fatal(err)
	}
	r.start()
	cid := r.person("Cid")
	_, gw := r.declare(custody.DeviceSpec{Label: "gw"})
	r.backUp(old)
	spec := custody.DeviceSpec{Label: "heart", Gateway: gw.Device, Owner: cid.Party}
	_, was := r.declare(spec)
	at := time.Now().Add(-3 * day)
	r.mustSend(was, number("a", at, 111))
	r.eraseDevice(cid, was)
	if err := r.stores.vault.TendCopies(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.halt()
	r.house = putBack(t, r.house, old, kept)
	if _, err := r.custody.Device(t.Context(), was.Device); holdfast.KindOf(err) != holdfast.NotFound {
		t.Fatalf("the restored catalog knows the device: %v", err)
	}
	spec.Owner = r.person("Ben").Party
	_, is := r.declare(spec)
	r.refused(is, at)
	r.mustSend(is, number("a", time.Now(), 2))
}

// What a wrong clock dated far ahead is erased by a range that begins there, now or
// when it can be undone no more, and does not come in again.
func TestReadingsOfTheFutureAreErased(t *testing.T) {
	r := newReturns(t)
	cid := r.person("Cid")
	far, from := time.Date(2261, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	_, p := r.declare(custody.DeviceSpec{Label: "clock", Owner: cid.Party})
	r.mustSend(p, number("a", time.Now(), 1))
	s, err := r.custody.ScopeOfStream(t.Context(), p.Device, "a")
	if err != nil {
		t.Fatal(err)
	}
	s.Span.From = from.UnixNano()
	if _, err := r.Server.erasure.Preview(t.Context(), cid, s, erasure.Wish{}); holdfast.KindOf(err) != holdfast.NotFound || !strings.Contains(err.Error(), "no reading of this was taken") {
		t.Errorf("a preview of a future without readings: %v", err)
	}
	r.mustSend(p, number("a", far, 2))
	if v, err := r.Server.erasure.Preview(t.Context(), cid, s, erasure.Wish{}); err != nil || v.Total.Rows != 1 {
		t.Errorf("the preview has %d readings (%v)", v.Total.Rows, err)
	}
	e, err := r.Server.erasure.Request(t.Context(), cid, s, erasure.Wish{Guarded: true, Undo: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	r.sees(cid, p, 1)
	if _, err := r.Server.erasure.Request(t.Context(), cid, s, erasure.Wish{Guarded: true, Undo: time.Hour}); holdfast.KindOf(err) != holdfast.Conflict || !strings.Contains(err.Error(), "already and is waiting: take") {
		t.Errorf("asked for twice: %v", err)
	}
	if _, err := r.Server.erasure.Undo(t.Context(), cid, e.ID); err != nil {
		t.Fatal(err)
	}
	r.sees(cid, p, 2)
	if _, err := r.Server.erasure.Request(t.Context(), cid, s, erasure.Wish{Guarded: true}); err != nil {
		t.Fatal(err)
	}
	if err := r.Server.erasure.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.sees(cid, p, 1)
	r.refused(p, far)
	r.mustSend(p, number("a", time.Now(), 3))
	r.sees(cid, p, 2)
	r.eraseDevice(cid, p)
	_, p = r.declare(custody.DeviceSpec{Label: "clock", Owner: r.person("Ben").Party})
	r.refused(p, far)
}

// What was taken in a period that is erased is nobody's, however late it comes: by its
// arrival it would be the owner's.
func TestReadingsOfAnErasedPeriodAreNobodysHoweverLate(t *testing.T) {
	r := newReturns(t)
	anna, ben := r.person("Anna"), r.person("Ben")
	now := time.Now()
	r.ahead.Store(-int64(100 * day))
	_, van := r.declare(custody.DeviceSpec{Label: "van", Owner: anna.Party})
	if _, err := r.custody.AddPeriod(t.Context(), anna.Credential, custody.PeriodSpec{Device: van.Device, Owner: ben.Party,
		Terms: custody.Terms{Basis: "loan", From: now.Add(-90 * day), To: now.Add(-60 * day)}}); err != nil {
		t.Fatal(err)
	}
	r.ahead.Store(0)
	s, err := r.custody.ScopeOfSlice(t.Context(), van.Device, ben.Party)
	if err != nil {
		t.Fatal(err)
	}
	r.erase(ben, s)
	r.refused(van, now.Add(-70*day))
	r.mustSend(van, number("a", now.Add(-95*day), 1), number("a", now.Add(-50*day), 2), number("a", now, 3))
	r.sees(anna, van, 3)
}
