package drill

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// do asks the hub for something that is to be planted.
func (d *drill) do(ctx context.Context, by *client.Client, method, path string, body, into any) error {
	if d.opts.Omit != nil && d.opts.Omit(method, path) {
		return nil
	}
	if err := by.Do(ctx, method, path, body, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// belong gives an owner something in every place that can hold anything of his, but
// for what is only in memory.
func (d *drill) belong(ctx context.Context, o *owner) error {
	c, err := d.hub.as(o.token)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, plant := range []func(context.Context, *client.Client, *owner) error{d.plantRights, d.plantSessions, d.plantMessages, d.plantCommands, d.plantFactor, d.plantByStaff, d.plantHands} {
		if err := plant(ctx, c, o); err != nil {
			return fmt.Errorf("plant what is the %s's: %w", o.kind, err)
		}
	}
	return nil
}

// plantRights grants, groups, holds and makes a credential.
func (d *drill) plantRights(ctx context.Context, c *client.Client, o *owner) error {
	var grant, hold struct{ ID string }
	if err := d.do(ctx, c, http.MethodPost, "/v1/grants", map[string]any{"recipient": d.study, "purpose": study, "streams": []string{o.words["stream of numbers"]}, "until": "+30d"}, &grant); err != nil {
		return err
	}
	o.grant = grant.ID
	if err := d.do(ctx, c, http.MethodPost, "/v1/groups", map[string]any{"name": o.word("group"), "devices": []string{o.device}}, nil); err != nil {
		return err
	}
	held := func(name string) map[string]any {
		return map[string]any{"kind": "collection", "streams": []string{o.word("stream that " + name)}, "reason": o.word("reason of a hold that " + name)}
	}
	if err := d.do(ctx, c, http.MethodPost, "/v1/holds", held("stands"), nil); err != nil {
		return err
	}
	if err := d.do(ctx, c, http.MethodPost, "/v1/holds", held("has ended"), &hold); err != nil {
		return err
	}
	if hold.ID != "" {
		if err := d.do(ctx, c, http.MethodDelete, "/v1/holds/"+hold.ID, nil, nil); err != nil {
			return err
		}
	}
	return d.do(ctx, c, http.MethodPost, "/v1/tokens", map[string]any{"label": o.word("label of a credential"), "role": "program", "purposes": []string{string(holdfast.Operation)}}, nil)
}

// plantMessages has an alarm fire that tells a webhook and an address, neither of which
// can be reached, and that somebody acknowledges and mutes.
func (d *drill) plantMessages(ctx context.Context, c *client.Client, o *owner) error {
	hook, alarm := o.word("webhook"), o.word("alarm")
	var answer struct{ Secret string }
	if err := d.do(ctx, c, http.MethodPost, "/v1/webhooks", map[string]string{"name": hook, "url": "https://127.0.0.1:9/" + o.word("webhook's address")}, &answer); err != nil {
		return err
	}
	if text := strings.TrimPrefix(answer.Secret, "whsec_"); text != "" {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return err
		}
		o.secret("webhook's secret", text, raw)
	}
	if err := d.do(ctx, c, http.MethodPost, "/v1/alarms", map[string]any{"name": alarm, "kind": "threshold", "device": o.device, "stream": o.words["stream of numbers"], "op": "above", "level": 10, "every": "1s",
		"message": o.word("alarm's message") + " {value}", "webhooks": []string{hook}, "mail": []string{o.word("mail address") + "@example.org"}}, nil); err != nil {
		return err
	}
	if err := d.fired(ctx, c, o); err != nil {
		return err
	}
	path := "/v1/alarms/" + alarm
	if err := d.do(ctx, c, http.MethodPost, path+"/ack", map[string]string{"note": o.word("who saw the alarm")}, nil); err != nil {
		return err
	}
	return d.do(ctx, c, http.MethodPost, path+"/mute", map[string]string{"until": "+2h", "reason": o.word("why the alarm is muted")}, nil)
}

// fired waits until an alarm's messages wait to be sent.
func (d *drill) fired(ctx context.Context, c *client.Client, o *owner) error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var page struct{ Items []struct{ State string } }
		if err := c.Do(ctx, http.MethodGet, "/v1/deliveries", nil, &page); err != nil {
			return err
		}
		if len(page.Items) > 1 && page.Items[0].State == "waiting" {
			return nil
		}
		if time.Now().After(end) {
			return holdfast.Errorf(holdfast.Internal, "%d messages of the %s's alarm wait, not 2", len(page.Items), o.kind)
		}
	}
}

// plantCommands sends a command that the device answers and one that waits, and has
// both sides say how the device shall be and is.
func (d *drill) plantCommands(ctx context.Context, c *client.Client, o *owner) error {
	for _, name := range []string{"command", "command that waits"} {
		var made struct{ ID string }
		if err := d.do(ctx, c, http.MethodPost, "/v1/commands", map[string]any{"device": o.device, "name": o.word(name), "args": map[string]string{"a": o.word(name + ", arguments")}, "reason": o.word(name + ", reason"), "expires": "7d"}, &made); err != nil {
			return err
		}
		if made.ID != "" {
			o.orders = append(o.orders, made.ID)
		}
	}
	if err := d.do(ctx, c, http.MethodPut, "/v1/devices/"+url.PathEscape(o.device)+"/twin", map[string]any{"wish": o.word("wanted state")}, nil); err != nil {
		return err
	}
	device, err := client.New(client.Options{Hub: d.hub.at.Device, Identity: d.identity(o)})
	if err != nil {
		return err
	}
	defer device.Close()
	if len(o.orders) > 0 {
		if err := device.Answer(ctx, o.orders[0], "done", map[string]string{"r": o.word("command's result")}); err != nil {
			return err
		}
	}
	return d.do(ctx, device, http.MethodPut, "/v1/reported", map[string]string{"is": o.word("reported state")}, nil)
}

// plantFactor makes a second factor that counts, with recovery codes.
func (d *drill) plantFactor(ctx context.Context, c *client.Client, o *owner) error {
	var factor struct{ Secret string }
	if err := d.do(ctx, c, http.MethodPost, "/v1/me/factor", nil, &factor); err != nil || factor.Secret == "" {
		return err
	}
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(factor.Secret)
	if err != nil {
		return err
	}
	o.secret("second factor", factor.Secret, raw)
	code, err := totp.GenerateCode(factor.Secret, time.Now())
	if err != nil {
		return err
	}
	var codes struct {
		Codes []string `json:"recovery_codes"`
	}
	if err := d.do(ctx, c, http.MethodPost, "/v1/me/factor/confirm", map[string]string{"code": code}, &codes); err != nil {
		return err
	}
	for i, code := range codes.Codes {
		o.secret(fmt.Sprintf("recovery code %d", i), code, nil)
	}
	return nil
}

// plantByStaff has administrators ask to read, take the owner into an organisation, and
// tell him that his device is to be released.
func (d *drill) plantByStaff(ctx context.Context, _ *client.Client, o *owner) error {
	admin := d.hub.admin
	if err := d.do(ctx, admin, http.MethodPost, "/v1/permissions", map[string]any{"whose": o.party, "reason": o.word("why staff ask to read")}, nil); err != nil {
		return err
	}
	if err := d.do(ctx, admin, http.MethodPost, "/v1/members", map[string]any{"of": d.study, "member": o.party, "kind": "employee"}, nil); err != nil {
		return err
	}
	return d.do(ctx, admin, http.MethodPost, "/v1/devices/"+o.device+"/notices", map[string]any{"reason": o.word("why the device is to be released")}, nil)
}

// plantHands offers a second device to whoever has the code, and gives the owner a time
// of somebody else's.
func (d *drill) plantHands(ctx context.Context, c *client.Client, o *owner) error {
	var spare, lent struct {
		Device struct{ ID string } `json:"device"`
	}
	admin := d.hub.admin
	if err := admin.Do(ctx, http.MethodPost, "/v1/devices", map[string]string{"label": o.word("label of the second device"), "owner": o.party}, &spare); err != nil {
		return err
	}
	o.spare = spare.Device.ID
	if err := d.do(ctx, c, http.MethodPost, "/v1/transfers", map[string]any{"device": o.spare}, nil); err != nil {
		return err
	}
	if err := admin.Do(ctx, http.MethodPost, "/v1/devices", map[string]string{"label": "lent to the " + o.kind, "owner": d.study}, &lent); err != nil {
		return err
	}
	o.lent = lent.Device.ID
	lender, err := d.hub.as(d.lender)
	if err != nil {
		return err
	}
	defer lender.Close()
	var period struct{ ID string }
	if err := d.do(ctx, lender, http.MethodPost, "/v1/assignments", map[string]any{"device": o.lent, "owner": o.party, "basis": "loan", "from": "+1d", "to": "+2d"}, &period); err != nil || period.ID == "" {
		return err
	}
	return d.do(ctx, lender, http.MethodPost, "/v1/assignments/"+period.ID+"/terms", map[string]any{"to": "+3d"}, nil)
}

// filled fails on a place in which the owner is not shown what he put there: there the
// drill would see nothing.
func (d *drill) filled(ctx context.Context, o *owner) error {
	var all strings.Builder
	n, text, err := d.readings(ctx, d.hub, o.token, o)
	if err != nil || n != o.sent {
		return holdfast.Errorf(holdfast.Internal, "%d of %d readings of the %s are there: %w", n, o.sent, o.kind, err)
	}
	all.WriteString(text)
	if n, _, err = d.readings(ctx, d.hub, d.studyToken, o); err != nil || n == 0 {
		return holdfast.Errorf(holdfast.Internal, "%d readings of the %s under a grant: %w", n, o.kind, err)
	}
	c, err := d.hub.as(o.token)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, path := range o.paths() {
		b, err := ask(ctx, c, path)
		if err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		all.Write(b)
	}
	var missing []string
	for place, text := range o.words {
		if !strings.Contains(all.String(), text) && !o.unasked[place] {
			missing = append(missing, place)
		}
	}
	if len(missing) > 0 {
		return holdfast.Errorf(holdfast.Internal, "not filled for the %s: %s", o.kind, strings.Join(missing, ", "))
	}
	return nil
}
