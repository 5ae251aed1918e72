// Package top shows what the caches of norion processes hold. It owns the figures that each running
// process publishes, and the views of them: a terminal interface, and plain text. It must not know
// engines, models or flags.
package top

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"time"

	"github.com/norion/norion/cmd/norion/presence"
	"github.com/norion/norion/runtime/infer"
)

// Bounds of the entries of one file.
const (
	placeMax = 12 // for each place
	heldMax  = 3 * placeMax
)

// Process is what one norion process shows of itself: figures only, no text.
type Process struct {
	PID     int         `json:"pid"`
	Model   string      `json:"model"`
	Written time.Time   `json:"written"`
	Stats   infer.Stats `json:"stats"`
}

// Publish writes what a backend observes of itself into a directory, which it creates for this user
// alone, now and about once a second while it changes. The caller closes it before the backend.
func Publish(path, model string, o infer.Observer) (*presence.Publisher, error) {
	show := func(ctx context.Context) (figures, file []byte, err error) {
		s, err := o.Stats(ctx)
		if err != nil {
			return nil, nil, err
		}
		places := map[string]int{}
		s.Held = slices.DeleteFunc(s.Held, func(h infer.Held) bool {
			places[h.Place]++
			return places[h.Place] > placeMax
		})
		if figures, err = json.Marshal(ageless(s)); err != nil {
			return nil, nil, err
		}
		file, err = json.Marshal(Process{os.Getpid(), model, time.Now(), s})
		return figures, file, err
	}
	return presence.Publish(path, presence.NewName(), show, nil)
}

// ageless gives figures that stay the same while nothing happens.
func ageless(s infer.Stats) infer.Stats {
	held := make([]infer.Held, len(s.Held))
	for i, h := range s.Held {
		held[i] = h
		held[i].AgeSeconds = 0
	}
	s.Held = held
	return s
}
