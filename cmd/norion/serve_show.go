package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/norion/norion/cmd/norion/presence"
	"github.com/norion/norion/cmd/norion/servers"
	"github.com/norion/norion/runtime/store"
)

// Directories in norion's home: where servers show themselves, and their logs.
const (
	serversDir = "servers"
	logsDir    = "logs"
)

// homeDir is a directory in norion's home, which need not be there.
func (a *app) homeDir(name string) (string, error) {
	home, err := store.Home(a.getenv)
	return filepath.Join(home, name), err
}

// serverLog is what a server writes: to standard error, and to a file that norion logs shows.
type serverLog struct {
	*slog.Logger
	name string       // of the server, as its files have it
	file *servers.Log // nil: it could not be made
}

// openServerLog gives a new server a name and a log. Without a file it does with standard error.
func (a *app) openServerLog(verbose bool) *serverLog {
	l := &serverLog{name: presence.NewName(), Logger: a.logger(verbose)}
	path, err := a.homeDir(serversDir)
	if err == nil {
		var living []servers.Server
		if living, _, err = servers.List(path); err == nil {
			path = filepath.Join(filepath.Dir(path), logsDir)
			l.file, err = servers.OpenLog(path, l.name, servers.LogBytesMax, living)
		}
	}
	if err != nil {
		fmt.Fprintf(a.err, "note: norion logs will not show this server: %s\n", oneLine(err.Error()))
		return l
	}
	l.Logger = slog.New(slog.NewMultiHandler(l.Handler(), l.file.Handler()))
	return l
}

func (l *serverLog) close() {
	if l.file != nil {
		_ = l.file.Close() // nothing is written any more
	}
}

// shown is what a server shows of itself that does not change.
func (f *serveFlags) shown(l net.Listener, log *serverLog, keys bool) servers.Server {
	s := servers.Server{
		PID: os.Getpid(), Version: version, Started: time.Now().UTC().Truncate(time.Second),
		URL: f.listen.base(l), Keys: keys,
	}
	if f.listen.unix != "" {
		s.Unix = cmp.Or(absolute(f.listen.unix), f.listen.unix)
	}
	if log.file != nil {
		s.Log = log.file.Path()
	}
	return s
}

// absolute is a path without links, or "" where it leads nowhere.
func absolute(path string) string {
	path, err := filepath.EvalSymlinks(path)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	return path
}

// changes names the flags by which models answer in another way than their files alone say.
func (f *serveFlags) changes() (names []string) {
	for _, c := range []struct {
		name string
		set  bool
	}{
		{"lora", len(f.loras) > 0}, {"template", f.template != ""}, {"kv-type", f.o.KVType != ""},
	} {
		if c.set {
			names = append(names, c.name)
		}
	}
	return names
}

// announce lets norion ps, top and stop see a server, until the returned function is called. stop
// ends the server.
func (a *app) announce(
	log *serverLog, s servers.Server, m *models, all prometheus.Gatherer, stop func(),
) (hide func()) {
	var meter servers.Meter
	look := func(context.Context) (servers.Server, error) {
		families, err := all.Gather()
		if err != nil {
			return s, err
		}
		now := s
		var figures map[string]servers.Figures
		now.InFlight, figures = servers.Read(families)
		meter.Rate(time.Now(), figures)
		for _, name := range m.names {
			now.Models = append(now.Models, servers.Model{
				Name: name, Path: m.path(name), Changed: m.changed, Figures: figures[name],
			})
		}
		return now, nil
	}
	dir, err := a.homeDir(serversDir)
	var p *presence.Publisher
	if err == nil {
		p, err = servers.Publish(dir, log.name, look, stop)
	}
	if err != nil {
		fmt.Fprintf(a.err, "note: norion ps, top and stop will not see this server: %s\n",
			oneLine(err.Error()))
		return func() {}
	}
	log.Info("the server has begun", "server", servers.ID(log.name), "models", m.names)
	return func() {
		log.Info("the server ends")
		_ = p.Close() // who looks next removes what is left
	}
}
