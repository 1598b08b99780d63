// Stage-go is a stage in ten lines: it drops frames of more than so many bytes.
//
//	go build ./examples/stage-go
//	tunread tap0 | ./stage-go -most 1000 | tunwrite tap1
package main

import (
	"flag"
	"log"
	"os"

	"framepipe/frame"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("stage-go: ")
	most := flag.Int("most", 1000, "drop frames of more `bytes`")
	flag.Parse()
	err := frame.Run(os.Stdin, os.Stdout, func(r *frame.Record, w *frame.Writer) error {
		if len(r.Frame) > *most {
			return nil // dropped
		}
		return w.Pass(r)
	})
	if err != nil {
		log.Fatal(err)
	}
}
