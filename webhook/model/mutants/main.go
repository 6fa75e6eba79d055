// SPDX-License-Identifier: Apache-2.0

// Command mutants changes one operator of the guard's code or CEL at a time, and runs the model and the unit tests:
// they must fail. A change that no test notices is a part of the guard that no test proves. The working tree is not
// changed: the go command reads the changed file from an overlay.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/scanner"
	"go/token"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// target is a file that is changed, how often, and the tests of it.
type target struct {
	file  string // from the root of the repository
	count int
	// model are the tests of the model that run first, unit the package whose tests run if these pass.
	model, unit string
}

func targets() []target {
	const decisions, tracker = "^TestGuard$", "^TestTracker"
	return []target{
		{"webhook/internal/admit/decision.go", 10, decisions, "./webhook/internal/admit"},
		{"webhook/internal/admit/breakglass.go", 4, decisions, "./webhook/internal/admit"},
		{"webhook/internal/policy/expressions.go", 14, decisions, "./webhook/internal/policy"},
		{"pkg/tracker/tracker.go", 18, tracker, "./pkg/tracker"},
	}
}

// testTime bounds the tests of one mutant. A mutant whose tests do not end is noticed.
const testTime = 5 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	root := flag.String("root", "../..", "root of the repository")
	least := flag.Float64("least", 0.95, "share of the mutants that must be noticed")
	only := flag.String("only", "", "only mutants whose description contains this text")
	flag.Parse()
	directory, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	byModel, byTests, survived := 0, 0, 0
	for _, t := range targets() {
		source, err := os.ReadFile(filepath.Join(*root, t.file))
		if err != nil {
			return err
		}
		if result, err := t.test(ctx, *root, directory, source); result != survives || err != nil {
			return errors.Join(err, fmt.Errorf("%s: without a change: %s", t.file, result))
		}
		compiled := 0
		for _, m := range sample(source) {
			if compiled == t.count {
				break
			}
			if !strings.Contains(t.file+" "+m.String(), *only) {
				continue
			}
			result, err := t.test(ctx, *root, directory, m.apply(source))
			if err != nil {
				return err
			}
			if result == notCompiled {
				continue
			}
			compiled++
			_, _ = fmt.Fprintf(out, "%-28s %s:%s\n", result, t.file, m)
			switch result {
			case noticedByModel:
				byModel++
			case noticedByTests:
				byTests++
			default:
				survived++
			}
		}
	}
	all := byModel + byTests + survived
	_, _ = fmt.Fprintf(out, "%d mutants: %d noticed by the model, %d more by unit tests, %d survived\n",
		all, byModel, byTests, survived)
	if float64(byModel+byTests) < *least*float64(all) {
		return fmt.Errorf("less than %.0f %% of the mutants were noticed", *least*100)
	}
	return nil
}

// mutant is a change of one operator.
type mutant struct {
	offset, line int
	before       string
	after        string
	text         string // the line, changed
}

func (m mutant) String() string {
	return fmt.Sprintf("%d: %s → %s in: %s", m.line, m.before, cmp.Or(m.after, "nothing"), m.text)
}

func (m mutant) apply(source []byte) []byte {
	return slices.Concat(source[:m.offset], []byte(m.after), source[m.offset+len(m.before):])
}

// operators are those that are changed, in Go and in CEL.
func operators() map[string]string {
	return map[string]string{
		"&&": "||", "||": "&&", "==": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<", "!": "",
		"true": "false", "false": "true",
	}
}

// inCEL finds operators in CEL: those of Go's that are between spaces, and negations.
var inCEL = regexp.MustCompile(` (&&|\|\||==|!=|<|>) |(!)[a-z(]`)

// sample returns all mutants of a file, in an order that is always the same and mixes its lines.
func sample(source []byte) []mutant {
	var all []mutant
	add := func(offset int, before string) {
		if after, ok := operators()[before]; ok {
			m := mutant{offset: offset, line: 1 + strings.Count(string(source[:offset]), "\n"), before: before, after: after}
			changed := strings.Split(string(m.apply(source)), "\n")
			m.text = strings.TrimSpace(changed[m.line-1])
			all = append(all, m)
		}
	}
	var s scanner.Scanner
	file := token.NewFileSet().AddFile("", -1, len(source))
	s.Init(file, source, nil, 0)
	for {
		position, kind, literal := s.Scan()
		if kind == token.EOF {
			break
		}
		offset := file.Offset(position)
		switch {
		case kind.IsOperator():
			add(offset, kind.String())
		case kind == token.IDENT:
			add(offset, literal)
		case kind == token.STRING && strings.HasPrefix(literal, "`"):
			for _, found := range inCEL.FindAllStringSubmatchIndex(literal, -1) {
				start, end := found[2], found[3]
				if start < 0 {
					start, end = found[4], found[5]
				}
				add(offset+start, literal[start:end])
			}
		}
	}
	position := func(m mutant) uint64 {
		hash := fnv.New64a()
		_, _ = fmt.Fprint(hash, m.before, m.text) // a hash accepts everything
		return hash.Sum64()
	}
	slices.SortStableFunc(all, func(a, b mutant) int { return cmp.Compare(position(a), position(b)) })
	return all
}

// result says what noticed a mutant.
type result string

const (
	notCompiled    result = "not compiled"
	noticedByModel result = "noticed by the model"
	noticedByTests result = "noticed by unit tests"
	survives       result = "SURVIVED"
)

// test tests a changed file.
func (t target) test(ctx context.Context, root, directory string, changed []byte) (result, error) {
	absolute, err := filepath.Abs(filepath.Join(root, t.file))
	if err != nil {
		return "", err
	}
	replacement, overlay := filepath.Join(directory, "changed.go"), filepath.Join(directory, "overlay.json")
	if err := os.WriteFile(replacement, changed, 0o600); err != nil {
		return "", err
	}
	encoded, err := json.Marshal(map[string]map[string]string{"Replace": {absolute: replacement}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, encoded, 0o600); err != nil {
		return "", err
	}
	// The tests of the model are part of its module, those of the package of the main one.
	if passed, err := goRun(ctx, root, "build", "-overlay", overlay, t.unit); !passed || err != nil {
		return notCompiled, err
	}
	passed, err := goRun(ctx, filepath.Join(root, "webhook", "model"), "test", "-overlay", overlay, "-run", t.model, ".",
		"-rapid.nofailfile", "-rapid.shrinktime=1s")
	if !passed || err != nil {
		return noticedByModel, err
	}
	passed, err = goRun(ctx, root, "test", "-overlay", overlay, t.unit)
	if !passed || err != nil {
		return noticedByTests, err
	}
	return survives, nil
}

// goRun reports whether a go command succeeds.
func goRun(ctx context.Context, directory string, arguments ...string) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	command := exec.CommandContext(limited, "go", arguments...) //nolint:gosec // tests of this repository
	command.Dir = directory
	command.WaitDelay = time.Second
	err := command.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err == nil:
		return true, nil
	case errors.As(err, &exit), limited.Err() != nil:
		return false, nil
	}
	return false, err
}
