//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onRevive calls revive for each SIGUSR1 until stop is called.
func onRevive(ctx context.Context, revive func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	told, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(told, syscall.SIGUSR1)
	go func() {
		defer close(done)
		for {
			select {
			case <-told:
				revive()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(told)
		cancel()
		<-done
	}
}
