//! Kinds of joins, and when a row of a preserved side comes out.

/// An input of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Port 0.
    Left,
    /// Port 1.
    Right,
}

impl Side {
    pub(super) fn of(port: usize) -> Self {
        if port == 0 { Self::Left } else { Self::Right }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and rows of the left that are in none, with NULLs.
    Left,
    /// Pairs, and rows of the right that are in none, with NULLs.
    Right,
    /// Pairs, and rows of either side that are in none, with NULLs.
    Full,
    /// Rows of the left that something matches.
    LeftSemi,
    /// Rows of the right that something matches.
    RightSemi,
    /// Rows of the left that nothing matches.
    LeftAnti,
    /// Rows of the right that nothing matches.
    RightAnti,
    /// Rows of the left, and whether something matches them.
    LeftMark,
    /// Rows of the right, and whether something matches them.
    RightMark,
}

impl JoinKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Full => "full",
            Self::LeftSemi => "left semi",
            Self::RightSemi => "right semi",
            Self::LeftAnti => "left anti",
            Self::RightAnti => "right anti",
            Self::LeftMark => "left mark",
            Self::RightMark => "right mark",
        }
    }

    /// Whether pairs come out.
    pub fn has_pairs(self) -> bool {
        matches!(self, Self::Inner | Self::Left | Self::Right | Self::Full)
    }

    pub(super) fn has_mark(self) -> bool {
        matches!(self, Self::LeftMark | Self::RightMark)
    }

    /// Whether rows of a side come out by whether something matches them.
    pub fn preserves(self, side: Side) -> bool {
        match self {
            Self::Inner => false,
            Self::Full => true,
            Self::Left | Self::LeftSemi | Self::LeftAnti | Self::LeftMark => side == Side::Left,
            Self::Right | Self::RightSemi | Self::RightAnti | Self::RightMark => {
                side == Side::Right
            }
        }
    }

    /// Whether the output never retracts when the inputs do not.
    pub fn keeps_append_only(self) -> bool {
        matches!(self, Self::Inner | Self::LeftSemi | Self::RightSemi)
    }

    /// Whether a row of a preserved side comes out by itself.
    pub(super) fn shows(self, matched: bool) -> bool {
        match self {
            Self::LeftSemi | Self::RightSemi => matched,
            Self::LeftMark | Self::RightMark => true,
            _ => !matched,
        }
    }
}
