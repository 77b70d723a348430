package main

import (
	"bytes"
	"fmt"
	"strings"
)

// A produced line says in which phase and when it was due, in microseconds: "@0003123456789 xxx…". Short,
// because an event of 204 bytes has little room for a message.

const (
	phaseDigits = 3
	stampDigits = 9 // they begin anew every 1,000 seconds
	stampWraps  = 1_000_000_000
	stampBytes  = 1 + phaseDigits + stampDigits
)

func stamped(us int64, phase, size int) string {
	line := fmt.Sprintf("@%0*d%0*d ", phaseDigits, phase, stampDigits, us%stampWraps)
	if size < len(line) {
		must(fmt.Errorf("a line of %d bytes has no room for %q", size, line))
	}
	return line + strings.Repeat("x", size-len(line))
}

// stampAt returns where a stamp stands in an event, as the beginning of a JSON string; 0: nowhere. It is
// looked for first where the last one stood.
func stampAt(event []byte, last int) int {
	if last > 0 && last+stampBytes < len(event) && event[last] == '@' && event[last-1] == '"' {
		return last
	}
	return bytes.Index(event, []byte(`"@`)) + 1
}

// readStamp returns what stamped has written at that place, as of a time that is at most 500 s away.
func readStamp(event []byte, at int, nowUs int64) (dueUs int64, phase int) {
	for _, digit := range event[at+1 : at+1+phaseDigits] {
		phase = phase*10 + int(digit-'0')
	}
	for _, digit := range event[at+1+phaseDigits : at+stampBytes] {
		dueUs = dueUs*10 + int64(digit-'0')
	}
	age := (nowUs - dueUs) % stampWraps
	if age > stampWraps/2 {
		age -= stampWraps
	}
	return nowUs - age, phase
}
