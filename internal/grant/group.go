package grant

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Group is devices that a recipient asks about together, declared once: neither its
// devices nor its windows change.
type Group struct {
	ID    holdfast.GroupID
	Party holdfast.PartyID // the recipient whose it is
	GroupSpec
	Made  time.Time
	Ended time.Time // zero until then
}

// GroupSpec says what a group is.
type GroupSpec struct {
	Name    string
	Devices []holdfast.DeviceID // whether there are such devices is not looked up
	Every   string              // the length of its windows, one of GroupWindows
	Zone    string              // of days, weeks and months: a name of the IANA database
}

// MaxGroupDevices is how many devices a group has at most.
const MaxGroupDevices = 100_000

// maxGroups is how many groups a party has that have not ended.
const maxGroups = 1000

// maxDeclared is how many devices are in all groups of a party together that have not
// ended: they are read to list them.
const maxDeclared = 5 * MaxGroupDevices

// GroupWindows are the lengths that a group's windows can have: they divide a day, or
// are as the calendar has them.
func GroupWindows() []string {
	return []string{"1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d", "1w", "1mo"}
}

type groupInfo struct {
	Name    string                `json:"name"`
	Devices []byte                `json:"devices"` // one id after the other, sorted
	Every   string                `json:"every"`
	Zone    string                `json:"zone"`
	Made    int64                 `json:"made"`
	Ended   int64                 `json:"ended,omitempty"`
	By      holdfast.CredentialID `json:"by"`
}

func (s *GroupSpec) check() error {
	if err := holdfast.CheckName("group", s.Name); err != nil {
		return err
	}
	_, notID := holdfast.ParseID[holdfast.GroupID](s.Name)
	switch {
	case notID == nil:
		return holdfast.Errorf(holdfast.Invalid, "a group's name does not look like an id")
	case len(s.Devices) == 0:
		return holdfast.Errorf(holdfast.Invalid, "a group has devices")
	case len(s.Devices) > MaxGroupDevices:
		return holdfast.Errorf(holdfast.TooLarge, "a group has at most %d devices", MaxGroupDevices)
	case !slices.Contains(GroupWindows(), s.Every):
		return holdfast.Errorf(holdfast.Invalid, "a group's windows are of 1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 1w or 1mo")
	}
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "" || zone == time.Local {
		return holdfast.Errorf(holdfast.Invalid, "a group's time zone is named as in the IANA database: Europe/Warsaw, UTC")
	}
	return nil
}

// AddGroup declares a group of a party.
func (r *Register) AddGroup(ctx context.Context, by holdfast.CredentialID, party holdfast.PartyID, s GroupSpec) (Group, error) {
	if s.Zone == "" {
		s.Zone = "UTC"
	}
	s.Devices = slices.Clone(s.Devices)
	slices.SortFunc(s.Devices, func(a, b holdfast.DeviceID) int { return slices.Compare(a[:], b[:]) })
	s.Devices = slices.Compact(s.Devices)
	if err := s.check(); err != nil {
		return Group{}, err
	}
	r.declaring.Lock()
	defer r.declaring.Unlock()
	have, err := r.Groups(ctx, party)
	if err != nil {
		return Group{}, err
	}
	live, devices := 0, len(s.Devices)
	for _, g := range have {
		if !g.Ended.IsZero() {
			continue
		}
		devices += len(g.Devices)
		if live++; g.Name == s.Name {
			return Group{}, holdfast.Errorf(holdfast.Conflict, "there is a group of this name: end it or take another name")
		}
	}
	if live >= maxGroups {
		return Group{}, holdfast.Errorf(holdfast.TooLarge, "a party has at most %d groups: end some", maxGroups)
	}
	if devices > maxDeclared {
		return Group{}, holdfast.Errorf(holdfast.TooLarge, "the groups of a party have at most %d devices together: end some", maxDeclared)
	}
	g := Group{ID: holdfast.NewID[holdfast.GroupID](), Party: party, GroupSpec: s, Made: r.now().UTC()}
	return g, r.writeGroup(ctx, by, g, `INSERT INTO device_group (state, info_sealed, id, party) VALUES ($1, $2, $3, $4)`, "group declared")
}

// EndGroup ends a group: nothing is asked of it any more. What was answered of it
// stays remembered.
func (r *Register) EndGroup(ctx context.Context, by holdfast.CredentialID, id holdfast.GroupID) error {
	g, err := r.Group(ctx, id)
	if err != nil {
		return err
	}
	if !g.Ended.IsZero() {
		return holdfast.Errorf(holdfast.Conflict, "the group has ended already")
	}
	g.Ended = r.now().UTC()
	return r.writeGroup(ctx, by, g, `UPDATE device_group SET state = $1, info_sealed = $2 WHERE id = $3 AND party = $4 AND state = 'active'`, "group ended")
}

func (r *Register) writeGroup(ctx context.Context, by holdfast.CredentialID, g Group, statement, event string) error {
	info := groupInfo{Name: g.Name, Every: g.Every, Zone: g.Zone, Made: g.Made.UnixNano(), Ended: holdfast.Nanoseconds(g.Ended), By: by}
	owner, state := vault.OfParty(g.Party), "active"
	if g.Ended.IsZero() {
		for _, d := range g.Devices {
			info.Devices = append(info.Devices, d[:]...)
		}
	} else { // which devices they were is of no use any more
		state = "ended"
	}
	box, err := r.seal(ctx, owner, "device_group", g.ID[:], info)
	if err != nil {
		return err
	}
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, statement, state, box, g.ID, g.Party)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, holdfast.Errorf(holdfast.Conflict, "the group has ended already"))
		}
		_, err = r.ledger.Append(ctx, tx, owner, event, struct {
			Group   holdfast.GroupID      `json:"group"`
			Name    string                `json:"name"`
			Devices int                   `json:"devices"`
			Every   string                `json:"every"`
			Zone    string                `json:"zone"`
			By      holdfast.CredentialID `json:"by"`
		}{g.ID, g.Name, len(g.Devices), g.Every, g.Zone, by})
		return err
	})
}

// Group returns a group by its id. Whom it concerns is for the caller to check.
func (r *Register) Group(ctx context.Context, id holdfast.GroupID) (Group, error) {
	all, err := r.groups(ctx, `id = $1`, id)
	if err != nil {
		return Group{}, err
	}
	if len(all) == 0 {
		return Group{}, holdfast.Errorf(holdfast.NotFound, "there is no such group")
	}
	return all[0], nil
}

// Groups returns the groups of a party, the newest first, ended ones included.
func (r *Register) Groups(ctx context.Context, party holdfast.PartyID) ([]Group, error) {
	return r.groups(ctx, `party = $1`, party)
}

func (r *Register) groups(ctx context.Context, where string, args ...any) ([]Group, error) {
	type row struct {
		id    holdfast.GroupID
		party holdfast.PartyID
		box   []byte
	}
	rows, err := catalog.Rows(ctx, r.db, func(q *sql.Rows) (w row, err error) {
		return w, q.Scan(&w.id, &w.party, &w.box)
	}, `SELECT id, party, info_sealed FROM device_group WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Group, 0, len(rows))
	for _, w := range rows {
		var i groupInfo
		switch err := r.open(ctx, vault.OfParty(w.party), "device_group", w.id[:], w.box, &i); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, err
		}
		g := Group{ID: w.id, Party: w.party, GroupSpec: GroupSpec{Name: i.Name, Every: i.Every, Zone: i.Zone}, Made: holdfast.Instant(i.Made), Ended: holdfast.Instant(i.Ended)}
		for d := range slices.Chunk(i.Devices, holdfast.IDSize) {
			g.Devices = append(g.Devices, holdfast.DeviceID(d))
		}
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b Group) int { return cmp.Or(b.Made.Compare(a.Made), slices.Compare(a.ID[:], b.ID[:])) })
	return all, nil
}
