//! RETRY ERRORS ON t: the messages in a table's `$errors` are decoded again. And what is to be done
//! before that: ALTER TABLE t FORMAT ..

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tokio::sync::oneshot;

use super::outcome::{Notice, Outcome, Rows};
use super::session::Session;
use crate::catalog::{Relation, RelationKind};
use crate::connector::{ConnectorSpec, SOURCES, Source};
use crate::error::{Error, Result, sqlstate};
use crate::format::Changelog;
use crate::runtime::{KeptRejects, Retried};
use crate::sql;
use crate::sql::statement::AlterFormat;

impl Session {
    pub(super) async fn retry_errors(&mut self, name: &str) -> Result<Outcome> {
        self.refuse_in_transaction("RETRY ERRORS")?;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let relation = Arc::clone(core.shared.catalog().get(name)?);
        let spec = connector_of(&relation)?;
        check_order(&relation, spec)?;
        let id = relation.id;
        let coordinator = &core.coordinator;
        let kept = coordinator.call(move |c| c.rejects_of(id)).await??;
        let source = coordinator.call(move |c| c.source_of(id)).await?;
        let source = source.ok_or_else(|| Error::internal("a table has no source"))?;
        let decoded = tokio::task::spawn_blocking(move || decode_again(source.as_ref(), kept));
        let decoded = decoded.await.map_err(|e| Error::internal(e.to_string()))??;
        // From here on its client waits: half of it can't be undone.
        self.commit_point.pass();
        let (done, taken) = oneshot::channel();
        coordinator.call(move |c| c.retried(id, decoded, done)).await?;
        let lost = || Error::internal("what was decoded again was lost");
        let (decoded, left) = taken.await.map_err(|_| lost())??;
        // They are taken: behind this they are visible, and so in the next life, too.
        coordinator.commit(Vec::new(), Vec::new(), Vec::new()).await?;
        self.engine.checkpoint().await?;
        let column = |count: usize| -> ArrayRef { Arc::new(Int64Array::from(vec![count as i64])) };
        let batch = RecordBatch::try_new(retry_fields(), vec![column(decoded), column(left)])?;
        Ok(Outcome::Rows(Rows::ready(retry_fields(), vec![batch])))
    }

    pub(super) async fn alter_format(&mut self, alter: &AlterFormat) -> Result<Outcome> {
        const TAG: &str = "ALTER TABLE";
        self.refuse_in_transaction(TAG)?;
        let AlterFormat { name, if_exists, format, text } = alter;
        let core = self.engine.core.clone();
        let _one_at_a_time = self.turn(core.ddl.lock()).await?;
        let catalog = core.shared.catalog();
        let Some(relation) = catalog.find(name) else {
            if *if_exists {
                let text = format!("relation \"{name}\" does not exist, skipping");
                self.notices.push(Notice::new(text));
                return Ok(self.done(TAG));
            }
            return Err(catalog.get(name).err().unwrap_or_else(|| Error::internal("a name")));
        };
        let spec = connector_of(relation)?;
        if format.changelog.is_keyed() != spec.format.changelog.is_keyed() {
            let (new, old) = (format.changelog.name(), spec.format.changelog.name());
            return Err(Error::unsupported(format!(
                "table \"{name}\" has FORMAT {old}, which can't become FORMAT {new}"
            ))
            .with_detail("The one adds rows, the other replaces those of a key.")
            .with_hint("Create another table."));
        }
        let spec = ConnectorSpec { format: format.clone(), ..spec.clone() };
        let connector = SOURCES.iter().find(|s| s.name == spec.connector);
        let connector = connector.ok_or_else(|| Error::internal("a connector is gone"))?;
        let source = self.reading(connector, &spec, relation)?;
        let altered = Relation {
            definition: sql::with_format(&relation.definition, text),
            connector: Some(spec),
            ..relation.as_ref().clone()
        };
        self.commit_point.pass();
        let alter = core.coordinator.call(move |c| c.reformat_source(altered.id, source, &altered));
        alter.await??;
        // It is so in the next life, too.
        self.engine.checkpoint().await?;
        Ok(self.done(TAG))
    }
}

/// The columns of RETRY ERRORS.
pub(super) fn retry_fields() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![column("decoded"), column("rejected")]))
}

fn decode_again(source: &dyn Source, kept: Vec<KeptRejects>) -> Result<Vec<Retried>> {
    let again = |kept: KeptRejects| {
        let again = source.decode_again(kept.split(), &kept.messages())?;
        Ok(Retried { kept, again })
    };
    kept.into_iter().map(again).collect()
}

/// What a table reads.
fn connector_of(relation: &Relation) -> Result<&ConnectorSpec> {
    let name = &relation.name;
    match (&relation.kind, &relation.connector) {
        (RelationKind::Table { .. }, Some(spec)) => Ok(spec),
        // A view that is created now reads its messages again, and may have them already.
        (RelationKind::Source, _) => Err(Error::unsupported(format!(
            "source \"{name}\" keeps no rows: what it rejects can't be added to them"
        ))
        .with_hint("Use CREATE TABLE with the same columns and options.")),
        (RelationKind::MaterializedView, _) => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{name}\" is a materialized view"),
        )
        .with_hint("Its errors go when the rows go that make them: UPDATE or DELETE those.")),
        _ => Err(Error::user(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{name}\" is not read from an external system"),
        )),
    }
}

/// A message that comes late may not take the place of a newer one.
fn check_order(relation: &Relation, spec: &ConnectorSpec) -> Result<()> {
    if spec.format.changelog == Changelog::Plain && spec.key.is_empty() {
        return Ok(());
    }
    let name = &relation.name;
    Err(Error::unsupported(format!(
        "RETRY ERRORS is not supported on \"{name}\": its messages replace those of their key"
    ))
    .with_detail("A newer message of the same key may have come since.")
    .with_hint(format!("ALTER TABLE \"{name}\" RESUME AT EARLIEST; reads all in their order.")))
}
