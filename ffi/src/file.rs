//! The configuration file, as castkeep_config_load describes it.
// The configuration is a file: this crate is a shell.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::fs;
use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;

use core_lib::client::Release;
use core_lib::limits;

use crate::config::{
    CASTKEEP_OPTION_CLOSE_WAIT_MS, CASTKEEP_OPTION_GRACE_MS, CASTKEEP_OPTION_MAX_BYTES,
    CASTKEEP_OPTION_MAX_SESSIONS, CASTKEEP_OPTION_POLICY, CASTKEEP_OPTION_POLICY_AS_CONFIGURED,
    CASTKEEP_OPTION_POLICY_TOKEN, CASTKEEP_OPTION_POLICY_WAIT_MS, CASTKEEP_OPTION_REFUSE_SFTP,
    CASTKEEP_OPTION_RING_BYTES, CASTKEEP_OPTION_STALL_LIMIT_MS, CASTKEEP_OPTION_START_LIMIT_MS,
    CASTKEEP_OPTION_TLS_AUTHORITIES, CASTKEEP_OPTION_TLS_CERTIFICATE, CASTKEEP_OPTION_TLS_KEY,
    CASTKEEP_OPTION_TLS_PIN, CASTKEEP_OPTION_TLS_PIN_IGNORES_TIME, CASTKEEP_OPTION_TRANSFER_BYTES,
    castkeep_config,
};
use crate::status::castkeep_status::*;

/// Nobody writes more by hand.
const FILE_BYTES: u64 = 256 * 1024;
const REJECT: &str = "This session must be recorded and no recorder can be reached.\n";
const TERMINATE: &str = "This session must be recorded and its recording failed.\n";

pub(crate) fn load(path: &str) -> Result<castkeep_config, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| format!("{path}: {e}"))?;
    file.take(FILE_BYTES).read_to_string(&mut text).map_err(|e| format!("{path}: {e}"))?;
    if text.len() as u64 >= FILE_BYTES {
        return Err(format!("{path}: longer than {} KiB", FILE_BYTES >> 10));
    }
    parse(&text).map_err(|why| format!("{path}: {why}"))
}

fn parse(text: &str) -> Result<castkeep_config, String> {
    let mut json = String::new();
    json_strip_comments::StripComments::new(text.as_bytes())
        .read_to_string(&mut json)
        .map_err(|e| e.to_string())?;
    let value: Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
    let object = value.get("client").unwrap_or(&value);
    let object = object.as_object().ok_or("an object was expected")?;
    let mut config = castkeep_config::default();
    for (name, value) in object {
        set(&mut config, name, value).map_err(|why| format!("{name}: {why}"))?;
    }
    config.decision().map_err(|wrong| wrong.text().to_owned())?;
    Ok(config)
}

fn set(config: &mut castkeep_config, name: &str, value: &Value) -> Result<(), String> {
    let text = || value.as_str().ok_or("text was expected");
    let flag = || value.as_bool().ok_or("true or false was expected");
    let number = |config: &mut castkeep_config, option, number| {
        config.set_number(option, number).map_err(|_| "out of its range".to_owned())
    };
    let time = || {
        let time = duration(text()?).ok_or("a time such as \"15s\" or \"500ms\" was expected")?;
        u64::try_from(time.as_millis()).map_err(|_| "out of its range")
    };
    let bytes = || {
        let bytes = text().ok().and_then(size).or_else(|| value.as_u64());
        bytes.ok_or("a size such as \"256KiB\" was expected")
    };
    match name {
        "recorders" => {
            let list = value.as_array().ok_or("a list of addresses was expected")?;
            for recorder in list {
                let field = |name| recorder.get(name).and_then(Value::as_str);
                let address =
                    recorder.as_str().or_else(|| field("address")).or_else(|| field("host"));
                let address = address.ok_or("a list of addresses was expected")?;
                let added = match field("host") {
                    Some(host) => config.add_host(host),
                    None => config.add_recorder(address, field("name")),
                };
                added.map_err(|status| match status {
                    CASTKEEP_STATUS_UNSUPPORTED => {
                        format!("`{}`: this library has no TLS", address.escape_debug())
                    }
                    CASTKEEP_STATUS_TOO_BIG => format!("more than {}", limits::RECORDERS_MAX),
                    _ => format!(
                        "`{}` is not an address such as 192.0.2.7:80, [2001:db8::7]:80, https://192.0.2.7:443, unix:/path",
                        address.escape_debug()
                    ),
                })?;
            }
        }
        "enforce" => {
            if flag()? {
                config.reject.get_or_insert_with(|| REJECT.into());
                config.terminate.get_or_insert_with(|| TERMINATE.into());
            }
        }
        "reject-message" => config.reject = Some(text()?.into()),
        "terminate-message" => config.terminate = Some(text()?.into()),
        "release" => {
            config.release = match text()? {
                "ring" => Release::Ring,
                "commit" => Release::Commit,
                _ => return Err("`ring` or `commit` was expected".into()),
            }
        }
        "record-input" => config.record_input = flag()?,
        "ring" => number(config, CASTKEEP_OPTION_RING_BYTES, bytes()?)?,
        "volume" => {
            let all = value.as_str() == Some("all");
            let bytes = if all { u64::MAX } else { bytes()? };
            number(config, CASTKEEP_OPTION_TRANSFER_BYTES, bytes)?;
        }
        "sftp" => {
            let refuse = match text()? {
                "pass" => 0,
                "refuse" => 1,
                _ => return Err("`pass` or `refuse` was expected".into()),
            };
            number(config, CASTKEEP_OPTION_REFUSE_SFTP, refuse)?;
        }
        "policy" => {
            config.set_text(CASTKEEP_OPTION_POLICY, text()?.into()).map_err(
                |status| match status {
                    CASTKEEP_STATUS_UNSUPPORTED => "this library has no TLS",
                    _ => "unix:/path or https://192.0.2.7:443 was expected",
                },
            )?
        }
        "policy-token-file" => {
            let path = text()?;
            let token = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            config
                .set_text(CASTKEEP_OPTION_POLICY_TOKEN, token.trim().into())
                .map_err(|_| format!("{path}: not a token"))?;
        }
        "policy-wait" => number(config, CASTKEEP_OPTION_POLICY_WAIT_MS, time()?)?,
        "policy-unreachable" => {
            let as_configured = match text()? {
                "refuse" => 0,
                "as-configured" => 1,
                _ => return Err("`refuse` or `as-configured` was expected".into()),
            };
            number(config, CASTKEEP_OPTION_POLICY_AS_CONFIGURED, as_configured)?;
        }
        "max-bytes" => number(config, CASTKEEP_OPTION_MAX_BYTES, bytes()?)?,
        "tls-ca" => read(config, CASTKEEP_OPTION_TLS_AUTHORITIES, text()?)?,
        "tls-cert" => read(config, CASTKEEP_OPTION_TLS_CERTIFICATE, text()?)?,
        "tls-key" => read(config, CASTKEEP_OPTION_TLS_KEY, text()?)?,
        "tls-pin" => {
            let one = std::slice::from_ref(value);
            for pin in value.as_array().map_or(one, Vec::as_slice) {
                let pin = pin.as_str().ok_or("text was expected")?;
                config.set_text(CASTKEEP_OPTION_TLS_PIN, pin.into()).map_err(
                    |status| match status {
                        CASTKEEP_STATUS_UNSUPPORTED => "this library has no TLS",
                        CASTKEEP_STATUS_TOO_BIG => "too many",
                        _ => "a SHA-256 in hexadecimal or sha256/BASE64 was expected",
                    },
                )?;
            }
        }
        "tls-pin-ignores-time" => {
            number(config, CASTKEEP_OPTION_TLS_PIN_IGNORES_TIME, u64::from(flag()?))?;
        }
        "max-sessions" => {
            let count = value.as_u64().ok_or("a number was expected")?;
            number(config, CASTKEEP_OPTION_MAX_SESSIONS, count)?;
        }
        "grace" => number(config, CASTKEEP_OPTION_GRACE_MS, time()?)?,
        "stall-limit" => number(config, CASTKEEP_OPTION_STALL_LIMIT_MS, time()?)?,
        "start-limit" => number(config, CASTKEEP_OPTION_START_LIMIT_MS, time()?)?,
        "close-wait" => number(config, CASTKEEP_OPTION_CLOSE_WAIT_MS, time()?)?,
        _ => return Err("there is no such option".into()),
    }
    Ok(())
}

fn read(config: &mut castkeep_config, option: i32, path: &str) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    config.set_bytes(option, &bytes).map_err(|status| match status {
        CASTKEEP_STATUS_UNSUPPORTED => "this library has no TLS".into(),
        _ => format!("{path}: too big"),
    })
}

fn unit(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(at)?;
    Some((number.parse().ok()?, unit))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = unit(text)?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    })
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = unit(text)?;
    number.checked_mul(match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        parse(text).err().expect("an error")
    }

    #[test]
    fn a_whole_file() {
        let text = r#"{ // comments, and commas at the end
            "serve": { "listen": "127.0.0.1:80" },
            "client": {
                "recorders": ["127.0.0.1:80", "[::1]:8080", "unix:/run/r"],
                "enforce": true, "terminate-message": "over\n", "ring": "1MiB", "grace": "2m", "close-wait": "500ms",
                "release": "commit", "record-input": true, "max-sessions": 3, "volume": "1KiB", "sftp": "refuse",
            },
        }"#;
        let config = parse(text).expect("a configuration");
        assert_eq!(config.recorders.len(), 3);
        assert_eq!(config.reject.as_deref(), Some(REJECT));
        assert_eq!(config.terminate.as_deref(), Some("over\n"));
        assert_eq!((config.ring_bytes, config.max_sessions), (1 << 20, 3));
        assert_eq!(config.grace, Some(Duration::from_secs(120)));
        assert_eq!(config.close_wait, Duration::from_millis(500));
        assert_eq!(config.release, Release::Commit);
        assert!(config.record_input);
        assert_eq!((config.transfers.cap_bytes, config.transfers.refuse_sftp), (1024, true));
        let all = parse(r#"{"volume": "all"}"#).expect("a configuration");
        assert_eq!(all.transfers.cap_bytes, u64::MAX);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(why("{\"enforced\": true}").contains("enforced: there is no such option"));
        assert!(
            why("{\"recorders\": [\"host:80\"]}")
                .contains("recorders: `host:80` is not an address")
        );
        assert!(why("{\"ring\": \"1\"}").contains("ring: out of its range"));
        assert!(why("{\"grace\": 5}").contains("grace: "));
        assert!(why("{\"enforce\": true}").contains("none is named"));
        assert!(why("[").contains("line 1"));
        assert!(why(r#"{"policy": "192.0.2.7:80"}"#).contains("policy: unix:/path or"));
        let asks = parse(r#"{"policy": "unix:/run/castkeep/agent.sock", "enforce": true}"#);
        assert!(asks.expect("a configuration").decision().is_ok_and(|d| d.policy.is_some()));
    }
}
