//! The runtime: everything that knows about epochs running, threads, channels and marks.
//!
//! ```text
//! sessions --commits, DDL--> coordinator --Step(e)--> workers (a thread each; a single one is on
//! source tasks --batches-->      |                      |      the coordinator's)
//!                                |<----Report(e)--------|  <-- Data, Mark --> other workers
//!                                v
//!                     publish e; feed subscribers and sink tasks
//! ```
//!
//! An epoch takes what waits in all inputs together, runs only the nodes reachable from the inputs
//! that it takes, and is published when every worker has reported. It runs in slices of time, so
//! that one that lasts delays nobody whose nodes it does not touch.
//! Inside an epoch a node is flushed when the marks of all senders of its exchanges are in; marks
//! carry watermarks.

mod activity;
mod arrivals;
mod backlog;
mod build;
mod checkpoint;
mod clock;
mod coordinator;
mod courier;
mod definitions;
mod delivery;
mod drawn;
mod eviction;
mod exchange;
mod graph;
mod identity;
mod ingest;
mod journal;
mod keeping;
mod kept;
mod links;
mod memory;
mod opening;
mod rebuild;
mod rejects;
mod repair;
mod restore;
mod restoring;
mod running_sink;
mod shared;
mod sink_queue;
mod sink_task;
mod sinks;
mod source_moves;
mod source_task;
mod state;
mod step;
mod steps;
mod subscribers;
mod swap;
mod team;
mod versions;
mod waits;
mod worker;

pub use activity::NodeActivity;
pub use checkpoint::{Checkpointer, begins_again, definition_of};
pub use clock::{Clock, ClockMove};
pub use coordinator::{Commit, Coordinator, CoordinatorHandle, Event};
pub use definitions::{NewSource, NewTable, NewView};
pub use delivery::does_not_deliver;
pub use drawn::DrawnNode;
pub use graph::{Built, Edge, GraphBuilder, NodeId, NodeKind, NodeSpec, Outlet};
pub use identity::{NodeKey, TablePlace};
pub use ingest::{InputRoute, Parts, SplitView};
pub use journal::{Journal, apply, read_write};
pub use keeping::Keeping;
pub use memory::Holder;
pub use rejects::{Kept as KeptRejects, Retention, Retried, schema as rejects_schema};
pub use restoring::{Readable, ReadableRelation};
pub use shared::{Aside, Pin, RelationState, RelationStatus, Shared, WriteTicket};
pub use sink_queue::SinkOrder;
pub use sink_task::{Refusal, SinkState};
pub use sinks::{NewSink, SinkSource, SinkWay};
pub use source_task::{SourceFeed, SourceState, SourceTask};
pub use state::{Cut, EngineState, InputProgress, SourceProgress, SplitProgress};
pub use steps::Needs;
pub use subscribers::{Subscriber, SubscriberEvent, SubscriberEvents};
pub use swap::Swap;
pub use worker::{Image, TableChanges, TableSize};
