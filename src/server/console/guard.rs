//! What stands in front of every request: whether it comes from the console's own page, and what
//! browsers are told to keep away from it.
//!
//! A POST has to say the header `X-Headwater`, which a page of another site can't without asking
//! first, and nobody answers that question; where the browser says which site a request comes from
//! (`Origin`, `Sec-Fetch-Site`), it has to be this one. With the cookie's `SameSite=Strict` that is
//! three times what one would do. Where nobody signs in, there is no cookie that another site
//! lacks: there the console has to be asked for by an address or as `localhost`, so that no name of
//! somebody else's may lead here (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Console;
use super::answer::Refused;

/// The header that the console's own requests have.
const OWN: &str = "x-headwater";

/// What every answer tells the browser.
const TOLD: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// Refuses what comes from elsewhere, and marks every answer.
pub(super) async fn guard(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Response {
    let refused = refusal(request.method(), request.headers(), console.authenticates());
    let mut response = match refused {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in TOLD {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Files say themselves how long they are good for.
    let kept = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(kept);
    response
}

fn refusal(method: &Method, headers: &HeaderMap, authenticates: bool) -> Option<Refused> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").unwrap_or_default();
    if !authenticates && !is_own_host(host) {
        return Some(Refused::foreign(
            "while nobody signs in the console is at an address or localhost, not at another name",
        ));
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let own = text(OWN).is_some();
    let same_origin = text("origin").is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
    });
    let same_site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    (!(own && same_origin && same_site))
        .then(|| Refused::foreign("the request does not come from the console's own page"))
}

/// Whether a host is named by what nobody else can give a meaning: an address, or this machine.
fn is_own_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_somebody_elses_is_no_host_of_ours() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "10.0.0.7"] {
            assert!(is_own_host(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com:8080", "127.0.0.1.nip.io", "[x]"] {
            assert!(!is_own_host(host), "{host}");
        }
    }

    #[test]
    fn what_changes_something_comes_from_the_own_page() {
        let refused = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().expect("a value"));
            }
            refusal(&Method::POST, &headers, true).is_some()
        };
        let (host, own) = (("host", "h:1"), (OWN, "act"));
        assert!(!refused(&[host, own]));
        assert!(!refused(&[
            host,
            own,
            ("origin", "https://h:1"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(refused(&[host]));
        assert!(refused(&[host, own, ("origin", "http://h:2")]));
        assert!(refused(&[host, own, ("origin", "null")]));
        assert!(refused(&[host, own, ("sec-fetch-site", "same-site")]));
    }
}
