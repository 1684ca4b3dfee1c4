package server

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
)

// mounts leaves out, loudly, a test that mounts something where nobody may.
func mounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: not root: no file system can be mounted, so no disk was filled")
	}
	need(t, "mount", "umount")
}

func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("HOLDFAST_NO_TOOLS") == "1" {
		t.Skipf("SKIPPED: nothing can be mounted here and HOLDFAST_NO_TOOLS=1, so no disk was filled: %v", err)
	}
	t.Fatalf("root can mount nothing here, so no disk would be filled: allow it, or set HOLDFAST_NO_TOOLS=1 to leave this test out: %v: %s", err, out)
}

// mounted is an ext4 file system of its own in a file of size MiB, or a tmpfs
// where there are no loop devices.
func mounted(t *testing.T, size int) (dir string) {
	t.Helper()
	mounts(t)
	need(t, "mkfs.ext4")
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(f.Truncate(int64(size)<<20), f.Close(), run("mkfs.ext4", "-q", "-m", "0", image))
	if err != nil {
		t.Fatal(err)
	}
	if err := run("mount", "-o", "loop", image, dir); err != nil {
		t.Logf("no loop device, a tmpfs instead: %v", err)
		tmpfs(t, dir, fmt.Sprintf("size=%dm", size))
	}
	t.Cleanup(func() {
		if err := run("umount", dir); err != nil {
			t.Error(run("umount", "-l", dir))
		}
	})
	return dir
}

// fillDisk takes what is free on the disk of dir.
func fillDisk(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for b := make([]byte, size); ; {
			if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	f.Sync()
	return ballast
}

// onDisk is a house whose data folder lies on a small disk.
func onDisk(t *testing.T, size int) (h *house, disk string) {
	t.Helper()
	disk = mounted(t, size)
	h = &house{t: t, dir: filepath.Join(disk, "data"), rootKey: filepath.Join(t.TempDir(), "root.key")}
	if _, err := Init(t.Context(), h.dir, InitOptions{Organisation: "Acme Plants", Hosts: []string{"localhost"}, RootKey: h.rootKey}); err != nil {
		t.Fatal(err)
	}
	h.start()
	t.Cleanup(h.halt)
	return h, disk
}

// filler sends large readings as one device and notes which were acknowledged.
type filler struct {
	*thing
	start time.Time
	next  int
	acked map[int]string
}

// send publishes until the hub ends the connection and returns the code it gave
// and how long the first unanswered publish waited for it.
func (f *filler) send(ctx context.Context, at Addresses, most int) (code byte, waited time.Duration, err error) {
	gone := make(chan byte, 8)
	c, ack, err := f.dialMQTT(ctx, at, &paho.Connect{ClientID: "f", KeepAlive: 60, CleanStart: true}, paho.ClientConfig{
		OnServerDisconnect: func(d *paho.Disconnect) { gone <- d.ReasonCode },
		OnClientError:      func(error) { gone <- 0 },
	})
	if err != nil {
		if ack != nil {
			return ack.ReasonCode, 0, nil
		}
		return 0, 0, err
	}
	defer c.Disconnect(&paho.Disconnect{})
	r := rand.NewChaCha8([32]byte{byte(f.next), byte(f.next >> 8)})
	for range most {
		var raw [64]byte // large, and soon compressed: the race detector makes that slow
		r.Read(raw[:])
		text := strings.Repeat(hex.EncodeToString(raw[:]), 180<<10/(2*len(raw)))
		i := f.next
		f.next++
		began := time.Now()
		sent, cancel := context.WithCancel(ctx)
		answered := make(chan error, 1)
		go func() {
			_, err := c.Publish(sent, &paho.Publish{QoS: 1, Topic: "data/log",
				Payload: fmt.Appendf(nil, `{"t":%d,"v":%q}`, f.start.Unix()+int64(i), text)})
			answered <- err
		}()
		select {
		case err := <-answered:
			cancel()
			if err == nil {
				f.acked[i] = text
				continue
			}
			select {
			case code = <-gone:
			case <-time.After(time.Minute):
				return 0, time.Since(began), err
			}
		case code = <-gone:
			cancel()
		}
		return code, time.Since(began), nil
	}
	return 0, 0, nil
}

// A full disk: what can't be made durable is not acknowledged and its connection
// ends, within 5 s where the machine has nothing else to do; nothing is lost; when there is space again all goes on.
func TestFullDisk(t *testing.T) {
	h, disk := onDisk(t, 224)
	anna := h.person("Anna")
	f := &filler{thing: h.enrolled(anna.Party, "camera"), start: time.Now().Add(-24 * time.Hour), acked: map[int]string{}}
	meter := h.enrolled(anna.Party, "meter")
	h.halt()
	hub := h.spawn(childConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if _, _, err := f.send(ctx, hub.at, 3); err != nil {
		t.Fatal(err)
	}
	web := meter.http(t)
	reading := func(i int) string { // as large as the camera's: a small one may still have room in the journal's file
		return fmt.Sprintf(`[{"n":"level","t":%d,"v":%d},{"n":"note","vs":%q}]`, f.start.Unix()+int64(i), i, strings.Repeat("0123456789abcdef", 180<<10/16))
	}
	if status, _, text, err := post(web, hub.at.Device+"/v1/data", "application/senml+json", strings.NewReader(reading(0))); err != nil || status != 204 {
		t.Fatalf("%d %s %v", status, text, err)
	}
	ballast := fillDisk(t, disk)
	code, waited, err := f.send(ctx, hub.at, 2000)
	if err != nil || code != 0x97 && code != 0x89 || waited > 50*time.Second {
		t.Fatalf("after %d readings: code 0x%02X, %s, %v", len(f.acked), code, waited, err)
	}
	t.Logf("full after %d readings of 180 KiB; DISCONNECT 0x%02X after %s", len(f.acked), code, waited.Round(time.Millisecond))
	for range 3 { // it is told so every time, and stays alive
		code, waited, err := f.send(ctx, hub.at, 10)
		if err != nil || code != 0x97 && code != 0x89 && code != 0x88 || waited > 50*time.Second {
			t.Errorf("again: code 0x%02X, %s, %v", code, waited, err)
		}
		status, header, text, err := post(web, hub.at.Device+"/v1/data", "application/senml+json", strings.NewReader(reading(1)))
		if err != nil || status != 503 || header.Get("Retry-After") == "" || header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("HTTP: %d %v %s %v", status, header, text, err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	healed := false
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !healed; {
		before := len(f.acked)
		f.send(ctx, hub.at, 3)
		healed = len(f.acked) == before+3
	}
	if !healed {
		t.Errorf("space is back, readings are not taken: %s", hub.stderr)
	}
	if status, _, text, err := post(web, hub.at.Device+"/v1/data", "application/senml+json", strings.NewReader(reading(2))); err != nil || status != 204 {
		t.Errorf("HTTP when space is back: %d %s %v", status, text, err)
	}
	hub.end()
	h.start()
	got, err := h.read(anna, f.Peer, "log")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, r := range got {
		have[r.Value.Text()]++
	}
	for i, text := range f.acked {
		if have[text] != 1 {
			t.Errorf("acknowledged reading %d is there %d times", i, have[text])
		}
	}
	levels, err := h.read(anna, meter.Peer, "level")
	if err != nil || len(levels) != 2 || levels[0].Value.Number() != 0 || levels[1].Value.Number() != 2 {
		t.Errorf("%v, %v", levels, err)
	}
}

// The keepers that write to the catalog on a clock outlive a full disk.
func TestKeepersOutliveAFullDisk(t *testing.T) {
	h, disk := onDisk(t, 160)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	for i := range 20 {
		h.mustSend(hers, number("pulse", time.Now().Add(time.Duration(i)*time.Second), 1))
	}
	ballast := fillDisk(t, disk)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for name, run := range map[string]func() error{
		"ledger":   func() error { return h.ledger.Run(ctx, time.Millisecond) },
		"sessions": func() error { return h.sessions.Run(ctx) },
		"access":   func() error { return h.access.Run(ctx) },
		"erasure":  func() error { return h.Server.erasure.Run(ctx) },
		"series":   func() error { return h.series.Run(ctx) },
	} {
		running.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				t.Errorf("%s ends: %v", name, err)
			}
		})
	}
	var refused int
	for i := range 300 { // each party is a few writes to keyring and catalog
		if _, err := h.custody.AddParty(t.Context(), h.admin().Credential, fmt.Sprintf("Party %d", i), "person"); err != nil {
			if refused++; holdfast.KindOf(err) != holdfast.Unavailable {
				t.Errorf("a full disk is %s: %v", holdfast.KindOf(err), err)
			}
		}
		if refused > 5 {
			break
		}
	}
	if refused == 0 {
		t.Error("the disk never was full")
	}
	if err := h.series.Roll(t.Context()); err == nil {
		t.Log("the roll found room")
	}
	time.Sleep(50 * time.Millisecond)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	h.person("Late Comer")
	if err := h.series.Roll(t.Context()); err != nil {
		t.Errorf("roll when space is back: %v", err)
	}
	stop()
	running.Wait()
	h.halt()
	h.start()
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 20 {
		t.Errorf("%d readings: %v", len(got), err)
	}
	if r, err := h.ledger.Verify(t.Context()); err != nil || len(r.Faults) > 0 {
		t.Errorf("ledger: %+v %v", r, err)
	}
}

// A disk mounted for reading only is refused with words, exit code 1, unchanged.
func TestReadOnlyDisk(t *testing.T) {
	h, disk := onDisk(t, 160)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.mustSend(hers, number("pulse", time.Now(), 60))
	h.halt()
	remount := func(how string) {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "remount,"+how, disk).CombinedOutput(); err != nil {
			t.Fatalf("remount: %v: %s", err, out)
		}
	}
	remount("ro")
	before := snapshotOf(t, h.dir)
	said := h.refusal(childConfig{})
	if !strings.Contains(said, h.dir) || !strings.Contains(said, "can't be written") || !strings.Contains(said, "check") {
		t.Errorf("it says: %s", said)
	}
	h.unchanged(before)
	remount("rw")
	h.start()
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 1 {
		t.Errorf("%d readings: %v", len(got), err)
	}
}

// What is wrong with the folder or the root key is said in words that tell what to
// do, with exit code 1, and nothing is changed.
func TestRefusesToStart(t *testing.T) {
	h := newHouse(t)
	anna := h.person("Anna")
	hers := h.device(anna.Party, "watch")
	h.mustSend(hers, number("pulse", time.Now(), 60))
	if err := h.series.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.mustSend(hers, number("pulse", time.Now(), 61))
	h.halt()
	other := newHouse(t)
	other.halt()
	write := func(path string, change func([]byte) []byte) (undo func()) {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() { os.WriteFile(path, whole, 0o600) }
	}
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	nothing := func() func() { return func() {} }
	inFolder := filepath.Join(h.dir, "root.key")
	link := filepath.Join(t.TempDir(), "link")
	newer := []string{"newer"}
	for _, x := range []struct {
		name   string
		before func() func()
		config childConfig
		says   []string
	}{
		{"no folder", nothing, childConfig{Data: filepath.Join(t.TempDir(), "none")}, []string{"holdfast init"}},
		{"root key missing", nothing, childConfig{RootKey: filepath.Join(t.TempDir(), "none")}, []string{"none", "--root-key"}},
		{"root key of another hub", nothing, childConfig{RootKey: other.rootKey}, []string{other.rootKey, "not of this data folder"}},
		{"root key that others may read", func() func() {
			os.Chmod(h.rootKey, 0o644)
			return func() { os.Chmod(h.rootKey, 0o600) }
		}, childConfig{}, []string{h.rootKey, "chmod 600"}},
		{"root key in the folder", func() func() {
			b, _ := os.ReadFile(h.rootKey)
			os.WriteFile(inFolder, b, 0o600)
			return func() { os.Remove(inFolder) }
		}, childConfig{RootKey: inFolder}, []string{inFolder, "move it out", "--root-key"}},
		{"root key in the folder by a link", func() func() {
			b, _ := os.ReadFile(h.rootKey)
			os.WriteFile(inFolder, b, 0o600)
			os.Symlink(inFolder, link)
			return func() { os.Remove(inFolder) }
		}, childConfig{RootKey: link}, []string{link, "move it out"}},
		{"root key is no root key", nothing, childConfig{RootKey: filepath.Join(h.dir, adminDir, "..", "..", filepath.Base(h.dir), adminDir, "ca.pem")}, []string{"root key"}},
		{"newer folder", func() func() {
			return write(filepath.Join(h.dir, folderFile), replace(`"holdfast-data": "1"`, `"holdfast-data": "2"`))
		}, childConfig{}, newer},
		{"newer root key", func() func() {
			return write(h.rootKey, replace(`"holdfast-root-key": "1"`, `"holdfast-root-key": "2"`))
		}, childConfig{}, newer},
		{"newer keyring", func() func() {
			return write(only(t, filepath.Join(h.dir, keyringDir, "head-*")), replace("HFKH\x01", "HFKH\x02"))
		}, childConfig{}, newer},
		{"newer journal", func() func() {
			return write(only(t, filepath.Join(h.dir, journalDir, "*.journal")), func(b []byte) []byte {
				binary.BigEndian.PutUint32(b[8:], 2)
				binary.BigEndian.PutUint32(b[60:], crc32.Checksum(b[:60], crc32.MakeTable(crc32.Castagnoli)))
				return b
			})
		}, childConfig{}, []string{"newer", ".journal"}},
		{"newer catalog", func() func() { return h.catalogVersion(9999) }, childConfig{}, newer},
	} {
		t.Run(x.name, func(t *testing.T) {
			undo := x.before()
			defer undo()
			before := snapshotOf(t, h.dir)
			said := h.refusal(x.config)
			for _, word := range x.says {
				if !strings.Contains(said, word) {
					t.Errorf("%q is not in: %s", word, said)
				}
			}
			if strings.Contains(said, "panic") || strings.Count(strings.TrimSpace(said), "\n") > 0 {
				t.Errorf("more than a line: %s", said)
			}
			h.unchanged(before)
		})
	}
	t.Run("in use", func(t *testing.T) {
		hub := h.spawn(childConfig{})
		if said := h.refusal(childConfig{}); !strings.Contains(said, "in use by another") || !strings.Contains(said, "stop") {
			t.Errorf("it says: %s", said)
		}
		hub.end()
	})
	h.start()
	if got, err := h.read(anna, hers, "pulse"); err != nil || len(got) != 2 {
		t.Errorf("%d readings in the end: %v", len(got), err)
	}
}

// catalogVersion claims a version for the catalog.
func (h *house) catalogVersion(n int) (undo func()) {
	h.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.dir, catalogDir, catalog.File))
	if err != nil {
		h.t.Fatal(err)
	}
	exec := func(query string) {
		if _, err := db.Exec(query); err != nil {
			h.t.Fatal(err)
		}
	}
	exec(fmt.Sprintf(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, 1)`, n))
	return func() {
		exec(fmt.Sprintf(`DELETE FROM goose_db_version WHERE version_id = %d`, n))
		db.Close()
	}
}

// While a table of sockets is full or a port is taken, the start says which flag
// helps.
func TestPortInUse(t *testing.T) {
	h := newHouse(t)
	at, _ := h.serve()
	second := newHouse(t)
	s := second.Server
	s.config.ListenMQTT = strings.TrimPrefix(at.MQTT, "mqtts://")
	err := s.Run(t.Context(), nil)
	second.Server = nil
	if err == nil || !slices.ContainsFunc([]string{"--listen-mqtt"}, func(w string) bool { return strings.Contains(err.Error(), w) }) {
		t.Errorf("%v", err)
	}
}
