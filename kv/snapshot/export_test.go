package snapshot

import (
	"bytes"
	"context"
	"time"
)

// What tests see of the inside.
const (
	HeaderBytes     = headerBytes
	BlockBytes      = blockBytes
	TagBytes        = tagBytes
	KeyBytes        = keyBytes
	FieldBytesMax   = fieldBytesMax
	QueueEntriesMax = queueEntriesMax
	FreeBuffersMax  = freeBuffersMax
	ExactBytesMax   = exactBytesMax
	WorkersMax      = workersMax
	ReserveBytes    = reserveBytes
	RetryFirst      = retryFirst
	RetryMax        = retryMax
	FilesMax        = filesMax
	LockName        = lockName
	MetaFixedBytes  = metaFixedBytes
)

// ID is the content address of a state, zero without a disk tier.
func (s *Store) ID(st State) ID {
	if s.secret == nil {
		return ID{}
	}
	return s.secret.address(st.appendContent(nil))
}

// FileName is the name of a state's file.
func FileName(id ID) string { return fileName(id) }

// ParseName is the inverse of FileName.
func ParseName(name string) (ID, bool) { return parseName(name) }

// SizeClass is the capacity of a buffer of n bytes.
func SizeClass(n int64) int64 { return sizeClass(n) }

// FileBytes is the size of the file of a state.
func FileBytes(st State, state int) int64 {
	return fileBytes(int64(metaFixedBytes+len(st.appendContent(nil))), int64(state))
}

// EncodeMeta is the metadata of a file.
func EncodeMeta(st State, saved time.Time) []byte {
	return appendMeta(nil, st.Recompute, saved, st.appendContent(nil))
}

// ParseMeta reads metadata.
func ParseMeta(b []byte) (st State, n int, saved time.Time, err error) {
	if st, n, saved, err = parseMeta(b); err == nil {
		st.Tokens = tokensOf(b, n)
	}
	return st, n, saved, err
}

// Reheader parses a header and encodes it again.
func Reheader(b [HeaderBytes]byte, size int64) ([HeaderBytes]byte, int64, int64, error) {
	h, err := parseHeader(b, size)
	return h.encode(), h.meta, h.state, err
}

// SealFile is a file with this metadata and state, its tags right whatever they say.
func SealFile(s *Store, meta, state []byte) ([]byte, error) {
	var b bytes.Buffer
	err := s.writeFile(context.Background(), &b, meta, state)
	return b.Bytes(), err
}

// Address is the content address of metadata.
func Address(s *Store, meta []byte) ID { return s.secret.address(meta[metaFixedBytes:]) }
