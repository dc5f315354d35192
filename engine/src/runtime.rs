//! The runtime of the binary: each of its workers keeps to a core of its own.
//!
//! The system puts a thread that is woken beside the one that woke it. Of two workers on one core each takes it from the other
//! in the middle of its work, for up to 5 ms, while another core is free.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// A runtime with as many workers as there are cores, at least two: the pipeline can keep one busy, and there has to be another
/// for those who speak and ask meanwhile.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> io::Result<Runtime> {
    let workers = available_parallelism().map_or(2, NonZero::get).max(2);
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        // A question over HTTP may be as deep as queries may.
        .thread_stack_size(8 << 20)
        .enable_all();
    #[cfg(target_os = "linux")]
    cores::one_for_each(&mut builder, workers);
    builder.build()
}

#[cfg(target_os = "linux")]
mod cores {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;
    use tokio::runtime::Builder;

    thread_local! {
        static HAS_ITS_CORE: Cell<bool> = const { Cell::new(false) };
    }

    /// The numbers of the cores in a set.
    pub(super) fn numbers(set: &CpuSet) -> Vec<usize> {
        let is_in = |core: &usize| set.is_set(*core).unwrap_or(false);
        (0..CpuSet::count()).filter(is_in).collect()
    }

    /// The calling thread runs on these cores alone. Where the system does not allow it, it runs where it did.
    fn keep_to(cores: &CpuSet) {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), cores) {
            tracing::debug!(%error, "a thread can't be kept to its cores");
        }
    }

    /// Gives each worker a core, where there are as many as workers. With a share of more cores than that, which is how
    /// containers are bounded, all processes of a machine would be on its first ones.
    pub(super) fn one_for_each(builder: &mut Builder, workers: usize) {
        let Ok(all) = sched_getaffinity(Pid::from_raw(0)) else {
            return;
        };
        let cores = numbers(&all);
        if cores.len() != workers {
            return;
        }
        // Threads begin on the cores of whoever started them, and those that wait for disks are to go anywhere.
        builder.on_thread_start(move || keep_to(&all));
        let taken = AtomicUsize::new(0);
        // Only workers are parked, so that this tells them from those other threads.
        builder.on_thread_park(move || {
            if HAS_ITS_CORE.replace(true) {
                return;
            }
            let mut own = CpuSet::new();
            if let Some(core) = cores.get(taken.fetch_add(1, Ordering::Relaxed))
                && own.set(*core).is_ok()
            {
                keep_to(&own);
            }
        });
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use nix::sched::sched_getaffinity;
    use nix::unistd::Pid;

    use super::cores::numbers;
    use super::*;

    /// The cores that the calling thread may use.
    fn own_cores() -> Vec<usize> {
        numbers(&sched_getaffinity(Pid::from_raw(0)).expect("the system tells"))
    }

    #[test]
    fn workers_have_a_core_each_and_others_go_anywhere() {
        let all = own_cores();
        let workers = available_parallelism().expect("the system tells").get();
        if workers < 2 || all.len() != workers {
            println!("skipped: {workers} workers have {} cores to choose from", all.len());
            return;
        }
        let runtime = runtime().expect("there are threads");
        let patience = Instant::now() + Duration::from_secs(20);
        let mut kept = BTreeSet::new();
        while kept.len() < workers {
            assert!(Instant::now() < patience, "workers are on {kept:?} of {all:?}");
            // So many at once that all workers have something to do, having been idle before.
            let asked: Vec<_> = (0..4 * workers)
                .map(|_| {
                    runtime.spawn(async {
                        std::thread::sleep(Duration::from_millis(2));
                        own_cores()
                    })
                })
                .collect();
            for cores in asked {
                let cores = runtime.block_on(cores).expect("it answers");
                if cores.len() == 1 {
                    kept.insert(cores);
                }
            }
        }
        assert_eq!(kept.into_iter().flatten().collect::<Vec<_>>(), all);
        let elsewhere = runtime.spawn(async { tokio::task::spawn_blocking(own_cores).await });
        let elsewhere = runtime.block_on(elsewhere).expect("it answers");
        assert_eq!(elsewhere.expect("it answers"), all);
        assert_eq!(own_cores(), all, "whoever made it stays where it was");
    }
}
