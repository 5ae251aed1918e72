package snapshot_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
)

// benchBytes is the size of a state of about 2,800 tokens of a small model.
const benchBytes = 64 << 20

// benchGet measures Get and Release, into memory that was used before; before runs untimed ahead of
// each.
func benchGet(b *testing.B, change func(*snapshot.Options), before func(file string)) {
	dir := b.TempDir()
	s := opened(b, dir, func(o *snapshot.Options) { o.BufferBytes = benchBytes; change(o) })
	id := put(b, s, state(1, 2800), fill(1, benchBytes))
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	for b.Loop() {
		if before != nil {
			b.StopTimer()
			before(filepath.Join(dir, snapshot.FileName(id)))
			b.StartTimer()
		}
		l, ok := s.Get(b.Context(), id)
		require.True(b, ok)
		l.Release()
	}
}

func BenchmarkGetPlain(b *testing.B)     { benchGet(b, plain, nil) }
func BenchmarkGetEncrypted(b *testing.B) { benchGet(b, modes["encrypted"], nil) }

// Fresh memory for each, as the first reads of a process have it.
func BenchmarkGetEncryptedFresh(b *testing.B) {
	benchGet(b, func(o *snapshot.Options) { o.BufferBytes = 0 }, nil)
}

// One goroutine, to show what more of them bring.
func BenchmarkGetEncryptedOneWorker(b *testing.B) {
	benchGet(b, func(o *snapshot.Options) { o.Workers = 1 }, nil)
}

// The page cache is emptied of the file before each read, where the system can.
func BenchmarkGetPlainCold(b *testing.B)     { benchGet(b, plain, chill(b)) }
func BenchmarkGetEncryptedCold(b *testing.B) { benchGet(b, modes["encrypted"], chill(b)) }

// BenchmarkRead is the same file read by the system alone.
func BenchmarkRead(b *testing.B) {
	file := filepath.Join(b.TempDir(), "f")
	require.NoError(b, os.WriteFile(file, fill(1, benchBytes), 0o600))
	to := make([]byte, benchBytes)
	b.SetBytes(benchBytes)
	for b.Loop() {
		f, err := os.Open(file)
		require.NoError(b, err)
		_, err = f.Read(to)
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}
}

// BenchmarkSave is a whole save, to stable storage.
func BenchmarkSave(b *testing.B) {
	for name, change := range modes {
		b.Run(name, func(b *testing.B) {
			s := opened(b, b.TempDir(), func(o *snapshot.Options) {
				o.BufferBytes = benchBytes
				change(o)
			})
			data := fill(1, benchBytes)
			b.SetBytes(benchBytes)
			b.ReportAllocs()
			for b.Loop() {
				s.Drop(put(b, s, state(1, 2800), data))
			}
		})
	}
}

// BenchmarkPut is what the caller of Put waits for.
func BenchmarkPut(b *testing.B) {
	s := opened(b, b.TempDir(), nil)
	buf := buffer(b, s, make([]byte, benchBytes))
	defer buf.Release()
	b.ReportAllocs()
	first := int32(0)
	for b.Loop() {
		id, err := s.Put(state(first, 2800), buf)
		require.NoError(b, err)
		s.Drop(id)
		first++
	}
}
