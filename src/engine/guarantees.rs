//! SHOW GUARANTEES and SHOW OFFSETS: how often what comes in goes out, link by link, and where
//! sources stand.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::outcome::Rows;
use super::session::Session;
use super::show::{Column, table};
use crate::catalog::{Catalog, Relation, RelationId, RelationKind};
use crate::connector::{Guarantee, SOURCES};
use crate::error::{Error, Result, sqlstate};
use crate::store::Requests;

/// The columns of SHOW GUARANTEES.
pub(super) const GUARANTEE_COLUMNS: [&str; 5] = ["sink", "link", "name", "guarantee", "detail"];

/// The columns of SHOW OFFSETS.
pub(super) const OFFSET_COLUMNS: [&str; 5] = ["relation", "connector", "split", "next", "kept"];

/// What a link of the way from inputs to a receiver promises.
struct Link {
    kind: &'static str,
    name: String,
    guarantee: Guarantee,
    detail: String,
}

impl Session {
    /// Of each sink its inputs, its receiver, and the weakest of them.
    pub(super) async fn show_guarantees(&self, of: Option<&str>) -> Result<Rows> {
        let core = &self.engine.core;
        let catalog = core.shared.catalog();
        let mut sinks: Vec<Arc<Relation>> =
            catalog.relations().filter(|r| r.kind == RelationKind::Sink).cloned().collect();
        if let Some(name) = of {
            sinks.retain(|sink| sink.name == name);
            if sinks.is_empty() {
                let message = format!("sink \"{name}\" does not exist");
                return Err(Error::user(sqlstate::UNDEFINED_TABLE, message));
            }
        }
        let ids: Vec<RelationId> = sinks.iter().map(|sink| sink.id).collect();
        let delivered = core
            .coordinator
            .call(move |c| ids.iter().map(|id| c.guarantee_of(*id)).collect::<Vec<_>>());
        let delivered = delivered.await?;
        let log = core.kept.as_ref().map(|kept| log_of(kept.disk.requests().as_deref()));
        let kept = log.is_some();
        let mut rows: Vec<[String; 5]> = Vec::new();
        for (sink, guarantee) in sinks.iter().zip(delivered) {
            let mut links = inputs_of(&catalog, sink, log.as_deref());
            links.push(receiver(sink, guarantee.unwrap_or(Guarantee::WhileItRuns), kept));
            let weakest = links.iter().max_by_key(|link| rank(link.guarantee));
            let whole = weakest.map(|link| Link {
                kind: "altogether",
                name: sink.name.clone(),
                guarantee: link.guarantee,
                detail: match rank(link.guarantee) {
                    0 => "no link is weaker".to_owned(),
                    _ => format!("by {} \"{}\"", link.kind, link.name),
                },
            });
            rows.extend(links.into_iter().chain(whole).map(|link| {
                let Link { kind, name, guarantee, detail } = link;
                [sink.name.clone(), kind.into(), name, guarantee.name().into(), detail]
            }));
        }
        let column = |at: usize| Column::Text(rows.iter().map(|r| Some(r[at].clone())).collect());
        table(GUARANTEE_COLUMNS.iter().copied().zip((0..5).map(column)).collect())
    }

    /// Of each split of each source the next position, and the one in the newest checkpoint.
    pub(super) async fn show_offsets(&self) -> Result<Rows> {
        let core = &self.engine.core;
        let catalog = core.shared.catalog();
        let sources: Vec<Arc<Relation>> = catalog
            .relations()
            .filter(|r| r.connector.is_some() && r.kind != RelationKind::Sink)
            .cloned()
            .collect();
        let ids: Vec<RelationId> = sources.iter().map(|source| source.id).collect();
        let offsets = core
            .coordinator
            .call(move |c| ids.iter().map(|id| c.offsets_of(*id)).collect::<Vec<_>>());
        let offsets = offsets.await?;
        let (mut names, mut connectors) = (Vec::new(), Vec::new());
        let (mut splits, mut next, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (source, offsets) in sources.iter().zip(offsets) {
            for (split, at, noted) in offsets {
                names.push(Some(source.name.clone()));
                connectors.push(source.connector.as_ref().map(|c| c.connector.clone()));
                splits.push(Some(i64::from(split)));
                next.push(Some(at));
                kept.push(noted);
            }
        }
        let columns = [
            Column::Text(names),
            Column::Text(connectors),
            Column::Number(splits),
            Column::Number(next),
            Column::Number(kept),
        ];
        table(OFFSET_COLUMNS.iter().copied().zip(columns).collect())
    }
}

/// The weaker, the greater.
fn rank(guarantee: Guarantee) -> u8 {
    match guarantee {
        Guarantee::ExactlyOnce => 0,
        Guarantee::AtLeastOnce => 1,
        Guarantee::WhileItRuns => 2,
    }
}

/// The tables and sources that a sink's rows come from.
fn inputs_of(catalog: &Catalog, sink: &Relation, log: Option<&str>) -> Vec<Link> {
    let mut todo = sink.depends_on.clone();
    let mut seen = BTreeSet::new();
    let mut links = Vec::new();
    while let Some(id) = todo.pop() {
        let Some(relation) = catalog.by_id(id).filter(|_| seen.insert(id)) else { continue };
        todo.extend(&relation.depends_on);
        if matches!(relation.kind, RelationKind::Source | RelationKind::Table { .. }) {
            links.push(input(relation, log));
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

/// What keeps what was acknowledged, and what that costs.
fn log_of(requests: Option<&Requests>) -> String {
    let kept = "what was acknowledged is in the log";
    match requests.map(Requests::write_time) {
        None => kept.to_owned(),
        Some(None) => format!("{kept}, in an object store: a write waits for one request"),
        Some(Some(time)) => format!(
            "{kept}, in an object store: a write waits for one request, {:.1} ms on average",
            time.as_secs_f64() * 1e3
        ),
    }
}

/// `log`: what keeps what is acknowledged, where anything does.
fn input(relation: &Relation, log: Option<&str>) -> Link {
    let (kind, name) = (relation.kind.noun(), relation.name.clone());
    let link = |guarantee, detail: &str| Link { kind, name, guarantee, detail: detail.to_owned() };
    let Some(log) = log else {
        return link(Guarantee::WhileItRuns, "there is no data directory");
    };
    let Some(connector) = &relation.connector else {
        return link(Guarantee::ExactlyOnce, log);
    };
    let replays = SOURCES.iter().any(|s| s.name == connector.connector && s.replays);
    let given = |name: &str| {
        let found = connector.options.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_ascii_lowercase())
    };
    if !replays {
        return link(Guarantee::WhileItRuns, "its rows come once, and can't be read again");
    }
    if given("properties.isolation.level").is_some_and(|level| level == "read_uncommitted") {
        let detail = "read_uncommitted: messages of transactions that were given up count, too";
        return link(Guarantee::AtLeastOnce, detail);
    }
    match given("on_offset_gone").filter(|policy| policy != "fail") {
        Some(policy) => link(
            Guarantee::AtLeastOnce,
            &format!("on_offset_gone = '{policy}': goes on where messages are gone"),
        ),
        None => link(Guarantee::ExactlyOnce, "read on from the positions in the checkpoint"),
    }
}

fn receiver(sink: &Relation, guarantee: Guarantee, kept: bool) -> Link {
    let connector = sink.connector.as_ref().map_or("", |c| c.connector.as_str());
    let detail = match (guarantee, connector) {
        (Guarantee::ExactlyOnce, "kafka") => {
            "in transactions, for readers with isolation.level = read_committed"
        }
        (Guarantee::ExactlyOnce, "postgres") => {
            "in transactions that note how far it is, in headwater_sinks"
        }
        (Guarantee::ExactlyOnce, _) => "its length is in the checkpoint",
        (Guarantee::AtLeastOnce, _) => "delivery = 'at_least_once': again after a failure",
        (Guarantee::WhileItRuns, _) if kept => "delivered from memory; a start begins anew",
        (Guarantee::WhileItRuns, _) => "there is no data directory; a start begins anew",
    };
    Link { kind: "sink", name: sink.name.clone(), guarantee, detail: detail.to_owned() }
}
