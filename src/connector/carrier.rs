//! Carriers: what brings messages that are kept on the disk to a receiver, whole loads at a time.
//!
//! A sink whose messages are kept has two halves: [`crate::format::Outgoing`] makes messages of
//! changes, once, and a carrier delivers them, as often as it takes. Where the receiver can take
//! messages and an account of how far they have come in one step, each arrives exactly once.

use std::fmt::Debug;
use std::sync::Arc;

use super::delivery::{Failure, Receiver};
use crate::error::Result;
use crate::format::{Message, Outgoing};
use crate::store::Receipt;

/// How often messages arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Once.
    ExactlyOnce,
    /// Once, and again after a failure.
    AtLeastOnce,
    /// As long as the process lives, at least once; a new one begins with all rows.
    WhileItRuns,
}

impl Guarantee {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly once",
            Self::AtLeastOnce => "at least once",
            Self::WhileItRuns => "at least once until the process ends",
        }
    }
}

/// Which sink of which data directory it is: what a receiver knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkId {
    /// The directory's own number.
    pub directory: u64,
    /// The sink's number in it, which no other one ever has.
    pub sink: u32,
}

/// Messages that arrive as a whole, or not at all, where the guarantee is exactly once.
#[derive(Debug)]
pub struct Load<'a> {
    /// The messages, those that are to be left out excluded.
    pub messages: &'a [&'a Message],
    /// What the receiver shall know when it has them.
    pub receipt: Receipt,
    /// How long the receiver's file was before them, where it is one.
    pub length: u64,
}

/// What a receiver says that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// It says so: this, or nothing of this sink.
    Kept(Option<Receipt>),
    /// It keeps no account: what was noted here counts.
    None,
}

/// Told where the receiver stands while something lasts; false ends it.
pub type Watch<'a> = &'a mut dyn FnMut(&Receiver) -> bool;

/// Brings messages to a receiver. Lives on a thread of its own and blocks.
///
/// Contract: (1) `settle` comes first, and again after every error: when it returns, nothing that
/// was sent before can arrive any more, except what its account says has arrived; (2) loads come in
/// order, none is repeated that an account includes.
pub trait Carrier: Send {
    /// Finds out, at CREATE SINK, whether the receiver lets it do what it promises.
    fn try_out(&mut self) -> Result<()>;

    /// Ends what earlier attempts have left under way.
    fn settle(&mut self, watch: Watch<'_>) -> Result<Account, Failure>;

    /// Delivers a load; how long the receiver's file is then, where it is one. A message that is
    /// refused is told by its number in the load.
    fn deliver(&mut self, load: &Load<'_>, watch: Watch<'_>) -> Result<u64, Failure>;

    /// Where the receiver stands.
    fn receiver(&mut self) -> Receiver;
}

/// Makes both halves of a sink whose messages are kept; again when it begins anew.
pub type MakeCarrier = Arc<dyn Fn() -> Result<(Outgoing, Box<dyn Carrier>)> + Send + Sync>;

/// The halves, and what they promise.
#[derive(Clone)]
pub struct KeptSink {
    /// What they promise.
    pub guarantee: Guarantee,
    /// Makes them.
    pub make: MakeCarrier,
}

impl Debug for KeptSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptSink").field("guarantee", &self.guarantee).finish_non_exhaustive()
    }
}
