// Opens N WebSockets on one URL at once, counts their text frames and prints one JSON object each.
// A client this cheap (no copies, no decoding) measures the server and not itself.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const bufferBytes = 1 << 20

type result struct {
	Messages int     `json:"messages"`
	Bytes    int     `json:"bytes"`
	FirstMs  float64 `json:"firstMs"`
	TotalMs  float64 `json:"totalMs"`
	Code     int     `json:"code"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// read counts the frames of one connection until its close frame.
func read(conn net.Conn, path string, start <-chan struct{}) result {
	buffer := make([]byte, bufferBytes)
	<-start
	began := time.Now()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		path, conn.RemoteAddr())
	length, at := 0, -1
	for at < 0 {
		count, err := conn.Read(buffer[length:])
		must(err)
		length += count
		if end := bytes.Index(buffer[:length], []byte("\r\n\r\n")); end >= 0 {
			at = end + 4
		}
	}
	if !bytes.HasPrefix(buffer, []byte("HTTP/1.1 101")) {
		must(fmt.Errorf("refused: %s", buffer[:length]))
	}
	found := result{}
	for {
		for length-at >= 2 {
			head, size := 2, int(buffer[at+1]&0x7f)
			switch {
			case size == 126 && length-at >= 4:
				head, size = 4, int(binary.BigEndian.Uint16(buffer[at+2:]))
			case size == 127 && length-at >= 10:
				head, size = 10, int(binary.BigEndian.Uint64(buffer[at+2:]))
			}
			if size >= 126 && head == 2 {
				break // the header is not all here
			}
			opcode := buffer[at] & 0x0f
			if opcode == 8 {
				if length-at < head+2 {
					break
				}
				found.Code = int(binary.BigEndian.Uint16(buffer[at+head:]))
				found.TotalMs = time.Since(began).Seconds() * 1000
				return found
			}
			if opcode == 1 {
				if found.Messages == 0 {
					found.FirstMs = time.Since(began).Seconds() * 1000
				}
				found.Messages++
				found.Bytes += size
			}
			at += head + size
		}
		if at >= length { // the rest of the last frame is still to come
			at, length = at-length, 0
			for at >= bufferBytes {
				count, err := conn.Read(buffer)
				must(err)
				at -= count
			}
		} else {
			length = copy(buffer, buffer[at:length])
			at = 0
		}
		count, err := conn.Read(buffer[length:])
		must(err)
		length += count
	}
}

func main() {
	address, path := os.Args[1], os.Args[2]
	clients, err := strconv.Atoi(os.Args[3])
	must(err)
	results := make([]result, clients)
	start := make(chan struct{})
	var all sync.WaitGroup
	for index := range results {
		conn, err := net.Dial("tcp", address)
		must(err)
		all.Add(1)
		go func(index int) {
			defer all.Done()
			results[index] = read(conn, path, start)
		}(index)
	}
	time.Sleep(20 * time.Millisecond) // every reader waits for the start
	close(start)
	all.Wait()
	must(json.NewEncoder(os.Stdout).Encode(results))
}
