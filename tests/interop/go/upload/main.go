// Command upload is the client side of Tailscale's own published package, tailscale.com/sessionrecording, driven against a
// recorder. It prints one line of facts for the script that runs it, and fails when the package reports an error that the
// case does not expect.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"tailscale.com/sessionrecording"
)

var (
	addrs    = flag.String("addrs", "", "recorders, ip:port, comma-separated, in the order in which they are tried")
	size     = flag.Int("bytes", 1<<20, "random bytes to send as the recording")
	hideH2   = flag.Bool("v1", false, "stand in front of the recorder and answer HTTP/2 as an HTTP/1 server would")
	event    = flag.String("event", "", "send an event instead: good, or broken (a body that is no JSON object)")
	wantFail = flag.String("want-error", "", "the case succeeds only with an error that contains this")
	limit    = flag.Duration("limit", 60*time.Second, "guard against hanging")
)

func main() {
	flag.Parse()
	timer := time.AfterFunc(*limit, func() {
		fmt.Fprintln(os.Stderr, "upload: hangs")
		os.Exit(3)
	})
	defer timer.Stop()
	facts, err := run()
	if *wantFail != "" {
		if err == nil || !strings.Contains(err.Error(), *wantFail) {
			fmt.Fprintf(os.Stderr, "upload: wanted an error with %q, got: %v\n", *wantFail, err)
			os.Exit(1)
		}
		fmt.Printf("error=%q\n", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upload:", err)
		os.Exit(1)
	}
	fmt.Println(facts)
}

func run() (string, error) {
	var list []netip.AddrPort
	for _, text := range strings.Split(*addrs, ",") {
		addr, err := netip.ParseAddrPort(text)
		if err != nil {
			return "", err
		}
		list = append(list, addr)
	}
	dial := (&net.Dialer{}).DialContext
	if *hideH2 {
		dial = hidden(dial)
	}
	if *event != "" {
		return sendEvent(list[0], dial)
	}
	return sendRecording(list, dial)
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

func sendRecording(list []netip.AddrPort, dial dialFunc) (string, error) {
	body := make([]byte, *size)
	if _, err := rand.Read(body); err != nil {
		return "", err
	}
	sink, attempts, done, err := sessionrecording.ConnectToRecorder(context.Background(), list, dial)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	// In pieces of the size of a busy session's lines, as the SSH server writes them.
	for rest := body; len(rest) > 0; {
		piece := rest[:min(len(rest), 4099)]
		rest = rest[len(piece):]
		if _, err := sink.Write(piece); err != nil {
			return "", fmt.Errorf("write: %w", err)
		}
	}
	if err := sink.Close(); err != nil {
		return "", fmt.Errorf("close: %w", err)
	}
	if err := <-done; err != nil {
		return "", fmt.Errorf("completion: %w", err)
	}
	failed := 0
	for _, attempt := range attempts {
		if attempt.FailureMessage != "" {
			failed++
		}
	}
	return fmt.Sprintf("sha256=%x attempts=%d failed=%d", sha256.Sum256(body), len(attempts), failed), nil
}

func sendEvent(to netip.AddrPort, dial dialFunc) (string, error) {
	body := []byte("this is no JSON object\n")
	if *event == "good" {
		var err error
		body, err = json.Marshal(sessionrecording.Event{
			Type:      sessionrecording.KubernetesAPIEventType,
			Timestamp: time.Now().Unix(),
			UserAgent: "kubectl/v1.34",
			Request:   sessionrecording.Request{Method: "GET", Path: "/api/v1/pods?limit=1", Body: []byte{0, 1, 2}},
			Source:    sessionrecording.Source{Node: "laptop.example.ts.net", NodeID: "nInterop"},
		})
		if err != nil {
			return "", err
		}
	}
	if err := sessionrecording.SendEvent(to, bytes.NewReader(body), dial); err != nil {
		return "", err
	}
	return "event=stored", nil
}

// hidden is a front that knows HTTP/1 only, as recorders before 2024 did: it lets a connection through unless the first
// bytes are those of HTTP/2, which it answers as such a server does. The package's own probe then chooses v1.
func hidden(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		out, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		inner, front := net.Pipe()
		go forward(front, out)
		return inner, nil
	}
}

func forward(front, out net.Conn) {
	defer front.Close()
	defer out.Close()
	first := make([]byte, 4)
	if _, err := io.ReadFull(front, first); err != nil {
		return
	}
	if string(first) == "PRI " {
		go io.Copy(io.Discard, front)
		io.WriteString(front, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(out, io.MultiReader(bytes.NewReader(first), front))
		done <- err
	}()
	go func() {
		_, err := io.Copy(front, out)
		done <- errors.Join(err, io.EOF)
	}()
	<-done
}
