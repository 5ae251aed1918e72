//go:build !darwin && !linux

package main

import (
	"errors"
	"os"
)

// tryLock is never reached: Options.Validate refuses these systems.
func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }
