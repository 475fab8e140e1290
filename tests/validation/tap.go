// SPDX-License-Identifier: Apache-2.0

// Package tap writes results by the Test Anything Protocol, version 13 (https://testanything.org/tap-version-13-specification.html),
// as far as runtime-tools' programs ask for it: they import a package of this name, which Debian does not have.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T counts the results of one program.
type T struct {
	Writer io.Writer
	count  *int
	suffix string
}

// New writes to stdout.
func New() *T {
	return &T{Writer: os.Stdout, count: new(int)}
}

// Header says that results follow, and how many where that is known.
func (t *T) Header(planned int) {
	fmt.Fprintln(t.Writer, "TAP version 13")
	if planned > 0 {
		fmt.Fprintf(t.Writer, "1..%d\n", planned)
	}
}

// AutoPlan says how many there were.
func (t *T) AutoPlan() {
	fmt.Fprintf(t.Writer, "1..%d\n", *t.count)
}

// Ok is one result.
func (t *T) Ok(passed bool, description string) {
	*t.count++
	word := "not ok"
	if passed {
		word = "ok"
	}
	fmt.Fprintf(t.Writer, "%s %d - %s%s\n", word, *t.count, description, t.suffix)
}

// Todo counts on, of what need not be so yet.
func (t *T) Todo() *T {
	return &T{Writer: t.Writer, count: t.count, suffix: " # TODO"}
}

// Pass is one that is well.
func (t *T) Pass(description string) {
	t.Ok(true, description)
}

// Fail is one that is not.
func (t *T) Fail(description string) {
	t.Ok(false, description)
}

// Skip leaves results out, with the reason.
func (t *T) Skip(count int, reason string) {
	for range count {
		*t.count++
		fmt.Fprintf(t.Writer, "ok %d # SKIP %s\n", *t.count, reason)
	}
}

// Diagnostic is a remark for people.
func (t *T) Diagnostic(text string) {
	fmt.Fprintln(t.Writer, "# "+strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n# "))
}

// Diagnosticf formats one.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML tells more of the last result; JSON is a part of that language.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err == nil {
		fmt.Fprintf(t.Writer, "  ---\n  %s\n  ...\n", text)
	}
	return err
}
