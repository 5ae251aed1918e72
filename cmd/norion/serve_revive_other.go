//go:build !unix

package main

import "context"

// onRevive does nothing: there is no such signal here.
func onRevive(context.Context, func()) (stop func()) { return func() {} }
