//! Rule by rule, why it matched or not.

use std::fmt;

use super::diagnostic::Position;
use super::file::PolicyFile;
use super::matching::{is_account, is_source, is_target};
use super::nodes::{Node, Registry};
use super::rule::{Action, CheckPeriod, Rule};
use super::selector::{Account, Source, Target};
use super::ssh::LocalUser;

/// What one rule says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleReport {
    /// Index of the rule in the file.
    pub rule: usize,
    /// Where the rule stands.
    pub at: Position,
    /// What it does.
    pub action: Action,
    /// What it says.
    pub answer: Answer,
}

/// Whether a rule matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It decides. The words of the rule that matched: source, destination, account.
    Decides(String, String, String),
    /// It would match, but one before it decided.
    TooLate,
    /// It is not for this account. Those that it opens.
    OtherAccount(String),
    /// It is not for who comes. Whom it is for.
    OtherSource(String),
    /// It is not for where to. Where it is for.
    OtherTarget(String),
}

/// Tries each rule, in the order in which a decision tries them.
#[must_use]
pub fn explain(
    policy: &PolicyFile,
    nodes: &Registry,
    src: &Node,
    dst: &Node,
    user: &str,
    accounts: &dyn Fn(&str) -> LocalUser,
) -> Vec<RuleReport> {
    let user = user.strip_suffix("+password").unwrap_or(user);
    let mut decided = false;
    let mut reports = Vec::new();
    for (index, rule) in policy.in_order() {
        let mut answer = answer(policy, nodes, rule, (src, dst, user), accounts);
        if matches!(answer, Answer::Decides(..)) {
            if decided {
                answer = Answer::TooLate;
            }
            decided = true;
        }
        reports.push(RuleReport { rule: index, at: rule.at, action: rule.action, answer });
    }
    reports
}

fn answer(
    policy: &PolicyFile,
    nodes: &Registry,
    rule: &Rule,
    (src, dst, user): (&Node, &Node, &str),
    accounts: &dyn Fn(&str) -> LocalUser,
) -> Answer {
    let Some(target) = rule.dst.iter().find(|target| is_target(target, src, dst)) else {
        return Answer::OtherTarget(list(&rule.dst));
    };
    let Some(source) = rule.src.iter().find(|source| is_source(policy, nodes, source, src)) else {
        return Answer::OtherSource(list(&rule.src));
    };
    if !is_account(rule, src.login(), user, accounts) {
        return Answer::OtherAccount(list(&rule.users));
    }
    // The word that let the account in: its name, else one of those without a name.
    let named = rule.users.iter().find(|a| matches!(a, Account::Named(name) if name == user));
    let other = || {
        let by = |account: &&Account| match account {
            Account::LocalPart(domain) => {
                src.login().and_then(|login| super::matching::local_part(login, domain))
                    == Some(user)
            }
            Account::Named(_) => false,
            Account::NonRoot => true,
        };
        rule.users.iter().find(by)
    };
    let account = named.or_else(other).map(ToString::to_string).unwrap_or_default();
    Answer::Decides(source.to_string(), target.to_string(), account)
}

fn list<T: fmt::Display>(words: &[T]) -> String {
    let mut out = String::new();
    for (i, word) in words.iter().enumerate() {
        // Enough to recognise the rule by.
        if i == 5 {
            let more = words.len().saturating_sub(i);
            return format!("{out} and {more} more");
        }
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(&word.to_string());
    }
    out
}

impl fmt::Display for RuleReport {
    /// `rule 2 (14:5, accept): not for this account, but for root, ubuntu`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.rule.saturating_add(1);
        write!(f, "rule {number} ({}, {}): ", self.at, self.action)?;
        match &self.answer {
            Answer::Decides(source, target, account) => {
                write!(f, "decides: src {source}, dst {target}, users {account}")
            }
            Answer::TooLate => f.write_str("would match, but a rule before it decided"),
            Answer::OtherAccount(list) if list.is_empty() => f.write_str("for no account"),
            Answer::OtherAccount(list) => write!(f, "not for this account, but for {list}"),
            Answer::OtherSource(list) => write!(f, "not for who comes, but for {list}"),
            Answer::OtherTarget(list) => write!(f, "not for this node, but for {list}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Check(CheckPeriod::Always) => f.write_str("check always"),
            Self::Check(CheckPeriod::For(span)) => {
                write!(f, "check every {} s", span.0 / 1_000_000)
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "user:*@{domain}"),
            Self::Group(text) | Self::Tag(text) | Self::User(text) => f.write_str(text),
            Self::Member => f.write_str("autogroup:member"),
            Self::Role(role) => write!(f, "autogroup:{role}"),
            Self::Shared => f.write_str("autogroup:shared"),
            Self::Tagged => f.write_str("autogroup:tagged"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnNodes => f.write_str("autogroup:self"),
            Self::Tag(text) | Self::User(text) => f.write_str(text),
            Self::Tagged => f.write_str("autogroup:tagged"),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalPart(domain) => write!(f, "localpart:*@{domain}"),
            Self::Named(name) => f.write_str(name),
            Self::NonRoot => f.write_str("autogroup:nonroot"),
        }
    }
}
