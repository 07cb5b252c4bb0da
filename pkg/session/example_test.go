package session_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// A client reconnects to another node: its session is claimed, and the former owner can no
// longer change it.
func ExampleStore() {
	ctx := context.Background()
	const window = 2 * time.Minute
	var store session.Store = session.NewMemory()

	s := session.Session{PID: "secret", ID: "Xk3f", Namespace: "/", User: "ann", Owner: "node 1", Fence: 1}
	if err := store.Create(ctx, s, window); err != nil {
		log.Fatal(err)
	}

	claimed, former, err := store.Claim(ctx, "secret", "node 2", window, func(s session.Session) error {
		if s.User != "ann" {
			return errors.New("another user's session")
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s came from %s, fence %d\n", claimed.ID, former, claimed.Fence)

	err = store.Save(ctx, s, window) // node 1, late
	fmt.Println(errors.Is(err, session.ErrFenced))
	// Output:
	// Xk3f came from node 1, fence 2
	// true
}

// A caller can count the bytes that its writes cause.
func ExampleOnWrite() {
	sent := 0
	ctx := session.OnWrite(context.Background(), func(bytes int) { sent += bytes })
	session.CountWrite(ctx, 300) // a store's Save does so before it sends bytes
	fmt.Println(sent)
	// Output: 300
}
