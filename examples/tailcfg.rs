//! Reads what a control plane of Tailscale sends to its SSH servers, or what they tell it, and writes it again:
//!
//!     cargo run --example tailcfg policy FILE     an SSHPolicy
//!     cargo run --example tailcfg notify FILE     an SSHEventNotifyRequest
//!
//! With `decide FILE ADDRESS USER` behind it says what the policy means for a login from there.

#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use castkeep::policy::notify::NotifyRequest;
use castkeep::policy::ssh::{Connection, Evaluation, Evaluator, LocalUser, SshPolicy};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["policy", file] => println!("{}", SshPolicy::parse(&std::fs::read(file)?)?.to_json()),
        ["notify", file] => println!("{}", NotifyRequest::parse(&std::fs::read(file)?)?.to_json()),
        ["decide", file, address, user] => {
            let policy = Evaluator::new(SshPolicy::parse(&std::fs::read(file)?)?);
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let login = Connection {
                now_unix: i64::try_from(now)?,
                src_ip: address.parse()?,
                src_node_id: "",
                src_login: "",
                ssh_user: user,
                local_user: &|_| LocalUser::Other,
            };
            match policy.evaluate(&login) {
                Evaluation::Accept { rule, action, local_user, .. } => {
                    println!(
                        "rule {rule} accepts as {local_user}, recorders {:?}",
                        action.recorders
                    );
                }
                Evaluation::Hold { rule, .. } => println!("rule {rule} asks elsewhere"),
                Evaluation::Reject { rule, message } => {
                    println!("refused by {rule:?}: {}", message.trim_end())
                }
            }
        }
        _ => return Err("policy FILE | notify FILE | decide FILE ADDRESS USER".into()),
    }
    Ok(())
}
