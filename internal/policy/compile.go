package policy

import (
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/holdfast-iot/holdfast"
)

// The types of the schema.
const (
	typeParty      cedar.EntityType = "Holdfast::Party"
	typePurpose    cedar.EntityType = "Holdfast::Purpose"
	typeCategory   cedar.EntityType = "Holdfast::Category"
	typeDevice     cedar.EntityType = "Holdfast::Device"
	typeAssignment cedar.EntityType = "Holdfast::Assignment"
	typeGrant      cedar.EntityType = "Holdfast::Grant"
	typeStream     cedar.EntityType = "Holdfast::Stream"
	typeAction     cedar.EntityType = "Holdfast::Action"
)

func entity[T ~string](t cedar.EntityType, id T) cedar.EntityUID {
	return cedar.NewEntityUID(t, cedar.String(id))
}

func partyEntity(p holdfast.PartyID) cedar.EntityUID { return entity(typeParty, p.String()) }

func readAction() cedar.EntityUID { return entity(typeAction, "read") }

// policy writes a grant as a permit. Whatever a person typed becomes a value of the
// tree; nothing is pasted into text.
func (g *Grant) policy() *cedar.Policy {
	p := ast.Annotation("id", types.String(GrantPolicy(g.ID)))
	policy := g.Obligations.annotate(p.Permit()).
		PrincipalEq(partyEntity(g.Recipient)).ActionEq(readAction()).ResourceIn(partyEntity(g.Grantor))
	context := ast.Context()
	when := context.Access("purpose").In(ast.Value(entity(typePurpose, g.Purpose)))
	// What tells grants apart comes before what most have in common.
	if !g.AllStreams {
		when = when.And(oneOf(g.Streams, func(s string) cedar.Value { return cedar.String(s) }, ast.Resource().Access("name")))
	}
	if !g.AllDevices {
		when = when.And(oneOf(g.Devices, deviceValue, ast.Resource().Access("device")))
	}
	if len(g.Assignments) > 0 {
		when = when.And(inAssignments(g.Assignments))
	}
	if len(g.Categories) > 0 {
		when = when.And(ast.Resource().In(setOf(g.Categories, func(c string) cedar.Value { return entity(typeCategory, c) })))
	}
	when = when.And(context.Access("now").GreaterThanOrEqual(datetime(g.Made)))
	when = when.And(context.Access("now").LessThan(datetime(g.Until)))
	if g.Data.From != holdfast.Always.From {
		when = when.And(context.Access("to").GreaterThanOrEqual(datetime(g.Data.From)))
	}
	if g.Data.To != holdfast.Always.To {
		when = when.And(context.Access("from").LessThanOrEqual(datetime(g.Data.To)))
	}
	mine := ast.Value(entity(typeGrant, g.ID.String()))
	when = when.And(ast.IfThenElse(context.Has("grants"), context.Access("grants").Contains(mine), ast.True()))
	return cedar.NewPolicyFromAST(policy.When(when))
}

// policy writes a restriction or an objection as a forbid.
func (f *Forbid) policy() *cedar.Policy {
	policy := ast.Annotation("id", types.String(HoldPolicy(f.ID))).Forbid().ActionEq(readAction()).ResourceIn(partyEntity(f.Whose))
	context := ast.Context()
	when := context.Access("purpose").NotEqual(ast.Value(entity(typePurpose, holdfast.OwnAccess)))
	if f.Purpose != "" {
		when = when.And(context.Access("purpose").In(ast.Value(entity(typePurpose, f.Purpose))))
	}
	if len(f.Streams) > 0 {
		when = when.And(oneOf(f.Streams, func(s string) cedar.Value { return cedar.String(s) }, ast.Resource().Access("name")))
	}
	if len(f.Assignments) > 0 {
		when = when.And(inAssignments(f.Assignments))
	}
	return cedar.NewPolicyFromAST(policy.When(when))
}

func deviceValue(d holdfast.DeviceID) cedar.Value { return entity(typeDevice, d.String()) }

func inAssignments(ids []holdfast.AssignmentID) ast.Node {
	return ast.Resource().In(setOf(ids, func(a holdfast.AssignmentID) cedar.Value { return entity(typeAssignment, a.String()) }))
}

// datetime is written as the call that a text would have: the validator does not
// know the value itself. Cedar makes it the value when it compiles the policy.
func datetime(ns int64) ast.Node {
	t := time.UnixMilli(milliseconds(ns)).UTC()
	return ast.DatetimeExtensionCall(ast.String(t.Format("2006-01-02T15:04:05.000Z")))
}

// milliseconds are the whole ones that Cedar's times are made of. Every time is cut
// the same way, so that two of them keep their order.
func milliseconds(ns int64) int64 {
	ms := ns / 1e6
	if ns%1e6 < 0 {
		ms--
	}
	return ms
}

// oneOf says that what is one of values; of none it is not one.
func oneOf[T any](values []T, value func(T) cedar.Value, what ast.Node) ast.Node {
	switch len(values) {
	case 0: // a set without a member has no type
		return ast.False()
	case 1:
		return what.Equal(ast.Value(value(values[0])))
	}
	return setOf(values, value).Contains(what)
}

func setOf[T any](values []T, value func(T) cedar.Value) ast.Node {
	nodes := make([]ast.Node, len(values))
	for i, v := range values {
		nodes[i] = ast.Value(value(v))
	}
	return ast.Set(nodes...)
}

// annotate says what a grant asks of whoever gives its readings out.
func (o Obligations) annotate(p *ast.Policy) *ast.Policy {
	say := func(key types.AnnotationKey, value string) { p = p.Annotate(key, types.String(value)) }
	if o.Every != 0 {
		say("every", o.Every.String())
	}
	if o.Decimals != nil {
		say("decimals", strconv.Itoa(*o.Decimals))
	}
	if o.Step != 0 {
		say("step", strconv.FormatFloat(o.Step, 'g', -1, 64))
	}
	if o.Delay != 0 {
		say("delay", o.Delay.String())
	}
	if len(o.Drop) > 0 {
		names := make([]string, len(o.Drop))
		for i, f := range o.Drop {
			names[i] = string(f)
		}
		say("drop", strings.Join(names, ","))
	}
	if o.MinGroup != 0 {
		say("min_group", strconv.Itoa(o.MinGroup))
	}
	return p
}
