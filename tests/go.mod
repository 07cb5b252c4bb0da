module github.com/rejoin-io/rejoin/tests

go 1.26.0

replace github.com/rejoin-io/rejoin => ../

require (
	github.com/gorilla/websocket v1.5.3
	github.com/rejoin-io/rejoin v0.0.0-00010101000000-000000000000
	go.uber.org/goleak v1.3.0
)

require (
	github.com/rs/cors v1.11.1 // indirect
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
)
