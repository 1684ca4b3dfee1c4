package grant

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/catalog"
	"github.com/holdfast-iot/holdfast/internal/dpv"
	"github.com/holdfast-iot/holdfast/internal/ledger"
	"github.com/holdfast-iot/holdfast/internal/vault"
)

// Purpose is why data may be used.
type Purpose struct {
	Name          holdfast.Purpose
	IRI           string           // of DPV: a concept that is a purpose
	LegalBasis    string           // one of LegalBases
	BasisIRI      string           // the same in DPV, or a narrower one; "" if there is none
	Parent        holdfast.Purpose // the broader one that it is a part of, "" if none
	Controller    holdfast.PartyID // who answers for it; zero: the operating organisation
	Categories    []string         // IRIs of the data that it concerns; none: nobody said
	RetentionDays int              // 0: no limit by this purpose
	Text          string           // for the people whose data it is
	BuiltIn       bool
	Added         time.Time // zero if built in
	Ended         time.Time // zero while it lives
}

// builtIn are the purposes that every hub has and that can't be ended.
func builtIn() map[holdfast.Purpose]Purpose {
	return map[holdfast.Purpose]Purpose{
		holdfast.Operation: {
			Name: holdfast.Operation, IRI: dpv.Expand("dpv:TechnicalServiceProvision"),
			LegalBasis: "legitimate-interest", BasisIRI: dpv.Expand("eu-gdpr:A6-1-f"), BuiltIn: true,
			Text: "The organisation that runs this hub operates its own devices.",
		},
		holdfast.OwnAccess: {
			Name: holdfast.OwnAccess, IRI: dpv.Expand("dpv:FulfilmentOfObligation"),
			LegalBasis: "legal-obligation", BasisIRI: dpv.Expand("eu-gdpr:A6-1-c"), BuiltIn: true,
			Text: "You read your own data.",
		},
	}
}

type purposeInfo struct {
	Name          holdfast.Purpose `json:"name"`
	IRI           string           `json:"iri"`
	LegalBasis    string           `json:"legal_basis"`
	BasisIRI      string           `json:"basis_iri,omitempty"`
	Parent        holdfast.Purpose `json:"parent,omitempty"`
	Controller    holdfast.PartyID `json:"controller,omitzero"`
	Categories    []string         `json:"categories,omitempty"`
	RetentionDays int              `json:"retention_days,omitempty"`
	Text          string           `json:"text"`
	Added         int64            `json:"added"`
	Ended         int64            `json:"ended,omitempty"`
}

// Limits on what a purpose says.
const (
	maxText          = 4096
	maxCategories    = 100
	maxRetentionDays = 36_500
	maxPurposes      = 1000
)

// check refuses what is wrong with a purpose, and writes its concepts out.
func (p *Purpose) check() (err error) {
	if err := holdfast.CheckName("purpose", string(p.Name)); err != nil {
		return err
	}
	if p.IRI, err = ConceptIRI("a purpose's IRI", p.IRI, dpv.Purpose); err != nil {
		return err
	}
	if p.LegalBasis, p.BasisIRI, err = ParseBasis(cmp.Or(p.BasisIRI, p.LegalBasis)); err != nil {
		return err
	}
	if p.Categories, err = CategoryIRIs(p.Categories); err != nil {
		return err
	}
	switch {
	case p.RetentionDays < 0 || p.RetentionDays > maxRetentionDays:
		return holdfast.Errorf(holdfast.Invalid, "retention is 0 (no limit by this purpose) to %d days", maxRetentionDays)
	case p.Text == "" || len(p.Text) > maxText:
		return holdfast.Errorf(holdfast.Invalid, "a purpose says in 1 to %d bytes what it is, for the people whose data it is", maxText)
	}
	return nil
}

// AddPurpose adds a purpose. A name is used once: what an ended purpose stood for
// must not be read as something else.
func (r *Register) AddPurpose(ctx context.Context, by holdfast.CredentialID, p Purpose) (Purpose, error) {
	if err := p.check(); err != nil {
		return Purpose{}, err
	}
	all := *r.purposes.Load()
	if len(all) >= maxPurposes {
		return Purpose{}, holdfast.Errorf(holdfast.TooLarge, "a hub has at most %d purposes, ended ones included", maxPurposes)
	}
	if have, ok := all[p.Name]; ok {
		if !have.Ended.IsZero() {
			return Purpose{}, holdfast.Errorf(holdfast.Conflict, "a purpose of this name has ended: choose another name")
		}
		return Purpose{}, holdfast.Errorf(holdfast.Conflict, "there is a purpose of this name already")
	}
	if err := r.checkParent(p); err != nil {
		return Purpose{}, err
	}
	p.BuiltIn, p.Added, p.Ended = false, r.now().UTC(), time.Time{}
	return p, r.writePurpose(ctx, by, p, purposeAdded, `INSERT INTO purpose (name_hash, state, info_sealed) VALUES ($1, $2, $3)`)
}

// EndPurpose ends a purpose, and with it those that are parts of it: from now on
// nothing is read or collected for them alone.
func (r *Register) EndPurpose(ctx context.Context, by holdfast.CredentialID, name holdfast.Purpose) error {
	p, err := r.Purpose(ctx, name)
	switch {
	case err != nil:
		return err
	case p.BuiltIn:
		return holdfast.Errorf(holdfast.Denied, "the purpose %s can't be ended", name)
	case !p.Ended.IsZero():
		return holdfast.Errorf(holdfast.Conflict, "the purpose has ended already")
	}
	p.Ended = r.now().UTC()
	return r.writePurpose(ctx, by, p, "purpose ended", `UPDATE purpose SET state = $2, info_sealed = $3 WHERE name_hash = $1 AND state = 'active'`)
}

const purposeAdded = "purpose added"

func (r *Register) writePurpose(ctx context.Context, by holdfast.CredentialID, p Purpose, kind, query string) error {
	hash, err := r.keys.Hash(ctx, "purpose name", string(p.Name))
	if err != nil {
		return err
	}
	info := purposeInfo{
		Name: p.Name, IRI: p.IRI, LegalBasis: p.LegalBasis, BasisIRI: p.BasisIRI, Parent: p.Parent, Controller: p.Controller, Categories: p.Categories,
		RetentionDays: p.RetentionDays, Text: p.Text, Added: holdfast.Nanoseconds(p.Added), Ended: holdfast.Nanoseconds(p.Ended),
	}
	box, err := r.seal(ctx, vault.Hub, "purpose", hash, info)
	if err != nil {
		return err
	}
	state := "active"
	if !p.Ended.IsZero() {
		state = "ended"
	}
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, query, hash, state, box); err != nil {
			return err
		}
		if kind != purposeAdded {
			if err := ledger.AddTakeBacks(ctx, tx, ledger.TakeBack{Kind: ledger.PurposeChange, Hash: hash, State: state, Box: box}); err != nil {
				return err
			}
		}
		_, err := r.ledger.Append(ctx, tx, vault.Hub, kind, struct {
			purposeInfo
			By holdfast.CredentialID `json:"by"`
		}{info, by})
		return err
	})
	if err != nil {
		return err
	}
	return r.loadPurposes(ctx)
}

func (r *Register) loadPurposes(ctx context.Context) error {
	type row struct{ hash, box []byte }
	rows, err := catalog.Rows(ctx, r.db, func(q *sql.Rows) (w row, err error) {
		return w, q.Scan(&w.hash, &w.box)
	}, `SELECT name_hash, info_sealed FROM purpose`)
	if err != nil {
		return err
	}
	all := builtIn()
	for _, w := range rows {
		var i purposeInfo
		if err := r.open(ctx, vault.Hub, "purpose", w.hash, w.box, &i); err != nil {
			return err
		}
		all[i.Name] = Purpose{
			Name: i.Name, IRI: i.IRI, LegalBasis: i.LegalBasis, BasisIRI: i.BasisIRI, Parent: i.Parent, Controller: i.Controller, Categories: i.Categories,
			RetentionDays: i.RetentionDays, Text: i.Text,
			Added: holdfast.Instant(i.Added), Ended: holdfast.Instant(i.Ended),
		}
	}
	r.purposes.Store(&all)
	r.changes.Add(1)
	return nil
}

// Purposes returns all purposes by name, ended ones included.
func (r *Register) Purposes(context.Context) ([]Purpose, error) {
	return slices.SortedFunc(maps.Values(*r.purposes.Load()), func(a, b Purpose) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// Purpose returns a purpose by its name.
func (r *Register) Purpose(_ context.Context, name holdfast.Purpose) (Purpose, error) {
	if p, ok := (*r.purposes.Load())[name]; ok {
		return p, nil
	}
	return Purpose{}, holdfast.Errorf(holdfast.NotFound, "there is no such purpose")
}

// Live reports whether a purpose exists and neither it nor a broader one has ended.
// It reads memory only and takes no lock.
func (r *Register) Live(_ context.Context, name holdfast.Purpose) bool {
	all := *r.purposes.Load()
	for range maxDepth {
		p, ok := all[name]
		if !ok || !p.Ended.IsZero() {
			return false
		}
		if name = p.Parent; name == "" {
			return true
		}
	}
	return false
}

// Broader returns the purposes that one is a part of, the nearest first. It reads
// memory only.
func (r *Register) Broader(name holdfast.Purpose) []holdfast.Purpose {
	all := *r.purposes.Load()
	var above []holdfast.Purpose
	for p := all[name].Parent; p != "" && len(above) < maxDepth; p = all[p].Parent {
		above = append(above, p)
	}
	return above
}

// Times are stored as nanoseconds since 1970, the zero time as 0.
