package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/budget"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/escrow"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
	"github.com/holdfast-iot/holdfast/internal/outbox"
	"github.com/holdfast-iot/holdfast/internal/recovery"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// soundHost is a machine with which nothing is wrong, its clock so far ahead.
func soundHost(h *house, ahead time.Duration) host {
	m := machineHost()
	m.Now = func() time.Time { return time.Now().Add(ahead) }
	m.Disk = func(string) (disk, error) {
		return disk{Free: 80 << 30, Size: 100 << 30, FreeNodes: 900_000, Nodes: 1_000_000, Kind: "ext4", Device: 1}, nil
	}
	m.Clock = func() (kernelClock, bool) { return kernelClock{Synchronised: true, Error: time.Millisecond}, true }
	m.Files = func() uint64 { return 65536 }
	m.Memory = func() (int64, int64) { return 460 << 20, 512 << 20 }
	m.Secret = func() (secrecy, error) { return secrecy{}, nil }
	m.Stat = func(path string) (owned, error) {
		o, err := statOwned(path)
		if o.Device = 1; strings.HasPrefix(path, filepath.Dir(h.rootKey)) {
			o.Device = 2
		}
		return o, err
	}
	return m
}

func idsOf(all []api.Finding) []string {
	ids := map[string]bool{}
	for _, f := range all {
		ids[f.ID] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// What a hub that was just made has, and nobody can mend in this version.
var always = []string{"administrator-in-data", "backup-none", "copy-none", "root-key-no-passphrase", "root-key-one-holder", "versions"}

func (h *house) doctor(m host) []api.Finding {
	h.t.Helper()
	h.Server.host = m
	all, err := h.Doctor(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// complaint is one way to provoke a finding.
type complaint struct {
	id      string
	provoke func(t *testing.T, h *house, m *host) (undo func())
}

// ofHost is a complaint about the machine.
func ofHost(id string, change func(h *house, m *host)) complaint {
	return complaint{id, func(_ *testing.T, h *house, m *host) func() { change(h, m); return nil }}
}

func withDisk(id string, change func(*disk)) complaint {
	return ofHost(id, func(_ *house, m *host) {
		before := m.Disk
		m.Disk = func(p string) (disk, error) {
			d, err := before(p)
			change(&d)
			return d, err
		}
	})
}

// later is the sound machine with a clock that is ahead.
func later(id string, by time.Duration) complaint {
	return ofHost(id, func(h *house, m *host) { *m = soundHost(h, by) })
}

// mode changes a file's rights for a while.
func mode(id string, of func(h *house) string, to os.FileMode) complaint {
	return complaint{id, func(t *testing.T, h *house, _ *host) func() {
		path := of(h)
		info, err := os.Stat(path)
		if err == nil {
			err = os.Chmod(path, to)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() { os.Chmod(path, info.Mode().Perm()) }
	}}
}

// written changes a row for a while.
func (h *house) written(t *testing.T, statement string, args ...any) {
	t.Helper()
	err := h.stores.catalog.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), statement, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// apiCertificate is as if the hub had started with a certificate of such an end; a
// newer one may lie in its file.
func apiCertificate(id string, inUse, inFile time.Duration) complaint {
	return complaint{id, func(t *testing.T, h *house, _ *host) func() {
		used, file := selfSigned(t, inUse), selfSigned(t, inFile)
		h.config.APICert = filepath.Join(t.TempDir(), "api.pem")
		if err := os.WriteFile(h.config.APICert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: file.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		h.apiLeaf.Store(used)
		return func() { h.config.APICert = ""; h.apiLeaf.Store(nil) }
	}}
}

func selfSigned(t *testing.T, life time.Duration) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err == nil {
		c, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const days = 24 * time.Hour

// complaints provoke each finding that a running hub can have, by what happens
// where that can be made to happen.
func complaints() []complaint {
	key := func(h *house) string { return h.rootKey }
	return []complaint{
		withDisk("disk-space", func(d *disk) { d.Free = 500 << 20 }),
		withDisk("disk-files", func(d *disk) { d.FreeNodes = 20 }),
		withDisk("disk-volatile", func(d *disk) { d.Kind, d.Sort = "tmpfs", diskVolatile }),
		withDisk("disk-layered", func(d *disk) { d.Kind, d.Sort = "overlay", diskLayered }),
		withDisk("disk-remote", func(d *disk) { d.Kind, d.Sort = "nfs", diskRemote }),
		{"root-key-missing", func(t *testing.T, h *house, _ *host) func() {
			if err := os.Rename(h.rootKey, h.rootKey+".away"); err != nil {
				t.Fatal(err)
			}
			return func() { os.Rename(h.rootKey+".away", h.rootKey) }
		}},
		mode("root-key-readable", key, 0o640),
		mode("root-key-readable", func(h *house) string { return filepath.Dir(h.rootKey) }, 0o777),
		mode("root-key-fixed", func(h *house) string { return filepath.Dir(h.rootKey) }, 0o500),
		mode("data-readable", func(h *house) string { return h.dir }, 0o755),
		ofHost("root-key-same-disk", func(_ *house, m *host) { m.Stat = statOwned }),
		ofHost("root-key-owner", func(h *house, m *host) {
			before := m.Stat
			m.Stat = func(p string) (owned, error) {
				o, err := before(p)
				if p == h.rootKey {
					o.UID += 1000
				}
				return o, err
			}
		}),
		ofHost("clock-unsynchronised", func(_ *house, m *host) { m.Clock = func() (kernelClock, bool) { return kernelClock{}, true } }),
		ofHost("clock-unsynchronised", func(_ *house, m *host) {
			m.Clock = func() (kernelClock, bool) { return kernelClock{Synchronised: true, Error: 16 * time.Second}, true }
		}),
		ofHost("open-files", func(_ *house, m *host) { m.Files = func() uint64 { return 1024 } }),
		ofHost("memory-small", func(_ *house, m *host) { m.Memory = func() (int64, int64) { return 0, 64 << 20 } }),
		ofHost("memory-dumped", func(_ *house, m *host) { m.Secret = func() (secrecy, error) { return secrecy{Dumps: true}, nil } }),
		ofHost("memory-swapped", func(_ *house, m *host) {
			m.Secret = func() (secrecy, error) { return secrecy{Swaps: []string{"/swapfile"}}, nil }
		}),
		ofHost("memory-keeps-keys", func(_ *house, m *host) { m.Secret = func() (secrecy, error) { return secrecy{Keeps: true}, nil } }),
		ofHost("memory-unlimited", func(_ *house, m *host) { m.Memory = func() (int64, int64) { return 0, 0 } }),
		{"init-interrupted", func(t *testing.T, h *house, _ *host) func() {
			left := filepath.Join(filepath.Dir(h.dir), "."+filepath.Base(h.dir)+".init-1")
			if err := os.Mkdir(left, 0o700); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(left) }
		}},
		{"roll-failing", func(t *testing.T, h *house, m *host) func() {
			away := filepath.Join(h.dir, segmentsDir)
			h.mustSend(h.device(h.person("R").Party, "r"), number("x", time.Now(), 1))
			err := os.Rename(away, away+".away")
			if err != nil || h.series.Roll(t.Context()) == nil {
				t.Fatal("it rolled into nowhere", err)
			}
			*m = soundHost(h, 2*time.Minute)
			return func() {
				if err := errors.Join(os.RemoveAll(away), os.Rename(away+".away", away), h.series.Roll(t.Context())); err != nil {
					t.Error(err)
				}
			}
		}},
		{"journal-backlog", func(t *testing.T, h *house, m *host) func() {
			h.mustSend(h.device(h.person("B").Party, "b"), number("x", time.Now(), 1))
			*m = soundHost(h, 4*time.Hour)
			return func() { h.series.Roll(t.Context()) }
		}},
		{"ledger-unpublished", func(t *testing.T, h *house, m *host) func() {
			if _, err := h.ledger.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			*m = soundHost(h, time.Hour)
			return nil
		}},
		{"ledger-unpublished", func(t *testing.T, h *house, m *host) func() { // somebody was at the catalog
			var was []byte
			err := h.stores.catalog.Read(t.Context(), func(tx *sql.Tx) error {
				return tx.QueryRowContext(t.Context(), `SELECT commitment FROM ledger_entry WHERE idx = 0`).Scan(&was)
			})
			if err != nil {
				t.Fatal(err)
			}
			h.written(t, `UPDATE ledger_entry SET commitment = zeroblob(32) WHERE idx = 0`)
			if _, err := h.ledger.Publish(t.Context()); err == nil {
				t.Error("a ledger that was altered was published")
			}
			return func() {
				h.written(t, `UPDATE ledger_entry SET commitment = $1 WHERE idx = 0`, was)
				if _, err := h.ledger.Publish(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}},
		{"backup-drill-old", func(t *testing.T, h *house, _ *host) func() {
			newShelf(t).take(h)
			return func() {
				if err := h.backups.Drilled(t.Context(), time.Now()); err != nil {
					t.Error(err)
				}
			}
		}},
		{"backup-drill-old", func(_ *testing.T, h *house, m *host) func() { *m = soundHost(h, 91*days); return nil }},
		{"backup-old", func(_ *testing.T, h *house, m *host) func() { *m = soundHost(h, 8*days); return nil }},
		{"backup-resealed", func(t *testing.T, h *house, _ *host) func() {
			rosa := h.person("Rosa")
			d := h.device(rosa.Party, "v")
			at := time.Now().Add(-time.Hour)
			h.mustSend(d, number("x", at, 1), number("x", at.Add(time.Minute), 2))
			s, err := h.custody.ScopeOfDevice(t.Context(), d.Device)
			if err != nil {
				t.Fatal(err)
			}
			s.Span = holdfast.Span{From: at.Add(-time.Second).UnixNano(), To: at.Add(time.Second).UnixNano()}
			h.erase(rosa, s)
			return func() { newShelf(t).take(h) }
		}},
		{"hub-suspended", func(_ *testing.T, h *house, _ *host) func() {
			h.stores.restored = restoredState{Whole: true, Suspended: true, Snapshot: "s", At: time.Now(), Why: "the copy has no take-backs"}
			return func() { h.stores.restored = restoredState{} }
		}},
		{"decisions-failed", func(_ *testing.T, h *house, _ *host) func() { h.undecided([]string{"p"}); return nil }},
		later("administrators-end", 350*days),
		later("authority-ends", 9*365*days+20*days),
		{"credentials-end", func(t *testing.T, h *house, _ *host) func() {
			h.written(t, `INSERT INTO access_credential SELECT randomblob(16), kind, randomblob(32), party, 4, scopes, about_sealed, made, $1, revoked, $2, holder, since, made_by, settled
				FROM access_credential`, time.Now().Add(20*days).UnixNano(), time.Now().Unix()/86400)
			return func() { h.written(t, `DELETE FROM access_credential WHERE role = 4`) }
		}},
		apiCertificate("api-certificate-ended", -time.Hour, -time.Hour),
		apiCertificate("api-certificate-ends", 5*days, 5*days),
		apiCertificate("api-certificate-newer", 5*days, 80*days),
		{"device-certificates-end", func(_ *testing.T, h *house, m *host) func() {
			h.enrolled(h.person("E").Party, "e")
			*m = soundHost(h, 25*days)
			return nil
		}},
		later("device-certificates-ended", 40*days),
		{"devices-unclaimed", func(t *testing.T, h *house, _ *host) func() {
			if _, err := h.custody.AddDevice(t.Context(), h.admin().Credential, custody.DeviceSpec{Label: "u", Unclaimed: true}); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
		{"device-clocks", func(_ *testing.T, h *house, _ *host) func() {
			h.mustSend(h.device(h.person("C").Party, "c"), number("x", time.Now().Add(2*time.Hour), 1), number("x", time.Now(), 1))
			return nil
		}},
		{"devices-over-quota", func(_ *testing.T, h *house, _ *host) func() {
			h.quotas.Of(holdfast.NewID[holdfast.DeviceID](), budget.Rate{Readings: 1}, time.Now().UnixNano()).Take(time.Now().UnixNano(), 1000, 0)
			return nil
		}},
		{"device-tls12-allowed", func(_ *testing.T, h *house, _ *host) func() {
			h.config.DeviceTLSMin = tls.VersionTLS12
			return func() { h.config.DeviceTLSMin = tls.VersionTLS13 }
		}},
		{"device-tls12-used", func(t *testing.T, h *house, _ *host) func() {
			d := h.enrolled(h.person("T").Party, "t")
			if p, err := h.identity.Peer(t.Context(), tls.ConnectionState{Version: tls.VersionTLS12, PeerCertificates: []*x509.Certificate{d.cert.Leaf}}); err != nil || !p.TLS12 {
				t.Fatal(p, err)
			}
			return nil
		}},
		{"permissions-waiting", func(t *testing.T, h *house, _ *host) func() {
			by := h.admin()
			by.Holder = by.Credential
			_, err := h.access.AskPermission(t.Context(), by, access.PermissionSpec{Whose: h.person("P").Party, Purpose: "service", Reason: "a leak"})
			if err != nil {
				t.Fatal(err)
			}
			return nil
		}},
		{"retention-late", func(t *testing.T, h *house, m *host) func() {
			h.written(t, `UPDATE expiry SET last = $1`, time.Now().UnixNano())
			*m = soundHost(h, 60*time.Hour)
			return nil
		}},
		{"retention-doubts-clock", func(t *testing.T, h *house, _ *host) func() {
			h.written(t, `UPDATE expiry SET last = $1`, time.Now().Add(-30*days).UnixNano())
			return func() { h.written(t, `UPDATE expiry SET last = 0`) }
		}},
		{"erasure-late", func(t *testing.T, h *house, m *host) func() {
			anna := h.person("A")
			s, err := h.custody.ScopeOfDevice(t.Context(), h.device(anna.Party, "w").Device)
			if err == nil {
				_, err = h.Server.erasure.Ask(t.Context(), anna, s)
			}
			if err != nil {
				t.Fatal(err)
			}
			*m = soundHost(h, 2*time.Minute)
			return func() { h.Server.erasure.Once(t.Context()) }
		}},
		{"erasure-unpurged", func(t *testing.T, h *house, m *host) func() {
			anna := h.person("Annegret")
			s, err := h.custody.ScopeOfDevice(t.Context(), h.device(anna.Party, "x").Device)
			if err == nil {
				_, err = h.Server.erasure.Ask(t.Context(), anna, s)
			}
			if err != nil {
				t.Fatal(err)
			}
			h.Server.erasure.Fault = func(step string) error {
				if step == "Readings" {
					return errors.New("the disk is broken")
				}
				return nil
			}
			if err := h.Server.erasure.Once(t.Context()); err == nil {
				t.Error("a place that can't be purged is passed over")
			}
			*m = soundHost(h, 25*time.Hour)
			return func() {
				h.Server.erasure.Fault = nil
				h.Server.erasure.Once(t.Context())
			}
		}},
	}
}

// judged are findings whose cause takes hours, a slow disk or somebody else's
// machine: what was measured is given.
func judged() map[string]func(x *examination) {
	now := time.Now()
	device := holdfast.NewID[holdfast.DeviceID]()
	dealt := escrow.Public{Threshold: 2, Shareholders: []escrow.Shareholder{{Name: "notary"}, {Name: "safe"}, {Name: "board"}}}
	return map[string]func(x *examination){
		"journal-queue": func(x *examination) { x.journal(series.Backlog{}, time.Time{}, journal.Stats{QueuedBytes: 12 << 20}) },
		"segment-unremoved": func(x *examination) {
			x.remaining([]series.Remaining{{Segment: holdfast.NewID[holdfast.BlobID](), Since: now, Err: errors.New("input/output error")}})
		},
		"journal-backlog":   func(x *examination) { x.journal(series.Backlog{Bytes: 300 << 20}, now, journal.Stats{}) },
		"tpm-silent":        func(x *examination) { x.tpm("tpm", tpmholder.Status{}, errors.New("no answer")) },
		"tpm-counter-ahead": func(x *examination) { x.tpm("tpm", tpmholder.Status{Counter: 9, Ahead: true}, nil) },
		"holder-fenced": func(x *examination) {
			x.holders(keys{Holders: []keyHolder{{Name: "a", URL: "tpm:/dev/tpmrm0"}, {Name: "b", URL: "exec:/b"}, {Name: "c", URL: "exec:/c", FencedAt: now}}})
		},
		"holder-vouched": func(x *examination) {
			x.holders(keys{Holders: []keyHolder{{Name: "a", URL: "tpm:/dev/tpmrm0"}, {Name: "b", URL: "exec:/b", Vouch: "Ada Lovelace"}}})
		},
		"copy-late": func(x *examination) {
			x.copies(keys{Copies: []keyringCopy{{"safe", "file:/safe"}}}, []vault.CopyState{{Name: "safe", Late: true, Reason: "no space left", Since: now}})
		},
		"copy-same-disk": func(x *examination) {
			x.host.Stat = func(string) (owned, error) { return owned{Device: 7}, nil }
			x.copies(keys{Copies: []keyringCopy{{"safe", "file:/safe"}}}, nil)
		},
		"holders-same-disk": func(x *examination) {
			x.host.Stat = func(string) (owned, error) { return owned{Device: 7}, nil }
			x.holders(keys{Holders: []keyHolder{{Name: "a", URL: "file:/a/root.key"}, {Name: "b", URL: "file:/b/root.key"}}})
		},
		"disk-slow": func(x *examination) {
			x.journal(series.Backlog{}, time.Time{}, journal.Stats{Syncs: 100, SyncTime: 9 * time.Second})
		},
		"witness-contradicts": func(x *examination) {
			x.witnesses(1, 0, []ledger.Missing{{Name: "w", Err: holdfast.Errorf(holdfast.Conflict, "it has seen more leaves")}})
		},
		"witness-late":      func(x *examination) { x.witnesses(1, 1, []ledger.Missing{{Name: "w", Err: errors.New("no answer")}}) },
		"mail-failing":      func(x *examination) { x.messages(outbox.Trouble{Mail: outbox.Failing{Times: 3, Since: now}}) },
		"webhooks-failing":  func(x *examination) { x.messages(outbox.Trouble{Webhooks: []holdfast.WebhookID{{1}, {2}}}) },
		"webhooks-disabled": func(x *examination) { x.messages(outbox.Trouble{Disabled: 1}) },
		"messages-given-up": func(x *examination) { x.messages(outbox.Trouble{Dead: 2}) },
		"witness-quorum":    func(x *examination) { x.witnesses(0, 1, nil) },
		"recovery-not-rehearsed": func(x *examination) {
			x.recovery([]recovery.Deal{{Public: dealt, State: recovery.InForce, Since: now, Rehearsed: now.Add(-400 * 24 * time.Hour)}})
		},
		"recovery-opened": func(x *examination) {
			x.sharesOpened([]recovery.Deal{{Public: dealt, State: recovery.InForce}}, &openedDeal{dealt.ID, now})
		},
		"recovery-too-few": func(x *examination) {
			x.recovery([]recovery.Deal{{State: recovery.InForce, Since: now, Rehearsed: now}})
		},
		"recovery-old-shares": func(x *examination) {
			x.recovery([]recovery.Deal{{Public: dealt, State: recovery.InForce, Since: now, Rehearsed: now}, {Public: dealt, State: recovery.Replaced, Since: now}})
		},
		"devices-refused": func(x *examination) {
			x.refusals([]mqtt.Refusal{{At: now, Device: device, Reason: "the stream is of numbers"}})
		},
		"devices-late": func(x *examination) {
			x.clocks([]ingest.Skew{{Device: device, Last: now, Late: now.Add(-3 * time.Hour), By: 2 * time.Hour}})
		},
	}
}

// A hub in order has the findings that every hub of this version has, each of what
// can go wrong is found when it does and not after, and none tells a name.
func TestDoctorFinds(t *testing.T) {
	h := newHouse(t)
	if got := idsOf(h.doctor(soundHost(h, 0))); !slices.Equal(got, always) {
		t.Fatalf("a hub in order has %v", got)
	}
	found := map[string]bool{}
	for _, c := range complaints() {
		m := soundHost(h, 0)
		undo := c.provoke(t, h, &m)
		all := h.doctor(m)
		at := slices.IndexFunc(all, func(f api.Finding) bool { return f.ID == c.id })
		if at < 0 {
			t.Errorf("%s is not found, but %v", c.id, idsOf(all))
		} else {
			checkFinding(t, all[at])
		}
		if !slices.IsSortedFunc(all, func(a, b api.Finding) int { return rank(a.ID) - rank(b.ID) }) {
			t.Errorf("%s: not the most urgent first: %v", c.id, all)
		}
		if found[c.id] = true; undo == nil {
			continue
		}
		undo()
		if again := h.doctor(soundHost(h, 0)); slices.ContainsFunc(again, func(f api.Finding) bool { return f.ID == c.id }) {
			t.Errorf("%s is found when it is mended: %v", c.id, again)
		}
	}
	for id, judge := range judged() {
		x := examine(soundHost(h, 0), h.dir)
		judge(x)
		if got := idsOf(x.findings()); len(got) != 1 || got[0] != id {
			t.Errorf("%s: %v", id, got)
		}
		checkFinding(t, x.findings()[0])
		found[id] = true
	}
	for id := range stoppedComplaints() {
		found[id] = true
	}
	for _, a := range ailments {
		if !found[a.id] && !slices.Contains(always, a.id) {
			t.Errorf("nothing provokes %s", a.id)
		}
	}
}

func checkFinding(t *testing.T, f api.Finding) {
	t.Helper()
	if f.What == "" || f.Mend == "" || f.Level != ailments[rank(f.ID)].level {
		t.Errorf("a finding says what, how bad and how to mend it: %+v", f)
	}
	text, err := json.Marshal(f)
	if err != nil || strings.Contains(string(text), "0001-01-01") {
		t.Errorf("%s: %v", text, err)
	}
}

// A system's clock that was set back is seen by arrivals, and by files while the
// hub is stopped.
func TestDoctorSeesAClockSetBack(t *testing.T) {
	h := newHouse(t)
	h.written(t, `INSERT INTO ingest_clock (one, arrival) VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET arrival = excluded.arrival`, time.Now().Add(time.Hour).UnixNano())
	h.halt()
	h.start()
	if got := idsOf(h.doctor(soundHost(h, 0))); !slices.Contains(got, "clock-set-back") {
		t.Errorf("running: %v", got)
	}
	h.halt()
	got, err := doctorStopped(soundHost(h, -time.Hour), Config{Data: h.dir}.withDefaults())
	if err != nil || !slices.Contains(idsOf(got), "clock-set-back") {
		t.Errorf("stopped: %v, %v", got, err)
	}
}

// stoppedComplaints are what can be found of a hub that does not run.
func stoppedComplaints() map[string]func(h *house) error {
	return map[string]func(h *house) error{
		"hub-down":       func(*house) error { return nil },
		"clock-set-back": func(*house) error { return nil }, // see TestDoctorSeesAClockSetBack
		"folder-damaged": func(h *house) error {
			return os.WriteFile(filepath.Join(h.dir, catalogDir, "catalog.db"), []byte("x"), 0o600)
		},
		"root-key-inside": func(h *house) error {
			b, err := os.ReadFile(h.rootKey)
			return errors.Join(err, os.WriteFile(filepath.Join(h.dir, "root.key"), b, 0o600))
		},
		"restore-unfinished": func(h *house) error {
			return writeJSON(filepath.Join(h.dir, restoreFile), restoredState{Format: restoreFormat, Snapshot: "s", At: time.Now()})
		},
		"hub-suspended": func(h *house) error {
			return writeJSON(filepath.Join(h.dir, restoreFile), restoredState{Format: restoreFormat, Snapshot: "s", At: time.Now(), Whole: true, Suspended: true})
		},
		"root-key-missing":  func(h *house) error { return os.Remove(h.rootKey) },
		"root-key-readable": func(h *house) error { return os.Chmod(h.rootKey, 0o644) },
		"data-readable":     func(h *house) error { return os.Chmod(h.dir, 0o755) },
		"folder-newer": func(h *house) error {
			return writeJSON(filepath.Join(h.dir, releaseFile), release{Format: releaseFormat, Version: "9.0.0", Catalog: catalog.Known() + 1})
		},
		"upgrade-unconfirmed": func(h *house) error {
			return writeJSON(filepath.Join(h.dir, releaseFile), newRelease("0.2.0", &before{Version: "0.1.0", Catalog: catalog.Oldest, At: time.Now()}))
		},
	}
}

// The doctor of a hub that does not run looks at its folder, finds what keeps it
// from starting, and changes nothing.
func TestDoctorOfAStoppedHub(t *testing.T) {
	h := newHouse(t)
	h.halt()
	expected := slices.Sorted(slices.Values([]string{"administrator-in-data", "copy-none", "hub-down", "root-key-no-passphrase", "root-key-one-holder", "versions"}))
	before := snapshotOf(t, h.dir)
	look := func(c Config) []api.Finding {
		t.Helper()
		all, err := doctorStopped(soundHost(h, 0), c.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			checkFinding(t, f)
		}
		return all
	}
	if got := idsOf(look(Config{Data: h.dir})); !slices.Equal(got, expected) {
		t.Errorf("a hub that was stopped has %v", got)
	}
	if !maps.Equal(before, snapshotOf(t, h.dir)) {
		t.Error("looking changed the folder")
	}
	for _, part := range []string{keyringDir, catalogDir} {
		path := filepath.Join(h.dir, part)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if got := idsOf(look(Config{Data: h.dir})); !slices.Contains(got, "folder-damaged") {
			t.Errorf("without %s: %v", part, got)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	if all := look(Config{Data: h.dir}); all[0].ID != "hub-down" || !strings.Contains(all[0].What, "a process has its data folder") {
		t.Errorf("while a process has the folder: %+v", all[0])
	}
	h.halt()
	for id, provoke := range stoppedComplaints() {
		if id == "clock-set-back" {
			continue
		}
		copied := &house{t: t, dir: filepath.Join(t.TempDir(), "data"), rootKey: filepath.Join(t.TempDir(), "root.key")}
		key, err := os.ReadFile(h.rootKey)
		err = errors.Join(err, os.CopyFS(copied.dir, os.DirFS(h.dir)), os.Chmod(copied.dir, 0o700), os.WriteFile(copied.rootKey, key, 0o600))
		if err = errors.Join(err, provoke(copied)); err != nil {
			t.Fatal(err)
		}
		c := Config{Data: copied.dir, RootKey: copied.rootKey}
		if id == "root-key-inside" {
			c.RootKey = filepath.Join(copied.dir, "root.key")
		}
		if got := idsOf(look(c)); !slices.Contains(got, id) {
			t.Errorf("%s is not found, but %v", id, got)
		}
	}
	if _, err := DoctorStopped(Config{Data: filepath.Join(t.TempDir(), "none")}); holdfast.KindOf(err) != holdfast.NotFound {
		t.Errorf("of no folder: %v", err)
	}
}

// What the machine is really asked gives answers.
func TestHost(t *testing.T) {
	m := machineHost()
	d, err := m.Disk(t.TempDir())
	if err != nil || d.Size == 0 || d.Free > d.Size || d.FreeNodes > d.Nodes {
		t.Errorf("%+v, %v", d, err)
	}
	o, err := m.Stat(os.TempDir())
	if err != nil || !o.Mode.IsDir() {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := m.Stat(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	if k, known := m.Clock(); known && k.Error < 0 {
		t.Errorf("%+v", k)
	}
	if m.Files() == 0 {
		t.Error("no file may be opened")
	}
	if s, err := m.Secret(); err != nil || s.Keeps {
		t.Errorf("%+v, %v", s, err)
	}
}

// docs/doctor.md has each finding, with its level, and no other.
func TestDoctorIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| (wrong|weak|note) \\|").FindAllStringSubmatch(string(b), -1) {
		documented[m[1]] = m[2]
	}
	for _, a := range ailments {
		if documented[a.id] != a.level {
			t.Errorf("docs/doctor.md says %q of %s, which is %s", documented[a.id], a.id, a.level)
		}
		delete(documented, a.id)
	}
	for id := range documented {
		t.Errorf("docs/doctor.md has %s, which the doctor does not know", id)
	}
}
