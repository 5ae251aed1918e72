// Package servers lets norion's commands find the servers that run. It owns what a server shows of
// itself, the views of it, and the bounded logs of servers; it must not know engines, flags or
// HTTP.
package servers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/norion/norion/cmd/norion/presence"
	"github.com/norion/norion/cmd/norion/top"
)

// modelsMax bounds the models of one file.
const modelsMax = 64

// Server is what a server shows of itself: no text of a request, and no secret.
type Server struct {
	ID       string    `json:"id"`
	PID      int       `json:"pid"` // as the server itself sees it
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	URL      string    `json:"url"`            // with http://localhost where Unix is set
	Unix     string    `json:"unix,omitempty"` // path of its socket
	Keys     bool      `json:"keys"`           // it asks for keys
	Log      string    `json:"log,omitempty"`  // path of its log
	InFlight int       `json:"in_flight"`      // requests, waiting ones included
	Models   []Model   `json:"models"`

	name string // of its file
}

// Model is a model of a server.
type Model struct {
	Name string `json:"name"` // as requests name it
	Path string `json:"path"` // of its file
	// Changed names the flags by which it answers in another way than its file alone says.
	Changed []string `json:"changed,omitempty"`
	Figures
}

// Publish writes into a directory what look gives of this server, until the publisher is closed.
// name is one of presence.NewName. asked is called once when somebody asks the server to end.
func Publish(
	path, name string, look func(context.Context) (Server, error), asked func(),
) (*presence.Publisher, error) {
	return presence.Publish(path, name, func(ctx context.Context) (_, file []byte, err error) {
		s, err := look(ctx)
		if err != nil {
			return nil, nil, err
		}
		s.ID = ID(name)
		file, err = json.Marshal(s)
		return file, file, err
	}, asked)
}

// ID is what users call the server of a file.
func ID(name string) string {
	_, id, _ := strings.Cut(name, "-")
	return id
}

// List gives the servers that publish into a directory, oldest first, and how many more cannot be
// read. What a file holds is believed only after it was checked.
func List(path string) (all []Server, bad int, err error) {
	bad, err = presence.Read(path, func(name string, file []byte) error {
		s, err := parse(file)
		if err == nil {
			s.name, s.ID = name, ID(name)
			all = append(all, s)
		}
		return err
	})
	slices.SortFunc(all, func(a, b Server) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return all, bad, err
}

func parse(file []byte) (s Server, err error) {
	if err := json.Unmarshal(file, &s); err != nil {
		return s, err
	}
	if s.PID <= 0 || s.URL == "" || len(s.Models) > modelsMax {
		return s, errors.New("figures out of range")
	}
	s.Version = top.Printable(s.Version)
	for i := range s.Models {
		s.Models[i].Name = top.Printable(s.Models[i].Name)
	}
	return s, nil
}

// Stop asks a server to end. It answers what runs, within its time to drain.
func Stop(path string, s Server) error { return presence.Ask(path, s.name) }

// Address is where clients find a server, for people.
func (s *Server) Address() string {
	if s.Unix != "" {
		return printable("unix:" + s.Unix)
	}
	return printable(s.URL)
}
