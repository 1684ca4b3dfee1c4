package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/bench/corpus"
)

// absent ends a test whose peer is not here. It does so loudly, for then nothing
// of the peer's adapter was tried.
func absent(t *testing.T, err error) {
	t.Helper()
	if holdfast.KindOf(err) == holdfast.NotFound {
		t.Skipf("NOT TRIED: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lines are ten readings, 20.5 to 29.5, of the ten minutes before now.
func lines(now time.Time) []byte {
	var b bytes.Buffer
	for i := range 10 {
		fmt.Fprintf(&b, "env,device=d1 temp=2%d.5 %d\n", i, now.Add(time.Duration(i-10)*time.Minute).UnixMilli())
	}
	return b.Bytes()
}

func gone(t *testing.T, p *Server) {
	t.Helper()
	if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s left its folder: %v", p.Name, err)
	}
}

func described(t *testing.T, p *Server) {
	t.Helper()
	if p.Version == "" || p.PID() <= 0 {
		t.Errorf("the peer is %q with pid %d", p.Release, p.PID())
	}
	t.Logf("%s", p.Release)
	n, err := p.Disk()
	if err != nil || n <= 0 {
		t.Errorf("its files hold %d bytes: %v", n, err)
	}
}

func TestVictoriaMetrics(t *testing.T) {
	v, err := StartVictoriaMetrics(t.Context())
	absent(t, err)
	now := time.Now()
	if err := v.Write(t.Context(), lines(now)); err != nil {
		t.Error(err)
	}
	if err := v.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	if mean, err := v.Value(t.Context(), "avg(avg_over_time(env_temp[1h]))", now); err != nil || mean != 25 {
		t.Errorf("the mean is %v, %v", mean, err)
	}
	if err := v.Write(t.Context(), []byte("no line\n")); err == nil {
		t.Log("it takes what is no line for success: counts must be compared")
	}
	described(t, v.Server)
	if err := v.Stop(); err != nil {
		t.Error(err)
	}
	gone(t, v.Server)
}

func TestInfluxDB(t *testing.T) {
	i, err := StartInfluxDB(t.Context(), true)
	absent(t, err)
	if err := i.Write(t.Context(), lines(time.Now())); err != nil {
		t.Error(err)
	}
	if row, err := i.Row(t.Context(), "SELECT count(temp), mean(temp) FROM env"); err != nil || row[0] != 10 || row[1] != 25 {
		t.Errorf("count and mean are %v, %v", row, err)
	}
	if err := i.Write(t.Context(), []byte("no line\n")); err == nil {
		t.Error("what is no line was taken")
	}
	described(t, i.Server)
	if err := i.Stop(); err != nil {
		t.Error(err)
	}
	gone(t, i.Server)
}

func TestPostgreSQL(t *testing.T) {
	s, err := StartPostgreSQL(t.Context())
	absent(t, err)
	if err := s.CreateReadings(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := make([]corpus.Point, 10)
	for i := range rows {
		rows[i] = corpus.Point{Series: 1, Millis: int64(i), Value: 20.5 + float64(i)}
	}
	if err := s.Copy(t.Context(), rows); err != nil {
		t.Error(err)
	}
	if row, err := s.Numbers(t.Context(), "SELECT count(*)::float8, avg(value) FROM reading WHERE series = $1", 1); err != nil || row[0] != 10 || row[1] != 25 {
		t.Errorf("count and mean are %v, %v", row, err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := s.TableBytes(t.Context()); err != nil || n <= 0 {
		t.Errorf("the table has %d bytes: %v", n, err)
	}
	described(t, s.Server)
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	gone(t, s.Server)
}
