//! `GET /api/picture?view=NAME`: the operators of a view with what they have done, and where they
//! stand. Figures grow: who asks again makes rates of two answers. With `places=false` it is the
//! figures alone.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Console;
use super::answer::Refused;
use super::layout::{BOX, Layout, NODES_MAX, lay_out};
use crate::engine::picture::{Picture, PictureEdge, PictureNode};
use crate::error::Error;

#[derive(Deserialize)]
pub(super) struct Asked {
    view: String,
    places: Option<bool>,
}

/// See the module.
pub(super) async fn picture(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Query(Asked { view, places }): Query<Asked>,
) -> Result<Response, Refused> {
    let asking = console.asking(&headers)?;
    let busy = || Refused::busy("too many requests of the console run already");
    let place = Arc::clone(&console.running).try_acquire_owned().map_err(|_| busy())?;
    let picture = console.session(&asking)?.picture(&view).await?;
    let layout = match places != Some(false) && picture.nodes.len() <= NODES_MAX {
        true => {
            let boxes: Vec<u32> = picture.nodes.iter().map(|node| node.id).collect();
            let lines = picture.edges.iter().filter(|edge| edge.outlet != "feedback");
            let lines: Vec<(u32, u32)> = lines.map(|edge| (edge.from, edge.to)).collect();
            let laid = tokio::task::spawn_blocking(move || lay_out(&boxes, &lines)).await;
            Some(laid.map_err(|e| Error::internal(e.to_string()))?)
        }
        false => None,
    };
    drop(place);
    Ok(Json(as_json(&picture, layout.as_ref())).into_response())
}

fn as_json(picture: &Picture, layout: Option<&Layout>) -> Value {
    let nodes: Vec<Value> = picture.nodes.iter().map(node_json).collect();
    let edges: Vec<Value> = picture.edges.iter().map(edge_json).collect();
    let layout = layout.map(|layout| {
        json!({
            "places": layout.places,
            "width": layout.width,
            "height": layout.height,
            "box": BOX,
        })
    });
    json!({
        "workers": picture.workers,
        "levels": { "ok": picture.levels.0, "low": picture.levels.1 },
        "nodes": nodes,
        "edges": edges,
        "layout": layout,
    })
}

fn node_json(node: &PictureNode) -> Value {
    let table = |table: &crate::runtime::TableSize| {
        json!({
            "name": table.name,
            "rows": table.rows,
            "on_disk": table.out,
            "bytes": table.bytes,
            "stays": table.stays,
        })
    };
    json!({
        "id": node.id,
        "name": node.name,
        "detail": node.detail,
        "reads": node.reads,
        "place": node.place,
        "rows_in": node.rows_in,
        "rows_out": node.rows_out,
        "busy_us": node.busy_us,
        "waiting_us": node.waiting_us,
        "tables": node.tables.iter().map(table).collect::<Vec<_>>(),
    })
}

fn edge_json(edge: &PictureEdge) -> Value {
    let watermark = |mark: &(String, String, Option<String>)| {
        let (column, at, held_by) = mark;
        json!({ "column": column, "at": at, "held_by": held_by })
    };
    json!({
        "from": edge.from,
        "to": edge.to,
        "outlet": edge.outlet,
        "exchange": edge.exchange,
        "watermarks": edge.watermarks.iter().map(watermark).collect::<Vec<_>>(),
    })
}
