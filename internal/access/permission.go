package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/policy"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

const (
	permissionLife    = 4 * time.Hour // if nothing else is asked for
	maxPermissionLife = 7 * day
	maxPermissionWait = 30 * day // until it begins
	maxAsked          = 100      // undecided ones about one party
	maxReason         = 500      // bytes
	maxDevices        = 100
	// strangers is how old what one credential has to do with another must be, so
	// that one's holder is taken for another person than the other's.
	strangers = 30 * day
)

// States of a permission; the numbers stand in the catalog.
const (
	permissionAsked    = 1
	permissionApproved = 2
	permissionRefused  = 3
	permissionEnded    = 4
)

var permissionStates = [...]string{"", "asked", "approved", "refused", "ended"}

// PermissionSpec is what an administrator asks for.
type PermissionSpec struct {
	Whose       holdfast.PartyID
	Purpose     holdfast.Purpose // that it is live is the caller's to know
	Reason      string           // for the owner, in words
	Devices     []holdfast.DeviceID
	From, Until time.Time // default: now, and 4 hours later; at most 7 days
}

// Permission is the word of a second person that staff may read one party's data
// for a while, and the asking for it.
type Permission struct {
	ID          holdfast.PermissionID
	State       string // "asked", "approved", "refused", "ended", "over"
	AskedBy     holdfast.CredentialID
	Asked       time.Time
	DecidedBy   holdfast.CredentialID // zero: nobody yet
	DecidedRole string                // "owner", "administrator", "auditor"
	Decided     time.Time
	EndedBy     holdfast.CredentialID
	EndedRole   string
	Ended       time.Time
	PermissionSpec
}

// permissionAbout is the sealed part.
type permissionAbout struct {
	Purpose     holdfast.Purpose      `json:"purpose"`
	Reason      string                `json:"reason"`
	Devices     []holdfast.DeviceID   `json:"devices,omitempty"`
	From        time.Time             `json:"from"`
	Until       time.Time             `json:"until"`
	Asked       time.Time             `json:"asked"`
	DecidedBy   holdfast.CredentialID `json:"decided_by,omitzero"`
	DecidedRole string                `json:"decided_role,omitempty"`
	Decided     time.Time             `json:"decided,omitzero"`
	EndedBy     holdfast.CredentialID `json:"ended_by,omitzero"`
	EndedRole   string                `json:"ended_role,omitempty"`
	Ended       time.Time             `json:"ended,omitzero"`
}

// permission is a row of the catalog, opened.
type permission struct {
	id      holdfast.PermissionID
	whose   holdfast.PartyID
	state   int
	askedBy holdfast.CredentialID
	asker   holdfast.CredentialID
	about   permissionAbout
	box     []byte
}

// PermissionChanged is the ledger's payload of "permission asked", "permission
// approved", "permission refused" and "permission ended" on the record of the one
// whose data it is.
type PermissionChanged struct {
	Permission holdfast.PermissionID `json:"permission"`
	By         holdfast.CredentialID `json:"by"`
	Role       Role                  `json:"role"`
	Purpose    holdfast.Purpose      `json:"purpose"`
	Reason     string                `json:"reason"`
	Devices    []holdfast.DeviceID   `json:"devices,omitempty"`
	From       time.Time             `json:"from"`
	Until      time.Time             `json:"until"`
	At         time.Time             `json:"at"`
}

// StaffPermission is the same on the operating organisation's own record: ids only.
type StaffPermission struct {
	Permission holdfast.PermissionID `json:"permission"`
	Whose      holdfast.PartyID      `json:"whose"`
	By         holdfast.CredentialID `json:"by"`
	Role       Role                  `json:"role"`
	At         time.Time             `json:"at"`
}

const (
	permissionTable   = "access_permission"
	permissionColumns = `id, whose, state, asked_by, asker, about_sealed`
)

// AskPermission is an administrator's wish to read a party's data. It allows nothing
// until somebody else approves it, and is on that party's record at once.
func (a *Access) AskPermission(ctx context.Context, by Principal, s PermissionSpec) (Permission, error) {
	now := a.now().UTC().Truncate(time.Second)
	s, err := a.checkPermission(ctx, by, s, now)
	if err != nil {
		return Permission{}, err
	}
	p := &permission{id: holdfast.NewID[holdfast.PermissionID](), whose: s.Whose, state: permissionAsked, askedBy: by.Credential, asker: by.Holder,
		about: permissionAbout{Purpose: s.Purpose, Reason: s.Reason, Devices: s.Devices, From: s.From, Until: s.Until, Asked: now}}
	if err := a.sealPermission(ctx, p); err != nil {
		if holdfast.KindOf(err) == holdfast.NotFound {
			return Permission{}, holdfast.Errorf(holdfast.NotFound, "there is no such party")
		}
		return Permission{}, err
	}
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		var open int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM access_permission WHERE whose = $1 AND state = $2`, p.whose, permissionAsked).Scan(&open); err != nil {
			return err
		}
		if open >= maxAsked {
			return holdfast.Errorf(holdfast.TooLarge, "%d permissions are asked for about this party and not decided: end some", open)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO access_permission (`+permissionColumns+`) VALUES ($1, $2, $3, $4, $5, $6)`,
			p.id, p.whose, p.state, p.askedBy, p.asker, p.box)
		if err != nil {
			return err
		}
		return a.recordPermission(ctx, tx, p, by, by.Party, "permission asked", now)
	})
	if err != nil {
		return Permission{}, fmt.Errorf("ask for permission: %w", err)
	}
	return p.show(now), nil
}

func (a *Access) checkPermission(ctx context.Context, by Principal, s PermissionSpec, now time.Time) (PermissionSpec, error) {
	if err := a.worksHere(ctx, by, Administrator); err != nil {
		return s, err
	}
	if s.From.IsZero() {
		s.From = now
	}
	if s.Until.IsZero() {
		s.Until = s.From.Add(permissionLife)
	}
	s.From, s.Until = s.From.UTC(), s.Until.UTC()
	switch {
	case s.Whose.IsZero() || s.Whose == by.Party:
		return s, holdfast.Errorf(holdfast.Invalid, "a permission is for another party's data: the operating organisation's own are read by role")
	case !by.MayName(s.Purpose):
		return s, holdfast.Errorf(holdfast.Invalid, "a permission has a purpose, and own-access is none for staff")
	case s.Reason == "" || len(s.Reason) > maxReason || !utf8.ValidString(s.Reason):
		return s, holdfast.Errorf(holdfast.Invalid, "a permission has a reason that its owner can understand, of at most %d bytes", maxReason)
	case slices.ContainsFunc([]rune(s.Reason), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }):
		return s, holdfast.Errorf(holdfast.Invalid, "the reason has characters that can't be printed")
	case len(s.Devices) > maxDevices:
		return s, holdfast.Errorf(holdfast.Invalid, "a permission names at most %d devices; none is all", maxDevices)
	case s.From.Before(now.Add(-time.Minute)) || s.From.After(now.Add(maxPermissionWait)):
		return s, holdfast.Errorf(holdfast.Invalid, "a permission begins now or within %d days", maxPermissionWait/day)
	case !s.Until.After(s.From) || !s.Until.After(now):
		return s, holdfast.Errorf(holdfast.Invalid, "a permission ends after it begins")
	case s.Until.Sub(s.From) > maxPermissionLife:
		return s, holdfast.Errorf(holdfast.Invalid, "a permission lasts at most %d days: ask again then", maxPermissionLife/day)
	}
	return s, nil
}

// worksHere refuses who is not of the operating organisation's staff in one of these
// roles, or may change nothing.
func (a *Access) worksHere(ctx context.Context, by Principal, roles ...Role) error {
	if !by.Can(ScopeWrite) {
		return errReadOnly()
	}
	if !slices.Contains(roles, by.Role) || a.operating == nil {
		return holdfast.Errorf(holdfast.Denied, "this is for the operating organisation's staff")
	}
	operating, err := a.operating(ctx)
	if err != nil {
		return fmt.Errorf("find operating organisation: %w", err)
	}
	if by.Party != operating {
		return holdfast.Errorf(holdfast.Denied, "this is for the operating organisation's staff")
	}
	return nil
}

// DecidePermission approves or refuses what an administrator asked for: the one whose
// data it is, or another person of the staff, each with a settled credential to
// approve. Who asked can't approve, nor can a credential that has to do with his and
// came about within the last 30 days.
func (a *Access) DecidePermission(ctx context.Context, by Principal, id holdfast.PermissionID, approve bool) (Permission, error) {
	p, err := a.permissionFor(ctx, by, id)
	if err != nil {
		return Permission{}, err
	}
	now := a.now().UTC().Truncate(time.Second)
	if p.state != permissionAsked || !now.Before(p.about.Until) {
		return Permission{}, errDecided(p.show(now).State)
	}
	to, kind := permissionRefused, "permission refused"
	if approve {
		to, kind = permissionApproved, "permission approved"
		if err := errors.Join(by.inPerson(), by.MustBeSettled()); err != nil {
			return Permission{}, err
		}
		if by.Role.staff() {
			if err := a.anotherPerson(ctx, by, p.asker, a.now()); err != nil {
				return Permission{}, err
			}
		}
	}
	p.about.DecidedBy, p.about.DecidedRole, p.about.Decided = by.Credential, by.Role.String(), now
	if err := a.movePermission(ctx, p, by, permissionAsked, to, kind, now); err != nil {
		return Permission{}, fmt.Errorf("decide permission: %w", err)
	}
	return p.show(now), nil
}

func errDecided(state string) error {
	return holdfast.Errorf(holdfast.Conflict, "the permission is %s: a new one must be asked for", state)
}

// EndPermission takes a permission back, or the wish for one: the one whose data it
// is with any credential of his own, or anybody of the staff. What reads under it
// breaks off.
func (a *Access) EndPermission(ctx context.Context, by Principal, id holdfast.PermissionID) error {
	p, err := a.permissionFor(ctx, by, id)
	if err != nil {
		return err
	}
	now := a.now().UTC().Truncate(time.Second)
	if p.state != permissionAsked && p.state != permissionApproved {
		return errDecided(p.show(now).State)
	}
	p.about.EndedBy, p.about.EndedRole, p.about.Ended = by.Credential, by.Role.String(), now
	if err := a.movePermission(ctx, p, by, p.state, permissionEnded, "permission ended", now); err != nil {
		return fmt.Errorf("end permission: %w", err)
	}
	return nil
}

// movePermission writes a new state, if nobody else was faster.
func (a *Access) movePermission(ctx context.Context, p *permission, by Principal, from, to int, kind string, now time.Time) error {
	operating, err := operatingOf(ctx, a)
	if err != nil {
		return err
	}
	if err := a.sealPermission(ctx, p); err != nil {
		return err
	}
	defer a.dropPermits(p.whose)
	err = a.catalog.Write(ctx, func(tx *sql.Tx) error {
		u, err := tx.ExecContext(ctx, `UPDATE access_permission SET state = $1, about_sealed = $2 WHERE id = $3 AND state = $4`, to, p.box, p.id, from)
		if err != nil {
			return err
		}
		if n, err := u.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, errDecided("decided or ended meanwhile"))
		}
		if to != permissionApproved {
			if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.PermissionEnded, ID: ledger.TakenID(p.id), State: permissionStates[to], Box: p.box}); err != nil {
				return err
			}
		}
		return a.recordPermission(ctx, tx, p, by, operating, kind, now)
	})
	if err == nil {
		p.state = to
	}
	return err
}

func (a *Access) recordPermission(ctx context.Context, tx *sql.Tx, p *permission, by Principal, operating holdfast.PartyID, kind string, now time.Time) error {
	_, err := a.ledger.Append(ctx, tx, vault.OfParty(p.whose), kind, PermissionChanged{Permission: p.id, By: by.Credential, Role: by.Role, Purpose: p.about.Purpose,
		Reason: p.about.Reason, Devices: p.about.Devices, From: p.about.From, Until: p.about.Until, At: now})
	if err != nil || operating.IsZero() {
		return err
	}
	_, err = a.ledger.Append(ctx, tx, vault.OfParty(operating), kind, StaffPermission{Permission: p.id, Whose: p.whose, By: by.Credential, Role: by.Role, At: now})
	return err
}

// permissionFor returns a permission to who may decide or end it. To anybody else it
// does not exist.
func (a *Access) permissionFor(ctx context.Context, by Principal, id holdfast.PermissionID) (*permission, error) {
	if !by.Can(ScopeWrite) {
		return nil, errReadOnly()
	}
	none := holdfast.Errorf(holdfast.NotFound, "there is no such permission")
	all, err := a.permissions(ctx, `id = $1`, id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, none
	}
	if by.Role == Owner && by.Party == all[0].whose {
		return all[0], nil
	}
	if err := a.worksHere(ctx, by, Administrator, Auditor); err != nil {
		return nil, none
	}
	return all[0], nil
}

// Permissions lists them, oldest first: to staff all, or those about one party; to an
// owner those about his.
func (a *Access) Permissions(ctx context.Context, by Principal, whose holdfast.PartyID) ([]Permission, error) {
	if err := maySee(by, whose); err != nil {
		return nil, err
	}
	where, args := `whose = $1`, []any{whose}
	if whose.IsZero() {
		where, args = `1 = 1`, nil
	}
	all, err := a.permissions(ctx, where, args...)
	if err != nil {
		return nil, err
	}
	now := a.now()
	out := make([]Permission, len(all))
	for i, p := range all {
		out[i] = p.show(now)
	}
	slices.SortFunc(out, func(x, y Permission) int { return x.Asked.Compare(y.Asked) })
	return out, nil
}

func (p *permission) show(now time.Time) Permission {
	out := Permission{ID: p.id, State: permissionStates[p.state], AskedBy: p.askedBy, Asked: p.about.Asked,
		DecidedBy: p.about.DecidedBy, DecidedRole: p.about.DecidedRole, Decided: p.about.Decided,
		EndedBy: p.about.EndedBy, EndedRole: p.about.EndedRole, Ended: p.about.Ended,
		PermissionSpec: PermissionSpec{Whose: p.whose, Purpose: p.about.Purpose, Reason: p.about.Reason, Devices: p.about.Devices, From: p.about.From, Until: p.about.Until}}
	if (p.state == permissionAsked || p.state == permissionApproved) && !now.Before(p.about.Until) {
		out.State = "over"
	}
	return out
}

// permissions reads rows and opens them; those of an erased party are left out.
func (a *Access) permissions(ctx context.Context, where string, args ...any) ([]*permission, error) {
	var rows []*permission
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		r, err := tx.QueryContext(ctx, `SELECT `+permissionColumns+` FROM access_permission WHERE `+where, args...)
		if err != nil {
			return err
		}
		defer r.Close()
		for r.Next() {
			p := new(permission)
			if err := r.Scan(&p.id, &p.whose, &p.state, &p.askedBy, &p.asker, &p.box); err != nil {
				return err
			}
			if p.state < permissionAsked || p.state > permissionEnded {
				return errors.New("a permission's row is damaged")
			}
			rows = append(rows, p)
		}
		return r.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list permissions: %w", err)
	}
	out := rows[:0]
	for _, p := range rows {
		switch err := vault.OpenJSON(ctx, a.vault, vault.OfParty(p.whose), permissionTable, p.id[:], "about", p.box, &p.about); {
		case vault.Gone(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("open permission %s: %w", p.id, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (a *Access) sealPermission(ctx context.Context, p *permission) error {
	var err error
	if p.box, err = vault.SealJSON(ctx, a.vault, vault.OfParty(p.whose), permissionTable, p.id[:], "about", p.about); err != nil {
		return fmt.Errorf("seal permission %s: %w", p.id, err)
	}
	return nil
}

// permit is an approved permission, in memory.
type permit struct {
	asker holdfast.CredentialID
	policy.Permission
}

// Permission returns the approved permission under which staff may read whose data
// for a purpose now. It reads memory only, after the first time.
func (a *Access) Permission(ctx context.Context, staff Principal, whose holdfast.PartyID, purpose holdfast.Purpose) (policy.Permission, bool, error) {
	if staff.Role != Administrator || staff.Holder.IsZero() {
		return policy.Permission{}, false, nil
	}
	return a.widest(ctx, whose, purpose, func(p permit) bool { return p.asker == staff.Holder })
}

// AnyPermission is Permission for whichever of the staff has one: for saying what
// would be decided, never for deciding.
func (a *Access) AnyPermission(ctx context.Context, whose holdfast.PartyID, purpose holdfast.Purpose) (policy.Permission, bool, error) {
	return a.widest(ctx, whose, purpose, func(permit) bool { return true })
}

// widest returns of the permissions for a purpose that hold now the one that covers
// the most devices.
func (a *Access) widest(ctx context.Context, whose holdfast.PartyID, purpose holdfast.Purpose, may func(permit) bool) (best policy.Permission, found bool, err error) {
	if whose.IsZero() {
		return best, false, nil
	}
	all, err := a.permitsOf(ctx, whose)
	now := a.now().UnixNano()
	for _, p := range all {
		if may(p) && p.Purpose == purpose && p.From <= now && now < p.Until && (best.ID.IsZero() || wider(p.Permission, best)) {
			best = p.Permission
		}
	}
	return best, !best.ID.IsZero(), err
}

// permitsOf returns the approved permissions to read a party's data.
func (a *Access) permitsOf(ctx context.Context, whose holdfast.PartyID) ([]permit, error) {
	a.mu.Lock()
	all, known := a.permits[whose]
	turn := a.turn
	a.mu.Unlock()
	if known {
		return all, nil
	}
	rows, err := a.permissions(ctx, `whose = $1 AND state = $2`, whose, permissionApproved)
	if err != nil {
		return nil, err
	}
	for _, p := range rows {
		all = append(all, permit{p.asker, policy.Permission{ID: p.id, Whose: p.whose, Purpose: p.about.Purpose, Devices: p.about.Devices,
			From: p.about.From.UnixNano(), Until: p.about.Until.UnixNano()}})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.turn == turn {
		if len(a.permits) >= maxKnown {
			clear(a.permits)
		}
		a.permits[whose] = all
	}
	return all, nil
}

// Permitted returns the parties about whom staff have an approved permission, whether
// or not its time has come.
func (a *Access) Permitted(ctx context.Context, staff Principal) ([]holdfast.PartyID, error) {
	if staff.Role != Administrator || staff.Holder.IsZero() {
		return nil, nil
	}
	var all []holdfast.PartyID
	err := a.catalog.Read(ctx, func(tx *sql.Tx) error {
		all = all[:0]
		rows, err := tx.QueryContext(ctx, `SELECT DISTINCT whose FROM access_permission WHERE asker = $1 AND state = $2`, staff.Holder, permissionApproved)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p holdfast.PartyID
			if err := rows.Scan(&p); err != nil {
				return err
			}
			all = append(all, p)
		}
		return rows.Err()
	})
	return all, err
}

// wider reports whether a covers more devices than b; of all, none is more.
func wider(a, b policy.Permission) bool {
	return len(b.Devices) > 0 && (len(a.Devices) == 0 || len(a.Devices) > len(b.Devices))
}

func (a *Access) dropPermits(whose holdfast.PartyID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.permits, whose)
	a.turn++
}
