//! `castkeep policy`: looks at a policy file without putting it to work.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Args, Exit, Failure, Opt, Spec};
use crate::cast::text::escape_control;
use crate::limits;
use crate::policy::explain::{RuleReport, explain};
use crate::policy::ssh::LocalUser;
use crate::policy::{
    CompileOptions, Decider, Diagnostic, Grant, Node, PolicyFile, Question, Recorders, Registry,
    Severity, Subject, Verdict, compile, ssh_tests,
};
use crate::suggest;

pub(crate) const SPEC: Spec = Spec {
    name: "policy",
    summary: "checks, explains, compiles and tests a policy file",
    operands: "check FILE | explain FILE | compile FILE | test FILE",
    options: &[
        Opt::value(
            "nodes",
            "FILE",
            "The nodes: a registry of castkeep's, or what `tailscale status --json` prints. `explain` and `compile`\nneed it; `check` and `test` find more with it.",
        ),
        Opt::value("for", "NODE", "compile: the node that the policy is for, by id, name or address."),
        Opt::value("src", "NODE", "explain: who comes, by id, name or address of their node."),
        Opt::value("dst", "NODE", "explain: where to, by id, name or address."),
        Opt::value("user", "NAME", "explain: as which user."),
        Opt::value(
            "notify-url",
            "URL",
            "compile: where nodes tell that a recording failed.",
        ),
        Opt::switch(
            "by-address",
            "compile: sources are addresses alone, for nodes that know other ids and logins than the registry.",
        ),
        Opt::switch("json", "explain, test: the answer as JSON, for programs."),
        Opt::switch("quiet", "Says nothing of warnings and of what is well.").short('q'),
    ],
    about: "A policy file has the grammar of Tailscale's: HuJSON with `groups`, `hosts`, `tagOwners`, `ssh` and `sshTests`; other
sections are kept aside. docs/policy.md says what of it bears on castkeep.

`check` reports what is wrong, one line each as compilers do: FILE:LINE:COLUMN: error: what. `explain` tells rule by rule
why it matched or not, and what follows. `compile` prints the policy for one node as control sends it, the JSON of an
SSHPolicy; a stock tailscaled reads it as its policy file. `test` runs the file's `sshTests`.",
    exits: "1  the policy is wrong, a test failed, or `explain` found that the login is refused",
    examples: "castkeep policy check policy.hujson
castkeep policy explain policy.hujson --nodes nodes.json --src laptop --dst web1 --user root
castkeep policy compile policy.hujson --nodes nodes.json --for web1 >/etc/castkeep/ssh-policy.json
castkeep policy test policy.hujson --nodes nodes.json",
    environment: true,
    stops_at_operand: false,
};

/// What is done.
struct Verb {
    name: &'static str,
    /// Those of the command that belong to it.
    options: &'static [&'static str],
    act: fn(&Call<'_>) -> Result<Exit, Failure>,
}

const VERBS: [Verb; 4] = [
    Verb { name: "check", options: &["nodes", "quiet"], act: check },
    Verb {
        name: "explain",
        options: &["nodes", "src", "dst", "user", "json", "quiet"],
        act: run_explain,
    },
    Verb {
        name: "compile",
        options: &["nodes", "for", "notify-url", "by-address", "quiet"],
        act: run_compile,
    },
    Verb { name: "test", options: &["nodes", "json", "quiet"], act: run_tests },
];

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let names = || VERBS.iter().map(|v| v.name);
    let Some((verb, files)) = args.operands().split_first() else {
        return Err(Failure::usage("policy: one of check, explain, compile and test, and a file"));
    };
    let verb = verb.to_string_lossy();
    let Some(Verb { name, options, act }) = VERBS.iter().find(|v| v.name == verb) else {
        let shown = escape_control(&verb);
        let hint = suggest::nearest(&verb, names())
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(Failure::usage(format!("policy: there is no `{shown}`{hint}")));
    };
    let [file] = files else {
        return Err(Failure::usage(format!("policy {name}: one file is wanted")));
    };
    for option in SPEC.options.iter().map(|o| o.name) {
        if args.is_on_command_line(option) && !options.contains(&option) {
            return Err(Failure::usage(format!("policy {name} does not take --{option}")));
        }
    }
    act(&Call { args, name, file: file.into(), quiet: args.switch("quiet")? })
}

struct Call<'a> {
    args: &'a Args,
    name: &'static str,
    file: PathBuf,
    quiet: bool,
}

/// What was said of files.
#[derive(Default)]
struct Said {
    errors: usize,
    warnings: usize,
}

impl Call<'_> {
    /// Reports what was found in a file, errors first to be counted.
    fn report(&self, path: &Path, found: &[Diagnostic], said: &mut Said) {
        let mut out = io::stderr().lock();
        for one in found {
            let is_error = one.severity == Severity::Error;
            if is_error {
                said.errors += 1;
            } else {
                said.warnings += 1;
                if self.quiet {
                    continue;
                }
            }
            let line = format!("{}:{one}", path.display());
            let _ = writeln!(out, "{}", escape_control(&line));
        }
    }

    fn policy(&self, said: &mut Said) -> Result<Option<PolicyFile>, Failure> {
        let (policy, found) = PolicyFile::parse(&read(&self.file)?);
        self.report(&self.file, &found, said);
        Ok(policy)
    }

    /// The nodes, when they were named; an empty registry otherwise.
    fn nodes(&self, said: &mut Said) -> Result<Option<Registry>, Failure> {
        let Some(path) = self.args.path("nodes") else { return Ok(None) };
        match Registry::parse(&read(&path)?) {
            Ok((nodes, found)) => {
                self.report(&path, &found, said);
                Ok(Some(nodes))
            }
            Err(found) => {
                self.report(&path, &found, said);
                Err(Failure::new(format!("{}: {} errors", path.display(), said.errors)))
            }
        }
    }

    /// Policy and nodes for a verb that cannot do without either.
    fn both(&self, said: &mut Said) -> Result<(PolicyFile, Registry), Failure> {
        let policy = self.policy(said)?;
        let nodes = self.nodes(said)?;
        let missing = || Failure::usage(format!("policy {}: --nodes FILE is needed", self.name));
        let nodes = nodes.ok_or_else(missing)?;
        let wrong = || Failure::new(format!("{}: {} errors", self.file.display(), said.errors));
        Ok((policy.ok_or_else(wrong)?, nodes))
    }

    fn node<'n>(&self, option: &str, nodes: &'n Registry) -> Result<&'n Node, Failure> {
        let missing = || Failure::usage(format!("policy {}: --{option} is needed", self.name));
        let what = self.args.string(option)?.ok_or_else(missing)?;
        nodes.find(&what).ok_or_else(|| {
            let near = suggest::nearest(&what, nodes.iter().map(|n| n.name.as_str()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let shown = escape_control(&what);
            Failure::new(format!("--{option}: there is no node `{shown}`{hint}"))
        })
    }
}

fn check(call: &Call<'_>) -> Result<Exit, Failure> {
    let mut said = Said::default();
    let policy = call.policy(&mut said)?;
    let nodes = call.nodes(&mut said)?;
    if let (Some(policy), Some(nodes)) = (&policy, &nodes) {
        let (_, found) = Decider::new(policy, nodes, &Recorders::default());
        call.report(&call.file, &found, &mut said);
    }
    if !call.quiet {
        let rules = policy.as_ref().map_or(0, |p| p.rules().len());
        let tests = policy.as_ref().map_or(0, |p| p.tests().len());
        println!(
            "{}: {rules} rules, {tests} tests: {} errors, {} warnings",
            call.file.display(),
            said.errors,
            said.warnings
        );
    }
    Ok(if said.errors == 0 && policy.is_some() { Exit::OK } else { Exit::FAILURE })
}

fn run_explain(call: &Call<'_>) -> Result<Exit, Failure> {
    let (policy, nodes) = call.both(&mut Said::default())?;
    let (src, dst) = (call.node("src", &nodes)?, call.node("dst", &nodes)?);
    let user = call.args.string("user")?;
    let user = user.ok_or_else(|| Failure::usage("policy explain: --user is needed"))?;
    let (decider, _) = Decider::new(&policy, &nodes, &Recorders::default());
    let verdict = decider.decide(&Question { src: Subject::Node(src), dst, user: &user });
    // Whether the account exists is the node's to know: here every name but root's counts as one.
    let accounts = |name: &str| if name == "root" { LocalUser::Root } else { LocalUser::Other };
    let reports = explain(&policy, &nodes, src, dst, &user, &accounts);
    if call.args.switch("json")? {
        let rules: Vec<Value> = reports
            .iter()
            .map(|r| json!({"rule": r.rule, "line": r.at.line, "says": r.to_string()}))
            .collect();
        println!("{}", json!({"rules": rules, "verdict": as_json(&verdict)}));
    } else {
        print_verdict(&reports, &verdict, src, dst, &user)
            .or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })
            .map_err(|e| Failure::new(format!("standard output: {e}")))?;
    }
    Ok(if matches!(verdict, Verdict::Accept(_)) { Exit::OK } else { Exit::FAILURE })
}

fn print_verdict(
    reports: &[RuleReport],
    verdict: &Verdict,
    src: &Node,
    dst: &Node,
    user: &str,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let whose = match src.login() {
        Some(login) => format!(" ({login})"),
        None => format!(" ({})", src.tags.join(", ")),
    };
    let mut line = |text: String| writeln!(out, "{}", escape_control(&text));
    line(format!("{}{whose} to {} as {user}", src.name, dst.name))?;
    for report in reports {
        line(format!("  {report}"))?;
    }
    match verdict {
        Verdict::Reject(why) => line(format!("refused: {why}")),
        Verdict::Accept(grant) => {
            line(format!("accepted as {}{}", grant.local_user, checked(grant)))?;
            if !grant.record {
                return line("not recorded".to_owned());
            }
            line(if grant.enforced {
                "recorded, fail closed: without a recorder the session is refused or ended"
                    .to_owned()
            } else {
                "recorded, fail open: without a recorder the session goes on, and that is told"
                    .to_owned()
            })?;
            for recorder in &grant.recorders {
                let tls = recorder
                    .tls
                    .as_ref()
                    .map_or_else(String::new, |name| format!(" (TLS, {name})"));
                line(format!("  {}{tls}", recorder.address))?;
            }
            if grant.recorders.is_empty() {
                line("  no node has the recorder's tag".to_owned())?;
            }
            Ok(())
        }
    }
}

fn checked(grant: &Grant) -> &'static str {
    if grant.check.is_some() { ", after a check in the browser" } else { "" }
}

fn as_json(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Reject(why) => json!({"verdict": "reject", "why": why.to_string()}),
        Verdict::Accept(grant) => {
            let recorders: Vec<String> =
                grant.recorders.iter().map(|r| r.address.to_string()).collect();
            json!({
                "verdict": if grant.check.is_some() { "check" } else { "accept" },
                "rule": grant.rule,
                "localUser": grant.local_user,
                "record": grant.record,
                "enforced": grant.enforced,
                "recorders": recorders,
                "acceptEnv": grant.accept_env,
            })
        }
    }
}

fn run_compile(call: &Call<'_>) -> Result<Exit, Failure> {
    let mut said = Said::default();
    let (policy, nodes) = call.both(&mut said)?;
    let dst = call.node("for", &nodes)?;
    let options = CompileOptions {
        notify_url: call.args.string("notify-url")?,
        by_address: call.args.switch("by-address")?,
        ..CompileOptions::default()
    };
    let (compiled, _, found) = compile(&policy, &nodes, &Recorders::default(), dst, &options);
    call.report(&call.file, &found, &mut said);
    match writeln!(io::stdout().lock(), "{}", compiled.to_json()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("standard output: {e}")))
        }
        _ => Ok(Exit::OK),
    }
}

fn run_tests(call: &Call<'_>) -> Result<Exit, Failure> {
    let mut said = Said::default();
    let policy = call.policy(&mut said)?;
    let nodes = call.nodes(&mut said)?.unwrap_or_default();
    let wrong = || Failure::new(format!("{}: {} errors", call.file.display(), said.errors));
    let policy = policy.ok_or_else(wrong)?;
    let outcomes = ssh_tests::run(&policy, &nodes);
    let passed = outcomes.iter().filter(|o| o.has_passed()).count();
    if call.args.switch("json")? {
        let all: Vec<Value> = outcomes
            .iter()
            .map(|o| json!({"test": o.test, "line": o.at.line, "questions": o.questions, "failures": o.failures}))
            .collect();
        println!("{}", json!({"tests": all}));
    } else {
        for outcome in &outcomes {
            if !outcome.has_passed() || !call.quiet {
                for line in outcome.to_string().lines() {
                    let line = format!("{}:{line}", call.file.display());
                    println!("{}", escape_control(&line));
                }
            }
        }
        println!("{passed} of {} tests passed", outcomes.len());
    }
    Ok(if passed == outcomes.len() { Exit::OK } else { Exit::FAILURE })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::new(format!("cannot read {}: {e}", path.display()));
    let most = limits::POLICY_BYTES as u64;
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, most + 1), &mut text).map_err(failed)?;
    Ok(text)
}
