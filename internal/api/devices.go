package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/access"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/identity"
	"github.com/holdfast-iot/holdfast/internal/query"
	"github.com/holdfast-iot/holdfast/internal/series"
)

// Device is a unit in one owner's hands.
type Device struct {
	ID             string     `json:"id"`
	Label          string     `json:"label,omitempty"`
	Owner          *PartyRef  `json:"owner,omitempty"`
	Subject        *PartyRef  `json:"subject,omitempty" doc:"Whom the readings are about, if another than the owner."`
	State          string     `json:"state" enum:"active,closed,unclaimed,erased"`
	Profile        string     `json:"profile,omitempty"`
	ProfileVersion int        `json:"profile_version,omitempty"`
	Gateway        string     `json:"gateway,omitempty" doc:"The id of the device that publishes for it."`
	Child          string     `json:"child,omitempty" doc:"What the gateway calls it."`
	Serial         string     `json:"serial,omitempty"`
	Added          *time.Time `json:"added,omitempty"`

	// Of one device, not in lists.
	Connections  *int          `json:"connections,omitempty" doc:"Live connections now."`
	Certificates []Certificate `json:"certificates,omitempty"`
	Streams      []Stream      `json:"streams,omitempty" doc:"Shown to the one whose data it is, and to the operating organisation of its own devices."`
}

// Certificate is one that a device was given.
type Certificate struct {
	Fingerprint string     `json:"fingerprint" doc:"SHA-256 of the signed part."`
	From        *time.Time `json:"from"`
	Until       *time.Time `json:"until"`
	State       string     `json:"state" enum:"fresh,used,superseded,revoked"`
}

// Stream is one kind of reading of a device.
type Stream struct {
	Name          string     `json:"name"`
	Type          string     `json:"type" enum:"number,integer,boolean,text,bytes,location"`
	Unit          string     `json:"unit,omitempty"`
	Category      string     `json:"category,omitempty"`
	Sensitivity   string     `json:"sensitivity,omitempty"`
	Purposes      []string   `json:"purposes"`
	RetentionDays int        `json:"retention_days,omitempty"`
	Readings      uint64     `json:"readings" doc:"How many there are; a repeat that is not merged yet counts."`
	First         *time.Time `json:"first,omitempty"`
	Last          *time.Time `json:"last,omitempty" doc:"The time of the latest reading."`
}

// AddedDevice is a new device with the codes that are shown this once.
type AddedDevice struct {
	Device         Device     `json:"device"`
	EnrolmentCode  string     `json:"enrolment_code,omitempty" doc:"Gets the device its certificate: holdfast enrol CODE --out DIR."`
	EnrolmentUntil *time.Time `json:"enrolment_until,omitempty"`
	ClaimCode      string     `json:"claim_code,omitempty" doc:"Makes a party the owner of an unclaimed device."`
	TakesFrom      *time.Time `json:"takes_from,omitempty" doc:"Readings from before are refused: a device of this serial, label or gateway's child was erased in the last 400 days."`
}

// Codes is what a device was given anew.
type Codes struct {
	EnrolmentCode  string     `json:"enrolment_code,omitempty"`
	EnrolmentUntil *time.Time `json:"enrolment_until,omitempty"`
	ClaimCode      string     `json:"claim_code,omitempty"`
}

type addDevice struct {
	Body struct {
		Label     string `json:"label" minLength:"1"`
		Owner     string `json:"owner,omitempty" doc:"A name or an id; default: the operating organisation."`
		Unclaimed bool   `json:"unclaimed,omitempty" doc:"Nobody's until its claim code is used."`
		Subject   string `json:"subject,omitempty" doc:"Whom the readings are about, if another than the owner."`
		Profile   string `json:"profile,omitempty" maxLength:"128"`
		Gateway   string `json:"gateway,omitempty" doc:"The device that publishes for it: it gets no enrolment code."`
		Serial    string `json:"serial,omitempty" maxLength:"128"`
		Days      int    `json:"days,omitempty" minimum:"1" maximum:"400" doc:"How long the enrolment code lives, default 7."`
	}
}

func (a *API) devices() {
	handle(a, route{method: "POST", path: "/v1/devices", summary: "Add a device.", status: http.StatusCreated, rule: writes(access.Administrator)}, a.addDevice)
	handle(a, route{method: "GET", path: "/v1/devices", summary: "List devices: an owner's own, to administrators all.", rule: reads()}, a.listDevices)
	handle(a, route{method: "GET", path: "/v1/devices/{id}", summary: "Show a device.", rule: reads()},
		func(ctx context.Context, by access.Principal, in *Named) (*reply[Device], error) {
			d, err := a.device(ctx, by, in.ID)
			if err != nil {
				return nil, a.maybeErasing(ctx, by, err)
			}
			doc, err := a.wholeDevice(ctx, by, d)
			return &reply[Device]{doc}, err
		})
	handle(a, route{method: "POST", path: "/v1/devices/{id}/codes", summary: "Make a new enrolment or claim code; the old one ends.",
		status: http.StatusCreated, rule: writes(access.Administrator, access.Owner)}, a.addCode)
	handle(a, route{method: "POST", path: "/v1/devices/{id}/revocation", summary: "Take back a device's certificates and end its connections.",
		rule: writes(access.Administrator, access.Owner)}, a.revokeDevice)
}

func (a *API) addDevice(ctx context.Context, by access.Principal, in *addDevice) (*reply[AddedDevice], error) {
	b := &in.Body
	spec := custody.DeviceSpec{Label: b.Label, Unclaimed: b.Unclaimed, Profile: b.Profile, Serial: b.Serial}
	for _, of := range []struct {
		text string
		id   *holdfast.PartyID
	}{{b.Owner, &spec.Owner}, {b.Subject, &spec.Subject}} {
		if of.text == "" {
			continue
		}
		p, err := a.party(ctx, by, of.text)
		if err != nil {
			return nil, err
		}
		*of.id = p.ID
	}
	if b.Gateway != "" {
		g, err := a.device(ctx, by, b.Gateway)
		if err != nil {
			return nil, err
		}
		spec.Gateway = g.ID
	}
	added, err := a.Custody.AddDevice(ctx, by.Credential, spec)
	if err != nil {
		return nil, err
	}
	n, err := a.namesOf(ctx, by, added.Device.Owner, added.Device.Subject)
	if err != nil {
		return nil, err
	}
	out := AddedDevice{Device: deviceDoc(added.Device, n), ClaimCode: added.ClaimCode, TakesFrom: moment(added.TakesFrom)}
	out.Device.Serial = b.Serial
	if spec.Gateway.IsZero() {
		out.EnrolmentCode, out.EnrolmentUntil, err = a.enrolmentCode(ctx, added.Device, b.Days)
	}
	return &reply[AddedDevice]{out}, err
}

func (a *API) enrolmentCode(ctx context.Context, d custody.Device, days int) (string, *time.Time, error) {
	_, devices := a.Addresses()
	code, until, err := a.Identity.MakeCode(ctx, d.ID, d.Assignment, identity.CodeOptions{
		Address: devices, Life: time.Duration(days) * 24 * time.Hour,
	})
	if err != nil {
		return "", nil, err
	}
	return code.Text(), moment(until), nil
}

func (a *API) addCode(ctx context.Context, by access.Principal, in *struct {
	Named
	Body struct {
		Kind string `json:"kind,omitempty" enum:"enrolment,claim" default:"enrolment"`
		Days int    `json:"days,omitempty" minimum:"1" maximum:"400" doc:"How long an enrolment code lives, default 7."`
	} `required:"false"`
}) (*reply[Codes], error) {
	d, err := a.device(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.ownsDevice(ctx, by, d); err != nil {
		return nil, err
	}
	var out Codes
	switch {
	case in.Body.Kind == "claim" && by.Role == access.Owner:
		err = holdfast.Errorf(holdfast.Denied, "a claim code is an administrator's to make; to give your device to another, offer a transfer")
	case in.Body.Kind == "claim":
		out.ClaimCode, err = a.Custody.NewClaimCode(ctx, by.Credential, d.ID)
	case d.State != custody.Active && d.State != custody.Unclaimed:
		err = holdfast.Errorf(holdfast.Conflict, "the device is %s: add a new one", d.State)
	case !d.Gateway.IsZero():
		err = holdfast.Errorf(holdfast.Conflict, "the device is a declared child: its gateway has the certificate")
	default:
		out.EnrolmentCode, out.EnrolmentUntil, err = a.enrolmentCode(ctx, d, in.Body.Days)
	}
	return &reply[Codes]{out}, err
}

func (a *API) revokeDevice(ctx context.Context, by access.Principal, in *struct {
	Named
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"128" doc:"For the record."`
	}
}) (*nothing, error) {
	d, err := a.device(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.ownsDevice(ctx, by, d); err != nil {
		return nil, err
	}
	reason := "revoked by " + by.Role.String()
	if in.Body != nil && in.Body.Reason != "" {
		reason = in.Body.Reason
	}
	return &nothing{}, a.Identity.Revoke(ctx, d.ID, reason)
}

// ownsDevice refuses a caller who is neither an administrator nor the device's owner.
func (a *API) ownsDevice(ctx context.Context, by access.Principal, d custody.Device) error {
	if by.Role != access.Owner {
		return nil
	}
	ok, err := a.stands(ctx, by, d.Owner)
	if err != nil || !ok {
		return orElse(err, holdfast.Errorf(holdfast.Denied, "this needs the credential of the device's owner"))
	}
	return nil
}

func (a *API) listDevices(ctx context.Context, by access.Principal, in *struct {
	Owner     string `query:"owner" doc:"A name or an id: that party's only."`
	Unclaimed bool   `query:"unclaimed" doc:"Only those that nobody has claimed, to administrators."`
	Paging
}) (*reply[Page[Device]], error) {
	all, err := a.visibleDevices(ctx, by, in.Owner, in.Unclaimed)
	if err != nil {
		return nil, err
	}
	n, err := a.names(ctx, by)
	if err != nil {
		return nil, err
	}
	page, err := paged(all, func(d custody.Device) string { return d.ID.String() }, in.Paging)
	if err != nil {
		return nil, err
	}
	out := mapped(page, func(d custody.Device) Device { return deviceDoc(d, n) })
	for i, d := range page.Items {
		if out.Items[i], err = a.deviceSeen(ctx, by, d, n); err != nil {
			return nil, err
		}
	}
	return &reply[Page[Device]]{out}, nil
}

func (a *API) visibleDevices(ctx context.Context, by access.Principal, owner string, unclaimed bool) ([]custody.Device, error) {
	switch {
	case by.Role == access.Administrator && unclaimed && owner == "":
		return a.Custody.Devices(ctx, holdfast.PartyID{})
	case unclaimed:
		return nil, holdfast.Errorf(holdfast.Denied, "unclaimed devices are nobody's: administrators see them")
	case by.Role == access.Administrator && owner == "":
		return a.Custody.AllDevices(ctx)
	}
	p, err := a.party(ctx, by, owner)
	if err != nil {
		return nil, err
	}
	all, err := a.ofParty(ctx, p.ID)
	if err != nil || by.Role == access.Administrator {
		return all, err
	}
	visible := all[:0]
	for _, d := range all {
		ok, err := a.sees(ctx, by, d)
		if err != nil {
			return nil, err
		}
		if ok {
			visible = append(visible, d)
		}
	}
	return visible, nil
}

// ofParty returns the devices of which a party is the owner or the data subject.
func (a *API) ofParty(ctx context.Context, id holdfast.PartyID) ([]custody.Device, error) {
	all, err := a.Custody.Devices(ctx, id)
	if err != nil {
		return nil, err
	}
	held, err := a.Custody.Holdings(ctx, id)
	if err != nil {
		return nil, err
	}
	have := make(map[holdfast.DeviceID]bool, len(all))
	for _, d := range all {
		have[d.ID] = true
	}
	for _, s := range held {
		if have[s.Device] {
			continue
		}
		have[s.Device] = true
		d, err := a.Custody.Device(ctx, s.Device)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

func deviceDoc(d custody.Device, n names) Device {
	out := Device{ID: d.ID.String(), Label: d.Label, Owner: n.ref(d.Owner), Subject: n.ref(d.Subject), State: d.State, Profile: d.Profile,
		ProfileVersion: d.ProfileVersion, Child: d.Child, Added: moment(d.Added)}
	if !d.Gateway.IsZero() {
		out.Gateway = d.Gateway.String()
	}
	return out
}

// wholeDevice adds what takes a question for each device.
func (a *API) wholeDevice(ctx context.Context, by access.Principal, d custody.Device) (Device, error) {
	n, err := a.namesOf(ctx, by, d.Owner, d.Subject)
	if err != nil {
		return Device{}, err
	}
	out, err := a.deviceSeen(ctx, by, d, n)
	if err != nil {
		return Device{}, err
	}
	if out.Streams, err = a.streamsSeen(ctx, by, d); err != nil {
		return out, err
	}
	if by.Role == access.Owner && d.Owner != by.Party && d.Subject != by.Party {
		return out, nil // a period of it is his, its certificates are not
	}
	if by.Role == access.Administrator && !d.Unit.IsZero() {
		u, err := a.Custody.Unit(ctx, d.Unit)
		if err != nil {
			return out, err
		}
		out.Serial = u.Serial
	}
	live := a.Identity.Connected(d.ID)
	out.Connections = &live
	certificates, err := a.Identity.Certificates(ctx, d.ID)
	if err != nil {
		return out, err
	}
	for _, c := range certificates {
		out.Certificates = append(out.Certificates, Certificate{
			Fingerprint: hex.EncodeToString(c.Fingerprint[:]), From: moment(c.NotBefore), Until: moment(c.NotAfter), State: c.State,
		})
	}
	return out, nil
}

// streamsSeen returns the streams of those assignments of a device whose data are the
// caller's.
func (a *API) streamsSeen(ctx context.Context, by access.Principal, d custody.Device) ([]Stream, error) {
	if by.Role != access.Owner {
		if ok, err := a.operates(ctx, by); err != nil || !ok {
			return nil, err
		}
	}
	mine, err := a.slices(ctx, by.Party, d.ID)
	if err != nil {
		return nil, err
	}
	return a.streamDocs(ctx, mine)
}

// streamsLeft returns the streams of an assignment but those that an erasure under way
// covers altogether.
func (a *API) streamsLeft(ctx context.Context, of custody.Assignment) ([]*custody.Stream, error) {
	all, err := a.Custody.StreamsOfAssignment(ctx, of)
	return slices.DeleteFunc(slices.Clone(all), func(s *custody.Stream) bool { return a.Erasure.All(s.Assignment, s.ID) }), err
}

// streamDocs describes the streams of assignments, by name.
func (a *API) streamDocs(ctx context.Context, held []custody.Assignment) ([]Stream, error) {
	var streams []*custody.Stream
	for _, h := range held {
		of, err := a.streamsLeft(ctx, h)
		if err != nil {
			return nil, err
		}
		streams = append(streams, of...)
	}
	slices.SortStableFunc(streams, func(x, y *custody.Stream) int { return cmp.Compare(x.Name, y.Name) })
	var out []Stream
	for _, s := range streams {
		x, err := a.Measure.Extent(ctx, s.Assignment, s.ID, a.Grants.Since(query.CollectedOf(s), time.Now()))
		if err != nil {
			return nil, err
		}
		out = append(out, streamDoc(s, x))
	}
	return out, nil
}

func streamDoc(s *custody.Stream, x series.Extent) Stream {
	doc := Stream{Name: s.Name, Type: s.Type.String(), Unit: s.Unit, Category: s.Category, Sensitivity: s.Sensitivity,
		Purposes: words(s.Purposes), RetentionDays: s.RetentionDays, Readings: x.Rows}
	if x.Rows > 0 {
		doc.First, doc.Last = momentOf(x.First), momentOf(x.Last)
	}
	return doc
}
