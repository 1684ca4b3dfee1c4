package outbox

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Anybody stands in About for readings of which nobody can say whose they are: the
// message goes with any erasure.
var Anybody = holdfast.AssignmentID(bytes.Repeat([]byte{0xff}, holdfast.IDSize)) // constant

// Message is what is to be sent, to a webhook or by mail.
type Message struct {
	Party   holdfast.PartyID        // for whom
	Webhook holdfast.WebhookID      // zero: by mail
	To      string                  // a mail address
	Subject string                  // of mail
	Body    []byte                  // JSON; of mail text
	About   []holdfast.AssignmentID // whose readings it tells of
	Alarm   holdfast.AlarmID        // whose rule says it; zero: none. What that may not say any more is not sent
	Test    bool                    // it is sent to a disabled webhook, too: if it is taken, that is active again
}

// Delivery is a job as people see it.
type Delivery struct {
	ID       holdfast.DeliveryID
	Party    holdfast.PartyID
	Webhook  holdfast.WebhookID // zero: by mail
	To       string             // of mail
	State    State
	Made     time.Time
	Attempts int
	Next     time.Time // of one that waits
	Ended    time.Time
	Last     string // what the last attempt came to
}

type jobInfo struct {
	To      string `json:"to,omitempty"`
	Subject string `json:"subject,omitempty"`
	Body    []byte `json:"body,omitempty"` // none once it is delivered
	Test    bool   `json:"test,omitempty"`

	Alarm holdfast.AlarmID `json:"alarm,omitzero"`

	Made     int64  `json:"made"`
	Attempts int    `json:"attempts"`
	Due      int64  `json:"due,omitempty"`
	Ended    int64  `json:"ended,omitempty"`
	Last     string `json:"last,omitempty"`
}

// job is what memory knows of a job that waits.
type job struct {
	id holdfast.DeliveryID
	target
	about  []holdfast.AssignmentID
	due    time.Time
	sure   time.Time // when it was decided that it may be said; zero: before this process, or before somebody retried it
	flying func()    // ends the attempt under way; nil: there is none
}

// Draft is a job that is not in the outbox yet. Insert, then Queue.
type Draft struct {
	job
	box []byte
	day int64
}

func dayOf(t time.Time) int64 { return t.Unix() / 86400 }

// CheckMail refuses what is no address that mail can go to.
func (b *Outbox) CheckMail(to string) error {
	a, err := mail.ParseAddress(to)
	switch {
	case b.mail == nil:
		return holdfast.Errorf(holdfast.Unavailable, "this hub sends no mail: the operator sets it up with serve --mail-server and --mail-from")
	case err != nil || a.Address != to || len(to) > 254 || strings.ContainsAny(to, "\r\n"):
		return holdfast.Errorf(holdfast.Invalid, "a mail address looks like name@example.org, without a name around it")
	}
	return nil
}

// Prepare makes a job of a message. It is in the outbox when Insert's transaction
// is, and is sent from Queue on; so it is sent if, and only if, what it tells of
// happened.
func (b *Outbox) Prepare(ctx context.Context, m Message) (*Draft, error) {
	if len(m.Body) > maxBody {
		return nil, holdfast.Errorf(holdfast.TooLarge, "a message has at most %d bytes", maxBody)
	}
	now := b.now()
	if m.Webhook.IsZero() {
		if err := b.CheckMail(m.To); err != nil {
			return nil, err
		}
		if !b.mails.Spend(string(m.Party[:]), now) {
			b.metrics.result("mail", "too many")
			return nil, holdfast.Errorf(holdfast.TooLarge, "too much mail is sent for one party: at most %d at once and one each five minutes", mailsAtOnce)
		}
	}
	if b.waiting(m.Party) >= maxWaiting {
		b.metrics.result(kindOf(m.Webhook), "too many")
		return nil, holdfast.Errorf(holdfast.TooLarge, "%d messages wait already for one party", maxWaiting)
	}
	d := &Draft{job: job{id: holdfast.NewID[holdfast.DeliveryID](), target: target{m.Party, m.Webhook}, about: slices.Clone(m.About), due: now, sure: now}, day: dayOf(now)}
	slices.SortFunc(d.about, func(x, y holdfast.AssignmentID) int { return slices.Compare(x[:], y[:]) })
	d.about = slices.Compact(d.about)
	var err error
	d.box, err = b.seal(ctx, m.Party, jobTable, d.id[:], jobInfo{To: m.To, Subject: m.Subject, Body: m.Body, Test: m.Test, Alarm: m.Alarm, Made: now.UnixNano(), Due: now.UnixNano()})
	return d, err
}

// ID is the id that the job will have.
func (d *Draft) ID() holdfast.DeliveryID { return d.id }

// Insert writes the job in the caller's transaction.
func (d *Draft) Insert(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO outbox_job (id, party, webhook, state, day, info_sealed) VALUES ($1, $2, $3, 'waiting', $4, $5)`, d.id, d.party, d.webhook, d.day, d.box)
	if err != nil {
		return err
	}
	for _, a := range d.about {
		if _, err := tx.ExecContext(ctx, `INSERT INTO outbox_about (assignment, job) VALUES ($1, $2)`, a, d.id); err != nil {
			return err
		}
	}
	return nil
}

// Queue has jobs sent whose transaction is durable.
func (b *Outbox) Queue(all ...*Draft) {
	b.mu.Lock()
	for _, d := range all {
		j := d.job
		b.jobs[j.id] = &j
	}
	b.mu.Unlock()
	b.awake()
}

// Send is Prepare, Insert and Queue for a message that stands alone.
func (b *Outbox) Send(ctx context.Context, m Message) (holdfast.DeliveryID, error) {
	d, err := b.Prepare(ctx, m)
	if err != nil {
		return holdfast.DeliveryID{}, err
	}
	if err := b.db.Write(ctx, func(tx *sql.Tx) error { return d.Insert(ctx, tx) }); err != nil {
		return holdfast.DeliveryID{}, err
	}
	if m.Test {
		b.trust(d.target)
	}
	b.Queue(d)
	return d.id, nil
}

type jobRow struct {
	id      holdfast.DeliveryID
	party   holdfast.PartyID
	webhook holdfast.WebhookID
	state   State
	box     []byte
	jobInfo
}

func (b *Outbox) readJobs(ctx context.Context, where string, args ...any) ([]jobRow, error) {
	rows, err := catalog.Rows(ctx, b.db, func(q *sql.Rows) (w jobRow, err error) {
		return w, q.Scan(&w.id, &w.party, &w.webhook, &w.state, &w.box)
	}, `SELECT id, party, webhook, state, info_sealed FROM outbox_job WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	var all []jobRow
	for _, w := range rows {
		switch err := b.open(ctx, w.party, jobTable, w.id[:], w.box, &w.jobInfo); {
		case vault.Gone(err):
		case err != nil:
			return nil, err
		default:
			all = append(all, w)
		}
	}
	return all, nil
}

func (b *Outbox) load(ctx context.Context) error {
	rows, err := b.readJobs(ctx, `state = 'waiting'`)
	if err != nil {
		return err
	}
	for _, w := range rows {
		b.jobs[w.id] = &job{id: w.id, target: target{w.party, w.webhook}, due: holdfast.Instant(w.Due)}
	}
	type pair struct {
		job        holdfast.DeliveryID
		assignment holdfast.AssignmentID
	}
	pairs, err := catalog.Rows(ctx, b.db, func(q *sql.Rows) (p pair, err error) { return p, q.Scan(&p.job, &p.assignment) }, `SELECT job, assignment FROM outbox_about`)
	for _, p := range pairs {
		if j := b.jobs[p.job]; j != nil {
			j.about = append(j.about, p.assignment)
		}
	}
	return err
}

// Deliveries returns a party's jobs of the last days, the newest first.
func (b *Outbox) Deliveries(ctx context.Context, p holdfast.PartyID) ([]Delivery, error) {
	rows, err := b.readJobs(ctx, `party = $1`, p)
	if err != nil {
		return nil, err
	}
	all := make([]Delivery, 0, len(rows))
	for _, w := range rows {
		all = append(all, w.delivery())
	}
	slices.SortFunc(all, func(x, y Delivery) int { return cmp.Or(y.Made.Compare(x.Made), slices.Compare(x.ID[:], y.ID[:])) })
	return all, nil
}

func (w jobRow) delivery() Delivery {
	d := Delivery{ID: w.id, Party: w.party, Webhook: w.webhook, To: w.To, State: w.state, Made: holdfast.Instant(w.Made), Attempts: w.Attempts, Ended: holdfast.Instant(w.Ended), Last: w.Last}
	if w.state == Waiting {
		d.Next = holdfast.Instant(w.Due)
	}
	return d
}

// Delivery returns one of a party's jobs.
func (b *Outbox) Delivery(ctx context.Context, p holdfast.PartyID, id holdfast.DeliveryID) (Delivery, error) {
	rows, err := b.readJobs(ctx, `id = $1 AND party = $2`, id, p)
	if err != nil || len(rows) == 0 {
		return Delivery{}, cmp.Or(err, holdfast.Errorf(holdfast.NotFound, "there is no such delivery"))
	}
	return rows[0].delivery(), nil
}

// Retry has a job tried now, with all its attempts before it again.
func (b *Outbox) Retry(ctx context.Context, p holdfast.PartyID, id holdfast.DeliveryID) (Delivery, error) {
	rows, err := b.readJobs(ctx, `id = $1 AND party = $2`, id, p)
	switch {
	case err != nil:
		return Delivery{}, err
	case len(rows) == 0:
		return Delivery{}, holdfast.Errorf(holdfast.NotFound, "there is no such delivery")
	case rows[0].state == Delivered:
		return Delivery{}, holdfast.Errorf(holdfast.Conflict, "it was delivered: the hub does not keep what it said")
	}
	w := rows[0]
	b.mu.Lock()
	if j := b.jobs[id]; j != nil && j.flying != nil {
		b.mu.Unlock()
		return w.delivery(), nil
	}
	delete(b.jobs, id)
	b.mu.Unlock()
	now := b.now()
	w.Attempts, w.Made, w.Due, w.Ended, w.state = 0, now.UnixNano(), now.UnixNano(), 0, Waiting
	box, err := b.seal(ctx, p, jobTable, id[:], w.jobInfo)
	if err != nil {
		return Delivery{}, err
	}
	about, err := catalog.Rows(ctx, b.db, func(q *sql.Rows) (a holdfast.AssignmentID, err error) { return a, q.Scan(&a) }, `SELECT assignment FROM outbox_about WHERE job = $1`, id)
	if err != nil {
		return Delivery{}, err
	}
	err = b.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE outbox_job SET state = 'waiting', day = $1, info_sealed = $2 WHERE id = $3`, dayOf(now), box, id)
		return err
	})
	if err != nil {
		return Delivery{}, err
	}
	t := target{p, w.webhook}
	b.trust(t)
	b.Queue(&Draft{job: job{id: id, target: t, about: about, due: now}})
	return w.delivery(), nil
}

// trust has a target asked at once: somebody says that it is mended.
func (b *Outbox) trust(t target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.targets[t.shared()]; h != nil {
		h.until = time.Time{}
	}
}

// Drop takes a job out of the outbox, whatever became of it.
func (b *Outbox) Drop(ctx context.Context, p holdfast.PartyID, id holdfast.DeliveryID) error {
	err := b.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM outbox_job WHERE id = $1 AND party = $2`, id, p)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, holdfast.Errorf(holdfast.NotFound, "there is no such delivery"))
		}
		return nil
	})
	if err == nil {
		b.forget(func(j *job) bool { return j.id == id })
	}
	return err
}

func (b *Outbox) waiting(p holdfast.PartyID) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.party == p {
			n++
		}
	}
	return n
}

// forget takes jobs out of memory and ends the attempts under way.
func (b *Outbox) forget(which func(*job) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, j := range b.jobs {
		if which(j) {
			if j.flying != nil {
				j.flying()
			}
			delete(b.jobs, id)
		}
	}
}
