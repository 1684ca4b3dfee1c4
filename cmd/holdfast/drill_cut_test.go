package main

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A drill that is killed leaves its folder, and its hub not; the same command again
// clears it, and one that a signal ends leaves nothing.
func TestADrillThatIsKilled(t *testing.T) {
	p := &plant{t: t, dir: t.TempDir()}
	dir, said := p.file("drill"), new(bytes.Buffer)
	begin := func() (kill func(syscall.Signal) error) {
		cmd := p.holdfast("drill", "--dir", dir, "--readings", "100")
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return func(s syscall.Signal) error {
			cmd.Process.Signal(s)
			return cmd.Wait()
		}
	}
	kill := begin()
	p.await("the drill's hub", func() bool { _, err := os.Stat(p.file("drill/hub/data/run.json")); return err == nil })
	if err := kill(syscall.SIGKILL); err == nil {
		t.Fatal("it had ended")
	}
	p.write(p.file("drill/first"), "")
	said.Reset()
	kill = begin()
	p.await("what was left is gone, and a hub of its own", func() bool {
		_, left := os.Stat(p.file("drill/first"))
		_, runs := os.Stat(p.file("drill/hub/data/run.json"))
		return left != nil && runs == nil
	})
	if err := kill(syscall.SIGTERM); err == nil || !strings.Contains(said.String(), "stopped by a signal. It proves nothing. Run it again") {
		t.Errorf("it ends with %v and says %s", err, said)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}
