package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/norion/norion/hw/disk"
)

// Files of a ledger's directory.
const (
	databaseFile   = "ledger.db"
	checkpointName = "checkpoint"
	lockFile       = "ledger.lock"
	logKeyFile     = "log.key"     // signs checkpoints
	logPubFile     = "log.pub"     // verifies them
	payloadKeyFile = "payload.key" // encrypts the keys of sealed texts
)

const keyBytesMax = 1 << 10

// logKeys loads the key that signs checkpoints and the one that verifies them; create makes missing
// ones.
func logKeys(dir disk.Dir, create bool) (note.Signer, note.Verifier, error) {
	text, err := secret(dir, logKeyFile, create, func() ([]byte, error) {
		private, public, err := note.GenerateKey(rand.Reader, Origin)
		if err != nil {
			return nil, err
		}
		return []byte(private + "\n"), disk.WriteFile(dir, logPubFile, []byte(public+"\n"))
	})
	if err != nil {
		return nil, nil, err
	}
	v, err := verifier(dir)
	if err != nil {
		return nil, nil, err
	}
	line, _ := strings.CutSuffix(string(text), "\n")
	s, err := note.NewSigner(line)
	switch {
	case err != nil || !spelled(line, s.KeyHash()):
		return nil, nil, badKey(logKeyFile, errors.New("it holds no signing key")) // not the key itself
	case s.Name() != v.Name() || s.KeyHash() != v.KeyHash():
		return nil, nil, badKey(logKeyFile, errors.New("it does not belong to "+logPubFile))
	}
	return s, v, nil
}

// verifier loads the key that verifies checkpoints.
func verifier(dir disk.Dir) (note.Verifier, error) {
	text, err := disk.ReadFile(dir, logPubFile, keyBytesMax)
	if err != nil {
		return nil, badKey(logPubFile, err)
	}
	v, err := ParseKey(text)
	if err != nil {
		return nil, badKey(logPubFile, err)
	}
	return v, nil
}

// ParseKey reads the public key of a record, the contents of its log.pub.
func ParseKey(text []byte) (note.Verifier, error) {
	line, ok := strings.CutSuffix(string(text), "\n")
	if !ok {
		return nil, errors.New("it does not end with a line feed")
	}
	v, err := note.NewVerifier(line)
	if err == nil && !spelled(line, v.KeyHash()) {
		err = errors.New("it is not in its one form")
	}
	return v, err
}

// spelled reports whether the hash of a key is spelled as it is made, in lower case.
func spelled(line string, hash uint32) bool {
	return strings.Contains(line, fmt.Sprintf("+%08x+", hash))
}

// payloadKey loads the key of the keys of sealed texts; create makes a missing one. Its file is the
// key and the key's SHA-256, which tells a damaged key from a damaged text.
func payloadKey(dir disk.Dir, create bool) ([]byte, error) {
	data, err := secret(dir, payloadKeyFile, create, func() ([]byte, error) {
		key := make([]byte, sealKeyBytes)
		_, _ = rand.Read(key) // never fails
		sum := sha256.Sum256(key)
		return append(key, sum[:]...), nil
	})
	if err != nil {
		return nil, err
	}
	if len(data) != sealKeyBytes+sha256.Size {
		return nil, badKey(payloadKeyFile, fmt.Errorf("%d bytes", len(data)))
	}
	if sha256.Sum256(data[:sealKeyBytes]) != [sha256.Size]byte(data[sealKeyBytes:]) {
		return nil, badKey(payloadKeyFile, errors.New("it was changed"))
	}
	return data[:sealKeyBytes], nil
}

// secret reads a file that only this user may read, or makes it.
func secret(dir disk.Dir, name string, create bool, made func() ([]byte, error)) ([]byte, error) {
	fi, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) && create {
		data, err := made()
		if err == nil {
			err = disk.WriteFile(dir, name, data)
		}
		if err != nil {
			return nil, badKey(name, err)
		}
		return data, nil
	}
	if err != nil {
		return nil, badKey(name, err)
	}
	if !fi.Mode().IsRegular() || !disk.Private(fi) {
		return nil, badKey(name, errors.New("others may read it, or it is no regular file"))
	}
	data, err := disk.ReadFile(dir, name, keyBytesMax)
	if err != nil {
		return nil, badKey(name, err)
	}
	return data, nil
}

func badKey(name string, err error) error {
	return &Error{
		Op: "open", Kind: ErrKey, Field: name, Err: err,
		Hint: "put the key back from a backup, owned by this user alone, with mode 0600",
	}
}
