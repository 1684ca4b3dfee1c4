package custody

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Unit is the physical thing. Its serial is the maker's and sealed under the hub;
// only the ids of the devices it was lead to whose hands it went through.
type Unit struct {
	ID     holdfast.UnitID
	Serial string
	Added  time.Time
}

type unitInfo struct {
	Serial string `json:"serial"`
	Added  int64  `json:"added"`
}

// Unit returns a unit by its id.
func (c *Custody) Unit(ctx context.Context, id holdfast.UnitID) (Unit, error) {
	var box []byte
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT info_sealed FROM unit WHERE id = $1`, id).Scan(&box)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return Unit{}, holdfast.Errorf(holdfast.NotFound, "there is no such unit")
	}
	if err != nil {
		return Unit{}, err
	}
	var info unitInfo
	if err := c.open(ctx, vault.Hub, "unit", id[:], box, &info); err != nil {
		return Unit{}, err
	}
	return Unit{ID: id, Serial: info.Serial, Added: holdfast.Instant(info.Added)}, nil
}

func (c *Custody) serialHash(ctx context.Context, serial string) ([]byte, error) {
	return c.keys.Hash(ctx, "unit serial", serial)
}

// unitBySerial returns the zero id for a serial that is not known.
func (c *Custody) unitBySerial(ctx context.Context, hash []byte) (holdfast.UnitID, error) {
	var id holdfast.UnitID
	err := c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT id FROM unit WHERE serial_hash = $1`, hash).Scan(&id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return id, err
}

// planUnit finds or makes the unit of the plan's serial.
func (c *Custody) planUnit(ctx context.Context, p *plan) error {
	if err := holdfast.CheckName("serial", p.serial); err != nil {
		return err
	}
	var err error
	if p.serialHash, err = c.serialHash(ctx, p.serial); err != nil {
		return err
	}
	if p.Device.Unit, err = c.unitBySerial(ctx, p.serialHash); err != nil {
		return err
	}
	if p.Device.Unit.IsZero() {
		p.Device.Unit = holdfast.NewID[holdfast.UnitID]()
		p.newUnit = true
	}
	return nil
}

// Limits of one import.
const (
	maxUnits    = 100_000
	unitFileMax = 64 << 20
)

// UnitDefaults says what a row leaves out.
type UnitDefaults struct {
	Owner     holdfast.PartyID // zero: the operating organisation, unless Unclaimed
	Unclaimed bool
	Profile   string
}

// UnitReport says what an import did, in the order of the file.
type UnitReport struct {
	Added    []AddedUnit
	Existing []string // serials that were known already; nothing of them was changed
}

// AddedUnit is one new unit with its device.
type AddedUnit struct {
	Serial string
	Added
}

// AddUnits adds the units of a CSV file and a device for each. The first line
// names the columns: serial, and if wanted label (default: the serial), profile
// and owner (a name or an id; empty: the default). It is all or nothing, and a
// serial that is known already is left as it is, so the same file may be sent
// again. Errors name the line.
func (c *Custody) AddUnits(ctx context.Context, by holdfast.CredentialID, file io.Reader, d UnitDefaults) (UnitReport, error) {
	rows, err := readUnits(file)
	if err != nil {
		return UnitReport{}, err
	}
	var report UnitReport
	var plans []*plan
	labels := make(map[string]int)
	parties := make(map[string]holdfast.PartyID)
	for _, row := range rows {
		hash, err := c.serialHash(ctx, row.serial)
		if err != nil {
			return UnitReport{}, err
		}
		known, err := c.unitBySerial(ctx, hash)
		if err != nil {
			return UnitReport{}, err
		}
		if !known.IsZero() {
			report.Existing = append(report.Existing, row.serial)
			continue
		}
		p, err := c.planRow(ctx, row, d, parties)
		if err != nil {
			return UnitReport{}, atLine(row.line, err)
		}
		key := p.Device.Owner.String() + p.Device.Label
		if first, twice := labels[key]; twice {
			return UnitReport{}, holdfast.Errorf(holdfast.Invalid, "line %d: the label stands in line %d already", row.line, first)
		}
		labels[key] = row.line
		if err := c.db.Read(ctx, func(tx *sql.Tx) error { return p.clash(ctx, tx) }); err != nil {
			return UnitReport{}, atLine(row.line, err)
		}
		plans = append(plans, p)
		report.Added = append(report.Added, AddedUnit{Serial: row.serial, Added: p.Added})
	}
	if err := c.writeUnits(ctx, by, plans, report.Added); err != nil {
		return UnitReport{}, err
	}
	return report, nil
}

func (c *Custody) writeUnits(ctx context.Context, by holdfast.CredentialID, plans []*plan, report []AddedUnit) error {
	if len(plans) == 0 {
		return nil
	}
	g, sealing := errgroup.WithContext(ctx)
	g.SetLimit(8) // each waits for a sync of its owner key; several may share one
	for _, p := range plans {
		g.Go(func() error { return c.sealDevice(sealing, p) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		return c.insertAll(ctx, tx, by, plans, report)
	})
}

// insertAll adds several devices, with one addition to the ledger.
func (c *Custody) insertAll(ctx context.Context, tx *sql.Tx, by holdfast.CredentialID, plans []*plan, report []AddedUnit) error {
	events := make([]ledger.Happening, len(plans))
	for i, p := range plans {
		if err := p.insert(ctx, tx); err != nil {
			return err
		}
		events[i] = ledger.Happening{About: p.record(), Kind: "device added", Data: p.event(by)}
	}
	if _, err := c.ledger.AppendAll(ctx, tx, events); err != nil {
		return err
	}
	for i, p := range plans {
		if err := c.barPast(ctx, tx, p); err != nil {
			return err
		}
		report[i].Added = p.Added
	}
	return nil
}

func (c *Custody) planRow(ctx context.Context, row unitLine, d UnitDefaults, parties map[string]holdfast.PartyID) (*plan, error) {
	spec := DeviceSpec{Label: row.label, Owner: d.Owner, Unclaimed: d.Unclaimed, Profile: row.profile, Serial: row.serial}
	if spec.Label == "" {
		spec.Label = row.serial
	}
	if spec.Profile == "" {
		spec.Profile = d.Profile
	}
	if row.owner != "" {
		id, ok := parties[row.owner]
		if !ok {
			p, err := c.ResolveParty(ctx, row.owner)
			if err != nil {
				return nil, err
			}
			id = p.ID
			parties[row.owner] = id
		}
		spec.Owner, spec.Unclaimed = id, false
	}
	return c.planDevice(ctx, spec)
}

type unitLine struct {
	line                          int
	serial, label, profile, owner string
}

// readUnits reads the file strictly: known columns only, each once, no serial
// twice.
func readUnits(file io.Reader) ([]unitLine, error) {
	limited := &io.LimitedReader{R: file, N: unitFileMax + 1}
	r := csv.NewReader(limited)
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, holdfast.Errorf(holdfast.Invalid, "line 1: the file is empty; it begins with the names of its columns: serial, label, profile, owner")
	}
	if err != nil {
		return nil, csvError(err)
	}
	header[0] = trimMark(header[0])
	for i, name := range header {
		if !slices.Contains([]string{"serial", "label", "profile", "owner"}, name) {
			return nil, holdfast.Errorf(holdfast.Invalid, "line 1: column %d is none of serial, label, profile, owner", i+1)
		}
		if slices.Contains(header[:i], name) {
			return nil, holdfast.Errorf(holdfast.Invalid, "line 1: column %s stands there twice", name)
		}
	}
	if !slices.Contains(header, "serial") {
		return nil, holdfast.Errorf(holdfast.Invalid, "line 1: there is no column serial")
	}
	var rows []unitLine
	seen := make(map[string]int)
	for {
		fields, err := r.Read()
		if limited.N <= 0 {
			return nil, holdfast.Errorf(holdfast.TooLarge, "the file has more than %d bytes", unitFileMax)
		}
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, csvError(err)
		}
		if len(rows) == maxUnits {
			return nil, holdfast.Errorf(holdfast.TooLarge, "the file has more than %d units: split it", maxUnits)
		}
		var u unitLine
		u.line, _ = r.FieldPos(0)
		for i, name := range header {
			*map[string]*string{"serial": &u.serial, "label": &u.label, "profile": &u.profile, "owner": &u.owner}[name] = fields[i]
		}
		if err := holdfast.CheckName("serial", u.serial); err != nil {
			return nil, atLine(u.line, err)
		}
		if first, twice := seen[u.serial]; twice {
			return nil, holdfast.Errorf(holdfast.Invalid, "line %d: the serial stands in line %d already", u.line, first)
		}
		seen[u.serial] = u.line
		rows = append(rows, u)
	}
}

// trimMark takes off the byte order mark that spreadsheets write.
func trimMark(s string) string {
	const mark = "\ufeff"
	if len(s) >= len(mark) && s[:len(mark)] == mark {
		return s[len(mark):]
	}
	return s
}

func atLine(line int, err error) error {
	if holdfast.KindOf(err) == holdfast.Internal {
		return fmt.Errorf("line %d: %w", line, err)
	}
	return holdfast.Errorf(holdfast.KindOf(err), "line %d: %w", line, err)
}

func csvError(err error) error {
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return holdfast.Errorf(holdfast.Invalid, "line %d: %w", e.Line, e.Err)
	}
	return fmt.Errorf("read units: %w", err)
}
