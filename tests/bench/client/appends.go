package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type appendSpec struct {
	Address string `json:"address"`
	Clients int    `json:"clients"`
	Appends int    `json:"appends"` // in all
	Bytes   int    `json:"bytes"`   // of each
}

type appended struct {
	PerS  float64 `json:"perS"`
	P50Ms float64 `json:"p50Ms"`
	P99Ms float64 `json:"p99Ms"`
}

// appends publishes from many connections, each to a JetStream of its own (with one for all it is a third
// slower) and each waiting for the acknowledgement before its next.
func appends(spec appendSpec) appended {
	setUp := dialNats(spec.Address)
	clients := make([]*natsClient, spec.Clients)
	for index := range clients {
		clients[index] = dialNats(spec.Address)
		setUp.create(fmt.Sprintf("A%d", index), fmt.Sprintf("append.%d", index))
	}
	payload := []byte(strings.Repeat("x", spec.Bytes))
	var left atomic.Int64
	left.Store(int64(spec.Appends))
	var latencies histogram
	var lock sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for index, client := range clients {
		all.Add(1)
		go func(client *natsClient, event []byte) {
			defer all.Done()
			var own histogram
			for left.Add(-1) >= 0 {
				sent := time.Now()
				client.write(event)
				if answer := client.message(); !bytes.Contains(answer, []byte(`"seq"`)) {
					must(fmt.Errorf("JetStream says %s", answer))
				}
				own.add(time.Since(sent).Microseconds(), 1)
			}
			lock.Lock()
			for bucket, count := range own {
				latencies[bucket] += count
			}
			lock.Unlock()
		}(client, publication(fmt.Sprintf("append.%d", index), client.inbox, payload))
	}
	all.Wait()
	took := time.Since(began).Seconds()
	for index := range clients {
		setUp.request(fmt.Sprintf("STREAM.DELETE.A%d", index), map[string]any{})
	}
	return appended{float64(spec.Appends) / took, latencies.ms(0.5), latencies.ms(0.99)}
}
