//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, with channel binding by the server's
//! certificate (`tls-server-end-point`, RFC 5929).
//!
//! A role that does not exist, has no password or one that has ended goes all the way to the proof,
//! which is then wrong: nobody learns from words, times or salts which of them it was.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::catalog::access::{Proof, Verifier};
use crate::error::{Error, Result, sqlstate};

/// The name of the scheme.
pub(super) const PLAIN: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub(super) const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The channel binding that there is.
const BINDING: &str = "tls-server-end-point";

/// Bytes of the server's part of a nonce.
const NONCE_WORDS: usize = 3;

fn violation(message: &str) -> Error {
    Error::user(sqlstate::PROTOCOL_VIOLATION, message)
}

fn malformed() -> Error {
    violation("malformed SCRAM message")
}

/// What a client has to know, and what the connection is bound to.
pub(super) struct Exchange {
    proof: Proof,
    /// Whether the password is one that lets in.
    valid: bool,
    /// The hash of the certificate that the client was shown.
    binding: Option<Vec<u8>>,
    encrypted: bool,
}

/// After the first message.
pub(super) struct Challenged {
    exchange: Exchange,
    /// What the client has to repeat of what it has said of channel binding.
    bound: String,
    nonce: String,
    /// Both first messages.
    said: String,
}

impl Exchange {
    /// Begins one. `binding` is the hash of the certificate, where there is one.
    pub(super) fn new(
        (verifier, valid): (Verifier, bool),
        encrypted: bool,
        binding: Option<Vec<u8>>,
    ) -> Result<Self> {
        let unreadable = || Error::internal("what is kept of a password can't be read");
        let proof = verifier.proof().ok_or_else(unreadable)?;
        Ok(Self { proof, valid, binding, encrypted })
    }

    /// The schemes that the client may choose from.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        let plus = self.binding.as_ref().map(|_| PLUS.to_owned());
        plus.into_iter().chain([PLAIN.to_owned()]).collect()
    }

    /// Takes the client's first message; the server's first one.
    pub(super) fn challenge(self, mechanism: &str, first: &[u8]) -> Result<(Challenged, String)> {
        let plus = match mechanism {
            PLAIN => false,
            PLUS if self.binding.is_some() => true,
            _ => return Err(violation("client selected an invalid SASL authentication mechanism")),
        };
        let first = std::str::from_utf8(first).map_err(|_| malformed())?;
        // `gs2-cbind-flag "," [authzid] ","`, then the message that is signed.
        let mut parts = first.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        match (flag, plus) {
            ("n", false) => {}
            // Somebody in between has taken the better scheme off the list.
            ("y", false) if self.binding.is_some() => {
                return Err(violation("SCRAM channel binding negotiation error").with_detail(
                    "The client supports SCRAM channel binding but thinks the server does not. \
                     However, this server does support channel binding.",
                ));
            }
            ("y", false) => {}
            (flag, true) if flag.strip_prefix("p=") == Some(BINDING) => {}
            _ => return Err(malformed()),
        }
        if !authzid.is_empty() {
            return Err(Error::unsupported(
                "client uses authorization identity, but it is not supported",
            ));
        }
        // The name is that of the startup message; `m=` would be an extension that has to be known.
        let nonce = match bare.strip_prefix("n=").and_then(|rest| rest.split_once(',')) {
            Some((_, rest)) => rest.split(',').next().and_then(|r| r.strip_prefix("r=")),
            None => None,
        };
        let printable = |b: u8| (0x21..=0x7e).contains(&b);
        let nonce = nonce.filter(|n| !n.is_empty() && n.bytes().all(printable));
        let nonce = format!("{}{}", nonce.ok_or_else(malformed)?, random()?);
        let answer = format!("r={nonce},s={},i={}", self.proof.salt, self.proof.iterations);
        let said = format!("{bare},{answer}");
        let bound = format!("{flag},,");
        Ok((Challenged { exchange: self, bound, nonce, said }, answer))
    }
}

impl Challenged {
    /// Takes the client's last message. The server's last one, when the client knows the password;
    /// `None` when it does not.
    pub(super) fn decide(self, last: &[u8]) -> Result<Option<String>> {
        let last = std::str::from_utf8(last).map_err(|_| malformed())?;
        let (without, proof) = last.rsplit_once(",p=").ok_or_else(malformed)?;
        let mut parts = without.split(',');
        let binding =
            parts.next().and_then(|part| part.strip_prefix("c=")).ok_or_else(malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or_else(malformed)?;
        let exchange = &self.exchange;
        let mut wanted = self.bound.clone().into_bytes();
        if self.bound.starts_with("p=") {
            wanted.extend(exchange.binding.iter().flatten());
        }
        if BASE64_STANDARD.decode(binding).ok().as_deref() != Some(wanted.as_slice()) {
            let detail = match exchange.encrypted {
                true => "The client does not see the certificate that the server has shown.",
                false => "What the client says of channel binding has changed.",
            };
            return Err(Error::user(
                sqlstate::INVALID_AUTHORIZATION,
                "SCRAM channel binding check failed",
            )
            .with_detail(detail));
        }
        if nonce != self.nonce {
            return Err(violation("invalid SCRAM response").with_detail("Nonce does not match."));
        }
        let proof = BASE64_STANDARD.decode(proof).map_err(|_| malformed())?;
        let message = format!("{},{without}", self.said);
        let met = exchange.proof.is_met(message.as_bytes(), &proof);
        let answer = format!("v={}", exchange.proof.answer(message.as_bytes()));
        Ok((met & exchange.valid).then_some(answer))
    }
}

/// Whether a password is the right one, by the exchange itself: both ends of it are here. It takes
/// some milliseconds of a processor.
pub(super) fn knows(verifier: (Verifier, bool), password: &str) -> Result<bool> {
    let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let exchange = Exchange::new(verifier, false, None)?;
    let (challenged, answer) = exchange.challenge(PLAIN, client.message())?;
    client.update(answer.as_bytes())?;
    Ok(challenged.decide(client.message())?.is_some())
}

/// The server's part of a nonce.
fn random() -> Result<String> {
    let mut bytes = Vec::with_capacity(NONCE_WORDS * 8);
    for _ in 0..NONCE_WORDS {
        let word = getrandom::u64().map_err(|e| Error::internal(e.to_string()))?;
        bytes.extend(word.to_be_bytes());
    }
    Ok(BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(valid: bool, binding: Option<Vec<u8>>) -> Exchange {
        let verifier = Verifier::of_password("pencil").expect("a password");
        Exchange::new((verifier, valid), binding.is_some(), binding).expect("parts")
    }

    /// What a client of some password and binding is told; the SQLSTATE of an error.
    fn talk(
        server: Exchange,
        mechanism: &str,
        password: &str,
        binding: ChannelBinding,
    ) -> std::result::Result<bool, &'static str> {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let code = |e: Error| e.sqlstate();
        let (challenged, first) = server.challenge(mechanism, client.message()).map_err(code)?;
        client.update(first.as_bytes()).expect("a challenge");
        let Some(last) = challenged.decide(client.message()).map_err(code)? else {
            return Ok(false);
        };
        client.finish(last.as_bytes()).expect("the server knows the password");
        Ok(true)
    }

    #[test]
    fn who_knows_the_password_is_let_in_and_nobody_else() {
        let none = ChannelBinding::unsupported;
        assert_eq!(talk(exchange(true, None), PLAIN, "pencil", none()), Ok(true));
        assert_eq!(talk(exchange(true, None), PLAIN, "Pencil", none()), Ok(false));
        assert_eq!(talk(exchange(false, None), PLAIN, "pencil", none()), Ok(false));
        let bound = |bytes: &[u8]| ChannelBinding::tls_server_end_point(bytes.to_vec());
        let server = || exchange(true, Some(b"certificate".to_vec()));
        assert_eq!(talk(server(), PLUS, "pencil", bound(b"certificate")), Ok(true));
        assert_eq!(talk(server(), PLUS, "pencil", bound(b"another")), Err("28000"));
        assert_eq!(talk(server(), PLAIN, "pencil", none()), Ok(true));
        // A client that could, and was told that the server can't.
        let cut = ChannelBinding::unrequested;
        assert_eq!(talk(server(), PLAIN, "pencil", cut()), Err("08P01"));
        assert_eq!(talk(exchange(true, None), PLUS, "pencil", bound(b"x")), Err("08P01"));
    }

    #[test]
    fn a_password_in_the_clear_is_compared_like_any_other() {
        let verifier = || Verifier::of_password("pencil").expect("a password");
        let knows = |valid, password| knows((verifier(), valid), password).expect("compared");
        assert!(knows(true, "pencil"));
        assert!(!knows(true, "Pencil"));
        assert!(!knows(true, ""));
        assert!(!knows(false, "pencil"));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for first in [
            "",
            "n",
            "n,,",
            "n,,n=",
            "n,,n=,r=",
            "n,a=x,n=,r=abc",
            "p=x,,n=,r=abc",
            "n,,m=1,n=,r=abc",
            "n,,n=,r=a\u{e9}",
        ] {
            let refused = exchange(true, None).challenge(PLAIN, first.as_bytes());
            assert!(refused.is_err(), "{first:?}");
        }
        for last in ["", "c=biws", "c=biws,r=x", "c=biws,r=x,p=AAAA", "r=x,p=AAAA"] {
            let (challenged, _) =
                exchange(true, None).challenge(PLAIN, b"n,,n=,r=abc").expect("a challenge");
            assert!(challenged.decide(last.as_bytes()).is_err(), "{last:?}");
        }
    }
}
