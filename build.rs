//! Links with mold where it is installed, and with the system's linker where it is not.
//!
//! Only this crate's own artifacts are concerned, so dependencies are built the same either way and
//! their builds can be kept.

use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let mold = Command::new("mold")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if linux && mold {
        println!("cargo::rustc-link-arg=-fuse-ld=mold");
    }
}
