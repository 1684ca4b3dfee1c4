package journal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// childFolder in the environment makes the test program a writer that goes on
// until it is killed.
const childFolder = "HOLDFAST_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// writeUntilKilled appends from eight goroutines, says each record that was
// acknowledged on standard output, and trims now and then.
func writeUntilKilled(dir string) {
	f, err := OpenFile(dir, Options{SegmentSize: 64 << 10})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	var say sync.Mutex
	for g := range 8 {
		go func() {
			for i := 0; ; i++ {
				record := fmt.Sprintf("%d/%d/%s", g, i, strings.Repeat("x", i%700))
				pos, err := appendOne(f, record)
				say.Lock()
				if err != nil {
					fmt.Println("failed:", err)
				}
				fmt.Printf("%d %s\n", pos, record)
				say.Unlock()
				if g == 0 && i%100 == 99 {
					f.Trim(pos / 2) // its error can't be told apart from the kill
				}
			}
		}()
	}
	select {}
}

// TestKill9 kills a writing process, thrice on the same folder. What it said that
// it had acknowledged is there.
func TestKill9(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := map[Pos]string{}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var pos Pos
			var record string
			if _, err := fmt.Sscanf(lines.Text(), "%d %s", &pos, &record); err != nil {
				if strings.HasPrefix(lines.Text(), "failed") {
					t.Error(lines.Text())
				}
				continue // cut short by the kill
			}
			if said[pos] = record; len(said) == 1000 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd.Wait() // its error is that it was killed
		if len(said) < 1000 {
			t.Fatalf("the writer said only %d records", len(said))
		}
		f := mustOpen(t, dir, Options{SegmentSize: 64 << 10})
		found := map[Pos]string{}
		for e, err := range f.Read(0) {
			if err != nil {
				t.Fatal(err)
			}
			found[e.Pos] = string(e.Data)
		}
		kept := 0
		for pos, record := range said {
			if pos < f.Start() {
				continue
			}
			kept++
			// The last line may have lost its end.
			if !strings.HasPrefix(found[pos], record) {
				t.Fatalf("the record at %d was acknowledged and is not there", pos)
			}
		}
		if kept == 0 {
			t.Error("everything was trimmed: nothing was tested")
		}
		mustClose(t, f)
	}
}
