//! The files of the page, as the program has them. A browser asks again each time whether one has
//! changed, by its hash, so that a new program is never shown with an old page.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:ident),+ $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("page/", $name)))),+]
    };
}

/// Name, type and text of each.
const FILES: &[(&str, &str, &str)] = files! {
    "index.html": HTML,
    "style.css": CSS,
    "parts.css": CSS,
    "mark.svg": SVG,
    "act.js": JS,
    "api.js": JS,
    "chart.js": JS,
    "checkpoints.js": JS,
    "dom.js": JS,
    "editor.js": JS,
    "events.js": JS,
    "format.js": JS,
    "graph.js": JS,
    "live.js": JS,
    "main.js": JS,
    "overview.js": JS,
    "poll.js": JS,
    "result.js": JS,
    "roles.js": JS,
    "sign_in.js": JS,
    "sinks.js": JS,
    "sources.js": JS,
    "sql.js": JS,
    "table.js": JS,
    "theme.js": JS,
    "view.js": JS,
    "views.js": JS,
    "words.js": JS,
};

/// `GET /`.
pub(super) async fn page(headers: HeaderMap) -> Response {
    file("index.html", &headers)
}

/// `GET /console/{name}`.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&name, &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    let tag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
    let about = [(CACHE_CONTROL, "no-cache"), (ETAG, tag.as_str())];
    if headers.get(IF_NONE_MATCH).is_some_and(|had| had.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(CONTENT_TYPE, *kind)], *text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is embedded, in bytes: part of what everybody downloads.
    const BYTES_MAX: usize = 300_000;

    #[test]
    fn what_modules_import_is_there_and_all_of_it_is_small() {
        let names: Vec<&str> = FILES.iter().map(|(name, ..)| *name).collect();
        for (name, _, text) in FILES {
            for (_, rest) in
                text.match_indices(" from \"./").map(|(at, m)| text.split_at(at + m.len()))
            {
                let imported = rest.split('"').next().unwrap_or_default();
                assert!(names.contains(&imported), "{name} imports {imported}");
            }
            assert!(
                !text.contains("://") || *name == "mark.svg" || text.contains("w3.org"),
                "{name}"
            );
            assert!(!text.contains("innerHTML"), "{name} makes HTML of text");
        }
        assert!(FILES.iter().map(|(.., text)| text.len()).sum::<usize>() < BYTES_MAX);
    }
}
