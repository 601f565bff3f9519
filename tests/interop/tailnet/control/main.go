// A control server and a relay for a tailnet on loopback: Tailscale's own test server, which takes in whoever asks.
package main

import (
	"fmt"
	"log"
	"net/http/httptest"
	"testing"

	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"
)

// outside stands in for a test: the relay wants one to report to and to clean up behind, and this program has neither.
type outside struct{ testing.TB }

func (outside) Cleanup(func())                 {}
func (outside) Errorf(format string, a ...any) { log.Printf(format, a...) }
func (outside) Fatal(a ...any)                 { log.Fatal(a...) }
func (outside) Fatalf(format string, a ...any) { log.Fatalf(format, a...) }
func (outside) Helper()                        {}
func (outside) Log(a ...any)                   { log.Print(a...) }
func (outside) Logf(format string, a ...any)   { log.Printf(format, a...) }

func main() {
	relay := integration.RunDERPAndSTUN(outside{}, logger.Discard, "127.0.0.1")
	control := &testcontrol.Server{
		Logf:           log.Printf,
		DERPMap:        relay,
		MagicDNSDomain: "tailnet.test",
		// Whoever joins gets the tags that it asks for.
		TagOwners: map[string][]string{},
	}
	control.HTTPTestServer = httptest.NewUnstartedServer(control)
	control.HTTPTestServer.Start()
	fmt.Printf("control at %s\n", control.HTTPTestServer.URL)
	select {}
}
