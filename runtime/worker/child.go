package worker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/norion/norion/runtime/infer"
)

// child is a process with a model, or one that is loading it.
type child struct {
	log  *slog.Logger
	info infer.Info
	cmd  *exec.Cmd
	sock net.Conn
	conn *grpc.ClientConn // over sock

	broken chan struct{} // closed with the connection: there is nothing more to come
	exited chan struct{} // closed when the process has been reaped, and its output read
	exit   error         // how it ended; read after exited

	mu     sync.Mutex
	reason error // why it was condemned
}

// errBroken is why a child ends whose connection did.
var errBroken = errors.New("its connection ended")

// newChild starts a process and watches it. Whoever starts it waits for exited.
func newChild(o *Options, log *slog.Logger) (*child, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	c := &child{log: log, broken: make(chan struct{}), exited: make(chan struct{})}
	c.sock = closing{ours, sync.OnceFunc(func() { close(c.broken) })}
	if c.conn, err = dial(c.sock); err != nil {
		return nil, errors.Join(err, c.sock.Close(), theirs.Close())
	}
	errOut, errIn, err := os.Pipe()
	if err != nil {
		c.hangUp()
		return nil, errors.Join(err, theirs.Close())
	}
	c.cmd, err = command(o)
	if err == nil {
		c.cmd.Stderr, c.cmd.ExtraFiles = errIn, []*os.File{theirs}
		err = c.run(errOut)
	}
	err = errors.Join(err, errIn.Close(), theirs.Close())
	if err != nil {
		c.hangUp()
		return nil, errors.Join(err, errOut.Close())
	}
	return c, nil
}

// dial makes a client of a connection. It never makes another one.
func dial(conn net.Conn) (*grpc.ClientConn, error) {
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	first := make(chan net.Conn, 1)
	first <- conn
	return grpc.NewClient("passthrough:///worker",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // nobody else has the other end
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return nil, errBroken
			}
		}),
		grpc.WithInitialWindowSize(streamBytesMax), grpc.WithIdleTimeout(0), grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec),
			grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
	)
}

// run starts the process and waits for its end elsewhere.
func (c *child) run(errOut *os.File) error {
	started := make(chan error)
	go func() {
		defer stayOnThread()()
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		tail := make(chan []string)
		go func() { tail <- c.relay(errOut) }()
		c.exit = c.cmd.Wait()
		c.say(<-tail)
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return err
	}
	go func() {
		select {
		case <-c.broken:
			c.condemn(errBroken)
		case <-c.exited:
		}
	}()
	return nil
}

// Bounds of what a child's standard error leaves in the log.
const (
	lineBytesMax = 4 << 10
	tailLines    = 20
)

// relay hands the lines of the child's standard error to the log, and returns the last ones.
func (c *child) relay(errOut *os.File) (tail []string) {
	defer errOut.Close() //nolint:errcheck // it was only read
	r := bufio.NewReaderSize(errOut, lineBytesMax)
	for {
		line, cut, err := r.ReadLine()
		if err != nil {
			return tail
		}
		c.log.Info("worker", "says", string(line))
		if len(tail) == tailLines {
			tail = tail[1:]
		}
		tail = append(tail, string(line))
		for cut && err == nil { // the rest of a line that is too long
			_, cut, err = r.ReadLine()
		}
	}
}

// say logs how the child ended, unless it was asked to.
func (c *child) say(tail []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !errors.Is(c.reason, errStopped) {
		c.log.Error("a worker ended", "pid", c.cmd.Process.Pid, "exit", exitText(c.exit),
			"reason", c.reason, "said", tail)
	}
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// answers is false once there is nothing more to come.
func (c *child) answers() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return false
	}
	select {
	case <-c.broken:
		return false
	default:
		return true
	}
}

// errStopped is the reason of a child that was asked to end.
var errStopped = errors.New("it was stopped")

// condemn kills the process. The first reason is kept.
func (c *child) condemn(reason error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = reason
	}
	c.mu.Unlock()
	_ = c.cmd.Process.Kill() // an error says that it has ended
}

// hangUp ends the connection, and with it the child. It can be called again.
func (c *child) hangUp() {
	_ = c.conn.Close() // an error says that it is closed
	_ = c.sock.Close()
}

// wait waits until the process is gone, and frees what the parent held for it.
func (c *child) wait() {
	<-c.exited
	c.hangUp()
}

// load has the child load the model. The child's ends of ctx and of the time are the caller's.
func (c *child) load(ctx context.Context, m *loading, progress func(float32) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := question(ctx, c, "load", m)
	for err == nil {
		var e loadEvent
		switch err = s.RecvMsg(&e); {
		case err != nil:
		case e.Fault != nil:
			return e.Fault.err()
		case e.Info != nil:
			c.info = *e.Info
			return nil
		case progress != nil && !progress(e.Progress):
			cancel(context.Canceled)
			return ended("load", ctx)
		}
	}
	if ctx.Err() != nil {
		return ended("load", ctx)
	}
	c.condemn(err)
	return err
}

// question opens a stream of answers.
func question(ctx context.Context, c *child, op string, m any) (grpc.ClientStream, error) {
	s, err := c.conn.NewStream(ctx, serverStream(), method(op))
	if err != nil {
		return nil, err
	}
	if err = s.SendMsg(m); err != nil && !errors.Is(err, io.EOF) { // RecvMsg says what EOF was
		return nil, err
	}
	return s, s.CloseSend()
}

// ask asks one thing. An *infer.Error is the child's answer; other errors are the connection's.
func ask[Out, In any](ctx context.Context, c *child, op string, in *In) (Out, error) {
	var r reply[Out]
	if err := c.conn.Invoke(ctx, method(op), in, &r); err != nil {
		return r.Value, err
	}
	return r.Value, r.Fault.err()
}

// generate hands the chunks of an answer on until it ends or yield is false. An *infer.Error is
// the child's answer; other errors are the connection's.
func (c *child) generate(
	ctx context.Context, m *generation, yield func(infer.Chunk, error) bool,
) error {
	s, err := question(ctx, c, "generate", m)
	if err != nil {
		return err
	}
	final := false
	for {
		var p piece
		switch err := s.RecvMsg(&p); {
		case errors.Is(err, io.EOF) && final:
			return nil
		case err != nil:
			return err
		case p.Fault != nil:
			return p.Fault.err()
		}
		final = p.Chunk.Final != nil
		if !yield(p.Chunk, nil) {
			return nil
		}
	}
}

// stop has the child end its requests and the model, and then itself. It kills a child that takes
// longer than limit, which is an error, as what the model says of its end.
func (c *child) stop(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c.mu.Lock()
	c.reason = errStopped
	c.mu.Unlock()
	_, err := ask[nothing](ctx, c, "close", &nothing{})
	var said *infer.Error
	if !errors.As(err, &said) {
		err = nil // it is gone already, or hangs
	}
	c.hangUp()
	select {
	case <-c.exited:
	case <-ctx.Done():
		_ = c.cmd.Process.Kill()
		err = lost("close", errors.New("the model's process did not end in time and was killed"))
	}
	c.wait()
	return err
}
