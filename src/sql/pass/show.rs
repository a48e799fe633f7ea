//! The list as text: what EXPLAIN (PASSES) shows of a statement.

use futures::FutureExt;
use sqlparser::ast;

#[cfg(test)]
use super::LIST;
use super::Use;
use super::trace::{Change, recorded};
use super::{Pass, Step};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::sql::batch::{Provide, physical_plan};
use crate::sql::binder::{Purpose, Settings, bind_query};

/// The plan of a query behind each pass that changes it: from its syntax to the bound plan and, of
/// a read, to the operators that run.
///
/// Operators are planned for one partition, so that the text is the same on every machine.
pub fn explain_passes(
    query: &ast::Query,
    catalog: &Catalog,
    purpose: Purpose,
    settings: &Settings,
    provide: Provide<'_>,
) -> Result<Vec<String>> {
    let settings = Settings { target_partitions: 1, ..settings.clone() };
    let (planned, changes) = recorded(|| -> Result<()> {
        let bound = bind_query(query, catalog, purpose, &settings)?;
        if purpose == Purpose::AdHoc {
            // Nothing in it waits: the rows that it reads are in memory.
            physical_plan(&bound.plan, provide, &settings).now_or_never().transpose()?;
        }
        Ok(())
    });
    planned?;
    let mut lines = Vec::new();
    lines.push("query".to_owned());
    lines.extend(indented(&query.to_string()));
    lines.extend(changes.iter().flat_map(shown));
    Ok(lines)
}

/// A pass, its reason, and what it has made.
fn shown(change: &Change) -> Vec<String> {
    let Change { pass, of, text } = change;
    let of = of.as_ref().map(|name| format!(" of \"{name}\"")).unwrap_or_default();
    let title = format!("{}{of} ({}): {}{}", pass.name, pass.purpose, instead(pass), pass.why);
    std::iter::once(visible(&title)).chain(indented(text)).collect()
}

/// Whose rule it is, where one of ours is in its place.
fn instead(pass: &Pass) -> &'static str {
    match pass.step {
        Step::Logical(Use::Ours(_)) | Step::Physical(Use::Ours(_)) => "ours in its place: ",
        _ => "",
    }
}

fn indented(text: &str) -> Vec<String> {
    text.lines().map(|line| format!("  {}", visible(line))).collect()
}

/// Names of ours have a control character in them, so that no user gives one: it is shown by its
/// picture.
fn visible(text: &str) -> String {
    let picture = |c: char| match c.is_ascii_control() {
        true => char::from_u32(0x2400 + u32::from(c)).unwrap_or('?'),
        false => c,
    };
    text.chars().map(picture).collect()
}

/// The list as a page of the documentation.
#[cfg(test)]
fn page() -> String {
    let mut page = String::from(HEAD);
    let mut before = None;
    for (stage, passes) in LIST {
        if before.replace(*stage) != Some(*stage) {
            page.push_str(&format!(
                "\n## {}\n\n| pass | for | why |\n|---|---|---|\n",
                stage.title()
            ));
        }
        for pass in *passes {
            let why = format!("{}{}", instead(pass), pass.why).replace('|', "\\|");
            page.push_str(&format!("| `{}` | {} | {why} |\n", pass.name, pass.purpose));
        }
    }
    page
}

#[cfg(test)]
const HEAD: &str = "# The passes

What rewrites a statement, in the order in which it runs: views, reads, the queries of `INSERT`,
`UPDATE` and `DELETE`, `DEFAULT`, `CHECK` and statements with parameters go through the same list.
It is `LIST` in `src/sql/pass/list.rs`, and a test compares this page with it. `EXPLAIN (PASSES)
SELECT ..` shows a query behind each pass that changes it, as a read; `EXPLAIN (PASSES) CREATE
MATERIALIZED VIEW v AS ..` and `EXPLAIN (PASSES) v` do so for a view. Rules of DataFusion's analyser
and optimisers have its names; those of the optimiser run in rounds until nothing changes.
";

#[cfg(test)]
mod tests {
    use super::*;

    /// The page that it should be is in the message's file.
    #[test]
    fn the_documentation_has_the_list() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/passes.md");
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        if kept != page() {
            let path = std::env::temp_dir().join("passes.md");
            std::fs::write(&path, page()).expect("a directory for temporary files");
            panic!("docs/passes.md is not the list: it should be as {}", path.display());
        }
    }

    #[test]
    fn names_of_ours_are_visible() {
        assert_eq!(visible("x\u{1}1"), "x\u{2401}1");
    }
}
