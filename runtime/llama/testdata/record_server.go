//go:build ignore

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"
)

const (
	peer       = "third_party/dist/peers/llama-server"
	startTries = 1200
	startTryMs = 100
)

// server is a running llama-server on a free port of the loopback interface.
type server struct {
	url  string
	stop func() string // ends it and returns what it said
}

// start runs a llama-server with args and waits until it answers.
func start(path string, args ...string) (server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return server{}, err
	}
	address := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return server{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, append([]string{
		"--host", "127.0.0.1", "--port", fmt.Sprint(address.Port), "--offline", "--no-ui",
		"--no-warmup", "-np", "1",
	}, args...)...)
	cmd.Env = append(os.Environ(), "TZ=UTC") // templates ask for the date
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		cancel()
		return server{}, err
	}
	s := server{url: "http://" + address.String(), stop: sync.OnceValue(func() string {
		cancel()
		_ = cmd.Wait() // it was killed
		return said.String()
	})}
	for range startTries {
		if response, err := http.Get(s.url + "/health"); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return s, nil
			}
		}
		time.Sleep(startTryMs * time.Millisecond)
	}
	return server{}, fmt.Errorf("the server does not start:\n%s", s.stop())
}
