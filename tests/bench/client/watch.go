package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	handshakesAtOnce = 64
	connectTimeout   = 60 * time.Second
	quietMs          = 80
)

// An order of the bench, a line of JSON on stdin; each is answered by one on stdout.
type order struct {
	Do        string   `json:"do"`       // connect, produce, stick, unstick
	Protocol  string   `json:"protocol"` // websocket or nats
	Address   string   `json:"address"`
	Paths     []string `json:"paths"`
	Each      int      `json:"each"`      // connections on each path
	Producers int      `json:"producers"` // that must have come
	Events    int      `json:"events"`    // of each output of a producer
	PerS      int      `json:"perS"`      // of each, 0: all at once
	Outputs   int      `json:"outputs"`   // of each producer; events and pace are of each output
	GraceS    float64  `json:"graceS"`    // after the last event was due
}

type outcome struct {
	Watchers   int     `json:"watchers"` // that are still there
	Delivered  int     `json:"delivered"`
	Missing    int     `json:"missing"` // to those who are still there
	Seconds    float64 `json:"seconds"` // from when the first was due until the last was there
	P50Ms      float64 `json:"p50Ms"`
	P99Ms      float64 `json:"p99Ms"`
	MaxMs      float64 `json:"maxMs"`
	ConnectedS float64 `json:"connectedS"`
}

// watching is a crowd of watchers in one loop, and the producers that do what it wants.
type watching struct {
	*loop
	watchers  []*follower
	opening   int
	control   net.Listener
	arrivals  chan net.Conn
	producers []net.Conn
	phase     int
	expected  int // of each watcher in this phase
	missing   int
	delivered int
	nowUs     int64
	firstUs   int64 // when the first was due
	lastUs    int64
	latencies histogram
	stuck     int
}

// follower is one watcher: its session, and what it has been sent in this phase.
type follower struct {
	all     *watching
	stampAt int
	got     int
	gone    bool
}

// watch connects as many watchers as it is told, has events produced and says how they were delivered.
// Its first answer is where producers come to.
func watch() {
	control, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	all := &watching{loop: newLoop(), control: control, arrivals: make(chan net.Conn, 1024)}
	go func() {
		for {
			conn, err := control.Accept()
			must(err)
			all.arrivals <- conn
		}
	}()
	answers := json.NewEncoder(os.Stdout)
	must(answers.Encode(control.Addr().String()))
	orders := make(chan order)
	go func() {
		lines := json.NewDecoder(bufio.NewReader(os.Stdin))
		for {
			var next order
			if lines.Decode(&next) != nil {
				close(orders)
				return
			}
			orders <- next
		}
	}()
	for {
		select {
		case next, more := <-orders:
			if !more {
				return
			}
			must(answers.Encode(all.do(next)))
		default:
			all.turn(20)
		}
	}
}

func (all *watching) do(next order) outcome {
	switch next.Do {
	case "connect":
		return all.connect(next)
	case "produce":
		return all.produce(next)
	case "stick":
		all.stuck = stick(next)
		return outcome{}
	case "unstick":
		must(syscall.Close(all.stuck))
		return outcome{}
	}
	must(fmt.Errorf("there is no order %q", next.Do))
	return outcome{}
}

func (all *watching) connect(next order) outcome {
	began := time.Now()
	wanted := len(next.Paths) * next.Each
	for number := 0; number < wanted || all.opening > 0; {
		if number < wanted && all.opening < handshakesAtOnce {
			all.open(next, number, next.Paths[number%len(next.Paths)])
			number++
		} else {
			all.turn(1000)
		}
		if time.Since(began) > connectTimeout {
			must(fmt.Errorf("%d of %d are connected after %v", number-all.opening, wanted, connectTimeout))
		}
	}
	took := time.Since(began).Seconds()
	for all.turn(quietMs) { // until all have what there was before
	}
	return outcome{Watchers: all.loop.open, ConnectedS: took}
}

func (all *watching) open(next order, number int, path string) {
	fd := connect(next.Address, number)
	one := &follower{all: all}
	all.watchers = append(all.watchers, one)
	all.opening++
	opened := func() { all.opening-- }
	arrived := func() { all.nowUs = time.Now().UnixMicro() }
	if next.Protocol == "nats" {
		all.add(fd, &natsWatcher{
			fd: fd, first: []byte(natsConnect + "SUB " + path + " 1\r\n"), opened: opened, arrived: arrived, over: one.over,
			seen: func(message natsMessage) bool { return one.seen(message.payload) },
		})
		send(fd, upgrade(next.Address, "/", natsProtocol))
	} else {
		all.add(fd, &watcher{fd: fd, opened: opened, arrived: arrived, over: one.over, seen: one.seen})
		send(fd, upgrade(next.Address, path, ""))
	}
}

func (one *follower) seen(event []byte) bool {
	at := stampAt(event, one.stampAt)
	if at == 0 {
		return false // not one of the producers'
	}
	one.stampAt = at
	all := one.all
	dueUs, phase := readStamp(event, at, all.nowUs)
	if phase != all.phase {
		return false // too late: its phase was given up
	}
	all.latencies.add(all.nowUs-dueUs, 1)
	all.delivered++
	all.missing--
	all.lastUs = all.nowUs
	one.got++
	if dueUs < all.firstUs {
		all.firstUs = dueUs
	}
	return false
}

func (one *follower) over() {
	one.gone = true
	one.all.missing -= one.all.expected - one.got
}

// produce has every producer emit its events and waits until all watchers have them, or the time is up.
// What is still missing then counts as if it had come at that moment.
func (all *watching) produce(next order) outcome {
	for len(all.producers) < next.Producers {
		select {
		case conn := <-all.arrivals:
			all.producers = append(all.producers, conn)
		case <-time.After(connectTimeout):
			must(fmt.Errorf("%d of %d producers came", len(all.producers), next.Producers))
		}
	}
	for all.turn(quietMs) {
	}
	all.begin(next.Events)
	deadline := time.Now().Add(time.Duration(next.GraceS * float64(time.Second)))
	if next.PerS > 0 {
		deadline = deadline.Add(time.Duration(next.Events) * time.Second / time.Duration(next.PerS))
	}
	for _, producer := range all.producers {
		_, err := fmt.Fprintf(producer, orderForm, all.phase, next.Events*next.Outputs, next.PerS*next.Outputs)
		must(err)
	}
	for all.missing > 0 && time.Now().Before(deadline) {
		all.turn(100)
	}
	return all.end()
}

func (all *watching) begin(events int) {
	all.phase++
	all.expected = events
	all.delivered = 0
	all.latencies = histogram{}
	all.firstUs = math.MaxInt64
	all.missing = 0
	for _, one := range all.watchers {
		one.got = 0
		if !one.gone {
			all.missing += events
		}
	}
}

func (all *watching) end() outcome {
	if all.missing > 0 {
		all.lastUs = time.Now().UnixMicro()
		all.latencies.add(all.lastUs-all.firstUs, all.missing)
	}
	found := outcome{Watchers: all.loop.open, Delivered: all.delivered, Missing: all.missing}
	if all.delivered > 0 {
		found.Seconds = float64(all.lastUs-all.firstUs) / 1e6
		found.P50Ms, found.P99Ms, found.MaxMs = all.latencies.ms(0.5), all.latencies.ms(0.99), all.latencies.ms(1)
	}
	return found
}

// stick opens one more WebSocket that is never read from.
func stick(next order) int {
	fd := connect(next.Address, 0)
	must(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096))
	send(fd, upgrade(next.Address, next.Paths[0], ""))
	return fd
}
