//! Who wants to log in.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::text::Object;
use crate::error::{Error, Misuse};
use crate::limits::{ASK_BYTES, ASK_FIELD_BYTES};
use crate::space;

/// What is asked; everything but `ssh_user` may be empty. What a host says of the source is believed only as far as the one that
/// answers can check it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The user as the client asked for.
    pub ssh_user: String,
    /// The user that the session runs as; the verdict must be for this one.
    pub local_user: String,
    /// Where the connection comes from.
    pub source_ip: String,
    /// Its port; 0 when it is not known.
    pub source_port: u16,
    /// Name of the source node, as claimed.
    pub node: String,
    /// Its stable id, as claimed.
    pub node_id: String,
    /// Login name of its user, as claimed.
    pub user_login: String,
    /// `shell`, `exec` or `subsystem`.
    pub kind: String,
    /// Shared by all sessions of one SSH connection.
    pub connection_id: String,
}

impl Question {
    /// Where the connection comes from: `192.0.2.7`, `192.0.2.7:40022`, `[2001:db8::7]:40022`.
    ///
    /// # Errors
    /// `Misuse` for what is no address, `NoMemory`.
    pub fn set_source(&mut self, address: &str) -> Result<(), Error> {
        let (ip, port) = match address.parse::<SocketAddr>() {
            Ok(_) => address.rsplit_once(':').ok_or(Error::Bug)?,
            Err(_) => (address, "0"),
        };
        let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        let bad = Error::Misuse(Misuse::BadParameter);
        ip.parse::<IpAddr>().map_err(|_| bad)?;
        self.source_port = port.parse().map_err(|_| bad)?;
        self.source_ip = space::string(ip)?;
        Ok(())
    }

    /// A copy; `NoMemory` where `clone` would abort.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn copy(&self) -> Result<Self, Error> {
        Ok(Self {
            ssh_user: space::string(&self.ssh_user)?,
            local_user: space::string(&self.local_user)?,
            source_ip: space::string(&self.source_ip)?,
            source_port: self.source_port,
            node: space::string(&self.node)?,
            node_id: space::string(&self.node_id)?,
            user_login: space::string(&self.user_login)?,
            kind: space::string(&self.kind)?,
            connection_id: space::string(&self.connection_id)?,
        })
    }

    /// The JSON object on the wire, which asks for every later verdict as well.
    ///
    /// # Errors
    /// `TooBig` past what an answerer reads, `NoMemory`.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut object = Object::new();
        object.text("sshUser", &self.ssh_user, ASK_FIELD_BYTES)?;
        for (name, value) in [
            ("localUser", &self.local_user),
            ("sourceIP", &self.source_ip),
            ("node", &self.node),
            ("nodeID", &self.node_id),
            ("userLogin", &self.user_login),
            ("kind", &self.kind),
            ("connectionID", &self.connection_id),
        ] {
            if !value.is_empty() {
                if value.len() > ASK_FIELD_BYTES {
                    // A name that was cut would be another one.
                    return Err(Error::TooBig);
                }
                object.text(name, value, ASK_FIELD_BYTES)?;
            }
        }
        if self.ssh_user.len() > ASK_FIELD_BYTES {
            return Err(Error::TooBig);
        }
        if self.source_port != 0 {
            object.number("sourcePort", self.source_port.into())?;
        }
        object.yes("watch")?;
        let body = object.finish()?;
        if body.len() > ASK_BYTES { Err(Error::TooBig) } else { Ok(body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_object_that_any_reader_reads() {
        let question = Question {
            ssh_user: "ro\"ot\u{7f}".into(),
            source_ip: "100.64.0.5".into(),
            source_port: 40022,
            ..Question::default()
        };
        let json: serde_json::Value = serde_json::from_slice(&question.encode().unwrap()).unwrap();
        assert_eq!(json["sshUser"], "ro\"ot\u{7f}");
        assert_eq!(
            (&json["sourceIP"], json["sourcePort"].as_u64()),
            (&"100.64.0.5".into(), Some(40022))
        );
        assert_eq!(json["watch"], true);
        assert!(json.get("nodeID").is_none());
    }

    #[test]
    fn sources_are_addresses_with_and_without_a_port() {
        for (text, ip, port) in [
            ("192.0.2.7", "192.0.2.7", 0),
            ("192.0.2.7:40022", "192.0.2.7", 40022),
            ("[2001:db8::7]:22", "2001:db8::7", 22),
            ("2001:db8::7", "2001:db8::7", 0),
        ] {
            let mut question = Question::default();
            question.set_source(text).unwrap();
            assert_eq!((&*question.source_ip, question.source_port), (ip, port));
        }
        for bad in ["", "host", "host:22", "192.0.2.7:", "192.0.2.7:99999", "[::1"] {
            assert!(Question::default().set_source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_and_not_cut() {
        let question =
            Question { ssh_user: "x".repeat(ASK_FIELD_BYTES + 1), ..Question::default() };
        assert_eq!(question.encode(), Err(Error::TooBig));
    }
}
