//! Replacing files in one step.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Writes a file so that a reader, or a crash, sees either the old content or the new and nothing in
/// between. It writes to another file in the same folder, which then replaces `path`.
///
/// If `path` is a symbolic link, the file that it leads to is replaced, or created. The new file gets
/// the access rights (mode) of the old one, and its owner as far as the system allows. A read-only
/// file, and anything that is not a regular file, is refused before anything is written.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |cause| Error::Io { path: path.to_owned(), cause };
    let target = target(path).map_err(io)?;
    let old = replaceable(&target).map_err(io)?;
    let (mut file, temporary) = create_beside(&target, old.is_some()).map_err(io)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| old.map_or(Ok(()), |old| inherit(&file, &old)))
        .and_then(|()| file.sync_all());
    let done = written.and_then(|()| fs::rename(&temporary, &target));
    if done.is_err() {
        // The first error is the one to report, so the result of this does not matter.
        let _ = fs::remove_file(&temporary);
    }
    drop(file); // The lock is kept until the file has its final name.
    done.map_err(io)?;
    // Until the folder is on disk, a power cut may bring the old file back, but whole. Not every system
    // can sync a folder, and the new file is already in its place, so errors are ignored.
    let _ = File::open(folder_of(&target)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The file that the symbolic links of `path` lead to. It need not exist.
fn target(path: &Path) -> io::Result<PathBuf> {
    /// As many links in a row as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_symlink() => {
                let next = fs::read_link(&target)?;
                target = folder_of(&target).join(next);
            }
            Ok(_) => return Ok(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many symbolic links lead from one to the other"))
}

/// The metadata of the file `path`; `None` if there is none. Fails if the file must not be replaced.
fn replaceable(path: &Path) -> io::Result<Option<Metadata>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a folder, not a file"));
    }
    if !metadata.is_file() {
        let reason = "this is a device, a pipe or a socket, not a file that can be replaced";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    if metadata.permissions().readonly() {
        // The superuser could write it all the same, but should not do so by accident.
        let reason = "this file is read-only";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    // The right to write in the folder is enough to replace other users' files. This checks the file
    // itself.
    File::options().write(true).open(path)?;
    Ok(Some(metadata))
}

/// Gives a new file the owner and the mode of the `old` one.
fn inherit(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};

        // Only the superuser can give files away. A member of the group can still set the group.
        if fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
            let _ = fchown(file, None, Some(old.gid()));
        }
    }
    file.set_permissions(old.permissions())
}

/// Creates a new file in the folder of `path`. It is locked as long as it is open. Also removes files
/// that killed writers left. If `private` is set, nobody else can read the new file until it gets the
/// mode of the file that it replaces.
fn create_beside(path: &Path, private: bool) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    remove_abandoned(folder_of(path), name);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = private;
    loop {
        let temporary = path.with_file_name(temporary_name(name));
        let file = options.open(&temporary)?;
        // If the system has no locks, nobody takes this file for abandoned either.
        let _ = file.lock();
        // Another writer may have removed it before it was locked.
        if temporary.exists() {
            return Ok((file, temporary));
        }
    }
}

/// A name that no other file has: `.name.0123456789abcdef.tmp`.
fn temporary_name(name: &OsStr) -> OsString {
    let random = RandomState::new().build_hasher().finish();
    let mut temporary = OsString::from(".");
    temporary.push(short(name));
    temporary.push(format!(".{random:016x}.tmp"));
    temporary
}

/// The name itself, or its checksum if a longer name could be too long for a file system. Two files
/// with the same checksum also remove each other's abandoned files, which does no harm.
fn short(name: &OsStr) -> OsString {
    /// Some encrypted file systems allow names of no more than 143 bytes.
    const LONGEST: usize = 100;
    match name.as_encoded_bytes() {
        bytes if bytes.len() <= LONGEST => name.to_owned(),
        bytes => format!("{:08x}", crc32fast::hash(bytes)).into(),
    }
}

/// Whether `file` is a [`temporary_name`] of `name`.
fn is_temporary(file: &OsStr, name: &OsStr) -> bool {
    let random = file
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(short(name).as_encoded_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".tmp"));
    random.is_some_and(|random| random.len() == 16 && random.iter().all(u8::is_ascii_hexdigit))
}

/// Removes the temporary files of `name` that nobody is writing. A lock ends with its process, however
/// the process ends, so an unlocked file is abandoned.
fn remove_abandoned(folder: &Path, name: &OsStr) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name(), name)) {
        // A file that cannot be removed now may be removed the next time.
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
        let (writing, at_work) = create_beside(&path, false).unwrap();
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
                        let read = fs::read(path).unwrap();
                        assert_eq!(read, vec![read[0]; 10_000]);
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["run"]);
    }

    #[test]
    fn long_names_are_replaced_and_their_abandoned_files_removed() {
        let folder = tempfile::tempdir().unwrap();
        for length in [1, 100, 101, 142, 143, 233, 234, 254, 255] {
            let path = folder.path().join("n".repeat(length));
            let (writing, abandoned) = create_beside(&path, false).unwrap();
            drop(writing); // As if killed.
            replace(&path, b"whole").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert!(!abandoned.exists(), "{length}");
        }
        // One byte more than names can have.
        let path = folder.path().join("n".repeat(256));
        assert!(matches!(replace(&path, b""), Err(Error::Io { .. })));
        assert_eq!(names(folder.path()).len(), 9);
    }
}

#[cfg(all(test, unix))]
mod unix_tests {
    use std::os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn refusal(path: &Path) -> String {
        let refused = replace(path, b"new").unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
        refused.to_string()
    }

    #[test]
    fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, there) = (folder.path().join("inner"), folder.path().join("inner/there"));
        fs::create_dir(&inner).unwrap();
        fs::write(&there, "old").unwrap();
        symlink("inner/there", folder.path().join("direct")).unwrap();
        symlink(folder.path().join("direct"), folder.path().join("through")).unwrap();
        symlink("../direct", inner.join("back")).unwrap();
        symlink("inner", folder.path().join("folder")).unwrap();
        for name in ["direct", "through", "inner/back", "folder/there", "folder/back"] {
            let link = folder.path().join(name);
            replace(&link, name.as_bytes()).unwrap();
            assert_eq!(fs::read(&there).unwrap(), name.as_bytes());
            let is_link = fs::symlink_metadata(&link).unwrap().is_symlink();
            assert_eq!(is_link, name != "folder/there", "{name}");
        }
        // A link to a file that is not there creates it.
        symlink("inner/later", folder.path().join("dangling")).unwrap();
        replace(&folder.path().join("dangling"), b"new").unwrap();
        assert_eq!(fs::read(inner.join("later")).unwrap(), b"new");
        assert!(fs::symlink_metadata(folder.path().join("dangling")).unwrap().is_symlink());

        for (from, to) in [("loop", "loop"), ("ping", "pong"), ("pong", "ping")] {
            symlink(to, folder.path().join(from)).unwrap();
        }
        assert!(refusal(&folder.path().join("loop")).contains("links"));
        assert!(refusal(&folder.path().join("ping")).contains("links"));
        symlink("nowhere/file", folder.path().join("lost")).unwrap();
        refusal(&folder.path().join("lost"));
        assert!(refusal(&folder.path().join("folder")).contains("folder, not a file"));
        assert_eq!(names(&inner), ["back", "later", "there"]);
    }

    #[test]
    fn the_mode_of_a_file_stays_and_a_read_only_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        replace(&path, b"new").unwrap();
        let usual = folder.path().join("usual");
        fs::write(&usual, "").unwrap();
        assert_eq!(mode(&path), mode(&usual), "a new file is like any other");
        for bits in [0o600, 0o640, 0o666, 0o755, 0o200] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            replace(&path, &bits.to_le_bytes()).unwrap();
            assert_eq!(mode(&path), bits);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        replace(&path, b"old").unwrap();
        for bits in [0o444, 0o400, 0o555, 0o000] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            assert!(refusal(&path).contains("read-only"));
            assert_eq!(mode(&path), bits);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["run", "usual"]);
    }

    /// Only the superuser can try.
    #[test]
    fn the_owner_of_a_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        fs::write(&path, "old").unwrap();
        if chown(&path, Some(12345), Some(23456)).is_ok() {
            replace(&path, b"new").unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (12345, 23456));
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("folder")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status();
        assert!(made.unwrap().success());
        let _listening = UnixListener::bind(path("socket")).unwrap();
        symlink("pipe", path("link")).unwrap();
        for name in ["pipe", "socket", "link"] {
            assert!(refusal(&path(name)).contains("not a file that can be replaced"), "{name}");
        }
        for file in [Path::new("/dev/null"), Path::new("/dev/full")] {
            assert!(refusal(file).contains("device"));
            assert!(fs::metadata(file).unwrap().file_type().is_char_device());
        }
        assert!(refusal(&path("folder")).contains("folder, not a file"));
        assert!(fs::metadata(path("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["folder", "link", "pipe", "socket"]);
    }

    /// As documented: the other name keeps the old content.
    #[test]
    fn a_hard_link_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("run"), folder.path().join("other"));
        fs::write(&path, "old").unwrap();
        fs::hard_link(&path, &other).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&other).unwrap()),
            (b"new".to_vec(), b"old".to_vec())
        );
    }

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }
}
