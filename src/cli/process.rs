//! Node processes on this machine: who they are, whether they live, and how they are told to stop.
//!
//! A node that has opened its doors keeps `node.pid` in its data folder: its process id and the moment, in the kernel's ticks,
//! at which that process began. Ids are used again, pairs are not: a signal goes to a process only when both agree.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A process that is not mistaken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    pub pid: u32,
    /// When it began, in ticks since the machine did.
    pub started: u64,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop in order.
    Terminate,
    /// Be gone.
    Kill,
}

impl ProcessId {
    /// This very process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this id now; `None` when there is none, or only its remains.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything; the last ')' ends it.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X" | "x")).then_some(Self { pid, started })
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Tells it; nothing happens when it is gone.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let number = match signal {
            Signal::Terminate => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
        };
        let Ok(pid) = libc::pid_t::try_from(self.pid) else { return Ok(()) };
        // SAFETY: kill takes two integers and touches no memory of ours. `pid` is positive: it names one process, no group.
        if unsafe { libc::kill(pid, number) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }
}

/// The file that says "I am open", for as long as this lives.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    pub fn path(data: &Path) -> PathBuf {
        data.join("node.pid")
    }

    /// Says it. Only a node that holds the lock of its data folder may.
    pub fn write(data: &Path) -> io::Result<Self> {
        let own = ProcessId::own().ok_or_else(|| io::Error::other("this process is not in /proc"))?;
        let path = Self::path(data);
        // Renamed into place, so that nobody reads half a number.
        let new = data.join("node.pid.new");
        fs::write(&new, format!("{} {}\n", own.pid, own.started))?;
        fs::rename(&new, &path)?;
        Ok(Self { path })
    }

    /// The node that is open on this data folder, if one is.
    pub fn read(data: &Path) -> Option<ProcessId> {
        let text = fs::read_to_string(Self::path(data)).ok()?;
        let (pid, started) = text.trim_end().split_once(' ')?;
        let named = ProcessId { pid: pid.parse().ok()?, started: started.parse().ok()? };
        named.is_alive().then_some(named)
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Left behind it does no harm: nobody believes a dead process.
        let _ = fs::remove_file(&self.path);
    }
}

/// A lock on a folder that ends with the process that holds it.
#[derive(Debug)]
pub struct FolderLock {
    _file: fs::File,
}

impl FolderLock {
    /// `None`: somebody else holds it.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        use std::os::fd::AsRawFd;
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        // SAFETY: the descriptor is open for as long as `file`; flock touches no memory of ours.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Some(Self { _file: file }));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(None),
            error => Err(error),
        }
    }
}

/// The last lines of a text file, however long it is; empty when it cannot be read.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    const TAIL_BYTES: u64 = 16 << 10;
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_beginning_too() {
        let own = ProcessId::own().expect("this process lives");
        assert!(own.is_alive());
        let other = ProcessId { started: own.started + 1, ..own };
        assert!(!other.is_alive());
        other.signal(Signal::Kill).expect("nothing happens");
    }

    #[test]
    fn a_child_that_was_killed_is_not_alive_though_unburied() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let process = ProcessId::of(child.id()).expect("it lives");
        process.signal(Signal::Kill).expect("it can be killed");
        for _ in 0..100 {
            if !process.is_alive() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!process.is_alive());
        child.wait().expect("it ended");
    }

    #[test]
    fn the_ready_file_speaks_for_a_living_process_only() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(ReadyFile::read(folder.path()), None);
        let ready = ReadyFile::write(folder.path()).expect("written");
        assert_eq!(ReadyFile::read(folder.path()), ProcessId::own());
        drop(ready);
        assert_eq!(ReadyFile::read(folder.path()), None);
        for text in ["", "x", "1", "1 1\n", "99999999999 1\n"] {
            fs::write(ReadyFile::path(folder.path()), text).expect("written");
            assert_eq!(ReadyFile::read(folder.path()), None, "{text}");
        }
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let held = FolderLock::take(&path).expect("no error").expect("it is free");
        assert!(FolderLock::take(&path).expect("no error").is_none());
        drop(held);
        assert!(FolderLock::take(&path).expect("no error").is_some());
    }

    #[test]
    fn the_tail_of_a_file_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        assert!(last_lines(&path, 3).is_empty());
        let lines: Vec<String> = (0..10_000).map(|number| format!("line {number}")).collect();
        fs::write(&path, lines.join("\n")).expect("written");
        assert_eq!(last_lines(&path, 2), ["line 9998", "line 9999"]);
    }
}
