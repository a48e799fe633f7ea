//! A pattern as a program: counts are written out, loops are jumps.
//!
//! A round of a loop that is not needed must take a row, or an empty round would be made without
//! end. So loops around what can be empty clear a bit when a round begins, every row sets all of
//! them, and the end of the round asks for it. Loops that do not nest share a bit.

use crate::expr::pattern::Pattern;

/// A step of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Takes a row that fits a variable.
    Take { variable: u32, excluded: bool },
    /// Goes on at either place, at the first one if that leads to a match.
    Split { first: u32, second: u32 },
    /// Goes on at a place.
    Jump(u32),
    /// Asks that no row is behind.
    Begin,
    /// Asks that no row is ahead.
    End,
    /// Clears a bit.
    Enter(u8),
    /// Asks for a bit.
    Advanced(u8),
    /// All is matched.
    Accept,
    /// There is no way on.
    Fail,
}

/// The program of a pattern.
pub(super) fn program(pattern: &Pattern) -> Vec<Step> {
    let mut writer = Writer { steps: Vec::new(), loops: 0, excluded: false };
    writer.put(pattern);
    writer.steps.push(Step::Accept);
    writer.steps
}

/// Whether a pattern can match no row.
fn can_be_empty(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Empty | Pattern::Begin | Pattern::End => true,
        Pattern::Variable(_) => false,
        Pattern::Concat(all) => all.iter().all(can_be_empty),
        Pattern::Choice(all) => all.iter().any(can_be_empty),
        Pattern::Repeat { inner, min, .. } => *min == 0 || can_be_empty(inner),
        Pattern::Exclude(inner) => can_be_empty(inner),
    }
}

struct Writer {
    steps: Vec<Step>,
    /// Loops with a bit that are open.
    loops: u8,
    excluded: bool,
}

impl Writer {
    fn at(&self) -> u32 {
        self.steps.len() as u32
    }

    fn put(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::Empty => {}
            Pattern::Variable(variable) => {
                self.steps.push(Step::Take { variable: *variable, excluded: self.excluded });
            }
            Pattern::Concat(all) => all.iter().for_each(|p| self.put(p)),
            Pattern::Choice(all) => self.choice(all),
            Pattern::Exclude(inner) => {
                let before = std::mem::replace(&mut self.excluded, true);
                self.put(inner);
                self.excluded = before;
            }
            Pattern::Begin => self.steps.push(Step::Begin),
            Pattern::End => self.steps.push(Step::End),
            Pattern::Repeat { inner, min, max, greedy } => {
                for _ in 0..*min {
                    self.put(inner);
                }
                match max {
                    None => self.any_number(inner, *greedy),
                    Some(max) => self.at_most(inner, max - min, *greedy),
                }
            }
        }
    }

    fn choice(&mut self, all: &[Pattern]) {
        let mut jumps = Vec::new();
        let Some((last, others)) = all.split_last() else {
            self.steps.push(Step::Fail);
            return;
        };
        for way in others {
            let split = self.steps.len();
            self.steps.push(Step::Fail);
            self.put(way);
            jumps.push(self.steps.len());
            self.steps.push(Step::Fail);
            self.steps[split] = Step::Split { first: split as u32 + 1, second: self.at() };
        }
        self.put(last);
        let end = self.at();
        jumps.into_iter().for_each(|jump| self.steps[jump] = Step::Jump(end));
    }

    /// A round that is not needed.
    fn round(&mut self, inner: &Pattern) {
        if !can_be_empty(inner) {
            self.put(inner);
            return;
        }
        let bit = self.loops;
        self.loops += 1;
        self.steps.push(Step::Enter(bit));
        self.put(inner);
        self.steps.push(Step::Advanced(bit));
        self.loops -= 1;
    }

    fn split(&mut self, at: usize, end: u32, greedy: bool) {
        let round = at as u32 + 1;
        let (first, second) = if greedy { (round, end) } else { (end, round) };
        self.steps[at] = Step::Split { first, second };
    }

    fn any_number(&mut self, inner: &Pattern, greedy: bool) {
        let split = self.steps.len();
        self.steps.push(Step::Fail);
        self.round(inner);
        self.steps.push(Step::Jump(split as u32));
        self.split(split, self.at(), greedy);
    }

    fn at_most(&mut self, inner: &Pattern, rounds: u32, greedy: bool) {
        let mut splits = Vec::new();
        for _ in 0..rounds {
            splits.push(self.steps.len());
            self.steps.push(Step::Fail);
            self.round(inner);
        }
        let end = self.at();
        splits.into_iter().for_each(|split| self.split(split, end, greedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(inner: Pattern, min: u32, max: Option<u32>, greedy: bool) -> Pattern {
        Pattern::Repeat { inner: Box::new(inner), min, max, greedy }
    }

    fn take(variable: u32) -> Step {
        Step::Take { variable, excluded: false }
    }

    #[test]
    fn counts_are_written_out() {
        let a = || Pattern::Variable(0);
        let split = |first, second| Step::Split { first, second };
        assert_eq!(
            program(&repeat(a(), 1, Some(3), true)),
            [take(0), split(2, 5), take(0), split(4, 5), take(0), Step::Accept]
        );
        assert_eq!(
            program(&repeat(a(), 0, None, false)),
            [split(3, 1), take(0), Step::Jump(0), Step::Accept]
        );
        let choice = Pattern::Choice(vec![a(), Pattern::Exclude(Box::new(Pattern::Variable(1)))]);
        let excluded = Step::Take { variable: 1, excluded: true };
        assert_eq!(program(&choice), [split(1, 3), take(0), Step::Jump(4), excluded, Step::Accept]);
    }

    #[test]
    fn rounds_that_can_be_empty_must_take_a_row() {
        let inner = repeat(Pattern::Variable(0), 0, None, true);
        let steps = program(&repeat(inner, 0, None, true));
        let asked: Vec<Step> =
            steps.into_iter().filter(|s| matches!(s, Step::Enter(_) | Step::Advanced(_))).collect();
        assert_eq!(asked, [Step::Enter(0), Step::Advanced(0)]);
    }
}
