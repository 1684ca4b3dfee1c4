package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/bundle"
	"github.com/holdfast-iot/holdfast/internal/query"
)

// Export writes all of a party's data to sink. An owner in person exports his own;
// the operating organisation's is exported by its administrators, each with a settled credential. Everybody else
// is Denied, whether there is such a party or not.
func (a *Archive) Export(ctx context.Context, who access.Principal, party holdfast.PartyID, sink Sink) (Exported, error) {
	purpose, err := a.mayExport(ctx, who, party)
	if err != nil {
		return Exported{}, err
	}
	if err := who.MustBeSettled(); err != nil {
		return Exported{}, err
	}
	res, err := a.query.Read(ctx, query.Request{
		Who: who, Purpose: purpose, Selection: query.Selection{Party: party}, Span: holdfast.Always, Exact: true,
	})
	if err != nil {
		return Exported{}, err
	}
	x := &export{
		a: a, ctx: ctx, sink: sink, party: party, res: res, created: time.Now().UTC(), tallies: map[holdfast.StreamID]*bundle.Tally{},
		report: Exported{ID: holdfast.NewID[holdfast.BlobID]().String(), Owner: party, Streams: len(res.Sources), Withheld: res.Withheld},
	}
	if err := errors.Join(x.readings(), res.Close()); err != nil {
		return x.report, fmt.Errorf("export readings: %w", err)
	}
	if err := x.records(); err != nil {
		return x.report, fmt.Errorf("export records: %w", err)
	}
	if err := x.seal(); err != nil {
		return x.report, fmt.Errorf("end bundle: %w", err)
	}
	return x.report, nil
}

// mayExport returns the purpose under which who may take out all of a party.
func (a *Archive) mayExport(ctx context.Context, who access.Principal, party holdfast.PartyID) (holdfast.Purpose, error) {
	operating, err := a.custody.Operating(ctx)
	if err != nil {
		return "", fmt.Errorf("find operating organisation: %w", err)
	}
	switch {
	case party.IsZero() || who.Party != party:
	case who.Role == access.Owner:
		return holdfast.OwnAccess, nil
	case who.Role == access.Administrator && party == operating:
		return holdfast.Operation, nil
	}
	return "", holdfast.Errorf(holdfast.Denied, "only the owner, with his own credential, exports his data")
}

// export is one bundle on its way out.
type export struct {
	a       *Archive
	ctx     context.Context // of Export, which it does not outlive
	sink    Sink
	party   holdfast.PartyID
	res     *query.Result
	created time.Time
	payload []bundle.File
	tags    []bundle.File
	tallies map[holdfast.StreamID]*bundle.Tally
	parts   int
	entries uint64 // of the owner's record, in ledger.ndjson
	buf     bytes.Buffer
	report  Exported
}

// put hands a file over and remembers it for the manifest.
func (x *export) put(name string, content []byte) error {
	if err := x.sink.Put(x.ctx, name, content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	f := bundle.FileOf(name, content)
	x.report.Files++
	if bundle.IsPayload(name) {
		x.payload = append(x.payload, f)
		x.report.Bytes += f.Size
	} else {
		x.tags = append(x.tags, f)
	}
	return nil
}

// readings writes the parts and adds up the balance of each stream.
func (x *export) readings() error {
	part := bundle.NewPart(&x.buf)
	var of *query.Source
	var source *bundle.Source
	var tally *bundle.Tally
	for row, err := range x.res.Rows {
		if err != nil {
			return err
		}
		if row.Source != of {
			of = row.Source
			source = &bundle.Source{
				Device: of.Device, DeviceName: of.DeviceName, StreamID: of.StreamID, Stream: of.Stream, Unit: of.Unit, Type: of.Type,
			}
			tally = new(bundle.Tally)
			x.tallies[of.StreamID] = tally
		}
		if part.Full() {
			if err := x.endPart(part); err != nil {
				return err
			}
			part = bundle.NewPart(&x.buf)
		}
		if err := part.Append(source, row.Reading); err != nil {
			return err
		}
		tally.Add(of.StreamID, row.Reading)
		x.report.Rows++
	}
	return x.endPart(part)
}

func (x *export) endPart(p *bundle.Part) error {
	if err := p.Close(); err != nil {
		return err
	}
	x.parts++
	err := x.put(bundle.PartName(x.parts), x.buf.Bytes())
	x.buf.Reset()
	return err
}

// seal writes what makes the files a bundle: the description, the manifests and
// the signature over them.
func (x *export) seal() error {
	description, err := bundle.NewPackage(x.report.ID, x.created, x.payload).Append(nil)
	if err != nil {
		return err
	}
	info := bundle.Info{
		{Name: "Source-Organization", Value: x.a.ledger.Origin()},
		{Name: "Bagging-Date", Value: x.created.Format(time.DateOnly)},
		{Name: "Payload-Oxum", Value: fmt.Sprintf("%d.%d", x.report.Bytes, len(x.payload))},
		{Name: "Bag-Software-Agent", Value: "Holdfast"},
		{Name: bundle.LabelVersion, Value: fmt.Sprint(bundle.Version)},
		{Name: bundle.LabelID, Value: x.report.ID},
		{Name: bundle.LabelOwner, Value: x.party.String()},
		{Name: bundle.LabelRows, Value: fmt.Sprint(x.report.Rows)},
		{Name: bundle.LabelWithheld, Value: fmt.Sprint(x.report.Withheld)},
		{Name: bundle.LabelVerifier, Value: x.a.ledger.VerifierKey()},
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{bundle.DeclarationName, []byte(bundle.Declaration)},
		{bundle.InfoName, info.Append(nil)},
		{bundle.PackageName, description},
		{bundle.ReadmeName, []byte(bundle.Readme)},
		{bundle.ManifestName, bundle.AppendManifest(nil, x.payload)},
	} {
		if err := x.put(f.name, f.content); err != nil {
			return err
		}
	}
	tags := bundle.AppendManifest(nil, x.tags)
	signature, err := x.a.ledger.Sign(bundle.SignedText(x.report.ID, tags))
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if err := x.put(bundle.SignatureName, signature); err != nil {
		return err
	}
	return x.put(bundle.TagManifestName, tags) // last: without it there is no bundle
}

// recordsBytes is how long a file of records gets.
const recordsBytes = 32 << 20

// lines writes records of one kind, a JSON object a line, into as many files as
// they need.
type lines struct {
	x    *export
	name string
	n    int
	buf  bytes.Buffer
}

func (l *lines) add(record any) error {
	if l.buf.Len() >= recordsBytes {
		if err := l.end(); err != nil {
			return err
		}
	}
	e := json.NewEncoder(&l.buf)
	e.SetEscapeHTML(false)
	return e.Encode(record)
}

func (l *lines) end() error {
	l.n++
	err := l.x.put(bundle.NextName(l.name, l.n), l.buf.Bytes())
	l.buf.Reset()
	return err
}
