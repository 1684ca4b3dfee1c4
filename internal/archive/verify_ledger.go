package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// ledger checks that the owner's record is in the tree of a checkpoint by the hub,
// without a gap, and that the events say what stands there.
func (v *verification) ledger() {
	slice, closeSlice, ok := v.records(bundle.LedgerName, bundle.LedgerName)
	if !ok {
		return
	}
	defer closeSlice()
	text, closeText, ok := v.records(bundle.EventsName, bundle.LedgerName)
	if !ok {
		return
	}
	defer closeText()
	events := json.NewDecoder(text)
	r, err := ledger.CheckSlice(slice, v.report.Signer, nil, func(_ ledger.Opening, e ledger.Event) error {
		var said bundle.Event
		err := events.Decode(&said)
		if err != nil || said.Index != e.Index || said.Seq != e.Seq || said.Kind != e.Kind || !said.Time.Equal(e.Time) || !bytes.Equal(said.Data, e.Data) {
			return errOtherEvent
		}
		return nil
	})
	switch {
	case errors.Is(err, errOtherEvent):
		v.fault(bundle.EventsName, "line %d says something else than entry %d of the record in %s", r.Entries, r.Entries-1, bundle.LedgerName)
		return
	case err != nil:
		v.fault(bundle.LedgerName, "%v", err)
		return
	case r.Record != v.report.Owner:
		v.fault(bundle.LedgerName, "is the record of %q", r.Record)
	}
	if err := events.Decode(new(bundle.Event)); !errors.Is(err, io.EOF) {
		v.fault(bundle.EventsName, "has more lines than %s has entries", bundle.LedgerName)
	}
	v.report.Entries = r.Entries
}

var errOtherEvent = errors.New("the event is another")

// records opens the files of a kind of record as one. What differs from its manifest
// is not read; then what it is for can't be checked.
func (v *verification) records(name, what string) (_ io.Reader, shut func(), ok bool) {
	var all []io.Reader
	var open []io.Closer
	shut = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for n := 1; ; n++ {
		file := bundle.NextName(name, n)
		whole, named := v.hashed[file]
		if !named && n > 1 {
			return io.MultiReader(all...), shut, true
		}
		if !named {
			v.fault(file, "is missing")
		}
		if !whole {
			v.fault(what, "can't be checked without %s", file)
			break
		}
		f, err := v.fsys.Open(file)
		if err != nil {
			v.fault(file, "%s", unread(err))
			break
		}
		all, open = append(all, f), append(open, f)
	}
	shut()
	return nil, nil, false
}
