package server

import "github.com/holdfast-iot/holdfast/internal/api"

// ailment is something that the doctor can find. The id stays what it is from
// version to version: people's alarms hang on it.
type ailment struct{ id, level string }

// ailments is all of them, the most urgent of each level first; docs/doctor.md says
// what each means.
var ailments = [...]ailment{
	{"hub-down", api.Wrong},
	{"folder-damaged", api.Wrong},
	{"folder-newer", api.Wrong},
	{"restore-unfinished", api.Wrong},
	{"hub-suspended", api.Wrong},
	{"disk-space", api.Wrong},
	{"disk-files", api.Wrong},
	{"disk-volatile", api.Wrong},
	{"root-key-missing", api.Wrong},
	{"root-key-inside", api.Wrong},
	{"root-key-readable", api.Wrong},
	{"root-key-fixed", api.Wrong},
	{"data-readable", api.Wrong},
	{"roll-failing", api.Wrong},
	{"journal-backlog", api.Wrong},
	{"erasure-late", api.Wrong},
	{"erasure-unpurged", api.Wrong},
	{"segment-unremoved", api.Wrong},
	{"retention-late", api.Wrong},
	{"retention-doubts-clock", api.Wrong},
	{"clock-set-back", api.Wrong},
	{"witness-contradicts", api.Wrong},
	{"ledger-unpublished", api.Wrong},
	{"decisions-failed", api.Wrong},
	{"administrators-end", api.Wrong},
	{"authority-ends", api.Wrong},
	{"api-certificate-ended", api.Wrong},
	{"tpm-silent", api.Wrong},
	{"tpm-counter-ahead", api.Wrong},

	{"upgrade-unconfirmed", api.Weak},
	{"holder-fenced", api.Weak},
	{"recovery-not-rehearsed", api.Weak},
	{"recovery-too-few", api.Weak},
	{"recovery-opened", api.Weak},
	{"root-key-one-holder", api.Weak},
	{"backup-none", api.Weak},
	{"backup-old", api.Weak},
	{"backup-resealed", api.Weak},
	{"holders-same-disk", api.Weak},
	{"copy-late", api.Weak},
	{"copy-same-disk", api.Weak},
	{"root-key-same-disk", api.Weak},
	{"root-key-owner", api.Weak},
	{"disk-layered", api.Weak},
	{"disk-remote", api.Weak},
	{"disk-slow", api.Weak},
	{"journal-queue", api.Weak},
	{"clock-unsynchronised", api.Weak},
	{"open-files", api.Weak},
	{"memory-small", api.Weak},
	{"memory-dumped", api.Weak},
	{"memory-swapped", api.Weak},
	{"memory-keeps-keys", api.Weak},
	{"api-certificate-ends", api.Weak},
	{"api-certificate-newer", api.Weak},
	{"credentials-end", api.Weak},
	{"device-certificates-ended", api.Weak},
	{"device-certificates-end", api.Weak},
	{"device-clocks", api.Weak},
	{"devices-late", api.Weak},
	{"devices-refused", api.Weak},
	{"devices-over-quota", api.Weak},
	{"devices-unclaimed", api.Weak},
	{"device-tls12-used", api.Weak},
	{"device-tls12-allowed", api.Weak},
	{"witness-late", api.Weak},
	{"witness-quorum", api.Weak},
	{"mail-failing", api.Weak},
	{"webhooks-failing", api.Weak},
	{"webhooks-disabled", api.Weak},
	{"messages-given-up", api.Weak},

	{"recovery-old-shares", api.Note},
	{"copy-none", api.Note},
	{"backup-drill-old", api.Note},
	{"root-key-no-passphrase", api.Note},
	{"holder-vouched", api.Note},
	{"administrator-in-data", api.Note},
	{"permissions-waiting", api.Note},
	{"memory-unlimited", api.Note},
	{"init-interrupted", api.Note},
	{"versions", api.Note},
}

// rank is where an ailment stands among all; an id that is none of them is a
// programmer's mistake.
func rank(id string) int {
	for i, a := range ailments {
		if a.id == id {
			return i
		}
	}
	panic("doctor: no ailment " + id)
}
