//go:build linux && cgo && (cuda || nvml)

package main

import (
	"context"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/device/nvidia"
)

// askNVIDIA asks NVIDIA's driver.
func askNVIDIA() func(context.Context, device.RAM) ([]device.Accelerator, []string) {
	return nvidia.New().Devices
}
