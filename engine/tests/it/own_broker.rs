//! A broker of one's own: mosquitto on a free loopback port. It can be stopped, and started again with what it kept.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::{PATIENCE, TestResult, peer};

/// A mosquitto; dropping it ends it.
pub(crate) struct Mosquitto {
    child: Child,
    port: u16,
    program: PathBuf,
    publish: PathBuf,
    folder: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts one that keeps nothing over a restart; none, with a printed reason, where there is no mosquitto.
    pub(crate) async fn start() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        Self::start_with("persistence false\n").await
    }

    /// Starts one that keeps sessions, queues and retained messages when it is stopped.
    pub(crate) async fn start_keeping() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        Self::start_with("persistence true\n").await
    }

    async fn start_with(persistence: &str) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let (Some(program), Some(publish)) = (peer("mosquitto")?, peer("mosquitto_pub")?) else {
            return Ok(None);
        };
        let port = free_port()?;
        let folder = tempfile::tempdir()?;
        let kept = folder.path().display();
        // Started by root it would become another user, who may not write into the folder. A queue without a limit,
        // because a broker that drops what it acknowledged would be blamed on Usher.
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n\
             max_inflight_messages 500\npersistence_location {kept}/\n{persistence}"
        );
        std::fs::write(config_of(folder.path()), config)?;
        let child = spawn(&program, &config_of(folder.path()))?;
        let mut broker = Self {
            child,
            port,
            program,
            publish,
            folder,
        };
        broker.listens().await?;
        Ok(Some(broker))
    }

    async fn listens(&mut self) -> TestResult {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("mosquitto ended with {status} before it listened on {}", self.port).into());
            }
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends it as an administrator would. All connections are lost; a broker that keeps anything keeps it now.
    pub(crate) async fn stop(&mut self) -> TestResult {
        let ended = Command::new("kill").arg(self.child.id().to_string()).status()?;
        assert!(ended.success());
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            assert!(Instant::now() < deadline, "mosquitto does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Starts it again on the same port, after [`Mosquitto::stop`].
    pub(crate) async fn start_again(&mut self) -> TestResult {
        self.child = spawn(&self.program, &config_of(self.folder.path()))?;
        self.listens().await
    }

    /// Publishes as a device would: QoS 1, and done when the broker has it.
    pub(crate) fn publish(&self, topic: &str, payload: &[&str]) -> TestResult {
        let status = Command::new(&self.publish)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", topic])
            .args(payload)
            .status()?;
        assert!(status.success());
        Ok(())
    }
}

/// A free port that nobody is given by chance before mosquitto takes it: below those that a system gives out by itself,
/// and never the same twice.
fn free_port() -> Result<u16, Box<dyn std::error::Error>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    // Another run of these tests at the same time begins elsewhere.
    let first = u16::try_from(std::process::id() * 64 % u32::from(PORTS.end - PORTS.start))?;
    for _ in PORTS {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no port of {PORTS:?} is free").into())
}

fn config_of(folder: &Path) -> PathBuf {
    folder.join("mosquitto.conf")
}

fn spawn(program: &Path, config: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
