// Command count runs go test commands and ends with one line, "N passed, N failed, N skipped".
//
// It owns the reading of test2json events: what failed is printed in full, what passed in one line
// for a package. It must not know what is tested.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
)

const usage = `usage: count "go test FLAGS PACKAGES" ["go test FLAGS PACKAGES" ...]`

// outputBytesMax bounds what is kept of one test's output; the rest is dropped from its middle.
const outputBytesMax = 1 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	c := newCounter(os.Stdout)
	var err error
	for _, command := range os.Args[1:] {
		err = errors.Join(err, c.run(ctx, command))
	}
	if len(os.Args) < 2 {
		err = errors.New(usage)
	}
	stop()
	if err = errors.Join(err, c.finish()); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "count:", err)
		os.Exit(1)
	}
}

// event is one line of test2json, see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
}

type testID struct{ pkg, test string }

// counter adds up results. It is used by one goroutine.
type counter struct {
	out                     io.Writer
	passed, failed, skipped int
	text                    map[testID]string // output of what has no result yet
	children                map[testID]bool   // true: a subtest failed
}

// writer lets the runner's standard error and its events go to one place, a piece at a time.
type writer struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

func newCounter(out io.Writer) *counter {
	return &counter{out: &writer{out: out}, text: map[testID]string{}, children: map[testID]bool{}}
}

// run runs one command and reads its events. A command that fails without a failed test counts as
// one failure.
func (c *counter) run(ctx context.Context, command string) error {
	args := strings.Fields(command)
	if len(args) < 2 || args[1] != "test" {
		return fmt.Errorf("%q is not a go test command", command)
	}
	_, _ = fmt.Fprintf(c.out, "count: %s\n", command)
	cmd := exec.CommandContext(ctx, args[0], append([]string{"test", "-json"}, args[2:]...)...)
	cmd.Stderr = c.out
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failed := c.failed
	clear(c.children) // the same tests may run again
	readErr := c.read(pipe)
	err = cmd.Wait()
	if err != nil && c.failed == failed {
		c.failed++
		return fmt.Errorf("%s: %w", command, err)
	}
	return readErr
}

func (c *counter) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				_, _ = c.out.Write(line)
			} else {
				c.add(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *counter) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		_, _ = io.WriteString(c.out, e.Output)
	case "output":
		if strings.HasPrefix(e.Output, "=== ") {
			return // the runner's own steps: RUN, PAUSE, CONT, NAME
		}
		c.text[id] = clip(c.text[id] + e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.packageDone(id, e.Action)
		} else {
			c.testDone(id, e.Action)
		}
	}
}

func clip(s string) string {
	if len(s) <= outputBytesMax {
		return s
	}
	half := outputBytesMax / 2
	return s[:half] + "\n[...]\n" + s[len(s)-half+16:]
}

// testDone counts a test. One with subtests counts only when it failed and none of them did.
func (c *counter) testDone(id testID, action string) {
	text := c.text[id]
	delete(c.text, id)
	childFailed, parent := c.children[id]
	if i := strings.LastIndexByte(id.test, '/'); i >= 0 {
		up := testID{id.pkg, id.test[:i]}
		c.children[up] = c.children[up] || action == "fail"
	}
	pkg := testID{id.pkg, ""}
	c.children[pkg] = c.children[pkg] || action == "fail"
	if action == "fail" {
		_, _ = fmt.Fprintf(c.out, "%s", text)
	}
	switch {
	case parent && (action != "fail" || childFailed):
	case action == "pass":
		c.passed++
	case action == "fail":
		c.failed++
	default:
		c.skipped++
	}
}

// packageDone prints a package's line, or all of its own output when it failed. A package that
// failed without a failed test (it did not build, or ended early) counts as one failure.
func (c *counter) packageDone(id testID, action string) {
	text := c.text[id]
	delete(c.text, id)
	if action != "fail" {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "ok ") {
				_, _ = io.WriteString(c.out, line)
			}
		}
		return
	}
	for left, output := range c.text { // tests that never ended
		if left.pkg == id.pkg {
			_, _ = io.WriteString(c.out, output)
			delete(c.text, left)
		}
	}
	_, _ = io.WriteString(c.out, text)
	if !c.children[id] {
		c.failed++
	}
}

// finish prints the last line. Nothing run is a failure, too.
func (c *counter) finish() error {
	_, err := fmt.Fprintf(c.out, "%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
	switch {
	case err != nil:
		return err
	case c.failed > 0:
		return errors.New("tests failed")
	case c.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}
