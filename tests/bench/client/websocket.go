package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"
)

const (
	opText  = 1
	opClose = 8
	opPing  = 9
)

func upgrade(address, path, protocol string) []byte {
	return []byte(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", path, address, protocol))
}

// upgraded returns where the frames begin, 0 while the response is not all here.
func upgraded(data []byte) int {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return 0
	}
	if !bytes.HasPrefix(data, []byte("HTTP/1.1 101")) {
		must(fmt.Errorf("refused: %s", data))
	}
	return end + 4
}

// frame returns the opcode, and the sizes of the header and the payload; a header of 0 is not all here.
func frame(data []byte) (opcode byte, head, size int) {
	if len(data) < 2 {
		return 0, 0, 0
	}
	head, size = 2, int(data[1]&0x7f)
	if size == 126 {
		if len(data) < 4 {
			return 0, 0, 0
		}
		head, size = 4, int(binary.BigEndian.Uint16(data[2:]))
	} else if size == 127 {
		if len(data) < 10 {
			return 0, 0, 0
		}
		head, size = 10, int(binary.BigEndian.Uint64(data[2:]))
	}
	return data[0] & 0x0f, head, size
}

// masked returns a client's frame; the mask of zeros spares the work and is as good as any other.
func masked(opcode byte, payload []byte) []byte {
	out := []byte{0x80 | opcode}
	if len(payload) < 126 {
		out = append(out, 0x80|byte(len(payload)))
	} else {
		out = append(out, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	return append(append(out, 0, 0, 0, 0), payload...)
}

// A watcher is a WebSocket whose text frames go to seen, each at once and complete.
type watcher struct {
	fd      int
	open    bool   // the upgrade was answered
	rest    []byte // of a frame that is not all here
	code    int    // of the close frame
	lost    bool   // it ended without one
	opened  func()
	seen    func(payload []byte) (enough bool)
	arrived func() // before the frames of one read
	over    func()
}

func (w *watcher) ended() { w.over() }

func (w *watcher) ready(buffer []byte) bool {
	kept := copy(buffer, w.rest)
	count, err := syscall.Read(w.fd, buffer[kept:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return false
	}
	if err != nil || count == 0 {
		w.lost = true
		return true
	}
	data, at := buffer[:kept+count], 0
	if !w.open {
		if at = upgraded(data); at == 0 {
			w.rest = append(w.rest[:0], data...)
			return false
		}
		w.open = true
		w.opened()
	}
	w.arrived()
	for {
		opcode, head, size := frame(data[at:])
		if head == 0 || at+head+size > len(data) {
			break
		}
		payload := data[at+head : at+head+size]
		at += head + size
		if w.frame(opcode, payload) {
			return true
		}
	}
	if at == 0 && len(data) == len(buffer) {
		must(fmt.Errorf("a frame is larger than the buffer of %d bytes", len(buffer)))
	}
	w.rest = append(w.rest[:0], data[at:]...)
	return false
}

func (w *watcher) frame(opcode byte, payload []byte) (over bool) {
	switch opcode {
	case opText:
		return w.seen(payload)
	case opClose:
		if len(payload) >= 2 {
			w.code = int(binary.BigEndian.Uint16(payload))
		}
		return true
	case opPing:
		send(w.fd, masked(10, payload))
	}
	return false
}
