//! Who comes, where to, as whom: in or not, and how it is recorded.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::diagnostic::{Diagnostic, Position};
use super::file::PolicyFile;
use super::matching::{is_account, is_target};
use super::messages::Messages;
use super::nodes::{Node, Registry};
use super::recorders::{Groups, Place, Recorder, Recorders, judge, places};
use super::rule::{Action, CheckPeriod, Rule};
use super::selector::{Source, Target};
use super::ssh::LocalUser;

/// Answers questions about a policy, a registry and the recorders of one moment.
///
/// Rules are found through an index: for each word of `src` and of `dst` the rules in which it stands. A decision looks only
/// at rules that have one word for who comes and one for where to.
#[derive(Clone, Debug)]
pub struct Decider {
    policy: PolicyFile,
    nodes: Registry,
    messages: Messages,
    /// The rules in the order in which they are tried, by their indices in the file. The index below holds places in it.
    order: Vec<usize>,
    sources: Sources,
    targets: Targets,
    /// By tag, in the order in which they are tried.
    recorders: HashMap<String, Vec<Place>>,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who comes.
    pub src: Subject<'a>,
    /// Where to.
    pub dst: &'a Node,
    /// The account that is asked for.
    pub user: &'a str,
}

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// Whoever has this address in the registry.
    Address(IpAddr),
    /// This node, which need not be in the registry.
    Node(&'a Node),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In.
    Accept(Box<Grant>),
    /// Not in.
    Reject(Refusal),
}

/// What somebody who comes in gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Index of the rule in the file.
    pub rule: usize,
    /// Where the rule stands.
    pub at: Position,
    /// The account that the session runs as.
    pub local_user: String,
    /// They must prove who they are, if they have not within this time.
    pub check: Option<CheckPeriod>,
    /// Whether the session is recorded.
    pub record: bool,
    /// Where, in order. Can be empty although the session is to be recorded: see `enforced`.
    pub recorders: Vec<Recorder>,
    /// Whether the session is refused or ended when it cannot be recorded.
    pub enforced: bool,
    /// What is told when it is refused; none: it goes on.
    pub reject_message: Option<String>,
    /// What is told when it is ended; none: it goes on.
    pub terminate_message: Option<String>,
    /// Environment variables that the client may set: names with `*` and `?`.
    pub accept_env: Vec<String>,
}

/// Why somebody does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No rule is for who comes and where to.
    NoRule,
    /// There are rules for who comes and where to, but none for the account.
    NoUser,
    /// The address is not in the registry.
    UnknownSource,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "the policy does not let you into this node",
            Self::NoUser => "the policy does not let you in as this user",
            Self::UnknownSource => "the address that you come from is not known",
        })
    }
}

impl Decider {
    /// Prepares all decisions. Beside it stands what is odd about the policy with these nodes.
    #[must_use]
    pub fn new(
        policy: &PolicyFile,
        nodes: &Registry,
        recorders: &Recorders,
    ) -> (Self, Vec<Diagnostic>) {
        let mut order = Vec::new();
        let mut sources = Sources::default();
        let mut targets = Targets::default();
        let mut by_tag = HashMap::new();
        let mut found = Vec::new();
        for (place, (index, rule)) in policy.in_order().enumerate() {
            order.push(index);
            sources.add(place, rule);
            targets.add(place, rule);
            if let Some(tag) = rule.recorder.as_ref().filter(|tag| !by_tag.contains_key(*tag)) {
                let mut list = places(tag, nodes, recorders);
                found.extend(judge(rule.at, tag, rule.enforce_recorder, &mut list));
                by_tag.insert(tag.clone(), list);
            }
        }
        sources.add_groups(policy);
        found.sort_by_key(|d| d.at);
        found.extend(odd(policy, nodes));
        let decider = Self {
            policy: policy.clone(),
            nodes: nodes.clone(),
            messages: Messages::default(),
            order,
            sources,
            targets,
            recorders: by_tag,
        };
        (decider, found)
    }

    /// The same with other words for users.
    #[must_use]
    pub fn with_messages(mut self, messages: Messages) -> Self {
        self.messages = messages;
        self
    }

    /// Answers, taking every account but `root` for one that exists and is not root by another name.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        self.decide_among(question, &|name| {
            if name == "root" { LocalUser::Root } else { LocalUser::Other }
        })
    }

    /// Answers for a host of which `accounts` tells what accounts it has.
    #[must_use]
    pub fn decide_among(
        &self,
        question: &Question<'_>,
        accounts: &dyn Fn(&str) -> LocalUser,
    ) -> Verdict {
        let who = match question.src {
            Subject::Node(node) => node,
            Subject::Address(address) => match self.nodes.by_address(address) {
                Some(node) => node,
                None => return Verdict::Reject(Refusal::UnknownSource),
            },
        };
        // A client that wants to be asked for a password says so in the name.
        let user = question.user.strip_suffix("+password").unwrap_or(question.user);
        let mut refusal = Refusal::NoRule;
        for place in both(&self.sources.of(who, &self.nodes), &self.targets.of(question.dst)) {
            let Some(index) = self.order.get(place).copied() else { continue };
            let Some(rule) = self.policy.rules().get(index) else { continue };
            if !rule.dst.iter().any(|target| is_target(target, who, question.dst)) {
                continue;
            }
            if is_account(rule, who.login(), user, accounts) {
                return Verdict::Accept(Box::new(self.grant(index, rule, user)));
            }
            refusal = Refusal::NoUser;
        }
        Verdict::Reject(refusal)
    }

    fn grant(&self, index: usize, rule: &Rule, user: &str) -> Grant {
        let list = rule.recorder.as_ref().and_then(|tag| self.recorders.get(tag));
        let mut groups = Groups::default();
        let enforced = rule.enforce_recorder;
        Grant {
            rule: index,
            at: rule.at,
            local_user: user.to_owned(),
            check: match rule.action {
                Action::Accept => None,
                Action::Check(period) => Some(period),
            },
            record: rule.recorder.is_some(),
            recorders: list
                .into_iter()
                .flatten()
                .map(|place| Recorder {
                    address: place.address,
                    group: groups.number(place),
                    tls: place.tls.clone(),
                })
                .collect(),
            enforced,
            reject_message: enforced.then(|| self.messages.reject.clone()),
            terminate_message: enforced.then(|| self.messages.terminate.clone()),
            accept_env: rule.accept_env.clone(),
        }
    }
}

/// What is odd about a policy together with a registry.
fn odd(policy: &PolicyFile, nodes: &Registry) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut roles: Vec<(Position, &str)> = Vec::new();
    for rule in policy.rules() {
        for source in &rule.src {
            match source {
                Source::Role(role) if nodes.with_role(role).is_empty() => {
                    roles.push((rule.at, role))
                }
                Source::Shared => {
                    found.push(Diagnostic::warning(
                        rule.at,
                        "\"autogroup:shared\" matches nobody here",
                    ));
                }
                _ => {}
            }
        }
    }
    roles.sort_by_key(|(at, role)| (*role, *at));
    roles.dedup_by_key(|(_, role)| *role);
    for (at, role) in roles {
        let message =
            format!("\"autogroup:{role}\" matches nobody: the registry gives nobody this role");
        found.push(Diagnostic::warning(at, message));
    }
    found.sort_by_key(|d| d.at);
    // Nobody may give such a tag, so the node should not have it.
    let mut strange: Vec<&str> = nodes.tags().filter(|tag| !policy.has_tag(tag)).collect();
    strange.sort_unstable();
    for tag in strange {
        let mut with = nodes.with_tag(tag);
        let name = with.next().map_or("", |node| node.name.as_str());
        let more = with.count();
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!("{name:?}{others} has {tag:?}, which is not in tagOwners");
        found.push(Diagnostic::warning(Position::NONE, message));
    }
    found.truncate(crate::limits::POLICY_DIAGNOSTICS);
    found
}

/// Places in the order of rules, rising.
type Places = Vec<usize>;

/// For each word of `src` the rules in which it stands.
#[derive(Clone, Debug, Default)]
struct Sources {
    domains: HashMap<String, Places>,
    groups: HashMap<String, Places>,
    member: Places,
    roles: HashMap<String, Places>,
    tags: HashMap<String, Places>,
    tagged: Places,
    users: HashMap<String, Places>,
    /// For each login the groups of rules that it is in.
    groups_of: HashMap<String, Vec<String>>,
}

impl Sources {
    fn add(&mut self, place: usize, rule: &Rule) {
        for source in &rule.src {
            match source {
                // Compared without regard to capitals.
                Source::Domain(domain) => {
                    push(self.domains.entry(domain.to_ascii_lowercase()).or_default(), place);
                }
                Source::Group(group) => push(self.groups.entry(group.clone()).or_default(), place),
                Source::Member => push(&mut self.member, place),
                Source::Role(role) => push(self.roles.entry(role.clone()).or_default(), place),
                Source::Shared => {}
                Source::Tag(tag) => push(self.tags.entry(tag.clone()).or_default(), place),
                Source::Tagged => push(&mut self.tagged, place),
                Source::User(user) => push(self.users.entry(user.clone()).or_default(), place),
            }
        }
    }

    fn add_groups(&mut self, policy: &PolicyFile) {
        for (group, members) in policy.groups() {
            if self.groups.contains_key(group) {
                for member in members {
                    self.groups_of.entry(member.clone()).or_default().push(group.to_owned());
                }
            }
        }
    }

    /// The rules that are for who comes.
    fn of(&self, who: &Node, nodes: &Registry) -> Places {
        let mut found = Places::new();
        let mut take = |places: Option<&Places>| found.extend(places.into_iter().flatten());
        if let Some(login) = who.login() {
            take(Some(&self.member));
            take(self.users.get(login));
            if let Some((_, domain)) = login.rsplit_once('@') {
                take(self.domains.get(&domain.to_ascii_lowercase()));
            }
            for group in self.groups_of.get(login).into_iter().flatten() {
                take(self.groups.get(group));
            }
            for (role, places) in &self.roles {
                take(nodes.has_role(login, role).then_some(places));
            }
        }
        if !who.tags.is_empty() {
            take(Some(&self.tagged));
            who.tags.iter().for_each(|tag| take(self.tags.get(tag)));
        }
        sorted(found)
    }
}

/// For each word of `dst` the rules in which it stands.
#[derive(Clone, Debug, Default)]
struct Targets {
    own_nodes: Places,
    tags: HashMap<String, Places>,
    tagged: Places,
    users: HashMap<String, Places>,
}

impl Targets {
    fn add(&mut self, place: usize, rule: &Rule) {
        for target in &rule.dst {
            match target {
                Target::OwnNodes => push(&mut self.own_nodes, place),
                Target::Tag(tag) => push(self.tags.entry(tag.clone()).or_default(), place),
                Target::Tagged => push(&mut self.tagged, place),
                Target::User(user) => push(self.users.entry(user.clone()).or_default(), place),
            }
        }
    }

    /// The rules that may be for where to; whose own node it is must still be looked at.
    fn of(&self, dst: &Node) -> Places {
        let mut found = Places::new();
        let mut take = |places: Option<&Places>| found.extend(places.into_iter().flatten());
        if let Some(login) = dst.login() {
            take(Some(&self.own_nodes));
            take(self.users.get(login));
        }
        if !dst.tags.is_empty() {
            take(Some(&self.tagged));
            dst.tags.iter().for_each(|tag| take(self.tags.get(tag)));
        }
        sorted(found)
    }
}

/// Adds a place that is not there yet; places come rising.
fn push(places: &mut Places, place: usize) {
    if places.last() != Some(&place) {
        places.push(place);
    }
}

fn sorted(mut places: Places) -> Places {
    places.sort_unstable();
    places.dedup();
    places
}

/// What is in both of two rising lists.
fn both(a: &[usize], b: &[usize]) -> impl Iterator<Item = usize> {
    let mut b = b.iter().peekable();
    a.iter().copied().filter(move |place| {
        while b.next_if(|other| *other < place).is_some() {}
        b.peek() == Some(&place)
    })
}
