//! A mosquitto of the test's own, to be a broker of one's own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A running broker on a free loopback port. Dropping it ends it.
pub(crate) struct Mosquitto {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one, or says on standard error why the test is skipped. With `USHER_REQUIRE_PEERS=1` a missing
    /// mosquitto is a failure.
    pub(crate) fn start() -> Result<Option<Self>, String> {
        let Some(mut broker) = Self::prepare()? else {
            return Ok(None);
        };
        broker.resume()?;
        Ok(Some(broker))
    }

    /// As [`Mosquitto::start`], but not yet running.
    pub(crate) fn prepare() -> Result<Option<Self>, String> {
        let Some(program) = find() else {
            if std::env::var("USHER_REQUIRE_PEERS").is_ok_and(|value| value == "1") {
                return Err("USHER_REQUIRE_PEERS=1, but there is no mosquitto in PATH or /usr/sbin".to_owned());
            }
            eprintln!("skipped: no mosquitto in PATH or /usr/sbin");
            return Ok(None);
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let config =
            format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n");
        fs::write(folder.path().join("mosquitto.conf"), config).map_err(|error| error.to_string())?;
        Ok(Some(Self {
            program,
            folder,
            port,
            child: None,
        }))
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would; it keeps nothing.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it, on the same port, and waits until it listens.
    pub(crate) fn resume(&mut self) -> Result<(), String> {
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.program.display()))?;
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if Instant::now() > deadline {
                return Err(format!("mosquitto does not listen on {address}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join("mosquitto"))
        .find(|program| program.is_file())
}
