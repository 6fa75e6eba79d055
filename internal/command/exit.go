// SPDX-License-Identifier: Apache-2.0

package command

// Exit is the exit code of a command. The codes are a contract: the same meaning has
// the same code in every command of every program.
type Exit int

// The exit codes.
const (
	ExitOK             Exit = 0
	ExitNotCompliant   Exit = 1
	ExitCouldNotVerify Exit = 2
	ExitFailed         Exit = 3
	ExitNotApplicable  Exit = 4
	ExitUsage          Exit = 64
)

// Exits are all exit codes, in their order.
func Exits() []Exit {
	return []Exit{ExitOK, ExitNotCompliant, ExitCouldNotVerify, ExitFailed, ExitNotApplicable, ExitUsage}
}

// Verdicts returns the exit codes of a command that exits with a verdict.
func Verdicts() []Exit { return Exits() }

// Endings returns the exit codes of a command without a verdict.
func Endings() []Exit { return []Exit{ExitOK, ExitFailed, ExitUsage} }

// Meaning describes the exit code for --help and the documentation.
func (e Exit) Meaning() string {
	switch e {
	case ExitOK:
		return "success; for a check: compliant"
	case ExitNotCompliant:
		return "not compliant: at least one requirement fails"
	case ExitCouldNotVerify:
		return "could not verify: no requirement fails, but at least one was not observed"
	case ExitFailed:
		return "the command failed: for example, a timeout, an address in use, or output that cannot be written"
	case ExitNotApplicable:
		return "not applicable: the control does not apply here: for example, the control plane is hosted elsewhere"
	case ExitUsage:
		return "usage error: the command line, or a file that it names, is not valid"
	}
	return "unknown"
}
