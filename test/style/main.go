// SPDX-License-Identifier: Apache-2.0

// Command style checks the wording of this repository (make lint runs it at the root):
// that no tracked text file contains a phrase of words.txt, and that prose in Markdown is
// at most 120 columns wide. It prints a line for each hit and then exits with 1.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	hits, err := run(context.Background())
	for _, hit := range hits {
		fmt.Println(hit)
	}
	switch {
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "style:", err)
		os.Exit(2)
	case len(hits) > 0:
		_, _ = fmt.Fprintf(os.Stderr, "style: %d hits; CONTRIBUTING.md has the style\n", len(hits))
		os.Exit(1)
	}
}

// run checks the tracked files of the current directory.
func run(ctx context.Context) ([]Hit, error) {
	out, err := exec.CommandContext(ctx, "git", "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("list tracked files (git ls-files; this needs a clone): %w", err)
	}
	phrases, err := Phrases()
	if err != nil {
		return nil, err
	}
	return Check(os.DirFS("."), strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), phrases)
}
