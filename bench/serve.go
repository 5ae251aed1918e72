package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Times of a server's life.
const (
	serverStartTimeout = 2 * time.Minute
	serverStopTimeout  = 10 * time.Second
	serverAskEvery     = 10 * time.Millisecond
	serverStarts       = 3 // tries to get a port that nobody else takes meanwhile
)

// server is a llama-server in a process of its own, on a free port of the loopback.
type server struct {
	*serverClient
	program Program // its Args are those of the server
	keep    bool    // slots are saved before a restart and restored after

	cmd   *exec.Cmd
	words *tail
	ended chan struct{} // closed when the process has gone
	peak  int64         // of the processes that have gone, bytes
}

// startServer starts a server and waits until it answers. Errors: ErrProcess, ErrOutput, ctx's.
func startServer(ctx context.Context, p Program, keep bool, extra map[string]any) (*server, error) {
	s := &server{program: p, keep: keep, serverClient: newServerClient("", extra)}
	return s, s.start(ctx)
}

func (s *server) start(ctx context.Context) error {
	var err error
	for range serverStarts {
		if err = s.startOnce(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (s *server) startOnce(ctx context.Context) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	s.base = "http://127.0.0.1:" + strconv.Itoa(port)
	args := slices.Concat(s.program.Args,
		[]string{"--host", "127.0.0.1", "--port", strconv.Itoa(port)})
	// The context of a run bounds a process: it goes with it.
	s.cmd, s.words = exec.CommandContext(ctx, s.program.Path, args...), &tail{}
	s.cmd.Env = append(os.Environ(), "LLAMA_LOG_COLORS=off")
	s.cmd.Stdout, s.cmd.Stderr = s.words, s.words
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = serverStopTimeout
	if err := s.cmd.Start(); err != nil {
		s.ended = nil
		return s.failed(err)
	}
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // how it ended does not matter: who needs it notices that it has gone
		close(ended)
	}(s.cmd, s.ended)
	ready, cancel := context.WithTimeout(ctx, serverStartTimeout)
	defer cancel()
	if err := s.wait(ready); err != nil {
		return errors.Join(s.failed(err), s.Close())
	}
	return nil
}

func (s *server) failed(err error) error {
	return &Error{
		Op: "measure", Kind: ErrProcess, Field: string(s.program.Side),
		Hint: "run it by hand: " + s.program.Path + " " + strings.Join(s.program.Args, " "),
		Err:  fmt.Errorf("%w: %s", err, s.words),
	}
}

// wait asks for the server's health until it is well.
func (s *server) wait(ctx context.Context) error {
	again := time.NewTicker(serverAskEvery)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/health", nil)
		if err != nil {
			return err
		}
		if resp, err := s.http.Do(req); err == nil {
			if err := resp.Body.Close(); err != nil {
				return err
			}
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-again.C:
		}
	}
}

// freePort asks the system for a port. Another program may take it before it is used.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// Restart stops the process and starts another. What it can save, it saves.
func (s *server) Restart(ctx context.Context) error {
	if s.keep {
		if err := s.keepSlots(ctx, "save"); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	if s.keep {
		return s.keepSlots(ctx, "restore")
	}
	return nil
}

func (s *server) resident() int64 { return residentBytes(s.cmd.Process.Pid) }

// Close stops the process, at last by force, and waits until it has gone. A second call does
// nothing.
func (s *server) Close() error {
	if s.ended == nil {
		return nil
	}
	s.http.CloseIdleConnections()
	err := s.cmd.Process.Signal(os.Interrupt)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	late := time.NewTimer(serverStopTimeout)
	defer late.Stop()
	select {
	case <-s.ended:
	case <-late.C:
		err = errors.Join(err, s.cmd.Process.Kill())
		<-s.ended
	}
	s.peak = max(s.peak, peakRSS(s.cmd.ProcessState))
	s.ended = nil
	return err
}
