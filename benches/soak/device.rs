//! A device publishes at QoS 1 by itself: just enough MQTT to cost little beside the engine, which shares the cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Publications one connection may have under way.
const WINDOW: u64 = 1_000;

/// One connection.
pub(crate) struct Device {
    writer: OwnedWriteHalf,
    out: Vec<u8>,
    sent: u64,
    answered: Arc<AtomicU64>,
}

impl Device {
    /// Connects under this name.
    pub(crate) async fn connect(address: std::net::SocketAddr, name: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        let mut connect = string("MQTT");
        // Version 5, clean start, keep alive 600 s, no properties.
        connect.extend([5, 2, 2, 88, 0]);
        connect.extend(string(name));
        let mut out = Vec::with_capacity(16 * 1024);
        packet(&mut out, 0x10, &connect);
        writer.write_all(&out).await?;
        let mut buffer = [0_u8; 1_024];
        let read = reader.read(&mut buffer).await?;
        if read < 4 || buffer[0] != 0x20 || buffer[3] != 0 {
            return Err(std::io::Error::other("the broker does not take the connection"));
        }
        out.clear();
        let answered = Arc::new(AtomicU64::new(0));
        tokio::spawn(hear(reader, Arc::clone(&answered)));
        Ok(Self {
            writer,
            out,
            sent: 0,
            answered,
        })
    }

    /// Puts a message behind those that wait for [`Device::flush`].
    pub(crate) fn put(&mut self, topic: &str, payload: &str) {
        self.sent += 1;
        let mut body = string(topic);
        body.extend(u16::try_from(self.sent % 65_000 + 1).expect("small").to_be_bytes());
        body.push(0);
        body.extend(payload.as_bytes());
        packet(&mut self.out, 0x32, &body);
    }

    /// Sends what waits.
    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        self.writer.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// How much more may be put before something is acknowledged.
    pub(crate) fn room(&self) -> u64 {
        WINDOW.saturating_sub(self.sent - self.answered.load(Ordering::Acquire))
    }

    /// What was put.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// What was acknowledged.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }
}

/// Counts acknowledgements for as long as the connection lives.
async fn hear(mut reader: OwnedReadHalf, answered: Arc<AtomicU64>) {
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut held = 0;
    while let Ok(read) = reader.read(&mut buffer[held..]).await {
        if read == 0 {
            return;
        }
        held += read;
        let mut at = 0;
        while held - at >= 2 && held - at >= 2 + usize::from(buffer[at + 1]) {
            let length = usize::from(buffer[at + 1]);
            // Longer than its packet's number, it says why; 0x80 and above is a refusal.
            assert!(
                buffer[at] == 0x40 && (length == 2 || buffer[at + 4] < 0x80),
                "the broker took it"
            );
            at += 2 + length;
            answered.fetch_add(1, Ordering::Release);
        }
        buffer.copy_within(at..held, 0);
        held -= at;
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A packet: first byte, remaining length below 16,384, body.
fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    let length = body.len();
    out.push(first);
    if length < 128 {
        out.push(u8::try_from(length).expect("small"));
    } else {
        out.push(u8::try_from(length % 128).expect("small") | 128);
        out.push(u8::try_from(length / 128).expect("below 16,384"));
    }
    out.extend(body);
}
