//! A flood is one client that publishes as fast as the broker takes it: just enough MQTT to cost little.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Publications under way at a time.
const WINDOW: u64 = 200;

/// How the messages of a flood go out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wave {
    /// At QoS 0: nobody says whether they came.
    Forgotten,
    /// At QoS 1.
    Acknowledged,
    /// At QoS 1, and the broker keeps the last of each topic.
    Retained,
}

/// Publishes what `message` gives for each number below `count`, a topic and a payload, and waits until the broker has
/// acknowledged all of it where it does.
pub(crate) async fn publish(
    address: SocketAddr,
    client_id: &str,
    count: u64,
    wave: Wave,
    message: impl Fn(u64) -> (String, String),
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connect = string("MQTT");
    // Version 5, clean start, keep alive 600 s, no properties.
    connect.extend([5, 2, 2, 88, 0]);
    connect.extend(string(client_id));
    stream.write_all(&packet(0x10, &connect)).await?;
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut held = 0;
    let (mut sent, mut answered) = (0, 0);
    let mut out = Vec::with_capacity(64 * 1024);
    let mut is_connected = false;
    while answered < count {
        out.clear();
        while is_connected && sent < count && sent - answered < WINDOW {
            let (topic, payload) = message(sent);
            sent += 1;
            let mut body = string(&topic);
            let first = match wave {
                Wave::Forgotten => 0x30,
                Wave::Acknowledged => 0x32,
                Wave::Retained => 0x33,
            };
            if wave == Wave::Forgotten {
                answered += 1;
            } else {
                body.extend(u16::try_from(sent % 65_000 + 1).expect("small").to_be_bytes());
            }
            body.push(0);
            body.extend(payload.as_bytes());
            out.extend(packet(first, &body));
            if out.len() > 32 * 1024 {
                break;
            }
        }
        stream.write_all(&out).await?;
        if is_connected && wave == Wave::Forgotten {
            continue;
        }
        let read = stream.read(&mut buffer[held..]).await?;
        if read == 0 {
            return Err(std::io::Error::other("the broker closed the connection"));
        }
        held += read;
        let mut at = 0;
        // Whatever a broker sends such a client is short.
        while held - at >= 2 && held - at >= 2 + usize::from(buffer[at + 1]) {
            let length = usize::from(buffer[at + 1]);
            match buffer[at] {
                0x20 if buffer[at + 3] == 0 => is_connected = true,
                // Longer than its packet's number, it says why; 0x80 and above is a refusal.
                0x40 if length == 2 || buffer[at + 4] < 0x80 => answered += 1,
                other => return Err(std::io::Error::other(format!("the broker answered {other:#x}"))),
            }
            at += 2 + length;
        }
        buffer.copy_within(at..held, 0);
        held -= at;
    }
    // Goodbye, after everything before it: a connection that is cut may lose what the broker has not read yet.
    stream.write_all(&[0xe0, 0]).await?;
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Subscribes at QoS 1 under a session that outlives the connection, and leaves without a goodbye.
pub(crate) async fn subscribe_and_leave(address: SocketAddr, client_id: &str, filter: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut connect = string("MQTT");
    // Version 5, clean start, keep alive 600 s, one property: the session expires after 3,600 s.
    connect.extend([5, 2, 2, 88, 5, 0x11, 0, 0, 14, 16]);
    connect.extend(string(client_id));
    stream.write_all(&packet(0x10, &connect)).await?;
    // The packet's number, no properties, the filter, QoS 1.
    let mut subscribe = vec![0, 1, 0];
    subscribe.extend(string(filter));
    subscribe.push(1);
    for (sent, answer) in [(None, 0x20), (Some(packet(0x82, &subscribe)), 0x90)] {
        if let Some(sent) = sent {
            stream.write_all(&sent).await?;
        }
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let mut body = vec![0; usize::from(head[1])];
        stream.read_exact(&mut body).await?;
        if head[0] != answer {
            return Err(std::io::Error::other(format!("the broker answered {:#x}", head[0])));
        }
    }
    Ok(())
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A packet: first byte, remaining length below 16,384, body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = vec![first];
    if length < 128 {
        bytes.push(u8::try_from(length).expect("small"));
    } else {
        let (high, low) = (length / 128, length % 128);
        bytes.extend([
            u8::try_from(low).expect("small") | 128,
            u8::try_from(high).expect("below 16,384"),
        ]);
    }
    bytes.extend(body);
    bytes
}
