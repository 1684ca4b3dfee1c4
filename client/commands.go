package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Order is a command as its device gets it. A device may get one twice: it knows it
// by its id.
type Order struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Args    json.RawMessage `json:"args"`
	Expires time.Time       `json:"expires"`
}

// Orders returns, as a device, the commands that it has not answered yet, in order;
// if there are none it waits for one, at most 60 s. after, if not empty, is the last
// one that the device has: those up to it are not given again.
func (c *Client) Orders(ctx context.Context, after string, wait time.Duration) ([]Order, error) {
	q := url.Values{"wait": {wait.String()}}
	if after != "" {
		q.Set("after", after)
	}
	var out struct{ Commands []Order }
	err := c.Do(ctx, http.MethodGet, "/v1/commands?"+q.Encode(), nil, &out)
	return out.Commands, err
}

// Answer says, as a device, what came of a command: "done", "failed", or "accepted" for
// one that takes a while. The result is anything that is JSON.
func (c *Client) Answer(ctx context.Context, id, status string, result any) error {
	return c.Do(ctx, http.MethodPost, "/v1/commands/"+url.PathEscape(id)+"/result", map[string]any{"status": status, "result": result}, nil)
}
