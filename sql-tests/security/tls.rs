//! Encrypted connections: who is shown what, what is bound to what, and what is refused.

use std::io::{Read, Write};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};
use postgres_openssl::MakeTlsConnector;

use super::*;

/// A certificate for `localhost` that signs itself, and its key: the paths of both.
fn certificate(place: &Place, name: &str) -> (String, String) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let mut subject = X509Name::builder().expect("a name");
    subject.append_entry_by_text("CN", "localhost").expect("a name");
    let subject = subject.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("a version");
    builder.set_subject_name(&subject).expect("a subject");
    builder.set_issuer_name(&subject).expect("an issuer");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("now")).expect("a time");
    builder.set_not_after(&Asn1Time::days_from_now(2).expect("soon")).expect("a time");
    builder.set_pubkey(&key).expect("a key");
    let context = builder.x509v3_context(None, None);
    let names = SubjectAlternativeName::new().dns("localhost").build(&context).expect("names");
    builder.append_extension(names).expect("names");
    builder.sign(&key, MessageDigest::sha256()).expect("a signature");
    let pem = |bytes: Vec<u8>| String::from_utf8(bytes).expect("PEM");
    let chain = place.file(&format!("{name}.crt"), &pem(builder.build().to_pem().expect("PEM")));
    let text = pem(key.private_key_to_pem_pkcs8().expect("PEM"));
    let private = place.file(&format!("{name}.key"), &text);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&private, own).expect("a mode");
    }
    (chain, private)
}

/// The answer to a request over TLS, or without.
fn over_http(port: u16, roots: Option<&str>, request: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut answer = Vec::new();
    let Some(roots) = roots else {
        socket.write_all(request.as_bytes()).expect("it reads");
        socket.read_to_end(&mut answer).expect("it answers");
        return String::from_utf8_lossy(&answer).into_owned();
    };
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_ca_file(roots).expect("roots");
    let mut stream = builder.build().connect("localhost", socket).expect("a handshake");
    stream.write_all(request.as_bytes()).expect("it reads");
    // The end may come without a word of TLS.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Would find a console whose cookies travel in the clear, figures that a Prometheus without TLS
/// does not get any more, and a client in the middle of a handshake that keeps others waiting.
#[test]
fn the_console_is_there_over_tls_and_figures_without_it() {
    let place = Place::new("console");
    let (chain, key) = certificate(&place, "server");
    let password = place.file("password", PASSWORD);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let http = format!("127.0.0.1:{port}");
    let words = ["--authenticate", "--password-file", &password, "--http", &http];
    let _server = Server::start(&[&words[..], &["--tls-cert", &chain, "--tls-key", &key]].concat());
    let mut silent = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    silent.write_all(&[0x16, 3, 1]).expect("the beginning of a handshake");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let page = over_http(port, Some(&chain), &get("/"));
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("main.js"), "{page}");
    for roots in [None, Some(chain.as_str())] {
        let figures = over_http(port, roots, &get("/metrics"));
        assert!(figures.contains("headwater_epochs_total"), "{figures}");
    }
    let body = format!(r#"{{"user": "headwater", "password": "{PASSWORD}"}}"#);
    let length = body.len();
    let sign_in = format!(
        "POST /api/sign-in HTTP/1.1\r\nHost: x\r\nX-Headwater: act\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let answer = over_http(port, Some(&chain), &sign_in);
    assert!(answer.contains("HttpOnly; SameSite=Strict; Secure\r\n"), "{answer}");
    let answer = over_http(port, None, &sign_in);
    assert!(answer.contains("HttpOnly; SameSite=Strict\r\n"), "{answer}");
}

/// A session that trusts a certificate and wants the name `localhost` in it.
async fn verified(server: &Server, roots: &str, more: &str) -> Result<String, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_ca_file(roots).expect("roots");
    let port = server.port;
    let config = format!(
        "host=localhost port={port} user=headwater dbname=d password={PASSWORD} \
         sslmode=require {more}"
    );
    let connector = MakeTlsConnector::new(builder.build());
    let connected = tokio_postgres::connect(&config, connector).await;
    let (client, connection) = connected.map_err(|error| format!("{error:?}"))?;
    tokio::spawn(connection);
    // More than a record, so that pieces of it wait for each other.
    let rows = client.query("SELECT repeat('ab', 40000)", &[]).await.expect("rows");
    Ok(rows.first().map_or_else(String::new, |row| row.get(0)))
}

#[test]
fn clients_see_the_certificate_and_logins_are_bound_to_it() {
    let place = Place::new("tls");
    let (chain, key) = certificate(&place, "own");
    let (other, _) = certificate(&place, "other");
    let file = place.file("password", PASSWORD);
    let tls = ["--tls-cert", &chain, "--tls-key", &key, "--tls-required"];
    let arguments = [&tls[..], &["--authenticate", "--password-file", &file]].concat();
    let server = Server::start(&arguments);
    runtime().block_on(async {
        let long = verified(&server, &chain, "channel_binding=require").await.expect("a session");
        assert_eq!(long, "ab".repeat(40_000));
        verified(&server, &chain, "channel_binding=disable").await.expect("a session");
        let error = verified(&server, &other, "").await.expect_err("nobody has signed it");
        assert!(error.contains("certificate verify failed"), "{error}");
        let Err(error) = log_in(&server, "headwater", PASSWORD).await else {
            panic!("somebody came without encryption");
        };
        assert_eq!(code(&error), "28000");
        assert!(format!("{error:?}").contains("only encrypted connections"), "{error:?}");
    });
}

#[test]
fn a_certificate_is_read_again_and_one_that_is_none_changes_nothing() {
    let place = Place::new("again");
    let (chain, key) = certificate(&place, "own");
    let (next, next_key) = certificate(&place, "next");
    let file = place.file("password", PASSWORD);
    let server = Server::start(&[
        "--tls-cert",
        &chain,
        "--tls-key",
        &key,
        "--authenticate",
        "--password-file",
        &file,
    ]);
    let reads = |from: &str, key_from: &str| {
        std::fs::copy(from, &chain).expect("copied");
        std::fs::copy(key_from, &key).expect("copied");
        server.signal("-HUP");
        std::thread::sleep(Duration::from_millis(500));
    };
    let runtime = runtime();
    let roots = place.path("old.crt");
    std::fs::copy(&chain, &roots).expect("copied");
    runtime.block_on(verified(&server, &roots, "")).expect("the first one");
    reads(&next, &next_key);
    runtime.block_on(verified(&server, &next, "")).expect("the next one");
    runtime.block_on(verified(&server, &roots, "")).expect_err("the first one is gone");
    let junk = place.file("junk", "no certificate");
    reads(&junk, &next_key);
    runtime.block_on(verified(&server, &next, "")).expect("the next one is there still");
}

#[test]
fn nothing_that_comes_before_the_handshake_counts_behind_it() {
    let place = Place::new("stuffed");
    let (chain, key) = certificate(&place, "own");
    let server = Server::start(&["--tls-cert", &chain, "--tls-key", &key]);
    let request: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
    let stuffed = [request, &startup("headwater")].concat();
    let said = answer(server.port, &stuffed);
    assert!(said.windows(16).any(|w| w == b"unencrypted data"), "{said:?}");
    // A handshake that is none, and one that is never finished.
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket.write_all(request).expect("sent");
    let mut yes = [0];
    socket.read_exact(&mut yes).expect("an answer");
    assert_eq!(&yes, b"S");
    let began = Instant::now();
    drop(socket.read(&mut yes));
    let waited = began.elapsed();
    assert!((8..15).contains(&waited.as_secs()), "{waited:?}");
    runtime().block_on(verified(&server, &chain, "")).expect("it goes on");
}
