//! Whether one rule matches: the meaning of its words, one at a time. `decide` finds the same through an index.

use super::file::PolicyFile;
use super::nodes::{Node, Registry};
use super::rule::Rule;
use super::selector::{Account, Source, Target};
use super::ssh::LocalUser;

/// Whether a source is meant.
pub(super) fn is_source(
    policy: &PolicyFile,
    nodes: &Registry,
    source: &Source,
    who: &Node,
) -> bool {
    let login = who.login();
    match source {
        Source::Domain(domain) => login.is_some_and(|login| is_in_domain(login, domain)),
        Source::Group(group) => {
            login.is_some_and(|login| policy.members(group).iter().any(|m| m == login))
        }
        Source::Member => login.is_some(),
        Source::Role(role) => login.is_some_and(|login| nodes.has_role(login, role)),
        Source::Shared => false,
        Source::Tag(tag) => who.tags.contains(tag),
        Source::Tagged => !who.tags.is_empty(),
        Source::User(user) => login == Some(user),
    }
}

/// Whether a destination is meant, for who comes.
pub(super) fn is_target(target: &Target, who: &Node, dst: &Node) -> bool {
    match target {
        Target::OwnNodes => dst.login().is_some() && dst.login() == who.login(),
        Target::Tag(tag) => dst.tags.contains(tag),
        Target::Tagged => !dst.tags.is_empty(),
        Target::User(user) => dst.login() == Some(user),
    }
}

/// Whether a rule lets `login` in as `user`.
pub(super) fn is_account(
    rule: &Rule,
    login: Option<&str>,
    user: &str,
    accounts: &dyn Fn(&str) -> LocalUser,
) -> bool {
    let named = |name: &str| rule.users.iter().any(|a| matches!(a, Account::Named(n) if n == name));
    if named(user) {
        return true;
    }
    let by_rule = rule.users.iter().any(|account| match account {
        Account::LocalPart(domain) => {
            login.and_then(|login| local_part(login, domain)) == Some(user)
        }
        Account::Named(_) => false,
        Account::NonRoot => true,
    });
    by_rule && is_harmless(user, accounts)
}

/// Whether a name that no rule spells out may be used: an account that exists, and is not root by any name.
fn is_harmless(user: &str, accounts: &dyn Fn(&str) -> LocalUser) -> bool {
    !user.is_empty() && user != "root" && accounts(user) == LocalUser::Other
}

/// The account of a login under `localpart:*@domain`. Never root, and never what means something in a compiled policy.
pub(super) fn local_part<'l>(login: &'l str, domain: &str) -> Option<&'l str> {
    let (local, its_domain) = login.rsplit_once('@')?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || "*:/=".contains(c);
    let good =
        !local.is_empty() && local != "root" && !local.starts_with('-') && !local.contains(bad);
    (good && its_domain.eq_ignore_ascii_case(domain)).then_some(local)
}

/// Whether `user:*@domain` means a login.
pub(super) fn is_in_domain(login: &str, domain: &str) -> bool {
    login.rsplit_once('@').is_some_and(|(_, its)| its.eq_ignore_ascii_case(domain))
}

/// The answer without the index: the first rule that matches. For tests, which hold the two against each other.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn first_match(
    policy: &PolicyFile,
    nodes: &Registry,
    who: &Node,
    dst: &Node,
    user: &str,
    accounts: &dyn Fn(&str) -> LocalUser,
) -> Option<usize> {
    let matches = |rule: &Rule| {
        rule.src.iter().any(|source| is_source(policy, nodes, source, who))
            && rule.dst.iter().any(|target| is_target(target, who, dst))
            && is_account(rule, who.login(), user, accounts)
    };
    policy.in_order().find(|(_, rule)| matches(rule)).map(|(index, _)| index)
}
