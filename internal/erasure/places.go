package erasure

import (
	"context"
	"fmt"
	"reflect"

	"github.com/holdfast-iot/holdfast"
)

// Place takes what a scope covers out of one place that can hold an owner's
// data. It may be called again, before or after the keys have died, and needs no
// key of the owner.
type Place func(ctx context.Context, s holdfast.Scope) error

// Places is every place that can hold an owner's data: one required field each.
// An erasure is done when each of them has returned nil, so a new place that is
// not listed here can't be forgotten by an erasure, only by its author: a test in
// the root looks for packages that store and do not erase.
type Places struct {
	Connections Place // identity: certificates, codes; live connections end
	Credentials Place // access: tokens, certificates, invitations
	Grants      Place // grant: grants, disclosures
	Sessions    Place // ingest: MQTT sessions
	Memory      Place // series: readings that were decoded for queries
	Twins       Place // twin: commands, desired and reported state
	Readings    Place // series: journal tail, chunks
	Messages    Place // outbox: what waits to be sent, webhooks
	Alarms      Place // alarm: rules, what they know, their history
	Custody     Place // custody: streams, devices, assignments, the party

	Journal Shared // what is rolled or dead leaves the files
	Catalog Shared // deleted rows leave the files
}

// Shared is a place that does not know whose its bytes are: once the others have
// let go of theirs, it drops what is dead. Erasures that end together share it.
type Shared func(ctx context.Context) error

// refuse lists the places that end access or can forget at once; purge lists all, in
// order.
func (p Places) refuse() []Place {
	return []Place{p.Memory, p.Connections, p.Credentials, p.Custody}
}

func (p Places) purge() []Place {
	return []Place{p.Connections, p.Credentials, p.Grants, p.Sessions, p.Memory, p.Twins, p.Readings, p.Alarms, p.Messages, p.Custody}
}

func (p Places) shared() []Shared { return []Shared{p.Journal, p.Catalog} }

// check refuses a struct with a field left out.
func (p Places) check() error {
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if v.Field(i).IsNil() {
			return fmt.Errorf("erasure place %s is not wired", v.Type().Field(i).Name)
		}
	}
	if n := len(p.purge()) + len(p.shared()); n != v.NumField() {
		return fmt.Errorf("%d erasure places of %d are purged", n, v.NumField())
	}
	return nil
}
