package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-iot/holdfast/client"
	"github.com/holdfast-iot/holdfast/internal/api"
)

// all reads a list whole, page by page.
func all[T any](a *app, c *client.Client, path string) ([]T, error) {
	items := []T{}
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	for after := ""; ; {
		var page api.Page[T]
		err := c.Do(a.ctx, http.MethodGet, path+join+"limit=1000&after="+url.QueryEscape(after), nil, &page)
		if err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.Next == "" {
			return items, nil
		}
		after = page.Next
	}
}

// named is a path to one thing by name or id.
func named(path, name string) string { return path + "/" + url.PathEscape(name) }

// partyName shows a party: by name, or by id where the name is not ours to know.
func partyName(p *api.PartyRef) string {
	switch {
	case p == nil:
		return ""
	case p.Name != "":
		return p.Name
	}
	return p.ID
}

// whenever is when for a time that may be left out.
func whenever(t *time.Time) string {
	if t == nil {
		return ""
	}
	return when(*t)
}
