//! What a path is read into.

use crate::expr::function::pattern::Pattern;

/// A path: ISO/IEC 9075-2:2023, 9.46.
pub(super) struct Path {
    /// Whether what is not there is passed by, and arrays are unwrapped and wrapped as needed.
    pub(super) lax: bool,
    pub(super) root: Node,
}

/// An expression or a predicate: each can stand for the other in parentheses.
pub(super) enum Node {
    Root,
    Current,
    Last,
    /// A canonical JSON scalar.
    Literal(String),
    Variable(String),
    /// What steps lead to.
    Steps(Box<Node>, Vec<Step>),
    Unary(char, Box<Node>),
    Binary(char, Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    IsUnknown(Box<Node>),
    Exists(Box<Node>),
    StartsWith(Box<Node>, Box<Node>),
    LikeRegex(Box<Node>, Box<Pattern>),
}

impl Node {
    pub(super) fn is_predicate(&self) -> bool {
        matches!(
            self,
            Self::Compare(..)
                | Self::And(..)
                | Self::Or(..)
                | Self::Not(_)
                | Self::IsUnknown(_)
                | Self::Exists(_)
                | Self::StartsWith(..)
                | Self::LikeRegex(..)
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An accessor.
pub(super) enum Step {
    Member(String),
    AnyMember,
    /// `.**{first to last}`: levels below the item, `None` for `last`.
    Below(Option<usize>, Option<usize>),
    /// `[a, b to c]`.
    Elements(Vec<(Node, Option<Node>)>),
    AnyElement,
    Filter(Node),
    Method(Method),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Type,
    Size,
    Abs,
    Floor,
    Ceiling,
    Double,
    KeyValue,
}

impl Method {
    pub(super) const ALL: [(&'static str, Self); 7] = [
        ("abs", Self::Abs),
        ("ceiling", Self::Ceiling),
        ("double", Self::Double),
        ("floor", Self::Floor),
        ("keyvalue", Self::KeyValue),
        ("size", Self::Size),
        ("type", Self::Type),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| *name)
    }
}
