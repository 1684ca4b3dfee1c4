package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// Command is something that a device is to do, and what became of it.
type Command struct {
	ID        string          `json:"id"`
	Device    string          `json:"device"`
	N         int64           `json:"n" doc:"1, 2, 3, ... of this device's, in the order in which it gets them."`
	Name      string          `json:"name"`
	Args      json.RawMessage `json:"args,omitempty" doc:"Left out in lists."`
	Reason    string          `json:"reason,omitempty"`
	Purpose   string          `json:"purpose"`
	By        string          `json:"by" doc:"The credential that sent it."`
	State     string          `json:"state" enum:"queued,delivered,accepted,done,failed,expired,cancelled"`
	Sent      *time.Time      `json:"sent"`
	Expires   *time.Time      `json:"expires"`
	Delivered *time.Time      `json:"delivered,omitempty"`
	Accepted  *time.Time      `json:"accepted,omitempty"`
	Ended     *time.Time      `json:"ended,omitempty"`
	Result    json.RawMessage `json:"result,omitempty" doc:"What the device answered."`
}

type sendCommand struct {
	Wait int `query:"wait" minimum:"0" maximum:"60" doc:"How many seconds to wait for the device's answer."`
	Body struct {
		Device  string          `json:"device" minLength:"1" doc:"A label or an id."`
		Name    string          `json:"name" minLength:"1" maxLength:"128" doc:"What to do, in the device's own words."`
		Args    json.RawMessage `json:"args,omitempty" doc:"Any JSON, at most 64 KiB; null if left out."`
		Reason  string          `json:"reason,omitempty" maxLength:"500" doc:"In words, kept with the command."`
		Expires string          `json:"expires,omitempty" doc:"How long it may wait for the device, as 10m or 7d; default 1h, at most 30d."`
		Key     string          `json:"key,omitempty" maxLength:"128" doc:"The sender's own name for this command: sent again with it, it is the same one."`
	}
}

type commandReply struct {
	Status int
	Body   Command
}

// commandBody is room for the largest arguments and what stands around them.
const commandBody = twin.MaxArgs + 8<<10

func (a *API) commands() {
	send := writes(access.Owner, access.Administrator, access.Program)
	send.body, send.file, send.slow = commandBody, true, true
	handle(a, route{method: "POST", path: "/v1/commands", summary: "Send a command to a device. The answer says that it is durable; with wait, what came of it.",
		status: http.StatusCreated, rule: send}, a.sendCommand)
	handle(a, route{method: "GET", path: "/v1/commands", summary: "List a device's commands, the newest first.", rule: reads()}, a.listCommands)
	show := reads()
	show.slow = true
	handle(a, route{method: "GET", path: "/v1/commands/{id}", summary: "Show a command; with wait, once it has ended.", rule: show}, a.showCommand)
	handle(a, route{method: "DELETE", path: "/v1/commands/{id}", summary: "Cancel a command that its device does not have yet.",
		rule: writes(access.Owner, access.Administrator, access.Program)}, a.cancelCommand)
}

// commander is a caller as package twin knows him, for one device: whoever acts for
// the one whose it is acts in his place.
func (a *API) commander(ctx context.Context, by access.Principal, d custody.Device) (twin.Caller, error) {
	by, err := a.inPlaceOf(ctx, by, whose(d))
	if err != nil {
		return twin.Caller{}, err
	}
	c := twin.Caller{Credential: by.Credential, Party: by.Party, Owner: by.Role == access.Owner}
	if by.Role == access.Administrator || by.Role == access.Program && by.MayName(holdfast.Operation) && len(by.Grants) == 0 {
		c.Staff, err = a.operates(ctx, by)
	}
	return c, err
}

func (a *API) sendCommand(ctx context.Context, by access.Principal, in *sendCommand) (*commandReply, error) {
	b := &in.Body
	d, err := a.device(ctx, by, b.Device)
	if err != nil {
		return nil, err
	}
	c, err := a.commander(ctx, by, d)
	if err != nil {
		return nil, err
	}
	s := twin.Spec{Device: d.ID, Name: b.Name, Args: b.Args, Reason: b.Reason, Key: b.Key}
	if b.Expires != "" {
		if s.Life, err = ParseDuration(b.Expires); err != nil {
			return nil, err
		}
		if s.Life == 0 {
			return nil, holdfast.Errorf(holdfast.Invalid, "a command expires in the future: give it at least a second")
		}
	}
	sent, err := a.Twin.Send(ctx, c, s)
	if err == nil && in.Wait > 0 {
		sent, err = a.Twin.Wait(ctx, c, sent.ID, time.Duration(in.Wait)*time.Second)
	}
	return &commandReply{http.StatusCreated, commandDoc(sent)}, err
}

func (a *API) listCommands(ctx context.Context, by access.Principal, in *struct {
	Device string `query:"device" required:"true" minLength:"1" doc:"A label or an id."`
	State  string `query:"state" enum:"queued,delivered,accepted,done,failed,expired,cancelled" doc:"Only those in this state."`
	Paging
}) (*reply[Page[Command]], error) {
	d, err := a.device(ctx, by, in.Device)
	if err != nil {
		return nil, err
	}
	c, err := a.commander(ctx, by, d)
	if err != nil {
		return nil, err
	}
	all, err := a.Twin.Commands(ctx, c, d.ID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(x twin.Command) bool { return x.State != cmp.Or(in.State, x.State) })
	page, err := paged(all, func(x twin.Command) string { return x.ID.String() }, in.Paging)
	return &reply[Page[Command]]{mapped(page, commandDoc)}, err
}

// commandOf finds a command and who asks for it. Who may not know of its device is
// told that there is none.
func (a *API) commandOf(ctx context.Context, by access.Principal, text string) (holdfast.CommandID, twin.Caller, error) {
	none := holdfast.Errorf(holdfast.NotFound, "there is no such command")
	id, err := holdfast.ParseID[holdfast.CommandID](text)
	if err != nil {
		return id, twin.Caller{}, none
	}
	of, err := a.Twin.DeviceOf(ctx, id)
	if err != nil {
		return id, twin.Caller{}, err
	}
	d, err := a.device(ctx, by, of.String())
	if err != nil {
		if holdfast.KindOf(err) == holdfast.NotFound {
			err = none
		}
		return id, twin.Caller{}, err
	}
	c, err := a.commander(ctx, by, d)
	return id, c, err
}

func (a *API) showCommand(ctx context.Context, by access.Principal, in *struct {
	ID   string `path:"id"`
	Wait int    `query:"wait" minimum:"0" maximum:"60" doc:"How many seconds to wait for the device's answer."`
}) (*reply[Command], error) {
	id, c, err := a.commandOf(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	x, err := a.Twin.Wait(ctx, c, id, time.Duration(in.Wait)*time.Second)
	return &reply[Command]{commandDoc(x)}, err
}

func (a *API) cancelCommand(ctx context.Context, by access.Principal, in *struct {
	ID string `path:"id"`
}) (*reply[Command], error) {
	id, c, err := a.commandOf(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	x, err := a.Twin.Cancel(ctx, c, id)
	return &reply[Command]{commandDoc(x)}, err
}

func commandDoc(c twin.Command) Command {
	return Command{ID: c.ID.String(), Device: c.Device.String(), N: c.N, Name: c.Name, Args: c.Args, Reason: c.Reason, Purpose: string(c.Purpose), By: c.By.String(),
		State: c.State, Sent: moment(c.Sent), Expires: moment(c.Expires), Delivered: moment(c.Given), Accepted: moment(c.Accepted), Ended: moment(c.Ended), Result: c.Result}
}
