//! What is kept on the disk for a sink: the portions of its messages that checkpoints have decided
//! and its receiver does not have, and what is known of the receiver.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::checkpoint::{OutFile, Overruled, Section, SinkMark};
use crate::error::{Error, Result, sqlstate};
use crate::store::{Ancestry, Place, Receipt};

/// A checkpoint, and whether it is its changes, which come behind first rows.
pub(super) type PortionKey = (u64, bool);

/// Messages of a sink in one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portion {
    pub(super) file: u64,
    pub(super) section: Section,
    /// Since when they wait.
    pub(super) since: Instant,
}

/// What is kept of a sink.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What the next manifest says of it.
    pub(super) mark: SinkMark,
    portions: BTreeMap<PortionKey, Portion>,
    /// Messages of portions that are done with, of the checkpoint of the last of them.
    passed: Place,
    /// The limit of what may be kept is reached, and this sink has its part in it.
    pub(super) full: bool,
    /// What the receiver has said, when that did not match.
    pub(super) found: Option<Overruled>,
}

impl Kept {
    /// What a manifest has of a sink.
    pub(super) fn of(sink: u32, mark: SinkMark, files: &[OutFile]) -> Self {
        let mut kept = Self { mark, ..Self::default() };
        files.iter().for_each(|file| kept.add(sink, file, Instant::now()));
        kept
    }

    /// A checkpoint has decided a file.
    pub(super) fn add(&mut self, sink: u32, file: &OutFile, since: Instant) {
        let before = self.mark.begins > 0 && file.checkpoint < self.mark.begins;
        if let Some(section) = file.sinks.get(&sink).filter(|_| !before) {
            let portion = Portion { file: file.id, section: *section, since };
            self.portions.insert((file.checkpoint, !file.first), portion);
        }
    }

    pub(super) fn portions(&self) -> impl Iterator<Item = &Portion> {
        self.portions.values()
    }

    /// The first portion behind another one.
    pub(super) fn next(&self, behind: Option<PortionKey>) -> Option<(PortionKey, Portion)> {
        let next = self.portions.iter().find(|(key, _)| behind.is_none_or(|last| **key > last));
        next.map(|(key, portion)| (*key, *portion))
    }

    /// Whether there is something to deliver.
    pub(super) fn is_due(&self) -> bool {
        !self.mark.opening && !self.portions.is_empty()
    }

    /// Since when the oldest portion waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.portions.values().next().map(|portion| portion.since)
    }

    /// Messages that the receiver does not have, about.
    pub(super) fn messages(&self) -> u64 {
        let all: u64 = self.portions().map(|portion| portion.section.messages).sum();
        let first = self.portions.keys().next().map(|(checkpoint, _)| *checkpoint);
        let part = self.mark.delivered.filter(|place| Some(place.checkpoint) == first);
        let done = first.map_or(0, |checkpoint| self.passed_of(checkpoint));
        all.saturating_sub(part.map_or(0, |place| place.messages.saturating_sub(done)))
    }

    /// Messages of a checkpoint in portions that are done with.
    pub(super) fn passed_of(&self, checkpoint: u64) -> u64 {
        if self.passed.checkpoint == checkpoint { self.passed.messages } else { 0 }
    }

    /// Bytes of the portions on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.portions().map(|portion| portion.section.to - portion.section.from).sum()
    }

    /// Checkpoints whose messages the receiver has not all of.
    pub(super) fn behind(&self) -> u64 {
        let mut checkpoints: Vec<u64> = self.portions.keys().map(|(n, _)| *n).collect();
        checkpoints.dedup();
        checkpoints.len() as u64
    }

    /// The portions up to one are done with: their epochs, and the last of these.
    pub(super) fn done(&mut self, up_to: PortionKey) -> (u64, Option<u64>) {
        let later = self.portions.split_off(&(up_to.0, up_to.1));
        let mut done = std::mem::replace(&mut self.portions, later);
        done.extend(self.portions.remove_entry(&up_to));
        for ((checkpoint, _), portion) in &done {
            let messages = self.passed_of(*checkpoint) + portion.section.messages;
            self.passed = Place { checkpoint: *checkpoint, messages };
        }
        let epochs = done.values().map(|portion| portion.section.epochs).sum();
        (epochs, done.values().map(|portion| portion.section.last).max())
    }

    /// It has lost its place for good.
    pub(super) fn lose(&mut self, why: &str) {
        self.portions.clear();
        self.full = false;
        self.mark.lost = Some(why.to_owned());
    }

    /// Where it goes on, by what its receiver says that it has.
    pub(super) fn resume(
        &mut self,
        receipt: Option<Receipt>,
        newest: u64,
        ancestry: &Ancestry,
    ) -> Result<Option<Place>> {
        self.found = None;
        let judged = judge(&self.mark, receipt, newest, ancestry);
        if judged.is_err() {
            self.found = Some(Overruled { receipt });
        }
        judged
    }
}

fn judge(
    mark: &SinkMark,
    receipt: Option<Receipt>,
    newest: u64,
    ancestry: &Ancestry,
) -> Result<Option<Place>> {
    if mark.overruled == Some(Overruled { receipt }) {
        return Ok(mark.delivered);
    }
    let Some(receipt) = receipt else {
        return match mark.delivered {
            None => Ok(None),
            Some(place) => Err(mismatch(
                "the receiver has no record of the sink".to_owned(),
                format!("It had one of checkpoint {}.", place.checkpoint),
                place.checkpoint,
            )),
        };
    };
    let Receipt { checkpoint, incarnation, .. } = receipt;
    let noted = mark.delivered.map_or(0, |place| place.checkpoint);
    // What was delivered before it began anew is of no account.
    let before = checkpoint < mark.begins && mark.delivered.is_none();
    if ancestry.of(checkpoint) != Some(incarnation) && !before {
        return Err(mismatch(
            format!("the receiver has messages of checkpoint {checkpoint} of another history"),
            "The data directory was restored from a copy, or a copy of it was at work.".to_owned(),
            noted,
        ));
    }
    if checkpoint > newest {
        return Err(mismatch(
            format!("the receiver has messages of checkpoint {checkpoint}, which is not there"),
            format!("The newest checkpoint of the data directory is {newest}."),
            noted,
        ));
    }
    match mark.delivered {
        None if before => Ok(None),
        Some(place) if receipt.place() < place && place.messages != u64::MAX => Err(mismatch(
            format!("the receiver has messages of checkpoint {checkpoint} alone"),
            format!("It had those of checkpoint {}.", place.checkpoint),
            noted,
        )),
        _ => Ok(Some(receipt.place())),
    }
}

fn mismatch(message: String, detail: String, noted: u64) -> Error {
    Error::external(sqlstate::DATA_CORRUPTED, message).permanent().with_detail(detail).with_hint(
        format!(
            "ALTER SINK .. RESUME AT CHECKPOINT {noted}; goes on behind what is said to be \
             delivered, ALTER SINK .. REPUBLISH; begins anew with all rows."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives() -> Ancestry {
        let mut lives = Ancestry::default();
        lives.begin(1, 70);
        lives.begin(10, 71);
        lives
    }

    fn at(checkpoint: u64, messages: u64) -> Place {
        Place { checkpoint, messages }
    }

    fn receipt(checkpoint: u64, messages: u64, incarnation: u64) -> Option<Receipt> {
        Some(Receipt { checkpoint, messages, incarnation })
    }

    /// Where a sink goes on, or what is said.
    fn judged(mark: &SinkMark, receipt: Option<Receipt>) -> Result<Option<Place>, String> {
        judge(mark, receipt, 12, &lives()).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn what_the_receiver_says_counts_when_it_can_be_true() {
        let new = SinkMark { begins: 3, ..SinkMark::default() };
        assert_eq!(judged(&new, None), Ok(None));
        assert_eq!(judged(&new, receipt(4, 9, 70)), Ok(Some(at(4, 9))), "not noted");
        assert_eq!(judged(&new, receipt(11, 9, 71)), Ok(Some(at(11, 9))));
        let known = SinkMark { delivered: Some(at(11, 5)), ..new.clone() };
        assert_eq!(judged(&known, receipt(11, 5, 71)), Ok(Some(at(11, 5))), "noted");
        assert_eq!(judged(&known, receipt(11, 6, 71)), Ok(Some(at(11, 6))), "part of it");
        assert_eq!(judged(&known, receipt(12, 1, 71)), Ok(Some(at(12, 1))));
        // It began anew with all rows: what it has is of before.
        let anew = SinkMark { begins: 12, ..SinkMark::default() };
        assert_eq!(judged(&anew, receipt(11, 5, 71)), Ok(None));
        assert_eq!(judged(&anew, receipt(12, 5, 71)), Ok(Some(at(12, 5))));
    }

    #[test]
    fn what_can_not_be_true_is_an_error() {
        let known = SinkMark { begins: 3, delivered: Some(at(11, 5)), ..SinkMark::default() };
        let says = |receipt| judged(&known, receipt).expect_err("an error");
        assert_eq!(says(None), "the receiver has no record of the sink");
        assert_eq!(says(receipt(11, 4, 71)), "the receiver has messages of checkpoint 11 alone");
        assert_eq!(
            says(receipt(13, 1, 71)),
            "the receiver has messages of checkpoint 13, which is not there"
        );
        assert_eq!(
            says(receipt(11, 5, 70)),
            "the receiver has messages of checkpoint 11 of another history"
        );
        // Somebody has decided that it does not count; what comes behind does.
        let overruled = Some(Overruled { receipt: receipt(13, 1, 99) });
        let known = SinkMark { delivered: Some(Place::behind(11)), overruled, ..known };
        assert_eq!(judged(&known, receipt(13, 1, 99)), Ok(Some(Place::behind(11))));
        assert_eq!(judged(&known, receipt(12, 1, 71)), Ok(Some(at(12, 1))));
    }

    #[test]
    fn portions_are_done_with_in_order() {
        let mut kept = Kept::default();
        let file = |id, checkpoint, first| OutFile {
            id,
            bytes: 100,
            checkpoint,
            first,
            sinks: [(7, Section { from: 0, to: 50, messages: 4, epochs: 2, last: id })].into(),
        };
        let now = Instant::now();
        for file in [file(1, 3, false), file(3, 4, false), file(2, 3, true)] {
            kept.add(7, &file, now);
        }
        let mut order = Vec::new();
        let mut last = None;
        while let Some((key, portion)) = kept.next(last) {
            order.push(portion.file);
            last = Some(key);
        }
        assert_eq!(order, [2, 1, 3], "first rows come first");
        assert_eq!((kept.messages(), kept.bytes(), kept.behind()), (12, 150, 2));
        kept.mark.delivered = Some(at(3, 5));
        assert_eq!(kept.messages(), 7);
        assert_eq!(kept.done((3, false)), (2, Some(2)));
        assert_eq!((kept.messages(), kept.behind(), kept.passed_of(3)), (7, 2, 4));
        assert_eq!(kept.done((4, true)), (4, Some(3)));
        assert!(!kept.is_due());
    }
}
