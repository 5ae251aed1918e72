package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// tools are the build programs in use.
type tools struct {
	CMake, Ninja string // paths
}

// findTools takes cmake and ninja from PATH, or installs them from their Python packages into a
// directory of the cache that nothing else looks at.
func findTools(ctx context.Context, pin Pin, cache string, log io.Writer) (tools, error) {
	var t tools
	cmake, errCMake := exec.LookPath("cmake")
	if errCMake == nil {
		out, err := exec.CommandContext(ctx, cmake, "--version").Output()
		if err == nil && !versionAtLeast(string(out), pin.CMakeMin) {
			err = fmt.Errorf("older than %s", pin.CMakeMin)
		}
		errCMake = err
	}
	if t.CMake = cmake; errCMake != nil {
		_, _ = fmt.Fprintf(log, "native: no usable cmake (%v): taking %s\n", errCMake, pin.CMakePackage)
		var err error
		if t.CMake, err = installTool(ctx, cache, pin.CMakePackage, "cmake", log); err != nil {
			return t, err
		}
	}
	var err error
	if t.Ninja, err = exec.LookPath("ninja"); err != nil {
		_, _ = fmt.Fprintf(log, "native: no ninja: taking %s\n", pin.NinjaPackage)
		t.Ninja, err = installTool(ctx, cache, pin.NinjaPackage, "ninja", log)
	}
	return t, err
}

// versionAtLeast compares the first "x.y" in text with want, number by number.
func versionAtLeast(text, want string) bool {
	parse := func(s string) (n [2]int) {
		m := regexp.MustCompile(`(\d+)\.(\d+)`).FindStringSubmatch(s)
		for i := range n {
			if m != nil {
				n[i], _ = strconv.Atoi(m[i+1]) // digits: only an absurd length fails, and gives 0
			}
		}
		return n
	}
	got, least := parse(text), parse(want)
	return got[0] > least[0] || got[0] == least[0] && got[1] >= least[1]
}

// installTool puts one Python package that carries a program into the cache and gives its path.
func installTool(
	ctx context.Context, cache, requirement, program string, log io.Writer,
) (string, error) {
	sum := sha256.Sum256([]byte(requirement))
	name := program + "-" + hex.EncodeToString(sum[:])[:12]
	unlock, err := lock(ctx, cache, "tool-"+name, log)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(cache, "tools", name)
	if path, err := findProgram(dir, program); err == nil {
		return path, nil
	}
	err = fillDir(dir, func(tmp string) error {
		python, err := findPython()
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, python, "-m", "pip", "install", "--no-deps", "--quiet",
			"--root-user-action=ignore", "--only-binary", ":all:", "--target", tmp, requirement)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("pip install: %w", err)
		}
		_, err = findProgram(tmp, program)
		return err
	})
	if err != nil {
		return "", &Error{
			Op: "get " + program, Kind: KindTool, Field: requirement, Err: err,
			Hint: "install cmake and ninja (Debian: apt-get install cmake ninja-build; macOS: " +
				"brew install cmake ninja), or python3 with pip",
		}
	}
	return findProgram(dir, program)
}

// findProgram finds the real program, not the Python launcher beside it.
func findProgram(dir, program string) (string, error) {
	for _, below := range []string{
		filepath.Join(program, "data", "bin"),
		filepath.Join(program, "data", "CMake.app", "Contents", "bin"),
		"bin",
	} {
		path := filepath.Join(dir, below, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New("the package holds no " + program)
}
