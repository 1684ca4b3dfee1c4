package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/outbox"
)

// Webhook is an address that is told what happens.
type Webhook struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	URL      string     `json:"url"`
	State    string     `json:"state" enum:"active,disabled" doc:"disabled: it answered 410; a test that it takes makes it active again."`
	Made     *time.Time `json:"made"`
	Rotates  *time.Time `json:"rotates,omitempty" doc:"Until then the secret before signs, too."`
	Failures int        `json:"failures,omitempty" doc:"Attempts in a row that failed."`
	Failing  *time.Time `json:"failing,omitempty" doc:"Since when."`
	Last     string     `json:"last,omitempty" doc:"Why the last attempt failed."`
}

// NewWebhook is a webhook with its secret, which is shown this once.
type NewWebhook struct {
	Webhook
	Secret string `json:"secret" doc:"whsec_...: what the receiver checks signatures with."`
}

// Delivery is a message on its way.
type Delivery struct {
	ID       string     `json:"id"`
	Message  string     `json:"message" doc:"The webhook-id that its receiver sees."`
	Webhook  string     `json:"webhook,omitempty" doc:"Id; left out: it is mail."`
	Mail     string     `json:"mail,omitempty"`
	State    string     `json:"state" enum:"waiting,delivered,dead"`
	Made     *time.Time `json:"made"`
	Attempts int        `json:"attempts"`
	Next     *time.Time `json:"next,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	Last     string     `json:"last,omitempty"`
}

func webhookDoc(w outbox.Webhook) Webhook {
	return Webhook{ID: w.ID.String(), Name: w.Name, URL: w.Address, State: string(w.State), Made: moment(w.Made), Rotates: moment(w.Rotates),
		Failures: w.Failing.Times, Failing: moment(w.Failing.Since), Last: w.Failing.Last}
}

func deliveryDoc(d outbox.Delivery) Delivery {
	out := Delivery{ID: d.ID.String(), Message: outbox.MessageID(d.ID), Mail: d.To, State: string(d.State), Made: moment(d.Made), Attempts: d.Attempts, Next: moment(d.Next), Ended: moment(d.Ended), Last: d.Last}
	if !d.Webhook.IsZero() {
		out.Webhook = d.Webhook.String()
	}
	return out
}

type webhookID struct {
	ID string `path:"id" doc:"A name or an id."`
}

func (a *API) webhooks() {
	if a.Outbox == nil {
		return
	}
	who := []access.Role{access.Owner, access.Administrator}
	handle(a, route{method: "POST", path: "/v1/webhooks", summary: "Add a webhook. Its secret is shown in this answer and never again.", status: http.StatusCreated, rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *struct {
			Body struct {
				Name string `json:"name" minLength:"1"`
				URL  string `json:"url" minLength:"1" doc:"https://..., at a public address."`
			}
		}) (*reply[NewWebhook], error) {
			w, secret, err := a.Outbox.Add(ctx, by.Party, by.Credential, in.Body.Name, in.Body.URL)
			return &reply[NewWebhook]{NewWebhook{webhookDoc(w), secret}}, err
		})
	handle(a, route{method: "GET", path: "/v1/webhooks", summary: "List one's own party's webhooks.", rule: reads(who...)},
		func(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Webhook]], error) {
			all, err := a.Outbox.Webhooks(ctx, by.Party)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(w outbox.Webhook) string { return w.ID.String() }, in.Paging)
			return &reply[Page[Webhook]]{mapped(page, webhookDoc)}, err
		})
	handle(a, route{method: "POST", path: "/v1/webhooks/{id}/rotate", summary: "Give a webhook a new secret; the one before signs beside it for a day.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *webhookID) (*reply[NewWebhook], error) {
			w, secret, err := a.Outbox.Rotate(ctx, by.Party, by.Credential, in.ID)
			return &reply[NewWebhook]{NewWebhook{webhookDoc(w), secret}}, err
		})
	handle(a, route{method: "POST", path: "/v1/webhooks/{id}/test", summary: "Send a webhook a test.", status: http.StatusAccepted, rule: writes(who...)}, a.testWebhook)
	handle(a, route{method: "DELETE", path: "/v1/webhooks/{id}", summary: "End a webhook, with what waits for it.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *webhookID) (*nothing, error) {
			return &nothing{}, a.Outbox.End(ctx, by.Party, by.Credential, in.ID)
		})
}

func (a *API) testWebhook(ctx context.Context, by access.Principal, in *webhookID) (*reply[Delivery], error) {
	w, err := a.Outbox.Webhook(ctx, by.Party, in.ID)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"type": "webhook.test", "timestamp": time.Now().UTC(), "data": map[string]string{"webhook": w.ID.String(), "name": w.Name}})
	if err != nil {
		return nil, err
	}
	id, err := a.Outbox.Send(ctx, outbox.Message{Party: by.Party, Webhook: w.ID, Body: body, Test: true})
	if err != nil {
		return nil, err
	}
	d, err := a.Outbox.Delivery(ctx, by.Party, id)
	return &reply[Delivery]{deliveryDoc(d)}, err
}

func (a *API) deliveries() {
	if a.Outbox == nil {
		return
	}
	who := []access.Role{access.Owner, access.Administrator}
	handle(a, route{method: "GET", path: "/v1/deliveries", summary: "List webhooks and mail of the last days, the newest first.", rule: reads(who...)},
		func(ctx context.Context, by access.Principal, in *struct{ Paging }) (*reply[Page[Delivery]], error) {
			all, err := a.Outbox.Deliveries(ctx, by.Party)
			if err != nil {
				return nil, err
			}
			page, err := paged(all, func(d outbox.Delivery) string { return d.ID.String() }, in.Paging)
			return &reply[Page[Delivery]]{mapped(page, deliveryDoc)}, err
		})
	handle(a, route{method: "POST", path: "/v1/deliveries/{id}/retry", summary: "Try a delivery again, now.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *webhookID) (*reply[Delivery], error) {
			id, err := deliveryID(in.ID)
			if err != nil {
				return nil, err
			}
			d, err := a.Outbox.Retry(ctx, by.Party, id)
			return &reply[Delivery]{deliveryDoc(d)}, err
		})
	handle(a, route{method: "DELETE", path: "/v1/deliveries/{id}", summary: "Drop a delivery: it is not tried again.", rule: writes(who...)},
		func(ctx context.Context, by access.Principal, in *webhookID) (*nothing, error) {
			id, err := deliveryID(in.ID)
			if err != nil {
				return nil, err
			}
			return &nothing{}, a.Outbox.Drop(ctx, by.Party, id)
		})
}

func deliveryID(text string) (holdfast.DeliveryID, error) {
	id, err := holdfast.ParseID[holdfast.DeliveryID](text)
	if err != nil {
		return id, holdfast.Errorf(holdfast.NotFound, "there is no such delivery")
	}
	return id, nil
}
