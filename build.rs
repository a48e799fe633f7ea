//! How this crate's own artifacts are linked; dependencies are built the same whatever it says, so
//! that their builds can be kept.
//!
//! * What is built often is linked with mold, where it is installed.
//! * What is shipped is linked with the toolchain's linker: without names of functions, with the
//!   places packed that the loader relocates, which are 4 MB otherwise, and with functions of the
//!   same code put in once, as every crate has its own copies of what is generic. Older mold packs
//!   places in a way that the loader refuses.

use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=HEADWATER_VERSION={}", version());
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        return;
    }
    let shipped = variable("PROFILE") == "release" && variable("DEBUG") == "false";
    match shipped {
        true => {
            println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
            if loader_unpacks() {
                println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
            }
            if has_lld() {
                println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
            }
        }
        false if has_mold() => println!("cargo::rustc-link-arg=-fuse-ld=mold"),
        false => {}
    }
}

/// The version, and where this is what is shipped, built in a repository, the commit. Everywhere
/// else a new commit would have everything compiled again.
fn version() -> String {
    let version = variable("CARGO_PKG_VERSION");
    let shipped = variable("OUT_DIR").split('/').any(|part| part == "release");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
    };
    let commit = shipped.then(|| git(&["rev-parse", "--short=12", "HEAD"])).flatten();
    let Some(commit) = commit else { return version };
    if let Some(path) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={path}");
    }
    format!("{version} ({commit})")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn has_mold() -> bool {
    let version = Command::new("mold").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Whether the toolchain links with the linker that it brings along: it does for this target, and
/// where nobody has named another one.
fn has_lld() -> bool {
    let target = variable("TARGET");
    let named = !variable("RUSTC_LINKER").is_empty()
        || ["linker", "fuse-ld"].iter().any(|n| variable("CARGO_ENCODED_RUSTFLAGS").contains(n));
    if target != "x86_64-unknown-linux-gnu" || variable("HOST") != target || named {
        return false;
    }
    let output = Command::new(variable("RUSTC")).args(["--print", "sysroot"]).output();
    let root = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    let linker = format!("lib/rustlib/{target}/bin/gcc-ld/ld.lld");
    root.is_ok_and(|root| std::path::Path::new(&root).join(linker).exists())
}

/// Whether the program is for this machine, and its loader knows packed relocations: that of glibc
/// does from 2.36 on.
fn loader_unpacks() -> bool {
    if variable("CARGO_CFG_TARGET_ENV") != "gnu" || variable("HOST") != variable("TARGET") {
        return false;
    }
    let Ok(output) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().last().and_then(|version| version.split_once('.'));
    let number = |part: &str| part.parse::<u32>().unwrap_or(0);
    version.is_some_and(|(major, minor)| (number(major), number(minor)) >= (2, 36))
}
