package seal

import "time"

// Bucket is a month (YYYYMM) or a day (YYYYMMDD) of arrival in UTC: the unit in
// which keys die. Bucket 0 is list 0, which has no time.
type Bucket uint32

// DailyDays is the longest retention for which keys are made per day of arrival:
// with a key per month, data would outlive it by up to half.
const DailyDays = 62

// BucketOf returns the bucket of an arrival in nanoseconds since 1970: a day's
// where retention is short enough that months would keep data too long.
func BucketOf(arrival int64, daily bool) Bucket {
	y, m, d := time.Unix(0, arrival).UTC().Date()
	b := Bucket(y)*100 + Bucket(m)
	if daily {
		return b*100 + Bucket(d)
	}
	return b
}

// Month returns the month that the bucket is, or that its day is in, as YYYYMM.
func (b Bucket) Month() int {
	if b >= 1_000_000 {
		return int(b / 100)
	}
	return int(b)
}

// Ends returns the first nanosecond after the bucket.
func (b Bucket) Ends() int64 {
	if b >= 1_000_000 {
		return time.Date(int(b/10000), time.Month(b/100%100), int(b%100)+1, 0, 0, 0, 0, time.UTC).UnixNano()
	}
	return time.Date(int(b/100), time.Month(b%100)+1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
}
