//! Replacing files in one step.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// The whole content of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Writes a file so that a reader, or a crash, sees either the old content or the new and nothing
/// in between: into another file of the same folder, which then takes the place of `path`.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let (mut file, temporary) = create_beside(path).map_err(io)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let done = written.and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        // The first error is the one to report, whether or not this works too.
        let _ = fs::remove_file(&temporary);
    }
    drop(file); // Locked until it has its final name.
    done.map_err(io)?;
    // Until the folder is on the disk a power cut may bring the old file back, whole as it was.
    // Not every system can sync a folder, and the new file is in its place already.
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Creates a new file in the folder of `path`, locked for as long as it is open, and removes those
/// of writers that were killed.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    remove_abandoned(folder_of(path), name);
    loop {
        let temporary = path.with_file_name(temporary_name(name));
        let file = File::create_new(&temporary)?;
        // Where there are no locks, nobody takes this file for abandoned.
        let _ = file.lock();
        // Unless somebody did before it was locked.
        if temporary.exists() {
            return Ok((file, temporary));
        }
    }
}

/// A name that no other file has: `.name.0123456789abcdef.tmp`.
fn temporary_name(name: &OsStr) -> OsString {
    let random = RandomState::new().build_hasher().finish();
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{random:016x}.tmp"));
    temporary
}

/// Whether `file` is a [`temporary_name`] of `name`.
fn is_temporary(file: &OsStr, name: &OsStr) -> bool {
    let random = file
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_encoded_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".tmp"));
    random.is_some_and(|random| random.len() == 16 && random.iter().all(u8::is_ascii_hexdigit))
}

/// Removes the temporary files of `name` that nobody is writing: the lock on a file goes with the
/// process that holds it, however it ends.
fn remove_abandoned(folder: &Path, name: &OsStr) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name(), name)) {
        // What cannot be removed now may be the next time; it disturbs nobody.
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let (writing, at_work) = create_beside(&path).unwrap();
        let abandoned = path.with_file_name(temporary_name(OsStr::new("run")));
        let strangers = [
            ".run.tmp",
            ".run.0123456789abcde.tmp",
            ".run.0123456789abcdeg.tmp",
            ".other.0123456789abcdef.tmp",
            "run.0123456789abcdef.tmp",
            ".run.0123456789abcdef",
        ];
        for file in strangers.map(|name| path.with_file_name(name)).iter().chain([&abandoned]) {
            fs::write(file, "half").unwrap();
        }
        replace(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(!abandoned.exists());
        assert!(at_work.exists(), "its writer is alive");
        assert_eq!(names(folder.path()).len(), strangers.len() + 2);

        drop(writing); // As if killed.
        replace(&path, b"newer").unwrap();
        assert!(!at_work.exists());
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }

    #[test]
    fn writers_at_the_same_time_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(path, &vec![writer; 10_000]).unwrap();
                        let read = read(path).unwrap();
                        assert_eq!(read, vec![read[0]; 10_000]);
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["run"]);
    }
}
