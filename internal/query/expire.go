package query

import (
	"math"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/grant"
)

// CollectedOf returns what of a stream says how long its readings are kept.
func CollectedOf(s *custody.Stream) *grant.Collected {
	return &grant.Collected{Category: s.Category, Purposes: s.Purposes, Days: s.RetentionDays}
}

// expire says from which arrival on the readings of streams are shown.
func (q *Query) expire(all []candidate) {
	now := q.now()
	for i := range all {
		all[i].since = q.grants.Since(&all[i].collected, now)
	}
}

// edgeSlack is how much later than the time that has passed the edge of expiry may
// stand before a read ends.
const edgeSlack = time.Minute

// shortened fails if the life of a stream's readings was shortened while they were
// given out.
func (r *run) shortened(c *candidate) error {
	now := r.q.now()
	since := r.q.grants.Since(&c.collected, now)
	passed := now.UnixNano() - r.began
	if since == 0 || c.since == math.MaxInt64 || c.since > 0 && since != math.MaxInt64 && since-c.since <= passed+int64(edgeSlack) {
		return nil
	}
	return holdfast.Errorf(holdfast.Unavailable, "the time for which these readings are kept was shortened while they were given out: ask again")
}
