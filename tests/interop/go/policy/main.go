// Command policy holds castkeep's policies and notices against Tailscale's own types: what castkeep writes decodes strictly, with
// nothing lost, and what Go writes is there for castkeep to read. It prints one line of facts for the script that runs it.
//
//	policy -policy FILE    FILE decodes into tailcfg.SSHPolicy, no key is unknown, and encodes to the same document
//	policy -notify FILE    the same with tailcfg.SSHEventNotifyRequest
//	policy -write-policy   a policy with every field, as Go encodes it
//	policy -write-notify   a notice, likewise
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

var (
	policyFile  = flag.String("policy", "", "a compiled policy")
	notifyFile  = flag.String("notify", "", "a notice")
	writePolicy = flag.Bool("write-policy", false, "write a policy with every field")
	writeNotify = flag.Bool("write-notify", false, "write a notice")
)

func main() {
	flag.Parse()
	var err error
	switch {
	case *policyFile != "":
		err = readPolicy(*policyFile)
	case *notifyFile != "":
		err = readNotify(*notifyFile)
	case *writePolicy:
		err = json.NewEncoder(os.Stdout).Encode(everything())
	case *writeNotify:
		err = json.NewEncoder(os.Stdout).Encode(notice())
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "policy:", err)
		os.Exit(1)
	}
}

func readPolicy(name string) error {
	var policy tailcfg.SSHPolicy
	if err := strict(name, &policy); err != nil {
		return err
	}
	recorders, enforced, accepts := 0, 0, 0
	for _, rule := range policy.Rules {
		if rule == nil || rule.Action == nil {
			continue
		}
		if rule.Action.Accept {
			accepts++
		}
		recorders += len(rule.Action.Recorders)
		if f := rule.Action.OnRecordingFailure; f != nil && f.RejectSessionWithMessage != "" && f.TerminateSessionWithMessage != "" {
			enforced++
		}
	}
	fmt.Printf("rules=%d accepts=%d recorders=%d enforced=%d\n", len(policy.Rules), accepts, recorders, enforced)
	return nil
}

func readNotify(name string) error {
	var request tailcfg.SSHEventNotifyRequest
	if err := strict(name, &request); err != nil {
		return err
	}
	fmt.Printf("type=%d attempts=%d key=%t\n", request.EventType, len(request.RecordingAttempts), !request.NodeKey.IsZero())
	return nil
}

// strict decodes without unknown keys, encodes again, and compares the two documents as values.
func strict(name string, into any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	before, err := value(text)
	if err != nil {
		return err
	}
	after, err := value(again)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%s: something is lost or added: %s became %s", name, text, again)
	}
	return nil
}

// value reads numbers as they are written: an id is larger than a float holds.
func value(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

func everything() *tailcfg.SSHPolicy {
	expires := time.Date(2999, 12, 31, 23, 59, 59, 5e8, time.FixedZone("", 3600))
	return &tailcfg.SSHPolicy{Rules: []*tailcfg.SSHRule{
		nil,
		{
			RuleExpires: &expires,
			Principals:  []*tailcfg.SSHPrincipal{{Node: "nA"}, nil, {NodeIP: "100.64.0.5"}, {UserLogin: "alice@example.com"}, {Any: true}},
			SSHUsers:    map[string]string{"*": "=", "root": "", "deploy": "svc"},
			Action: &tailcfg.SSHAction{
				Message:                   "recorded <b>&",
				Accept:                    true,
				SessionDuration:           90 * time.Minute,
				AllowAgentForwarding:      true,
				AllowLocalPortForwarding:  true,
				AllowRemotePortForwarding: true,
				Recorders:                 []netip.AddrPort{netip.MustParseAddrPort("100.64.0.9:80"), netip.MustParseAddrPort("[fd7a:115c:a1e0::9]:80")},
				OnRecordingFailure: &tailcfg.SSHRecorderFailureAction{
					RejectSessionWithMessage: "r", TerminateSessionWithMessage: "t", NotifyURL: "https://control.example/n",
				},
			},
			AcceptEnv: []string{"LANG", "LC_*"},
		},
		{Principals: []*tailcfg.SSHPrincipal{{Any: true}}, Action: &tailcfg.SSHAction{Reject: true, Message: "no"}},
		{Principals: []*tailcfg.SSHPrincipal{{Any: true}}, SSHUsers: map[string]string{"*": "="}, Action: &tailcfg.SSHAction{HoldAndDelegate: "https://unused/x"}},
	}}
}

func notice() *tailcfg.SSHEventNotifyRequest {
	return &tailcfg.SSHEventNotifyRequest{
		EventType:    tailcfg.SSHSessionRecordingFailed,
		ConnectionID: "ssh-conn-20261123T120000-0123456789",
		CapVersion:   tailcfg.CurrentCapabilityVersion,
		NodeKey:      key.NewNode().Public(),
		SrcNode:      9007199254740993,
		SSHUser:      "root",
		LocalUser:    "root",
		RecordingAttempts: []*tailcfg.SSHRecordingAttempt{
			{Recorder: netip.MustParseAddrPort("100.64.0.9:80"), FailureMessage: "recording: refused \"it\""},
			{Recorder: netip.MustParseAddrPort("[fd7a:115c:a1e0::9]:80")},
		},
	}
}
