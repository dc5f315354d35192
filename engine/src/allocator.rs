//! The allocator keeps the memory that it has for some minutes: giving it back to the system and taking it again stops whoever asks.

use std::ffi::{OsStr, OsString};

/// What mimalloc reads of the environment before `main` begins, and what is right here.
///
/// Free memory goes back to the system after 1,000 ms, about as long as from one checkpoint to the next: after five minutes instead.
/// Were it never, a process would have the most that it ever needed at once, which now and then is more than all before.
/// And memory is taken in pages of 2 MiB, which the system clears when the first byte is touched: in those of 4 KiB.
const SETTINGS: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "300000"), ("MIMALLOC_ALLOW_THP", "0")];

/// Begins the process anew with an allocator that keeps free memory for what comes next; what the environment says of it
/// already stays. To be called first in `main`; does nothing where a process can't be begun anew.
///
/// A checkpoint frees what it has written down, some megabytes. Given back and asked for again they hold up events: all
/// threads wait while pages are unmapped, and each page is cleared when it is touched next.
pub fn keep_memory() {
    let is_missing = |name: &str| std::env::var_os(name).is_none();
    let missing = SETTINGS.into_iter().filter(|(name, _)| is_missing(name));
    let missing: Vec<(&str, &str)> = missing.collect();
    if let ([_, ..], Some((name, rest))) = (&*missing, std::env::args_os().collect::<Vec<_>>().split_first()) {
        begin_anew(name, rest, &missing);
    }
}

#[cfg(unix)]
fn begin_anew(name: &OsStr, arguments: &[OsString], environment: &[(&str, &str)]) {
    use std::os::unix::process::CommandExt;

    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // It comes back only where that can't be done; the process is as good as it was then.
    let _ = std::process::Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(environment.iter().copied())
        .exec();
}

#[cfg(not(unix))]
fn begin_anew(_name: &OsStr, _arguments: &[OsString], _environment: &[(&str, &str)]) {}
