package outbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// target is where jobs go: a webhook of a party, or the mail server.
type target struct {
	party   holdfast.PartyID
	webhook holdfast.WebhookID
}

// shared is the target as its health is counted: all mail goes to one server.
func (t target) shared() target {
	if t.webhook.IsZero() {
		return target{}
	}
	return t
}

// health is how a target fares.
type health struct {
	flights int
	failed  int       // in a row
	since   time.Time // of the first of them
	last    string
	until   time.Time // nothing is sent before
}

// How many jobs one target is sent at once, and how it is spared when it fails.
const (
	perTarget   = 4
	tripAfter   = 3 // failures in a row
	firstRest   = 30 * time.Second
	longestRest = 30 * time.Minute
	firstWait   = 5 * time.Second // of a job, three times as long each time
	longestWait = 4 * time.Hour
	longestBid  = 12 * time.Hour // that a target may ask for with Retry-After
)

// Run delivers jobs until ctx ends. Attempts under way get a few seconds then; what
// was not delivered is tried again at the next start.
func (b *Outbox) Run(ctx context.Context) error {
	flying, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var flights sync.WaitGroup
	prune := b.now().Add(time.Hour)
	for ctx.Err() == nil {
		if now := b.now(); !now.Before(prune) {
			if err := b.prune(ctx); err != nil && ctx.Err() == nil {
				b.log.WarnContext(ctx, "outbox: old deliveries are still kept", "error", err)
			}
			prune = now.Add(time.Hour)
		}
		next, _ := b.launch(flying, &flights)
		if next.After(prune) || next.IsZero() {
			next = prune
		}
		t := time.NewTimer(max(next.Sub(b.now()), time.Millisecond))
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-t.C:
		}
		t.Stop()
	}
	stop := time.AfterFunc(shutdownWithin, cut)
	defer stop.Stop()
	flights.Wait()
	return nil
}

const shutdownWithin = 5 * time.Second

func (b *Outbox) awake() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// launch begins every attempt that is due, and returns when the next one is; zero:
// when something changes.
func (b *Outbox) launch(ctx context.Context, flights *sync.WaitGroup) (next time.Time, begun int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	var due []*job
	for _, j := range b.jobs {
		if j.flying != nil {
			continue
		}
		at := j.due
		if h := b.targets[j.shared()]; h != nil {
			if h.until.After(at) {
				at = h.until
			}
			if h.flights >= h.room() {
				continue
			}
		}
		if at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		due = append(due, j)
	}
	slices.SortFunc(due, func(x, y *job) int { return x.due.Compare(y.due) })
	for _, j := range due {
		h := b.targets[j.shared()]
		if h == nil {
			h = &health{}
			b.targets[j.shared()] = h
		}
		if b.inFlight >= maxFlights || h.flights >= h.room() {
			continue
		}
		b.inFlight++
		h.flights++
		begun++
		own, end := context.WithCancel(ctx)
		j.flying = end
		flights.Go(func() {
			defer end()
			b.attempt(own, j)
			b.mu.Lock()
			b.inFlight--
			h.flights--
			j.flying = nil
			b.mu.Unlock()
			b.awake()
		})
	}
	return next, begun
}

// room is how many jobs a target is sent at once: one, while it is found out whether
// it is back.
func (h *health) room() int {
	if h.failed >= tripAfter {
		return 1
	}
	return perTarget
}

// failure is why an attempt failed. Its text is shown to whose webhook it is, and has
// nothing that the target sent but its status.
type failure struct {
	why   string
	final bool          // it will not heal
	gone  bool          // the webhook is gone for good
	after time.Duration // that the target asks for
	ours  bool          // the target could not be asked: its health says nothing
}

func (f *failure) Error() string { return f.why }

// attempt tries a job once and writes down what came of it.
func (b *Outbox) attempt(ctx context.Context, j *job) {
	rows, err := b.readJobs(ctx, `id = $1 AND state = 'waiting'`, j.id)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		b.put(j, firstRest) // the catalog will be back
		return
	}
	if len(rows) == 0 {
		b.drop(j)
		return
	}
	w := rows[0]
	if err := b.maySay(ctx, j, &w); err != nil {
		if k := holdfast.KindOf(err); k != holdfast.Denied && k != holdfast.NotFound || b.Drop(ctx, w.party, w.id) != nil {
			b.put(j, firstWait) // it is asked again
		}
		return
	}
	began := time.Now()
	err = b.send(ctx, &w)
	if ctx.Err() != nil { // a shutdown, or it was taken out: no attempt at all
		return
	}
	b.metrics.seconds.Observe(time.Since(began).Seconds())
	b.note(j, err)
	b.outcome(context.WithoutCancel(ctx), j, w, err)
}

// sureFor is how long it counts that a message was decided on.
const sureFor = 2 * time.Second

// maySay fails where the right to what a message tells of has ended since it was made.
func (b *Outbox) maySay(ctx context.Context, j *job, w *jobRow) error {
	if b.still == nil || w.Alarm.IsZero() || b.now().Sub(j.sure) < sureFor {
		return nil
	}
	return b.still(ctx, w.Alarm, j.about)
}

// note keeps a target's health.
func (b *Outbox) note(j *job, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.targets[j.shared()]
	if h == nil {
		h = &health{}
		b.targets[j.shared()] = h
	}
	f, _ := errors.AsType[*failure](err)
	switch {
	case err == nil, f != nil && f.gone, // nothing more is sent there
		f != nil && f.final && j.webhook.IsZero(): // the mail server did its work
		*h = health{flights: h.flights}
		return
	case f != nil && f.ours:
		return
	}
	now := b.now()
	if h.failed == 0 {
		h.since = now
	}
	h.failed++
	h.last = err.Error()
	if h.failed >= tripAfter {
		h.until = now.Add(b.jitter(min(firstRest<<min(h.failed-tripAfter, 10), longestRest)))
	}
	if f != nil && f.after > 0 {
		if until := now.Add(f.after); until.After(h.until) {
			h.until = until
		}
	}
}

// jitter is d, a quarter more or less: what failed together does not come back together.
func (b *Outbox) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + b.draw()/2))
}

// outcome writes down what became of an attempt.
func (b *Outbox) outcome(ctx context.Context, j *job, w jobRow, err error) {
	f, _ := errors.AsType[*failure](err)
	now := b.now()
	w.Attempts++
	kind := kindOf(w.webhook)
	switch {
	case err == nil:
		w.state, w.Body, w.Subject, w.Last, w.Ended = Delivered, nil, "", "delivered", now.UnixNano()
		b.metrics.result(kind, "delivered")
	case f != nil && f.final, w.Attempts >= maxAttempts, now.Sub(holdfast.Instant(w.Made)) >= keepTrying:
		w.state, w.Last, w.Ended = Dead, err.Error(), now.UnixNano()
		b.metrics.result(kind, "dead")
		b.log.WarnContext(ctx, "outbox: a message is given up", "delivery", w.id, "kind", kind, "attempts", w.Attempts)
	default:
		wait := b.jitter(waitAfter(w.Attempts))
		if f != nil {
			wait = max(wait, f.after)
		}
		w.Due, w.Last = now.Add(wait).UnixNano(), err.Error()
		b.metrics.result(kind, "failed")
	}
	if f != nil && f.gone {
		if err := b.setState(ctx, w.webhook, Disabled); err != nil {
			b.log.WarnContext(ctx, "outbox: disable a webhook", "webhook", w.webhook, "error", err)
		}
	} else if err == nil && !w.webhook.IsZero() {
		if err := b.setState(ctx, w.webhook, Active); err != nil {
			b.log.WarnContext(ctx, "outbox: a webhook is back", "webhook", w.webhook, "error", err)
		}
	}
	if err := b.write(ctx, w); err != nil {
		if !vault.Gone(err) {
			b.log.WarnContext(ctx, "outbox: what became of a delivery is not written; it will be sent again", "delivery", w.id, "error", err)
			b.put(j, firstRest)
			return
		}
		w.state = Dead
	}
	if w.state != Waiting {
		b.drop(j)
		return
	}
	b.put(j, holdfast.Instant(w.Due).Sub(now))
}

// waitAfter is how long a job waits after so many attempts.
func waitAfter(attempts int) time.Duration {
	wait := firstWait
	for range attempts - 1 {
		wait = min(3*wait, longestWait)
	}
	return wait
}

func (b *Outbox) write(ctx context.Context, w jobRow) error {
	box, err := b.seal(ctx, w.party, jobTable, w.id[:], w.jobInfo)
	if err != nil {
		return err
	}
	return b.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE outbox_job SET state = $1, info_sealed = $2 WHERE id = $3`, string(w.state), box, w.id)
		if err == nil && w.state == Delivered { // it has nothing about anybody any more
			_, err = tx.ExecContext(ctx, `DELETE FROM outbox_about WHERE job = $1`, w.id)
		}
		return err
	})
}

func (b *Outbox) put(j *job, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j.due = b.now().Add(wait)
}

func (b *Outbox) drop(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs[j.id] == j {
		delete(b.jobs, j.id)
	}
}

// send carries a job to its target.
func (b *Outbox) send(ctx context.Context, w *jobRow) error {
	if w.webhook.IsZero() {
		if b.mail == nil {
			return &failure{why: "this hub sends no mail any more: serve has no --mail-server", ours: true}
		}
		return b.mail.send(ctx, w)
	}
	all, err := b.readWebhooks(ctx, `id = $1`, w.webhook)
	if err != nil {
		return &failure{why: "the hub could not look up the webhook", ours: true}
	}
	if len(all) == 0 {
		return &failure{why: "the webhook has ended", final: true, ours: true}
	}
	if all[0].state == Disabled && !w.Test {
		return &failure{why: "the webhook is disabled: it said that it is gone; a test that it takes makes it active again", final: true, ours: true}
	}
	return b.post(ctx, all[0], w)
}

// MessageID is what a receiver knows a repeat of a delivery by.
func MessageID(id holdfast.DeliveryID) string { return "msg_" + id.String() }

func (b *Outbox) post(ctx context.Context, to webhook, w *jobRow) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Address, bytes.NewReader(w.Body))
	if err != nil {
		return &failure{why: "the webhook's address can't be asked", final: true}
	}
	now := b.now()
	secrets := [][]byte{to.Secret}
	if len(to.Before) > 0 && now.UnixNano() < to.Until {
		secrets = append(secrets, to.Before)
	}
	id := MessageID(w.id)
	timestamp, signature := sign(id, now, w.Body, secrets...)
	req.Header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Holdfast"}}
	req.Header.Set(headerID, id)
	req.Header.Set(headerTimestamp, timestamp)
	req.Header.Set(headerSignature, signature)
	res, err := b.http.Do(req)
	if err != nil {
		if holdfast.KindOf(err) == holdfast.Denied {
			return &failure{why: notPublic().Error()}
		}
		return &failure{why: "the webhook does not answer: " + unanswered(err)}
	}
	defer res.Body.Close()
	io.CopyN(io.Discard, res.Body, maxReply)
	return judge(res, now)
}

// judge says what a status means.
func judge(res *http.Response, now time.Time) error {
	f := &failure{why: fmt.Sprintf("the webhook answers with status %d", res.StatusCode)}
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case res.StatusCode == http.StatusGone:
		f.final, f.gone = true, true
		f.why = "the webhook answers that it is gone for good (410): it is disabled until a test of it is delivered"
	case res.StatusCode/100 == 3:
		f.why += ", a redirect, which is not followed: give the address that it leads to"
	}
	f.after = retryAfter(res.Header.Get("Retry-After"), now)
	return f
}

// retryAfter reads how long a target wants to be left alone, in seconds or as a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, longestBid)
	}
	if t, err := http.ParseTime(text); err == nil {
		return min(max(t.Sub(now), 0), longestBid)
	}
	return 0
}

// prune deletes what ended long ago.
func (b *Outbox) prune(ctx context.Context) error {
	return b.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM outbox_job WHERE state IN ('delivered', 'dead') AND day < $1`, dayOf(b.now())-keepEnded)
		return err
	})
}

func (b *Outbox) failing(t target) Failing {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.targets[t.shared()]
	if h == nil || h.failed == 0 {
		return Failing{}
	}
	return Failing{Times: h.failed, Since: h.since, Last: h.last, Next: h.until}
}

// FailingTargets counts webhooks, and the mail server, whose last attempt failed.
func (b *Outbox) FailingTargets() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.targets {
		if h.failed > 0 {
			n++
		}
	}
	return n
}

// Trouble is what an operator should know: counts and ids, and no names.
type Trouble struct {
	Webhooks []holdfast.WebhookID // whose last attempt failed
	Mail     Failing              // of the mail server
	Disabled int                  // webhooks that said that they are gone
	Dead     int                  // messages given up in the last days
}

// Failing says what is not delivered, for doctor.
func (b *Outbox) Failing(ctx context.Context) (Trouble, error) {
	t := Trouble{Mail: b.failing(target{})}
	b.mu.Lock()
	for at, h := range b.targets {
		if h.failed > 0 && !at.webhook.IsZero() {
			t.Webhooks = append(t.Webhooks, at.webhook)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(t.Webhooks, func(x, y holdfast.WebhookID) int { return slices.Compare(x[:], y[:]) })
	err := b.db.Read(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM outbox_webhook WHERE state = 'disabled'`).Scan(&t.Disabled); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM outbox_job WHERE state = 'dead'`).Scan(&t.Dead)
	})
	return t, err
}
