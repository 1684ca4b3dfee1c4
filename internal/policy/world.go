package policy

import (
	"github.com/cedar-policy/cedar-go"

	"github.com/holdfast-iot/holdfast"
)

// world is a request as Cedar sees it: who asks, for what, and the entities that
// the question is about. It is a cedar.EntityGetter.
type world struct {
	request cedar.Request
	reader  cedar.Entity
	stream  cedar.Entity
	purpose cedar.Entity
	// The category is in the stream's parents with all that it is a part of.
}

// kind is the reader's in the schema. Staff of another party are nobody special.
func (r *Request) kind() cedar.String {
	switch {
	case r.Reader == Owner:
		return "owner"
	case r.Reader == Staff && r.ReaderParty == r.Operating:
		return "staff"
	}
	return "program"
}

// worldOf makes the world of a request about the party whose, with the reader if he
// is known already.
func worldOf(r *Request, whose, reader cedar.EntityUID) *world {
	if r.ReaderParty == r.Whose() {
		reader = whose
	} else if reader.IsZero() {
		reader = partyEntity(r.ReaderParty)
	}
	device := entity(typeDevice, r.Device.String())
	assignment := entity(typeAssignment, r.Assignment.String())
	w := &world{
		reader:  cedar.Entity{UID: reader},
		purpose: cedar.Entity{UID: entity(typePurpose, r.Purpose)},
		stream:  cedar.Entity{UID: entity(typeStream, string(assignment.ID)+"/"+r.Stream)},
	}
	if r.acts(r.Whose()) {
		w.reader.Attributes = cedar.NewRecord(cedar.RecordMap{"actsFor": cedar.NewSet(whose)})
	}
	if len(r.Broader) > 0 && r.Purpose != holdfast.OwnAccess {
		w.purpose.Parents = uids(typePurpose, r.Broader)
	}
	parents := make([]cedar.EntityUID, 0, 8)
	parents = append(parents, whose, assignment)
	if r.Category != "" {
		parents = append(parents, entity(typeCategory, r.Category))
		for _, c := range r.Categories {
			parents = append(parents, entity(typeCategory, c))
		}
	}
	w.stream.Parents = cedar.NewEntityUIDSet(parents...)
	attributes := cedar.RecordMap{"name": cedar.String(r.Stream), "device": device}
	if r.Owner != r.Whose() {
		attributes["owner"] = partyEntity(r.Owner)
	}
	w.stream.Attributes = cedar.NewRecord(attributes)
	context := cedar.RecordMap{
		"reader":  r.kind(),
		"purpose": w.purpose.UID,
		"now":     cedar.NewDatetimeFromMillis(milliseconds(r.Now)),
		"from":    cedar.NewDatetimeFromMillis(milliseconds(r.Span.From)),
		"to":      cedar.NewDatetimeFromMillis(milliseconds(r.Span.To)),
	}
	if only, some := r.grants(); some {
		context["grants"] = values(only, func(g holdfast.GrantID) cedar.Value { return entity(typeGrant, g.String()) })
	}
	if !r.Permission.ID.IsZero() {
		context["permission"] = r.Permission.record()
	}
	w.request = cedar.Request{Principal: reader, Action: readAction(), Resource: w.stream.UID, Context: cedar.NewRecord(context)}
	return w
}

// grants returns those under which alone the reader may read, if he is so bound:
// the one that he names, those of his credential, or what both have in common. His
// own access is under none, and naming one does not matter.
func (r *Request) grants() (only []holdfast.GrantID, some bool) {
	switch {
	case r.Grant.IsZero() || r.Purpose == holdfast.OwnAccess:
		return r.Bound, r.Bound != nil
	case r.Bound == nil || r.boundTo(r.Grant):
		return []holdfast.GrantID{r.Grant}, true
	}
	return nil, true
}

func (p *Permission) record() cedar.Record {
	m := cedar.RecordMap{
		"whose": partyEntity(p.Whose), "purpose": entity(typePurpose, p.Purpose),
		"from":  cedar.NewDatetimeFromMillis(milliseconds(p.From)),
		"until": cedar.NewDatetimeFromMillis(milliseconds(p.Until)),
	}
	if len(p.Devices) > 0 {
		m["devices"] = values(p.Devices, deviceValue)
	}
	return cedar.NewRecord(m)
}

func values[T any](of []T, value func(T) cedar.Value) cedar.Set {
	all := make([]cedar.Value, len(of))
	for i, v := range of {
		all[i] = value(v)
	}
	return cedar.NewSet(all...)
}

func uids[T ~string](t cedar.EntityType, ids []T) cedar.EntityUIDSet {
	all := make([]cedar.EntityUID, len(ids))
	for i, id := range ids {
		all[i] = entity(t, id)
	}
	return cedar.NewEntityUIDSet(all...)
}

// Get returns an entity of this world. Others have no attributes and are in nothing.
func (w *world) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	switch uid.Type {
	case typeStream:
		return w.stream, uid == w.stream.UID
	case typePurpose:
		return w.purpose, uid == w.purpose.UID
	case typeParty:
		return w.reader, uid == w.reader.UID
	}
	return cedar.Entity{}, false
}
