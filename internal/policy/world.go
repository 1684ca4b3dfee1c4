package policy

import (
	"slices"
	"sync"

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

// worldOf makes the world of a request.
func (w *weighed) worldOf(r *Request, s *stream) *world {
	reader := w.reader
	if r.ReaderParty == r.Whose() {
		reader = w.whose
	} else if reader.IsZero() {
		reader = partyEntity(r.ReaderParty)
	}
	in := w.setting(r)
	asked := &world{reader: cedar.Entity{UID: reader}, purpose: in.purpose, stream: s.entity}
	if r.acts(r.Whose()) {
		asked.reader.Attributes = cedar.NewRecord(cedar.RecordMap{"actsFor": cedar.NewSet(w.whose)})
	}
	asked.request = cedar.Request{Principal: reader, Action: readAction(), Resource: s.entity.UID, Context: in.context}
	return asked
}

// setting is what the questions of one read have in common.
type setting struct {
	kind          cedar.String
	name          holdfast.Purpose
	broader       []holdfast.Purpose
	now, from, to int64 // ms
	bound         bool  // to grants, or by a permission: that is in the context, too

	purpose cedar.Entity
	context cedar.Record
}

// setting makes that of a request, unless it is that of the last one.
func (w *weighed) setting(r *Request) *setting {
	only, some := r.grants()
	s := &setting{
		kind: r.kind(), name: r.Purpose, now: milliseconds(r.Now), from: milliseconds(r.Span.From), to: milliseconds(r.Span.To),
		bound: some || !r.Permission.ID.IsZero(),
	}
	if r.Purpose != holdfast.OwnAccess {
		s.broader = r.Broader
	}
	last := w.last.Load()
	if last != nil && last.name == s.name && slices.Equal(last.broader, s.broader) {
		if last.kind == s.kind && last.now == s.now && last.from == s.from && last.to == s.to && !last.bound && !s.bound {
			return last
		}
		s.broader, s.purpose = last.broader, last.purpose
	} else {
		s.broader = slices.Clone(s.broader)
		s.purpose = cedar.Entity{UID: entity(typePurpose, r.Purpose)}
		if len(s.broader) > 0 {
			s.purpose.Parents = uids(typePurpose, s.broader)
		}
	}
	context := cedar.RecordMap{
		"reader":  s.kind,
		"purpose": s.purpose.UID,
		"now":     cedar.NewDatetimeFromMillis(s.now),
		"from":    cedar.NewDatetimeFromMillis(s.from),
		"to":      cedar.NewDatetimeFromMillis(s.to),
	}
	if some {
		context["grants"] = values(only, func(g holdfast.GrantID) cedar.Value { return entity(typeGrant, g.String()) })
	}
	if !r.Permission.ID.IsZero() {
		context["permission"] = r.Permission.record()
	}
	s.context = cedar.NewRecord(context)
	w.last.Store(s)
	return s
}

// stream is one as Cedar sees it. It is the same whoever asks, whenever.
type stream struct {
	categories []string // that its own is a part of
	entity     cedar.Entity
}

// streamKey is all that a stream is made of but the categories above its own.
type streamKey struct {
	assignment holdfast.AssignmentID
	device     holdfast.DeviceID
	owner      holdfast.PartyID // of the device, if it is another's than the data
	name       string
	category   string
}

// streams are those of one party that were asked about.
type streams struct {
	mu   sync.RWMutex
	have map[streamKey]*stream
}

// stream returns that of a request, about the party whose.
func (c *streams) stream(r *Request, whose cedar.EntityUID) *stream {
	key := streamKey{assignment: r.Assignment, device: r.Device, name: r.Stream, category: r.Category}
	if r.Owner != r.Whose() {
		key.owner = r.Owner
	}
	c.mu.RLock()
	s := c.have[key]
	c.mu.RUnlock()
	if s != nil && slices.Equal(s.categories, r.Categories) {
		return s
	}
	s = key.stream(whose, slices.Clone(r.Categories))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have == nil || len(c.have) >= maxAnswers {
		c.have = make(map[streamKey]*stream)
	}
	c.have[key] = s
	return s
}

func (k *streamKey) stream(whose cedar.EntityUID, categories []string) *stream {
	assignment := entity(typeAssignment, k.assignment.String())
	parents := make([]cedar.EntityUID, 0, 8)
	parents = append(parents, whose, assignment)
	if k.category != "" {
		parents = append(parents, entity(typeCategory, k.category))
		for _, c := range categories {
			parents = append(parents, entity(typeCategory, c))
		}
	}
	attributes := cedar.RecordMap{"name": cedar.String(k.name), "device": entity(typeDevice, k.device.String())}
	if !k.owner.IsZero() {
		attributes["owner"] = partyEntity(k.owner)
	}
	return &stream{categories: categories, entity: cedar.Entity{
		UID:     entity(typeStream, string(assignment.ID)+"/"+k.name),
		Parents: cedar.NewEntityUIDSet(parents...), Attributes: cedar.NewRecord(attributes),
	}}
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
