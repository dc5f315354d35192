//! Background work takes the cores when events leave them: it runs on a thread of its own, behind all others.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
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
            stand_behind_others();
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

fn stand_behind_others() {
    // Where the system does not allow it the work is done all the same.
    if let Ok(priority) = ThreadPriorityValue::try_from(PRIORITY)
        && let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(priority))
    {
        tracing::debug!(?error, "background work has the priority of all other");
    }
}

/// Something to be done.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// One such thread for work that comes again and again. It ends when all that was handed over is done and this is dropped.
///
/// The allocator keeps free memory by thread, and gives a new one not always what one that has ended left behind. A thread a
/// checkpoint was some megabytes more every few minutes.
pub(crate) struct Background(mpsc::Sender<Work>);

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Work>();
        Builder::new().name(name.to_owned()).spawn(move || {
            stand_behind_others();
            for work in receiver {
                // Whoever handed it over sees that it came to nothing; the next one is done all the same.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        })?;
        Ok(Self(sender))
    }

    /// Hands over work, which is done when what was handed over before is.
    pub(crate) fn hand_over(&self, work: Work) {
        // The thread is there for as long as this is.
        let _ = self.0.send(work);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{Background, done_in_background};

    #[test]
    fn work_that_is_handed_over_is_done_on_one_thread_in_its_order_also_behind_a_panic() {
        let background = Background::start("test").expect("a thread");
        let (sender, done) = mpsc::channel();
        for number in 0..4 {
            let sender = sender.clone();
            background.hand_over(Box::new(move || {
                assert!(number != 1, "broken");
                sender
                    .send((number, std::thread::current().id()))
                    .expect("it is waited for");
            }));
        }
        drop((background, sender));
        let done: Vec<_> = done.iter().collect();
        assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2, 3]);
        assert!(done.iter().all(|(_, thread)| *thread == done[0].1), "{done:?}");
        assert_ne!(done[0].1, std::thread::current().id());
    }

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
