package sessiontest_test

import (
	"testing"

	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/session/sessiontest"
)

// The test of an implementation. Each rule gets an empty store.
func ExampleRun() {
	newStore := func(*testing.T) session.Store { return session.NewMemory() }
	testContract := func(t *testing.T) { sessiontest.Run(t, newStore) } // TestContract in its own tests
	_ = testContract
}
