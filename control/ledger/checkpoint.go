package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/hw/disk"
)

// checkpointBytesMax bounds a checkpoint file.
const checkpointBytesMax = 16 << 10

// closedPrefix begins the extension line with the digest of the closed database.
const closedPrefix = "closed "

// Checkpoint is a signed statement of the state of a record, in the form of C2SP tlog-checkpoint.
type Checkpoint struct {
	Origin string // name of the log
	Size   int64  // events
	Root   tlog.Hash
	Closed event.Digest // of the database file when it was closed; zero while it is open
}

// text is what is signed.
func (c Checkpoint) text() string {
	s := fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
	if !c.Closed.IsZero() {
		s += closedPrefix + c.Closed.String() + "\n"
	}
	return s
}

// sign makes the bytes of a checkpoint.
func (c Checkpoint) sign(s note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.text()}, s)
}

// ParseCheckpoint verifies the signature of a checkpoint and reads it. Another spelling of the same
// checkpoint is refused: no bit of the file is free. Errors: ErrCheckpoint.
func ParseCheckpoint(data []byte, key note.Verifier) (Checkpoint, error) {
	fail := func(err error) (Checkpoint, error) {
		return Checkpoint{}, &Error{Op: "checkpoint", Kind: ErrCheckpoint, Hint: hintVerify, Err: err}
	}
	n, err := note.Open(data, note.VerifierList(key))
	if err != nil {
		return fail(err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || len(lines) > 5 || lines[len(lines)-1] != "" {
		return fail(errors.New("it has not three or four lines"))
	}
	c := Checkpoint{Origin: lines[0]}
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 {
		return fail(fmt.Errorf("size %q", lines[1]))
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return fail(err)
	}
	if len(lines) == 5 {
		text, ok := strings.CutPrefix(lines[3], closedPrefix)
		if c.Closed, err = event.ParseDigest(text); err != nil || !ok {
			return fail(errors.New("an unknown line"))
		}
	}
	if c.text() != n.Text || !bytes.Equal(signatures(n), data) {
		return fail(errors.New("it is not in its one form"))
	}
	return c, nil
}

// signatures spells a note as Sign does.
func signatures(n *note.Note) []byte {
	b := []byte(n.Text + "\n")
	for _, s := range slices.Concat(n.Sigs, n.UnverifiedSigs) {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil {
			return nil
		}
		b = fmt.Appendf(b, "\u2014 %s %s\n", s.Name, base64.StdEncoding.EncodeToString(raw))
	}
	return b
}

// checkpointFile is one place of the checkpoint. It is replaced under compare-and-swap: what lies
// there must be what was last read or written.
type checkpointFile struct {
	dir  disk.Dir
	name string
	last []byte // nil where there is no file
}

// read loads what is there.
func (f *checkpointFile) read() (err error) {
	f.last, err = disk.ReadFile(f.dir, f.name, checkpointBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// errSwapped says that somebody else wrote the checkpoint.
var errSwapped = errors.New("somebody else has replaced the checkpoint")

// swap replaces the file durably.
func (f *checkpointFile) swap(data []byte) error {
	now := checkpointFile{dir: f.dir, name: f.name}
	if err := now.read(); err != nil {
		return err
	}
	if !bytes.Equal(now.last, f.last) {
		return errSwapped
	}
	if err := disk.WriteFile(f.dir, f.name, data); err != nil {
		return err
	}
	f.last = data
	return nil
}

// closedBytesMax bounds the database whose bytes are digested when it is closed. A larger one is
// covered by the hashes of its events alone.
const closedBytesMax = 64 << 20

// fileDigest digests the database; it is zero for one that is too large or has a journal.
func fileDigest(dir disk.Dir) (d event.Digest, err error) {
	journal, err := dir.Lstat(databaseFile + "-wal")
	if err == nil && journal.Size() > 0 {
		return d, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	fi, err := dir.Lstat(databaseFile)
	if err != nil || fi.Size() > closedBytesMax {
		return d, err
	}
	f, err := dir.OpenFile(databaseFile, os.O_RDONLY, 0)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return d, err
	}
	return event.Digest(h.Sum(nil)), nil
}

// checkClosed holds a closed database against the digest that was signed when it was closed.
func checkClosed(dir disk.Dir, cp Checkpoint) error {
	if cp.Closed.IsZero() {
		return nil
	}
	d, err := fileDigest(dir)
	if err != nil {
		return err
	}
	if d != cp.Closed {
		return &Error{
			Op: "open", Kind: ErrDamaged, Field: databaseFile, Hint: hintVerify,
			Err: errors.New("its bytes changed after it was closed, or a journal was added"),
		}
	}
	return nil
}
