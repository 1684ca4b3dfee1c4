package query

import (
	"cmp"

	"github.com/holdfast-iot/holdfast"
)

// ofStreams gives the windows of each stream, one stream after the other.
func (r *run) ofStreams(yield func(Row, error) bool) (step, error) {
	var all []*outlet
	var streams []task
	mark := r.q.erasures.Begun()
	for i := range r.streams {
		c := &r.streams[i]
		o := &outlet{r: r, key: c.key(), source: c.face(), of: c, spans: []holdfast.Span{c.Span}, mark: mark, yield: yield}
		of := r.of(c)
		o.account = func(w *Window) { of.amount.add(w.Count, w.firstAt, w.lastAt) }
		o.still = func() error { return r.still(c) }
		span := c.Span
		if c.key() == r.at.stream {
			if r.at.given == wholeStream {
				continue
			}
			span.From = max(span.From, r.at.back)
			o.resume(r.at)
		}
		if span.From <= span.To {
			all = append(all, o)
			streams = append(streams, task{c: c, span: span})
		}
	}
	if len(streams) == 0 {
		return onward, nil
	}
	how, failed := onward, error(nil)
	ended := func(o *outlet, more bool) bool {
		how, failed = o.how, o.err
		return more
	}
	err := r.fold(streams,
		func(i int, w *Window) bool { return ended(all[i], all[i].window(w)) },
		func(i int) bool { return ended(all[i], all[i].end()) })
	return how, cmp.Or(failed, err)
}

// fold makes the windows of streams and gives them in the order of streams: window
// takes each, done the end of each stream; false ends it all.
func (r *run) fold(tasks []task, window func(i int, w *Window) bool, done func(i int) bool) error {
	f := fold{plan: r.plan}
	at, more := 0, true
	f.emit = func(w *Window) bool {
		more = more && window(at, w)
		return more
	}
	begin := func() { // the stream of tasks[at]
		f.typ, f.step, f.before = tasks[at].c.Type, tasks[at].c.rounding(), before{}
		if b := tasks[at].before; b != nil {
			f.before = *b
		}
	}
	end := func() bool {
		if b := tasks[at].before; b != nil {
			*b = f.before
		}
		more = f.end() && done(at)
		at++
		return more
	}
	begin()
	for rows, err := range r.q.scan(r.ctx, r.cores, tasks, r.plan) {
		if err != nil {
			return err
		}
		if err := r.count(rows.to - rows.from); err != nil {
			return err
		}
		for at < rows.task {
			if !end() {
				return nil
			}
			begin()
		}
		if rows.minutes != nil {
			if !f.stored(rows.minutes, rows.from, rows.to) {
				return nil
			}
		} else if !f.rows(rows.columns, rows.from, rows.to) {
			return nil
		}
	}
	for at < len(tasks) {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if !end() {
			return nil
		}
		if at < len(tasks) {
			begin()
		}
	}
	return nil
}

// count keeps a read of windows within the readings that one may read.
func (r *run) count(n int) error {
	if r.read += uint64(n); r.read > r.q.purse.Rows {
		return holdfast.Errorf(holdfast.TooLarge, "these windows are of more than the %d readings that one query may read: ask for a shorter time or for fewer streams", r.q.purse.Rows)
	}
	return nil
}
