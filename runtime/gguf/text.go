package gguf

import "errors"

// shortBytesMax bounds names, licences and the like when they are read for display or compared.
const shortBytesMax = 4096

// short reads a string that has no business being long.
func (f *File) short(key string) (string, error) {
	e, err := f.lookup(key)
	if err != nil {
		return "", err
	}
	if e.typ == TypeString && e.n > shortBytesMax {
		return "", f.stamp(fault(ErrLimit, "key "+clip(key), e.off, "", "%d bytes are above %d",
			e.n, shortBytesMax))
	}
	return f.String(key)
}

// optional is short with "" for a key that is absent.
func (f *File) optional(key string) (string, error) {
	s, err := f.short(key)
	if errors.Is(err, ErrNoKey) {
		return "", nil
	}
	return s, err
}
