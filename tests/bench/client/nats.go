package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"syscall"
)

// NATS speaks lines over TCP, and the same lines inside binary WebSocket frames that may cut them anywhere.

const natsConnect = `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"echo":true}` + "\r\n"

const natsProtocol = "Sec-WebSocket-Protocol: nats\r\n"

// A natsMessage is a MSG or HMSG; of the latter only what follows the headers is the payload.
type natsMessage struct {
	words   []byte // MSG subject sid [reply]
	headers []byte
	payload []byte
}

// natsWatcher reads NATS over a WebSocket; it sends first, once the upgrade was answered.
type natsWatcher struct {
	fd      int
	open    bool
	left    int    // of the payload of the present frame
	rest    []byte // of a message that is not all here
	head    []byte // of a frame's header that is not all here
	lost    bool
	first   []byte
	opened  func()
	seen    func(message natsMessage) (enough bool)
	arrived func()
	over    func()
}

func (w *natsWatcher) ended() { w.over() }

func (w *natsWatcher) ready(buffer []byte) bool {
	kept := copy(buffer, w.rest)
	from := kept + copy(buffer[kept:], w.head)
	count, err := syscall.Read(w.fd, buffer[from:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return false
	}
	if err != nil || count == 0 {
		w.lost = true
		return true
	}
	end := from + count
	if !w.open {
		at := upgraded(buffer[:end])
		if at == 0 {
			w.rest = append(w.rest[:0], buffer[:end]...)
			return false
		}
		w.open = true
		send(w.fd, masked(2, w.first))
		kept = 0
		end = copy(buffer, buffer[at:end])
		w.opened()
	}
	w.arrived()
	end = w.unframe(buffer, kept, end)
	used, enough := w.messages(buffer[:end])
	if used == 0 && end == len(buffer) {
		must(fmt.Errorf("a message is larger than the buffer of %d bytes", len(buffer)))
	}
	w.rest = append(w.rest[:0], buffer[used:end]...)
	return enough || w.lost
}

// unframe takes the frames' headers out of buffer[at:end] and returns where the lines now end.
func (w *natsWatcher) unframe(buffer []byte, at, end int) int {
	to := at
	w.head = w.head[:0]
	for at < end {
		if w.left == 0 {
			opcode, head, size := frame(buffer[at:end])
			if head == 0 {
				w.head = append(w.head, buffer[at:end]...)
				break
			}
			if opcode == opClose {
				w.lost = true
				break
			}
			at, w.left = at+head, size
		}
		taken := end - at
		if taken > w.left {
			taken = w.left
		}
		to += copy(buffer[to:], buffer[at:at+taken])
		at, w.left = at+taken, w.left-taken
	}
	return to
}

func (w *natsWatcher) messages(data []byte) (used int, enough bool) {
	for {
		kind, message, size := parseNats(data[used:])
		used += size
		switch {
		case size == 0:
			return used, false
		case kind == natsPing:
			send(w.fd, masked(2, []byte("PONG\r\n")))
		case kind == natsError:
			w.lost = true
			return used, true
		case kind == natsMsg && w.seen(message):
			return used, true
		}
	}
}

const (
	natsOther = iota
	natsMsg
	natsPing
	natsError
)

// parseNats returns one line, with its payload if it has one, and its size; 0: it is not all here.
func parseNats(data []byte) (kind int, message natsMessage, size int) {
	line := bytes.IndexByte(data, '\n')
	if line < 0 {
		return natsOther, message, 0
	}
	switch data[0] {
	case 'M', 'H':
		words, total := lastNumber(data[:line-1])
		headers := 0
		if data[0] == 'H' {
			words, headers = lastNumber(words)
		}
		size = line + 1 + total + 2
		if len(data) < size {
			return natsOther, message, 0
		}
		body := data[line+1 : line+1+total]
		return natsMsg, natsMessage{words, body[:headers], body[headers:]}, size
	case 'P':
		if data[1] == 'I' {
			return natsPing, message, line + 1
		}
	case '-':
		return natsError, natsMessage{payload: data[:line]}, line + 1
	}
	return natsOther, message, line + 1
}

func lastNumber(words []byte) ([]byte, int) {
	number, unit := 0, 1
	at := len(words) - 1
	for ; words[at] != ' '; at-- {
		number += int(words[at]-'0') * unit
		unit *= 10
	}
	return words[:at], number
}

// reply returns the fourth word of "MSG subject sid reply", nil without one.
func (m natsMessage) reply() []byte {
	words := bytes.Split(m.words, []byte(" "))
	if len(words) < 4 {
		return nil
	}
	return words[3]
}

// natsClient is a plain TCP connection for what is not measured: requests and their answers, one at a time.
type natsClient struct {
	inbox  string
	conn   net.Conn
	buffer []byte
	length int
}

func dialNats(address string) *natsClient {
	conn, err := net.Dial("tcp", address)
	must(err)
	inbox := fmt.Sprintf("_A.%d", conn.LocalAddr().(*net.TCPAddr).Port)
	client := &natsClient{inbox: inbox, conn: conn, buffer: make([]byte, 1<<16)}
	client.write([]byte(natsConnect + "SUB " + inbox + " 1\r\n"))
	return client
}

func (c *natsClient) write(data []byte) {
	_, err := c.conn.Write(data)
	must(err)
}

// message waits for the next message to the client's inbox.
func (c *natsClient) message() []byte {
	for {
		kind, message, size := parseNats(c.buffer[:c.length])
		payload := append([]byte{}, message.payload...)
		c.length = copy(c.buffer, c.buffer[size:c.length])
		switch {
		case kind == natsMsg:
			return payload
		case kind == natsPing:
			c.write([]byte("PONG\r\n"))
		case kind == natsError:
			must(fmt.Errorf("NATS says %s", payload))
		case size == 0:
			count, err := c.conn.Read(c.buffer[c.length:])
			must(err)
			c.length += count
		}
	}
}

func publication(subject, reply string, payload []byte) []byte {
	if reply != "" {
		subject += " " + reply
	}
	return []byte(fmt.Sprintf("PUB %s %d\r\n%s\r\n", subject, len(payload), payload))
}

// request asks JetStream's API and fails if it refuses.
func (c *natsClient) request(subject string, body any) map[string]any {
	payload, err := json.Marshal(body)
	must(err)
	c.write(publication("$JS.API."+subject, c.inbox, payload))
	var answer map[string]any
	must(json.Unmarshal(c.message(), &answer))
	if refusal := answer["error"]; refusal != nil {
		must(fmt.Errorf("%s: %v", subject, refusal))
	}
	return answer
}

// create makes a stream that is kept in a file.
func (c *natsClient) create(stream, subject string) {
	c.request("STREAM.CREATE."+stream, map[string]any{
		"name": stream, "subjects": []string{subject}, "storage": "file", "num_replicas": 1,
	})
}
