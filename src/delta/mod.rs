//! Deltas: changes of relations as rows with signed weights (Z-sets), and what every other layer
//! does with them: consolidate, encode keys, hash, print.
//!
//! The algebra is that of Z-sets (Budiu et al., "DBSP: Automatic Incremental View Maintenance",
//! VLDB 2023): an insert is +1, a retraction -1, an update both. Nothing here knows DataFusion.

mod batch;
mod consolidate;
pub mod jsonb;
pub mod jsonb_order;
mod key;
mod key_decode;
pub mod style;
pub mod text;
mod time_text;
mod utf8;
pub mod zone;

pub use batch::{DeltaBatch, Weight, batch_of, concat};
pub use consolidate::{Order, consolidate, net};
pub use key::{KEY_GROUPS, Keys, hash_key, key_group, worker_of};
pub use key_decode::{decode_keys, is_key};
pub use utf8::checked_utf8;
