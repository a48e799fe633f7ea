//! Headwater: streaming SQL with incremental materialized views, in one crate and one binary.
//!
//! `CREATE MATERIALIZED VIEW` over Kafka topics, files and tables keeps an answer up to date as
//! rows arrive, change and disappear; `SELECT` reads it, `SUBSCRIBE` and sinks hand out its
//! changes. Every epoch of every view equals the batch answer over the same rows.
//!
//! The modules follow the life of a query; each imports only from those above it in this list:
//!
//! * [`error`], [`config`], [`cancel`]: the one error type, every limit, the end of long work;
//! * [`delta`], [`time`]: rows with weights, keys and hashes; epochs, watermarks, windows;
//! * [`expr`], [`state`], [`format`]: expressions over deltas, tables of operators, bytes to rows;
//! * [`store`], [`checkpoint`]: the data directory, its log and its checkpoints;
//! * [`aggregate`], [`connector`]: aggregates over weights; Kafka, files, generators;
//! * [`library`]: the functions of SQL by name;
//! * [`operator`], [`catalog`]: incremental kernels; definitions;
//! * [`sql`]: text to bound plans; [`plan`]: bound plans to operators;
//! * [`runtime`]: epochs, workers, exchanges, sources and sinks at work;
//! * [`engine`]: the facade;
//! * [`server`]: PostgreSQL wire; [`shell`]: the interactive shell; [`cli`]: the program.
//!
//! Start with [`Engine::open`], or read `operator/union.rs`, the smallest operator.

pub mod aggregate;
pub mod cancel;
pub mod catalog;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod connector;
pub mod delta;
pub mod engine;
pub mod error;
pub mod expr;
pub mod format;
pub mod library;
pub mod operator;
pub mod plan;
pub mod runtime;
pub mod server;
pub mod shell;
pub mod sql;
pub mod state;
pub mod store;
pub mod time;

pub use config::Config;
pub use engine::{Engine, Outcome, Session};
pub use error::{Error, Result};
