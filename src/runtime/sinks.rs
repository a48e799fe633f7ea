//! Sinks in the running dataflow: creating them, and going on with those of an earlier life.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::build::{Build, Import};
use super::coordinator::Coordinator;
use super::graph::NodeId;
use super::running_sink::{RunningKept, RunningSink};
use super::shared::{Aside, Pin, RelationStatus};
use super::sink_queue::REBUILT;
use super::sink_task::{Refusal, SinkPolicy, SinkTask};
use crate::catalog::{Definition, Relation, RelationId};
use crate::checkpoint::SinkMark;
use crate::connector::{KeptSink, Sink};
use crate::error::{Error, Result, sqlstate};
use crate::plan::{Partitioning, PlanNode, Properties};

/// A sink to be created.
pub struct NewSink {
    /// Its definition.
    pub relation: Relation,
    /// The definition of its `$late`, when rows can be late for its query.
    pub late: Option<Relation>,
    /// The relation that it delivers.
    pub from: SinkSource,
    /// What delivers.
    pub way: SinkWay,
    /// Whether its inputs wait for it when it has failed for good.
    pub holds: bool,
    /// Whether it loses its place when its messages fill the data directory.
    pub gives_way: bool,
    /// What is kept of it.
    pub record: Definition,
}

/// What delivers a sink's messages.
pub enum SinkWay {
    /// The receiver, from memory.
    Direct(Box<dyn Sink>),
    /// A carrier, from the data directory.
    Kept(KeptSink),
}

/// What a sink delivers.
pub enum SinkSource {
    /// A relation that stores its rows: they come first, as of one epoch.
    Relation(RelationId),
    /// A query of its own.
    Plan(PlanNode),
}

/// The build of a sink's query, where there is one.
type Building = Option<(Vec<RelationId>, BTreeMap<NodeId, Import>, Pin)>;

impl Coordinator {
    /// Creates a sink.
    pub fn create_sink(&mut self, new: NewSink, done: oneshot::Sender<Result<()>>) {
        if done.is_closed() {
            return;
        }
        let mut ids: Vec<RelationId> = new.late.iter().map(|r| r.id).collect();
        ids.push(new.relation.id);
        let result = self.try_create_sink(new);
        self.undo_unless(&result, &ids);
        match result {
            Ok(Some((members, imports, pin))) => {
                self.builds.push(Build::new(members, imports, pin, done));
            }
            Ok(None) => drop(done.send(Ok(()))),
            Err(error) => drop(done.send(Err(error))),
        }
    }

    fn try_create_sink(&mut self, new: NewSink) -> Result<Building> {
        let NewSink { relation, late, from, way, holds, gives_way, record } = new;
        self.shared.catalog().check_name_is_free(&relation.name)?;
        let id = relation.id;
        let consolidated = matches!(&from, SinkSource::Plan(plan) if plan.is_consolidated());
        let limits = self.sink_limits;
        let policy = SinkPolicy { limits, holds, gives_way, consolidated };
        match from {
            SinkSource::Relation(input) => {
                self.check_runs(input)?;
                self.note(&record, &relation.depends_on)?;
                let void = self.is_void(input);
                let mut sink = self.start_sink(id, (way, policy), void)?;
                sink.kept_mut().into_iter().for_each(|kept| kept.from = Some(input));
                self.deliver_relation(relation, input, sink)?;
                Ok(None)
            }
            SinkSource::Plan(plan) => {
                self.check_inputs(&plan)?;
                self.note_later(id, record);
                self.deliver_plan(relation, late, plan, (way, policy))
            }
        }
    }

    /// Starts what delivers; where an earlier life has left it, from there on. `void`: what it
    /// delivers has not been kept.
    fn start_sink(
        &mut self,
        id: RelationId,
        (way, policy): (SinkWay, SinkPolicy),
        void: bool,
    ) -> Result<RunningSink> {
        let kept = match way {
            SinkWay::Direct(sink) => {
                return SinkTask::start(id, sink, policy).map(RunningSink::Direct);
            }
            SinkWay::Kept(kept) => kept,
        };
        let keeping = self.keeping()?;
        let mut mark = keeping.mark_of(id);
        if void && mark.as_ref().is_some_and(|mark| !mark.opening) {
            mark.iter_mut().for_each(|mark| mark.lost = Some(REBUILT.to_owned()));
        }
        let (mark, files) = match mark {
            Some(mark) if !mark.opening => (mark, keeping.files()),
            // Nothing of it was delivered; what is left of it is nothing.
            Some(SinkMark { overruled, .. }) => {
                (SinkMark { opening: true, overruled, ..SinkMark::default() }, &[][..])
            }
            None => (SinkMark { opening: true, ..SinkMark::default() }, &[][..]),
        };
        let kept = RunningKept::start(id, kept, policy, keeping.route(), (mark, files))?;
        Ok(RunningSink::Kept(Box::new(kept)))
    }

    /// Delivers the rows of a relation that stores them, and its changes.
    fn deliver_relation(
        &mut self,
        relation: Relation,
        input: RelationId,
        sink: RunningSink,
    ) -> Result<()> {
        let node = self.graph.output(input).ok_or_else(|| Error::internal("no output"))?;
        let id = relation.id;
        self.team.tap(node, true);
        self.sinks.insert(id, (node, sink));
        if !self.snapshot_later(id, input) {
            self.take_first_rows(id, input)?;
        }
        self.register(relation, None, any(), None, RelationStatus::Running)
    }

    /// A sink takes the rows that a relation has, unless they have been delivered.
    pub(super) fn take_first_rows(&self, sink: RelationId, of: RelationId) -> Result<()> {
        let Some((_, sink)) = self.sinks.get(&sink) else { return Ok(()) };
        let pin = self.shared.pin_firmly();
        let Some(table) = pin.relations.get(&of).and_then(|r| r.table.clone()) else {
            return Ok(());
        };
        match sink {
            RunningSink::Direct(task) => task.snapshot(pin, table),
            RunningSink::Kept(kept) if kept.with(|kept| kept.mark.opening) => {
                kept.open(pin, table, self.events.clone())?;
            }
            RunningSink::Kept(_) => {}
        }
        Ok(())
    }

    /// Delivers what a query of its own makes.
    fn deliver_plan(
        &mut self,
        relation: Relation,
        late: Option<Relation>,
        mut plan: PlanNode,
        (way, policy): (SinkWay, SinkPolicy),
    ) -> Result<Building> {
        let id = relation.id;
        // Nobody stores the rows, so nobody asks when they arrived.
        plan.times.clear();
        let mut built = self.graph.plan(id, &plan)?;
        let late_table = late.as_ref().map(|late| {
            let (added, table) = self.late_nodes(late, &built.late, None);
            built.nodes.extend(added);
            table
        });
        let mut members = vec![id];
        members.extend(late.iter().map(|late| late.id));
        let restored = self.restorable(&members);
        let sink = self.start_sink(id, (way, policy), restored.is_none())?;
        self.team.install(built.nodes, restored.is_none())?;
        self.team.tap(built.output, true);
        self.sinks.insert(id, (built.output, sink));
        self.graph.publish(id, built.output, None);
        let status = match restored {
            Some(_) => RelationStatus::Running,
            None => RelationStatus::Building,
        };
        self.register(relation, None, any(), Some(plan), status.clone())?;
        if let Some(late) = late {
            self.register_late(late, late_table, Aside::default(), status)?;
        }
        if let Some(tables) = restored {
            self.load_later(id, tables);
            return Ok(None);
        }
        self.load_all()?;
        let pin = self.shared.pin_firmly();
        Ok(Some((members, self.feed_imports(&built.imports)?, pin)))
    }

    /// A sink begins anew with all rows; `None`: there is no such sink any more.
    pub fn republish_sink(&mut self, id: RelationId) -> Option<Result<Result<(), Refusal>>> {
        let (_, sink) = self.sinks.get(&id)?;
        let Some(kept) = sink.kept() else { return Some(Ok(Err(Refusal::IsNotKept))) };
        let Some(input) = kept.from else { return Some(Ok(Err(Refusal::IsAQuery))) };
        let anew = self.republish(input, kept);
        let (_, sink) = self.sinks.get_mut(&id)?;
        Some(anew.map(|anew| {
            *sink = RunningSink::Kept(Box::new(anew));
            Ok(())
        }))
    }

    fn republish(&self, input: RelationId, kept: &RunningKept) -> Result<RunningKept> {
        let status = self.shared.relations().get(&input).map(|r| r.status());
        if !matches!(status, Some(RelationStatus::Running)) {
            self.check_runs(input)?;
            return Err(Error::user(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "what the sink delivers is being built",
            ));
        }
        let anew = kept.anew()?;
        let pin = self.shared.pin_firmly();
        if let Some(table) = pin.relations.get(&input).and_then(|r| r.table.clone()) {
            anew.open(pin, table, self.events.clone())?;
        }
        Ok(anew)
    }
}

fn any() -> Properties {
    Properties { append_only: false, key: None, partitioning: Partitioning::Any }
}
