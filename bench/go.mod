module github.com/rejoin-io/rejoin/bench

go 1.26.0
