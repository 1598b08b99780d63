module framepipe

go 1.24.0

require (
	github.com/cilium/ebpf v0.21.0
	github.com/rogpeppe/go-internal v1.14.1
	github.com/vmihailenco/msgpack/v5 v5.4.1
	golang.org/x/sys v0.40.0
	pgregory.net/rapid v1.3.0
)

require (
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	golang.org/x/tools v0.38.0 // indirect
)
