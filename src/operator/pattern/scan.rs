//! A scan: search after search through the rows of a partition, and places where one could begin.
//!
//! What a search finds depends on the rows that it has looked at, so behind a point of the scan
//! nothing changes while the rows that were looked at up to there do not.

use super::search::{Match, Rows, Searcher, behind};
use crate::error::Result;

/// Searches between two points where nothing is found.
const POINT_ROWS: usize = 64;

/// Where a scan stands, in rows of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// The next search begins here.
    pub(super) start: usize,
    /// The number of the next match.
    pub(super) number: i64,
    /// Rows ahead of this one are in a match, of those from the start on.
    pub(super) covered: usize,
    /// Rows ahead of this one were looked at.
    pub(super) looked_to: usize,
}

/// What a scan has found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// What comes out, with its number.
    pub(super) shown: Vec<(Match, i64)>,
    /// Rows of no match.
    pub(super) unmatched: Vec<usize>,
    /// Points from the first one on, and one behind the last row.
    pub(super) points: Vec<Point>,
}

/// Scans from a point on, up to the first search that is not wanted any more.
pub(super) fn scan(
    searcher: &mut Searcher,
    rows: &mut Rows<'_>,
    from: Point,
    wanted: &mut dyn FnMut(&Rows<'_>, usize, usize) -> bool,
) -> Result<Scan> {
    let by = rows.by;
    let (mut scan, mut point, mut last) = (Scan::default(), from, None);
    while point.start < rows.count() {
        let due = last.is_none_or(|last| point.start >= last + POINT_ROWS);
        if due {
            scan.points.push(point);
            last = Some(point.start);
        }
        let start = point.start;
        let found = searcher.search(rows, start, point.number)?;
        if !wanted(rows, start, searcher.looked_to) {
            break;
        }
        point.looked_to = point.looked_to.max(searcher.looked_to);
        point.start += 1;
        if let Some(found) = found {
            point.start = behind(by, &found)?;
            if found.complete {
                point.covered = point.covered.max(start + found.taken.len().max(1));
                last = None;
            }
            if found.complete != by.rule.timeouts {
                scan.shown.push((found, point.number));
                point.number += 1;
            }
        }
        if start >= point.covered {
            scan.unmatched.push(start);
        }
    }
    scan.points.push(point);
    Ok(scan)
}
