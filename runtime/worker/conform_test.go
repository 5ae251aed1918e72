//go:build unix

package worker_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/store/storetest"
	"github.com/norion/norion/runtime/worker"
)

// TestConforms runs the conformance suite on a model in a child.
func TestConforms(t *testing.T) {
	w, err := worker.Open(context.Background(), worker.Options{Engine: engine.Options{
		Paths: []string{storetest.Model(t, "smollm2:135m")}, Model: "real", CPUOnly: true,
		ContextTokens: 1024, Sequences: 4,
	}})
	require.NoError(t, err)
	r := conform.Test(t, w, conform.Options{})
	require.True(t, r.Passed())
}
