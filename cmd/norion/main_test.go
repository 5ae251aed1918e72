package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/norion/norion/runtime/conform/conformtest"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestMain is also norion, for scripts and for the processes of models.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		main()
	}
	testscript.Main(m, map[string]func(){"norion": main})
}

// TestScripts runs the command lines of testdata/script, each in a directory and a store of its
// own. One thread each: the scripts run side by side, and OpenMP's threads wait by spinning.
func TestScripts(t *testing.T) {
	t.Parallel()
	smollm2 := storetest.Model(t, "smollm2:135m")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			hub := httptest.NewServer(http.HandlerFunc(serveHub))
			env.Defer(hub.Close)
			env.Setenv("NORION_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("NORION_THREADS", "1")
			env.Setenv("HF_ENDPOINT", hub.URL)
			env.Setenv("SMOLLM2", smollm2)
			env.Setenv("LONG", strings.Repeat("a word ", 40)[:260])
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or each of them waits a second
			for name, m := range map[string]*conformtest.Model{
				"SOUND": conformtest.New(), "FAULTY": {
					About:  conformtest.Everything(),
					Before: func(r *infer.Request) { r.MaxTokens++ },
				},
			} {
				url, stop, err := serveMadeUp(m)
				if err != nil {
					return err
				}
				env.Defer(stop)
				env.Setenv(name, url)
			}
			return writeModels(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "interrupt": interrupt, "add": addModel, "damage": damage,
			"beside": beside, "record": record, "edit": edit,
		},
	})
}

// serveHub is the model hub of the scripts. It has one file, whatever its name, but for the
// repository whose name has "mistral" in it.
func serveHub(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(strings.ToLower(r.URL.Path), "mistral") {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", testEpoch, strings.NewReader(string(letters().Bytes())))
}

// exits runs a program that must end with a code: exits 3 norion show x.gguf.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// interrupt runs a program, interrupts it when it has written its first byte, and wants exit code
// 130: interrupt norion run ...
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.CommandContext(context.Background(), findProgram(ts, args[0]), args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"NORION_HOME=" + ts.Getenv("NORION_HOME"), "NORION_THREADS=1"}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	ts.Check(cmd.Start())
	first := make([]byte, 1)
	_, err = io.ReadFull(out, first)
	ts.Check(err)
	ts.Check(cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(out)
	ts.Check(err)
	err = cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != exitInterrupted {
		ts.Fatalf("ended with %v, stderr %q", err, stderr.String())
	}
	fmt.Fprint(ts.Stdout(), string(first)+string(rest))
	fmt.Fprint(ts.Stderr(), stderr.String())
}

// beside runs a program while a chat that keeps prefixes is open: beside norion cache top.
func beside(ts *testscript.TestScript, neg bool, args []string) {
	chat := exec.CommandContext(context.Background(), findProgram(ts, "norion"), "chat",
		"letters.gguf", "--cache", "-n", "2", "--temp", "0")
	chat.Dir = ts.MkAbs(".")
	chat.Env = []string{"NORION_HOME=" + ts.Getenv("NORION_HOME"), "NORION_THREADS=1"}
	in, err := chat.StdinPipe()
	ts.Check(err)
	out, err := chat.StdoutPipe()
	ts.Check(err)
	ts.Check(chat.Start())
	_, err = io.WriteString(in, "hi\n")
	ts.Check(err)
	_, err = io.ReadFull(out, make([]byte, 3))
	ts.Check(err)
	failed := ts.Exec(args[0], args[1:]...)
	ts.Check(in.Close())
	_, err = io.Copy(io.Discard, out)
	ts.Check(errors.Join(err, chat.Wait()))
	if neg != (failed != nil) {
		ts.Fatalf("ended with %v", failed)
	}
}

func findProgram(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	ts.Fatalf("no program %s", name)
	return ""
}

// damage flips a byte of every kept prefix: damage DIRECTORY OFFSET.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	names, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*.kv"))
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("nothing is kept in %s", args[0])
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		ts.Check(err)
		if at >= len(data) {
			ts.Fatalf("%s has %d bytes", name, len(data))
		}
		data[at] ^= 1
		ts.Check(os.WriteFile(name, data, 0o600))
	}
}

// addModel puts a file into the script's store: add tiny:1 letters.gguf.
func addModel(ts *testscript.TestScript, _ bool, args []string) {
	s, err := store.Open(store.Options{Getenv: ts.Getenv})
	ts.Check(err)
	defer func() { ts.Check(s.Close()) }()
	name, err := store.ParseName(args[0])
	ts.Check(err)
	_, err = s.Add(context.Background(), store.Entry{
		Name: name, Licence: store.Licence{Name: "none", Title: "None"}, UnverifiedOffline: true,
		Sources: []store.Source{{Kind: store.SourceFile, Path: ts.MkAbs(args[1])}},
	}, store.PullOptions{})
	ts.Check(err)
}

// writeModels writes the model files of the scripts, good and bad.
func writeModels(dir string) error {
	good := letters()
	data := good.Bytes()
	for name, b := range map[string][]byte{
		"letters.gguf":   data,
		"plain.gguf":     good.Without("tokenizer.chat_template").Bytes(),
		"short.gguf":     data[:len(data)-100],
		"header.gguf":    data[:200],
		"noise.gguf":     []byte(strings.Repeat("not a model at all\n", 20)),
		"empty.gguf":     {},
		"latin1.txt":     {'a', 0xe9, 'b'},
		"martian.gguf":   good.With(gguftest.KV{Key: "general.architecture", Value: "martian"}).Bytes(),
		"adapter.gguf":   good.With(gguftest.KV{Key: "general.type", Value: "adapter"}).Bytes(),
		"projector.gguf": good.With(gguftest.KV{Key: "general.type", Value: "mmproj"}).Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
