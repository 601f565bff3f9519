// Command recorder is a stock recorder as other people write one: Go's net/http, HTTP/1.1 and HTTP/2 without TLS on one
// port, no castkeep extension. Its modes are the ways in which such a recorder ends. Prints `listening on ADDR` first, then
// one line for each upload that ended.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

var (
	listen = flag.String("listen", "127.0.0.1:0", "address")
	dir    = flag.String("dir", ".", "uploads go into this directory as 0001.cast and so on")
	mode   = flag.String("mode", "acks", "acks, noacks, error, early, abort, v1, refuse, mute")
	after  = flag.Int64("after", 64<<10, "error, early, abort: after so many bytes")
	period = flag.Duration("period", 100*time.Millisecond, "pause between acks")
)

var count atomic.Int64

type ack struct {
	Ack   int64  `json:"ack,omitempty"`
	Error string `json:"error,omitempty"`
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /record", v1)
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	if *mode != "v1" {
		server.Protocols.SetUnencryptedHTTP2(true)
		mux.HandleFunc("HEAD /v2/record", func(w http.ResponseWriter, r *http.Request) {})
		mux.HandleFunc("POST /v2/record", v2)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", l.Addr())
	log.Fatal(server.Serve(l))
}

func create() *os.File {
	name := filepath.Join(*dir, fmt.Sprintf("%04d.cast", count.Add(1)))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	return f
}

func v1(w http.ResponseWriter, r *http.Request) {
	if *mode == "refuse" {
		http.Error(w, "full", http.StatusServiceUnavailable)
		return
	}
	f := create()
	defer f.Close()
	n, err := io.Copy(f, r.Body)
	fmt.Printf("v1 %s bytes=%d err=%v\n", filepath.Base(f.Name()), n, err)
}

func v2(w http.ResponseWriter, r *http.Request) {
	if *mode == "refuse" {
		http.Error(w, "full", http.StatusServiceUnavailable)
		return
	}
	if *mode == "mute" {
		<-r.Context().Done()
		return
	}
	f := create()
	defer f.Close()
	flush := http.NewResponseController(w).Flush
	w.WriteHeader(http.StatusOK)
	flush()

	var received atomic.Int64
	ended := make(chan error, 1)
	enough := make(chan struct{})
	go func() { ended <- store(f, r.Body, &received, enough) }()

	encoder := json.NewEncoder(w)
	ticker := time.NewTicker(*period)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			if *mode != "noacks" && err == nil {
				encoder.Encode(ack{Ack: received.Load()})
			}
			fmt.Printf("v2 %s bytes=%d err=%v\n", filepath.Base(f.Name()), received.Load(), err)
			return
		case <-enough:
			fmt.Printf("v2 %s bytes=%d mode=%s\n", filepath.Base(f.Name()), received.Load(), *mode)
			switch *mode {
			case "error":
				encoder.Encode(ack{Error: "no space left"})
			case "abort":
				panic(http.ErrAbortHandler)
			}
			return
		case <-ticker.C:
			if *mode != "noacks" {
				encoder.Encode(ack{Ack: received.Load()})
				flush()
			}
		}
	}
}

// store closes enough, in the modes that end by themselves, once that much has come.
func store(f *os.File, body io.Reader, received *atomic.Int64, enough chan struct{}) error {
	ends := *mode == "error" || *mode == "early" || *mode == "abort"
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
		if total := received.Add(int64(n)); ends && total >= *after {
			close(enough)
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
