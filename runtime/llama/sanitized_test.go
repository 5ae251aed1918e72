//go:build race || asan

package llama

// sanitized says that a sanitizer slows everything down.
const sanitized = true
