package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/api"
	"github.com/holdfast-iot/holdfast/internal/erasure"
	"github.com/holdfast-iot/holdfast/internal/ingest"
	"github.com/holdfast-iot/holdfast/internal/journal"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/mqtt"
	"github.com/holdfast-iot/holdfast/internal/series"
	"github.com/holdfast-iot/holdfast/internal/vault/tpmholder"
)

// doctorAsk bounds a question of the doctor to a TPM.
const doctorAsk = 5 * time.Second

// Doctor looks for what is wrong, weak or worth knowing, the most urgent first. It
// tells ids and counts, nobody's name.
func (s *Server) Doctor(ctx context.Context) ([]api.Finding, error) {
	x := examine(s.host, s.config.Data)
	x.disk()
	x.suspended(s.stores.restored)
	x.holders(s.stores.keys)
	x.copies(s.stores.keys, s.stores.vault.Copies())
	s.examineHolders(ctx, x)
	if d := s.clock.Behind(); d > slackOfClock {
		x.add("clock-set-back", fmt.Sprintf("the system's clock was set back by %s: arrival times run on without it", d.Round(time.Second)),
			"set the clock right and keep it so (timedatectl set-ntp true)")
	}
	x.clock()
	x.limits()
	if err := x.secrecy(); err != nil {
		return nil, err
	}
	x.interrupted()
	x.upgrade()
	s.examineJournal(x)
	s.examineLedger(x)
	s.examineAPICertificate(x)
	s.examineTraffic(x)
	for _, examine := range []func(context.Context, *examination) error{s.examineKeepers, s.examineBackups, s.examineRecovery, s.examineCredentials, s.examineDevices} {
		if err := examine(ctx, x); err != nil {
			return nil, err
		}
	}
	x.add("versions", fmt.Sprintf("holdfast %s, %s; TLS is crypto/tls of that Go, devices from TLS %s on", cmp.Or(s.config.Version, "(devel)"), runtime.Version(), tlsName(s.config.DeviceTLSMin)),
		"nothing to do; compare with what is released")
	return x.findings(), nil
}

// examineHolders asks the files and TPMs that hold the root key. A program is not asked:
// it may take its time, and be at work for a rotation.
func (s *Server) examineHolders(ctx context.Context, x *examination) {
	said := map[string]error{}
	for _, h := range s.stores.holders {
		if f, ok := h.file(); ok {
			said[h.Name] = f.Answers()
		}
		if t, ok := h.holder.(*tpmholder.Holder); ok {
			in, cancel := context.WithTimeout(ctx, doctorAsk)
			status, err := t.Status(in)
			cancel()
			x.tpm(h.Name, status, err)
			said[h.Name] = err
		}
	}
	for _, h := range s.stores.holders {
		if f, ok := h.file(); ok {
			x.rootKey(keyFile{h.Name, f.Path(), f.Protected(), len(s.stores.holders) < 2, answering(said, h.Name), said[h.Name]})
		}
	}
}

// answering is one of the holders that answered, other than the one of this name.
func answering(said map[string]error, but string) string {
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if name != but && said[name] == nil {
			return name
		}
	}
	return ""
}

func tlsName(v uint16) string {
	if v == tls.VersionTLS12 {
		return "1.2"
	}
	return "1.3"
}

// examineJournal looks at what is between acknowledgement and segment.
func (s *Server) examineJournal(x *examination) {
	oldest, err := s.series.Oldest()
	if err != nil {
		oldest = time.Time{}
	}
	x.journal(s.series.Backlog(), oldest, s.stores.journal.Stats())
}

func (x *examination) journal(b series.Backlog, oldest time.Time, st journal.Stats) {
	if !b.Failing.IsZero() && x.now.Sub(b.Failing) > rollsFail {
		x.since("roll-failing", b.Failing, fmt.Sprintf("no roll of the journal has come to its end for %s", x.now.Sub(b.Failing).Round(time.Second)),
			"look for \"keep readings\" in the log: it says why, mostly that the disk is full; rolls go on by themselves")
	}
	switch age := x.now.Sub(oldest); {
	case b.Bytes > deepTail:
		x.since("journal-backlog", oldest, fmt.Sprintf("%d MiB of the journal are not rolled into segments", b.Bytes>>20), "look for \"keep readings\" in the log; if there is nothing, the disk or the processors are too slow for what comes in")
	case !oldest.IsZero() && age > oldTail:
		x.since("journal-backlog", oldest, fmt.Sprintf("the journal holds readings of %s ago that are not rolled into segments", age.Round(time.Minute)), "look for \"keep readings\" in the log")
	}
	if st.QueuedBytes > longQueue {
		x.add("journal-queue", fmt.Sprintf("%d MiB of readings wait to become durable: devices are slowed", st.QueuedBytes>>20), "a faster disk for the data folder; fewer devices; or lower --readings-per-device")
	}
	if st.Syncs >= enoughSyncs {
		if each := st.SyncTime / time.Duration(st.Syncs); each > slowSync {
			x.add("disk-slow", fmt.Sprintf("a sync of the journal takes %s in the mean since the start: each acknowledgement waits for one", each.Round(time.Millisecond)),
				"a disk with power-loss protection for the data folder; holdfast bench messages --dir DIR measures one")
		}
	}
}

// examineLedger looks at what the ledger publishes, and at its witnesses. One that
// holds that the log was changed is a matter of its own.
func (s *Server) examineLedger(x *examination) {
	if err := s.ledger.Trouble(); err != nil {
		x.add("ledger-unpublished", "the ledger was not published at the last tick: "+err.Error(), "holdfast ledger verify --data "+x.data+" says whether it is whole; else look at the disk of the data folder")
	} else if last := s.ledger.LastTick(); !last.IsZero() && x.now.Sub(last) > lateTicks*s.config.Checkpoints {
		x.since("ledger-unpublished", last, fmt.Sprintf("the ledger was published %s ago last", x.now.Sub(last).Round(time.Second)), "look for ledger in the log; start the hub again if nothing stands there")
	}
	have, missing := s.ledger.Cosigners()
	x.witnesses(have, s.ledger.Quorum(), missing)
}

func (x *examination) witnesses(have, need int, missing []ledger.Missing) {
	for _, m := range missing {
		switch {
		case holdfast.KindOf(m.Err) == holdfast.Conflict:
			x.since("witness-contradicts", m.Last, fmt.Sprintf("witness %s: %s", m.Name, m.Err),
				"if the data folder was put back from a copy, stop the hub and give the ledger a new name: holdfast ledger renew --data "+x.data+" --force --last FILE, with the checkpoint that the witness has")
		case m.Err != nil:
			x.since("witness-late", m.Last, fmt.Sprintf("witness %s has not cosigned the published checkpoint: %s", m.Name, m.Err), "ask who runs the witness, or name another with serve --witness")
		}
	}
	if have < need {
		x.add("witness-quorum", fmt.Sprintf("%d of %d witnesses that are needed have cosigned the published checkpoint", have, need), "it may be a moment old; if this stays, see the witnesses")
	}
}

// examineAPICertificate looks at the operator's own certificate and the hub's
// authority.
func (s *Server) examineAPICertificate(x *examination) {
	x.authority(s.identity.CA().NotAfter)
	c := s.apiLeaf.Load()
	if c == nil {
		return
	}
	left, name := c.NotAfter.Sub(x.now), s.config.APICert
	if file := certificateIn(name); file != nil && file.NotAfter.After(c.NotAfter) {
		x.add("api-certificate-newer", "a newer certificate lies in "+name+" than the one in use, which ends on "+c.NotAfter.UTC().Format(time.DateOnly), "systemctl restart holdfast: it is read at the start")
		return
	}
	switch {
	case left <= 0:
		x.since("api-certificate-ended", c.NotAfter, "the certificate for people and programs has ended", "put a new one into "+name+", then systemctl restart holdfast")
	case left < soon/2:
		x.add("api-certificate-ends", "the certificate for people and programs ends on "+c.NotAfter.UTC().Format(time.DateOnly), "put a new one into "+name+", then systemctl restart holdfast")
	}
}

// refusals looks at what devices are refused for, some of which are not told.
func (x *examination) refusals(all []mqtt.Refusal) {
	type kind struct {
		devices []holdfast.DeviceID
		n       int
	}
	reasons, order := map[string]*kind{}, []string(nil)
	for _, r := range all {
		if x.now.Sub(r.At) > time.Hour {
			continue
		}
		k := reasons[r.Reason]
		if k == nil {
			k = &kind{}
			reasons[r.Reason], order = k, append(order, r.Reason)
		}
		if k.n++; !slices.Contains(k.devices, r.Device) {
			k.devices = append(k.devices, r.Device)
		}
	}
	for _, reason := range order {
		k := reasons[reason]
		x.add("devices-refused", fmt.Sprintf("%s refused within the hour: %s. Of %s", plural(k.n, "a message was", "%d messages were"), reason, list(k.devices)),
			"mend what the device sends: docs/device-guide.md; holdfast device show "+k.devices[0].String()+" --data "+x.data)
	}
}

// examineTraffic looks at what devices are refused or slowed for, and at old TLS.
func (s *Server) examineTraffic(x *examination) {
	x.refusals(s.mqtt.Refusals())
	if slowed := s.quotas.Slowed(x.now.Add(-time.Hour).UnixNano()); len(slowed) > 0 {
		x.add("devices-over-quota", fmt.Sprintf("%s slowed within the hour for sending more than the quota: %s", plural(len(slowed), "a device was", "%d devices were"), list(slowed)),
			"look what it sends; raise the limits of its profile, or --readings-per-device and --bytes-per-device of serve, if that is as it should be")
	}
	if s.config.DeviceTLSMin < tls.VersionTLS13 {
		x.add("device-tls12-allowed", "devices may speak TLS 1.2", "drop --device-tls-min 1.2 when device-tls12-used is not found for a week")
	}
	if old := s.identity.OldTLS(x.now.Add(-7 * 24 * time.Hour)); len(old) > 0 {
		ids := make([]holdfast.DeviceID, len(old))
		for i, o := range old {
			ids[i] = o.Device
		}
		x.add("device-tls12-used", fmt.Sprintf("%s with TLS 1.2 within the week: %s", plural(len(old), "a device came", "%d devices came"), list(ids)), "give them firmware that speaks TLS 1.3; readings that came so are marked")
	}
	if n := s.undecidedEver.Load(); n > 0 {
		x.add("decisions-failed", plural(int(n), "a decision could not be made since the start and was a denial", "%d decisions could not be made since the start and were denials"), "look for \"a decision could not be made\" in the log; please report it: it is a fault of Holdfast")
	}
}

// remaining looks at segments of which the disk fails.
func (x *examination) remaining(all []series.Remaining) {
	if len(all) == 0 {
		return
	}
	x.since("segment-unremoved", all[0].Since, fmt.Sprintf("%s ciphertext that is dead and can't be removed, the first %s: %v", plural(len(all), "a segment keeps", "%d segments keep"), all[0].Segment, all[0].Err),
		"mend the disk or its mount: it is tried again with each roll. Erasures of owners who have something there don't end before; all others do")
}

// examineKeepers looks at what is to happen by itself, and at who waits.
func (s *Server) examineKeepers(ctx context.Context, x *examination) error {
	last, doubted, err := s.erasure.LastExpiry(ctx)
	if err != nil {
		return err
	}
	switch ago := x.now.Sub(last); {
	case doubted:
		x.since("retention-doubts-clock", last, fmt.Sprintf("the clock is %d days ahead of the last run of retention: nothing dies by age", int(ago.Hours()/24)),
			"set the clock right; if it is right: holdfast retention run --clock-is-right --data "+x.data)
	case !last.IsZero() && ago > lateExpiry:
		x.since("retention-late", last, fmt.Sprintf("retention last ran %d hours ago", int(ago.Hours())), "look for retention in the log")
	}
	undone, err := s.erasure.Undone(ctx)
	if err != nil {
		return err
	}
	for _, e := range undone {
		age := x.now.Sub(e.Began())
		if age > latePurge && e.State == erasure.Destroyed {
			x.since("erasure-unpurged", e.AskedAt, fmt.Sprintf("erasure %s was asked for %s ago: its keys are gone, its ciphertext is still there", e.ID, age.Round(time.Minute)),
				"look for erasure in the log: it says which place can't be purged, mostly that the disk is full or broken; it goes on by itself when that is mended")
		}
		if age > lateErasure && e.State == erasure.Asked {
			x.since("erasure-late", e.AskedAt, fmt.Sprintf("erasure %s was asked for %s ago and its keys still live", e.ID, age.Round(time.Second)),
				"look for erasure in the log: it says why, and goes on by itself when that is mended")
		}
	}
	x.remaining(s.series.Remains())
	unsent, err := s.outbox.Failing(ctx)
	if err != nil {
		return err
	}
	x.messages(unsent)
	n, since, err := s.access.Waiting(ctx)
	if err != nil {
		return err
	}
	if n > 0 {
		x.since("permissions-waiting", since, plural(n, "a wish to read somebody's data waits for a second person", "%d wishes to read somebody's data wait for a second person"),
			"another administrator or an auditor: holdfast permission list; or its owner")
	}
	return nil
}

// examineCredentials looks at what people and programs come in with.
func (s *Server) examineCredentials(ctx context.Context, x *examination) error {
	ending, left, err := s.access.Ending(ctx, x.now.Add(soon), usedLately)
	if err != nil {
		return err
	}
	if left == 0 {
		x.add("administrators-end", "in 30 days no administrator is left: then nobody can let another one in", "make another administrator's credential now: holdfast token add --help")
	}
	var ids []holdfast.CredentialID
	for _, e := range ending {
		if e.Role != access.Administrator || left > 0 {
			ids = append(ids, e.ID)
		}
	}
	if len(ids) > 0 {
		x.add("credentials-end", fmt.Sprintf("%s in use and ends within 30 days, first on %s: %s", plural(len(ids), "a credential of a person or program is", "each of %d credentials of people and programs is"),
			ending[0].NotAfter.Format(time.DateOnly), list(ids)), "holdfast token list --data "+x.data+" says whose; make new ones in time")
	}
	return nil
}

// examineDevices looks at certificates, clocks and owners of devices.
func (s *Server) examineDevices(ctx context.Context, x *examination) error {
	ending, err := s.identity.Ending(ctx, x.now.Add(renewedByThen))
	if err != nil {
		return err
	}
	var soonOver, over []holdfast.DeviceID
	for _, e := range ending {
		switch {
		case e.NotAfter.After(x.now):
			soonOver = append(soonOver, e.Device)
		case x.now.Sub(e.NotAfter) < endedLately:
			over = append(over, e.Device)
		}
	}
	if len(soonOver) > 0 {
		x.add("device-certificates-end", fmt.Sprintf("%s within 7 days and was not renewed, as it should be a third before the end: %s", plural(len(soonOver), "a device's certificate ends", "each of %d devices' certificates ends"), list(soonOver)),
			"let the device renew: holdfast enrol --renew --out DIR on it, or simplereenroll; docs/device-guide.md")
	}
	if len(over) > 0 {
		x.add("device-certificates-ended", fmt.Sprintf("%s and the device is refused: %s", plural(len(over), "a device's certificate has ended", "%d devices' certificates have ended"), list(over)),
			"within 180 days the device may still renew itself; after that: holdfast device code DEVICE; holdfast device revoke DEVICE, if it is gone")
	}
	unclaimed, err := s.custody.CountUnclaimed(ctx)
	if err != nil {
		return err
	}
	if unclaimed > 0 {
		x.add("devices-unclaimed", plural(unclaimed, "a device has no owner: its readings are refused", "%d devices have no owner: their readings are refused"), "give their claim codes to their owners (holdfast device code --claim DEVICE makes new ones); holdfast device list --data "+x.data+" shows which")
	}
	x.clocks(s.ingest.Skewed())
	return nil
}

// clocks looks at what the times of readings say of devices' clocks.
func (x *examination) clocks(all []ingest.Skew) {
	var wrong, late []worded
	var since time.Time
	for _, k := range all {
		switch {
		case k.Marked > 0:
			wrong = append(wrong, worded(fmt.Sprintf("%s (%s)", k.Device, aside(k.Off))))
		case !k.Late.IsZero() && k.Last.Sub(k.Late) > time.Hour:
			late = append(late, worded(fmt.Sprintf("%s (%s)", k.Device, aside(-k.By))))
			if since.IsZero() || k.Late.Before(since) {
				since = k.Late
			}
		}
	}
	slices.Sort(wrong)
	slices.Sort(late)
	if len(wrong) > 0 {
		x.add("device-clocks", fmt.Sprintf("%s times that can't be, within the day: %s", plural(len(wrong), "a device's readings have", "%d devices' readings have"), list(wrong)),
			"set the device's clock (NTP), or let it send no time: then the time of arrival counts; such readings are marked")
	}
	if len(late) > 0 {
		x.since("devices-late", since, fmt.Sprintf("%s always more than an hour after their time: %s", plural(len(late), "a device's readings come", "%d devices' readings come"), list(late)),
			"its clock is behind (set it by NTP), its time zone is taken for UTC, or it still sends what it kept")
	}
}

// worded is text that is listed like an id.
type worded string

func (w worded) String() string { return string(w) }

// aside says how far a clock is off.
func aside(d time.Duration) string {
	where := "ahead"
	if d < 0 {
		where, d = "behind", -d
	}
	if d > 48*time.Hour {
		return fmt.Sprintf("%d days %s", int(d.Hours()/24), where)
	}
	return fmt.Sprintf("%s %s", d.Round(time.Minute), where)
}
