package snapshot

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/norion/norion/hw/disk"
)

// The layout of a file; docs/format/snapshot.md is the byte-level page.
const (
	magic         = "NORIONKV"
	formatVersion = 1
	headerBytes   = 80
	blockBytes    = 1 << 20 // of state in one block
	tagBytes      = 16      // after each block
	saltBytes     = 32
	keyBytes      = 32
	keyIDBytes    = 8
	flagEncrypted = 1
)

// header is the first part of a file, in the clear. Every block's tag covers it.
type header struct {
	encrypted bool
	keyID     [keyIDBytes]byte // zeros where not encrypted
	salt      [saltBytes]byte
	meta      int64 // bytes
	state     int64 // bytes
}

func (h *header) encode() (b [headerBytes]byte) {
	copy(b[:], magic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], formatVersion)
	if h.encrypted {
		le.PutUint32(b[12:], flagEncrypted)
	}
	copy(b[16:], h.keyID[:])
	copy(b[24:], h.salt[:])
	le.PutUint64(b[56:], uint64(h.meta))
	le.PutUint64(b[64:], uint64(h.state))
	le.PutUint32(b[72:], blockBytes)
	return b
}

// parseHeader reads the header of a file of size bytes and checks it against that size.
func parseHeader(b [headerBytes]byte, size int64) (h header, err error) {
	le := binary.LittleEndian
	if string(b[:8]) != magic || le.Uint32(b[8:]) != formatVersion {
		return header{}, MissForeign
	}
	flags, meta, state := le.Uint32(b[12:]), le.Uint64(b[56:]), le.Uint64(b[64:])
	switch {
	case flags&^flagEncrypted != 0, le.Uint32(b[72:]) != blockBytes, le.Uint32(b[76:]) != 0:
		return header{}, damaged("header")
	case meta == 0 || meta > metaBytesMax:
		return header{}, damaged("metadata of %d bytes", meta)
	case state == 0 || state > StateBytesMax:
		return header{}, damaged("state of %d bytes", state)
	}
	h = header{encrypted: flags == flagEncrypted, meta: int64(meta), state: int64(state)}
	copy(h.keyID[:], b[16:])
	copy(h.salt[:], b[24:])
	if want := fileBytes(h.meta, h.state); size != want {
		return header{}, damaged("file of %d bytes, not %d", size, want)
	}
	return h, nil
}

// blocks is the number of blocks of a state.
func blocks(state int64) int64 { return (state + blockBytes - 1) / blockBytes }

// fileBytes is the size of a file.
func fileBytes(meta, state int64) int64 {
	return headerBytes + meta + tagBytes + state + blocks(state)*tagBytes
}

// secret is what a store's names and files are made with.
type secret struct {
	key   []byte // keyBytes, or nil where files are not encrypted
	id    [keyIDBytes]byte
	names []byte // the key of content addresses
	crcs  *crc32.Table
}

// newSecret derives the keys of a store; key is nil where nothing is encrypted.
func newSecret(key []byte) (*secret, error) {
	s := &secret{key: key, crcs: crc32.MakeTable(crc32.Castagnoli)}
	from := key
	if key == nil {
		from = []byte("norion snapshot, not encrypted")
	}
	var err error
	if s.names, err = hkdf.Key(sha256.New, from, nil, "norion snapshot names", 32); err != nil {
		return nil, err
	}
	if key != nil {
		id, err := hkdf.Key(sha256.New, key, nil, "norion snapshot key id", keyIDBytes)
		if err != nil {
			return nil, err
		}
		copy(s.id[:], id)
	}
	return s, nil
}

// address is the content address of what appendContent wrote.
func (s *secret) address(content []byte) (id ID) {
	m := hmac.New(sha256.New, s.names)
	_, _ = m.Write(content) // cannot fail
	m.Sum(id[:0])
	return id
}

// newHeader makes the header of a new file, with a salt of its own.
func (s *secret) newHeader(meta, state int64) header {
	h := header{encrypted: s.key != nil, keyID: s.id, meta: meta, state: state}
	_, _ = rand.Read(h.salt[:]) // never fails
	return h
}

// sealer seals and opens the blocks of one file. Blocks are numbered: 0 is the metadata, 1 and up
// the state. A block opens only in its place in its own file under its own header.
//
// Encrypted, a file has a key of its own, derived from the store's by the header with its random
// salt; so the block's number is a nonce that is never used twice, and the tag is the cipher's. Not
// encrypted, the tag is two checksums of the header, the number and the block.
type sealer struct {
	aead   cipher.AEAD // nil where not encrypted
	header [headerBytes]byte
	crcs   *crc32.Table
}

func (s *secret) sealer(h *header) (*sealer, error) {
	l := &sealer{header: h.encode(), crcs: s.crcs}
	if h.encrypted != (s.key != nil) || h.keyID != s.id {
		return nil, MissForeign
	}
	if s.key == nil {
		return l, nil
	}
	key, err := hkdf.Key(sha256.New, s.key, h.salt[:],
		"norion snapshot file "+string(l.header[:]), keyBytes)
	if err != nil {
		return nil, err
	}
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	l.aead, err = cipher.NewGCM(c)
	return l, err
}

// work is the scratch of one goroutine that seals or opens: no more than a block at a time.
type work struct {
	buf   []byte // at least blockBytes + tagBytes
	nonce [12]byte
	head  [headerBytes + 8]byte
	tag   [tagBytes]byte
}

// scratch gives work for n bytes. One that is larger than a block is not kept.
func scratch(pool *sync.Pool, n int64) (w *work, done func()) {
	w, _ = pool.Get().(*work)
	if w == nil {
		w = &work{buf: make([]byte, blockBytes+tagBytes)}
	}
	if n <= int64(len(w.buf)) {
		return w, func() { pool.Put(w) }
	}
	pool.Put(w)
	return &work{buf: make([]byte, n)}, func() {}
}

// seal puts the sealed form of plain into the scratch and returns it.
func (l *sealer) seal(w *work, index int64, plain []byte) []byte {
	if l.aead != nil {
		binary.LittleEndian.PutUint64(w.nonce[:], uint64(index))
		return l.aead.Seal(w.buf[:0], w.nonce[:], plain, nil)
	}
	n := copy(w.buf, plain)
	l.sum(w, index, plain)
	copy(w.buf[n:], w.tag[:])
	return w.buf[:n+tagBytes]
}

// open writes the block, whose sealed form is in the scratch, to dst, which has its length, and
// reports whether it is whole. dst may be the scratch itself.
func (l *sealer) open(w *work, index int64, dst []byte) bool {
	sealed := w.buf[:len(dst)+tagBytes]
	if l.aead != nil {
		binary.LittleEndian.PutUint64(w.nonce[:], uint64(index))
		_, err := l.aead.Open(dst[:0], w.nonce[:], sealed, nil)
		return err == nil
	}
	l.sum(w, index, sealed[:len(dst)])
	copy(dst, sealed)
	return bytes.Equal(w.tag[:], sealed[len(dst):])
}

// sum puts the tag of a block that is not encrypted into the scratch: CRC-32C and CRC-32 with the
// polynomial of IEEE 802.3, then eight zeros. The polynomials share no factor, so both together
// find what a CRC of 64 bits finds, and processors compute both.
func (l *sealer) sum(w *work, index int64, b []byte) {
	copy(w.head[:], l.header[:])
	binary.LittleEndian.PutUint64(w.head[headerBytes:], uint64(index))
	for i, table := range []*crc32.Table{l.crcs, crc32.IEEETable} {
		c := crc32.Update(crc32.Update(0, table, w.head[:]), table, b)
		binary.LittleEndian.PutUint32(w.tag[4*i:], c)
	}
}

// writeFile writes one whole file.
func (s *Store) writeFile(ctx context.Context, w io.Writer, meta, state []byte) error {
	h := s.secret.newHeader(int64(len(meta)), int64(len(state)))
	l, err := s.secret.sealer(&h)
	if err != nil {
		return err
	}
	k, done := scratch(&s.scratch, h.meta+tagBytes)
	defer done()
	if _, err := w.Write(l.header[:]); err != nil {
		return err
	}
	if _, err := w.Write(l.seal(k, 0, meta)); err != nil {
		return err
	}
	for i := int64(1); len(state) > 0; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(len(state), blockBytes)
		if _, err := w.Write(l.seal(k, i, state[:n])); err != nil {
			return err
		}
		state = state[n:]
	}
	return nil
}

// openFile is a file of which the header and the metadata are known to be whole.
type openFile struct {
	disk.File
	header header
	sealer *sealer
	size   int64
}

// openFile opens a file that this user owns, and calls use with its metadata, which is valid
// during the call. Where it returns no error the caller closes the file.
func (s *Store) openFile(name string, use func(meta []byte) error) (*openFile, error) {
	switch fi, err := s.dir.Lstat(name); { // before opening: a pipe would wait for its writer
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular() || !disk.Own(fi):
		return nil, MissUntrusted
	}
	f, err := s.dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	o := &openFile{File: f}
	if err := s.readMeta(o, use); err != nil {
		_ = f.Close() // nothing was written, and err says more
		return nil, err
	}
	return o, nil
}

func (s *Store) readMeta(o *openFile, use func(meta []byte) error) error {
	fi, err := o.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || !disk.Own(fi) {
		return MissUntrusted
	}
	o.size = fi.Size()
	var b [headerBytes]byte
	if err := readAt(o, b[:], 0); err != nil {
		return err
	}
	if o.header, err = parseHeader(b, o.size); err != nil {
		return err
	}
	if o.sealer, err = s.secret.sealer(&o.header); err != nil {
		return err
	}
	k, done := scratch(&s.scratch, o.header.meta+tagBytes)
	defer done()
	if err := readAt(o, k.buf[:o.header.meta+tagBytes], headerBytes); err != nil {
		return err
	}
	meta := k.buf[:o.header.meta]
	if !o.sealer.open(k, 0, meta) {
		return damaged("metadata block")
	}
	return use(meta)
}

// readAt fills b. A file that ends before is damaged.
func readAt(f io.ReaderAt, b []byte, off int64) error {
	switch n, err := f.ReadAt(b, off); {
	case n == len(b):
		return nil
	case err == io.EOF || err == nil:
		return damaged("file ends in a block")
	default:
		return err
	}
}

// readState reads, verifies and decrypts the state into dst, which has its length; nil only
// verifies. Blocks are taken by several goroutines; the first failure stops them.
func (s *Store) readState(ctx context.Context, o *openFile, dst []byte) error {
	count := blocks(o.header.state)
	var next, failed atomic.Int64
	var first error // of the goroutine that made failed 1
	one := func() {
		k, done := scratch(&s.scratch, 0)
		defer done()
		for failed.Load() == 0 {
			i := next.Add(1)
			if i > count {
				return
			}
			err := ctx.Err()
			if err == nil {
				err = readBlock(o, k, i, dst)
			}
			if err != nil && failed.Add(1) == 1 {
				first = err
			}
		}
	}
	var wg sync.WaitGroup
	for range min(int64(s.o.Workers), count) - 1 {
		wg.Go(one)
	}
	one()
	wg.Wait()
	return first
}

// readBlock reads block index of the state to its place in dst.
func readBlock(o *openFile, k *work, index int64, dst []byte) error {
	from := (index - 1) * blockBytes
	n := min(blockBytes, o.header.state-from)
	at := headerBytes + o.header.meta + tagBytes + from + (index-1)*tagBytes
	if err := readAt(o, k.buf[:n+tagBytes], at); err != nil {
		return err
	}
	to := k.buf[:n]
	if dst != nil {
		to = dst[from : from+n]
	}
	if !o.sealer.open(k, index, to) {
		return damaged("block %d", index)
	}
	return nil
}
