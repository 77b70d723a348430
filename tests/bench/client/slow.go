package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// What makes a reader slow here is what a slow line does: little is on its way, in segments of an Ethernet. A
// loopback's own, of 64 KiB, would be taken once a minute at 1 KB/s, which the service calls no progress.
const (
	slowReceiveBytes = 4096
	slowSegmentBytes = 1460
	slowTurns        = 200 // that the readers are spread over within a second: lines do not move in step
	answerTimeout    = 30 * time.Second
)

type slowSpec struct {
	Address   string   `json:"address"`
	Paths     []string `json:"paths"`
	Each      int      `json:"each"`
	BytesPerS int      `json:"bytesPerS"` // that each reader takes
}

// slowly is what all readers have come to; gaps are events that are not the next one after the one before.
type slowly struct {
	Readers int `json:"readers"` // that are still there
	Bytes   int `json:"bytes"`
	Events  int `json:"events"`
	Gaps    int `json:"gaps"`
	Code    int `json:"code"` // of the last close frame
}

// slow opens its readers, says so, and then how they are whenever a line of stdin asks for it.
func slow() {
	lines := bufio.NewReader(os.Stdin)
	text, err := lines.ReadBytes('\n')
	must(err)
	var spec slowSpec
	must(json.Unmarshal(text, &spec))
	found := &slowly{}
	var readers []*slowReader
	for number := 0; number < len(spec.Paths)*spec.Each; number++ {
		readers = append(readers, openSlow(spec, number, found))
	}
	answers := json.NewEncoder(os.Stdout)
	must(answers.Encode(found))
	asked := make(chan struct{})
	go func() {
		for {
			if _, err := lines.ReadBytes('\n'); err != nil {
				close(asked)
				return
			}
			asked <- struct{}{}
		}
	}()
	buffer := make([]byte, spec.BytesPerS)
	ticks := time.NewTicker(time.Second / slowTurns)
	for turn := 0; ; {
		select {
		case _, more := <-asked:
			if !more {
				return
			}
			must(answers.Encode(found))
		case <-ticks.C:
			for number := turn % slowTurns; number < len(readers); number += slowTurns {
				readers[number].take(buffer)
			}
			turn++
		}
	}
}

// slowReader is one WebSocket; rest is what is not a whole frame yet.
type slowReader struct {
	fd    int
	seq   int
	rest  []byte
	found *slowly
}

func openSlow(spec slowSpec, number int, found *slowly) *slowReader {
	path := spec.Paths[number%len(spec.Paths)]
	fd := dial(spec.Address, number, func(fd int) {
		must(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, slowReceiveBytes))
		must(syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, slowSegmentBytes))
	})
	one := &slowReader{fd: fd, found: found}
	send(fd, upgrade(spec.Address, path, ""))
	deadline := time.Now().Add(answerTimeout)
	buffer := make([]byte, spec.BytesPerS)
	for began := 0; began == 0; began = upgraded(one.rest) {
		count, err := syscall.Read(fd, buffer)
		if err == syscall.EAGAIN || err == syscall.EINTR {
			if time.Now().After(deadline) {
				must(fmt.Errorf("%s is not answered after %v", path, answerTimeout))
			}
			time.Sleep(200 * time.Microsecond)
			continue
		}
		if err == nil && count == 0 {
			err = fmt.Errorf("%s ended within the answer", path)
		}
		must(err)
		one.rest = append(one.rest, buffer[:count]...)
	}
	one.rest = one.rest[upgraded(one.rest):]
	found.Readers++
	return one
}

// take reads what there is, at most as much as buffer holds.
func (one *slowReader) take(buffer []byte) {
	if one.fd < 0 {
		return
	}
	count, err := syscall.Read(one.fd, buffer)
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	if err != nil || count == 0 {
		must(syscall.Close(one.fd))
		one.fd = -1
		one.found.Readers--
		return
	}
	one.found.Bytes += count
	data, at := append(one.rest, buffer[:count]...), 0
	for {
		opcode, head, size := frame(data[at:])
		if head == 0 || at+head+size > len(data) {
			break
		}
		one.frame(opcode, data[at+head:at+head+size])
		at += head + size
	}
	one.rest = append(data[:0], data[at:]...)
}

func (one *slowReader) frame(opcode byte, payload []byte) {
	switch opcode {
	case opText:
		seq := seqOf(payload)
		if seq != one.seq+1 {
			one.found.Gaps++
		}
		one.seq = seq
		one.found.Events++
	case opPing:
		send(one.fd, masked(10, payload))
	case opClose:
		if len(payload) >= 2 {
			one.found.Code = int(payload[0])<<8 | int(payload[1])
			fmt.Fprintf(os.Stderr, "closed %d: %s\n", one.found.Code, payload[2:])
		}
	}
}

// seqOf returns the seq of an event, which stands behind whatever the event says.
func seqOf(event []byte) int {
	const before = `"seq":`
	at := bytes.LastIndex(event, []byte(before)) + len(before)
	end := bytes.IndexAny(event[at:], ",}")
	if at < len(before) || end < 0 {
		must(fmt.Errorf("there is no seq in %s", event))
	}
	seq, err := strconv.Atoi(string(event[at : at+end]))
	must(err)
	return seq
}
