//go:build ignore

// Record_greedy asks llama.cpp's own server for 128 greedy tokens after each prompt of
// greedy/prompts.json and writes the token ids to greedy/NAME.json. It must not use norion's
// binding: the tests compare the two. Run it from the top of the repository after `make peers`:
//
//	go run ./runtime/llama/testdata/record_greedy.go NAME MODEL.gguf [SERVER]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	dir           = "runtime/llama/testdata/greedy"
	defaultServer = "third_party/dist/peers/llama-server"
	outputTokens  = 128
	contextTokens = 1024
	startSeconds  = 120
)

type answer struct {
	Prompt string  `json:"prompt"`
	Input  []int32 `json:"input"`
	Output []int32 `json:"output"`
}

// recording is one file. System is what the peer says of the processor features it uses: where it
// differs the arithmetic rounds differently.
type recording struct {
	Peer    string   `json:"peer"`
	System  string   `json:"system"`
	Tokens  int      `json:"context_tokens"`
	Answers []answer `json:"answers"`
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: record_greedy NAME MODEL.gguf [SERVER]")
	}
	server := defaultServer
	if len(os.Args) > 3 {
		server = os.Args[3]
	}
	if err := record(server, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func record(server, name, model string) error {
	var prompts []string
	text, err := os.ReadFile(filepath.Join(dir, "prompts.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &prompts); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url, stop, logText, err := start(ctx, server, model)
	if err != nil {
		return err
	}
	defer stop()
	out := recording{Tokens: contextTokens}
	if out.Peer, out.System, err = about(server, logText()); err != nil {
		return err
	}
	for i, prompt := range prompts {
		a, err := ask(ctx, url, prompt)
		if err != nil {
			return fmt.Errorf("prompt %d: %w", i, err)
		}
		log.Printf("%d of %d: %d tokens in", i+1, len(prompts), len(a.Input))
		out.Answers = append(out.Answers, a)
	}
	return write(filepath.Join(dir, name+".json"), out)
}

// start runs the server on a free loopback port and waits until it answers.
func start(ctx context.Context, server, model string) (url string, stop func(),
	logText func() string, err error,
) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, nil, err
	}
	address := l.Addr().(*net.TCPAddr)
	l.Close()
	cmd := exec.CommandContext(ctx, server, "-m", model, "--host", "127.0.0.1",
		"--port", fmt.Sprint(address.Port), "--offline", "--no-ui",
		"-c", fmt.Sprint(contextTokens), "-b", "2048", "-ub", "512", "-t", "1", "-tb", "1",
		"-np", "1", "-fa", "auto", "-ngl", "0", "--swa-full", "--no-warmup", "--fit", "off",
		"--verbosity", "4", "--no-cache-prompt", "--cache-ram", "0", "--ctx-checkpoints", "0", "--threads-http", "1")
	var logged bytes.Buffer
	cmd.Stdout, cmd.Stderr = &logged, &logged
	if err := cmd.Start(); err != nil {
		return "", nil, nil, err
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	url = "http://" + address.String()
	for range startSeconds {
		if response, err := http.Get(url + "/health"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return url, stop, logged.String, nil
			}
		}
		time.Sleep(time.Second)
	}
	stop()
	return "", nil, nil, fmt.Errorf("the server did not start:\n%s", logged.String())
}

// about finds the version and the processor features of the peer.
func about(server, logged string) (version, system string, err error) {
	text, err := exec.Command(server, "--version").CombinedOutput()
	if err != nil {
		return "", "", err
	}
	version, _, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
	found := regexp.MustCompile(`system_info: .*?(CPU : .*)`).FindStringSubmatch(logged)
	if found == nil {
		return "", "", fmt.Errorf("no system_info in the log:\n%s", logged)
	}
	return version, strings.TrimSpace(found[1]), nil
}

func ask(ctx context.Context, url, prompt string) (answer, error) {
	a := answer{Prompt: prompt}
	var split struct{ Tokens []int32 }
	err := post(ctx, url+"/tokenize", map[string]any{
		"content": prompt, "add_special": true, "parse_special": false,
	}, &split)
	if err != nil {
		return a, err
	}
	a.Input = split.Tokens
	var done struct{ Tokens []int32 }
	err = post(ctx, url+"/completion", map[string]any{
		"prompt": a.Input, "n_predict": outputTokens, "temperature": 0, "n_probs": 0,
		"ignore_eos": true, "cache_prompt": false, "return_tokens": true, "stream": false,
		"samplers": []string{"temperature"},
	}, &done)
	a.Output = done.Tokens
	if err == nil && len(a.Output) != outputTokens {
		err = fmt.Errorf("%d tokens came back", len(a.Output))
	}
	return a, err
}

func post(ctx context.Context, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return json.Unmarshal(text, out)
}

// write keeps one answer on a line, so that a change of the file can be read.
func write(path string, r recording) error {
	head, err := json.Marshal(recording{Peer: r.Peer, System: r.System, Tokens: r.Tokens})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(head, []byte("null}")))
	b.WriteString("[\n")
	for i, a := range r.Answers {
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		b.Write(line)
		if i < len(r.Answers)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]}\n")
	return os.WriteFile(path, b.Bytes(), 0o644)
}
