package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

type storeSpec struct {
	Address string   `json:"address"`
	Streams []string `json:"streams"`
	Events  int      `json:"events"` // in each
	Bytes   int      `json:"bytes"`  // of each
}

// store fills new streams on disk, and returns once the server says that it holds everything.
func store(spec storeSpec) {
	client := dialNats(spec.Address)
	payload := strings.Repeat("x", spec.Bytes)
	for _, stream := range spec.Streams {
		client.create(stream, "ev."+stream)
		out := bufio.NewWriterSize(client.conn, 1<<20)
		for number := 0; number < spec.Events; number++ {
			fmt.Fprintf(out, "PUB ev.%s %d\r\n%s\r\n", stream, len(payload), payload)
		}
		must(out.Flush())
		for {
			answer := client.request("STREAM.INFO."+stream, map[string]any{})
			if answer["state"].(map[string]any)["messages"].(float64) == float64(spec.Events) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// consumer returns what makes JetStream send a whole stream to a new subject: the ordered consumer of its own
// clients, which is pushed, flow-controlled, kept in memory and not acknowledged. (Pulled, it is no faster.)
func consumer(stream, subject string) []byte {
	body, err := json.Marshal(map[string]any{"stream_name": stream, "config": map[string]any{
		"deliver_subject": subject, "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant",
		"flow_control": true, "idle_heartbeat": 5 * time.Second, "max_deliver": 1, "mem_storage": true, "num_replicas": 1,
	}})
	must(err)
	lines := natsConnect + fmt.Sprintf("SUB %s 1\r\nSUB _A 2\r\n", subject)
	return append([]byte(lines), publication("$JS.API.CONSUMER.CREATE."+stream, "_A", body)...)
}
