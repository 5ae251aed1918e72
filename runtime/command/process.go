package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/norion/norion/runtime/infer"
)

// Bounds of what is read of a program.
const (
	LineBytesMax   = 4 << 20  // of one line
	AnswerBytesMax = 64 << 20 // of the lines of one answer that wait to be taken
	logBytesMax    = 4 << 10  // of one line of its standard error
)

// linesMax bounds the lines that wait to be written to a program.
const linesMax = 256

// process is a program that runs. Its four goroutines end with it; wait waits for them.
type process struct {
	log   *slog.Logger
	cmd   *exec.Cmd
	in    *os.File // its standard input
	out   *os.File // its standard output
	said  *os.File // its standard error
	lines chan []byte
	gone  chan struct{} // closed when its output has ended
	all   sync.WaitGroup

	mu     sync.Mutex
	calls  map[uint64]*call
	last   uint64 // id of the newest call
	reason error  // why it was condemned, or io.EOF
}

// newProcess starts a program.
func newProcess(o *Options) (*process, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), theirIn.Close())
	}
	said, theirErr, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), theirIn.Close(), out.Close(), theirOut.Close())
	}
	p := &process{
		log: o.Logger, in: in, out: out, said: said, lines: make(chan []byte, linesMax),
		gone: make(chan struct{}), calls: map[uint64]*call{},
	}
	p.cmd = exec.CommandContext(context.Background(), o.Command[0], o.Command[1:]...)
	p.cmd.Env, p.cmd.Dir = append([]string{}, o.Env...), o.Dir // not nil, which would be our own
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirIn, theirOut, theirErr
	p.cmd.SysProcAttr = attributes()
	err = p.run()
	err = errors.Join(err, theirIn.Close(), theirOut.Close(), theirErr.Close())
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close(), said.Close())
	}
	p.all.Go(p.read)
	p.all.Go(p.write)
	p.all.Go(p.relay)
	return p, nil
}

// run starts the program, on a thread that stays: Linux ends the program with it.
func (p *process) run() error {
	started := make(chan error)
	p.all.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.log.Info("the program ended", "exit", p.cmd.Wait())
		}
	})
	return <-started
}

// read hands the program's lines to their calls until its output ends.
func (p *process) read() {
	lines := bufio.NewScanner(p.out)
	lines.Buffer(make([]byte, 0, 64<<10), LineBytesMax)
	err := io.EOF
	for lines.Scan() {
		if err = p.take(lines.Bytes()); err != nil {
			break
		}
		err = io.EOF
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		err = fmt.Errorf("a line of more than %d bytes", LineBytesMax)
	}
	p.condemn(err)
	_ = p.out.Close() // it was only read
	close(p.gone)
}

// take hands one line on. The error is of a program that is not to be trusted any more.
func (p *process) take(line []byte) error {
	a, err := parse(line)
	if err != nil {
		return err
	}
	p.mu.Lock()
	c, known := p.calls[a.ID], a.ID > 0 && a.ID <= p.last
	if a.last() {
		delete(p.calls, a.ID)
	}
	p.mu.Unlock()
	switch {
	case c != nil:
		return c.put(a, len(line))
	case known:
		return fmt.Errorf("request %d is answered after its end", a.ID)
	}
	return fmt.Errorf("an answer to request %d, which there is not", a.ID)
}

// write writes lines until the program ends.
func (p *process) write() {
	defer p.in.Close() //nolint:errcheck // what was written, was
	for {
		select {
		case line := <-p.lines:
			if line == nil {
				return // the end of its input
			}
			if _, err := p.in.Write(line); err != nil {
				return // it ends, or has closed its input: its output tells
			}
		case <-p.gone:
			return
		}
	}
}

// relay hands the program's standard error to the log.
func (p *process) relay() {
	defer p.said.Close() //nolint:errcheck // it was only read
	r := bufio.NewReaderSize(p.said, logBytesMax)
	for {
		line, cut, err := r.ReadLine()
		if err != nil {
			return
		}
		p.log.Info("the program says", "line", string(line))
		for cut && err == nil { // the rest of a line that is too long
			_, cut, err = r.ReadLine()
		}
	}
}

// runs is false once the program cannot answer any more.
func (p *process) runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason == nil
}

// condemn kills the program. The first reason is kept.
func (p *process) condemn(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason != nil {
		return
	}
	p.reason = reason
	kill(p.cmd)
	for _, f := range []*os.File{p.in, p.out, p.said} {
		_ = f.SetDeadline(time.Now()) // a descendant may hold the other end
	}
}

// why is the reason of the program's end.
func (p *process) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason
}

// stop ends the program's input and waits for its end, which is forced after limit.
func (p *process) stop(limit time.Duration) {
	late := time.AfterFunc(limit, func() { p.condemn(errClosed) })
	defer late.Stop()
	select {
	case p.lines <- nil:
	case <-p.gone:
	}
	p.wait()
}

func (p *process) wait() { p.all.Wait() }

// call is one request that the program runs.
type call struct {
	id uint64
	op string

	mu     sync.Mutex
	queue  []*answer
	bytes  int // of the lines in the queue
	over   bool
	signal chan struct{} // that the queue has grown
}

// begin sends a request.
func (p *process) begin(ctx context.Context, op string, body object) (*call, error) {
	c := &call{op: op, signal: make(chan struct{}, 1)}
	p.mu.Lock()
	p.last++
	c.id = p.last
	p.calls[c.id] = c
	p.mu.Unlock()
	line, err := encode(c.id, op, body)
	if err == nil {
		select {
		case p.lines <- line:
			return c, nil
		case <-ctx.Done():
			err = ctx.Err()
		case <-p.gone:
			err = p.why()
		}
	}
	p.mu.Lock()
	delete(p.calls, c.id)
	p.mu.Unlock()
	return nil, err
}

func encode(id uint64, op string, body object) ([]byte, error) {
	line := object{"id": id, "op": op}
	if body != nil {
		line["arguments"] = body
	}
	data, err := json.Marshal(line, json.Deterministic(true))
	if err != nil {
		return nil, &infer.Error{Op: op, Kind: infer.KindInvalid, Err: err}
	}
	return append(data, '\n'), nil
}

// put adds an answer. It never waits, so that one slow caller does not hold up others.
func (c *call) put(a *answer, size int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += size
	if c.bytes > AnswerBytesMax {
		return fmt.Errorf("an answer of more than %d bytes", AnswerBytesMax)
	}
	a.size = size
	c.queue = append(c.queue, a)
	c.over = c.over || a.last()
	select {
	case c.signal <- struct{}{}:
	default:
	}
	return nil
}

// get takes an answer out of the queue; nil where there is none.
func (c *call) get() *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil
	}
	a := c.queue[0]
	c.queue = c.queue[1:]
	c.bytes -= a.size
	return a
}

// ended says that the program has given its last answer.
func (c *call) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// next waits for an answer. A program that takes longer than limit is killed.
func (c *call) next(ctx context.Context, p *process, limit time.Duration) (*answer, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		if ctx.Err() != nil { // what still waits is not wanted
			return nil, ctx.Err()
		}
		if a := c.get(); a != nil {
			return a, nil
		}
		select {
		case <-c.signal:
		case <-ctx.Done():
		case <-late.C:
			p.condemn(errSilent)
			return nil, errSilent
		case <-p.gone:
			if a := c.get(); a != nil { // it came before the end
				return a, nil
			}
			return nil, p.why()
		}
	}
}

// end cancels a call and waits until the program has ended it. A program that takes longer than
// limit is killed.
func (p *process) end(ctx context.Context, c *call, limit time.Duration) {
	line, err := encode(c.id, "cancel", nil)
	if err != nil {
		return // it has no text that could be wrong
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	for send := p.lines; !c.ended(); {
		for c.get() != nil { // it is not wanted
			continue
		}
		select {
		case send <- line:
			send = nil
		case <-c.signal:
		case <-p.gone:
			return
		case <-late.C:
			p.condemn(errSilent)
			return
		case <-ctx.Done():
			return // the program ends
		}
	}
}
