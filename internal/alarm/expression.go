package alarm

import (
	"context"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
)

// Expressions evaluates expressions in PromQL: package promapi.
type Expressions interface {
	// Check refuses what is no expression, and says where in it.
	Check(expr string) error
	// Evaluate returns what an expression yields at a time, from what who may read for
	// the purpose: a vector, or a scalar as one sample without labels.
	Evaluate(ctx context.Context, who access.Principal, p holdfast.Purpose, expr string, at time.Time) ([]Sample, error)
}

// Sample is one element of a vector.
type Sample struct {
	Labels map[string]string
	Value  float64
}
