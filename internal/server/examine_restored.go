package server

import (
	"fmt"
	"time"
)

// suspended looks whether the hub was restored and waits to be confirmed. Until then
// nobody but the administrator that the restore made, and no device, is let in.
func (x *examination) suspended(r restoredState) {
	why := r.suspended()
	if why == "" {
		return
	}
	since := "the backup was made"
	if !r.Until.IsZero() {
		since = r.Until.UTC().Format(time.RFC3339)
	}
	x.since("hub-suspended", r.At, fmt.Sprintf("the hub was restored from backup %s and is suspended, for more may have been taken back than it knows: %s. Only the administrator that the restore made is let in: no device, no other credential; no alarm and no message goes out", r.Snapshot, why),
		fmt.Sprintf("if there is a newer copy of the keyring, restore once more with that. Else start the hub, revoke and erase again what you know was taken back since %s (holdfast token list, token revoke, device revoke, erase, each with --data %s), stop it, and holdfast restore confirm --data %[2]s", since, x.data))
}

// unfinished is of a folder of which a restore is under way, or was cut short.
func (x *examination) unfinished(r restoredState) {
	x.since("restore-unfinished", r.At, fmt.Sprintf("the restore of backup %s into this folder has not ended: nothing starts from it", r.Snapshot),
		"if none is under way, run it again with the same folder: it goes on where it was. Or remove the folder: rm -r "+x.data)
}
