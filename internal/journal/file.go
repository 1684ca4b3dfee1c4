package journal

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// File is a Log in segment files of one folder.
type File struct {
	opts Options
	disk Disk
	id   logID

	queue   *queue
	failed  chan struct{}
	stopped chan struct{} // closed when the committer has ended

	end   atomic.Uint64 // End; written by the committer
	stats counters

	mu       sync.Mutex
	segments []*segment // oldest first, never empty; replaced, not changed
	spares   []spare
	failure  error // what closed failed
	closed   error // what the committer's last work gave

	trim  sync.Mutex // held by Trim, and by Close while it closes files
	close sync.Once

	// The committer's own.
	group    []byte
	marked   bool // the newest record is a mark
	syncTime time.Duration
	spareTry time.Time // when making a spare failed last
}

// counters are the running sums of Stats.
type counters struct {
	syncs, records, bytes atomic.Uint64
	syncTime              atomic.Int64
}

// Stats tells what a File has done since it was opened, and what it holds.
type Stats struct {
	Syncs    uint64        // of records; one per group
	SyncTime time.Duration // spent in them, writing included
	Records  uint64        // made durable
	Bytes    uint64        // of those, as they were handed over

	Queued      int // records handed over and not yet taken by the committer
	QueuedBytes int // bytes handed over and not yet answered
	Segments    int // files in the log
}

// OpenFile opens the journal in the folder dir, which it makes if its parent
// is there, and repairs what a crash may have left. The caller has locked dir
// against other processes.
//
// It fails with Internal, an error that holds a *Damage, if the files don't hold
// what was once durable; Conflict if a newer version wrote them; Unavailable if
// the disk is full or can't be written; Invalid for a dir that is no folder.
// Nothing has been changed then.
func OpenFile(dir string, o Options) (*File, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	d, err := openOSDisk(dir)
	if err != nil {
		return nil, err
	}
	return open(d, o)
}

// Open is OpenFile for another Disk than a folder of the operating system.
func Open(d Disk, o Options) (*File, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return open(d, o)
}

// open starts a File on a disk; o has its defaults.
func open(d Disk, o Options) (*File, error) {
	f := &File{opts: o, disk: d, queue: newQueue(o.QueueBytes), failed: make(chan struct{}), stopped: make(chan struct{})}
	if err := f.recover(); err != nil {
		for _, s := range f.segments {
			s.file.Close()
		}
		return nil, err
	}
	go f.run()
	return f, nil
}

// ID is the log's random name: a folder that was emptied comes back with another.
func (f *File) ID() [16]byte { return f.id }

// Append implements Log.
func (f *File) Append(record []byte, done func(Pos, error)) {
	p := pending{data: record, done: done}
	switch {
	case len(record) == 0:
		p.err = holdfast.Errorf(holdfast.Invalid, "a journal record has at least one byte")
	case len(record) > f.opts.MaxRecord:
		// It is not written, so it must not count against the queue's bound.
		p.err = holdfast.Errorf(holdfast.TooLarge, "a journal record has at most %d bytes, not %d", f.opts.MaxRecord, len(record))
		p.data = nil
	}
	if !f.queue.push(p) {
		<-f.stopped // what was handed over before is answered before
		done(0, f.refusal())
	}
}

// Cut ends the current segment file, so that Trim(End()) takes every record
// appended before. It needs room on the disk for a new file.
func (f *File) Cut() error {
	result := make(chan error, 1)
	if !f.queue.push(pending{cut: true, done: func(_ Pos, err error) { result <- err }}) {
		return f.refusal()
	}
	return <-result
}

// refusal is why nothing is taken any more.
func (f *File) refusal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil {
		return f.failure
	}
	return errClosed()
}

func errClosed() error { return holdfast.Errorf(holdfast.Unavailable, "the journal is closed") }

// fail ends the File's working life. Only the committer calls it.
func (f *File) fail(err error) error {
	err = holdfast.Errorf(holdfast.Unavailable, "the journal in %s has failed and must be opened anew by a new process: %w", f.disk.Path(""), err)
	f.mu.Lock()
	f.failure = err
	f.mu.Unlock()
	close(f.failed)
	return err
}

// Failed implements Log.
func (f *File) Failed() <-chan struct{} { return f.failed }

// Start implements Log.
func (f *File) Start() Pos { return f.snapshot()[0].base }

// End implements Log. It may lie past the Next of the newest record: Close leaves
// a mark there.
func (f *File) End() Pos { return Pos(f.end.Load()) }

// snapshot returns the segments as they are now.
func (f *File) snapshot() []*segment {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.segments
}

// Stats returns running figures, each right by itself.
func (f *File) Stats() Stats {
	s := Stats{
		Syncs:    f.stats.syncs.Load(),
		SyncTime: time.Duration(f.stats.syncTime.Load()),
		Records:  f.stats.records.Load(),
		Bytes:    f.stats.bytes.Load(),
		Segments: len(f.snapshot()),
	}
	s.Queued, s.QueuedBytes = f.queue.depth()
	return s
}

// Close implements Log. It returns why the journal failed, if it did. Readers
// that are still at work get Unavailable.
func (f *File) Close() error {
	f.close.Do(func() {
		f.queue.close()
		<-f.stopped
		f.trim.Lock()
		defer f.trim.Unlock()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, s := range f.spares { // the next open would remove them as well
			f.closed = errors.Join(f.closed, s.file.Close(), f.disk.Remove(s.name))
		}
		f.spares = nil
		for _, s := range f.segments {
			f.closed = errors.Join(f.closed, s.file.Close())
		}
		if f.failure != nil {
			f.closed = f.failure
		}
	})
	return f.closed
}
