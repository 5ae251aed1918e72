package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// Opener loads a model in the child.
type Opener func(context.Context, engine.Options) (infer.Backend, error)

// socketFD is where the child finds the socket: behind standard input, output and error.
const socketFD = 3

// Main is the child's whole program: it serves the parent that started it until the connection
// ends, which it does with the parent at the latest. It ignores signals that a terminal or a
// service manager sends to all processes: when to end, the parent says. It does not close the
// backend when the parent is gone: the caller ends the process.
func Main(open Opener) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	file := os.NewFile(socketFD, "socket")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close(), closeInherited()); err != nil {
		return &infer.Error{
			Op: "worker", Kind: infer.KindInvalid, Hint: "norion serve starts workers by itself",
			Err: err,
		}
	}
	return serve(conn, open)
}

// serve answers on one connection until it ends.
func serve(conn net.Conn, open Opener) error {
	codec, err := newCodec()
	if err != nil {
		return err
	}
	s := grpc.NewServer(
		grpc.ForceServerCodec(codec),
		grpc.MaxRecvMsgSize(messageBytesMax), grpc.MaxSendMsgSize(messageBytesMax),
		grpc.InitialWindowSize(streamBytesMax), grpc.MaxConcurrentStreams(streamsMax),
	)
	s.RegisterService(describe(), &server{open: open})
	l := &listener{conns: make(chan net.Conn, 1), ended: make(chan struct{})}
	l.conns <- closing{conn, sync.OnceFunc(func() { close(l.ended) })}
	if err := s.Serve(l); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// listener accepts the one connection that there is, and then waits for its end.
type listener struct {
	conns chan net.Conn
	ended chan struct{} // closed with the connection
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, io.EOF
	}
}

// Close implements net.Listener. The connection is gRPC's.
func (l *listener) Close() error { return nil }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// closing is a connection whose end is noticed. gRPC closes it as soon as it is broken.
type closing struct {
	net.Conn
	ended func()
}

// Close implements net.Conn.
func (c closing) Close() error {
	defer c.ended()
	return c.Conn.Close()
}

// server answers the parent. The model is loaded once.
type server struct {
	open Opener

	mu      sync.Mutex
	loaded  bool // or loading
	backend infer.Backend
}

// get gives the model once it is loaded.
func (s *server) get() (infer.Backend, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backend == nil {
		return nil, &infer.Error{Op: "worker", Kind: infer.KindClosed, Err: errors.New("no model yet")}
	}
	return s.backend, nil
}

// load confines this process and loads the model.
func (s *server) load(ctx context.Context, m *loading, progress func(float32)) (
	*infer.Info, error,
) {
	s.mu.Lock()
	again := s.loaded
	s.loaded = true
	s.mu.Unlock()
	if again {
		return nil, &infer.Error{Op: "load", Kind: infer.KindInvalid, Err: errors.New("loaded before")}
	}
	notes, err := m.Confine.apply(m.Engine.CacheDir)
	if err != nil {
		return nil, &infer.Error{
			Op: "confine", Kind: infer.KindInternal, Hint: "try it with --unconfined, and report this",
			Err: err,
		}
	}
	o := m.Engine
	if m.Verbose {
		level := &slog.HandlerOptions{Level: slog.LevelDebug}
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, level))
	}
	o.Progress = func(done float32) bool {
		progress(done)
		return ctx.Err() == nil
	}
	b, err := s.open(ctx, o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.backend = b
	s.mu.Unlock()
	info := b.Info()
	info.Notes = append(notes, info.Notes...)
	return &info, nil
}

// at is the deadline that is so far away, or none for 0.
func at(left time.Duration) time.Time {
	if left == 0 {
		return time.Time{}
	}
	return time.Now().Add(left)
}
