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

const unacknowledged = 4_000 // events; JetStream drops what it has no room for

// store fills new streams on disk.
func store(spec storeSpec) {
	client := dialNats(spec.Address)
	payload := strings.Repeat("x", spec.Bytes)
	for _, stream := range spec.Streams {
		client.create(stream, "ev."+stream)
		out := bufio.NewWriterSize(client.conn, 1<<20)
		for number := 1; number <= spec.Events; number++ {
			if number%unacknowledged != 0 && number < spec.Events {
				fmt.Fprintf(out, "PUB ev.%s %d\r\n%s\r\n", stream, len(payload), payload)
				continue
			}
			fmt.Fprintf(out, "PUB ev.%s %s %d\r\n%s\r\n", stream, client.inbox, len(payload), payload)
			must(out.Flush())
			if want := fmt.Sprintf(`"seq":%d`, number); !strings.Contains(string(client.message()), want) {
				must(fmt.Errorf("JetStream does not acknowledge %s", want))
			}
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
