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
// the root looks for packages that store and do not erase, and one in package server
// fills each of these fields and looks for what is left.
type Places struct {
	Connections Place // identity: certificates, codes; live connections end
	Credentials Place // access: tokens, certificates, invitations
	Grants      Place // grant: grants, disclosures
	Sessions    Place // ingest: MQTT sessions, subscriptions, how far each has read
	Wills       Place // mqtt: wills that wait to be published
	Memory      Place // series: readings that were decoded for queries and feeds, newest values
	Twins       Place // twin: commands, desired and reported state
	Readings    Place // series: journal tail, chunks, summaries
	Messages    Place // outbox: what waits to be sent, webhooks
	Alarms      Place // alarm: rules, what they know, their history
	Ledger      Place // ledger: payloads that no key opens any more
	Custody     Place // custody: streams, devices, assignments, the party

	Journal Shared // what is rolled or dead leaves the files
	Catalog Shared // deleted rows leave the files
}

// Shared is a place that does not know whose its bytes are: once the others have
// let go of theirs, it drops what is dead. Erasures that end together share it.
type Shared func(ctx context.Context) error

// place is one of Places with its name.
type place[F any] struct {
	name string
	of   F
}

// refuse lists the places that end access or can forget at once; purge lists all, in
// order.
func (p Places) refuse() []Place {
	return []Place{p.Memory, p.Connections, p.Credentials, p.Custody}
}

func (p Places) purge() []place[Place] {
	return []place[Place]{{"Connections", p.Connections}, {"Credentials", p.Credentials}, {"Grants", p.Grants}, {"Sessions", p.Sessions}, {"Wills", p.Wills},
		{"Memory", p.Memory}, {"Twins", p.Twins}, {"Readings", p.Readings}, {"Alarms", p.Alarms}, {"Messages", p.Messages}, {"Ledger", p.Ledger}, {"Custody", p.Custody}}
}

func (p Places) shared() []place[Shared] {
	return []place[Shared]{{"Journal", p.Journal}, {"Catalog", p.Catalog}}
}

// check refuses a struct with a field left out, or that is not purged.
func (p Places) check() error {
	listed := map[string]bool{}
	for _, x := range p.purge() {
		listed[x.name] = true
	}
	for _, x := range p.shared() {
		listed[x.name] = true
	}
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Field(i).IsNil() {
			return fmt.Errorf("erasure place %s is not wired", name)
		}
		if !listed[name] {
			return fmt.Errorf("erasure place %s is not purged", name)
		}
	}
	return nil
}
