package server

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/internal/custody"
	"github.com/holdfast-iot/holdfast/internal/twin"
)

// order is a command as a device's own tools show it.
type order struct{ ID, Name string }

// A device that was switched off, and a hub that was stopped meanwhile: mosquitto_sub
// gets the command when it comes back, mosquitto_pub answers it, and the sender who
// waits is told. curl gets the next one by HTTPS and answers it. What the device
// reports, and what is wanted of it, goes the same ways.
func TestCommandsReachForeignClients(t *testing.T) {
	need(t, "bash", "mosquitto_pub", "mosquitto_sub", "curl")
	h := newHouse(t)
	anna := h.person("Anna")
	pump := h.enrolled(anna.Party, "pump")
	dir := pump.files(t)
	by := twin.Caller{Credential: anna.Credential, Party: anna.Party, Owner: true}
	send := func(name string) holdfast.CommandID {
		t.Helper()
		c, err := h.twin.Send(t.Context(), by, twin.Spec{Device: pump.Device, Name: name, Args: []byte(`{"speed":3}`)})
		if err != nil {
			t.Fatal(err)
		}
		return c.ID
	}
	done := func(id holdfast.CommandID, result string) {
		t.Helper()
		c, err := h.twin.Wait(t.Context(), by, id, 20*time.Second)
		if err != nil || c.State != twin.Done || string(c.Result) != result {
			t.Errorf("%s %s, %v", c.State, c.Result, err)
		}
	}
	_, end := h.serve()
	first := send("start")
	if _, err := h.twin.SetDesired(t.Context(), by, pump.Device, -1, twin.Change{State: []byte(`{"speed":3}`)}); err != nil {
		t.Fatal(err)
	}
	end() // the hub stops while the device is off
	at, _ := h.serve()
	host, port, _ := strings.Cut(strings.TrimPrefix(at.MQTT, "mqtts://"), ":")
	how := ` -q 1 -h ` + host + ` -p ` + port + ` --cafile ca.pem --cert cert.pem --key key.pem `

	lines := listen(t, dir, `exec mosquitto_sub -V 5 -i pump -W 40 -t 'cmd/#' -t desired -F '%t %p'`+how)
	var got order
	for range 2 { // one of each, in any order
		topic, payload, _ := strings.Cut(<-lines, " ")
		switch topic {
		case "desired":
			if payload != `{"version":1,"state":{"speed":3}}` {
				t.Errorf("desired %s", payload)
			}
		default:
			if err := json.Unmarshal([]byte(payload), &got); err != nil || topic != "cmd/"+first.String() || got.ID != first.String() || got.Name != "start" {
				t.Errorf("%s %s %v", topic, payload, err)
			}
		}
	}
	if out, err := shell(t, dir, `mosquitto_pub -i other -t cmd/`+first.String()+`/result -m '{"status":"done","result":{"rpm":2900}}'`+how+
		` && mosquitto_pub -i other -t reported -m '{"state":{"speed":3,"on":true}}'`+how); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	done(first, `{"rpm":2900}`)
	second := send("stop") // while it listens
	if line := <-lines; !strings.HasPrefix(line, "cmd/"+second.String()+" ") {
		t.Errorf("given %s", line)
	}

	curl := `curl -sSf --max-time 30 --cacert ca.pem --cert cert.pem --key key.pem `
	out, err := shell(t, dir, curl+`'`+at.Device+`/v1/commands?wait=20s'`)
	var answer struct{ Commands []order }
	if err != nil || json.Unmarshal([]byte(out), &answer) != nil || len(answer.Commands) != 1 || answer.Commands[0].ID != second.String() {
		t.Fatalf("%v: %s", err, out)
	}
	for _, ask := range []string{
		`-d '{"status":"done"}' ` + at.Device + `/v1/commands/` + second.String() + `/result`,
		`-X PATCH -d '{"on":false}' ` + at.Device + `/v1/reported`,
		`-o desired.json -D head ` + at.Device + `/v1/desired && grep -qi 'etag: "1"' head && grep -q '"speed":3' desired.json`,
		`-H 'If-None-Match: "1"' -w '%{http_code}' ` + at.Device + `/v1/desired | grep -q 304`,
		`-X PUT -d '{"speed":3}' ` + at.Device + `/v1/reported`,
	} {
		if out, err := shell(t, dir, curl+ask); err != nil {
			t.Errorf("curl %s: %v: %s", ask, err, out)
		}
	}
	done(second, "")
	state, err := h.twin.Twin(t.Context(), by, pump.Device)
	if err != nil || string(state.Reported) != `{"speed":3}` || state.ReportedVersion != 3 {
		t.Errorf("reported %s version %d, %v", state.Reported, state.ReportedVersion, err)
	}
	if out, err := shell(t, dir, `curl -sS --cacert ca.pem --cert cert.pem --key key.pem '`+at.Device+`/v1/commands?wait=2m'`); err != nil || !strings.Contains(out, "at most 1m0s") {
		t.Errorf("%v: %s", err, out)
	}
	if got := h.send(pump.Peer, number("rpm", time.Now(), 2900)); got != nil {
		t.Error(got)
	}
}

// listen runs a program until the test ends and gives its lines.
func listen(t *testing.T, dir, script string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, "bash", "-c", script)
	c.Dir = dir
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() { cancel(); c.Wait() })
	return lines
}

// Commands follow the device's own assignment: a guest's time is left alone, and with
// the release nothing that waits goes to anybody.
func TestCommandsStayWithTheOwner(t *testing.T) {
	h := newHouse(t)
	anna, ben := h.person("Anna"), h.person("Ben")
	car := h.device(anna.Party, "car")
	by, peer := twin.Caller{Credential: anna.Credential, Party: anna.Party, Owner: true}, twin.Peer{Device: car.Device, Assignment: car.Assignment}
	first := h.wish(anna, car.Device, "lock")
	poll := func() int {
		t.Helper()
		all, err := h.twin.Poll(t.Context(), peer, "", holdfast.CommandID{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := poll(); n != 1 {
		t.Errorf("%d commands before", n)
	}
	loan, err := h.custody.AddPeriod(t.Context(), anna.Credential, custody.PeriodSpec{Device: car.Device, Owner: ben.Party,
		Terms: custody.Terms{Basis: custody.Loan, To: time.Now().Add(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	if n := poll(); n != 0 {
		t.Errorf("%d commands during a loan", n)
	}
	if _, err := h.twin.Report(t.Context(), peer, "", twin.Change{State: []byte(`{"at":"bens"}`)}); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("state during a loan: %v", err)
	}
	if _, err := h.twin.Twin(t.Context(), twin.Caller{Credential: ben.Credential, Party: ben.Party, Owner: true}, car.Device); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("the guest sees: %v", err)
	}
	if err := h.custody.CloseAssignment(t.Context(), anna.Credential, loan.ID); err != nil {
		t.Fatal(err)
	}
	if n := poll(); n != 1 {
		t.Errorf("%d commands after the loan", n)
	}
	next, err := h.desk.Release(t.Context(), anna, car.Device)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.twin.Poll(t.Context(), peer, "", holdfast.CommandID{}, 0); holdfast.KindOf(err) != holdfast.Denied {
		t.Errorf("a device that was given back is given: %v", err)
	}
	if all, err := h.twin.Poll(t.Context(), twin.Peer{Device: next.ID, Assignment: next.Assignment}, "", holdfast.CommandID{}, 0); len(all) > 0 {
		t.Errorf("the next device is given %d, %v", len(all), err)
	}
	if err := h.twin.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := h.twin.Command(t.Context(), by, first); err != nil || c.State != twin.Cancelled {
		t.Errorf("it is %s, %v", c.State, err)
	}
}
