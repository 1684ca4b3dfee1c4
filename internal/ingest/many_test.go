package ingest

import (
	"database/sql"
	"fmt"
	"testing"
	"time"
)

// TestDeviceOfManySessions: a device that takes another client id each time leaves
// no more than its share, in memory and on disk, and another device loses nothing.
func TestDeviceOfManySessions(t *testing.T) {
	s, p, other := newStore(t), peer(), peer()
	kept := s.open(other, "a", false, time.Hour)
	live := s.open(p, "live", false, time.Hour) // and never closed
	for i := range 2 * maxSessions {
		id := fmt.Sprint("random-", i)
		s.open(p, id, false, time.Hour)
		if err := s.Close(t.Context(), DeviceClient(p), id, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	var rows int
	err := s.db.Read(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM mqtt_session`).Scan(&rows)
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows != maxSessions+1 || len(s.byName) != maxSessions+1 || len(s.byWho) != maxSessions+1 {
		t.Errorf("%d rows, %d and %d in memory, want %d", rows, len(s.byName), len(s.byWho), maxSessions+1)
	}
	if !s.open(p, fmt.Sprint("random-", 2*maxSessions-1), false, time.Hour).Present {
		t.Error("the latest session went before older ones")
	}
	if s.open(p, "random-0", false, time.Hour).Present {
		t.Error("the oldest session is still there")
	}
	for _, was := range []Opened{kept, live} {
		if _, ok := s.byName[was.Name]; !ok {
			t.Error("a session that is open, or another's, was ended")
		}
	}
}
