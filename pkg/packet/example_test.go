package packet_test

import (
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

func ExampleDecoder() {
	var d packet.Decoder
	p, _ := d.Text([]byte(`51-/admin,7["upload",{"name":"a.bin","content":{"_placeholder":true,"num":0}}]`))
	fmt.Println(p)
	p, _ = d.Binary([]byte{1, 2, 3})
	fmt.Println(p.Type, p.Namespace, p.ID, p.Attachments)

	name, args, _ := packet.SplitEvent(p.Data)
	var file struct {
		Name    string
		Content packet.Binary
	}
	err := packet.Unmarshal(args[0], p.Attachments, &file)
	fmt.Println(name, file, err)
	// Output:
	// <nil>
	// EVENT /admin 7 [[1 2 3]]
	// upload {a.bin [1 2 3]} <nil>
}

func ExamplePacket_AppendText() {
	p := packet.Packet{Type: packet.Ack, Namespace: "/admin", ID: "7", Data: []byte(`["ok"]`)}
	fmt.Println(string(p.AppendText(nil)))
	// Output: 3/admin,7["ok"]
}

func ExampleAppendArgs() {
	type picture struct {
		Title  string        `json:"title"`
		Pixels packet.Binary `json:"pixels"`
	}
	text, attachments, err := packet.AppendArgs(nil, "<b>", 1, picture{"dot", packet.Binary{255}})
	fmt.Println(string(text))
	fmt.Println(attachments, err)
	// Output:
	// "<b>",1,{"title":"dot","pixels":{"_placeholder":true,"num":0}}
	// [[255]] <nil>
}

// Arguments from a client are forwarded unchanged, with attachments.
func ExampleRaw() {
	received := packet.Packet{
		Data:        []byte(`["photo",{"_placeholder":true,"num":0}]`),
		Attachments: [][]byte{{1, 2, 3}},
	}
	_, args, _ := packet.SplitEvent(received.Data)

	text, attachments, _ := packet.AppendArgs(nil, map[string]any{
		"from":  "ann",
		"photo": packet.Raw{JSON: args[0], Attachments: received.Attachments},
	})
	fmt.Println(string(text), attachments)
	// Output: {"from":"ann","photo":{"_placeholder":true,"num":0}} [[1 2 3]]
}

func ExampleUnmarshal() {
	var v any
	err := packet.Unmarshal([]byte(`{"file":{"_placeholder":true,"num":0},"size":3}`), [][]byte{{1, 2, 3}}, &v)
	fmt.Println(v, err)
	// Output: map[file:[1 2 3] size:3] <nil>
}

func ExampleReserved() {
	fmt.Println(packet.Reserved("disconnect"), packet.Reserved("message"))
	// Output: true false
}

// An event's data without its decoder, for example from a backlog.
func ExampleSplitEvent() {
	name, args, err := packet.SplitEvent([]byte(`["move",{"x":1,"y":2},true]`))
	fmt.Printf("%s %s %v\n", name, args, err)
	// Output: move [{"x":1,"y":2} true] <nil>
}

// The fields of an auth payload, in their order.
func ExampleMembers() {
	for name, value := range packet.Members([]byte(`{"token":"abc","offset":"7"}`)) {
		fmt.Printf("%s: %s\n", name, value)
	}
	// Output:
	// token: "abc"
	// offset: "7"
}
