package api

import (
	"slices"

	"github.com/holdfast-iot/holdfast"
)

// Paging is what every list takes.
type Paging struct {
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many, at most."`
	After string `query:"after" maxLength:"160" doc:"The next of the page before."`
}

// Page is what every list gives.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Where the next page begins; left out on the last one."`
}

// paged cuts a page out of a list. A page begins behind an item, not at a number,
// so that what is added or goes between two pages moves nothing.
func paged[T any](all []T, id func(T) string, p Paging) (Page[T], error) {
	from := 0
	if p.After != "" {
		i := slices.IndexFunc(all, func(t T) bool { return id(t) == p.After })
		if i < 0 {
			return Page[T]{}, holdfast.Errorf(holdfast.Conflict, "the item where the page begins is gone: ask again from the start")
		}
		from = i + 1
	}
	to := min(from+p.Limit, len(all))
	page := Page[T]{Items: slices.Clone(all[from:to])}
	if page.Items == nil {
		page.Items = []T{}
	}
	if to < len(all) {
		page.Next = id(all[to-1])
	}
	return page, nil
}

// mapped is a page of something as callers see it.
func mapped[T, U any](p Page[T], f func(T) U) Page[U] {
	out := Page[U]{Items: make([]U, 0, len(p.Items)), Next: p.Next}
	for _, t := range p.Items {
		out.Items = append(out.Items, f(t))
	}
	return out
}
