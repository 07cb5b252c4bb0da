package redisurl_test

import (
	"fmt"

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
