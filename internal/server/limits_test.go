package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestConnectionsLeaveFilesForTheHub(t *testing.T) {
	for _, files := range []uint64{64, 256, 1024, 2048, 20_000, 65_536, 1 << 20, ^uint64(0)} {
		c := connectionsOf(files, Limits{})
		sum := uint64(c.mqtt + c.device + c.api)
		if c.mqtt < 1 || c.device < 1 || c.api < 1 || sum > files-min(files/2, ownFiles) {
			t.Errorf("%d files: %+v", files, c)
		}
	}
	if c := connectionsOf(1<<20, Limits{}); c.mqtt != mostMQTT || c.device != mostDevice || c.api != mostAPI {
		t.Errorf("with files enough: %+v", c)
	}
	if c := connectionsOf(1<<20, Limits{MQTTConnections: 200_000, DeviceConnections: 5, APIConnections: 3}); c != (connections{200_000, 5, 3}) {
		t.Errorf("as asked for: %+v", c)
	}
}

// The least bound of the groups that the process lies in counts, of either version;
// none is none.
func TestGroupMemory(t *testing.T) {
	for name, x := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no groups":               {nil, 0},
		"version 2, no bound":     {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 0},
		"version 2":               {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1000000\n"}, 1000000},
		"version 2, the parent's": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "500000\n"}, 500000},
		"version 2, a container":  {map[string]string{"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/memory.max": "700000\n"}, 700000},
		"version 1":               {map[string]string{"proc/self/cgroup": "5:cpu:/\n4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "800000\n"}, 800000},
		"version 1, no bound":     {map[string]string{"proc/self/cgroup": "4:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		root := t.TempDir()
		for file, text := range x.files {
			path := filepath.Join(root, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if got := groupMemory(root); got != x.want {
			t.Errorf("%s: %d, want %d", name, got, x.want)
		}
	}
}
