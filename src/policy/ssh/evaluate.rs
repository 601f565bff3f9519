//! Which rule decides about a connection.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{SshAction, SshPolicy, SshRule};

/// Somebody who wants to log in.
#[derive(Clone, Copy)]
pub struct Connection<'a> {
    /// Seconds since 1970, corrected to control's clock where that is known.
    pub now_unix: i64,
    /// Address of the source node.
    pub src_ip: IpAddr,
    /// Its stable id; empty when it is not known.
    pub src_node_id: &'a str,
    /// Login name of its user; empty when it is tagged or not known.
    pub src_login: &'a str,
    /// The user as the client asked for. `+password` at its end is left away.
    pub ssh_user: &'a str,
    /// What is known of a local user.
    pub local_user: &'a dyn Fn(&str) -> LocalUser,
}

/// A user of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalUser {
    /// There is none of that name.
    Missing,
    /// uid 0, or the name `root`.
    Root,
    /// Anybody else.
    Other,
}

/// What policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluation<'p> {
    /// It may take place.
    Accept {
        /// Index of the rule.
        rule: usize,
        /// Its action.
        action: &'p SshAction,
        /// As whom.
        local_user: String,
        /// Patterns of environment variables that the client may set.
        accept_env: &'p [String],
    },
    /// Somebody else has to be asked: [`SshAction::hold_and_delegate`].
    Hold {
        /// Index of the rule.
        rule: usize,
        /// Its action.
        action: &'p SshAction,
        /// As whom.
        local_user: String,
        /// As for accept.
        accept_env: &'p [String],
    },
    /// It may not.
    Reject {
        /// Index of the rule that says so; none when no rule lets it.
        rule: Option<usize>,
        /// For the user, with its line end where it has one.
        message: String,
    },
}

/// A policy with an index over its principals, so that one connection looks only at rules that are about it.
#[derive(Debug)]
pub struct Evaluator {
    policy: SshPolicy,
    any: Vec<u32>,
    by_node: HashMap<String, Vec<u32>>,
    by_ip: HashMap<IpAddr, Vec<u32>>,
    by_login: HashMap<String, Vec<u32>>,
}

impl Evaluator {
    /// Indexes the policy.
    #[must_use]
    pub fn new(policy: SshPolicy) -> Self {
        let mut this = Self {
            policy: SshPolicy::default(),
            any: Vec::new(),
            by_node: HashMap::new(),
            by_ip: HashMap::new(),
            by_login: HashMap::new(),
        };
        for (at, rule) in (0u32..).zip(&policy.rules) {
            let Some(rule) = rule.as_ref().filter(|r| r.action.is_some()) else { continue };
            for principal in rule.principals.iter().flatten() {
                if principal.any {
                    push(&mut this.any, at);
                }
                if !principal.node.is_empty() {
                    push(this.by_node.entry(principal.node.clone()).or_default(), at);
                }
                if let Some(ip) = principal.ip() {
                    push(this.by_ip.entry(ip).or_default(), at);
                }
                if !principal.user_login.is_empty() {
                    push(this.by_login.entry(principal.user_login.clone()).or_default(), at);
                }
            }
        }
        this.policy = policy;
        this
    }

    /// The policy as it was given.
    #[must_use]
    pub const fn policy(&self) -> &SshPolicy {
        &self.policy
    }

    /// The first rule that matches decides.
    #[must_use]
    pub fn evaluate(&self, c: &Connection<'_>) -> Evaluation<'_> {
        let ssh_user = c.ssh_user.strip_suffix("+password").unwrap_or(c.ssh_user);
        let mut other_user = false;
        for at in self.about(c) {
            let Some(Some(rule)) = self.policy.rules.get(at) else { continue };
            let Some(action) = &rule.action else { continue };
            if rule.rule_expires.as_ref().is_some_and(|t| t.is_before(c.now_unix)) {
                continue;
            }
            let local_user = if action.reject {
                // Who may not come needs no user here.
                String::new()
            } else {
                match map_user(rule, ssh_user, c.local_user) {
                    Some(user) => user,
                    None => {
                        other_user = true;
                        continue;
                    }
                }
            };
            let accept_env = rule.accept_env.as_slice();
            // Upstream's order: accept before reject before asking elsewhere.
            if action.accept {
                return Evaluation::Accept { rule: at, action, local_user, accept_env };
            }
            if action.reject {
                let message =
                    if action.message.is_empty() { DENIED } else { action.message.as_str() };
                return Evaluation::Reject { rule: Some(at), message: message.to_owned() };
            }
            if !action.hold_and_delegate.is_empty() {
                return Evaluation::Hold { rule: at, action, local_user, accept_env };
            }
            return Evaluation::Reject { rule: Some(at), message: NO_VERB.to_owned() };
        }
        let message = if other_user {
            format!("tailscale: tailnet policy does not permit you to SSH as user {ssh_user:?}\n")
        } else {
            NOT_PERMITTED.to_owned()
        };
        Evaluation::Reject { rule: None, message }
    }

    /// Rules with a principal that matches, in their order, each once.
    fn about(&self, c: &Connection<'_>) -> impl Iterator<Item = usize> {
        let of_node = self.by_node.get(c.src_node_id).filter(|_| !c.src_node_id.is_empty());
        let of_login = self.by_login.get(c.src_login).filter(|_| !c.src_login.is_empty());
        let mut lists = [Some(&self.any), of_node, self.by_ip.get(&c.src_ip), of_login]
            .map(|list| list.map_or(&[][..], Vec::as_slice));
        std::iter::from_fn(move || {
            let least = lists.iter().filter_map(|list| list.first()).min().copied()?;
            for list in &mut lists {
                if let Some((first, rest)) = list.split_first()
                    && *first == least
                {
                    *list = rest;
                }
            }
            usize::try_from(least).ok()
        })
    }
}

/// Each rule once: they come in order.
fn push(list: &mut Vec<u32>, at: u32) {
    if list.last() != Some(&at) {
        list.push(at);
    }
}

/// The local user; none: the rule is not about this user.
fn map_user(
    rule: &SshRule,
    ssh_user: &str,
    local_user: &dyn Fn(&str) -> LocalUser,
) -> Option<String> {
    // An entry of its own counts even if it is empty: it takes this user out of `*`.
    let mapped = rule.ssh_users.get(ssh_user).or_else(|| rule.ssh_users.get("*"))?;
    match mapped.as_str() {
        "" => None,
        "=" => (local_user(ssh_user) == LocalUser::Other).then(|| ssh_user.to_owned()),
        user => Some(user.to_owned()),
    }
}

/// Whether a variable's name fits a pattern: `*` is any text, `?` one character.
#[must_use]
pub fn env_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0usize, 0usize);
    // Where the last `*` stands, and from where on it takes one more.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p = p.saturating_add(1);
            }
            Some(want) if *want == '?' || want == c => {
                p = p.saturating_add(1);
                n = n.saturating_add(1);
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from.saturating_add(1)));
                p = at.saturating_add(1);
                n = from.saturating_add(1);
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

const DENIED: &str = "tailscale: access denied";
const NO_VERB: &str =
    "tailscale: reached Action that had neither Accept, Reject, nor HoldAndDelegate\n";
const NOT_PERMITTED: &str = "tailscale: tailnet policy does not permit you to SSH to this node\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(principals: &str, users: &str, action: &str) -> String {
        format!(r#"{{"principals":[{principals}],"sshUsers":{users},"action":{action}}}"#)
    }

    fn policy(rules: &[String]) -> Evaluator {
        let text = format!(r#"{{"rules":[{}]}}"#, rules.join(","));
        Evaluator::new(SshPolicy::parse(text.as_bytes()).unwrap())
    }

    const ANY: &str = r#"{"any":true}"#;
    const ACCEPT: &str = r#"{"accept":true}"#;
    const ALL: &str = r#"{"*":"ubuntu"}"#;

    fn user(name: &str) -> LocalUser {
        match name {
            "root" => LocalUser::Root,
            "alice" | "thealice" => LocalUser::Other,
            _ => LocalUser::Missing,
        }
    }

    fn from<'a>(ip: &str, node: &'a str, login: &'a str, ssh_user: &'a str) -> Connection<'a> {
        Connection {
            now_unix: 1_800_000_000,
            src_ip: ip.parse().unwrap(),
            src_node_id: node,
            src_login: login,
            ssh_user,
            local_user: &user,
        }
    }

    fn alice(ssh_user: &str) -> Connection<'_> {
        from("1.2.3.4", "some-node-ID", "foo@bar.com", ssh_user)
    }

    fn accepted(e: &Evaluator, c: &Connection<'_>) -> Option<(usize, String)> {
        match e.evaluate(c) {
            Evaluation::Accept { rule, local_user, .. } => Some((rule, local_user)),
            _ => None,
        }
    }

    fn message(e: &Evaluator, c: &Connection<'_>) -> String {
        match e.evaluate(c) {
            Evaluation::Reject { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    // What one rule matches, case by case as upstream has them.

    #[test]
    fn rules_that_are_not_there_match_nothing() {
        for rules in [
            "null".to_owned(),
            rule(ANY, ALL, "null"),
            rule(ANY, ALL, ACCEPT).replacen('{', r#"{"ruleExpires":"1970-01-01T00:01:40Z","#, 1),
            rule("", ALL, ACCEPT),
            rule("{}", ALL, ACCEPT),
        ] {
            let e = policy(std::slice::from_ref(&rules));
            assert_eq!(message(&e, &alice("alice")), NOT_PERMITTED, "{rules}");
        }
        let later =
            rule(ANY, ALL, ACCEPT).replacen('{', r#"{"ruleExpires":"2999-01-01T00:00:00Z","#, 1);
        assert!(accepted(&policy(&[later]), &alice("alice")).is_some());
    }

    #[test]
    fn users_are_mapped() {
        for (users, ssh_user, local) in [
            (r#"{"*":"ubuntu"}"#, "alice", Some("ubuntu")),
            (r#"{"*":"ubuntu","alice":"thealice"}"#, "alice", Some("thealice")),
            (r#"{"*":"ubuntu","alice":"thealice"}"#, "alice+password", Some("thealice")),
            (r#"{"bob":"ubuntu"}"#, "alice", None),
            // An empty entry of its own is no permission, and does not fall back.
            (r#"{"*":"ubuntu","alice":""}"#, "alice", None),
            (r#"{"*":"="}"#, "alice", Some("alice")),
            (r#"{"*":"="}"#, "root", None),
            (r#"{"*":"="}"#, "nobody-here", None),
            (r#"{"root":"root"}"#, "root", Some("root")),
        ] {
            let e = policy(&[rule(ANY, users, ACCEPT)]);
            assert_eq!(accepted(&e, &alice(ssh_user)).map(|a| a.1).as_deref(), local, "{users}");
        }
        let e = policy(&[rule(&format!("null,{ANY}"), ALL, ACCEPT)]);
        assert!(accepted(&e, &alice("alice")).is_some());
    }

    #[test]
    fn principals_are_any_of_four() {
        for (principal, matches) in [
            (r#"{"nodeIP":"1.2.3.4"}"#, true),
            (r#"{"nodeIP":"1.2.3.5"}"#, false),
            (r#"{"nodeIP":"nonsense"}"#, false),
            (r#"{"node":"some-node-ID"}"#, true),
            (r#"{"node":"some-other-ID"}"#, false),
            (r#"{"userLogin":"foo@bar.com"}"#, true),
            (r#"{"userLogin":"FOO@bar.com"}"#, false),
            (r#"{"userLogin":"x","node":"some-node-ID"}"#, true),
            (r#"{"pubKeys":["k"]}"#, false),
        ] {
            let e = policy(&[rule(principal, ALL, ACCEPT)]);
            assert_eq!(accepted(&e, &alice("alice")).is_some(), matches, "{principal}");
        }
        // Nobody has an empty id or name.
        let e = policy(&[rule(r#"{"node":"","userLogin":""}"#, ALL, ACCEPT)]);
        assert!(accepted(&e, &from("1.2.3.4", "", "", "alice")).is_none());
    }

    #[test]
    fn a_refusal_needs_no_user() {
        let e = policy(&[rule(ANY, "{}", r#"{"reject":true,"message":"no!"}"#)]);
        assert_eq!(message(&e, &alice("alice")), "no!");
        let e = policy(&[rule(ANY, "{}", r#"{"reject":true}"#)]);
        assert_eq!(message(&e, &alice("alice")), "tailscale: access denied");
    }

    // What a whole policy says.

    #[test]
    fn the_first_of_several_decides() {
        let e = policy(&[
            rule(r#"{"nodeIP":"9.9.9.9"}"#, ALL, ACCEPT),
            rule(r#"{"any":true}"#, r#"{"other":"other"}"#, ACCEPT),
            rule(r#"{"any":true},{"node":"some-node-ID"}"#, r#"{"*":"second"}"#, ACCEPT),
            rule(r#"{"userLogin":"foo@bar.com"}"#, r#"{"*":"third"}"#, ACCEPT),
        ]);
        assert_eq!(accepted(&e, &alice("alice")), Some((2, "second".into())));
    }

    #[test]
    fn what_no_rule_lets_is_refused_in_one_of_two_ways() {
        assert_eq!(message(&policy(&[]), &alice("alice")), NOT_PERMITTED);
        let e = policy(&[
            rule(ANY, r#"{"bob":"bob"}"#, ACCEPT),
            rule(ANY, r#"{"carl":"carl"}"#, ACCEPT),
        ]);
        assert_eq!(
            message(&e, &alice("alice")),
            "tailscale: tailnet policy does not permit you to SSH as user \"alice\"\n"
        );
    }

    #[test]
    fn verbs_in_their_order() {
        let both = policy(&[rule(ANY, ALL, r#"{"accept":true,"holdAndDelegate":"https://x"}"#)]);
        assert!(accepted(&both, &alice("alice")).is_some());
        let hold = policy(&[rule(ANY, ALL, r#"{"holdAndDelegate":"https://x"}"#)]);
        assert!(matches!(hold.evaluate(&alice("alice")), Evaluation::Hold { rule: 0, .. }));
        let none = policy(&[rule(ANY, ALL, "{}")]);
        assert_eq!(message(&none, &alice("alice")), NO_VERB);
    }

    #[test]
    fn the_environment_is_carried_through() {
        let text =
            rule(ANY, ALL, ACCEPT).replacen('{', r#"{"acceptEnv":["EXAMPLE","?_?","TEST_*"],"#, 1);
        let e = policy(&[text]);
        let Evaluation::Accept { accept_env, .. } = e.evaluate(&alice("alice")) else { panic!() };
        assert_eq!(accept_env, ["EXAMPLE", "?_?", "TEST_*"]);
        for (pattern, name, fits) in [
            ("EXAMPLE", "EXAMPLE", true),
            ("EXAMPLE", "EXAMPLE2", false),
            ("?_?", "A_B", true),
            ("?_?", "AA_B", false),
            ("TEST_*", "TEST_", true),
            ("TEST_*", "TEST_A_B", true),
            ("*", "", true),
            ("", "", true),
            ("", "A", false),
            ("A**B*", "AxxBxxByy", true),
            ("*A", "BAAB", false),
            ("A?C*E?G", "ABCDEFG", true),
        ] {
            assert_eq!(env_matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
