package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/query/querytest"
	"github.com/holdfast-iot/holdfast/internal/testseed"
)

// sequences returns the sequence numbers that a reader gets of a selection, a page of three
// at a time, or why he gets nothing.
func sequences(t testing.TB, h *querytest.House, who access.Principal, s query.Selection) ([]uint64, int, error) {
	t.Helper()
	var got []uint64
	req := query.Request{Who: who, Selection: s, Span: holdfast.Always, Limit: 3}
	withheld := 0
	for {
		res, err := h.Query.Read(t.Context(), req)
		if err != nil {
			return nil, 0, err
		}
		for row, err := range res.Rows {
			if err != nil {
				return nil, 0, err
			}
			got = append(got, row.Seq)
		}
		withheld = res.Withheld
		if req.Cursor = res.Cursor(); req.Cursor == "" {
			slices.Sort(got)
			return got, withheld, nil
		}
	}
}

// No reading is readable outside its assignment, and each is by exactly the one whose
// data it is: over random periods and hours, and readings that are late, early, or
// without a time.
func TestReadingsStayInTheirAssignment(t *testing.T) {
	seed := testseed.Of(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	h := querytest.Build(t)
	var parties []access.Principal
	for i := range 5 {
		parties = append(parties, h.Party(fmt.Sprint("Person ", i)))
	}
	now := time.Now()
	model := newTimelineModel(t, h, rnd, parties, now)
	for i := range 6 {
		model.addDevice(i)
	}
	for range 30 {
		model.addPeriod()
	}
	for i := range 60 {
		model.send()
		if i == 30 {
			h.Roll()
		}
		if i%15 == 7 {
			model.endPeriod()
		}
	}
	model.check()
	h.Roll()
	model.check()
}

// timelineModel knows by a plain look through all periods whose each reading is.
type timelineModel struct {
	t       testing.TB
	h       *querytest.House
	rnd     *rand.Rand
	parties []access.Principal
	now     time.Time
	devices []custody.Device
	periods map[holdfast.DeviceID][]custody.Assignment
	whose   map[holdfast.PartyID][]uint64
	byOwner map[holdfast.DeviceID]map[holdfast.PartyID][]uint64
	seq     uint64
	unsure  []uint64
}

func newTimelineModel(t testing.TB, h *querytest.House, rnd *rand.Rand, parties []access.Principal, now time.Time) *timelineModel {
	return &timelineModel{t: t, h: h, rnd: rnd, parties: parties, now: now, periods: map[holdfast.DeviceID][]custody.Assignment{},
		whose: map[holdfast.PartyID][]uint64{}, byOwner: map[holdfast.DeviceID]map[holdfast.PartyID][]uint64{}}
}

func (m *timelineModel) party() access.Principal { return m.parties[m.rnd.IntN(len(m.parties))] }

func (m *timelineModel) addDevice(i int) {
	spec := custody.DeviceSpec{Label: fmt.Sprint("thing ", i), Owner: m.party().Party}
	if m.rnd.IntN(3) == 0 {
		spec.Subject = m.party().Party
	}
	if len(m.devices) > 0 && m.rnd.IntN(3) == 0 {
		spec.Gateway = m.devices[0].ID
	}
	d := m.h.Device(spec)
	m.devices = append(m.devices, d)
	m.byOwner[d.ID] = map[holdfast.PartyID][]uint64{}
}

// addPeriod adds a random one from the device's adding on; what overlaps is refused,
// exactly where the model finds an instant in two.
func (m *timelineModel) addPeriod() {
	d := m.devices[m.rnd.IntN(len(m.devices))]
	spec := custody.PeriodSpec{Device: d.ID, Owner: m.party().Party, Terms: custody.Terms{Basis: custody.Loan}}
	if m.rnd.IntN(2) == 0 {
		spec.Subject = m.party().Party
	}
	spec.From = d.Added.Add(time.Duration(m.rnd.Int64N(int64(10 * time.Minute))))
	if m.rnd.IntN(3) > 0 {
		spec.To = spec.From.Add(time.Duration(1 + m.rnd.Int64N(int64(4*time.Minute))))
	}
	if m.rnd.IntN(3) == 0 {
		at := d.Added.UTC().Add(time.Duration(m.rnd.IntN(8)) * time.Minute)
		hours := fmt.Sprintf("Mo-Su %s-%s", at.Format("15:04"), at.Add(2*time.Minute).Format("15:04"))
		s, err := custody.ParseSchedule(hours, "UTC")
		if err != nil {
			m.t.Fatal(err)
		}
		spec.Schedule = s
	}
	a, err := m.h.Custody.AddPeriod(m.t.Context(), m.h.Admin.Credential, spec)
	if err == nil {
		m.periods[d.ID] = append(m.periods[d.ID], a)
	} else if holdfast.KindOf(err) != holdfast.Conflict {
		m.t.Fatal(err)
	}
}

func (m *timelineModel) endPeriod() {
	d := m.devices[m.rnd.IntN(len(m.devices))]
	for i, a := range m.periods[d.ID] {
		if !a.To.IsZero() {
			continue
		}
		ended, err := m.h.Custody.EndPeriod(m.t.Context(), m.h.Admin.Credential, a.ID, a.From.Add(11*time.Minute))
		if err != nil {
			m.t.Fatal(err)
		}
		m.periods[d.ID][i] = ended
		return
	}
}

// send sends a message of one to five readings of random times, some of them far out.
func (m *timelineModel) send() {
	d := m.devices[m.rnd.IntN(len(m.devices))]
	type sent struct {
		seq uint64
		at  time.Time // zero: the arrival decides
	}
	var all []sent
	var samples []holdfast.Sample
	for range 1 + m.rnd.IntN(5) {
		m.seq++
		x := holdfast.Sample{Stream: fmt.Sprint("stream ", m.rnd.IntN(2)), Seq: m.seq, Value: holdfast.NumberValue(1), Literal: true}
		s := sent{seq: m.seq}
		switch m.rnd.IntN(8) {
		case 0: // without a time
		case 1:
			x.Timed, x.Time = true, m.now.Add(-custody.Spool-time.Hour-time.Duration(m.rnd.Int64N(int64(time.Hour)))).UnixNano()
		case 2:
			x.Timed, x.Time = true, m.now.Add(custody.Ahead+time.Hour).UnixNano()
		case 3: // before there was the device
			s.at = m.now.Add(-time.Duration(1 + m.rnd.Int64N(int64(20*24*time.Hour))))
			x.Timed, x.Time = true, s.at.UnixNano()
		default:
			s.at = m.now.Add(time.Duration(m.rnd.Int64N(int64(custody.Ahead - 30*time.Second))))
			x.Timed, x.Time = true, s.at.UnixNano()
		}
		samples = append(samples, x)
		all = append(all, s)
	}
	before := time.Now()
	m.h.Send(d, samples...)
	after := time.Now()
	for _, s := range all {
		if s.at.IsZero() {
			if m.holder(d, before) != m.holder(d, after) { // it arrived just as one began or ended
				m.unsure = append(m.unsure, s.seq)
				continue
			}
			s.at = before
		}
		p := m.holder(d, s.at)
		m.whose[p] = append(m.whose[p], s.seq)
		m.byOwner[d.ID][p] = append(m.byOwner[d.ID][p], s.seq)
	}
}

// holder is whose an instant of a device is, looked up the long way.
func (m *timelineModel) holder(d custody.Device, at time.Time) holdfast.PartyID {
	for _, a := range m.periods[d.ID] {
		in := !at.Before(a.From) && (a.To.IsZero() || at.Before(a.To))
		if in && a.Schedule != nil {
			in = false
			minute := at.UTC().Hour()*60 + at.UTC().Minute()
			for _, s := range a.Schedule.Shifts {
				in = in || s.Day == at.UTC().Weekday() && s.From <= minute && minute < s.To || s.To > 24*60 && (s.Day+1)%7 == at.UTC().Weekday() && minute < s.To-24*60
			}
		}
		if in {
			return a.Whose()
		}
	}
	return custody.Assignment{Owner: d.Owner, Subject: d.Subject}.Whose()
}

func (m *timelineModel) sure(got []uint64) []uint64 {
	return slices.DeleteFunc(got, func(n uint64) bool { return slices.Contains(m.unsure, n) })
}

func (m *timelineModel) check() {
	m.t.Helper()
	for _, p := range m.parties {
		want := slices.Sorted(slices.Values(m.whose[p.Party]))
		got, _, err := sequences(m.t, m.h, p, query.Selection{Party: p.Party})
		got = m.sure(got)
		if err != nil && len(want) > 0 || !slices.Equal(got, want) {
			m.t.Errorf("all of a party: got %d, want %d, %v", len(got), len(want), err)
		}
		for _, d := range m.devices {
			want := slices.Sorted(slices.Values(m.byOwner[d.ID][p.Party]))
			got, _, err := sequences(m.t, m.h, p, query.Selection{Device: d.ID})
			got = m.sure(got)
			if err != nil && len(want) > 0 || !slices.Equal(got, want) {
				m.t.Errorf("all of a device: got %d, want %d, %v", len(got), len(want), err)
			}
		}
	}
}

// A guest reads his own slice of a device and learns nothing of the rest, its owner the
// rest and nothing of the slice; a grant over all devices reaches the slice of who made
// it, and no other.
func TestSliceOfADevice(t *testing.T) {
	h := querytest.Build(t)
	ada, bob, eve := h.Party("Ada"), h.Party("Bob"), h.Party("Eve")
	h.Purpose("fitness")
	doctor := h.Party("Doctor")
	program := h.Program(doctor.Party, "fitness")
	d := h.Device(custody.DeviceSpec{Label: "bike", Owner: ada.Party})
	at := time.Now()
	loan, err := h.Custody.AddPeriod(t.Context(), h.Admin.Credential, custody.PeriodSpec{Device: d.ID, Owner: bob.Party,
		Terms: custody.Terms{Basis: custody.Guest, From: at.Add(time.Minute)}})
	if err != nil {
		t.Fatal(err)
	}
	sample := func(stream string, at time.Time, seq uint64) holdfast.Sample {
		return holdfast.Sample{Stream: stream, Time: at.UnixNano(), Timed: true, Seq: seq, Value: holdfast.NumberValue(1), Literal: true}
	}
	h.Send(d, sample("speed", at, 1), sample("speed", at.Add(2*time.Minute), 2), sample("heart", at.Add(3*time.Minute), 3))

	device := query.Selection{Device: d.ID}
	for name, k := range map[string]struct {
		who  access.Principal
		s    query.Selection
		want []uint64
		kind holdfast.Kind
	}{
		"owner":                      {ada, device, []uint64{1}, 0},
		"owner, by name":             {ada, query.Selection{Device: d.ID, Stream: "speed"}, []uint64{1}, 0},
		"owner, the guest's stream":  {ada, query.Selection{Device: d.ID, Stream: "heart"}, nil, holdfast.NotFound},
		"guest":                      {bob, device, []uint64{2, 3}, 0},
		"guest, by name":             {bob, query.Selection{Device: d.ID, Stream: "speed"}, []uint64{2}, 0},
		"guest, no such stream":      {bob, query.Selection{Device: d.ID, Stream: "power"}, nil, holdfast.NotFound},
		"guest, all of his":          {bob, query.Selection{Party: bob.Party}, []uint64{2, 3}, 0},
		"guest, the owner's":         {bob, query.Selection{Party: ada.Party}, nil, holdfast.Denied},
		"stranger":                   {eve, device, nil, holdfast.Denied},
		"program without a grant":    {program, device, nil, holdfast.Denied},
		"administrator has no right": {h.Admin, device, nil, holdfast.Denied},
	} {
		got, withheld, err := sequences(t, h, k.who, k.s)
		if !slices.Equal(got, k.want) || withheld != 0 || k.kind != 0 && holdfast.KindOf(err) != k.kind || k.kind == 0 && err != nil {
			t.Errorf("%s: %v, %d withheld, %v", name, got, withheld, err)
		}
	}
	_, _, mine := sequences(t, h, eve, device)
	_, _, none := sequences(t, h, eve, query.Selection{Device: holdfast.NewID[holdfast.DeviceID]()})
	if mine.Error() != none.Error() {
		t.Errorf("a stranger can tell: %q, %q", mine, none)
	}

	h.Grant(bob, grant.Spec{Recipient: doctor.Party, Purpose: "fitness", AllDevices: true, AllStreams: true, Data: holdfast.Always, Until: h.Now().Add(time.Hour)})
	for _, s := range []query.Selection{device, {Party: bob.Party}} {
		if got, _, err := sequences(t, h, program, s); err != nil || !slices.Equal(got, []uint64{2, 3}) {
			t.Errorf("under the guest's grant: %v, %v", got, err)
		}
	}
	if _, err := h.Custody.EndPeriod(t.Context(), h.Admin.Credential, loan.ID, at.Add(4*time.Minute)); err != nil {
		t.Fatal(err)
	}
	h.Send(d, sample("speed", at.Add(4*time.Minute), 4))
	if got, _, err := sequences(t, h, ada, device); err != nil || !slices.Equal(got, []uint64{1, 4}) {
		t.Errorf("back with its owner: %v, %v", got, err)
	}
	if got, _, err := sequences(t, h, bob, device); err != nil || !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("the guest keeps his: %v, %v", got, err)
	}
}
