//! Tells the binary which commit it was built from: of the package it came in, or of the repository it lies in.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// How many characters of the commit's name are shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ROUNDSMAN_COMMIT");
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let commit = given().or_else(|| packaged(&folder)).or_else(|| checked_out(&folder));
    let package = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| package.to_owned(), |commit| format!("{package} (commit {commit})"));
    println!("cargo:rustc-env=ROUNDSMAN_VERSION={version}");
}

/// By whoever builds without a repository, such as a container.
fn given() -> Option<String> {
    short(std::env::var_os("ROUNDSMAN_COMMIT")?.to_str()?)
}

/// Cargo writes it into the packages that it makes.
fn packaged(folder: &Path) -> Option<String> {
    let info = std::fs::read_to_string(folder.join(".cargo_vcs_info.json")).ok()?;
    short(info.split_once("\"sha1\"")?.1.split('"').nth(1)?)
}

/// Of our own repository only: a package may be unpacked within somebody else's.
fn checked_out(folder: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if folder.canonicalize().ok()?.parent()?.parent()? != root {
        return None;
    }
    // This file grows with each commit, checkout and reset.
    let log = folder.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    short(&git(&["rev-parse", "HEAD"])?)
}

fn short(commit: &str) -> Option<String> {
    let hex = commit.len() >= SHOWN && commit.chars().all(|c| c.is_ascii_hexdigit());
    hex.then(|| commit.get(..SHOWN).map(str::to_owned)).flatten()
}
