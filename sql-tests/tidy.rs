//! Tidy: what the repository asks of its own sources and no compiler checks. One test per rule; a
//! failure lists `file:line`.
//!
//! The tables in front are the rules' constants. An exception is an entry with a reason, and one
//! that nothing needs any more is a failure too, so the lists cannot rot. Rules about code look at
//! a text in which comments and the insides of literals are blank: a doc comment may name what code
//! may not. Test code (files `tests.rs` and `testing.rs`, and from `#[cfg(test)] mod tests {` to
//! the end of a file, where house style puts it) is free of the rules about imports and sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The layer of every module of `src/`. Code imports from strictly lower layers and from its own
/// module; `lib.rs` and `main.rs` stand above all of them.
const LAYERS: &[(&str, u8)] = &[
    ("error", 0),
    ("config", 0),
    ("cancel", 1),
    ("delta", 2),
    ("time", 2),
    ("expr", 3),
    ("state", 3),
    ("store", 3),
    // A text means in a message what it means in a statement.
    ("format", 4),
    ("aggregate", 4),
    // What is known of a function, on top of its bodies.
    ("library", 5),
    ("connector", 5),
    ("checkpoint", 5),
    ("operator", 6),
    // A definition holds its connector's options.
    ("catalog", 6),
    ("sql", 7),
    // Plans are lowered from what `sql` has bound.
    ("plan", 8),
    ("runtime", 9),
    ("engine", 10),
    ("server", 11),
    // The demo serves PostgreSQL clients beside its screen.
    ("shell", 12),
    ("cli", 13),
];

/// Words that the code of a folder must not contain, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("src/delta/", &["datafusion"], "deltas are below the batch half"),
    ("src/time/", &["datafusion"], "time is below the batch half"),
    ("src/operator/", &["tokio", "rdkafka"], "an operator is synchronous and knows no connector"),
    ("src/operator/", &["std::time", "Instant", "SystemTime"], "time comes as an argument"),
    ("src/format/", &["rdkafka", "connector"], "a format knows no connector"),
    ("", &["todo!", "unimplemented!", "dbg!"], "what is unfinished is an error or not there"),
    ("", &["#[ignore"], "a test that does not run is none"),
];

/// The files with `unsafe`, which state why it is sound.
const UNSAFE: &[&str] = &["src/connector/kafka/consume.rs", "src/connector/kafka/topic_id.rs"];

/// Walks over trees that libraries compile anew for every type or closure that they are handed: the
/// one file that hands them an object, and the names by which they are reached.
const WALKS: &[(&str, &[&str])] = &[
    (
        "src/sql/visit.rs",
        &[
            "Visitor",
            "VisitorMut",
            "visit_expressions",
            "visit_expressions_mut",
            "visit_relations",
            "visit_relations_mut",
            "visit_statements",
            "visit_statements_mut",
        ],
    ),
    (
        "src/expr/walk.rs",
        &[
            "TreeNode",
            "TreeNodeVisitor",
            ".apply_expressions",
            ".apply_subqueries",
            ".apply_with_subqueries",
            ".map_expressions",
            ".map_subqueries",
            ".transform_down_with_subqueries",
            ".transform_up_with_subqueries",
            ".transform_with_subqueries",
        ],
    ),
];

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Files with lines wider than [`COLUMNS_MAX`]: nearly all are comments, which `cargo fmt` leaves
/// as they are. They are to be wrapped when the file is next touched, and the file taken off here.
const WIDE_FILES: &[&str] = &[];

/// Functions longer than [`FUNCTION_LINES_MAX`]: file, name, reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// A source file with its two texts.
struct Source {
    /// Its path from the root, with slashes.
    path: String,
    /// As it is.
    text: String,
    /// With comments and the insides of literals blank; lines and columns stay.
    code: String,
    /// The number of lines in front of its tests.
    lines: usize,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).expect("a source file is readable UTF-8");
        let path = file.strip_prefix(root).expect("files are found below the root");
        let path = path.to_str().expect("our file names are ASCII").replace('\\', "/");
        let code = blank(&text);
        let name = path.rsplit('/').next().unwrap_or_default();
        let lines = match name {
            "tests.rs" | "testing.rs" => 0,
            _ => lines_before_tests(&code),
        };
        Self { path, text, code, lines }
    }

    /// The code in front of the tests, as `(line number, line)`.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().take(self.lines).enumerate().map(|(i, line)| (i + 1, line))
    }

    /// The top module that a file of `src/` belongs to; `None` for the crate's roots and others.
    fn module(&self) -> Option<&str> {
        let module = self.path.strip_prefix("src/")?.split(['/', '.']).next()?;
        (!matches!(module, "lib" | "main")).then_some(module)
    }

    fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }
}

fn lines_before_tests(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let tests = lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1] == "mod tests {");
    tests.unwrap_or(lines.len())
}

/// All Rust files of the crate, read once.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_sources);
    &SOURCES
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "sql-tests", "benches", "examples"] {
        find(&root.join(folder), &mut files);
    }
    files.sort();
    assert!(files.len() > 100, "the sources were not found below {}", root.display());
    files.iter().map(|file| Source::read(root, file)).collect()
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Blanks comments and the insides of string and character literals.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Whether the character before could belong to a name: `br"` begins a literal, `for"` does not.
    let mut in_word = false;
    while let Some(c) = rest.chars().next() {
        let literal = if in_word { None } else { raw_string(rest) };
        let length = literal.unwrap_or_else(|| match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            '\'' if is_char(rest) => quoted(rest, '\''),
            _ => 0,
        });
        if length == 0 {
            out.push(c);
            in_word = c.is_alphanumeric() || c == '_';
            rest = &rest[c.len_utf8()..];
            continue;
        }
        out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        in_word = false;
        rest = &rest[length..];
    }
    out
}

/// The length of a raw string at the beginning of a text.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + length)
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let step = &text.as_bytes()[at..];
        match step {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a literal with escapes, quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Whether a quote begins a character and not a lifetime.
fn is_char(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    matches!((after.next(), after.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

/// Whether code contains `word` and not only a longer name with it inside.
fn mentions(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let open = !word.starts_with(is_name) || !line[..at].ends_with(is_name);
        let closed = !word.ends_with(is_name) || !line[at + word.len()..].starts_with(is_name);
        open && closed
    })
}

fn assert_none(failures: &[String], rule: &str) {
    assert!(failures.is_empty(), "{rule}:\n  {}\n", failures.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().iter().filter(|s| !s.text.starts_with("//! "));
    let failures: Vec<String> = silent.map(|s| format!("{}:1", s.path)).collect();
    assert_none(&failures, "a file begins with `//!` and what it is");
}

/// The pages that a reader of the project is led through.
#[test]
fn links_of_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("SECURITY.md")];
    for folder in ["docs", "benches", "examples/observability"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder").flatten();
        pages.extend(entries.map(|e| e.path()).filter(|p| p.extension() == Some("md".as_ref())));
    }
    let (mut failures, mut links) = (Vec::new(), 0);
    for page in &pages {
        let text = std::fs::read_to_string(page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.contains("://") {
                continue;
            }
            links += 1;
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap_or(root).join(path),
            };
            let there = match anchor {
                "" => target.exists(),
                anchor => std::fs::read_to_string(&target).is_ok_and(|t| has_heading(&t, anchor)),
            };
            if !there {
                failures.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links > 40, "there are links: {links}");
    assert_none(&failures, "a link leads to what there is");
}

/// Whether a page has a heading of this anchor, as those who show Markdown make it.
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|l| l.starts_with('#'));
    let mut anchors = headings.map(|heading| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    });
    anchors.any(|found| found == anchor)
}

#[test]
fn lines_fit() {
    let mut failures = Vec::new();
    for source in sources() {
        let wide = source.text.lines().enumerate().filter(|(_, l)| l.chars().count() > COLUMNS_MAX);
        let wide: Vec<usize> = wide.map(|(i, _)| i + 1).collect();
        let excused = WIDE_FILES.contains(&source.path.as_str());
        if excused && wide.is_empty() {
            failures.push(format!("{}: nothing is wide; take it off WIDE_FILES", source.path));
        }
        if !excused {
            failures.extend(wide.iter().map(|line| format!("{}:{line}", source.path)));
        }
    }
    assert_none(&failures, &format!("a line has at most {COLUMNS_MAX} columns"));
}

#[test]
fn files_are_short() {
    let long = sources().iter().filter(|s| s.in_src() && s.lines > FILE_LINES_MAX);
    let failures: Vec<String> = long.map(|s| format!("{}:{}", s.path, s.lines)).collect();
    assert_none(&failures, &format!("a file has at most {FILE_LINES_MAX} lines without its tests"));
}

#[test]
fn modules_import_from_below() {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        seen.insert(module.to_owned());
        let Some(layer) = layers.get(module) else {
            failures.push(format!("{}:1: module `{module}` is not in LAYERS", source.path));
            continue;
        };
        for (line, code) in source.code_lines() {
            for used in names_after(code, "crate::") {
                let below = used == module || layers.get(used).is_some_and(|l| l < layer);
                if !below {
                    failures.push(format!("{}:{line}: `{module}` uses `{used}`", source.path));
                }
            }
        }
    }
    let gone = layers.keys().filter(|m| !seen.contains(**m));
    failures.extend(gone.map(|m| format!("LAYERS names `{m}`, which is gone")));
    assert_none(&failures, "a module imports from strictly lower layers or from itself");
}

/// The names that follow a path prefix in a line of code; a brace counts as a name, so that one
/// `use` names one module.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let ends = code.match_indices(prefix).map(|(at, _)| &code[at + prefix.len()..]);
    ends.map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end.max(rest.len().min(1))]
    })
    .collect()
}

#[test]
fn folders_do_without() {
    let mut failures = Vec::new();
    for source in sources() {
        for (folder, words, why) in FORBIDDEN {
            if !source.path.starts_with(folder) {
                continue;
            }
            // Where all files are meant, tests are too.
            let lines = if folder.is_empty() { usize::MAX } else { source.lines };
            for (i, code) in source.code.lines().enumerate().take(lines) {
                for word in words.iter().filter(|w| mentions(code, w)) {
                    failures.push(format!("{}:{}: `{word}`: {why}", source.path, i + 1));
                }
            }
        }
    }
    assert_none(&failures, "words that have no place here");
}

#[test]
fn unsafe_is_in_one_place() {
    let mut failures = Vec::new();
    for source in sources().iter().filter(|s| !UNSAFE.contains(&s.path.as_str())) {
        let lines = source.code.lines().enumerate().filter(|(_, l)| mentions(l, "unsafe"));
        failures.extend(lines.map(|(i, _)| format!("{}:{}", source.path, i + 1)));
    }
    assert_none(&failures, &format!("`unsafe` is for {UNSAFE:?}"));
}

#[test]
fn walks_over_trees_are_compiled_once() {
    let mut failures = Vec::new();
    for source in sources().iter().filter(|s| s.in_src()) {
        for (home, names) in WALKS.iter().filter(|(home, _)| source.path != *home) {
            // Tests are compiled with the crate, so they are meant too.
            for (i, code) in source.code.lines().enumerate() {
                for name in names.iter().filter(|n| mentions(code, n)) {
                    failures.push(format!("{}:{}: `{name}` is for {home}", source.path, i + 1));
                }
            }
        }
    }
    for kind in ["impl Visitor for", "impl VisitorMut for"] {
        let count: usize = sources().iter().map(|s| s.code.matches(kind).count()).sum();
        if count != 1 {
            failures.push(format!("`{kind}` is there {count} times"));
        }
    }
    assert_none(&failures, "a walk over a tree goes through one type for each kind");
}

#[test]
fn imports_are_named() {
    let mut failures = Vec::new();
    for source in sources().iter().filter(|s| s.in_src()) {
        let globs = source.code_lines().filter(|(_, l)| {
            let import = l.trim_start();
            let import = import.strip_prefix("pub ").unwrap_or(import);
            import.starts_with("use ") && import.contains("::*") && !import.contains("ast::")
        });
        failures.extend(globs.map(|(line, _)| format!("{}:{line}", source.path)));
    }
    assert_none(&failures, "`use` names what it imports, outside of tests");
}

#[test]
fn allowed_lints_have_reasons() {
    let mut failures = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.code.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if !line.contains("[allow(") && !line.contains("[expect(") {
                continue;
            }
            let attribute = lines[i..].iter().take_while(|l| !l.contains(")]"));
            let attribute = attribute.chain(lines[i..].iter().find(|l| l.contains(")]")));
            if !attribute.into_iter().any(|l| mentions(l, "reason")) {
                failures.push(format!("{}:{}", source.path, i + 1));
            }
        }
    }
    assert_none(&failures, "a lint that is allowed says why");
}

#[test]
fn functions_are_short() {
    let mut failures = String::new();
    let mut excused = BTreeSet::new();
    for source in sources() {
        for function in functions(source) {
            if function.lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let known = LONG_FUNCTIONS
                .iter()
                .position(|(path, name, _)| *path == source.path && *name == function.name);
            match known {
                Some(entry) => drop(excused.insert(entry)),
                None => {
                    let Function { name, line, lines } = function;
                    let _ = writeln!(failures, "  {}:{line}: `{name}`, {lines} lines", source.path);
                }
            }
        }
    }
    for (entry, (path, name, _)) in LONG_FUNCTIONS.iter().enumerate() {
        if !excused.contains(&entry) {
            let _ =
                writeln!(failures, "  {path}: `{name}` is short; remove it from LONG_FUNCTIONS");
        }
    }
    assert!(failures.is_empty(), "a function has at most {FUNCTION_LINES_MAX} lines:\n{failures}");
}

/// A function with a body.
struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

/// The functions in front of a file's tests, found by their braces.
fn functions(source: &Source) -> Vec<Function<'_>> {
    let code = source.code.as_str();
    let mut found = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        line += code[counted..at].matches('\n').count();
        counted = at;
        if line > source.lines {
            break;
        }
        let rest = &code[at + 3..];
        let name = names_after(rest, "").first().copied().unwrap_or_default();
        if let Some(length) = body_end(rest) {
            found.push(Function { name, line, lines: rest[..length].matches('\n').count() + 1 });
        }
    }
    found
}

/// Where the body ends that follows a signature; `None` when a semicolon does.
fn body_end(code: &str) -> Option<usize> {
    let (mut depth, mut in_body) = (0_i32, false);
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return None,
            '{' if depth == 0 => (depth, in_body) = (1, true),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if in_body && depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn the_reader_of_rust_reads_it() {
    for (code, wanted) in [
        (r#"let a = "{ \" unsafe"; // {"#, "let a = ;"),
        ("let b = '{'; let c: &'a str = r#\"\" }\"#;", "let b = ; let c: &'a str = ;"),
        ("/* { /* */ */ x(b'\\'', '\"')", "x( , )"),
    ] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().concat();
        assert_eq!(words(&blank(code)).replace("b,", ","), words(wanted), "{code}");
    }
    assert!(mentions("unsafe {", "unsafe") && !mentions("unsafe_code", "unsafe"));
    assert_eq!(names_after("use crate::delta::x; crate::{a}", "crate::"), ["delta", "{"]);
    assert_eq!(body_end("f(a: [u8; 2]) -> T { if x { y } else { z } } fn"), Some(43));
    assert_eq!(body_end("f(a: [u8; 2]) -> T;"), None);
}
