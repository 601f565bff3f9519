//! Runs the `sshTests` of a policy file.
//!
//! | list | holds when |
//! |---|---|
//! | `accept` | the account is open, with or without a check, as Tailscale's own service has it |
//! | `check` | it is open behind a check |
//! | `deny` | it is closed |
//!
//! Each must hold for every source and every destination that the words stand for. A user, a tag or a member of a group
//! without a node is tried all the same, as a node that it would have; an address must be that of a node.

use std::fmt;

use super::decide::{Decider, Question, Subject, Verdict};
use super::diagnostic::Position;
use super::file::PolicyFile;
use super::nodes::{Node, Registry, User};
use super::recorders::Recorders;
use super::test_entry::{Party, SshTest};
use crate::limits::{POLICY_DIAGNOSTICS, POLICY_TEST_QUESTIONS};

/// How one test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// Index of the test in the file.
    pub test: usize,
    /// Where the test stands.
    pub at: Position,
    /// How many single questions it was.
    pub questions: usize,
    /// What did not hold; empty when the test passed.
    pub failures: Vec<String>,
}

impl TestOutcome {
    /// Whether all of it holds.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for TestOutcome {
    /// One line for each failure; one line when there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.test.saturating_add(1);
        if self.has_passed() {
            return write!(f, "{}: test {number}: passed", self.at);
        }
        for (i, failure) in self.failures.iter().enumerate() {
            let end = if i > 0 { "\n" } else { "" };
            write!(f, "{end}{}: test {number}: FAILED: {failure}", self.at)?;
        }
        Ok(())
    }
}

/// Runs all tests, in the order of the file.
#[must_use]
pub fn run(policy: &PolicyFile, nodes: &Registry) -> Vec<TestOutcome> {
    let (decider, _) = Decider::new(policy, nodes, &Recorders::default());
    let one = |(index, test)| run_one(&decider, policy, nodes, index, test);
    policy.tests().iter().enumerate().map(one).collect()
}

fn run_one(
    decider: &Decider,
    policy: &PolicyFile,
    nodes: &Registry,
    index: usize,
    test: &SshTest,
) -> TestOutcome {
    let mut outcome = TestOutcome { test: index, at: test.at, questions: 0, failures: Vec::new() };
    let sources = stand_for(policy, nodes, &test.src, None, &mut outcome.failures);
    for src in &sources {
        for party in &test.dst {
            for dst in stand_for(policy, nodes, party, Some(src), &mut outcome.failures) {
                for (users, wanted) in [
                    (&test.accept, Wanted::Open),
                    (&test.check, Wanted::Check),
                    (&test.deny, Wanted::Closed),
                ] {
                    for user in users {
                        if outcome.questions >= POLICY_TEST_QUESTIONS {
                            let most = POLICY_TEST_QUESTIONS;
                            let failure = format!("this test is more than {most} questions");
                            outcome.failures.push(failure);
                            return outcome;
                        }
                        outcome.questions = outcome.questions.saturating_add(1);
                        let is = ask(decider, src, &dst, user);
                        if !wanted.is_met_by(is) && outcome.failures.len() < POLICY_DIAGNOSTICS {
                            let (src, dst) = (&src.name, &dst.name);
                            outcome
                                .failures
                                .push(format!("{src} to {dst} as {user:?} is {is}, not {wanted}"));
                        }
                    }
                }
            }
        }
    }
    outcome
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Check,
    Closed,
    Open,
}

impl Wanted {
    fn is_met_by(self, is: Self) -> bool {
        self == is || (self == Self::Open && is == Self::Check)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "open behind a check",
            Self::Closed => "closed",
            Self::Open => "open",
        })
    }
}

fn ask(decider: &Decider, src: &Node, dst: &Node, user: &str) -> Wanted {
    match decider.decide(&Question { src: Subject::Node(src), dst, user }) {
        Verdict::Accept(grant) if grant.check.is_some() => Wanted::Check,
        Verdict::Accept(_) => Wanted::Open,
        Verdict::Reject(_) => Wanted::Closed,
    }
}

/// The nodes that a word of a test stands for.
fn stand_for(
    policy: &PolicyFile,
    nodes: &Registry,
    party: &Party,
    src: Option<&Node>,
    failures: &mut Vec<String>,
) -> Vec<Node> {
    let of_user = |login: &str| -> Vec<Node> {
        let found: Vec<Node> = nodes.of_user(login).cloned().collect();
        if found.is_empty() { vec![imagined(login)] } else { found }
    };
    // Who comes is one node of a user, since all are alike.
    let of_user = |login: &str| -> Vec<Node> {
        let mut found = of_user(login);
        if src.is_none() {
            found.truncate(1);
        }
        found
    };
    match party {
        Party::Address(address) => match nodes.by_address(*address) {
            Some(node) => vec![node.clone()],
            None => {
                let failure = format!("no node has the address {address}");
                if !failures.contains(&failure) {
                    failures.push(failure);
                }
                Vec::new()
            }
        },
        Party::Group(group) => {
            let members = policy.members(group);
            if members.is_empty() && failures.is_empty() {
                failures.push(format!("{group} has no members"));
            }
            members.iter().flat_map(|login| of_user(login)).collect()
        }
        Party::OwnNodes => match src.and_then(Node::login) {
            Some(login) => of_user(login),
            None => {
                let failure = "\"autogroup:self\" of a node with a tag is nobody's".to_owned();
                if !failures.contains(&failure) {
                    failures.push(failure);
                }
                Vec::new()
            }
        },
        Party::Tag(tag) => {
            let found: Vec<Node> = nodes.with_tag(tag).cloned().collect();
            if found.is_empty() { vec![imagined(tag)] } else { found }
        }
        Party::User(login) => of_user(login),
    }
}

/// The node that a user, or something with a tag, would have.
fn imagined(of: &str) -> Node {
    let tagged = of.starts_with("tag:");
    Node {
        id: String::new(),
        numeric_id: 0,
        key: String::new(),
        name: of.to_owned(),
        addresses: Vec::new(),
        user: (!tagged).then(|| User { login: of.to_owned(), ..User::default() }),
        tags: if tagged { vec![of.to_owned()] } else { Vec::new() },
        online: None,
        recorder: None,
    }
}
