package redisurl_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

func Example() {
	target, err := redisurl.Parse("rediss+sentinel://:secret@a.example?addr=b.example:26379&master_name=chat")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(target.Form(), target)

	client := target.Client() // connects when it is used
	defer func() { _ = client.Close() }()
	// Output: sentinel rediss+sentinel://a.example:26379,b.example:26379
}

// Before a node starts it checks the servers, and that its user may run the commands it needs. It
// needs a Redis.
func ExampleTarget_Check() {
	target, err := redisurl.Parse("redis://node:secret@localhost:6379")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := target.Check(ctx); errors.Is(err, redisurl.ErrEvicts) {
		log.Print(err) // missed events may be lost
	} else if err != nil {
		log.Fatal(err)
	}
	denied, err := target.Denied(ctx, []any{"get", "rejoin:key"}, []any{"publish", "rejoin:channel", ""})
	fmt.Println(denied, err)
}
