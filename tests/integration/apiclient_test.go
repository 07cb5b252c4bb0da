package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

// apiKey opens the nodes that the tests start with withAPI.
const apiKey = "that-of-the-tests-long-enough"

const withAPI = "REJOIN_API_KEYS=" + apiKey

// apiContract holds requests and answers to internal/api/openapi.yaml.
var apiContract = sync.OnceValues(func() (validator.Validator, error) {
	text, err := os.ReadFile("../../internal/api/openapi.yaml")
	if err != nil {
		return nil, err
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return v, nil
})

// A backend calls the API of one node.
type backend struct {
	t    *testing.T
	addr string // of the internal port
	key  string
}

func (n *node) backend() *backend {
	return &backend{n.t, n.internal, apiKey}
}

// A reply of the API has the fields of all replies.
type apiReply struct {
	status int
	header http.Header
	text   string

	Offset        string
	Code          string
	Detail        string
	MayHave       bool `json:"mayHaveHappened"`
	Results       []apiResult
	Answers       []apiAnswer
	Partial       bool
	SilentSockets []string
	SilentNodes   []string
	Sockets       []apiSocket
	Rooms         []apiRoom
	Members       []member
	Events        []apiEvent
	More          bool
	Next          string
}

type apiResult struct {
	Status  int
	Offset  string
	Problem struct{ Code string }
}

type apiAnswer struct {
	Socket, Node string
	Args         json.RawMessage
	Attachments  [][]byte
}

type apiSocket struct {
	ID, Node, User string
	Rooms          []string
}

type apiRoom struct {
	Name    string
	Members int
}

type apiEvent struct {
	Offset, Event string
	Args          json.RawMessage
	Attachments   [][]byte
}

// An apiCall is one request. Its fields that are not set are left out.
type apiCall struct {
	method, path string // the path without /api/v1/
	body         string
	key          string // Idempotency-Key
	wrong        bool   // the contract does not allow it
}

// post makes a call that the contract allows, and that must not fail.
func (b *backend) post(path, body string, key ...string) apiReply {
	b.t.Helper()
	r := b.do(apiCall{method: "POST", path: path, body: body, key: strings.Join(key, "")})
	if r.status >= 300 {
		b.t.Fatalf("%s %s: %d %s", path, body, r.status, r.text)
	}
	return r
}

func (b *backend) get(path string) apiReply {
	b.t.Helper()
	r := b.do(apiCall{method: "GET", path: path})
	if r.status != http.StatusOK {
		b.t.Fatalf("%s: %d %s", path, r.status, r.text)
	}
	return r
}

func (b *backend) do(c apiCall) apiReply {
	b.t.Helper()
	r, err := b.try(c)
	if err != nil {
		b.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	return r
}

// try makes a call and holds it and its answer to the contract. The error is that
// of a node which does not answer.
func (b *backend) try(c apiCall) (apiReply, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, c.method, "http://"+b.addr+"/api/v1/"+c.path, strings.NewReader(c.body))
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+b.key)
	if c.method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		request.Header.Set("Idempotency-Key", c.key)
	}
	contract, err := apiContract()
	if err != nil {
		b.t.Fatal(err)
	}
	if ok, errs := contract.ValidateHttpRequestSync(request); ok == c.wrong {
		b.t.Errorf("%s %s %s: the contract allows it: %v; %v", c.method, c.path, excerpt(c.body), ok, errs)
	}
	request.Body = io.NopCloser(strings.NewReader(c.body))
	response, err := internalHTTP.Do(request)
	if err != nil {
		return apiReply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return apiReply{}, err
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	if known := response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed; known {
		if ok, errs := contract.ValidateHttpResponse(request, response); !ok {
			b.t.Errorf("%s %s: the answer %s breaks the contract: %v", c.method, c.path, excerpt(string(text)), errs)
		}
	}
	r := apiReply{status: response.StatusCode, header: response.Header, text: string(text)}
	if strings.Contains(response.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(text, &r); err != nil {
			b.t.Errorf("%s %s: %s: %v", c.method, c.path, text, err)
		}
	}
	return r, nil
}
