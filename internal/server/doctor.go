package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Thresholds of Doctor.
const (
	clockSlack = time.Second
	scarceDisk = 1 << 30
	scarcePart = 0.1
	soon       = 30 * 24 * time.Hour
	lateExpiry = 50 * time.Hour // the daily run of retention is overdue
	deepTail   = 256 << 20      // bytes of journal not rolled
)

// Doctor looks for what is wrong or weak.
func (s *Server) Doctor(ctx context.Context) ([]api.Finding, error) {
	var out []api.Finding
	add := func(level, what, mend string) { out = append(out, api.Finding{Level: level, What: what, Mend: mend}) }

	if d := s.clock.Behind(); d > clockSlack {
		add(api.Wrong, fmt.Sprintf("the system's clock was set back by %s: arrival times run on without it", d.Round(time.Second)),
			"set the clock right and keep it so (chrony, systemd-timesyncd)")
	}
	s.checkDisk(add)
	s.checkRootKey(add)
	s.checkCertificates(add)
	if s.config.DeviceTLSMin < tls.VersionTLS13 {
		add(api.Weak, "devices may speak TLS 1.2", "drop --device-tls-min 1.2 when the last of them can do 1.3")
	}
	if tail := s.stores.journal.End() - s.stores.journal.Start(); tail > deepTail {
		add(api.Wrong, fmt.Sprintf("%d MiB of the journal are not rolled into segments", tail>>20), "look for errors of series in the log")
	}
	devices, err := s.custody.AllDevices(ctx)
	if err != nil {
		return nil, err
	}
	unclaimed := 0
	for _, d := range devices {
		if d.State == "unclaimed" {
			unclaimed++
		}
	}
	if unclaimed > 0 {
		add(api.Weak, fmt.Sprintf("devices without an owner: %d, whose readings are refused", unclaimed), "give their claim codes to their owners")
	}
	s.checkWitnesses(add)
	if err := s.ledger.Trouble(); err != nil {
		add(api.Wrong, "the ledger was not published at the last tick: "+err.Error(), "look at holdfast ledger verify, and at the disk of the data folder")
	}
	s.checkRefusals(add)
	s.checkQuotas(add)
	last, doubted, err := s.erasure.LastExpiry(ctx)
	if err != nil {
		return nil, err
	}
	switch ago := time.Since(last); {
	case doubted:
		add(api.Wrong, fmt.Sprintf("the clock is %d days ahead of the last run of retention: nothing dies by age", int(ago.Hours()/24)),
			"set the clock right; if it is, holdfast retention run --clock-is-right")
	case !last.IsZero() && ago > lateExpiry:
		add(api.Wrong, fmt.Sprintf("retention last ran %d hours ago", int(ago.Hours())), "look for errors of retention in the log")
	}
	undone, err := s.erasure.Undone(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range undone {
		if age := time.Since(e.AskedAt); age > time.Minute && e.State == erasure.Asked {
			add(api.Wrong, fmt.Sprintf("erasure %s was asked for %s ago and its keys still live", e.ID, age.Round(time.Second)), "look for errors of erasure in the log")
		}
	}
	return out, nil
}

// checkWitnesses says which of them have not cosigned what is published. One that
// holds that the log was changed is a matter of its own.
func (s *Server) checkWitnesses(add func(level, what, mend string)) {
	have, missing := s.ledger.Cosigners()
	for _, m := range missing {
		switch {
		case holdfast.KindOf(m.Err) == holdfast.Conflict:
			add(api.Wrong, fmt.Sprintf("witness %s: %s", m.Name, m.Err),
				"if the data folder was put back from a copy, stop the hub and give the ledger a new name: holdfast ledger renew --force --last FILE, with the checkpoint that the witness has")
		case m.Err != nil:
			add(api.Weak, fmt.Sprintf("witness %s has not cosigned the published checkpoint: %s", m.Name, m.Err), "look at the witness, or name another with --witness")
		}
	}
	if need := s.ledger.Quorum(); have < need {
		add(api.Weak, fmt.Sprintf("%d of %d witnesses that are needed have cosigned the published checkpoint", have, need), "it may be a moment old; if this stays, see the witnesses")
	}
}

// namedSlowed is how many devices over their quota are named.
const namedSlowed = 10

// checkQuotas names, by their ids alone, devices that send more than they may.
func (s *Server) checkQuotas(add func(level, what, mend string)) {
	slowed := s.quotas.Slowed(time.Now().Add(-time.Hour).UnixNano())
	for i, id := range slowed {
		if i == namedSlowed {
			add(api.Weak, fmt.Sprintf("%d more devices sent more than their quota within the hour", len(slowed)-namedSlowed), "see above")
			return
		}
		add(api.Weak, fmt.Sprintf("device %s sent more than its quota within the hour and was slowed", id),
			"look what it sends; raise the limits of its profile, or --readings-per-device and --bytes-per-device of serve, if that is as it should be")
	}
}

// checkRefusals shows what a device that speaks MQTT 3.1.1 is not told.
func (s *Server) checkRefusals(add func(level, what, mend string)) {
	type of struct {
		device holdfast.DeviceID
		reason string
	}
	n := map[of]int{}
	var order []of
	for _, r := range s.mqtt.Refusals() {
		k := of{r.Device, r.Reason}
		if time.Since(r.At) > time.Hour {
			continue
		}
		if n[k] == 0 {
			order = append(order, k)
		}
		n[k]++
	}
	for _, k := range order {
		add(api.Weak, fmt.Sprintf("messages of device %s were refused within the hour (%d): %s", k.device, n[k], k.reason), "mend what the device sends")
	}
}

func (s *Server) checkDisk(add func(level, what, mend string)) {
	var st syscall.Statfs_t
	if syscall.Statfs(s.config.Data, &st) != nil {
		return
	}
	free, all := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	if free < scarceDisk || float64(free) < scarcePart*float64(all) {
		add(api.Wrong, fmt.Sprintf("%d MiB are free on the disk of the data folder", free>>20),
			"free space or enlarge the disk: when it is full, readings are no longer acknowledged")
	}
}

func (s *Server) checkRootKey(add func(level, what, mend string)) {
	if len(s.stores.holders) < 2 {
		add(api.Weak, "one holder has the root key: if it is lost, all data are",
			"keep a copy of the root key file where nobody can take both it and the data folder")
	}
	for _, h := range s.stores.holders {
		f, ok := h.(*vault.FileHolder)
		if !ok {
			continue
		}
		var key, data syscall.Stat_t
		if syscall.Stat(f.Path(), &key) == nil && syscall.Stat(s.config.Data, &data) == nil && key.Dev == data.Dev {
			add(api.Weak, "the root key lies on the disk of the data folder: whoever takes the disk has both", "put it elsewhere and say where with --root-key")
		}
		if !f.Protected() {
			add(api.Weak, "the root key file has no passphrase", "make the next hub with --passphrase-file, or keep the file on an encrypted volume")
		}
	}
}

func (s *Server) checkCertificates(add func(level, what, mend string)) {
	if left := time.Until(s.identity.CA().NotAfter); left < soon {
		add(api.Wrong, fmt.Sprintf("the authority's certificate ends in %d days", int(left.Hours()/24)), "devices must be enrolled with a new hub before that")
	}
	b, err := os.ReadFile(filepath.Join(s.config.Data, adminDir, "cert.pem"))
	if err != nil {
		return
	}
	if block, _ := pem.Decode(b); block != nil {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && time.Until(c.NotAfter) < soon {
			add(api.Wrong, "the first administrator's certificate ends on "+c.NotAfter.Format(time.DateOnly), "make another administrator's credential before that: holdfast token add --help")
		}
	}
}
