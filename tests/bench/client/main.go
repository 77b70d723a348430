// The bench's load: clients cheap enough that they measure the server and not themselves, and what feeds it.
//
// "client VERB" reads what it is asked for as JSON from stdin and answers with JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	verb := ""
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	switch verb {
	case "replay":
		var spec replaySpec
		must(json.NewDecoder(os.Stdin).Decode(&spec))
		must(json.NewEncoder(os.Stdout).Encode(replay(spec)))
	case "store":
		var spec storeSpec
		must(json.NewDecoder(os.Stdin).Decode(&spec))
		store(spec)
	case "append":
		var spec appendSpec
		must(json.NewDecoder(os.Stdin).Decode(&spec))
		must(json.NewEncoder(os.Stdout).Encode(appends(spec)))
	case "watch":
		watch()
	case "slow":
		slow()
	case "produce":
		var spec produceSpec
		must(json.Unmarshal([]byte(os.Args[2]), &spec)) // its stdin is the service's
		produce(spec)
	case "lend":
		lend(os.Args[2])
	default:
		must(fmt.Errorf("there is no verb %q", verb))
	}
}
