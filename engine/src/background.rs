//! Background work takes the cores when events leave them: it runs on a thread of its own, behind all others.

use std::any::Any;
use std::thread::{Builder, Result};

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// Where such a thread stands, of 0 to 99: on Linux nine steps of niceness behind the others, about an eighth of their share
/// of a core that is fought for. Behind that it would hardly come to its end on a busy machine.
const PRIORITY: u8 = 25;

/// Does `work` on such a thread and waits for it; where it panics that is the error. To be called where waiting keeps
/// nobody else from going on.
///
/// # Errors
/// What the work said as it panicked.
pub(crate) fn done_in_background<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            // Where the system does not allow it the work is done all the same.
            if let Ok(priority) = ThreadPriorityValue::try_from(PRIORITY)
                && let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(priority))
            {
                tracing::debug!(?error, "background work has the priority of all other");
            }
            work()
        });
        match thread {
            Ok(thread) => thread.join(),
            Err(error) => {
                let words: Box<dyn Any + Send> = Box::new(format!("no thread for it: {error}"));
                Err(words)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::done_in_background;

    #[test]
    fn work_gives_what_it_comes_to_or_why_it_does_not() {
        assert_eq!(done_in_background("test", || 1 + 1).expect("it is done"), 2);
        let panic = done_in_background("test", || panic!("broken")).expect_err("it panics");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"broken"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn it_stands_behind_others() {
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("the system tells of threads");
            let behind_the_name = stat.rsplit_once(") ").expect("the name is in brackets").1;
            let niceness = behind_the_name.split(' ').nth(16).expect("it is the nineteenth");
            niceness.parse::<i64>().expect("a number")
        };
        let own = niceness();
        let theirs = done_in_background("test", niceness).expect("it is done");
        // Run by somebody who stands behind others already, there is nothing to see.
        assert!(theirs == 9 || own >= 9, "{theirs} behind {own}");
        assert_eq!(niceness(), own);
    }
}
