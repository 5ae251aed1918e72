package bench

import (
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/llama"
)

// Machine says where a report was measured.
type Machine struct {
	OS            string `json:"os"`
	Arch          string `json:"arch"`
	Kernel        string `json:"kernel,omitempty"`
	CPU           string `json:"cpu"`
	Processors    int    `json:"processors"`     // that this process may use
	PhysicalCores int    `json:"physical_cores"` // as llama.cpp counts them
	MemoryBytes   int64  `json:"memory_bytes,omitempty"`
}

// Build says what was measured.
type Build struct {
	Commit       string `json:"commit"` // of norion, with "+" when the tree was changed; or ""
	Go           string `json:"go"`
	LlamaVersion string `json:"llama_version"`
	LlamaCommit  string `json:"llama_commit"`
	NativeStamp  string `json:"native_stamp"` // digest of the linked libraries
	Features     string `json:"features"`     // of the processor, compiled in and used
}

// ThisMachine describes the machine. What cannot be found out is left empty.
func ThisMachine() Machine {
	m := Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Processors: runtime.NumCPU(),
		PhysicalCores: DefaultThreads(),
	}
	if devices, err := llama.Devices(); err == nil {
		m.CPU, _, _ = describe(devices)
	}
	if mem, err := device.AvailableMemory(); err == nil {
		m.MemoryBytes = mem.UsableBytes()
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	return m
}

// ThisBuild describes the program. Errors: llama.Missing in a build without llama.cpp.
func ThisBuild() (Build, error) {
	b := Build{Go: runtime.Version()}
	var err error
	if b.LlamaVersion, b.LlamaCommit, b.Features, err = llama.Version(); err != nil {
		return b, err
	}
	b.NativeStamp = llama.NativeStamp()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b, nil
	}
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+"
		}
	}
	if b.Commit != "" {
		b.Commit += changed
	}
	return b, nil
}

// DefaultThreads is llama-bench's default: the number of physical cores.
func DefaultThreads() int { return physicalCores(os.DirFS("/"), runtime.NumCPU()) }

// physicalCores counts the groups of processors that share a core below root, a Linux file
// system. Where that is unknown it is guessed as llama.cpp guesses: half the processors, or all
// of up to four.
func physicalCores(root fs.FS, processors int) int {
	files, err := fs.Glob(root, "sys/devices/system/cpu/cpu*/topology/thread_siblings")
	cores := map[string]bool{}
	if err == nil {
		for _, name := range files {
			if b, err := fs.ReadFile(root, name); err == nil {
				cores[string(b)] = true
			}
		}
	}
	switch {
	case len(cores) > 0:
		return len(cores)
	case processors <= 4:
		return processors
	}
	return processors / 2
}
