package custody

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Device is a unit in one owner's hands.
type Device struct {
	ID             holdfast.DeviceID
	Unit           holdfast.UnitID // zero: no serial was given
	Assignment     holdfast.AssignmentID
	Owner          holdfast.PartyID // zero: unclaimed or erased
	Subject        holdfast.PartyID // whom the readings are about, if another than the owner
	Label          string           // the operator's name for it
	Profile        string           // "": an open device
	ProfileVersion int
	Gateway        holdfast.DeviceID // of a declared child
	Child          string            // what the gateway calls it
	State          string            // Unclaimed, Active, Closed or Erased
	Added          time.Time
}

type deviceInfo struct {
	Label          string `json:"label"`
	Profile        string `json:"profile,omitempty"`
	ProfileVersion int    `json:"profile_version,omitempty"`
	Child          string `json:"child,omitempty"`
	Added          int64  `json:"added"`
}

// DeviceSpec says what device to add.
type DeviceSpec struct {
	Label     string
	Owner     holdfast.PartyID  // zero: the operating organisation, unless Unclaimed
	Unclaimed bool              // nobody's until its claim code is used
	Subject   holdfast.PartyID  // whom the readings are about, if another than the owner
	Profile   string            // "": an open device; its newest version is taken
	Gateway   holdfast.DeviceID // for a declared child, whose Label the gateway uses to name it
	Serial    string            // of the unit, if it is known
}

// Added is a new device and, if it is unclaimed, the code that makes a party its
// owner. The code is stored hashed: it is shown now or never.
type Added struct {
	Device    Device
	ClaimCode string
	// TakesFrom: readings from before it are not taken, since something was erased that
	// came from where these do. Zero: any are.
	TakesFrom time.Time
}

// AddDevice adds a device. It has an assignment from the start, so that it may
// get its certificate before somebody claims it.
func (c *Custody) AddDevice(ctx context.Context, by holdfast.CredentialID, spec DeviceSpec) (Added, error) {
	p, err := c.planDevice(ctx, spec)
	if err != nil {
		return Added{}, err
	}
	if err := c.db.Read(ctx, func(tx *sql.Tx) error { return p.clash(ctx, tx) }); err != nil { // before a key is made for nothing
		return Added{}, err
	}
	if err := c.sealDevice(ctx, p); err != nil {
		return Added{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		if err := p.insert(ctx, tx); err != nil {
			return err
		}
		if _, err := c.ledger.Append(ctx, tx, p.record(), "device added", p.event(by)); err != nil {
			return err
		}
		return c.barPast(ctx, tx, p)
	})
	if err != nil {
		return Added{}, err
	}
	return p.Added, nil
}

// deviceEvent is what the ledger records of a device: ids, so that the record of
// its owner tells nothing of it when the device itself is erased.
type deviceEvent struct {
	Device     holdfast.DeviceID     `json:"device"`
	Assignment holdfast.AssignmentID `json:"assignment"`
	By         holdfast.CredentialID `json:"by"`
}

// addedEvent also says whose the data are, if not the owner's: it decides who reads.
type addedEvent struct {
	deviceEvent
	Subject holdfast.PartyID `json:"subject,omitzero"`
}

func (p *plan) event(by holdfast.CredentialID) addedEvent {
	return addedEvent{deviceEvent{p.Device.ID, p.Device.Assignment, by}, p.Device.Subject}
}

// plan is a device on its way into the catalog.
type plan struct {
	Added
	serial     string
	serialHash []byte
	sources    []Source // of what may have been erased
	newUnit    bool
	labelHash  []byte
	childHash  []byte
	codeHash   []byte
	unitBox    []byte
	deviceBox  []byte
	assignBox  []byte
}

// record is whose record the device's events go to.
func (p *plan) record() vault.Owner { return recordOf(p.Device.Owner) }

func recordOf(owner holdfast.PartyID) vault.Owner {
	if owner.IsZero() {
		return vault.Hub
	}
	return vault.OfParty(owner)
}

// planDevice checks a spec and makes what needs no owner key.
func (c *Custody) planDevice(ctx context.Context, spec DeviceSpec) (*plan, error) {
	if err := checkName("device", spec.Label); err != nil {
		return nil, err
	}
	d := Device{Label: spec.Label, Owner: spec.Owner, Subject: spec.Subject, Gateway: spec.Gateway, State: Active, Added: c.now().UTC()}
	d.ID, d.Assignment = holdfast.NewID[holdfast.DeviceID](), holdfast.NewID[holdfast.AssignmentID]()
	switch {
	case spec.Unclaimed && !(spec.Owner.IsZero() && spec.Subject.IsZero()):
		return nil, holdfast.Errorf(holdfast.Invalid, "an unclaimed device has no owner and no data subject")
	case spec.Unclaimed:
		d.State = Unclaimed
	case spec.Owner.IsZero():
		operating, err := c.Operating(ctx)
		if err != nil {
			return nil, err
		}
		d.Owner = operating
	}
	for _, id := range []holdfast.PartyID{spec.Owner, spec.Subject} {
		if id.IsZero() {
			continue
		}
		if err := c.livingParty(ctx, id); err != nil {
			return nil, err
		}
	}
	if d.Subject == d.Owner {
		d.Subject = holdfast.PartyID{}
	}
	if spec.Profile != "" {
		profile, err := c.ProfileByName(ctx, spec.Profile)
		if err != nil {
			return nil, err
		}
		d.Profile, d.ProfileVersion = profile.Name, profile.Version
	}
	p := &plan{Added: Added{Device: d}, serial: spec.Serial}
	if err := c.planLinks(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// planLinks looks up what a device is joined to and makes its hashes.
func (c *Custody) planLinks(ctx context.Context, p *plan) error {
	d := &p.Device
	var err error
	if p.labelHash, err = c.labelHash(ctx, d.Label); err != nil {
		return err
	}
	if !d.Gateway.IsZero() {
		g, err := c.Device(ctx, d.Gateway)
		if err != nil {
			return err
		}
		if !g.Gateway.IsZero() {
			return holdfast.Errorf(holdfast.Invalid, "a declared child can't be a gateway")
		}
		if g.State != Active && g.State != Unclaimed {
			return holdfast.Errorf(holdfast.Conflict, "gateway %s is %s", g.ID, g.State)
		}
		d.Child = d.Label
		if p.childHash, err = c.childHash(ctx, d.Gateway, d.Child); err != nil {
			return err
		}
	}
	if p.serial != "" {
		if err := c.planUnit(ctx, p); err != nil {
			return err
		}
	}
	if p.sources, err = c.sourcesOf(ctx, *d, p.serial); err != nil {
		return err
	}
	if d.State == Unclaimed {
		p.ClaimCode, p.codeHash, err = c.newCode(ctx)
	}
	return err
}

// sealDevice gives the device's assignment its owner key and seals its rows.
func (c *Custody) sealDevice(ctx context.Context, p *plan) error {
	d := p.Device
	o := vault.OfAssignment(d.Assignment)
	if err := c.keys.AddOwner(ctx, o); err != nil {
		return err
	}
	var err error
	if p.deviceBox, err = c.seal(ctx, o, "device", d.ID[:], d.info()); err != nil {
		return err
	}
	var info assignmentInfo
	if d.State == Active {
		info.From = d.Added.UnixNano()
	}
	if p.assignBox, err = c.seal(ctx, o, "assignment", d.Assignment[:], info); err != nil {
		return err
	}
	if p.newUnit {
		p.unitBox, err = c.seal(ctx, vault.Hub, "unit", d.Unit[:], unitInfo{Serial: p.serial, Added: d.Added.UnixNano()})
	}
	return err
}

// clash refuses a device whose label, child name or unit is in use.
func (p *plan) clash(ctx context.Context, tx *sql.Tx) error {
	d := p.Device
	checks := []struct {
		why, query string
		args       []any
	}{
		{"the owner has a device of this label already",
			`SELECT count(*) FROM device WHERE owner = $1 AND label_hash = $2 AND state = 'active'`, []any{d.Owner, p.labelHash}},
		{"the gateway has a child of this name already",
			`SELECT count(*) FROM device WHERE child_hash = $1`, []any{p.childHash}},
		{"the unit of this serial is a device in somebody's hands: close that one first",
			`SELECT count(*) FROM device WHERE unit = $1 AND state IN ('active', 'unclaimed')`, []any{d.Unit}},
	}
	if d.State == Unclaimed {
		checks[0].why = "there is an unclaimed device of this label already"
		checks[0].query, checks[0].args = `SELECT count(*) FROM device WHERE label_hash = $1 AND state = 'unclaimed'`, []any{p.labelHash}
	}
	for _, k := range checks {
		used, err := exists(ctx, tx, k.query, k.args...)
		if err != nil {
			return err
		}
		if used {
			return holdfast.Errorf(holdfast.Conflict, "%s", k.why)
		}
	}
	return nil
}

func (p *plan) insert(ctx context.Context, tx *sql.Tx) error {
	d := p.Device
	if err := stillLiving(ctx, tx, d.Owner, d.Subject); err != nil {
		return err
	}
	if err := p.clash(ctx, tx); err != nil {
		return err
	}
	if p.newUnit {
		if _, err := tx.ExecContext(ctx, `INSERT INTO unit (id, serial_hash, info_sealed) VALUES ($1, $2, $3)`,
			d.Unit, p.serialHash, p.unitBox); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO assignment (id, device, owner, subject, state, info_sealed) VALUES ($1, $2, $3, $4, $5, $6)`,
		d.Assignment, d.ID, d.Owner, d.Subject, d.State, p.assignBox); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO device (id, assignment, owner, unit, gateway, label_hash, child_hash, state, info_sealed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		d.ID, d.Assignment, d.Owner, d.Unit, d.Gateway, p.labelHash, p.childHash, d.State, p.deviceBox); err != nil {
		return err
	}
	if p.codeHash == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO claim_code (device, code_hash) VALUES ($1, $2)`, d.ID, p.codeHash)
	return err
}

func (d Device) info() deviceInfo {
	return deviceInfo{Label: d.Label, Profile: d.Profile, ProfileVersion: d.ProfileVersion, Child: d.Child, Added: d.Added.UnixNano()}
}

// labelHash has no owner in it: a label is looked up whoever's it is. Equal
// labels of two owners can therefore be seen to be equal, while both exist.
func (c *Custody) labelHash(ctx context.Context, label string) ([]byte, error) {
	return c.keys.Hash(ctx, "device label", label)
}

type deviceRow struct {
	Device
	box []byte
}

func (c *Custody) devices(ctx context.Context, where string, args ...any) ([]Device, error) {
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r deviceRow, err error) {
		return r, q.Scan(&r.ID, &r.Unit, &r.Assignment, &r.Owner, &r.Subject, &r.Gateway, &r.State, &r.box)
	}, `SELECT d.id, d.unit, d.assignment, d.owner, a.subject, d.gateway, d.state, d.info_sealed
			FROM device d JOIN assignment a ON a.id = d.assignment WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Device, 0, len(rows))
	for _, r := range rows {
		d := r.Device
		if k := c.known(d.Assignment); k != nil && k.device.ID == d.ID && k.device.State == d.State {
			d = k.device
		} else if d.State != Erased {
			var info deviceInfo
			switch err := c.open(ctx, vault.OfAssignment(d.Assignment), "device", d.ID[:], r.box, &info); {
			case vault.Gone(err):
				d.State = Erased
			case err != nil:
				return nil, err
			}
			d.Label, d.Profile, d.ProfileVersion, d.Child = info.Label, info.Profile, info.ProfileVersion, info.Child
			d.Added = time.Unix(0, info.Added).UTC()
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Device) int {
		if c := cmp.Compare(a.Label, b.Label); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return all, nil
}

func (c *Custody) living(ctx context.Context, where string, args ...any) ([]Device, error) {
	all, err := c.devices(ctx, where, args...)
	return slices.DeleteFunc(all, func(d Device) bool { return d.State == Erased }), err
}

// Device returns a device, an erased one with ids and state alone. What is known of
// it is in memory after the first question.
func (c *Custody) Device(ctx context.Context, id holdfast.DeviceID) (Device, error) {
	if r, err := c.route(ctx, id); err == nil {
		return r.device, nil
	}
	return c.readDevice(ctx, id)
}

func (c *Custody) readDevice(ctx context.Context, id holdfast.DeviceID) (Device, error) {
	all, err := c.devices(ctx, `d.id = $1`, id)
	if err != nil {
		return Device{}, err
	}
	if len(all) == 0 {
		return Device{}, holdfast.Errorf(holdfast.NotFound, "there is no such device")
	}
	return all[0], nil
}

// Devices returns the devices of an owner by label, closed ones included; for the
// zero party, those that nobody has claimed.
func (c *Custody) Devices(ctx context.Context, owner holdfast.PartyID) ([]Device, error) {
	if owner.IsZero() {
		return c.living(ctx, `d.state = $1`, Unclaimed)
	}
	return c.living(ctx, `d.owner = $1`, owner)
}

// AllDevices returns every device that is not erased, by label.
func (c *Custody) AllDevices(ctx context.Context) ([]Device, error) {
	return c.living(ctx, `d.state <> $1`, Erased)
}

// CountUnclaimed returns how many devices wait for an owner.
func (c *Custody) CountUnclaimed(ctx context.Context) (n int, err error) {
	err = c.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM device WHERE state = $1`, Unclaimed).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("count unclaimed devices: %w", err)
	}
	return n, nil
}

// Children returns a gateway's declared children by label.
func (c *Custody) Children(ctx context.Context, gateway holdfast.DeviceID) ([]Device, error) {
	return c.living(ctx, `d.gateway = $1`, gateway)
}

// DeviceByLabel returns the owner's device of that label; a closed one only if no
// other has it.
func (c *Custody) DeviceByLabel(ctx context.Context, owner holdfast.PartyID, label string) (Device, error) {
	hash, err := c.labelHash(ctx, label)
	if err != nil {
		return Device{}, err
	}
	return oneDevice(c.living(ctx, `d.owner = $1 AND d.label_hash = $2`, owner, hash))
}

// ResolveDevice returns the device that a label or an id means. Two owners may
// use one label: then it is a Conflict, and only the id will do.
func (c *Custody) ResolveDevice(ctx context.Context, labelOrID string) (Device, error) {
	if id, bad := holdfast.ParseID[holdfast.DeviceID](labelOrID); bad == nil {
		return oneDevice(c.living(ctx, `d.id = $1`, id))
	}
	hash, err := c.labelHash(ctx, labelOrID)
	if err != nil {
		return Device{}, err
	}
	return oneDevice(c.living(ctx, `d.label_hash = $1`, hash))
}

// oneDevice picks the one that is meant: those in use go before closed ones.
func oneDevice(all []Device, err error) (Device, error) {
	if err != nil {
		return Device{}, err
	}
	inUse := slices.DeleteFunc(slices.Clone(all), func(d Device) bool { return d.State == Closed })
	for _, some := range [][]Device{inUse, all} {
		switch len(some) {
		case 0:
		case 1:
			return some[0], nil
		default:
			return Device{}, holdfast.Errorf(holdfast.Conflict, "%d devices have this label: use the id", len(some))
		}
	}
	return Device{}, holdfast.Errorf(holdfast.NotFound, "there is no such device")
}
