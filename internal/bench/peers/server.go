package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/holdfast-iot/holdfast/internal/bench"
)

// Server is a peer that runs.
type Server struct {
	Release
	*bench.Process
	dir, data string // temporary; data is in dir
}

// spec is what start needs to know.
type spec struct {
	release Release
	program string
	user    string // runs as him if we are root
	args    func(dir, data string) []string
	prepare func(s *Server, as *syscall.SysProcAttr) error // before the program starts; may be nil
	ready   func(ctx context.Context) error
}

// start makes the folder and runs the program until it answers.
func start(ctx context.Context, p spec) (_ *Server, err error) {
	s := &Server{Release: p.release}
	if s.dir, err = os.MkdirTemp("", "holdfast-peer-"); err != nil {
		return nil, fmt.Errorf("make a folder for %s: %w", p.release.Name, err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(s.dir)
		}
	}()
	s.data = filepath.Join(s.dir, "data")
	if err := os.Mkdir(s.data, 0o700); err != nil {
		return nil, err
	}
	as := &syscall.SysProcAttr{}
	if p.user != "" && os.Geteuid() == 0 {
		if as.Credential, err = credential(p.user); err != nil {
			return nil, err
		}
		if err := errors.Join(os.Chmod(s.dir, 0o711), os.Chown(s.data, int(as.Credential.Uid), int(as.Credential.Gid))); err != nil {
			return nil, err
		}
	}
	if p.prepare != nil {
		if err := p.prepare(s, as); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(p.program, p.args(s.dir, s.data)...)
	cmd.Dir, cmd.SysProcAttr = s.data, as
	s.Process, err = bench.StartProcess(ctx, p.release.Name, cmd, p.ready)
	return s, err
}

// Stop ends the peer and removes its files.
func (s *Server) Stop() error { return errors.Join(s.Process.Stop(), os.RemoveAll(s.dir)) }

// Disk is what the peer's files hold.
func (s *Server) Disk() (int64, error) { return bench.Files(s.data) }

// credential is that of a user by name.
func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("find user %s: %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// freePort is a port that nobody listens on. Somebody may take it before the peer
// does; then the peer says so and ends.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
