//! Window functions. An aggregate over a window is the aggregate; see its entry.

use std::ops::RangeInclusive;

use arrow::datatypes::DataType;

/// A window function.
pub struct WindowFunction {
    /// Its name.
    pub name: &'static str,
    /// How many arguments it takes.
    pub arguments: RangeInclusive<usize>,
    /// Its type, where DataFusion's is one that the engine does not have.
    pub result: Option<DataType>,
    /// Which rows are peers to it.
    pub peers: Peers,
    /// How far it looks.
    pub looks: Looks,
}

/// What rows are to a window function that its ORDER BY leaves equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Equal: it gives them one value.
    Equal,
    /// Rows in a row, whatever the frame: they are told apart by the whole row.
    Apart,
    /// Rows of a frame, of which it takes one: they are told apart, and so is what the frame is.
    OfFrame,
}

/// At which rows a window function looks to tell the value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// At all of the partition.
    Everywhere,
    /// At those of the frame.
    Frame,
    /// At one so many rows in front of it, or behind it.
    Shifted {
        /// In front of it.
        before: bool,
    },
    /// It counts those up to the row.
    Numbers,
}

const fn function(
    name: &'static str,
    arguments: RangeInclusive<usize>,
    (peers, looks): (Peers, Looks),
) -> WindowFunction {
    WindowFunction { name, arguments, result: None, peers, looks }
}

const fn typed(
    name: &'static str,
    arguments: RangeInclusive<usize>,
    result: DataType,
    (peers, looks): (Peers, Looks),
) -> WindowFunction {
    WindowFunction { name, arguments, result: Some(result), peers, looks }
}

/// Every window function, sorted by name.
pub static WINDOWS: &[WindowFunction] = &[
    function("cume_dist", 0..=0, (Peers::Equal, Looks::Everywhere)),
    typed("dense_rank", 0..=0, DataType::Int64, (Peers::Equal, Looks::Everywhere)),
    function("first_value", 1..=1, (Peers::OfFrame, Looks::Frame)),
    function("lag", 1..=3, (Peers::Apart, Looks::Shifted { before: true })),
    function("last_value", 1..=1, (Peers::OfFrame, Looks::Frame)),
    function("lead", 1..=3, (Peers::Apart, Looks::Shifted { before: false })),
    function("nth_value", 2..=2, (Peers::OfFrame, Looks::Frame)),
    typed("ntile", 1..=1, DataType::Int32, (Peers::Apart, Looks::Everywhere)),
    function("percent_rank", 0..=0, (Peers::Equal, Looks::Everywhere)),
    typed("rank", 0..=0, DataType::Int64, (Peers::Equal, Looks::Everywhere)),
    typed("row_number", 0..=0, DataType::Int64, (Peers::Apart, Looks::Numbers)),
];

/// The entry of a window function.
pub fn window(name: &str) -> Option<&'static WindowFunction> {
    WINDOWS.iter().find(|f| f.name == name)
}

#[cfg(test)]
mod tests {
    use datafusion::execution::SessionStateDefaults;

    use super::*;

    #[test]
    fn every_window_function_of_datafusion_has_an_entry() {
        let theirs = SessionStateDefaults::default_window_functions();
        let mut theirs: Vec<&str> = theirs.iter().map(|f| f.name()).collect();
        theirs.sort_unstable();
        assert_eq!(theirs, WINDOWS.iter().map(|f| f.name).collect::<Vec<_>>());
    }
}
