package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

type produceSpec struct {
	Control string `json:"control"` // where the watchers say what they want
	Bytes   int    `json:"bytes"`   // of a line
	Nats    string `json:"nats"`    // publish there, and do not print
	Subject string `json:"subject"`
	Door    string `json:"door"` // write to whoever lends its stdout there, in turn
	Lent    int    `json:"lent"` // so many of them
}

// An order is a line of text: the phase, how many events in all, and how many a second, 0: at once.
const orderForm = "%d %d %d\n"

// produce prints lines as it is ordered to, until whoever orders is gone. Each line carries the time at which
// it was due, not that at which it could be written: a consumer that holds up the producer hides nothing.
func produce(spec produceSpec) {
	emit := printer(os.Stdout)
	if spec.Nats != "" {
		emit = publisher(spec)
	} else if spec.Door != "" {
		emit = spreader(borrow(spec.Door, spec.Lent))
	}
	control, err := net.Dial("tcp", spec.Control)
	must(err)
	orders := bufio.NewReader(control)
	for {
		var phase, events, perS int
		if _, err := fmt.Fscanf(orders, orderForm, &phase, &events, &perS); err != nil {
			return
		}
		pace(phase, events, perS, spec.Bytes, emit)
	}
}

// pace emits every event once it is due; those that are due together go together.
func pace(phase, events, perS, size int, emit func(lines []string)) {
	began := time.Now()
	due := func(number int) time.Time {
		if perS == 0 {
			return began
		}
		return began.Add(time.Duration(number) * time.Second / time.Duration(perS))
	}
	for done := 0; done < events; {
		sleep(time.Until(due(done)))
		var lines []string
		for now := time.Now(); done < events && !due(done).After(now); done++ {
			lines = append(lines, stamped(due(done).UnixMicro(), phase, size))
		}
		emit(lines)
	}
}

// sleep is exact to some 0.1 ms, where time.Sleep may take one more.
func sleep(left time.Duration) {
	if left > 0 {
		length := syscall.NsecToTimespec(left.Nanoseconds())
		syscall.Nanosleep(&length, nil)
	}
}

func printer(out io.Writer) func([]string) {
	var buffer bytes.Buffer
	return func(lines []string) {
		buffer.Reset()
		for _, line := range lines {
			buffer.WriteString(line)
			buffer.WriteByte('\n')
		}
		_, err := out.Write(buffer.Bytes())
		must(err)
	}
}

func publisher(spec produceSpec) func([]string) {
	client := dialNats(spec.Nats)
	go func() {
		for {
			client.message() // it only answers the PINGs
		}
	}()
	var buffer bytes.Buffer
	return func(lines []string) {
		buffer.Reset()
		for _, line := range lines {
			buffer.Write(publication(spec.Subject, "", []byte(`{"message":"`+line+`"}`)))
		}
		client.write(buffer.Bytes())
	}
}

// spreader gives each line to the next descriptor.
func spreader(outputs []int) func([]string) {
	next := 0
	return func(lines []string) {
		for _, line := range lines {
			_, err := syscall.Write(outputs[next], []byte(line+"\n"))
			must(err)
			next = (next + 1) % len(outputs)
		}
	}
}
