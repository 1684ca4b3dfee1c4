package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-iot/holdfast"
	"github.com/holdfast-iot/holdfast/client"
)

// patience bounds each wait.
const patience = 30 * time.Second

// holdfast runs a command to its end and returns what it printed.
func (d *drill) holdfast(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("holdfast %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (d *drill) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.opts.Program, args...)
	cmd.Args[0] = "holdfast"
	for _, v := range os.Environ() { // settings of whoever starts the drill are not the drill's
		if !strings.HasPrefix(v, "HOLDFAST_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	dieWithUs(cmd)
	return cmd
}

// hub is a hub that runs as a process of its own.
type hub struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan error
	at    struct{ API, Device, MQTT string }
	data  string
	admin *client.Client
}

// serve starts a hub and waits until it answers.
func (d *drill) serve(ctx context.Context, data string, more ...string) (*hub, error) {
	h := &hub{data: data, ended: make(chan error, 1)}
	h.cmd = d.command(context.WithoutCancel(ctx), append([]string{"serve", "--data", data, "--listen-api", "127.0.0.1:0", "--listen-device", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0",
		"--webhook-allow", "127.0.0.1/32", "--mail-server", "smtp://127.0.0.1:9", "--mail-from", "drill@example.org", "--log-level", "warn"}, more...)...)
	h.cmd.Stderr = &h.log
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start hub: %w", err)
	}
	go func() { h.ended <- h.cmd.Wait() }()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(data, "run.json"))
		if err == nil && json.Unmarshal(b, &h.at) == nil {
			break
		}
		select {
		case err := <-h.ended:
			return nil, holdfast.Errorf(holdfast.Internal, "the hub did not start: %w: %s", err, strings.TrimSpace(h.log.String()))
		default:
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), holdfast.Errorf(holdfast.Internal, "the hub does not answer"), h.stop())
		}
	}
	var err error
	h.admin, err = client.New(client.Options{Hub: h.at.API, Identity: filepath.Join(data, "admin"), AnyName: true})
	if err != nil {
		return nil, errors.Join(err, h.stop())
	}
	return h, nil
}

// stop ends the hub as an operator would.
func (h *hub) stop() error {
	if h == nil || h.cmd == nil {
		return nil
	}
	if h.admin != nil {
		h.admin.Close()
	}
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop hub: %w", err)
	}
	cmd := h.cmd
	h.cmd = nil
	select {
	case err := <-h.ended:
		if err != nil {
			return fmt.Errorf("the hub ended badly: %w: %s", err, strings.TrimSpace(h.log.String()))
		}
		return nil
	case <-time.After(patience):
		cmd.Process.Kill()
		<-h.ended
		return holdfast.Errorf(holdfast.Internal, "the hub does not end")
	}
}

// as makes the client of who has a token.
func (h *hub) as(token string) (*client.Client, error) {
	ca, err := os.ReadFile(filepath.Join(h.data, "admin", "ca.pem"))
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Hub: h.at.API, Token: token, CA: ca, AnyName: true})
}

// invite gives a party a credential of its own.
func (h *hub) invite(ctx context.Context, party string) (string, error) {
	var invited struct{ Code string }
	if err := h.admin.Do(ctx, http.MethodPost, "/v1/parties/"+party+"/invitations", nil, &invited); err != nil {
		return "", err
	}
	guest, err := h.as("")
	if err != nil {
		return "", err
	}
	defer guest.Close()
	var made struct{ Token string }
	err = guest.Do(ctx, http.MethodPost, "/v1/invitations/redeem", map[string]string{"code": invited.Code}, &made)
	return made.Token, err
}

// refused says that a question was refused, or what came instead.
func refused(n int, err error) error {
	switch k := holdfast.KindOf(err); {
	case err == nil:
		return holdfast.Errorf(holdfast.Internal, "%d readings were given out", n)
	case k == holdfast.Denied || k == holdfast.NotFound:
		return nil
	}
	return err
}
