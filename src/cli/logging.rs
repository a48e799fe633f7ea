//! What the program notes while it runs, on standard error: lines for people, or JSON for what
//! collects logs. `RUST_LOG` says what is noted: `warn` unless it says something else, `info`,
//! `headwater=debug`, `headwater::runtime=trace,warn`, ..

use std::io;

use tracing_subscriber::EnvFilter;

/// The form of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `fields` with the `message`.
    Json,
}

/// Notes what comes from now on.
pub(crate) fn begin(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Text => lines.init(),
        Format::Json => lines.json().init(),
    }
}
