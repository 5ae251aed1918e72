//go:build ignore

// Record_greedy asks llama.cpp's own server for 128 greedy tokens after each prompt of
// greedy/prompts.json and writes the token ids to greedy/NAME.json. It must not use norion's
// binding: the tests compare the two. Run it from the top of the repository after `make peers`:
//
//	go run ./runtime/llama/testdata/record_{greedy,server}.go NAME MODEL.gguf [SERVER]
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	dir           = "runtime/llama/testdata/greedy"
	outputTokens  = 128
	contextTokens = 1024
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
	path := peer
	if len(os.Args) > 3 {
		path = os.Args[3]
	}
	if err := record(path, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func record(path, name, model string) error {
	var prompts []string
	text, err := os.ReadFile(filepath.Join(dir, "prompts.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &prompts); err != nil {
		return err
	}
	s, err := start(path, "-m", model, "-c", fmt.Sprint(contextTokens), "-b", "2048", "-ub", "512",
		"-t", "1", "-tb", "1", "-fa", "auto", "-ngl", "0", "--swa-full", "--fit", "off",
		"--verbosity", "4", "--no-cache-prompt", "--cache-ram", "0", "--ctx-checkpoints", "0",
		"--threads-http", "1")
	if err != nil {
		return err
	}
	defer s.stop()
	out := recording{Tokens: contextTokens}
	for i, prompt := range prompts {
		a, err := ask(s.url, prompt)
		if err != nil {
			return fmt.Errorf("prompt %d: %w", i, err)
		}
		log.Printf("%d of %d: %d tokens in", i+1, len(prompts), len(a.Input))
		out.Answers = append(out.Answers, a)
	}
	if out.Peer, out.System, err = about(path, s.stop()); err != nil {
		return err
	}
	return write(filepath.Join(dir, name+".json"), out)
}

// about finds the version and the processor features of the peer.
func about(path, logged string) (version, system string, err error) {
	text, err := exec.Command(path, "--version").CombinedOutput()
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

func ask(url, prompt string) (answer, error) {
	a := answer{Prompt: prompt}
	var split struct{ Tokens []int32 }
	err := post(url+"/tokenize", map[string]any{
		"content": prompt, "add_special": true, "parse_special": false,
	}, &split)
	if err != nil {
		return a, err
	}
	a.Input = split.Tokens
	var done struct{ Tokens []int32 }
	err = post(url+"/completion", map[string]any{
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

func post(url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	response, err := http.Post(url, "application/json", bytes.NewReader(body))
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
