//! Links: how workers reach one another, and how much may lie between them.
//!
//! What is sent and not yet taken is counted by receiver and epoch, in rows and in bytes. A worker
//! whose receivers have too much of an epoch takes no new rows of it in until they have caught up,
//! but goes on with what others send it: so nobody waits for somebody who waits for him. What lies
//! there of another epoch holds nobody up, since it may be taken only when this one has ended. The
//! time that a worker waits is counted.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::graph::NodeId;
use super::shared::lock;
use super::worker::{Step, Worker};
use crate::config::{EXCHANGE_BYTES_MAX, EXCHANGE_ROWS_MAX};
use crate::delta::DeltaBatch;
use crate::operator::Folded;
use crate::time::{Epoch, Watermark};

/// Something to do between two slices of work.
pub type Call = Box<dyn FnOnce(&mut Worker) + Send>;

/// What comes to a worker.
pub enum Message {
    /// Rows for a port of a node.
    Data(Epoch, NodeId, usize, Parcel<DeltaBatch>),
    /// The same, folded by key.
    Folded(Epoch, NodeId, usize, Parcel<Folded>),
    /// The sender has flushed the node before this exchange; with its watermarks by column.
    Mark(Epoch, NodeId, usize, usize, Vec<(usize, Watermark)>),
    /// The least round that something waits for in front of a recursion, at the sender.
    Round(Epoch, NodeId, usize, Option<i64>),
    /// A part of an epoch.
    Begin(Box<Step>),
    /// Something to do between two slices of work.
    Call(Call),
    /// There is nothing more to do.
    Stop,
}

/// What lies in front of a worker, by epoch: rows and bytes.
type Load = Mutex<BTreeMap<Epoch, (usize, usize)>>;

/// Something on its way to a worker, with its place in front of it.
pub struct Parcel<T> {
    content: T,
    _credit: Credit,
}

impl<T> Parcel<T> {
    /// What was sent. Its place is free: it is being worked on.
    pub fn open(self) -> T {
        self.content
    }
}

/// A place in front of a worker, which is given back with it.
#[derive(Debug)]
struct Credit {
    load: Arc<Load>,
    epoch: Epoch,
    rows: usize,
    bytes: usize,
}

impl Credit {
    fn take(load: &Arc<Load>, epoch: Epoch, rows: usize, bytes: usize) -> Self {
        {
            let mut epochs = lock(load);
            let lies = epochs.entry(epoch).or_default();
            *lies = (lies.0 + rows, lies.1 + bytes);
        }
        Self { load: Arc::clone(load), epoch, rows, bytes }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let mut epochs = lock(&self.load);
        let Some(lies) = epochs.get_mut(&self.epoch) else { return };
        *lies = (lies.0 - self.rows, lies.1 - self.bytes);
        if *lies == (0, 0) {
            epochs.remove(&self.epoch);
        }
    }
}

/// One worker's links to all others.
pub struct Links {
    /// The worker's own number.
    pub index: usize,
    /// The others' inboxes, by number.
    peers: Vec<Option<(Sender<Message>, Arc<Load>)>>,
    /// Rows and bytes of an epoch that may lie in front of one of them.
    most: (usize, usize),
}

impl Links {
    /// The links of `workers` workers, with an inbox for each.
    pub fn between(workers: usize) -> Vec<(Self, Sender<Message>, Receiver<Message>)> {
        Self::bounded(workers, (EXCHANGE_ROWS_MAX, EXCHANGE_BYTES_MAX))
    }

    /// The same with other bounds in rows and bytes.
    pub fn bounded(
        workers: usize,
        most: (usize, usize),
    ) -> Vec<(Self, Sender<Message>, Receiver<Message>)> {
        let inboxes: Vec<_> = (0..workers).map(|_| (channel(), Arc::<Load>::default())).collect();
        let doors: Vec<_> =
            inboxes.iter().map(|((sender, _), load)| (sender.clone(), load.clone())).collect();
        let links = |index: usize| {
            let others = doors.iter().enumerate();
            let peers = others.map(|(i, door)| (i != index).then(|| door.clone())).collect();
            Self { index, peers, most }
        };
        let made = inboxes.into_iter().enumerate();
        made.map(|(i, ((sender, inbox), _))| (links(i), sender, inbox)).collect()
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.peers.len()
    }

    /// Sends rows to a worker; gives them back when that is the worker's own.
    pub fn send_rows(
        &self,
        worker: usize,
        (epoch, to, port): (Epoch, NodeId, usize),
        rows: DeltaBatch,
    ) -> Option<DeltaBatch> {
        let size = (rows.len(), rows.bytes());
        let message = |parcel| Message::Data(epoch, to, port, parcel);
        self.send(worker, epoch, (rows, size), message)
    }

    /// The same of what was folded.
    pub fn send_folded(
        &self,
        worker: usize,
        (epoch, to, port): (Epoch, NodeId, usize),
        folded: Folded,
    ) -> Option<Folded> {
        let size = (folded.parts(), folded.bytes());
        let message = |parcel| Message::Folded(epoch, to, port, parcel);
        self.send(worker, epoch, (folded, size), message)
    }

    /// Sends something of so many rows and bytes, which has its place in front of the worker.
    fn send<T>(
        &self,
        worker: usize,
        epoch: Epoch,
        (content, (rows, bytes)): (T, (usize, usize)),
        message: impl FnOnce(Parcel<T>) -> Message,
    ) -> Option<T> {
        let Some((peer, load)) = &self.peers[worker] else { return Some(content) };
        let credit = Credit::take(load, epoch, rows, bytes);
        // A worker that is gone takes the engine with it.
        drop(peer.send(message(Parcel { content, _credit: credit })));
        None
    }

    /// Tells all others that a node has been flushed.
    pub fn send_mark(
        &self,
        (epoch, to, port): (Epoch, NodeId, usize),
        marks: &[(usize, Watermark)],
    ) {
        for (peer, _) in self.peers.iter().flatten() {
            drop(peer.send(Message::Mark(epoch, to, port, self.index, marks.to_vec())));
        }
    }

    /// Tells all others the least round that something waits for in front of a recursion.
    pub fn send_round(&self, (epoch, node): (Epoch, NodeId), least: Option<i64>) {
        for (peer, _) in self.peers.iter().flatten() {
            drop(peer.send(Message::Round(epoch, node, self.index, least)));
        }
    }

    /// Whether somebody has so much of an epoch in front of him that nothing should be added.
    pub fn are_full(&self, epoch: Epoch) -> bool {
        self.peers.iter().flatten().any(|(_, load)| {
            let lies = lock(load).get(&epoch).copied().unwrap_or_default();
            lies.0 > self.most.0 || lies.1 > self.most.1
        })
    }
}

impl Message {
    /// The epoch that it is part of.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Data(epoch, ..) | Self::Folded(epoch, ..) | Self::Mark(epoch, ..) => Some(*epoch),
            Self::Round(epoch, ..) => Some(*epoch),
            Self::Begin(step) => Some(step.epoch),
            Self::Call(_) | Self::Stop => None,
        }
    }
}
