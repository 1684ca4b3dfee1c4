package custody

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Profile is a device model, in one version: the file of docs/profiles.md.
type Profile struct {
	Name    string             `json:"name"`
	Version int                `json:"version"`
	Streams []ProfileStream    `json:"streams"`
	Tags    map[string]TagRule `json:"tags,omitempty"`
	Limits  ProfileLimits      `json:"limits,omitzero"`
}

// ProfileLimits is what one device of a profile may send; 0: what the hub allows
// every device.
type ProfileLimits struct {
	ReadingsPerSecond float64 `json:"readings_per_second,omitzero"`
	BytesPerSecond    float64 `json:"bytes_per_second,omitzero"`
}

// ProfileStream is what a profile says of one stream.
type ProfileStream struct {
	Name          string             `json:"name"`
	Type          string             `json:"type"`
	Unit          string             `json:"unit,omitempty"`
	Category      string             `json:"category,omitempty"`
	Purposes      []holdfast.Purpose `json:"purposes"`
	RetentionDays int                `json:"retention_days,omitempty"`
	Sensitivity   string             `json:"sensitivity,omitempty"`
	MinimumTier   int                `json:"minimum_tier,omitempty"`
}

// TagRule says what to do with a tag of a line protocol point.
type TagRule string

// The rules for a tag.
const (
	TagIgnore TagRule = "ignore" // drop the tag
	TagPrefix TagRule = "prefix" // put its value and a slash before the stream's name
)

// How much harm a reading in wrong hands does.
const (
	SensitivityNormal    = "normal"
	SensitivitySensitive = "sensitive" // tells habits, presence, movement
	SensitivitySpecial   = "special"   // GDPR Art. 9: health, biometrics, ...
)

// Limits of a profile.
const (
	MaxProfileBytes  = 1 << 20
	maxRetentionDays = 36_500
	maxTags          = 64
	maxVersion       = 1_000_000_000
)

// ParseProfile reads a profile file strictly: a field that it doesn't know is an
// error, and so is anything that would only show when a device sends. Categories
// come back as IRIs.
func ParseProfile(file []byte) (Profile, error) {
	if len(file) > MaxProfileBytes {
		return Profile{}, holdfast.Errorf(holdfast.TooLarge, "a profile has at most %d bytes", MaxProfileBytes)
	}
	var p Profile
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Profile{}, holdfast.Errorf(holdfast.Invalid, "the profile can't be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Profile{}, holdfast.Errorf(holdfast.Invalid, "there is more behind the profile")
	}
	if len(p.Tags) == 0 {
		p.Tags = nil
	}
	return p, p.check()
}

func (p *Profile) check() error {
	if err := checkName("profile", p.Name); err != nil {
		return err
	}
	switch {
	case p.Version < 1 || p.Version > maxVersion:
		return holdfast.Errorf(holdfast.Invalid, "a profile's version is a whole number from 1 to %d", maxVersion)
	case len(p.Streams) == 0:
		return holdfast.Errorf(holdfast.Invalid, "a profile has at least one stream")
	case len(p.Streams) > MaxStreams:
		return holdfast.Errorf(holdfast.TooLarge, "a profile has at most %d streams", MaxStreams)
	case len(p.Tags) > maxTags:
		return holdfast.Errorf(holdfast.TooLarge, "a profile maps at most %d tags", maxTags)
	case p.Limits.ReadingsPerSecond < 0 || p.Limits.BytesPerSecond < 0:
		return holdfast.Errorf(holdfast.Invalid, "a profile's limits are numbers of 0 (what the hub allows) or more")
	}
	names := make(map[string]bool)
	for i := range p.Streams {
		s := &p.Streams[i]
		if err := s.check(); err != nil {
			return holdfast.Errorf(holdfast.KindOf(err), "stream %d: %w", i+1, err)
		}
		if names[s.Name] {
			return holdfast.Errorf(holdfast.Invalid, "stream %d: there is another of this name", i+1)
		}
		names[s.Name] = true
	}
	for key, rule := range p.Tags {
		if key == "" || len(key) > holdfast.MaxNameBytes {
			return holdfast.Errorf(holdfast.Invalid, "a tag has 1 to %d bytes", holdfast.MaxNameBytes)
		}
		if key == "device" {
			return holdfast.Errorf(holdfast.Invalid, "the tag device names a declared child and can't be mapped")
		}
		if rule != TagIgnore && rule != TagPrefix {
			return holdfast.Errorf(holdfast.Invalid, "a tag's rule is %s or %s", TagIgnore, TagPrefix)
		}
	}
	return nil
}

func (s *ProfileStream) check() error {
	if err := holdfast.CheckName("stream", s.Name); err != nil {
		return err
	}
	if _, err := holdfast.ParseValueType(s.Type); err != nil {
		return err
	}
	switch {
	case len(s.Unit) > holdfast.MaxNameBytes:
		return holdfast.Errorf(holdfast.Invalid, "a unit has at most %d bytes", holdfast.MaxNameBytes)
	case len(s.Purposes) == 0:
		return holdfast.Errorf(holdfast.Invalid, "there is no purpose: without one nothing is collected")
	case s.RetentionDays < 0 || s.RetentionDays > maxRetentionDays:
		return holdfast.Errorf(holdfast.Invalid, "retention_days is 0 (as long as a purpose lives) to %d", maxRetentionDays)
	case s.MinimumTier < 0 || s.MinimumTier > 3:
		return holdfast.Errorf(holdfast.Invalid, "minimum_tier is 0 (any) to 3")
	case !slices.Contains([]string{"", SensitivityNormal, SensitivitySensitive, SensitivitySpecial}, s.Sensitivity):
		return holdfast.Errorf(holdfast.Invalid, "sensitivity is %s, %s or %s", SensitivityNormal, SensitivitySensitive, SensitivitySpecial)
	}
	for i, purpose := range s.Purposes {
		if err := holdfast.CheckName("purpose", string(purpose)); err != nil {
			return err
		}
		if slices.Contains(s.Purposes[:i], purpose) {
			return holdfast.Errorf(holdfast.Invalid, "a purpose stands there twice")
		}
	}
	var err error
	s.Category, err = categoryIRI(s.Category)
	return err
}

// categoryIRI returns the IRI of a category of DPV, which is given by IRI, by short
// form (pd:Location), or by the name alone.
func categoryIRI(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	for _, text := range []string{s, "pd:" + s} {
		if c, ok := dpv.Lookup(text); ok && c.Kind == dpv.Category {
			return c.IRI, nil
		}
	}
	return "", holdfast.Errorf(holdfast.Invalid, "a category is one of DPV %s (https://w3id.org/dpv/pd): %s", dpv.Version, dpv.Instead(s, dpv.Category))
}

func (p *Profile) stream(name string) (ProfileStream, bool) {
	i := slices.IndexFunc(p.Streams, func(s ProfileStream) bool { return s.Name == name })
	if i < 0 {
		return ProfileStream{}, false
	}
	return p.Streams[i], true
}

func (s ProfileStream) info() streamInfo {
	return streamInfo{
		Name: s.Name, Type: s.Type, Unit: s.Unit, Category: s.Category, Sensitivity: s.Sensitivity, Purposes: s.Purposes,
		RetentionDays: s.RetentionDays, MinimumTier: s.MinimumTier,
	}
}

// AddProfile stores a profile file. The version must be higher than any there is
// of that name; devices keep the one they were added with. The same file again
// changes nothing.
func (c *Custody) AddProfile(ctx context.Context, by holdfast.CredentialID, file []byte) (Profile, error) {
	p, err := ParseProfile(file)
	if err != nil {
		return Profile{}, err
	}
	switch have, err := c.ProfileByName(ctx, p.Name); {
	case err == nil && reflect.DeepEqual(have, p):
		return p, nil
	case err != nil && holdfast.KindOf(err) != holdfast.NotFound:
		return Profile{}, err
	}
	hash, err := c.keys.Hash(ctx, "profile name", p.Name)
	if err != nil {
		return Profile{}, err
	}
	box, err := c.seal(ctx, vault.Hub, "profile", profileRow(hash, p.Version), p)
	if err != nil {
		return Profile{}, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		var newest int
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM profile WHERE name_hash = $1`, hash).Scan(&newest); err != nil {
			return err
		}
		if p.Version <= newest {
			return holdfast.Errorf(holdfast.Conflict, "there is version %d of this profile already: give the changed one a higher number", newest)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO profile (name_hash, version, info_sealed) VALUES ($1, $2, $3)`, hash, p.Version, box); err != nil {
			return err
		}
		_, err := c.ledger.Append(ctx, tx, vault.Hub, "profile added", struct {
			Name    string                `json:"name"`
			Version int                   `json:"version"`
			By      holdfast.CredentialID `json:"by"`
		}{p.Name, p.Version, by})
		return err
	})
	return p, err
}

// profileRow names a row of the table, for the box in it.
func profileRow(hash []byte, version int) []byte {
	return append(slices.Clone(hash), byte(version>>24), byte(version>>16), byte(version>>8), byte(version))
}

func (c *Custody) profiles(ctx context.Context, where string, args ...any) ([]Profile, error) {
	type row struct {
		hash, box []byte
		version   int
	}
	rows, err := catalog.Rows(ctx, c.db, func(q *sql.Rows) (r row, err error) {
		return r, q.Scan(&r.hash, &r.version, &r.box)
	}, `SELECT name_hash, version, info_sealed FROM profile WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Profile, len(rows))
	for i, r := range rows {
		if err := c.open(ctx, vault.Hub, "profile", profileRow(r.hash, r.version), r.box, &all[i]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b Profile) int { return cmp.Or(cmp.Compare(a.Name, b.Name), b.Version-a.Version) })
	return all, nil
}

// Profiles returns all profiles by name, the newest version first.
func (c *Custody) Profiles(ctx context.Context) ([]Profile, error) { return c.profiles(ctx, `1 = 1`) }

// ProfileByName returns the newest version of a profile.
func (c *Custody) ProfileByName(ctx context.Context, name string) (Profile, error) {
	return c.Profile(ctx, name, 0)
}

// Profile returns a version of a profile, 0 being the newest.
func (c *Custody) Profile(ctx context.Context, name string, version int) (Profile, error) {
	hash, err := c.keys.Hash(ctx, "profile name", name)
	if err != nil {
		return Profile{}, err
	}
	all, err := c.profiles(ctx, `name_hash = $1 AND ($2 = 0 OR version = $2)`, hash, version)
	if err != nil {
		return Profile{}, err
	}
	if len(all) == 0 {
		return Profile{}, holdfast.Errorf(holdfast.NotFound, "there is no such profile")
	}
	return all[0], nil
}

// model is Profile for routes: devices of one model share it.
func (c *Custody) model(ctx context.Context, k modelKey) (*Profile, error) {
	c.mu.RLock()
	p := c.models[k]
	c.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	got, err := c.Profile(ctx, k.name, k.version)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.models[k] = &got
	return &got, nil
}
