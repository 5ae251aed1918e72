//go:build !(linux && cgo && (cuda || nvml))

package main

import (
	"context"

	"github.com/norion/norion/hw/device"
)

// askNVIDIA is nil: this build does not ask NVIDIA's driver. The tags cuda and nvml add that.
func askNVIDIA() func(context.Context, device.RAM) ([]device.Accelerator, []string) { return nil }
