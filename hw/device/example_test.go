package device_test

import (
	"fmt"

	"github.com/norion/norion/hw/device"
)

// A machine that was written down somewhere else is checked against what a model needs.
func ExampleGate() {
	m, err := device.ParseMachine([]byte(`{
		"os": "linux", "arch": "arm64",
		"cpu": {"features": ["dotprod", "neon"], "cores": 4, "performance_cores": 4, "threads": 4},
		"memory": {"total_bytes": 8589934592, "available_bytes": 6442450944}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	needs, err := device.ParseManifest([]byte(
		`{"version": 1, "cpu_features": ["dotprod"], "memory_bytes": 17179869184}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range device.Gate(m, needs) {
		fmt.Println(c.Field, "wanted:", c.Wanted, "here:", c.Here, "met:", c.Met)
	}
	// Output:
	// cpu_features wanted: dotprod here: dotprod met: true
	// memory_bytes wanted: 16384 MiB here: 8192 MiB met: false
}
