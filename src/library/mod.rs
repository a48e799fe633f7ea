//! The functions of SQL: one entry for each, the only place that knows it by its name.
//!
//! | table | an entry says |
//! |---|---|
//! | [`AGGREGATES`] | its incremental and batch form; what DISTINCT, order, retraction do to it |
//! | [`WINDOWS`] | its arguments and type; which rows are peers to it, and at which it looks |
//! | [`SCALARS`] | where its body is; what its results cost |
//!
//! Who binds, optimises, lowers or runs a call asks the entry and compares no names. Bodies are
//! below: `expr` has the batch forms and the scalar functions (a family is a list of signatures
//! with bodies, and such a function needs an entry here only where there is more to say),
//! `aggregate` the incremental ones.

mod aggregate;
mod scalar;
mod window;

pub use aggregate::{
    AGGREGATES, AggregateFunction, Batch, Distinct, Incremental, Order, Pane, aggregate,
    incremental,
};
pub use scalar::{Form, SCALARS, ScalarFunction, Trait, has_trait, is_unifying};
pub use window::{Looks, Peers, WINDOWS, WindowFunction, window};

/// A name as the text of an entry that can be looked up by several.
fn is_named(name: &str, own: &str, aliases: &[&str]) -> bool {
    own == name || aliases.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Functions

What there is to know of aggregates and window functions: the entries of `src/library/`, with
which a test compares this page. Scalar functions are PostgreSQL's; what of them is ours are the
families of `src/expr/function/`.

*By a state*: a view takes rows in and out of it, whatever the size of the group. *By its rows*: a
view keeps the rows of the group, and computes a group anew that changes.
";

    fn form(function: &AggregateFunction) -> &'static str {
        match function.incremental {
            Incremental::State(_) => "by a state",
            Incremental::StateOrRows(_) => "by a state, else by its rows",
            Incremental::Rows => "by its rows",
            Incremental::None => "not in views",
        }
    }

    fn distinct(function: &AggregateFunction) -> &'static str {
        match (&function.incremental, function.distinct) {
            (Incremental::None, _) => "",
            (_, Distinct::Blind) => "changes nothing",
            (_, Distinct::Ahead) => "told apart ahead of the state",
            (Incremental::State(_), Distinct::Rows) => "refused",
            (_, Distinct::Rows) => "each value once, of its rows",
        }
    }

    fn page() -> String {
        let mut page = format!(
            "{HEAD}\n## Aggregates\n\n\
             | name | in views | DISTINCT | order of rows | a row that goes |\n\
             |---|---|---|---|---|\n"
        );
        for function in AGGREGATES {
            let names = [&function.name].into_iter().chain(function.aliases);
            let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            let order = match function.order {
                Order::Blind => "means nothing",
                Order::Chooses => "chooses the row",
                Order::Lists => "is that of the list",
            };
            let error = function.error.map(|e| format!("; {e}")).unwrap_or_default();
            let (form, distinct) = (form(function), distinct(function));
            page.push_str(&format!(
                "| {} | {form}{error} | {distinct} | {order} | {} |\n",
                names.join(", "),
                function.retraction
            ));
        }
        page.push_str("\n## Window functions\n\n| name | arguments | peers |\n|---|---|---|\n");
        for function in WINDOWS {
            let (least, most) = (function.arguments.start(), function.arguments.end());
            let arguments = match least == most {
                true => least.to_string(),
                false => format!("{least} to {most}"),
            };
            let peers = match function.peers {
                Peers::Equal => "have one value",
                Peers::Apart => "are told apart by the whole row",
                Peers::OfFrame => "are told apart where the frame is of rows",
            };
            page.push_str(&format!("| `{}` | {arguments} | {peers} |\n", function.name));
        }
        page
    }

    /// The page that it should be is in the message's file.
    #[test]
    fn the_documentation_has_the_library() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/functions.md");
        if std::fs::read_to_string(kept).unwrap_or_default() != page() {
            let path = std::env::temp_dir().join("functions.md");
            std::fs::write(&path, page()).expect("a directory for temporary files");
            panic!("docs/functions.md is not the library: it should be as {}", path.display());
        }
    }
}
