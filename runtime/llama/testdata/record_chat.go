//go:build ignore

// Record_chat asks llama.cpp's own server to render every conversation of chat/conversations.json
// with every chat template of the pinned sources, and writes what it answers to chat/golden.json
// and chat/full. It must not use norion's binding: the tests compare the two. Run it from the top
// of the repository after `make peers`, with the model files of smollm2:135m and gemma3:270m:
//
//	go run ./runtime/llama/testdata/record_{chat,server}.go SMOLLM2.gguf GEMMA3.gguf
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	dir       = "runtime/llama/testdata/chat"
	templates = "third_party/dist/templates"
)

type conversation struct {
	Name    string          `json:"name"`
	Request json.RawMessage `json:"request"`
}

// golden maps "template" to "conversation" to "size digest", or "! reason" for a refusal.
type golden struct {
	Recorded   int64                        `json:"recorded"` // seconds since 1970; the zone is UTC
	Renderings map[string]map[string]string `json:"renderings"`
}

// full names the renderings that are kept as text.
var full = map[string][]string{
	"smollm2:135m":                         {"system", "turns", "control-text"},
	"gemma3:270m":                          {"turns"},
	"Kimi-K2-Instruct":                     {"tool-parallel"},
	"LFM2-8B-A1B":                          {"tool-result"},
	"Qwen-Qwen3-0.6B":                      {"reasoning"},
	"google-gemma-4-31B-it":                {"tool-shapes", "tool-control-text"},
	"mistralai-Mistral-Nemo-Instruct-2407": {"tool-result"},
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: record_chat SMOLLM2.gguf GEMMA3.gguf")
	}
	data, err := os.ReadFile(filepath.Join(dir, "conversations.json"))
	check(err)
	var table []conversation
	check(json.Unmarshal(data, &table))
	check(os.RemoveAll(filepath.Join(dir, "full")))
	check(os.MkdirAll(filepath.Join(dir, "full"), 0o755))

	g := golden{Recorded: time.Now().Unix(), Renderings: map[string]map[string]string{}}
	names, err := filepath.Glob(filepath.Join(templates, "*.jinja"))
	check(err)
	g.record("smollm2:135m", os.Args[1], "", table)
	g.record("gemma3:270m", os.Args[2], filepath.Join(templates, "google-gemma-2-2b-it.jinja"), table)
	for _, path := range names {
		g.record(strings.TrimSuffix(filepath.Base(path), ".jinja"), os.Args[1], path, table)
	}
	if day(g.Recorded) != day(time.Now().Unix()) {
		log.Fatal("the day changed meanwhile: run again")
	}
	out, err := json.MarshalIndent(g, "", "")
	check(err)
	check(os.WriteFile(filepath.Join(dir, "golden.json"), append(out, '\n'), 0o644))
}

func day(seconds int64) int64 { return seconds / 86400 }

// record starts a server with one template and asks it for every conversation.
func (g *golden) record(name, model, template string, table []conversation) {
	args := []string{"-m", model, "-c", "256", "--no-prefill-assistant"}
	if template != "" {
		args = append(args, "--chat-template-file", template)
	}
	s, err := start(peer, args...)
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	defer s.stop()
	g.Renderings[name] = map[string]string{}
	for _, c := range table {
		text, refusal := render(s.url, c.Request)
		if refusal != "" {
			g.Renderings[name][c.Name] = "! " + refusal
			continue
		}
		sum := sha256.Sum256([]byte(text))
		g.Renderings[name][c.Name] = fmt.Sprintf("%d %s", len(text), hex.EncodeToString(sum[:8]))
		for _, want := range full[name] {
			if want == c.Name {
				file := strings.ReplaceAll(name, ":", "-") + "." + c.Name + ".txt"
				check(os.WriteFile(filepath.Join(dir, "full", file), []byte(text), 0o644))
			}
		}
	}
	fmt.Println(name, len(g.Renderings[name]))
}

// render returns the prompt, or the reason why the server refuses.
func render(url string, request []byte) (text, refusal string) {
	res, err := http.Post(url+"/apply-template", "application/json", bytes.NewReader(request))
	check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	check(err)
	var answer struct {
		Prompt *string                  `json:"prompt"`
		Error  struct{ Message string } `json:"error"`
	}
	check(json.Unmarshal(body, &answer))
	if answer.Prompt != nil {
		return *answer.Prompt, ""
	}
	reason := answer.Error.Message
	if _, after, ok := strings.Cut(reason, "\nError: "); ok {
		reason = after
	}
	line, _, _ := strings.Cut(reason, "\n")
	if len(line) > 120 {
		line = strings.ToValidUTF8(line[:120], "")
	}
	return "", line
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
