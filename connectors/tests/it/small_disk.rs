//! A small disk of a test's own, that can be filled up, and made read-only.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system of a few MiB; dropping it takes it away.
pub(crate) struct SmallDisk {
    folder: tempfile::TempDir,
    /// The file that a file system with a journal lies in.
    _image: Option<tempfile::NamedTempFile>,
}

impl SmallDisk {
    /// Mounts one in memory, or says why not and gives none: a system may refuse that to whom it likes. With
    /// `USHER_REQUIRE_PEERS=1` it is a failure that a program for it is missing.
    pub(crate) fn mount(mebibytes: u32) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let disk = Self {
            folder: tempfile::tempdir()?,
            _image: None,
        };
        let size = format!("size={mebibytes}m,mode=0777");
        let path = disk.path().to_owned();
        disk.if_done(&mut [Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "usher-test"])
            .arg(path)])
    }

    /// Mounts one with a file system that can be frozen, likewise.
    #[allow(dead_code)] // one of the two test programs that take this file in has no use for it
    pub(crate) fn mount_freezable(mebibytes: u64) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let image = tempfile::NamedTempFile::new()?;
        image.as_file().set_len(mebibytes << 20)?;
        let file = image.path().to_owned();
        let disk = Self {
            folder: tempfile::tempdir()?,
            _image: Some(image),
        };
        let path = disk.path().to_owned();
        disk.if_done(&mut [
            Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&file),
            Command::new("mount").args(["-o", "loop"]).arg(&file).arg(path),
        ])
    }

    fn if_done(self, commands: &mut [&mut Command]) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        for command in commands {
            let reason = match command.output() {
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(error) if std::env::var("USHER_REQUIRE_PEERS").is_ok_and(|value| value == "1") => {
                    let program = command.get_program().display();
                    return Err(format!("USHER_REQUIRE_PEERS=1, but {program} can't be run: {error}").into());
                }
                Err(error) => error.to_string(),
            };
            eprintln!("skipped: no small disk can be mounted: {reason}");
            return Ok(None);
        }
        Ok(Some(self))
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all the room there is.
    pub(crate) fn fill(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut filler = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())?;
        for size in [1 << 16, 1 << 12, 1] {
            loop {
                match filler.write_all(&vec![1; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.filler())
    }

    /// Makes every write wait until what is given back is dropped.
    #[allow(dead_code)] // as above
    pub(crate) fn freeze(&self) -> Result<Frozen, String> {
        match failure(Command::new("fsfreeze").arg("--freeze").arg(self.path())) {
            Some(reason) => Err(reason),
            None => Ok(Frozen(self.path().to_owned())),
        }
    }

    /// Makes it read-only, or writable again. Nobody may have a file open for writing.
    pub(crate) fn set_read_only(&self, is_read_only: bool) -> Result<(), Box<dyn std::error::Error>> {
        let mode = if is_read_only { "remount,ro" } else { "remount,rw" };
        match failure(Command::new("mount").args(["-o", mode]).arg(self.path())) {
            Some(reason) => Err(reason.into()),
            None => Ok(()),
        }
    }
}

/// Why a command did not do what it should; none when it did.
fn failure(command: &mut Command) -> Option<String> {
    let reason = match command.output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!("{}: {reason}", command.get_program().display()))
}

/// A disk on which writes wait. Whoever waits there can't even be killed, so drop this before anything that does.
pub(crate) struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).output();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may take a moment to let go of it. When it was never mounted this says so to
        // nobody.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
