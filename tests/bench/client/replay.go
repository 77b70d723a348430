package main

import (
	"bytes"
	"fmt"
	"time"
)

type replaySpec struct {
	Protocol string   `json:"protocol"` // websocket or jetstream
	Address  string   `json:"address"`
	Paths    []string `json:"paths"`    // one client each; of JetStream the names of streams
	Messages int      `json:"messages"` // so many and no more; 0: to the close frame
}

type replayed struct {
	Messages int     `json:"messages"`
	Bytes    int     `json:"bytes"`
	FirstMs  float64 `json:"firstMs"`
	TotalMs  float64 `json:"totalMs"`
	Code     int     `json:"code"`
}

// replay opens every client at once, counts what each is sent, and says when its first and last came.
// Times are from sending the upgrade.
func replay(spec replaySpec) []replayed {
	found := make([]replayed, len(spec.Paths))
	fds := make([]int, len(spec.Paths))
	for index := range spec.Paths {
		fds[index] = connect(spec.Address, index)
	}
	time.Sleep(20 * time.Millisecond) // the server has accepted them
	reading := newLoop()
	over := make([]func(), len(spec.Paths))
	for index, path := range spec.Paths {
		counting := counter{spec: &spec, found: &found[index], began: time.Now()}
		if spec.Protocol == "jetstream" {
			over[index] = counting.overJetStream(reading, fds[index], path, fmt.Sprintf("_D.%d.%d", time.Now().UnixNano(), index))
		} else {
			over[index] = counting.overWebSocket(reading, fds[index], path)
		}
	}
	for reading.open > 0 {
		reading.turn(-1)
	}
	for _, check := range over {
		check()
	}
	return found
}

type counter struct {
	spec  *replaySpec
	found *replayed
	began time.Time
}

func (c *counter) ms() float64 { return time.Since(c.began).Seconds() * 1000 }

func (c *counter) count(size int) (enough bool) {
	if c.found.Messages == 0 {
		c.found.FirstMs = c.ms()
	}
	c.found.Messages++
	c.found.Bytes += size
	return c.found.Messages == c.spec.Messages
}

func nothing() {}

func (c *counter) overWebSocket(reading *loop, fd int, path string) (check func()) {
	one := &watcher{fd: fd, opened: nothing, arrived: nothing}
	one.seen = func(payload []byte) bool { return c.count(len(payload)) }
	one.over = func() { c.found.TotalMs = c.ms() }
	reading.add(fd, one)
	send(fd, upgrade(c.spec.Address, path, ""))
	return func() {
		c.found.Code = one.code
		if one.lost {
			must(fmt.Errorf("%s ended without a close frame", path))
		}
	}
}

func (c *counter) overJetStream(reading *loop, fd int, stream, subject string) (check func()) {
	one := &natsWatcher{fd: fd, opened: nothing, arrived: nothing}
	one.first = consumer(stream, subject)
	one.seen = func(message natsMessage) bool {
		if len(message.headers) > 0 { // a status: flow control, or a heartbeat
			if reply := message.reply(); bytes.Contains(message.headers, []byte("FlowControl")) {
				send(fd, masked(2, publication(string(reply), "", nil)))
			}
			return false
		}
		if bytes.HasPrefix(message.words, []byte("MSG _A")) {
			if bytes.Contains(message.payload, []byte(`"error"`)) {
				must(fmt.Errorf("JetStream says %s", message.payload))
			}
			return false
		}
		return c.count(len(message.payload))
	}
	one.over = func() { c.found.TotalMs = c.ms() }
	reading.add(fd, one)
	send(fd, upgrade(c.spec.Address, "/", natsProtocol))
	return func() {
		if one.lost {
			must(fmt.Errorf("NATS closed %s", stream))
		}
	}
}
