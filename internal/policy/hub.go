package policy

import (
	_ "embed"
	"fmt"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

//go:embed schema.cedarschema
var schemaText []byte

//go:embed hub.cedar
var hubText []byte

// Schema returns the schema, and Hub the policies that hold on every hub, as text.
func Schema() string { return string(schemaText) }
func Hub() string    { return string(hubText) }

// Ids of the hub's permits.
const (
	byOwnAccess  = "own-access"
	byActing     = "acting"
	byRole       = "staff-by-role"
	byPermission = "staff-by-permission"
)

// hub is what every Set has in common.
type hub struct {
	validator *validate.Validator
	policies  policies
}

// theHub is made of the two texts above, once.
var theHub = sync.OnceValues(func() (*hub, error) {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar(schemaText); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("resolve schema: %w", err)
	}
	h := &hub{validator: validate.New(resolved, validate.WithStrict())}
	list, err := cedar.NewPolicyListFromBytes("hub.cedar", hubText)
	if err != nil {
		return nil, fmt.Errorf("read the hub's policies: %w", err)
	}
	for _, p := range list {
		id := cedar.PolicyID(p.Annotations()["id"])
		if h.policies, err = h.add(h.policies, id, p); err != nil {
			return nil, err
		}
	}
	return h, nil
})

// add appends a policy that the schema allows.
func (h *hub) add(to policies, id cedar.PolicyID, p *cedar.Policy) (policies, error) {
	n, err := h.check(id, p)
	if err != nil {
		return nil, err
	}
	return append(to, n), nil
}

// check holds a policy against the schema. The validator is experimental and panics
// on a tree that it does not know: that is no policy for us.
func (h *hub) check(id cedar.PolicyID, p *cedar.Policy) (_ named, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("validate policy %s: the validator gave up: %v", id, broken)
		}
	}()
	if err := h.validator.Policy(string(id), (*ast.Policy)(p.AST())); err != nil {
		return named{}, fmt.Errorf("validate policy %s: %w", id, err)
	}
	return named{id, p}, nil
}

// policies are what a request is weighed against, in an order of their own.
type policies []named

type named struct {
	id     cedar.PolicyID
	policy *cedar.Policy
}
