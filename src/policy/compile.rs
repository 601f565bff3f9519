//! The policy for one node, in the form in which control sends it to nodes: who comes is spelled out.
//!
//! Principals are as few as the form allows: a login for a user with all their nodes, the id of a node only where a tag is
//! meant. `any` is never among them: a node knows more peers than the policy speaks of, those of other networks that are
//! shared with it.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::Diagnostic;
use super::file::PolicyFile;
use super::matching::{is_in_domain, is_source, is_target, local_part};
use super::messages::Messages;
use super::nodes::{Node, Registry};
use super::recorders::{Groups, Place, Recorders, judge, places};
use super::rule::{Action, Rule};
use super::selector::{Account, Source, Target};
use super::ssh::{OnRecordingFailure, SshAction, SshPolicy, SshPrincipal, SshRule};

/// How a policy is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Where a node tells that a recording failed.
    pub notify_url: Option<String>,
    /// What is told when an enforced session cannot begin.
    pub reject_message: String,
    /// What is told when an enforced session must end.
    pub terminate_message: String,
    /// Where a node asks whether somebody has proved who they are, for rules that check. Without it such a rule rejects:
    /// nothing weaker than what it says.
    pub hold_and_delegate: Option<String>,
    /// Whether a rule that enforces recording and has no recorder rejects. A stock node must be told so: it takes an empty list
    /// of recorders for "not recorded". Nodes of ours know better, and keep running sessions while no recorder is known.
    pub reject_without_recorder: bool,
    /// Whether principals are addresses alone: for nodes that know other ids and logins than the registry.
    pub by_address: bool,
}

impl Default for CompileOptions {
    /// For any node, a stock one too.
    fn default() -> Self {
        let Messages { reject, terminate } = Messages::default();
        Self {
            notify_url: None,
            reject_message: reject,
            terminate_message: terminate,
            hold_and_delegate: None,
            reject_without_recorder: true,
            by_address: false,
        }
    }
}

impl CompileOptions {
    /// For agents of ours.
    #[must_use]
    pub fn for_agents() -> Self {
        Self { reject_without_recorder: false, ..Self::default() }
    }
}

/// What the compiled form has no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderInfo {
    /// The addresses of one recorder have the same number.
    pub group: u16,
    /// The name in its certificate; none: no TLS.
    pub tls: Option<String>,
}

/// Compiles the policy for `dst`. Beside it stand the recorders by their `ip:port`, and what is odd.
#[must_use]
pub fn compile(
    policy: &PolicyFile,
    nodes: &Registry,
    recorders: &Recorders,
    dst: &Node,
    options: &CompileOptions,
) -> (SshPolicy, BTreeMap<String, RecorderInfo>, Vec<Diagnostic>) {
    let mut job = Job {
        policy,
        nodes,
        dst,
        options,
        lists: BTreeMap::new(),
        groups: Groups::default(),
        infos: BTreeMap::new(),
        found: Vec::new(),
    };
    let mut rules = Vec::new();
    for (_, rule) in policy.in_order() {
        job.rule(recorders, rule, &mut rules);
    }
    job.found.sort_by_key(|d| d.at);
    (SshPolicy { rules: rules.into_iter().map(Some).collect() }, job.infos, job.found)
}

struct Job<'a> {
    policy: &'a PolicyFile,
    nodes: &'a Registry,
    dst: &'a Node,
    options: &'a CompileOptions,
    /// By tag.
    lists: BTreeMap<String, Vec<Place>>,
    groups: Groups,
    infos: BTreeMap<String, RecorderInfo>,
    found: Vec<Diagnostic>,
}

/// Who a rule is for on this node.
#[derive(Default)]
struct Who<'a> {
    users: bool,
    tagged: bool,
    logins: BTreeSet<&'a str>,
    nodes: BTreeSet<&'a str>,
}

impl<'a> Job<'a> {
    fn rule(&mut self, recorders: &Recorders, rule: &'a Rule, out: &mut Vec<SshRule>) {
        let who = self.who(rule);
        let principals = self.principals(&who);
        if principals.is_empty() {
            return;
        }
        let action = self.action(recorders, rule);
        let common = common_accounts(rule);
        let one = |principals: Vec<SshPrincipal>, ssh_users| SshRule {
            rule_expires: None,
            principals: principals.into_iter().map(Some).collect(),
            ssh_users,
            action: Some(action.clone()),
            accept_env: rule.accept_env.clone(),
        };
        if !common.is_empty() {
            out.push(one(principals, common));
        }
        // Accounts by login: a rule for each, since one map serves all principals of a rule.
        let mut own: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for account in &rule.users {
            let Account::LocalPart(domain) = account else { continue };
            for login in self.logins_of(&who) {
                if let Some(local) = local_part(login, domain) {
                    own.entry(login).or_default().insert(local);
                }
            }
        }
        for (login, accounts) in own {
            let principals = self.principals_of_login(login);
            // Not by name: the account must exist and must not be root by another name.
            let accounts = accounts.into_iter().map(|a| (a.to_owned(), "=".to_owned())).collect();
            if !principals.is_empty() {
                out.push(one(principals, accounts));
            }
        }
    }

    /// Who may come here under a rule; nobody when it is not for this node.
    fn who(&self, rule: &'a Rule) -> Who<'a> {
        let mut who = Who::default();
        let anybody = rule.dst.iter().any(|target| match target {
            Target::OwnNodes | Target::User(_) => false,
            tagged => is_target(tagged, self.dst, self.dst),
        });
        if !anybody {
            // Only the owner, if the rule is for them at all.
            let mine = rule.dst.iter().any(|target| is_target(target, self.dst, self.dst));
            let let_in =
                || rule.src.iter().any(|s| is_source(self.policy, self.nodes, s, self.dst));
            who.logins.extend(self.dst.login().filter(|_| mine && let_in()));
            return who;
        }
        for source in &rule.src {
            match source {
                Source::Domain(domain) => {
                    who.logins.extend(self.nodes.logins().filter(|l| is_in_domain(l, domain)));
                }
                Source::Group(group) => {
                    who.logins.extend(self.policy.members(group).iter().map(String::as_str));
                }
                Source::Member => who.users = true,
                Source::Role(role) => {
                    who.logins.extend(self.nodes.with_role(role).iter().map(String::as_str));
                }
                Source::Shared => {}
                Source::Tag(tag) => {
                    who.nodes.extend(self.nodes.with_tag(tag).map(|node| node.id.as_str()));
                }
                Source::Tagged => who.tagged = true,
                Source::User(user) => drop(who.logins.insert(user)),
            }
        }
        who
    }

    fn principals(&self, who: &Who<'_>) -> Vec<SshPrincipal> {
        let mut out = Vec::new();
        for login in self.logins_of(who) {
            out.extend(self.principals_of_login(login));
        }
        let tagged = self.nodes.iter().filter(|node| who.tagged && !node.tags.is_empty());
        let named = who.nodes.iter().filter(|_| !who.tagged).filter_map(|id| self.nodes.by_id(id));
        for node in tagged.chain(named) {
            self.principals_of_node(node, &mut out);
        }
        out
    }

    /// The logins of a rule; for `autogroup:member` all that the registry knows.
    fn logins_of<'w>(&'w self, who: &'w Who<'_>) -> Vec<&'w str> {
        if who.users {
            self.nodes
                .logins()
                .chain(who.logins.iter().copied())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        } else {
            who.logins.iter().copied().collect()
        }
    }

    /// A login as the nodes of the registry write it; as the policy does where it has none.
    fn principals_of_login(&self, login: &str) -> Vec<SshPrincipal> {
        let mut out = Vec::new();
        if self.options.by_address {
            for node in self.nodes.of_user(login) {
                self.principals_of_node(node, &mut out);
            }
            return out;
        }
        let mut written: BTreeSet<&str> = self
            .nodes
            .of_user(login)
            .filter_map(|node| Some(node.user.as_ref()?.login.as_str()))
            .collect();
        if written.is_empty() {
            written.insert(login);
        }
        for login in written {
            out.push(SshPrincipal { user_login: login.to_owned(), ..SshPrincipal::default() });
        }
        out
    }

    fn principals_of_node(&self, node: &Node, out: &mut Vec<SshPrincipal>) {
        if self.options.by_address {
            out.extend(node.addresses.iter().map(|address| SshPrincipal {
                node_ip: address.to_string(),
                ..SshPrincipal::default()
            }));
        } else {
            out.push(SshPrincipal { node: node.id.clone(), ..SshPrincipal::default() });
        }
    }

    fn action(&mut self, recorders: &Recorders, rule: &Rule) -> SshAction {
        let refuse = |message: &str| SshAction {
            reject: true,
            message: format!("{message}\n"),
            ..SshAction::default()
        };
        let mut action = SshAction {
            allow_agent_forwarding: true,
            allow_local_port_forwarding: true,
            allow_remote_port_forwarding: true,
            ..SshAction::default()
        };
        match (rule.action, &self.options.hold_and_delegate) {
            (Action::Accept, _) => action.accept = true,
            (Action::Check(_), Some(url)) => action.hold_and_delegate = url.clone(),
            (Action::Check(_), None) => return refuse(NO_CHECK),
        }
        let Some(tag) = &rule.recorder else { return action };
        let list = match self.lists.get(tag) {
            Some(list) => list,
            None => {
                let mut list = places(tag, self.nodes, recorders);
                self.found.extend(judge(rule.at, tag, rule.enforce_recorder, &mut list));
                self.lists.entry(tag.clone()).or_insert(list)
            }
        };
        if list.is_empty() && rule.enforce_recorder && self.options.reject_without_recorder {
            return refuse(&self.options.reject_message);
        }
        for place in list {
            let group = self.groups.number(place);
            let info = RecorderInfo { group, tls: place.tls.clone() };
            self.infos.entry(place.address.to_string()).or_insert(info);
            action.recorders.push(place.address);
        }
        // There also where nothing is enforced and nobody is told: it says that the session is to be recorded, even where no
        // recorder is known.
        let message = |text: &String| match rule.enforce_recorder {
            true => text.clone(),
            false => String::new(),
        };
        action.on_recording_failure = Some(OnRecordingFailure {
            reject_session_with_message: message(&self.options.reject_message),
            terminate_session_with_message: message(&self.options.terminate_message),
            notify_url: self.options.notify_url.clone().unwrap_or_default(),
        });
        action
    }
}

/// The accounts that a rule opens to all whom it is for.
fn common_accounts(rule: &Rule) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for account in &rule.users {
        match account {
            Account::LocalPart(_) => {}
            Account::Named(name) => drop(map.insert(name.clone(), name.clone())),
            Account::NonRoot => {
                map.insert("*".into(), "=".into());
                // Else `*` would be asked, and old nodes would let root in by it.
                map.entry("root".into()).or_default();
            }
        }
    }
    map
}

const NO_CHECK: &str = "This connection needs a check, and nothing here can make it.";
