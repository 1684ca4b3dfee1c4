package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// gdpr is the figure of the workloads of GDPRbench (Shastri et al., VLDB 2020), made
// anew: the operations, mixes and distributions are the paper's, the code is not.
func gdpr() Figure {
	f := Figure{
		ID:    "GDPR",
		Title: "Personal records under the law: the workloads of GDPRbench",
		What: fmt.Sprintf("%d records of 100 bytes, each of a person of his own, collected for one of %d purposes; %s of the persons let a processor use theirs. Four parties do %d operations each, one after the other over the "+
			"network's interface of each system, with the mixes of GDPRbench: a controller (uniform), customers (Zipf), a processor (uniform) and a regulator (Zipf). Every answer is compared with what it must be: a record that was "+
			"deleted, restricted, objected to or not shared and yet is read is an error, and so is one that is refused wrongly. In Holdfast a record is a device of its own, sealed under keys of its own; who asks is authenticated, "+
			"decided on, and written on the owner's record; a deletion counts when it is refused everywhere, and its keys die within the window, beside. PostgreSQL keeps a row with its metadata in indexed columns, a row of a log for each "+
			"operation in the same transaction, and a job that deletes what has expired each second; it neither authenticates persons nor encrypts",
			gdprRecords, gdprPurposes, "a quarter", gdprOperations),
		Holdfast: gdprOnHub,
	}
	for _, w := range gdprWorkloads {
		f.Measures = append(f.Measures, Measure{Key: w.name, What: fmt.Sprintf("%s: %d operations", w.name, gdprOperations), Unit: Seconds, Peer: "PostgreSQL"})
	}
	f.Measures = append(f.Measures,
		Measure{Key: "correct", What: "answers that are right", Unit: Percentage, Peer: "PostgreSQL", Goal: Goal{Least: 100}, Absolute: true},
		Measure{Key: "settled", What: "from the last deletion until all are carried out (keys dead, certificates signed; vacuum)", Unit: Seconds, Peer: "PostgreSQL"},
		Measure{Key: "space", What: "bytes on disk for each byte of personal data", Unit: Times, Peer: "PostgreSQL"},
		Measure{Key: "recovered", What: "deleted records whose text still lies in some file", Unit: Count, Peer: "PostgreSQL", Goal: Goal{Most: 0.5}, Absolute: true})
	for _, o := range gdprOps {
		f.Measures = append(f.Measures, Measure{Key: string(o), What: "median: " + string(o), Unit: Seconds, Peer: "PostgreSQL"})
	}
	return f
}

// Sizes of the figure.
const (
	gdprRecords    = 2000
	gdprPurposes   = 25
	gdprOperations = 1000
	gdprSharing    = 4 // every so manieth person lets the processor use his
)

// gdprOp is one kind of operation.
type gdprOp string

// The operations, of whom.
const (
	opInsert         gdprOp = "controller inserts a record"
	opDelete         gdprOp = "controller deletes a record"
	opRetain         gdprOp = "controller changes a purpose's retention"
	opRestrict       gdprOp = "controller restricts a person's data, or no longer, on his word"
	opReadOwn        gdprOp = "customer reads his record"
	opOwnPurposes    gdprOp = "customer asks what his are used for"
	opOwnData        gdprOp = "customer asks what there is of his"
	opRectify        gdprOp = "customer has his record changed"
	opObject         gdprOp = "customer objects to a purpose"
	opShare          gdprOp = "customer grants or withdraws"
	opDeleteOwn      gdprOp = "customer deletes his record"
	opProcess        gdprOp = "processor reads a record"
	opSharers        gdprOp = "processor asks who allows a purpose"
	opShared         gdprOp = "processor asks what a person allows"
	opReaders        gdprOp = "regulator asks who read a person's data"
	opLog            gdprOp = "regulator reads the log"
	opVerifyDeletion gdprOp = "regulator verifies a deletion"
)

var gdprOps = []gdprOp{opInsert, opDelete, opRetain, opRestrict, opReadOwn, opOwnPurposes, opOwnData, opRectify, opObject, opShare, opDeleteOwn,
	opProcess, opSharers, opShared, opReaders, opLog, opVerifyDeletion}

// gdprWorkload is what one party does: operations with their shares in percent.
type gdprWorkload struct {
	name string
	zipf bool
	mix  []gdprShare
}

type gdprShare struct {
	op      gdprOp
	percent int
}

var gdprWorkloads = []gdprWorkload{
	{"controller", false, []gdprShare{{opInsert, 25}, {opDelete, 25}, {opRetain, 25}, {opRestrict, 25}}},
	{"customer", true, []gdprShare{{opReadOwn, 20}, {opOwnPurposes, 10}, {opOwnData, 10}, {opRectify, 20}, {opObject, 10}, {opShare, 10}, {opDeleteOwn, 20}}},
	{"processor", false, []gdprShare{{opProcess, 20}, {opSharers, 40}, {opShared, 40}}},
	{"regulator", true, []gdprShare{{opReaders, 46}, {opLog, 31}, {opVerifyDeletion, 23}}},
}

// Record is one personal record.
type Record struct {
	Key     int
	Person  int
	Purpose int
	Data    string // 100 bytes, beginning with RecordMark of the key
}

// RecordMark begins a record's data, and is found nowhere else.
func RecordMark(key int) string { return fmt.Sprintf("gdpr:%06d:", key) }

// RecordPrefix is what all marks begin with.
const RecordPrefix = "gdpr:"

// RecordBytes is the size of a record's data.
const RecordBytes = 100

// Records are a system that keeps personal records, as the workloads use it. Who
// asks stands in the method's name; every method returns when its effect holds.
type Records interface {
	// Load brings in records and lets those persons share.
	Load(ctx context.Context, all []Record, sharing []int) error
	// Meet gives a person what he needs to act himself. It is not counted.
	Meet(ctx context.Context, person int) error

	Insert(ctx context.Context, r Record) error
	Delete(ctx context.Context, r Record, byPerson bool) error
	Retain(ctx context.Context, purpose, days int) error
	Restrict(ctx context.Context, person int, on bool) error

	ReadOwn(ctx context.Context, r Record) (data string, given bool, err error)
	UsedFor(ctx context.Context, person, purpose int) (bool, error)
	Held(ctx context.Context, person int) (records int, err error)
	Rectify(ctx context.Context, r Record) error
	Object(ctx context.Context, person, purpose int, on bool) error
	Share(ctx context.Context, person, purpose int, on bool) error

	Process(ctx context.Context, r Record) (data string, given bool, err error)
	Sharers(ctx context.Context, purpose int) ([]int, error)
	Shares(ctx context.Context, person int) (bool, error)

	// Readers is how often the processor read of a person.
	Readers(ctx context.Context, person int) (int, error)
	// Log reads the last hundred entries of the log and returns how many came.
	Log(ctx context.Context) (int, error)
	// Deleted reports whether a deletion is proven.
	Deleted(ctx context.Context, r Record) (bool, error)

	// Settle returns when everything deleted is carried out.
	Settle(ctx context.Context) error
	// Recovered is how many of the keys have their mark in a file.
	Recovered(ctx context.Context, keys map[int]bool) (int, error)
	// Disk is what all files hold.
	Disk() (int64, error)
}

// gdprModel is what must be true, and the dice.
type gdprModel struct {
	dice     *rand.Rand
	zipf     *rand.Zipf
	records  []Record // live
	deleted  []Record
	next     int          // key
	people   map[int]bool // who still has a record
	restrict map[int]bool
	object   map[int]bool
	shared   map[int]bool
	reads    map[int]int // of the processor, by person

	right, asked int
	took         map[gdprOp][]float64
}

// GDPR plays rounds of the workloads on one system.
type GDPR struct {
	m      *gdprModel
	r      Records
	loaded bool
}

// NewGDPR makes a play on r. Plays of the same seed ask the same.
func NewGDPR(seed uint64, r Records) *GDPR {
	dice := rand.New(rand.NewPCG(seed, 2020))
	return &GDPR{r: r, m: &gdprModel{dice: dice, zipf: rand.NewZipf(dice, 1.1, 8, gdprRecords-1), people: map[int]bool{}, restrict: map[int]bool{}, object: map[int]bool{},
		shared: map[int]bool{}, reads: map[int]int{}}}
}

// PurposeOf is what a person's records are collected for, and what he shares them for.
func PurposeOf(person int) int { return person % gdprPurposes }

func (m *gdprModel) record(person int) Record {
	r := Record{Key: m.next, Person: person, Purpose: PurposeOf(person)}
	r.Data = m.data(r.Key)
	m.next++
	return r
}

func (m *gdprModel) data(key int) string {
	b := []byte(RecordMark(key))
	for len(b) < RecordBytes {
		b = append(b, "abcdefghijklmnopqrstuvwxyz"[m.dice.IntN(26)])
	}
	return string(b)
}

// Round loads the records before the first round, and plays the four workloads.
func (g *GDPR) Round(ctx context.Context) (Values, error) {
	m := g.m
	if !g.loaded {
		var sharing []int
		for person := range gdprRecords {
			m.records = append(m.records, m.record(person))
			m.people[person] = true
			if person%gdprSharing == 0 {
				sharing = append(sharing, person)
				m.shared[person] = true
			}
		}
		if err := g.r.Load(ctx, m.records, sharing); err != nil {
			return nil, fmt.Errorf("load records: %w", err)
		}
		g.loaded = true
	}
	m.right, m.asked, m.took = 0, 0, map[gdprOp][]float64{}
	v := Values{}
	for _, w := range gdprWorkloads {
		for range gdprOperations {
			took, err := g.one(ctx, &w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			v[w.name] += took
		}
		if w.name != "customer" {
			continue
		}
		began := time.Now() // the last deletions are the customers'
		if err := g.r.Settle(ctx); err != nil {
			return nil, fmt.Errorf("settle deletions: %w", err)
		}
		v["settled"] = time.Since(began).Seconds()
	}
	v["correct"] = 100 * float64(m.right) / float64(m.asked)
	for op, took := range m.took {
		v[string(op)] = SpreadOf(took).Median
	}
	disk, err := g.r.Disk()
	if err != nil {
		return nil, err
	}
	v["space"] = float64(disk) / float64(len(m.records)*RecordBytes)
	gone := map[int]bool{}
	for _, r := range m.deleted {
		gone[r.Key] = true
	}
	n, err := g.r.Recovered(ctx, gone)
	v["recovered"] = float64(n)
	return v, err
}

// one throws the dice for an operation, does it, and returns the seconds it took.
func (g *GDPR) one(ctx context.Context, w *gdprWorkload) (float64, error) {
	m := g.m
	at, op := m.dice.IntN(100), w.mix[len(w.mix)-1].op
	for _, s := range w.mix {
		if at < s.percent {
			op = s.op
			break
		}
		at -= s.percent
	}
	i := m.pick(w.zipf)
	for (op == opDelete || op == opDeleteOwn) && m.restrict[m.records[i].Person] { // he wants them kept
		i = m.pick(w.zipf)
	}
	if w.zipf || op == opRestrict { // a person's own word, or what he hands to a regulator
		if err := g.r.Meet(ctx, m.records[i].Person); err != nil {
			return 0, fmt.Errorf("meet a person: %w", err)
		}
	}
	began := time.Now()
	right, err := g.do(ctx, op, i)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", op, err)
	}
	took := time.Since(began).Seconds()
	m.took[op] = append(m.took[op], took)
	m.asked++
	if right {
		m.right++
	}
	return took, nil
}

// pick chooses a live record.
func (m *gdprModel) pick(zipf bool) int {
	if zipf {
		return int(m.zipf.Uint64()) % len(m.records)
	}
	return m.dice.IntN(len(m.records))
}

// do carries one operation out on record i and says whether the answer is right.
func (g *GDPR) do(ctx context.Context, op gdprOp, i int) (right bool, err error) {
	m, r := g.m, g.m.records[i]
	switch op {
	case opInsert:
		n := m.record(r.Person)
		m.records = append(m.records, n)
		return true, g.r.Insert(ctx, n)
	case opDelete, opDeleteOwn:
		m.records = slices.Delete(m.records, i, i+1)
		m.deleted = append(m.deleted, r)
		return true, g.r.Delete(ctx, r, op == opDeleteOwn)
	case opRetain:
		return true, g.r.Retain(ctx, r.Purpose, 300+m.dice.IntN(60))
	case opRestrict:
		m.restrict[r.Person] = !m.restrict[r.Person]
		return true, g.r.Restrict(ctx, r.Person, m.restrict[r.Person])
	case opReadOwn:
		data, given, err := g.r.ReadOwn(ctx, r)
		return given && data == r.Data, err
	case opOwnPurposes:
		return g.r.UsedFor(ctx, r.Person, r.Purpose)
	case opOwnData:
		n, err := g.r.Held(ctx, r.Person)
		return n == m.of(r.Person), err
	case opRectify:
		m.records[i].Data = m.data(r.Key)
		return true, g.r.Rectify(ctx, m.records[i])
	case opObject:
		m.object[r.Person] = !m.object[r.Person]
		return true, g.r.Object(ctx, r.Person, r.Purpose, m.object[r.Person])
	case opShare:
		m.shared[r.Person] = !m.shared[r.Person]
		return true, g.r.Share(ctx, r.Person, r.Purpose, m.shared[r.Person])
	}
	return g.ask(ctx, op, r)
}

// ask is do for what processor and regulator ask.
func (g *GDPR) ask(ctx context.Context, op gdprOp, r Record) (right bool, err error) {
	m := g.m
	switch op {
	case opProcess:
		may := m.shared[r.Person] && !m.restrict[r.Person] && !m.object[r.Person]
		if may {
			m.reads[r.Person]++
		}
		data, given, err := g.r.Process(ctx, r)
		return given == may && (!may || data == r.Data), err
	case opSharers:
		var want []int
		for person, shared := range m.shared {
			if shared && PurposeOf(person) == r.Purpose {
				want = append(want, person)
			}
		}
		got, err := g.r.Sharers(ctx, r.Purpose)
		slices.Sort(got)
		slices.Sort(want)
		return slices.Equal(got, want), err
	case opShared:
		shares, err := g.r.Shares(ctx, r.Person)
		return shares == m.shared[r.Person], err
	case opReaders:
		n, err := g.r.Readers(ctx, r.Person)
		return n == m.reads[r.Person], err
	case opLog:
		n, err := g.r.Log(ctx)
		return n == 100, err
	case opVerifyDeletion:
		d := m.deleted[m.dice.IntN(len(m.deleted))]
		data, given, err := g.r.Process(ctx, d)
		if err != nil || given || data != "" {
			return false, err
		}
		return g.r.Deleted(ctx, d)
	}
	return false, holdfast.Errorf(holdfast.Internal, "no such operation")
}

// of counts a person's live records.
func (m *gdprModel) of(person int) (n int) {
	for i := range m.records {
		if m.records[i].Person == person {
			n++
		}
	}
	return n
}
