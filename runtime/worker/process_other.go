//go:build !unix

package worker

import (
	"errors"
	"net"
	"os"
	"os/exec"

	"github.com/norion/norion/runtime/infer"
)

// Supported says that this system has workers.
const Supported = false

// socketPair is what there is none of.
func socketPair() (net.Conn, *os.File, error) {
	return nil, nil, &infer.Error{
		Op: "start", Kind: infer.KindUnsupported, Hint: "run the model in this process (--in-process)",
		Err: errors.New("processes of this system do not inherit sockets"),
	}
}

func command(*Options) (*exec.Cmd, error) { return nil, errors.ErrUnsupported }

func stayOnThread() (leave func()) { return func() {} }
