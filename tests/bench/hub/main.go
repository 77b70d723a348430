// A hub of WebSocket clients, as the published guide's service has one: it forwards each line of its stdin as
// an event of one run to whoever watches, keeps nothing, and drops a client whose channel is full.
//
// "hub guide": one WriteMessage for each event and client. "hub best": each event framed once for all
// clients, and whatever waits for a client written in one go.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	pingPeriod   = 54 * time.Second
	pongWait     = 60 * time.Second
	writeWait    = 10 * time.Second
	guideBuffer  = 256 // events of one client
	bestBuffer   = 4096
	joinedBytes  = 64 << 10
	timestamp    = "2026-01-02T03:04:05.678Z"
	lineBytesMax = 1 << 16
)

type payload struct {
	StepID    string `json:"stepId"`
	Level     string `json:"level"`
	Message   string `json:"message"`
	Timestamp string `json:"timestamp"`
}

type message struct {
	RunID     string  `json:"runId"`
	Type      string  `json:"type"`
	Payload   payload `json:"payload"`
	Seq       int     `json:"seq"`
	Timestamp string  `json:"timestamp"`
}

type client struct {
	conn *websocket.Conn
	send chan []byte
}

type hub struct {
	clients    map[*client]bool
	register   chan *client
	unregister chan *client
	broadcast  chan []byte
}

func (h *hub) run() {
	for {
		select {
		case one := <-h.register:
			h.clients[one] = true
		case one := <-h.unregister:
			h.drop(one)
		case event := <-h.broadcast:
			for one := range h.clients {
				select {
				case one.send <- event:
				default:
					h.drop(one)
				}
			}
		}
	}
}

func (h *hub) drop(one *client) {
	if h.clients[one] {
		delete(h.clients, one)
		close(one.send)
	}
}

func (h *hub) read(one *client) {
	defer func() {
		h.unregister <- one
		one.conn.Close()
	}()
	one.conn.SetReadLimit(4096)
	one.conn.SetReadDeadline(time.Now().Add(pongWait))
	one.conn.SetPongHandler(func(string) error { return one.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		if _, _, err := one.conn.ReadMessage(); err != nil {
			return
		}
	}
}

// write sends what comes through the channel, by way of the given function, and the PINGs.
func (h *hub) write(one *client, forward func(event []byte) error) {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		one.conn.Close()
	}()
	for {
		select {
		case event, more := <-one.send:
			one.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !more {
				one.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if forward(event) != nil {
				return
			}
		case <-ticker.C:
			one.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if one.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

// oneByOne is the guide's way.
func oneByOne(one *client) func([]byte) error {
	return func(event []byte) error { return one.conn.WriteMessage(websocket.TextMessage, event) }
}

// joined writes a ready frame, and with it all that has come meanwhile.
func joined(one *client) func([]byte) error {
	var buffer []byte
	return func(frame []byte) error {
		buffer = append(buffer[:0], frame...)
		for len(one.send) > 0 && len(buffer) < joinedBytes {
			next, more := <-one.send
			if !more {
				break
			}
			buffer = append(buffer, next...)
		}
		_, err := one.conn.UnderlyingConn().Write(buffer)
		return err
	}
}

func framed(event []byte) []byte {
	head := []byte{0x81, byte(len(event))}
	if len(event) > 125 {
		head = []byte{0x81, 126, byte(len(event) >> 8), byte(len(event))}
	}
	return append(head, event...)
}

func asIs(event []byte) []byte { return event }

func main() {
	encode, forwarding, room := asIs, oneByOne, guideBuffer
	if len(os.Args) > 1 && os.Args[1] == "best" {
		encode, forwarding, room = framed, joined, bestBuffer
	}
	all := &hub{map[*client]bool{}, make(chan *client), make(chan *client), make(chan []byte)}
	go all.run()
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	http.HandleFunc("/", func(out http.ResponseWriter, request *http.Request) {
		conn, err := upgrader.Upgrade(out, request, nil)
		if err != nil {
			return
		}
		one := &client{conn, make(chan []byte, room)}
		all.register <- one
		go all.write(one, forwarding(one))
		go all.read(one)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() { must(http.Serve(listener, nil)) }()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, lineBytesMax), lineBytesMax)
	for seq := 1; lines.Scan(); seq++ {
		said := payload{"print", "info", lines.Text(), timestamp}
		event, err := json.Marshal(message{"hub", "step_log", said, seq, timestamp})
		must(err)
		all.broadcast <- encode(event)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
