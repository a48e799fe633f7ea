//! Who a client is: whoever it says while nobody has a password, and from then on a role that can
//! log in and knows its password, by SCRAM-SHA-256.

use pgwire::messages::startup::{Authentication, Startup};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::errors::code;
use super::scram::Exchange;
use super::wire::Wire;
use crate::engine::{Engine, Severity};
use crate::error::{Error, Result, sqlstate};

/// Whether a client is who it says: `Ok(true)`. `Ok(false)` when it has gone; one that comes
/// without a password asks for it and comes again.
///
/// # Errors
///
/// 28P01 when the password is wrong or there is none, without saying which; 28000, 08P01.
pub(super) async fn log_in(
    wire: &mut Wire,
    engine: &Engine,
    startup: &Startup,
    always: bool,
) -> Result<bool> {
    let Some(user) = startup.parameters.get("user") else {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Error::user(sqlstate::PROTOCOL_VIOLATION, message));
    };
    if !always && !engine.authenticates() {
        return Ok(true);
    }
    let exchange =
        Exchange::new(engine.verifier(user), wire.is_encrypted(), wire.channel_binding())?;
    let mechanisms = exchange.mechanisms();
    if !say(wire, Authentication::SASL(mechanisms)).await {
        return Ok(false);
    }
    let Some(first) = hear(wire).await? else { return Ok(false) };
    let (mechanism, first) = initial_response(&first)?;
    let (challenged, answer) = exchange.challenge(mechanism, first)?;
    if !say(wire, Authentication::SASLContinue(answer.into())).await {
        return Ok(false);
    }
    let Some(last) = hear(wire).await? else { return Ok(false) };
    let Some(answer) = challenged.decide(&last)? else {
        engine.note(Severity::Warning, "login", user, "a login has failed");
        let message = format!("password authentication failed for user \"{user}\"");
        return Err(Error::user(code::INVALID_PASSWORD, message));
    };
    // It leaves with what follows.
    wire.put(&PgWireBackendMessage::Authentication(Authentication::SASLFinal(answer.into())));
    Ok(true)
}

async fn say(wire: &mut Wire, message: Authentication) -> bool {
    wire.put(&PgWireBackendMessage::Authentication(message));
    wire.flush().await.is_ok()
}

/// The body of the next message, which has to be of this conversation.
async fn hear(wire: &mut Wire) -> Result<Option<Vec<u8>>> {
    use pgwire::messages::startup::PasswordMessageFamily;
    match wire.next().await? {
        None | Some(PgWireFrontendMessage::Terminate(_)) => Ok(None),
        Some(PgWireFrontendMessage::PasswordMessageFamily(PasswordMessageFamily::Raw(body))) => {
            Ok(Some(body.to_vec()))
        }
        Some(_) => Err(Error::user(sqlstate::PROTOCOL_VIOLATION, "expected SASL response")),
    }
}

/// The scheme that a client has chosen, and its first message.
fn initial_response(body: &[u8]) -> Result<(&str, &[u8])> {
    let malformed = || Error::user(sqlstate::PROTOCOL_VIOLATION, "malformed SASL response");
    let end = body.iter().position(|b| *b == 0).ok_or_else(malformed)?;
    let (mechanism, rest) = body.split_at(end);
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| malformed())?;
    let (length, first) =
        rest.get(1..).and_then(<[u8]>::split_first_chunk).ok_or_else(malformed)?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length == first.len() => Ok((mechanism, first)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_response_that_lies_about_its_length_is_refused() {
        let good = b"SCRAM-SHA-256\0\0\0\0\x03n,,";
        assert_eq!(initial_response(good).expect("sound"), ("SCRAM-SHA-256", &b"n,,"[..]));
        for bad in [&b""[..], b"S", b"S\0", b"S\0\0\0", b"S\0\xff\xff\xff\xff", b"S\0\0\0\0\x04abc"]
        {
            assert_eq!(initial_response(bad).map_err(|e| e.sqlstate()), Err("08P01"), "{bad:?}");
        }
    }
}
