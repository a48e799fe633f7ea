//! TLS by the OpenSSL that Kafka's client uses, as libpq's `sslmode` says.

use tokio_postgres::config::SslMode;

use crate::error::{Error, Result, sqlstate};

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Never.
    Disable,
    /// Where the server has it.
    Prefer,
    /// Always, whoever the server is; with `sslrootcert` as the next.
    Require,
    /// With a certificate that is to be trusted.
    VerifyCa,
    /// With one of that host.
    VerifyFull,
}

impl Mode {
    /// What the client is told.
    pub(super) fn of_client(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

#[cfg(feature = "ssl")]
pub(super) type Tls = postgres_openssl::MakeTlsConnector;

#[cfg(not(feature = "ssl"))]
pub(super) type Tls = tokio_postgres::NoTls;

/// What makes connections secure.
#[cfg(feature = "ssl")]
pub(super) fn connector(mode: Mode, roots: Option<&str>) -> Result<Tls> {
    use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

    let failed = |e: openssl::error::ErrorStack| {
        Error::external(sqlstate::CONNECTION_EXCEPTION, format!("could not set up TLS: {e}"))
    };
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed)?;
    if let Some(path) = roots {
        let unreadable = |why: String| {
            let message = format!("could not read certificates from \"{path}\": {why}");
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
                .with_hint("Check the option sslrootcert: it is a path on the server, of PEM.")
        };
        // OpenSSL does not say why.
        std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
        builder.set_ca_file(path).map_err(|e| unreadable(first(&e)))?;
    }
    let verify_ca = mode == Mode::VerifyCa || (mode == Mode::Require && roots.is_some());
    if !verify_ca && mode != Mode::VerifyFull {
        builder.set_verify(SslVerifyMode::NONE);
    }
    let mut tls = Tls::new(builder.build());
    if mode != Mode::VerifyFull {
        tls.set_callback(|connection, _| {
            connection.set_verify_hostname(false);
            Ok(())
        });
    }
    Ok(tls)
}

/// The first of the reasons, without places in OpenSSL's sources.
#[cfg(feature = "ssl")]
fn first(errors: &openssl::error::ErrorStack) -> String {
    let reason = errors.errors().first().and_then(openssl::error::Error::reason);
    reason.unwrap_or("there are none").to_owned()
}

/// What makes connections secure: nothing in this build.
#[cfg(not(feature = "ssl"))]
pub(super) fn connector(mode: Mode, _roots: Option<&str>) -> Result<Tls> {
    match mode {
        Mode::Disable | Mode::Prefer => Ok(tokio_postgres::NoTls),
        _ => Err(Error::unsupported("this program was built without TLS")
            .with_hint("Build it with --features ssl, or use sslmode = 'disable'.")),
    }
}
