package journal

import (
	"math"
	"time"

	"github.com/holdfast-iot/holdfast"
)

// Options of a File. The zero value is meant for production.
type Options struct {
	// SegmentSize is the size of a segment file in bytes, a multiple of 4096; 64 MiB
	// if 0. Each is allocated before it is needed. Files of another size that
	// are already there stay in use.
	SegmentSize int64
	// MaxRecord is the largest record taken, in bytes; 4 MiB if 0, or what a segment
	// can hold if that is less.
	MaxRecord int
	// QueueBytes bounds the records that wait to become durable; 16 MiB if 0. It is
	// exceeded by at most one record.
	QueueBytes int
	// Linger is how long a lone record may wait for company before it is synced;
	// 2 ms if 0, not at all if negative. The wait is never longer than a sync of
	// this disk takes; there is none when that is under 1 ms, or when more than 64
	// records wait.
	Linger time.Duration
}

const (
	defaultSegmentSize = 64 << 20
	defaultMaxRecord   = 4 << 20
	defaultQueueBytes  = 16 << 20
	defaultLinger      = 2 * time.Millisecond

	// What a segment can't use for records: its header block and the mark that
	// Close leaves behind them.
	segmentOverhead = segmentHeaderSize + recordHeadSize
)

func (o Options) withDefaults() (Options, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	if o.SegmentSize < 2*segmentHeaderSize || o.SegmentSize%segmentHeaderSize != 0 || o.SegmentSize > math.MaxInt32 {
		return o, holdfast.Errorf(holdfast.Invalid, "the size of a journal segment is a multiple of %d from %d to 2 GiB, not %d",
			segmentHeaderSize, 2*segmentHeaderSize, o.SegmentSize)
	}
	most := o.SegmentSize - segmentOverhead - recordHeadSize
	if o.MaxRecord == 0 {
		o.MaxRecord = int(min(defaultMaxRecord, most))
	}
	if o.MaxRecord < 0 || int64(o.MaxRecord) > most {
		return o, holdfast.Errorf(holdfast.Invalid, "journal segments of %d bytes hold records of 1 to %d bytes, not %d", o.SegmentSize, most, o.MaxRecord)
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = defaultQueueBytes
	}
	if o.Linger == 0 {
		o.Linger = defaultLinger
	}
	return o, nil
}
