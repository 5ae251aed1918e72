package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store"
)

// TestProgressEnds feeds reports of pulls that end in every way: end must return, and say enough.
func TestProgressEnds(t *testing.T) {
	t.Parallel()
	name, err := store.ParseName("tiny:1")
	require.NoError(t, err)
	at := func(stage store.Stage, done, total int64) store.Progress {
		return store.Progress{Name: name, Stage: stage, Done: done, Total: total}
	}
	for _, c := range []struct {
		name     string
		terminal bool
		ok       bool
		reports  []store.Progress
		says     string
	}{
		{name: "nothing", terminal: true, ok: true},
		{
			name: "whole", terminal: true, ok: true, says: "downloading",
			reports: []store.Progress{
				at(store.StageDownload, 0, 100), at(store.StageDownload, 100, 100),
				at(store.StageVerify, 100, 100), at(store.StagePublish, 0, 0),
			},
		},
		{
			name: "no total", terminal: true, ok: true, says: "downloading",
			reports: []store.Progress{at(store.StageDownload, 10, 0), at(store.StageDownload, 20, 0)},
		},
		{
			name: "another source, shorter than told", terminal: true, ok: true, says: "downloading",
			reports: []store.Progress{
				at(store.StageDownload, 50, 100), at(store.StageDownload, 0, 80),
				at(store.StageDownload, 70, 80), at(store.StagePublish, 0, 0),
			},
		},
		{
			name: "failed", terminal: true, says: "downloading",
			reports: []store.Progress{at(store.StageDownload, 1, 100)},
		},
		{
			name: "pipe", ok: true, says: "another process is pulling tiny:1; waiting\npulling tiny:1\n",
			reports: []store.Progress{
				at(store.StageWait, 0, 0), at(store.StageDownload, 0, 9), at(store.StageDownload, 9, 9),
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			p := newProgress(&out, c.terminal)
			for _, r := range c.reports {
				p.report(r)
			}
			p.end(c.ok)
			require.Contains(t, out.String(), c.says)
		})
	}
}
