package main

import (
	"fmt"
	"net/http"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/api"
)

type doctorCmd struct {
	hubFlags
	outputFlags
}

func (doctorCmd) Help() string {
	return `Says what is wrong or weak in a running hub's deployment, each with the mend.
Exits 1 when something is wrong, 0 otherwise.

Example:
  holdfast doctor --data DATA`
}

func (c *doctorCmd) Run(a *app) error {
	hub, err := c.connect(a)
	if err != nil {
		return err
	}
	defer hub.Close()
	var found api.Page[api.Finding]
	if err := hub.Do(a.ctx, http.MethodGet, "/v1/doctor", nil, &found); err != nil {
		return err
	}
	wrong := 0
	for _, f := range found.Items {
		if f.Level == api.Wrong {
			wrong++
		}
	}
	if c.json() {
		err = printJSON(a.stdout, found)
	} else {
		for _, f := range found.Items {
			fmt.Fprintf(a.stdout, "%s  %s\n       %s\n", f.Level, f.What, f.Mend)
		}
		if len(found.Items) == 0 {
			fmt.Fprintln(a.stdout, "Nothing is wrong or weak that can be seen from here.")
		}
	}
	if err == nil && wrong > 0 {
		err = holdfast.Errorf(holdfast.Internal, "%d things are wrong", wrong)
	}
	return err
}
