// Package clients tests a broker with the Go clients people use. The broker is at $BOOTSTRAP.
package clients

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

var bootstrap = os.Getenv("BOOTSTRAP")

// largestValue is the default max.message.bytes less what a batch of one record without key or headers needs.
const largestValue = 1048588 - 72

const limit = 20 * time.Second

func unique(name string) string {
	return fmt.Sprintf("%s-%08x", name, rand.Uint32())
}

// text is n bytes that compress well.
func text(n int) []byte {
	return []byte(strings.Repeat("some text ", n/10+1))[:n]
}

// noise is n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, want, got T) {
	t.Helper()
	if want != got {
		t.Fatalf("want %v, got %v", want, got)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
