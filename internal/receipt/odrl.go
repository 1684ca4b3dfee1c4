package receipt

import (
	"fmt"
	"strconv"
	"time"
)

// Agreement returns the grant in ODRL 2.2, as JSON-LD: what the assignee may do
// with which streams, for what, until when, and what the hub does to readings
// before they leave. Terms that ODRL lacks are of Holdfast's profile.
func (g Grant) Agreement(now time.Time) ([]byte, error) {
	c := context(object{"odrl": "http://www.w3.org/ns/odrl/2/"})
	typed(c, "@id", "odrl:action", "odrl:assignee", "odrl:assigner", "odrl:leftOperand", "odrl:operator", "odrl:profile", "odrl:uid", "odrl:partOf", "dct:conformsTo")
	typed(c, "xsd:dateTime", "dct:issued", "dct:created")
	id := g.iri("grants", g.ID)
	permission := object{
		"@type":           "odrl:Permission",
		"odrl:action":     any("odrl:read"),
		"odrl:assignee":   g.iri("parties", g.Recipient.ID),
		"odrl:assigner":   g.iri("parties", g.Owner.ID),
		"odrl:target":     g.target(),
		"odrl:constraint": g.constraints(),
	}
	if r := g.refinements(); len(r) > 0 {
		// A refined action is a node: what may be read is less than what there is.
		permission["odrl:action"] = object{"rdf:value": object{"@id": "odrl:read"}, "odrl:refinement": r}
	}
	state, since := g.State(now)
	return encode(object{
		"@context":        c,
		"@id":             id,
		"@type":           "odrl:Agreement",
		"odrl:uid":        id,
		"odrl:profile":    Terms,
		"odrl:permission": []any{permission},
		"dct:issued":      stamp(g.Made),
		"dct:creator":     object{"@id": g.iri("parties", g.Owner.ID)},
		"dct:description": g.Purpose.Text,
		"hf:state":        state,
		"hf:since":        object{"@type": "xsd:dateTime", "@value": stamp(since)},
	})
}

func (g Grant) target() object {
	t := object{"@id": g.iri("grants", g.ID) + "/streams", "@type": "odrl:AssetCollection"}
	var refined []any
	if !g.AllDevices {
		for _, d := range g.Devices {
			refined = append(refined, constraint("hf:device", "odrl:isAnyOf", object{"@id": g.iri("devices", d)}))
		}
	}
	if len(g.Assignments) > 0 {
		these := make([]any, len(g.Assignments))
		for i, x := range g.Assignments {
			these[i] = object{"@id": g.iri("assignments", x)}
		}
		refined = append(refined, constraint("hf:assignment", "odrl:isAnyOf", these))
	}
	if !g.AllStreams {
		names := make([]any, len(g.Streams))
		for i, s := range g.Streams {
			names[i] = s.Name
		}
		refined = append(refined, constraint("hf:stream", "odrl:isAnyOf", names))
	}
	if !g.From.IsZero() {
		refined = append(refined, constraint("hf:readingTime", "odrl:gteq", at(g.From)))
	}
	if !g.To.IsZero() {
		refined = append(refined, constraint("hf:readingTime", "odrl:lteq", at(g.To)))
	}
	if len(refined) > 0 {
		t["odrl:refinement"] = refined
	}
	return t
}

func (g Grant) constraints() []any {
	var purpose any = g.Purpose.Name
	if g.Purpose.IRI != "" {
		purpose = object{"@id": g.Purpose.IRI}
	}
	end := g.Until
	if !g.Ended.IsZero() {
		end = g.Ended
	}
	return []any{
		constraint("odrl:purpose", "odrl:isA", purpose),
		constraint("odrl:dateTime", "odrl:gteq", at(g.Made)),
		constraint("odrl:dateTime", "odrl:lt", at(end)),
	}
}

func (g Grant) refinements() (all []any) {
	d := g.Duties
	add := func(left, op string, right any) { all = append(all, constraint(left, op, right)) }
	if d.Every > 0 {
		add("hf:every", "odrl:gteq", seconds(d.Every))
	}
	if d.Delay > 0 {
		add("odrl:delayPeriod", "odrl:gteq", seconds(d.Delay))
	}
	if d.Decimals != nil {
		add("hf:decimals", "odrl:lteq", number(strconv.Itoa(*d.Decimals), "xsd:integer"))
	}
	if d.Step > 0 {
		add("hf:step", "odrl:gteq", number(strconv.FormatFloat(d.Step, 'f', -1, 64), "xsd:decimal"))
	}
	if d.MinGroup > 0 {
		add("hf:minimumGroup", "odrl:gteq", number(strconv.Itoa(d.MinGroup), "xsd:integer"))
	}
	for _, f := range d.Drop {
		add("hf:field", "odrl:neq", f)
	}
	return all
}

func constraint(left, operator string, right any) object {
	return object{"@type": "odrl:Constraint", "odrl:leftOperand": left, "odrl:operator": operator, "odrl:rightOperand": right}
}

func at(t time.Time) object { return number(stamp(t), "xsd:dateTime") }

func number(text, kind string) object { return object{"@type": kind, "@value": text} }

func seconds(d time.Duration) object {
	return number(fmt.Sprintf("PT%dS", int64(d/time.Second)), "xsd:duration")
}
