//! Where a directory in an object store is: its URL, and what the environment says of the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use crate::error::{Error, Result, sqlstate};

const SCHEMES: [&str; 6] = ["s3", "s3a", "gs", "az", "abfs", "abfss"];

/// Whether a data directory is one in an object store.
pub fn is_url(path: &Path) -> bool {
    path.to_str().and_then(|text| text.split_once(":/")).is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// The store of a URL, and the prefix of the directory's objects.
///
/// # Errors
///
/// 22023 when it names none.
pub(super) fn open(path: &Path) -> Result<(Arc<dyn ObjectStore>, Key)> {
    let url = path.to_string_lossy();
    let (scheme, rest) = url.split_once("://").ok_or_else(|| unknown(&url))?;
    let key = rest.split_once('/').map_or("", |(_, key)| key);
    let prefix = Key::parse(key.trim_matches('/')).map_err(|e| refused(&url, &e.to_string()))?;
    // What it asks for is asked again by whoever has asked.
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 5,
        retry_timeout: Duration::from_secs(30),
    };
    let url = url.as_ref();
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.build().map_err(|e| refused(url, &e.to_string()))?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.build().map_err(|e| refused(url, &e.to_string()))?)
        }
        "az" | "abfs" | "abfss" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.build().map_err(|e| refused(url, &e.to_string()))?)
        }
        _ => return Err(unknown(url)),
    };
    Ok((store, prefix))
}

fn unknown(url: &str) -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("\"{url}\" is not a data directory that this program knows"),
    )
    .with_hint(format!(
        "Name a directory, or a URL such as s3://bucket/prefix; known are {}.",
        SCHEMES.map(|scheme| format!("{scheme}://")).join(", ")
    ))
}

fn refused(url: &str, reason: &str) -> Error {
    Error::user(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("the object store of \"{url}\" can't be used: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_directories() {
        let url = |text: &str| is_url(Path::new(text));
        assert!(url("s3://bucket/prefix") && url("gs://b") && url("http://x/y"));
        assert!(!url("/data") && !url("data") && !url("./s3:/x") && !url("a b://c"));
        let error = open(Path::new("ftp://a/b")).expect_err("no such store");
        assert!(error.to_string().contains("ftp://a/b"), "{error}");
    }
}
