package frame_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"framepipe/frame"
)

// A stage that drops long frames, and passes on the rest as it came.
func Example() {
	err := frame.Run(os.Stdin, os.Stdout, func(r *frame.Record, w *frame.Writer) error {
		if len(r.Frame) > 1000 {
			return nil // drop it
		}
		return w.Pass(r)
	})
	if err != nil {
		log.Fatal(err)
	}
}

// A source writes the header, and a frame for whatever it has.
func ExampleWriter() {
	w := frame.NewWriter(os.Stdout)
	err := errors.Join(
		w.Header(frame.LinkEthernet, "example0"),
		w.Write(&frame.Record{Time: uint64(time.Now().UnixNano()), Frame: make([]byte, 60)}),
		w.Flush(),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// A sink needs no Writer: it reads to io.EOF.
func ExampleReader_Next() {
	r := frame.NewReader(os.Stdin)
	var rec frame.Record
	var err error
	for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
		if !rec.IsAnnotation() {
			fmt.Println(rec.Time, len(rec.Frame))
		}
	}
	fmt.Println(err) // io.EOF where the stream is whole
}
