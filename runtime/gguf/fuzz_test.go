package gguf

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

var rewrite = flag.Bool("rewrite", false, "write the fuzz corpus anew")

const corpusDir = "testdata/fuzz/FuzzRead"

// corpus is the seed of FuzzRead: every hand-made bad file, and good ones of each form.
func corpus() map[string][]byte {
	all := map[string][]byte{
		"good-model":  slimModel().Bytes(),
		"good-empty":  gguftest.File{}.Bytes(),
		"good-v2":     gguftest.File{Version: 2}.Bytes(),
		"good-shard":  slimModel().Split(3)[1].Bytes(),
		"good-window": windowSeed().Bytes(),
		"good-moe": slimModel().With(
			pair("llama.expert_count", uint32(4)), pair("llama.expert_used_count", uint32(2)),
			pair("llama.attention.head_count", []uint32{4, 2})).Bytes(),
	}
	for _, h := range handmadeFiles() {
		all["bad-"+strings.ReplaceAll(h.name, " ", "-")] = h.encode()
	}
	return all
}

// slimModel has all metadata of the small model but hardly any tensor data.
func slimModel() gguftest.File {
	m := gguftest.Model()
	m.Tensors = []gguftest.Tensor{
		gguftest.F32("token_embd.weight", 4, 2), gguftest.F32("blk.0.attn_q.weight", 2),
		{Name: "blk.1.ffn_up_exps.weight", Type: int32(Q4_0), Dims: []uint64{32}, Size: 18},
	}
	return m
}

func windowSeed() gguftest.File {
	return slimModel().With(
		pair("general.architecture", "gemma3"), pair("gemma3.block_count", uint32(2)),
		pair("gemma3.context_length", uint32(64)), pair("gemma3.embedding_length", uint32(32)),
		pair("gemma3.attention.head_count", uint32(4)),
		pair("gemma3.attention.sliding_window", uint32(8)),
		pair("gemma3.attention.sliding_window_pattern", []bool{true, false}))
}

// TestFuzzCorpus checks that the files of the corpus are those that this package would write.
func TestFuzzCorpus(t *testing.T) {
	t.Parallel()
	for name, b := range corpus() {
		path := filepath.Join(corpusDir, name)
		want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", b)
		if *rewrite {
			require.NoError(t, os.MkdirAll(corpusDir, 0o750))
			require.NoError(t, os.WriteFile(path, []byte(want), 0o600))
		}
		got, err := os.ReadFile(path)
		require.NoError(t, err, "run go test -rewrite")
		require.Equal(t, want, string(got), name)
	}
}

func FuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := read(b)
		if err != nil {
			requireTyped(t, err)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.True(t, e.Field != "" && e.Offset >= 0 && e.Offset <= int64(len(b)), e.Error())
			return
		}
		var end int64
		for _, x := range g.Tensors() {
			require.True(t, x.Offset >= end && x.Bytes >= 0 && x.Offset+x.Bytes <= int64(len(b)), x)
			end = x.Offset + x.Bytes
		}
		for _, key := range g.Keys() {
			for _, err := range readAll(g, key) {
				requireTyped(t, err)
			}
		}
		requireTyped(t, g.CheckModel())
		s, err := g.Summary()
		require.NoError(t, err)
		_, err = s.WriteTo(io.Discard)
		require.NoError(t, err)
		_, err = json.Marshal(s)
		require.NoError(t, err)
		_, err = g.Digest(context.Background(), nil)
		require.NoError(t, err)
	})
}

// readAll calls every accessor on one key.
func readAll(g *File, key string) []error {
	_, e1 := g.String(key)
	_, e2 := g.Uint(key)
	_, e3 := g.Float(key)
	_, e4 := g.Bool(key)
	_, e5 := g.Strings(key)
	_, e6 := g.Uints(key)
	_, e7 := g.Len(key)
	return []error{e1, e2, e3, e4, e5, e6, e7}
}

// requireTyped accepts nil and errors of this package with a kind.
func requireTyped(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Kind != nil && e.Op != "" && !errors.Is(err, ErrIO), err)
}
