//! Follows a path through a document, as PostgreSQL does: items come one after another, so that
//! those ahead of an error are there. An item is a piece of the document's canonical text.

use std::borrow::Cow;

use super::ast::{Comparison, Method, Node, Path, Step};
use super::number;
use crate::delta::jsonb;
use crate::delta::jsonb_order::order_bytes;

pub(super) type Item<'a> = Cow<'a, str>;

/// What keeps a path from its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) sqlstate: &'static str,
    pub(super) message: String,
    /// Whether who asks not to be told is not told.
    pub(super) can_be_silent: bool,
}

pub(super) fn fault(sqlstate: &'static str, message: impl Into<String>) -> Fault {
    Fault { sqlstate, message: message.into(), can_be_silent: true }
}

type Followed = Result<(), Fault>;

/// Appends the items that a path leads to, those ahead of an error included.
pub(super) fn follow<'a>(
    path: &'a Path,
    document: &'a str,
    variables: Option<&'a str>,
    out: &mut Vec<Item<'a>>,
) -> Followed {
    let at = At { current: document, ignoring: path.lax, length: None };
    Walk { lax: path.lax, root: document, variables }.node(&path.root, at, out)
}

struct Walk<'a> {
    lax: bool,
    root: &'a str,
    /// `None` where every variable is NULL.
    variables: Option<&'a str>,
}

/// Where a walk is.
#[derive(Clone, Copy)]
struct At<'i> {
    /// The item of `@`.
    current: &'i str,
    /// Whether what is not there is passed by.
    ignoring: bool,
    /// The length of the array of `last`.
    length: Option<usize>,
}

/// The answer of a predicate; `None` for unknown.
type Truth = Option<bool>;

fn owned<'a>(item: &str) -> Item<'a> {
    Cow::Owned(item.to_owned())
}

impl<'a> Walk<'a> {
    /// Appends what a node stands for.
    fn node<'o>(&self, node: &Node, at: At<'_>, out: &mut Vec<Item<'o>>) -> Followed {
        match node {
            Node::Root => out.push(owned(self.root)),
            Node::Current => out.push(owned(at.current)),
            Node::Last => {
                let last = at.length.unwrap_or_default() as i64 - 1;
                out.push(Cow::Owned(last.to_string()));
            }
            Node::Literal(json) => out.push(owned(json)),
            Node::Variable(name) => out.push(self.variable(name)?),
            // Most paths: nothing is copied but what they lead to.
            Node::Steps(from, steps) if matches!(from.as_ref(), Node::Root) => {
                self.steps(self.root, steps, at, out)?;
            }
            Node::Steps(from, steps) if matches!(from.as_ref(), Node::Current) => {
                self.steps(at.current, steps, at, out)?;
            }
            Node::Steps(from, steps) => {
                let mut items = Vec::new();
                let known = self.node(from, at, &mut items);
                for item in items {
                    self.steps(&item, steps, at, out)?;
                }
                known?;
            }
            Node::Unary(sign, of) => {
                let mut items = Vec::new();
                let known = self.unwrapped(of, at, &mut items);
                for item in items {
                    let value = number::signed(*sign, &item).ok_or_else(|| not_numeric(*sign))?;
                    out.push(Cow::Owned(value));
                }
                known?;
            }
            Node::Binary(sign, left, right) => {
                let (mut one, mut other) = (Vec::new(), Vec::new());
                self.unwrapped(left, at, &mut one)?;
                self.unwrapped(right, at, &mut other)?;
                let one = single_number(&one, ("left", *sign))?;
                let other = single_number(&other, ("right", *sign))?;
                out.push(Cow::Owned(number::computed(*sign, one, other)?));
            }
            predicate => {
                let truth = self.truth(predicate, at)?;
                let json = match truth {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "null",
                };
                out.push(Cow::Borrowed(json));
            }
        }
        Ok(())
    }

    fn variable<'o>(&self, name: &str) -> Result<Item<'o>, Fault> {
        let Some(variables) = self.variables else { return Ok(Cow::Borrowed("null")) };
        let found = jsonb::member(variables, name).ok_or_else(|| Fault {
            can_be_silent: false,
            ..fault("42704", format!("could not find jsonpath variable \"{name}\""))
        });
        Ok(owned(found?))
    }

    /// The items of an operand; the elements of arrays in their place where it is lax.
    fn unwrapped<'o>(&self, node: &Node, at: At<'_>, out: &mut Vec<Item<'o>>) -> Followed {
        if !self.lax {
            return self.node(node, at, out);
        }
        let mut items = Vec::new();
        let known = self.node(node, at, &mut items);
        for item in items {
            match jsonb::kind(&item) {
                "array" => out.extend(jsonb::elements(&item).map(owned)),
                _ => out.push(item),
            }
        }
        known
    }

    /// Appends what the steps from an item lead to.
    fn steps<'o>(
        &self,
        item: &str,
        steps: &[Step],
        at: At<'_>,
        out: &mut Vec<Item<'o>>,
    ) -> Followed {
        let Some((step, rest)) = steps.split_first() else {
            out.push(owned(item));
            return Ok(());
        };
        if self.lax && unwraps(step) && jsonb::kind(item) == "array" {
            return jsonb::elements(item).try_for_each(|e| self.step(e, step, rest, at, out));
        }
        self.step(item, step, rest, at, out)
    }

    fn step<'o>(
        &self,
        item: &str,
        step: &Step,
        rest: &[Step],
        at: At<'_>,
        out: &mut Vec<Item<'o>>,
    ) -> Followed {
        let kind = jsonb::kind(item);
        match step {
            Step::Member(name) if kind == "object" => match jsonb::member(item, name) {
                Some(value) => self.steps(value, rest, at, out),
                None => {
                    missing(at, "2203A", || format!("JSON object does not contain key \"{name}\""))
                }
            },
            Step::Member(_) => missing(at, "2203A", || {
                "jsonpath member accessor can only be applied to an object".to_owned()
            }),
            Step::AnyMember if kind == "object" => {
                jsonb::members(item).try_for_each(|(_, value)| self.steps(value, rest, at, out))
            }
            Step::AnyMember => missing(at, "2203C", || {
                "jsonpath wildcard member accessor can only be applied to an object".to_owned()
            }),
            Step::Below(first, last) => {
                let at = At { ignoring: true, ..at };
                let wanted = |level: usize, item: &str| match (first, last) {
                    (None, _) => !matches!(jsonb::kind(item), "array" | "object"),
                    (Some(first), last) => level >= *first && last.is_none_or(|last| level <= last),
                };
                let deepest = last.unwrap_or(usize::MAX);
                self.below((item, 0), deepest, &wanted, &mut |item| self.steps(item, rest, at, out))
            }
            Step::AnyElement if kind == "array" => {
                jsonb::elements(item).try_for_each(|e| self.steps(e, rest, at, out))
            }
            Step::AnyElement if self.lax => self.steps(item, rest, at, out),
            Step::AnyElement => missing(at, "22039", || {
                "jsonpath wildcard array accessor can only be applied to an array".to_owned()
            }),
            Step::Elements(places) if kind == "array" || self.lax => {
                let elements = match kind {
                    "array" => jsonb::elements(item).collect(),
                    _ => vec![item],
                };
                self.elements(&elements, (item, places), rest, at, out)
            }
            Step::Elements(_) => missing(at, "22039", || {
                "jsonpath array accessor can only be applied to an array".to_owned()
            }),
            Step::Filter(predicate) => match self.truth(predicate, At { current: item, ..at })? {
                Some(true) => self.steps(item, rest, at, out),
                _ => Ok(()),
            },
            Step::Method(method) => {
                let mut found = Vec::new();
                let known = self.method(item, *method, at, &mut found);
                found.iter().try_for_each(|item| self.steps(item, rest, at, out))?;
                known
            }
        }
    }

    /// Visits an item and what is below it, each ahead of its own.
    fn below(
        &self,
        (item, level): (&str, usize),
        deepest: usize,
        wanted: &dyn Fn(usize, &str) -> bool,
        visit: &mut dyn FnMut(&str) -> Followed,
    ) -> Followed {
        if wanted(level, item) {
            visit(item)?;
        }
        if level >= deepest {
            return Ok(());
        }
        let mut next = |item| self.below((item, level + 1), deepest, wanted, visit);
        jsonb::members(item).try_for_each(|(_, value)| next(value))?;
        jsonb::elements(item).try_for_each(next)
    }

    fn elements<'o>(
        &self,
        elements: &[&str],
        (item, places): (&str, &[(Node, Option<Node>)]),
        rest: &[Step],
        at: At<'_>,
        out: &mut Vec<Item<'o>>,
    ) -> Followed {
        let inside = At { current: item, length: Some(elements.len()), ..at };
        let index = |node: &Node| -> Result<i64, Fault> {
            let mut found = Vec::new();
            self.node(node, inside, &mut found)?;
            let number = match found.as_slice() {
                [number] if jsonb::kind(number) == "number" => number,
                _ => {
                    let message = "jsonpath array subscript is not a single numeric value";
                    return Err(fault("22033", message));
                }
            };
            let out_of_range = "jsonpath array subscript is out of integer range";
            number::truncated(number).ok_or_else(|| fault("22033", out_of_range))
        };
        for (first, last) in places {
            let from = index(first)?;
            let to = last.as_ref().map_or(Ok(from), index)?;
            let length = elements.len() as i64;
            if !at.ignoring && (from < 0 || from > to || to >= length) {
                return Err(fault("22033", "jsonpath array subscript is out of bounds"));
            }
            for place in from.max(0)..=to.min(length - 1) {
                self.steps(elements[place as usize], rest, at, out)?;
            }
        }
        Ok(())
    }

    fn method<'o>(
        &self,
        item: &str,
        method: Method,
        at: At<'_>,
        out: &mut Vec<Item<'o>>,
    ) -> Followed {
        let kind = jsonb::kind(item);
        let name = method.name();
        let found = match method {
            Method::Type => format!("\"{kind}\""),
            Method::Size if kind == "array" => jsonb::elements(item).count().to_string(),
            Method::Size if self.lax => "1".to_owned(),
            Method::Size => {
                return missing(at, "22039", || {
                    "jsonpath item method .size() can only be applied to an array".to_owned()
                });
            }
            Method::Abs | Method::Floor | Method::Ceiling if kind == "number" => {
                number::rounded(name, item)?
            }
            Method::Abs | Method::Floor | Method::Ceiling => {
                let message = "can only be applied to a numeric value";
                return Err(fault("22036", format!("jsonpath item method .{name}() {message}")));
            }
            Method::Double if kind == "number" => number::double(item)?,
            Method::Double if kind == "string" => number::double(&jsonb::unquoted(item))?,
            Method::Double => {
                let message = "can only be applied to a string or numeric value";
                return Err(fault("22036", format!("jsonpath item method .{name}() {message}")));
            }
            Method::KeyValue if kind == "object" => {
                // Where it begins tells objects of one document apart.
                let id = (item.as_ptr() as usize).checked_sub(self.root.as_ptr() as usize);
                let id = id.filter(|id| *id < self.root.len()).unwrap_or_default();
                out.extend(jsonb::members(item).map(|(key, value)| {
                    Cow::Owned(format!("{{\"id\": {id}, \"key\": {key}, \"value\": {value}}}"))
                }));
                return Ok(());
            }
            Method::KeyValue => {
                let message = "can only be applied to an object";
                return Err(fault("2203C", format!("jsonpath item method .{name}() {message}")));
            }
        };
        out.push(Cow::Owned(found));
        Ok(())
    }

    /// What a predicate says of the current item; errors inside of it make it unknown.
    fn truth(&self, node: &Node, at: At<'_>) -> Result<Truth, Fault> {
        Ok(match node {
            Node::And(left, right) => match self.truth(left, at)? {
                Some(false) => Some(false),
                left => match (left, self.truth(right, at)?) {
                    (_, Some(false)) => Some(false),
                    (Some(true), right) => right,
                    _ => None,
                },
            },
            Node::Or(left, right) => match self.truth(left, at)? {
                Some(true) => Some(true),
                left => match (left, self.truth(right, at)?) {
                    (_, Some(true)) => Some(true),
                    (Some(false), right) => right,
                    _ => None,
                },
            },
            Node::Not(of) => self.truth(of, at)?.map(|truth| !truth),
            Node::IsUnknown(of) => Some(self.truth(of, at)?.is_none()),
            Node::Exists(of) => {
                let mut found = Vec::new();
                match told(self.node(of, at, &mut found))? {
                    // The first one is enough, whatever would come behind it.
                    _ if self.lax && !found.is_empty() => Some(true),
                    Some(()) => Some(!found.is_empty()),
                    None => None,
                }
            }
            Node::Compare(comparison, left, right) => {
                let (mut one, mut other) = (Vec::new(), Vec::new());
                if told(self.unwrapped(left, at, &mut one))?.is_none()
                    || told(self.unwrapped(right, at, &mut other))?.is_none()
                {
                    return Ok(None);
                }
                let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
                self.any(pairs.map(|(one, other)| compare(*comparison, one, other)))
            }
            Node::StartsWith(left, initial) => {
                let (mut items, mut initials) = (Vec::new(), Vec::new());
                if told(self.unwrapped(left, at, &mut items))?.is_none()
                    || told(self.node(initial, at, &mut initials))?.is_none()
                {
                    return Ok(None);
                }
                let initial = initials.first().filter(|i| jsonb::kind(i) == "string");
                let initial = initial.map(|initial| jsonb::unquoted(initial));
                self.any(items.iter().map(|item| {
                    let initial = initial.as_deref()?;
                    let text = (jsonb::kind(item) == "string").then(|| jsonb::unquoted(item))?;
                    Some(text.starts_with(initial))
                }))
            }
            Node::LikeRegex(left, pattern) => {
                let mut items = Vec::new();
                if told(self.unwrapped(left, at, &mut items))?.is_none() {
                    return Ok(None);
                }
                self.any(items.iter().map(|item| {
                    let text = (jsonb::kind(item) == "string").then(|| jsonb::unquoted(item))?;
                    Some(pattern.is_match(&text))
                }))
            }
            _ => None,
        })
    }

    /// Whether a predicate holds of one of several items: where it is lax, the first that is known
    /// to decides, else all have to be known.
    fn any(&self, mut each: impl Iterator<Item = Truth>) -> Truth {
        let (mut found, mut unknown) = (false, false);
        let stop = each.find_map(|truth| {
            found |= truth == Some(true);
            unknown |= truth.is_none();
            match truth {
                None if !self.lax => Some(None),
                Some(true) if self.lax => Some(Some(true)),
                _ => None,
            }
        });
        match stop {
            Some(truth) => truth,
            None if found => Some(true),
            None if unknown => None,
            None => Some(false),
        }
    }
}

fn not_numeric(sign: char) -> Fault {
    let message = format!("operand of unary jsonpath operator {sign} is not a numeric value");
    fault("2203B", message)
}

fn single_number<'i>(items: &'i [Item<'_>], (side, sign): (&str, char)) -> Result<&'i str, Fault> {
    match items {
        [item] if jsonb::kind(item) == "number" => Ok(item),
        _ => Err(fault(
            "22038",
            format!("{side} operand of jsonpath operator {sign} is not a single numeric value"),
        )),
    }
}

/// Nothing for an error that makes a predicate unknown.
fn told(followed: Followed) -> Result<Option<()>, Fault> {
    match followed {
        Ok(()) => Ok(Some(())),
        Err(fault) if fault.can_be_silent => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Steps that are asked of the elements of an array where it is lax.
fn unwraps(step: &Step) -> bool {
    match step {
        Step::Member(_) | Step::AnyMember | Step::Filter(_) => true,
        Step::Method(method) => !matches!(method, Method::Type | Method::Size),
        Step::Below(..) | Step::Elements(_) | Step::AnyElement => false,
    }
}

fn missing(at: At<'_>, sqlstate: &'static str, message: impl Fn() -> String) -> Followed {
    if at.ignoring { Ok(()) } else { Err(fault(sqlstate, message())) }
}

fn compare(comparison: Comparison, one: &str, other: &str) -> Truth {
    let kinds = (jsonb::kind(one), jsonb::kind(other));
    if kinds.0 != kinds.1 {
        let null = kinds.0 == "null" || kinds.1 == "null";
        return null.then_some(comparison == Comparison::NotEqual);
    }
    let order = match kinds.0 {
        "null" => std::cmp::Ordering::Equal,
        "boolean" => (one == "true").cmp(&(other == "true")),
        "number" => order_bytes(one).cmp(&order_bytes(other)),
        "string" => jsonb::unquoted(one).cmp(&jsonb::unquoted(other)),
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}
