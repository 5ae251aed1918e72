package ledger

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// Bounds of sealed texts.
const (
	TextBytesMax = 1 << 20
	sealKeyBytes = 32 // AES-256
)

// Sealed is an encrypted text that an event can commit to by its digest. The text is bound to a
// scope: under another it does not open.
type Sealed struct {
	Digest event.Digest // of the ciphertext
	scope  event.Scope
	stored storage.Payload
}

// Seal encrypts a text under a key of its own (AES-256-GCM). Nothing is stored before an Append
// that has it. Errors: ErrInvalid.
func (l *Ledger) Seal(scope event.Scope, text []byte) (Sealed, error) {
	if len(text) > TextBytesMax {
		return Sealed{}, invalid("payload", "%d bytes, at most %d", len(text), TextBytesMax)
	}
	key := make([]byte, sealKeyBytes)
	_, _ = rand.Read(key) // never fails
	sealed := encrypt(key, text, scopeData(scope))
	d := event.DigestOf(sealed)
	p := storage.Payload{Sealed: sealed, Key: encrypt(l.payloadKey, key, d[:])}
	return Sealed{Digest: d, scope: scope, stored: p}, nil
}

// Unseal returns a sealed text. Errors: ErrNotFound, ErrForgotten; ErrDamaged, also for a scope
// that it does not belong to.
func (r *Reader) Unseal(ctx context.Context, scope event.Scope, d event.Digest) ([]byte, error) {
	var p storage.Payload
	err := r.store.View(ctx, func(v storage.Reader) (err error) {
		p, err = v.Payload(ctx, d)
		return err
	})
	if err != nil {
		return nil, wrap("unseal", err)
	}
	key := r.payloadKey
	if key == nil {
		if key, err = payloadKey(r.dir, false); err != nil {
			return nil, err
		}
	}
	return unseal(key, p, scope, d)
}

// unseal opens a stored text; master is the key of the keys.
func unseal(master []byte, p storage.Payload, scope event.Scope, d event.Digest) ([]byte, error) {
	fail := func(kind Kind, hint string, err error) ([]byte, error) {
		return nil, &Error{Op: "unseal", Kind: kind, Field: d.String(), Hint: hint, Err: err}
	}
	switch {
	case p.Sealed == nil:
		return fail(ErrNotFound, "", nil)
	case event.DigestOf(p.Sealed) != d:
		return fail(ErrDamaged, hintVerify, errors.New("the ciphertext was changed"))
	case p.Key == nil:
		return fail(ErrForgotten, "", nil)
	}
	key, err := decrypt(master, p.Key, d[:])
	if err != nil || len(key) != sealKeyBytes {
		return fail(ErrDamaged, hintVerify, fmt.Errorf("its key: %w", err))
	}
	text, err := decrypt(key, p.Sealed, scopeData(scope))
	if err != nil {
		return fail(ErrDamaged, "it may belong to another scope", err)
	}
	return text, nil
}

// Forget destroys the key of a sealed text and records that; the text cannot be had any more, and
// every proof stays valid. Copies of the database that were made before still have the key. Errors:
// those of Append; ErrPending when the text is forgotten, but a reader keeps the old pages in
// SQLite's journal: they go when the ledger is closed.
func (l *Ledger) Forget(ctx context.Context, by event.Draft, f event.Forgotten) error {
	by.Body = f
	if _, err := l.Append(ctx, Batch{Drafts: []event.Draft{by}}); err != nil {
		return err
	}
	err := l.store.Settle(ctx)
	if errors.Is(err, storage.ErrBusy) {
		return &Error{
			Op: "forget", Kind: ErrPending, Field: f.Payload.String(), Err: err,
			Hint: "it is forgotten; close the ledger to clear the journal",
		}
	}
	return wrap("forget", err)
}

// scopeData binds a ciphertext to a scope. Names have no NUL.
func scopeData(s event.Scope) []byte {
	return []byte(s.Tenant + "\x00" + s.Workspace + "\x00" + s.Session)
}

func aead(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the size is ours
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block size is AES's
	}
	return gcm
}

func encrypt(key, text, bound []byte) []byte { return aead(key).Seal(nil, nil, text, bound) }

func decrypt(key, sealed, bound []byte) ([]byte, error) {
	return aead(key).Open(nil, nil, sealed, bound)
}
