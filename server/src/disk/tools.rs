//! Files at rest: `--check`, `--repair`, `--import`.

use super::directory::Directory;
use super::files::Files;
use super::{keep_all, loading, thread};
use crate::shell::Clock;
use engine::durable::StateInspector;
use engine::store::{Commit, FileReport, Report, check as check_store, repair as repair_store};
use engine::{Node, NodeId, ddb};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a tool has to say, and whether all is well.
pub(crate) struct Verdict {
    /// For standard output, lines.
    pub(crate) text: String,
    /// Decides the exit status.
    pub(crate) is_good: bool,
}

/// Says what is in a directory of counters, or in one file of it, or in a dump of the original. Changes nothing.
///
/// # Errors
/// A text for the operator: it can't be read, or is no such thing.
pub(crate) fn check(path: &Path, store_name: &str) -> Result<Verdict, String> {
    if path.is_file() && !is_store_file(path) {
        return check_dump(path);
    }
    let (directory, file) = if path.is_file() {
        (path.parent().unwrap_or(Path::new("")).to_owned(), path.file_name())
    } else {
        (store_in(path, store_name), None)
    };
    let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
    let mut files =
        Files::new(&directory).map_err(|error| format!("can't open {}: {error}", directory.display()))?;
    let report =
        check_store(&mut files, &mut StateInspector::default()).map_err(|error| error.to_string())?;
    match file {
        None => Ok(of_directory(&directory, &report)),
        Some(name) => {
            let report = report.files.iter().find(|report| name == report.name.as_str());
            let report = report.ok_or_else(|| format!("{} is none of the store's files", path.display()))?;
            Ok(Verdict { text: format!("{}\n{report}\n", directory.display()), is_good: is_well(report) })
        }
    }
}

/// A hole that the next start ignores is none.
fn is_well(report: &FileReport) -> bool {
    report.is_whole() || report.is_obsolete
}

fn of_directory(directory: &Path, report: &Report) -> Verdict {
    let mut text = format!("{}\n", directory.display());
    for file in &report.files {
        let _ = writeln!(text, "{file}");
    }
    let verdict = match &report.start {
        Ok(None) if report.files.is_empty() => "There are no counters here.".to_owned(),
        Ok(None) => "All is well.".to_owned(),
        Ok(Some(torn)) if torn.is_blank => format!(
            "All is well. The log was not closed, as after a crash; it ends at offset {} of {}, before {} bytes of zeros.",
            torn.offset, torn.file, torn.bytes
        ),
        Ok(Some(torn)) => format!(
            "The log ends in the middle of a write, as after a crash; a start goes on from offset {} of {} and leaves {} bytes out.",
            torn.offset, torn.file, torn.bytes
        ),
        Err(error) => format!("A start is refused: {error}."),
    };
    let _ = writeln!(text, "{verdict}");
    Verdict { text, is_good: report.start.is_ok() }
}

fn check_dump(path: &Path) -> Result<Verdict, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("can't read {shown}: {error}"))?;
    Ok(match ddb::read(&bytes) {
        Ok(dump) => {
            let checksum = if dump.has_checksum { "its checksum is right" } else { "it has no checksum" };
            Verdict {
                text: format!(
                    "{shown}: a dump of the original, {} counters; {checksum}\n",
                    dump.counters.len()
                ),
                is_good: true,
            }
        }
        Err(error) => Verdict { text: format!("{shown}: {error}\n"), is_good: false },
    })
}

/// Makes a directory whole again that refuses to start.
///
/// # Errors
/// A text for the operator: it is in use, or the disk refuses.
pub(crate) fn repair(path: &Path, store_name: &str) -> Result<Verdict, String> {
    let path = store_in(path, store_name);
    if !path.is_dir() {
        return Err(format!("{} is no directory", path.display()));
    }
    let directory = Directory::take_existing(path)?;
    let seed = u64::from_le_bytes(crate::process::random()?);
    let repaired = repair_store(&mut directory.files()?, seed, &mut StateInspector::default())
        .map_err(|error| error.to_string())?;
    let mut text = format!("{}\n", directory.path().display());
    let Some(repaired) = repaired else {
        text.push_str("Nothing to repair: the counters can be loaded as they are.\n");
        return Ok(Verdict { text, is_good: true });
    };
    for file in &repaired.files {
        let _ = writeln!(text, "{file}");
    }
    for name in &repaired.missing {
        let _ = writeln!(text, "{name}: missing");
    }
    for (name, aside) in &repaired.set_aside {
        let _ = writeln!(text, "{name} is now called {aside}");
    }
    let _ = writeln!(
        text,
        "What could be read, {} records, is in {}; the next start goes on from there.",
        repaired.records, repaired.snapshot
    );
    Ok(Verdict { text, is_good: true })
}

/// Reads a dump of the original into the data directory of the node, which must have no counters yet.
///
/// # Errors
/// A text for the operator; the directory has no counters then.
pub(crate) fn import(
    node: &Arc<Node>,
    clock: Clock,
    directory: &Directory,
    dump: &Path,
    own: Option<NodeId>,
) -> Result<Verdict, String> {
    let options = thread::options(directory)?;
    let (mut store, opening) = loading::load(node, clock, directory.files()?, options, own)?;
    if opening.recovered != Commit(0) || store.stats().last_snapshot_bytes > 0 {
        return Err(format!(
            "{} holds {} counters already; a dump is read into an empty directory only",
            directory.path().display(),
            node.keyspace.len()
        ));
    }
    let counters = loading::import(node, clock, dump, own)?
        .ok_or_else(|| format!("can't read {}: there is no such file", dump.display()))?;
    let mut journal = engine::durable::Journal::new(Arc::clone(node));
    keep_all(&mut store, &mut journal, clock)?;
    store.close().map_err(|error| error.to_string())?;
    let text = format!("{counters} counters read into {}\n", directory.path().display());
    Ok(Verdict { text, is_good: true })
}

/// The store's directory: the path itself, or the usual one in it.
fn store_in(path: &Path, store_name: &str) -> PathBuf {
    let inner = path.join(store_name);
    let has_own = std::fs::read_dir(path)
        .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| is_store_file(&entry.path()))));
    if !has_own && inner.is_dir() { inner } else { path.to_owned() }
}

fn is_store_file(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.starts_with("counters-") && (name.ends_with(".log") || name.ends_with(".snapshot"))
}
