//go:build linux && cgo

package nvidia

import (
	"context"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/norion/norion/hw/device"
)

// stepTimeout is how long the driver may take until it has started, and then for each device.
const stepTimeout = 2 * time.Second

// Client asks the driver. It is used by one goroutine at a time.
type Client struct {
	lib nvml.Interface
	// ended is closed when the last query has ended: a driver that hangs holds it open.
	ended chan struct{}
}

// New returns a client of the installed driver. Nothing is opened before it is asked.
func New() *Client { return &Client{lib: nvml.New()} }

// reply is what is known of one device, or of all where found is empty.
type reply struct {
	found []device.Accelerator
	notes []string
}

// Devices describes NVIDIA's devices, in the driver's order. What the driver does not tell is left
// zero; what goes wrong is one line of the notes each. host is the memory of the host, which some
// devices use as their own.
//
// The driver cannot be interrupted. When it hangs, the goroutine that waits for it is abandoned and
// ends with it; until then further queries return at once.
func (c *Client) Devices(ctx context.Context, host device.RAM) ([]device.Accelerator, []string) {
	if c.ended != nil {
		select {
		case <-c.ended:
		default:
			return nil, []string{"NVIDIA: the driver has still not answered the last query"}
		}
	}
	replies, ended := make(chan reply, 1), make(chan struct{})
	abandoned := make(chan struct{})
	c.ended = ended
	go func() {
		defer close(ended)
		q := query{lib: c.lib, host: host, send: func(r reply) bool {
			select {
			case replies <- r:
				return true
			case <-abandoned:
				return false
			}
		}}
		q.run()
		close(replies)
	}()
	defer close(abandoned)
	var found []device.Accelerator
	var notes []string
	timer := time.NewTimer(stepTimeout)
	defer timer.Stop()
	for {
		select {
		case r, ok := <-replies:
			if !ok {
				return found, notes
			}
			found, notes = append(found, r.found...), append(notes, r.notes...)
			timer.Reset(stepTimeout)
		case <-timer.C:
			return found, append(notes, fmt.Sprintf(
				"NVIDIA: the driver did not answer in %v; nvidia-smi may hang as well", stepTimeout))
		case <-ctx.Done():
			return found, append(notes, "NVIDIA: the query was cut short")
		}
	}
}

// query is one round of questions.
type query struct {
	lib  nvml.Interface
	host device.RAM
	send func(reply) bool // false: nobody listens any more
}

func (q query) run() {
	if ret := q.lib.Init(); ret != nvml.SUCCESS {
		q.send(reply{notes: []string{"NVIDIA: " + fault(ret)}})
		return
	}
	defer func() { _ = q.lib.Shutdown() }() // what it returns changes nothing
	driver, _ := q.lib.SystemGetDriverVersion()
	n, ret := q.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		q.send(reply{notes: []string{"NVIDIA: number of devices: " + fault(ret)}})
		return
	}
	for i := range n {
		label := fmt.Sprint("NVIDIA device ", i)
		dev, ret := q.lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			if !q.send(reply{notes: []string{label + ": " + fault(ret)}}) {
				return
			}
			continue
		}
		r := &reader{query: q, dev: dev, label: label}
		found := r.device(driver)
		if !q.send(reply{found: found, notes: r.notes}) {
			return
		}
	}
}

// fault says in words why the driver does not answer, and what to do.
func fault(ret nvml.Return) string {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return "no driver is installed (there is no libnvidia-ml.so.1)"
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "the driver's kernel module is not loaded"
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return "the driver was updated while it ran: reboot"
	case nvml.ERROR_NO_PERMISSION:
		return "this user may not ask the driver: it needs access to /dev/nvidia*"
	case nvml.ERROR_GPU_IS_LOST:
		return "lost: it fell off the bus or was removed; reset it or reboot"
	case nvml.ERROR_RESET_REQUIRED:
		return "it must be reset (nvidia-smi --gpu-reset)"
	}
	return ret.String()
}
