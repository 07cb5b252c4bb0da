package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"text/tabwriter"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// inFile stands for a value in a file.
const inFile = "in a file"

// writeEffective writes the values that a node with this configuration uses, and where each comes
// from. It writes no secret.
func writeEffective(w io.Writer, c *config) {
	computed := c.computed()
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, v := range variables() {
		value, source := v.field.Tag.Get("default"), "default"
		if text, set := os.LookupEnv(v.name); set {
			value, source = text, "environment"
		}
		if path := os.Getenv(v.fileName()); v.mayBeFile() && path != "" {
			value, source = inFile, "file "+path
		}
		switch {
		case v.name == "REJOIN_REDIS_URL":
			value = c.RedisURL.String() // without credentials
		case v.secret():
			value = hidden(value != "")
		case value == inFile:
			value = fmt.Sprint(reflect.ValueOf(c).Elem().Field(i).Interface())
		}
		if n, ok := computed[v.name]; ok && (value == "0" || value == "") {
			value, source = n, "computed"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", v.name, value, source)
	}
	table.Flush()
}

// computed returns what stands for a zero, or for a value that is not set.
func (c *config) computed() map[string]string {
	all := map[string]string{
		"REJOIN_QUEUE_BUDGET": strconv.Itoa(c.queueBudget()), "REJOIN_RECEIVE_BUDGET": strconv.Itoa(c.receiveBudget()),
		"REJOIN_MEMBERSHIP_BUDGET": strconv.Itoa(c.membershipBudget()), "REJOIN_BACKLOG_BYTES": strconv.Itoa(c.backlogBytes()),
		"REJOIN_MAILBOX_BYTES": strconv.Itoa(max(1<<20, int(c.MaxPayload))), "REJOIN_SESSIONS": strconv.Itoa(c.sessions()),
		"REJOIN_CONNECTIONS": strconv.Itoa(c.shares(limit.Descriptors()).clients), "REJOIN_NODE_ID": "random",
	}
	if c.RedisURL.target != nil {
		delete(all, "REJOIN_BACKLOG_BYTES") // has no effect
		all["REJOIN_PARTITIONS"] = strconv.Itoa(c.partitions())
	}
	return all
}
