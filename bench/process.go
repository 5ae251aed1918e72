package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Program is a program to measure: norion itself or a peer.
type Program struct {
	Side Side
	Path string
	Args []string // that come before those of a test
}

// Use is what one process cost.
type Use struct {
	FirstByteNs  int64 `json:"first_byte_ns,omitempty"` // from exec to the first byte on stdout
	WallNs       int64 `json:"wall_ns"`                 // from exec to exit
	PeakRSSBytes int64 `json:"peak_rss_bytes"`          // 0 where the system does not say
}

// errorTailBytes is how much of a failed process's last words is kept.
const errorTailBytes = 2048

// Run starts the program, waits for it and returns what it wrote to its standard output. Its
// standard input is empty, and no variable NORION_<FLAG> changes it. Canceling ctx kills it.
// Errors: ErrProcess, ErrOutput, ctx's.
//
// On Linux the peak that the kernel reports for a child begins at the parent's own peak, so the
// parent must stay smaller than what it measures.
func (p Program) Run(ctx context.Context, args ...string) ([]byte, Use, error) {
	cmd := exec.CommandContext(ctx, p.Path, append(append([]string(nil), p.Args...), args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NORION_") && !strings.HasPrefix(v, "NORION_HOME=")
	})
	var out firstByte
	var words tail
	cmd.Stdout, cmd.Stderr = &out, &words
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
	}
	use := Use{WallNs: time.Since(start).Nanoseconds()}
	if ctx.Err() != nil {
		return nil, use, context.Cause(ctx)
	}
	if err != nil {
		return nil, use, &Error{
			Op: "measure", Kind: ErrProcess, Field: string(p.Side),
			Hint: "run it by hand: " + strings.Join(cmd.Args, " "),
			Err:  fmt.Errorf("%w: %s", err, words.String()),
		}
	}
	if out.err != nil {
		return nil, use, &Error{Op: "measure", Kind: ErrOutput, Field: string(p.Side), Err: out.err}
	}
	if !out.at.IsZero() {
		use.FirstByteNs = out.at.Sub(start).Nanoseconds()
	}
	use.PeakRSSBytes = peakRSS(cmd.ProcessState)
	return out.buf.Bytes(), use, nil
}

// firstByte keeps what is written, up to a bound, and when it began.
type firstByte struct {
	buf bytes.Buffer
	at  time.Time
	err error
}

func (w *firstByte) Write(b []byte) (int, error) {
	if w.at.IsZero() && len(b) > 0 {
		w.at = time.Now()
	}
	if w.buf.Len()+len(b) > outputBytesMax {
		w.err = fmt.Errorf("more than %d bytes", outputBytesMax)
		return len(b), nil // let it end
	}
	return w.buf.Write(b)
}

// tail keeps the last bytes written. Safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	w.buf = w.buf[max(0, len(w.buf)-errorTailBytes):]
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(w.buf), "?"))
}

// peersDir is where `make peers` puts programs, below the repository.
const peersDir = "third_party/dist/peers"

// FindPeer gives the path of one of llama.cpp's own programs, built by `make peers`: in the
// directory NORION_PEERS, or third_party/dist/peers beside the directory of this program or below
// the current one. Errors: ErrPeer.
func FindPeer(name string, getenv func(string) string) (string, error) {
	var dirs []string
	if dir := getenv("NORION_PEERS"); dir != "" {
		dirs = []string{dir}
	} else {
		if exe, err := os.Executable(); err == nil {
			dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", peersDir))
		}
		dirs = append(dirs, peersDir)
	}
	for _, dir := range dirs {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if path, err = exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	return "", &Error{
		Op: "peer", Kind: ErrPeer, Field: name,
		Hint: "build it with `make peers`, or name its directory in NORION_PEERS",
		Err:  errors.New("not in " + strings.Join(dirs, " or ")),
	}
}
